"""Operators that `normalize` writes as others which mean exactly the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir
from onnx_ir import Graph, Node, Value

from hqc.analysis.rearrangements import sample_shape
from hqc.analysis.semantics import exact_values_known
from hqc.ir import add_constant, constant, fresh_name, make_node

_REDUCTIONS = {
    "ReduceMean": "GlobalAveragePool",
    "ReduceSum": "GlobalAveragePool",
    "ReduceMax": "GlobalMaxPool",
}


class Builder:
    """Nodes that take the place of one, in order."""

    def __init__(self, node: Node):
        graph = node.graph
        assert graph is not None
        self.graph: Graph = graph
        self.node = node
        self.name = node.name or str(node.outputs[0].name)
        self.out = node.outputs[0]
        self.new: list[Node] = []

    def add(
        self,
        op: str,
        inputs: Sequence[Value | None],
        suffix: str,
        dims: Sequence[int] | None = None,
        **attributes: int | float | list[int],
    ) -> Value:
        """One more node; `dims` is the shape per sample where it is not that of the old output."""
        name = fresh_name(self.graph, f"{self.name}_{suffix}")
        made = make_node(op, inputs, like=self.out, name=name, attributes=attributes)
        if dims is not None:
            batch = (self.out.shape or ("N",))[0]
            made.outputs[0].shape = onnx_ir.Shape((batch, *dims))
        self.new.append(made)
        return made.outputs[0]

    def number(self, value: float, suffix: str) -> Value:
        """A float32 constant."""
        return add_constant(self.graph, f"{self.name}_{suffix}", np.array(value, np.float32))

    def integers(self, values: Sequence[int], suffix: str) -> Value:
        """A list of whole numbers."""
        return add_constant(self.graph, f"{self.name}_{suffix}", np.array(values, np.int64))

    def reshaped(self, x: Value, dims: Sequence[int], suffix: str) -> Value:
        """Elements in order, in another shape per sample."""
        return self.add("Reshape", (x, self.integers([-1, *dims], f"{suffix}_shape")), suffix, dims)

    def constant_shape(self, x: Value, dims: Sequence[int], suffix: str) -> Value:
        """A constant expression in another shape."""
        shape = self.integers(dims, f"{suffix}_shape")
        value = self.add("Reshape", (x, shape), suffix)
        value.shape = onnx_ir.Shape(tuple(dims))
        return value


def respelt(node: Node) -> Sequence[Node] | None:
    """The nodes that mean the same, or None where the spelling is the right one."""
    rule = _RULES.get(node.op_type)
    if rule is None or node.domain != "":
        return None
    built = Builder(node)
    return built.new if rule(built) and built.new else None


def _biased(b: Builder) -> bool:
    """A convolution's bias becomes an Add."""
    node = b.node
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return False
    x, w = node.inputs[0], node.inputs[1]
    assert x is not None
    assert w is not None
    rank = len(x.shape or ())
    attributes = dict(node.attributes)
    product = b.add(node.op_type, (x, w), "sum")
    for name, attribute in attributes.items():
        b.new[-1].attributes[name] = attribute
    size = bias.shape[0] if bias.shape is not None else None
    if not isinstance(size, int) or rank < 3:
        return False
    column = b.constant_shape(bias, (1, size, *(1,) * (rank - 2)), "bias")
    b.add("Add", (product, column), "biased")
    return True


def _negated(b: Builder) -> bool:
    x = b.node.inputs[0]
    assert x is not None
    b.add("Mul", (x, b.number(-1.0, "minus_one")), "negated")
    return True


def _hard_sigmoid(b: Builder) -> bool:
    """max(0, min(1, alpha * x + beta))."""
    x = b.node.inputs[0]
    assert x is not None
    alpha, beta = b.node.attributes.get("alpha"), b.node.attributes.get("beta")
    slope = alpha.as_float() if alpha is not None else 0.2
    start = beta.as_float() if beta is not None else 0.5
    scaled = b.add("Mul", (x, b.number(slope, "alpha")), "scaled")
    moved = b.add("Add", (scaled, b.number(start, "beta")), "moved")
    b.add("Clip", (moved, b.number(0.0, "zero"), b.number(1.0, "one")), "clipped")
    return True


