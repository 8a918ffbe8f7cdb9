"""Constant folding."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx_ir
from onnx_ir import Model, Node, Value

from hqc.analysis.dependence import computed_values
from hqc.ir import add_constant, constant, nodes
from hqc.ir.names import kept_names
from hqc.ir.onnxruntime_session import session
from hqc.ir.operators import is_quantiser
from hqc.pipeline.passes import Outcome, Pass


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Evaluate operators whose inputs are all constants, and shapes that are known.

    Quantisers of constants stay: `fold-quantizers` turns them into codes. Arithmetic follows the
    model's own operators in onnxruntime, so the values are those that the model has today.
    """

    name: ClassVar[str] = "fold-constants"

    def rewrite(self, model: Model) -> Outcome:
        """Fold in one sweep; nodes come in topological order."""
        with kept_names(model.graph):
            return Outcome(model, _fold(model))


def _fold(model: Model) -> int:
    rewrites = 0
    computed = computed_values(model.graph)
    for node in nodes(model.graph):
        folded = _evaluate(model, node, computed)
        if folded is None:
            continue
        out = node.outputs[0]
        name = str(out.name)
        out.name = f"{name}__folded"
        value = add_constant(model.graph, name, folded)
        onnx_ir.convenience.replace_all_uses_with(out, value)
        model.graph.remove(node, safe=True)
        rewrites += 1
    return rewrites


def _evaluate(model: Model, node: Node, computed: Container[Value]) -> np.ndarray[Any, Any] | None:
    if len(node.outputs) != 1 or node.outputs[0].is_graph_output() or is_quantiser(node):
        return None
    if node.op_type == "Constant":
        return constant(node.outputs[0])
    if node.op_type == "Shape":
        shape = node.inputs[0].shape if node.inputs[0] is not None else None
        if shape is None or not all(isinstance(d, int) for d in shape):
            return None
        dims = [d for d in shape if isinstance(d, int)]
        first = node.attributes.get_int("start", 0)
        last = node.attributes.get_int("end", len(dims))
        return np.array(dims[first:last], np.int64)
    if node.domain != "" or any(v in computed for v in node.inputs):
        return None
    if _is_grid_expression(node):
        return None
    arrays = [constant(v) for v in node.inputs if v is not None]
    if not arrays or any(a is None for a in arrays):
        return None
    return _run(model, node)


def _is_grid_expression(node: Node) -> bool:
    """Codes times scale: the form in which folded weights are kept."""
    from hqc.analysis.grid_constants import grid_constant

    return grid_constant(node.outputs[0]) is not None


def _run(model: Model, node: Node) -> np.ndarray[Any, Any]:
    proto = onnx_ir.serde.serialize_node(node)
    graph = onnx.GraphProto(name="constant")
    graph.node.append(proto)
    for value in node.inputs:
        if value is not None and value.name:
            array = constant(value)
            assert array is not None
            graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), value.name))
    graph.output.append(onnx.ValueInfoProto(name=proto.output[0]))
    return np.asarray(session(graph, model.opset_imports.get("", 18)).run(None, {})[0])
