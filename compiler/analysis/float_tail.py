"""The host's side behind the hardware: the model's own float operators, in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx_ir import Model, Node, Value

from hqc.analysis.dependence import computed_values
from hqc.analysis.grid_constants import grid_constant
from hqc.ir import Array, constant
from hqc.ir.onnxruntime_session import session


class FloatTail:
    """The tail as one onnxruntime session: the model's own float operators, in float32."""

    def __init__(self, model: Model, tail: tuple[Node, ...], entries: list[str]):
        self._outputs = [str(v.name) for v in model.graph.outputs]
        produced = {str(v.name) for node in tail for v in node.outputs}
        needed = not produced.isdisjoint(self._outputs)
        self._session = _session(model, tail, entries, self._outputs) if needed else None
        feeds = [i.name for i in self._session.get_inputs()] if self._session is not None else []
        #: Names of the values that it takes, as far as there are any.
        self.needs = frozenset((*feeds, *self._outputs))

    def __call__(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Graph outputs from the exact values (float64) that enter the tail."""
        out = {n: values[n].astype(np.float32) for n in self._outputs if n in values}
        if self._session is not None:
            feeds = {
                i.name: values[i.name].astype(np.float64 if "double" in i.type else np.float32)
                for i in self._session.get_inputs()
            }
            wanted = [o.name for o in self._session.get_outputs()]
            out.update(zip(wanted, self._session.run(wanted, feeds), strict=True))
        return {n: out[n] for n in self._outputs}


def _session(model: Model, tail: tuple[Node, ...], entries: list[str], outputs: list[str]) -> Any:
    produced = {str(v.name) for n in tail for v in n.outputs}
    graph = onnx.GraphProto(name="tail")
    used: dict[str, Value] = {}
    computed = computed_values(model.graph)
    for node in (*_constant_expressions(tail, computed), *tail):
        graph.node.append(onnx_ir.serde.serialize_node(node))
        used.update({str(v.name): v for v in node.inputs if v is not None})
        produced |= {str(v.name) for v in node.outputs}
    for name, value in used.items():
        if (array := _array(value, computed)) is not None:
            graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        elif name not in produced:
            graph.input.append(_free_shape(name, value))
    for value in model.graph.outputs:
        if value.name in produced:
            graph.output.append(_free_shape(str(value.name), value))
    return session(graph, model.opset_imports.get("", 18))


def _constant_expressions(tail: tuple[Node, ...], computed: set[Value]) -> list[Node]:
    """What computes constants that the tail reads, in order."""
    found: list[Node] = []
    pending = [v for node in tail for v in node.inputs if v not in computed]
    while pending:
        value = pending.pop()
        producer = value.producer() if value is not None else None
        if value is None or producer is None or producer in found:
            continue
        if _array(value, computed) is None:
            found.insert(0, producer)
            pending += producer.inputs
    return found


def _array(value: Value, computed: set[Value]) -> Array | None:
    """A constant, also as codes times a scale."""
    array = constant(value)
    grid = grid_constant(value) if array is None and value not in computed else None
    if grid is None:
        return array
    double = value.dtype == onnx_ir.DataType.DOUBLE
    numbers = np.array([float(v) for v in grid.values()], np.float64 if double else np.float32)
    return numbers.reshape(grid.codes.shape)


def _free_shape(name: str, value: Value) -> onnx.ValueInfoProto:
    dtype = int(value.dtype) if value.dtype is not None else onnx.TensorProto.FLOAT
    rank = len(value.shape) if value.shape is not None else 2
    return onnx.helper.make_tensor_value_info(name, dtype, [None] * rank)
