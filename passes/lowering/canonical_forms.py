"""Operators that `normalize` writes as others which mean exactly the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence

import numpy as np
from onnx_ir import Node, Value

from hqc.analysis.rearrangements import sample_shape
from hqc.diagnostics import reject
from hqc.ir import constant, location_of
from hqc.pipeline.node_builder import NodeBuilder

_REDUCTIONS = {
    "ReduceMean": "GlobalAveragePool",
    "ReduceSum": "GlobalAveragePool",
    "ReduceMax": "GlobalMaxPool",
}


def canonical_form(node: Node, computed: Container[Value] = frozenset()) -> Sequence[Node] | None:
    """The nodes that mean the same, or None where the spelling is the right one.

    Args:
        node: of the quantised graph.
        computed: values that are known to be no constant expressions.
    """
    rule = _RULES.get(node.op_type)
    if rule is None or node.domain != "":
        return None
    new = NodeBuilder.replacing(node, computed)
    return new.nodes if rule(node, new) and new.nodes else None


def _biased(node: Node, b: NodeBuilder) -> bool:
    """A convolution's bias becomes an Add."""
    x, w, *rest = node.inputs
    bias = rest[0] if rest else None
    if bias is None:
        return False
    rank = len(x.shape or ()) if x is not None else 0
    size = bias.shape[0] if bias.shape is not None else None
    if not isinstance(size, int) or rank < 3:
        return False
    product = b.add(node.op_type, (x, w), "sum", **node.attributes)
    column = b.constant_shape(bias, (1, size, *(1,) * (rank - 2)), "bias")
    b.add("Add", (product, column), "biased")
    return True


def _gemm(node: Node, b: NodeBuilder) -> bool:
    """A matrix product, scaled, and a bias."""
    x, w = node.inputs[0], node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if x is None or w is None or _float(node, "transA", 0):
        raise reject("HQC102", "Gemm with a transposed data input", where=location_of(node))
    alpha, beta = _float(node, "alpha", 1.0), _float(node, "beta", 1.0)
    if _float(node, "transB", 0):
        w = b.transposed(w, [1, 0], "W")
    product = b.add("MatMul", (x, w), "MatMul")
    if alpha != 1.0:
        product = b.add("Mul", (product, b.number(alpha, "alpha")), "scaled")
    if bias is not None and beta != 0.0:
        if beta != 1.0:
            raw = constant(bias)
            if raw is None:
                raise reject("HQC102", "Gemm with beta on a computed bias", where=location_of(node))
            bias = b.constant((raw * np.float32(beta)).astype(raw.dtype), "bias")
        b.add("Add", (product, bias), "Add")
    return True


def _float(node: Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.value)


def _flat(node: Node, b: NodeBuilder) -> bool:
    """A reshape of all axes but the batch into one is a Flatten."""
    source, out = node.inputs[0], node.outputs[0]
    if source is None or source.shape is None or out.shape is None:
        return False
    if b.is_constant(source) or len(out.shape) != 2 or len(source.shape) < 2:
        return False
    rest = [d for d in source.shape[1:] if isinstance(d, int)]
    same_batch = source.shape[0] == out.shape[0]
    if len(rest) != len(source.shape) - 1 or not same_batch or out.shape[1] != math.prod(rest):
        return False
    b.add("Flatten", (source,), "", axis=1)
    return True


def _negated(node: Node, b: NodeBuilder) -> bool:
    b.add("Mul", (node.inputs[0], b.number(-1.0, "minus_one")), "negated")
    return True


def _hard_sigmoid(node: Node, b: NodeBuilder) -> bool:
    """max(0, min(1, alpha * x + beta))."""
    slope = b.number(_float(node, "alpha", 0.2), "alpha")
    scaled = b.add("Mul", (node.inputs[0], slope), "scaled")
    moved = b.add("Add", (scaled, b.number(_float(node, "beta", 0.5), "beta")), "moved")
    b.add("Clip", (moved, b.number(0.0, "zero"), b.number(1.0, "one")), "clipped")
    return True


def _limit(node: Node, b: NodeBuilder) -> bool:
    """Max and Min with one number clip."""
    given = [v for v in node.inputs if v is not None]
    data = [v for v in given if not b.is_constant(v)]
    limits = [constant(v) for v in given if v not in data]
    if len(data) != 1 or len(limits) != 1 or limits[0] is None or limits[0].size != 1:
        return False
    number = b.number(float(limits[0].ravel()[0]), "limit")
    ends = (None, number) if node.op_type == "Min" else (number,)
    b.add("Clip", (data[0], *ends), "clipped")
    return True


def _reduced(node: Node, b: NodeBuilder) -> bool:
    """A mean, sum or maximum over axes: a pooling of one long axis."""
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
        value = b.transposed(value, [0, *order], "turned")
    flat = b.reshaped(value, (count, size), "flat")
    pooled = b.add(_REDUCTIONS[node.op_type], (flat,), "pooled", (count, 1))
    if node.op_type == "ReduceSum":
        pooled = b.add("Mul", (pooled, b.number(size, "count")), "total", (count, 1))
    b.reshaped(pooled, sample_shape(node.outputs[0]), "shaped")
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


def _wide_product(node: Node, b: NodeBuilder) -> bool:
    """(N, ..., C) times (C, O): a convolution with windows of one over the axes between."""
    x, w = node.inputs
    if x is None or w is None or b.is_constant(x) or not b.is_constant(w):
        return False
    rank = len(x.shape or ())
    if rank not in (3, 4) or len(w.shape or ()) != 2:
        return False
    *steps, channels = sample_shape(x)
    (outputs,) = sample_shape(w)
    first, last = [0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]
    turned = b.transposed(x, first, "turned")
    rows = b.transposed(w, [1, 0], "rows")
    kernel = b.constant_shape(rows, (outputs, channels, *(1 for _ in steps)), "kernel")
    sums = b.add("Conv", (turned, kernel), "sums", (outputs, *steps))
    b.transposed(sums, last, "back")
    return True


_RULES: Mapping[str, Callable[[Node, NodeBuilder], bool]] = {
    "Gemm": _gemm,
    "Reshape": _flat,
    "Squeeze": _flat,
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
    x = node.inputs[0]
    assert x is not None
    rank = len(x.shape or ())
    axis = node.attributes.get_int("axis", 0) % rank
    start, new = 0, []
    for position, out in enumerate(node.outputs):
        size = (out.shape or ())[axis]
        if not isinstance(size, int):
            return ()
        assert node.graph is not None
        b = NodeBuilder(node.graph, f"{node.name}_{position}", out)
        bounds = (("start", start), ("end", start + size), ("axis", axis))
        b.add("Slice", (x, *(b.integers([number], what) for what, number in bounds)), "")
        new += b.nodes
        start += size
    return new
