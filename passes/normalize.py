"""Normalisation: one spelling for what can be written in several ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir
from onnx_ir import Model, Node

from hqc.analysis.semantics import exact_values_known
from hqc.diagnostics import reject
from hqc.ir import (
    add_constant,
    bypass,
    constant,
    derive,
    location_of,
    make_node,
    nodes,
    replace_output,
)
from hqc.passes.lowering.canonical_forms import respelt, split_into_slices
from hqc.passes.lowering.commute_elementwise import hoist_elementwise
from hqc.passes.lowering.hoist_quantisers import hoist_quantisers
from hqc.pipeline.passes import Outcome, Pass

_NO_OPS = frozenset({"Identity", "Dropout"})


@dataclass(frozen=True)
class Normalize(Pass):
    """Rewrite what can be written in several ways to one, exactly, and drop no-ops.

    Gemm becomes MatMul and Add, a convolution's bias an Add, Split some Slices, reductions a
    pooling, and Identity and (inference-time) Dropout vanish. Quantisers of the inputs move in
    front of transposes, slices and the like, and so does what works element by element where a
    transpose mixes channels.
    """

    name: ClassVar[str] = "normalize"

    def rewrite(self, model: Model) -> Outcome:
        """One sweep in topological order."""
        rewrites = 0
        for node in nodes(model.graph):
            if node.domain != "":
                continue
            if node.op_type in _NO_OPS:
                before = len(tuple(model.graph))
                bypass(node)
                rewrites += before - len(tuple(model.graph))
            elif node.op_type == "Gemm":
                _gemm(model, node)
                rewrites += 1
            elif node.op_type in ("Reshape", "Squeeze") and _flattens(node):
                _flatten(node)
                rewrites += 1
            elif node.op_type == "Split":
                rewrites += _split(node)
            elif (new := respelt(node)) is not None:
                replace_output(node, new, self.name)
                rewrites += 1
        rewrites += hoist_quantisers(model) + hoist_elementwise(model)
        return Outcome(model, rewrites)


def _split(node: Node) -> int:
    new = split_into_slices(node)
    graph = node.graph
    if not new or graph is None:
        return 0
    derive(new, node, Normalize.name)
    graph.insert_before(node, new)
    for before, made in zip(node.outputs, new, strict=True):
        after, name = made.outputs[0], before.name
        onnx_ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
        before.name, after.name = f"{name}__replaced", name
    graph.remove(node, safe=True)
    return 1


def _flattens(node: Node) -> bool:
    source, out = node.inputs[0], node.outputs[0]
    if source is None or source.shape is None or out.shape is None:
        return False
    if exact_values_known(source) or len(out.shape) != 2 or len(source.shape) < 2:
        return False
    rest = [d for d in source.shape[1:] if isinstance(d, int)]
    if len(rest) != len(source.shape) - 1:
        return False
    same_batch = source.shape[0] == out.shape[0]
    return same_batch and out.shape[1] == int(np.prod(rest))


def _flatten(node: Node) -> None:
    source, out = node.inputs[0], node.outputs[0]
    assert source is not None
    new = make_node("Flatten", (source,), like=out, name=_name(node), attributes={"axis": 1})
    replace_output(node, (new,), Normalize.name)


def _gemm(model: Model, node: Node) -> None:
    graph = model.graph
    x, w = node.inputs[0], node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if x is None or w is None or _number(node, "transA", 0):
        raise reject("HQC102", "Gemm with a transposed data input", where=location_of(node))
    alpha, beta = _number(node, "alpha", 1.0), _number(node, "beta", 1.0)
    out = node.outputs[0]
    name = _name(node)
    new: list[Node] = []
    if _number(node, "transB", 0):
        perm = make_node("Transpose", (w,), like=w, name=f"{name}_W", attributes={"perm": [1, 0]})
        dims = tuple(w.shape) if w.shape is not None else ()
        perm.outputs[0].shape = onnx_ir.Shape(dims[::-1])
        new.append(perm)
        w = perm.outputs[0]
    product = make_node("MatMul", (x, w), like=out, name=f"{name}_MatMul")
    new.append(product)
    last = product
    if alpha != 1.0:
        factor = add_constant(graph, f"{name}_alpha", np.array(alpha, np.float32))
        last = make_node("Mul", (last.outputs[0], factor), like=out, name=f"{name}_scaled")
        new.append(last)
    if bias is not None and beta != 0.0:
        if beta != 1.0:
            raw = constant(bias)
            if raw is None:
                raise reject("HQC102", "Gemm with beta on a computed bias", where=location_of(node))
            bias = add_constant(graph, f"{name}_bias", (raw * np.float32(beta)).astype(raw.dtype))
        last = make_node("Add", (last.outputs[0], bias), like=out, name=f"{name}_Add")
        new.append(last)
    replace_output(node, new, Normalize.name)


def _number(node: Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    if attribute is None:
        return default
    return float(attribute.value)


def _name(node: Node) -> str:
    return node.name or str(node.outputs[0].name)
