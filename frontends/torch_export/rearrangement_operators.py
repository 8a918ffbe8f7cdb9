"""ATen operators that rearrange values, or pick some: shapes, slices, joins, extrema, tables."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Value
from torch import fx

from hqc.frontends.torch_export.translation import (
    Args,
    Builder,
    QuantisedConst,
    Translator,
    node_value,
    refuse,
)
from hqc.ir import add_constant

#: The end of a slice that has none.
_FAR = (1 << 31) - 1


def _axis(node: fx.Node, dim: Any, rank: int) -> int:
    """An axis counted from the front.

    Raises:
        HqcError: HQC104, it is that of the batch.
    """
    axis = int(dim) % rank
    if axis == 0:
        raise refuse("HQC104", f"{node.name} takes the batch apart", node, "leave axis 0 alone")
    return axis


def _rank(arg: fx.Node) -> int:
    return len(node_value(arg).shape)


def _sizes(node: fx.Node) -> list[int]:
    """Sizes behind the batch; `Builder.shape_of` refuses dynamic ones."""
    return [int(n) for n in node_value(node).shape[1:]]


def _integers(b: Builder, name: str, *values: int) -> Value:
    return add_constant(b.graph, b.unique(name), np.array(values, np.int64))


# --- shapes ---


def _reshape(b: Builder, node: fx.Node, a: Args) -> Value:
    shape = b.shape_of(node)
    b.shape_of(a["self"])
    if len(shape) == 2:
        return b.add("Flatten", [b.value(a["self"])], node, attributes={"axis": 1})
    goal = _integers(b, "shape", 0, *_sizes(node))
    return b.add("Reshape", [b.value(a["self"]), goal], node)


def _permute(b: Builder, node: fx.Node, a: Args) -> Value:
    perm = _permutation(a, _rank(node))
    found = b.find(a["self"])
    if not isinstance(found, QuantisedConst):
        return b.add("Transpose", [b.value(a["self"])], node, attributes={"perm": perm})
    if perm == [1, 0]:
        return b.value(a["self"], transposed=True)
    shape = onnx_ir.Shape([int(d) for d in node_value(node).shape])
    return b.add("Transpose", [b.value(a["self"])], node, attributes={"perm": perm}, shape=shape)


def _permutation(a: Args, rank: int) -> list[int]:
    perm = list(range(rank))
    if "dims" in a:
        return [int(d) % rank for d in a["dims"]]
    if "source" in a:
        ends = ([d] if isinstance(d, int) else list(d) for d in (a["source"], a["destination"]))
        return [int(i) for i in np.moveaxis(np.empty(perm), *ends).shape]
    i, j = (int(a.get(f"dim{k}", a.get(f"axis{k}", k)) or 0) % rank for k in (0, 1))
    perm[i], perm[j] = perm[j], perm[i]
    return perm


def _expand(b: Builder, node: fx.Node, a: Args) -> Value:
    b.shape_of(node)
    shape = _integers(b, "shape", 1, *_sizes(node))
    return b.add("Expand", [b.value(a["self"]), shape], node)


# --- parts ---


def _slice(b: Builder, node: fx.Node, a: Args) -> Any:
    rank = _rank(a["self"])
    start, end, step = int(a["start"] or 0), a["end"], int(a["step"])
    if start == 0 and step == 1 and (end is None or end == (1 << 63) - 1):
        return b.find(a["self"])
    axis = _axis(node, a["dim"], rank)
    stop = _FAR if end is None else min(int(end), _FAR)
    return _cut(b, node, a["self"], axis, start, stop, step)


def _cut(
    b: Builder,
    node: fx.Node,
    source: Any,
    axis: int,
    start: int,
    end: int,
    step: int = 1,
    shape: onnx_ir.Shape | None = None,
) -> Value:
    ends = [
        _integers(b, name, n)
        for name, n in (("starts", start), ("ends", end), ("axes", axis), ("steps", step))
    ]
    return b.add("Slice", [b.value(source), *ends], node, shape=shape)


def _narrow(b: Builder, node: fx.Node, a: Args) -> Value:
    axis = _axis(node, a["dim"], _rank(a["self"]))
    start = int(a["start"]) % int(node_value(a["self"]).shape[axis])
    return _cut(b, node, a["self"], axis, start, start + int(a["length"]))


def _split(b: Builder, node: fx.Node, a: Args) -> tuple[Value, ...]:
    """`split`, `chunk` and the like: consecutive slices, of the sizes that torch found."""
    axis = _axis(node, a["dim"], _rank(a["self"]))
    found, start = [], 0
    for part in node_value(node):
        end = start + int(part.shape[axis])
        shape = b.shape_like(part, node)
        found.append(_cut(b, node, a["self"], axis, start, end, shape=shape))
        start = end
    return tuple(found)


def _pick(b: Builder, node: fx.Node, source: Any, axis: int, index: int, made: Any) -> Value:
    picked = add_constant(b.graph, b.unique("index"), np.array(index, np.int64))
    shape = b.shape_like(made, node)
    inputs = [b.value(source), picked]
    return b.add("Gather", inputs, node, attributes={"axis": axis}, shape=shape)


def _select(b: Builder, node: fx.Node, a: Args) -> Value:
    axis = _axis(node, a["dim"], _rank(a["self"]))
    index = int(a["index"]) % int(node_value(a["self"]).shape[axis])
    return _pick(b, node, a["self"], axis, index, node_value(node))


def _unbind(b: Builder, node: fx.Node, a: Args) -> tuple[Value, ...]:
    axis = _axis(node, a["dim"], _rank(a["self"]))
    parts = enumerate(node_value(node))
    return tuple(_pick(b, node, a["self"], axis, i, part) for i, part in parts)


def _index_select(b: Builder, node: fx.Node, a: Args) -> Value:
    axis = _axis(node, a["dim"], _rank(a["self"]))
    return b.add(
        "Gather", [b.value(a["self"]), b.value(a["index"])], node, attributes={"axis": axis}
    )


def _embedding(b: Builder, node: fx.Node, a: Args) -> Value:
    inputs = [b.value(a["weight"]), b.value(a["indices"])]
    return b.add("Gather", inputs, node, attributes={"axis": 0})


# --- joins ---


def _cat(b: Builder, node: fx.Node, a: Args) -> Value:
    axis = _axis(node, a["dim"], _rank(node))
    return b.add("Concat", [b.value(x) for x in a["tensors"]], node, attributes={"axis": axis})


def _stack(b: Builder, node: fx.Node, a: Args) -> Value:
    axis = _axis(node, a["dim"], _rank(node))
    sizes = _sizes(node)
    sizes[axis - 1] = 1
    goal, shape = _integers(b, "shape", 0, *sizes), onnx_ir.Shape([b.shape_of(node)[0], *sizes])
    parts = [b.add("Reshape", [b.value(x), goal], node, shape=shape) for x in a["tensors"]]
    return b.add("Concat", parts, node, attributes={"axis": axis})


# --- extrema and sums ---


def _reduce(op: str, b: Builder, node: fx.Node, a: Args) -> Value:
    if not a.get("dim") or a.get("dtype") is not None:
        raise refuse("HQC102", f"{op} over all axes, or with a dtype", node)
    rank = _rank(a["self"])
    axes = sorted(int(d) % rank for d in a["dim"])
    keep = int(a["keepdim"])
    if op != "ReduceSum":
        attributes: Args = {"axes": axes, "keepdims": keep}
        return b.add(op, [b.value(a["self"])], node, attributes=attributes)
    dims = _integers(b, "axes", *axes)
    return b.add(op, [b.value(a["self"]), dims], node, attributes={"keepdims": keep})


def _extremum(op: str, b: Builder, node: fx.Node, a: Args) -> Any:
    """`max` and `min`: of two tensors, or along an axis with the places."""
    if "other" in a:
        return b.add(op, [b.value(a["self"]), b.value(a["other"])], node)
    if a.get("dim") is None:
        raise refuse("HQC102", f"{node.name} over all axes", node)
    axis, keep = _axis(node, a["dim"], _rank(a["self"])), int(a["keepdim"])
    x, shape = b.value(a["self"]), b.shape_like(node_value(node)[0], node)
    attributes: Args = {"axes": [axis], "keepdims": keep}
    value = b.add(f"Reduce{op}", [x], node, attributes=attributes, shape=shape)
    return value, _place(b, node, f"Arg{op}", x, {"axis": axis, "keepdims": keep}, shape)


def _argument(op: str, b: Builder, node: fx.Node, a: Args) -> Value:
    if a["dim"] is None:
        raise refuse("HQC102", f"{node.name} over all axes", node)
    attributes = {"axis": int(a["dim"]) % _rank(a["self"]), "keepdims": int(a["keepdim"])}
    return _place(b, node, op, b.value(a["self"]), attributes, b.shape_of(node))


def _place(
    b: Builder, node: fx.Node, op: str, x: Value, attributes: Args, shape: onnx_ir.Shape
) -> Value:
    found = b.add(op, [x], node, attributes=attributes, shape=shape)
    found.type = onnx_ir.TensorType(onnx_ir.DataType.INT64)
    return found


#: What translates which ATen operators, by schema name, whatever the overload.
MOVES: dict[Translator, str] = {
    _reshape: "flatten view reshape _unsafe_view unsqueeze squeeze unflatten",
    _permute: "permute transpose t numpy_T movedim swapaxes swapdims",
    _split: "split split_with_sizes chunk tensor_split unsafe_split unsafe_chunk",
    _expand: "expand",
    _slice: "slice",
    _narrow: "narrow",
    _select: "select",
    _unbind: "unbind",
    _index_select: "index_select",
    _embedding: "embedding",
    _cat: "cat",
    _stack: "stack",
    partial(_reduce, "ReduceMean"): "mean",
    partial(_reduce, "ReduceSum"): "sum",
    partial(_reduce, "ReduceMax"): "amax",
    partial(_reduce, "ReduceMin"): "amin",
    partial(_extremum, "Max"): "max maximum",
    partial(_extremum, "Min"): "min minimum",
    partial(_argument, "ArgMax"): "argmax",
    partial(_argument, "ArgMin"): "argmin",
}
