"""Which hardware layer each node of the core becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from onnx_ir import Node, Value

from hqc.analysis.rearrangements import is_rearrangement, rearrangement, sample_shape
from hqc.backends.layers import constants, layers
from hqc.backends.layers.constants import Illegal
from hqc.backends.layers.layers import Constant, Layer, Sliding, accumulator
from hqc.backends.layers.layout import hardware_index
from hqc.backends.layers.lookup_tables import cheaper
from hqc.backends.layers.walk import Walk, quantiser_type
from hqc.diagnostics import Location
from hqc.ir import constant, location_of, range_of, type_of
from hqc.ir.operators import MultiThreshold, Quant
from hqc.ir.windows import Window
from hqc.numerics.types import FixedType, Range

_ONE = FixedType(False, 1, 1)
#: Spatial axes of the windows that hardware has.
_SPATIAL = (1, 2)


def lower(walk: Walk, node: Node) -> None:
    """Add the layer of a node, joined with the nodes behind it that the layer also does.

    Raises:
        Illegal: no layer does it.
        HqcError: HQC102, HQC104, its parameters make no sense or are not known.
    """
    if is_rearrangement(node):
        _rearrange(walk, node)
    elif node.domain == "" and node.op_type in _LOWER:
        _LOWER[node.op_type](walk, node)
    elif Quant.matches(node):
        _cast(walk, node)
    elif MultiThreshold.matches(node):
        _threshold(walk, node)
    else:
        raise Illegal(
            f"{node.op_type} has no hardware layer",
            notes=("layers: " + ", ".join(OPERATORS),),
            helps=("run the default pipeline first, or replace the operator in the model",),
        )


# --- sums of products -----------------------------------------------------------------------


def _dense(walk: Walk, node: Node) -> None:
    x = walk.source(node.inputs[0])
    weight = constants.read_constant(node.inputs[1], "the weight")
    shape = _shape(node.inputs[0])
    if weight.codes.ndim != 2 or len(shape) != 1:
        raise Illegal(
            f"MatMul of rank {len(shape) + 1} by {weight.codes.shape}",
            helps=("flatten the samples first, or use a convolution with kernel 1",),
        )
    n_in, n_out = weight.codes.shape
    if x.size != n_in:
        raise Illegal(f"MatMul of {x.size} elements by {weight.codes.shape}")
    bias, value, after = _bias(walk, node, n_out)
    accum = accumulator(walk.ranges[x.name], weight, bias)
    common = _common(node, value, after, x)
    walk.finish(layers.Dense(*common, weight=weight, bias=bias, accum=accum), value, after)


def _conv(walk: Walk, node: Node) -> None:
    x = walk.source(node.inputs[0])
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        raise Illegal("Conv with a bias input", helps=("run the default pipeline, which adds it",))
    weight = constants.read_constant(node.inputs[1], "the weight")
    shape, window = _shape(node.inputs[0]), Window.of(node)
    sliding = _sliding(node, window)
    n_out, n_in, *kernel = weight.codes.shape
    if tuple(kernel) != window.kernel or n_in * window.group != shape[0] or n_out % window.group:
        raise Illegal(
            f"Conv of {shape[0]} channels in {window.group} groups by {weight.codes.shape}"
        )
    held = weight.codes.reshape(n_out, n_in, *sliding.kernel).transpose(2, 3, 1, 0)
    bias, value, after = _bias(walk, node, n_out)
    flat = replace(weight, codes=held.reshape(-1, n_out))
    accum = accumulator(walk.ranges[x.name], flat, bias)
    layer = layers.Conv(
        *_common(node, value, after, x),
        weight=replace(weight, codes=np.ascontiguousarray(held)),
        bias=bias,
        accum=accum,
        sliding=sliding,
        group=window.group,
    )
    walk.finish(layer, value, after)


def _bias(walk: Walk, node: Node, n_out: int) -> tuple[Constant, Value, Node | None]:
    """The bias that follows a sum of products, 0 if none does, and what follows then."""
    value, after = walk.follow(node.outputs[0])
    if after is None or after.op_type != "Add" or (side := _constant_side(after)) is None:
        return Constant(np.zeros(n_out, np.int64), _ONE), value, after
    given = constants.read_constant(after.inputs[side], "the bias")
    bias = constants.bias_codes(given, n_out, _shape(value))
    if bias is None:  # it differs within a channel: a layer of its own
        return Constant(np.zeros(n_out, np.int64), _ONE), value, after
    walk.done.add(id(after))
    return bias, *walk.follow(after.outputs[0])


def _sliding(node: Node, window: Window) -> Sliding:
    """A window as rows and columns; the rows of a 1-D window are one."""
    shape = _shape(node.inputs[0])
    if len(window.kernel) not in _SPATIAL or len(shape) != len(window.kernel) + 1:
        raise Illegal(
            f"{node.op_type} over {len(window.kernel)} axes",
            helps=("hardware has windows over one axis or two",),
        )

    def rows(pair: Sequence[int], one: int) -> tuple[int, int]:
        first, second = (one, *pair)[-2:]
        return first, second

    return Sliding(
        rows(shape[1:], 1),
        rows(window.out_shape(shape[1:]), 1),
        rows(window.kernel, 1),
        rows(window.strides, 1),
        rows(window.dilations, 1),
        rows(window.before, 0),
    )


# --- element by element ---------------------------------------------------------------------


def _requantise(walk: Walk, node: Node) -> None:
    side = _constant_side(node)
    if side is None:
        _merge(walk, node)
        return
    x = walk.source(node.inputs[1 - side])
    first = constants.read_constant(node.inputs[side], f"the {node.op_type} constant")
    shape = _shape(node.inputs[1 - side])
    scale = Constant(np.ones(1, np.int64), _ONE)
    bias = Constant(np.zeros(1, np.int64), _ONE)
    value, after = walk.follow(node.outputs[0])
    if node.op_type == "Add":
        bias = first
    else:
        scale = first
        offset = _constant_side(after) if after is not None and after.op_type == "Add" else None
        if after is not None and offset is not None and _shape(value) == shape:
            bias = constants.read_constant(after.inputs[offset], "the offset")
            walk.done.add(id(after))
            value, after = walk.follow(after.outputs[0])
    scale, bias = constants.together(scale, bias, shape)
    layer = layers.Requantise(*_common(node, value, after, x), scale=scale, bias=bias)
    walk.finish(layer, value, after)


def _merge(walk: Walk, node: Node) -> None:
    x, y = walk.source(node.inputs[0]), walk.source(node.inputs[1])
    shapes = [_shape(value) for value in node.inputs]
    if shapes[0] != shapes[1]:
        raise Illegal(
            f"{node.op_type} of {shapes[0]} and {shapes[1]}: merging does not broadcast",
            helps=("expand the smaller one first",),
        )
    value, after = walk.follow(node.outputs[0])
    function: Literal["add", "multiply"] = "add" if node.op_type == "Add" else "multiply"
    walk.finish(layers.Merge(*_common(node, value, after, x, y), function=function), value, after)


def _relu(walk: Walk, node: Node) -> None:
    x = walk.source(node.inputs[0])
    value, after = walk.follow(node.outputs[0])
    walk.finish(layers.Activation(*_common(node, value, after, x), function="relu"), value, after)


def _cast(walk: Walk, node: Node) -> None:
    x = walk.source(node.inputs[0])
    value = node.outputs[0]
    walk.add(layers.Activation(*_common(node, value, node, x), function="cast"), value)


def _threshold(walk: Walk, node: Node) -> None:
    x = walk.source(node.inputs[0])
    view = MultiThreshold.read(node)
    if view.out_scale != 1 or view.out_bias != int(view.out_bias):
        raise Illegal(
            f"MultiThreshold with out_scale {view.out_scale:g}, out_bias {view.out_bias:g}",
            helps=("move the output scale into the following layer",),
        )
    shape = _shape(node.inputs[0])
    rows, count = view.thresholds.shape
    if rows not in (1, shape[0]):
        raise Illegal(f"{rows} rows of thresholds for {shape[0]} channels")
    bias = int(view.out_bias)
    codes = constants.threshold_codes(view.thresholds, x.result)
    type_ = Range(int(codes.min()), int(codes.max()), -x.result.fraction).fit()
    value = node.outputs[0]
    common = _common(node, value, None, x)
    layer = layers.Threshold(*common, thresholds=Constant(codes, type_), bias=bias)
    if not layer.result.contains(Range(bias, bias + count)):
        raise Illegal(f"{layer.result} does not hold counts {bias}..{bias + count}")
    walk.add(cheaper(layer, x.result, walk.ranges[x.name]), value)


# --- windows and rearrangements ---------------------------------------------------------------


def _max_pool(walk: Walk, node: Node) -> None:
    x = walk.source(node.inputs[0])
    if len(node.outputs) > 1:
        raise Illegal("MaxPool with indices", helps=("use its first output only",))
    window = Window.of(node)
    sliding = _sliding(node, window)
    taps = window.taps(_shape(node.inputs[0])[1:])
    if not np.all((taps >= 0).any(axis=1)):
        raise Illegal("a window of this MaxPool lies in the padding", helps=("pad less",))
    value, after = walk.follow(node.outputs[0])
    channels = _shape(node.inputs[0])[0]
    common = _common(node, value, after, x)
    walk.finish(layers.MaxPool(*common, sliding=sliding, channels=channels), value, after)


def _rearrange(walk: Walk, node: Node) -> None:
    found = rearrangement(node)
    sources = [walk.source(value) for value in found.sources]
    index = hardware_index(found, [_shape(value) for value in found.sources])
    value = node.outputs[0]
    result, fill = result_type(value), 0
    if np.any(index < 0):
        code = float(np.ldexp(found.fill, result.fraction))
        if code != int(code) or not result.limits.lo <= code <= result.limits.hi:
            raise Illegal(
                f"{node.op_type} with {found.fill:g}, which {result} does not hold",
                helps=("pad with a value of the type, such as 0",),
            )
        fill = int(code)
    common, sizes = _common(node, value, None, *sources), tuple(x.size for x in sources)
    walk.add(layers.Rearrange(*common, sizes=sizes, index=index, fill=fill), value)


_LOWER: dict[str, Callable[[Walk, Node], None]] = {
    "MatMul": _dense,
    "Conv": _conv,
    "Mul": _requantise,
    "Add": _requantise,
    "Relu": _relu,
    "MaxPool": _max_pool,
}
#: Operators of legal core nodes.
OPERATORS = (
    *_LOWER,
    *("Quant", "MultiThreshold", "Cast", "Dropout", "Identity"),
    *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Pad", "Reshape", "Resize"),
    *("Slice", "SpaceToDepth", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
)


# --- reading nodes --------------------------------------------------------------------------


def result_type(value: Value) -> FixedType:
    """The annotated type of a value that no quantiser follows: it must hold the value's range.

    Raises:
        Illegal: it has none, or does not.
    """
    type_, range_ = type_of(value), range_of(value)
    if type_ is None:
        raise Illegal(f"{value.name} has no fixed-point type", helps=("run propagate-precision",))
    if range_ is not None and not type_.contains(range_):
        raise Illegal(f"the type {type_} of {value.name} does not hold its range {range_}")
    return type_.exact() if range_ is not None else type_


def _common(
    node: Node, value: Value, after: Node | None, *sources: Layer
) -> tuple[str, tuple[str, ...], tuple[int, ...], FixedType, Location]:
    """What all layers have (`Layer`); name and shape come with `Walk.add`.

    The type of the result is that of the quantiser behind `value`, if there is one.
    """
    names = tuple(x.name for x in sources)
    if after is not None and Quant.matches(after):
        return "", names, (), quantiser_type(after), location_of(node)
    return "", names, (), result_type(value), location_of(node)


def _constant_side(node: Node) -> int | None:
    """Which of two inputs is a constant."""
    for side in (1, 0):
        if side < len(node.inputs) and constant(node.inputs[side]) is not None:
            return side
    return None


def _shape(value: Value | None) -> tuple[int, ...]:
    """Shape per sample in the model's order."""
    if value is None:
        raise Illegal("an input is missing")
    return sample_shape(value)