def _limit(b: Builder) -> bool:
    """Max and Min with one number clip."""
    given = [v for v in b.node.inputs if v is not None]
    data = [v for v in given if not exact_values_known(v)]
    limits = [constant(v) for v in given if exact_values_known(v)]
    if len(data) != 1 or len(limits) != 1 or limits[0] is None or limits[0].size != 1:
        return False
    number = b.number(float(limits[0].ravel()[0]), "limit")
    ends = (None, number) if b.node.op_type == "Min" else (number,)
    b.add("Clip", (data[0], *ends), "clipped")
    return True


def _reduced(b: Builder) -> bool:
    """A mean, sum or maximum over axes: a pooling of one long axis."""
    node = b.node
    x = node.inputs[0]
    assert x is not None
    dims = sample_shape(x)
    axes = _axes(node, len(dims) + 1)
    if axes is None or 0 in axes:
        return False
    kept = [a for a in range(1, len(dims) + 1) if a not in axes]
    order = [*kept, *axes]
    size = math.prod(dims[a - 1] for a in axes)
    count = math.prod(dims[a - 1] for a in kept)
    value = x
    if order != sorted(order):
        turned = [dims[a - 1] for a in order]
        value = b.add("Transpose", (value,), "turned", turned, perm=[0, *order])
    flat = b.reshaped(value, (count, size), "flat")
    pooled = b.add(_REDUCTIONS[node.op_type], (flat,), "pooled", (count, 1))
    if node.op_type == "ReduceSum":
        pooled = b.add("Mul", (pooled, b.number(size, "count")), "total", (count, 1))
    out = sample_shape(b.out)
    b.reshaped(pooled, out, "shaped")
    return True


def _axes(node: Node, rank: int) -> list[int] | None:
    """The axes of a reduction, sorted; None where they are computed."""
    attribute = node.attributes.get("axes")
    if attribute is not None:
        found = list(attribute.as_ints())
    elif len(node.inputs) > 1 and node.inputs[1] is not None:
        array = constant(node.inputs[1])
        if array is None:
            return None
        found = [int(a) for a in np.asarray(array).ravel()]
    else:
        found = list(range(rank))
    return sorted(a % rank for a in found)


def _wide_product(b: Builder) -> bool:
    """(N, ..., C) times (C, O): a convolution with windows of one over the axes between."""
    x, w = b.node.inputs
    if x is None or w is None or exact_values_known(x) or not exact_values_known(w):
        return False
    rank = len(x.shape or ())
    if rank not in (3, 4) or len(w.shape or ()) != 2:
        return False
    *steps, channels = sample_shape(x)
    (outputs,) = sample_shape(w)
    first, last = [0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]
    turned = b.add("Transpose", (x,), "turned", (channels, *steps), perm=first)
    rows = b.add("Transpose", (w,), "rows", perm=[1, 0])
    rows.shape = onnx_ir.Shape((outputs, channels))
    kernel = b.constant_shape(rows, (outputs, channels, *(1 for _ in steps)), "kernel")
    sums = b.add("Conv", (turned, kernel), "sums", (outputs, *steps))
    b.add("Transpose", (sums,), "back", (*steps, outputs), perm=last)
    return True


_RULES: Mapping[str, Callable[[Builder], bool]] = {
    "Conv": _biased,
    "ConvTranspose": _biased,
    "Neg": _negated,
    "HardSigmoid": _hard_sigmoid,
    "Max": _limit,
    "Min": _limit,
    "MatMul": _wide_product,
    **dict.fromkeys(_REDUCTIONS, _reduced),
}


def split_into_slices(node: Node) -> Sequence[Node]:
    """A Split as one Slice for each of its outputs, in order.

    Its sizes are those of its outputs, whichever way the node states them.
    """
    x, graph = node.inputs[0], node.graph
    assert x is not None
    assert graph is not None
    rank = len(x.shape or ())
    attribute = node.attributes.get("axis")
    axis = (attribute.as_int() if attribute is not None else 0) % rank
    start, new = 0, []
    for position, out in enumerate(node.outputs):
        size = (out.shape or ())[axis]
        if not isinstance(size, int):
            return ()
        name = f"{node.name}_{position}"
        bounds = [
            add_constant(graph, f"{name}_{what}", np.array([number], np.int64))
            for what, number in (("start", start), ("end", start + size), ("axis", axis))
        ]
        new.append(make_node("Slice", (x, *bounds), like=out, name=name))
        start += size
    return new
