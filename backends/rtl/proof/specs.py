"""What each layer reads and computes, in the form that proofs compare circuits with.

The functions of one variable are those of `hqc.backends.layers.evaluate`, called on one row of the
layer; the coefficients of sums and the elements of windows are taken from the layer's attributes
here, and `tests/backends/rtl/test_specs.py` holds them against `hqc.backends.layers.evaluate` too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import Any

import numpy as np

from hqc.backends import layers
from hqc.backends.layers import Constant, Layer
from hqc.backends.layers.evaluate import evaluate
from hqc.ir import Array
from hqc.numerics.types import INT64_BITS, Codes, FixedType

#: In a table of reads: no element of the sources.
PADDING = -1


@dataclass(frozen=True, eq=False)
class Spec:
    """Base: what each element of a layer's result reads.

    Attributes:
        reads: (groups, taps): elements of the sources, one source behind the other; `PADDING`.
        width: results of a group: element e belongs to group `e // width`.
        result: type of each element.
    """

    reads: Codes
    width: int
    result: FixedType


@dataclass(frozen=True, eq=False)
class Linear(Spec):
    """`result((taps @ weight + bias) * 2**-fraction)`; padding is 0.

    Attributes:
        weight: (taps, width), exact; entry 0 where a result does not read a tap.
        bias: (width), exact.
        fraction: of the sum's codes.
    """

    weight: Array = field(kw_only=True)
    bias: Array = field(kw_only=True)
    fraction: int = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Unary(Spec):
    """A function of the one tap of each element.

    Attributes:
        keys: (elements): which function; equal constants have equal keys.
        functions: codes of the result for codes of the tap.
        padding: the code of the result where the tap is padding.
        linear: the same as a sum and an assignment, where it is one, by key.
    """

    keys: Codes = field(kw_only=True)
    functions: Sequence[Callable[[Codes], Codes]] = field(kw_only=True)
    padding: int = 0
    linear: Sequence[tuple[int, int, int]] = ()  # (factor, offset, fraction)


@dataclass(frozen=True, eq=False)
class Maximum(Spec):
    """`result(max(taps) * 2**-fraction)`.

    Padding never wins, so a tap in the padding is read as the first of its window that is not.
    """

    fraction: int = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Times(Spec):
    """`result(x * y * 2**-fraction)` of two taps."""

    fraction: int = field(kw_only=True)


def assigned(codes: Codes, fraction: int, result: FixedType) -> Codes:
    """Codes of a type after assignment of `codes * 2**-fraction`."""
    held = FixedType(True, INT64_BITS, INT64_BITS - fraction)
    cast = layers.Activation("", (), (1,), result, function="cast")
    return evaluate(cast, [codes.reshape(-1, 1)], [held]).reshape(codes.shape)


@singledispatch
def spec_of(layer: Layer, types: Sequence[FixedType], sizes: Sequence[int]) -> Spec:
    """What a layer reads and computes.

    Args:
        layer: one that is not a port.
        types, sizes: of its sources.

    Raises:
        TypeError: there is no such description of a layer of this kind.
    """
    raise TypeError(f"{type(layer).__name__} has no proof")


# --- sums of products -----------------------------------------------------------------------


@spec_of.register
def _dense(layer: layers.Dense, types: Sequence[FixedType], sizes: Sequence[int]) -> Spec:
    reads = np.arange(sizes[0])[None]
    return Linear(reads, layer.weight.codes.shape[1], layer.result, **_sum(layer, types[0]))


@spec_of.register
def _conv(layer: layers.Conv, types: Sequence[FixedType], sizes: Sequence[int]) -> Spec:
    channels = sizes[0] // int(np.prod(layer.sliding.size))
    reads = _windows(layer.sliding, channels).reshape(-1, layer.products * layer.group)
    return Linear(reads, layer.weight.codes.shape[3], layer.result, **_sum(layer, types[0]))


def _sum(layer: layers.Dense | layers.Conv, source: FixedType) -> dict[str, Any]:
    """The weight, the bias and the fraction of their sum, both on its step."""
    own = source.fraction + layer.weight.type.fraction
    finest = max(own, layer.bias.type.fraction)
    weight = layer.weight.codes
    if isinstance(layer, layers.Conv):
        weight = _ungrouped(weight, layer.group)
    return {
        "weight": _finer(weight, finest - own),
        "bias": _finer(layer.bias.codes, finest - layer.bias.type.fraction),
        "fraction": finest,
    }


def _ungrouped(weight: Codes, group: int) -> Codes:
    """Weights (taps, all input channels, outputs) of a grouped convolution, flat in the inputs."""
    *kernel, n_in, n_out = weight.shape
    full = np.zeros((int(np.prod(kernel)), group, n_in, n_out), np.int64)
    part = n_out // group
    for number in range(group):
        outputs = slice(number * part, (number + 1) * part)
        full[:, number, :, outputs] = weight.reshape(-1, n_in, n_out)[..., outputs]
    return full.reshape(-1, n_out)


def _windows(sliding: layers.Sliding, channels: int) -> Codes:
    """Elements of the taps of each window: (positions, taps, channels)."""
    axes = []
    for axis in (0, 1):
        first = np.arange(sliding.windows[axis]) * sliding.strides[axis] - sliding.before[axis]
        taps = np.arange(sliding.kernel[axis]) * sliding.dilations[axis]
        axes.append(first[:, None] + taps)
    rows, columns = axes[0][:, None, :, None], axes[1][None, :, None, :]
    height, width = sliding.size
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    pixel = np.where(inside, rows * width + columns, PADDING)[..., None]
    element = np.where(pixel == PADDING, PADDING, pixel * channels + np.arange(channels))
    taps_of_window = sliding.kernel[0] * sliding.kernel[1]
    return element.reshape(-1, taps_of_window, channels)


def _finer(codes: Codes, shift: int) -> Array:
    bits = int(np.abs(codes).max(initial=0)).bit_length() + shift
    return codes.astype(np.int64 if bits <= INT64_BITS else object) << shift


# --- windows and pairs ------------------------------------------------------------------------


@spec_of.register
def _max_pool(layer: layers.MaxPool, types: Sequence[FixedType], sizes: Sequence[int]) -> Spec:
    windows = _windows(layer.sliding, layer.channels)
    reads = windows.transpose(0, 2, 1).reshape(-1, windows.shape[1])
    first = np.argmax(reads != PADDING, axis=1)
    reads = np.where(reads == PADDING, reads[np.arange(len(reads)), first][:, None], reads)
    return Maximum(reads, 1, layer.result, fraction=types[0].fraction)


@spec_of.register
def _merge(layer: layers.Merge, types: Sequence[FixedType], sizes: Sequence[int]) -> Spec:
    reads = np.stack([np.arange(sizes[0]), sizes[0] + np.arange(sizes[1])], axis=1)
    a, b = (type_.fraction for type_ in types)
    if layer.function == "multiply":
        return Times(reads, 1, layer.result, fraction=a + b)
    finest = max(a, b)
    weight = np.array([[1 << (finest - a)], [1 << (finest - b)]], object)
    return Linear(reads, 1, layer.result, weight=weight, bias=np.zeros(1, int), fraction=finest)


# --- element by element -----------------------------------------------------------------------


def _rows(
    rows: Sequence[Layer], names: Sequence[Any], type_: FixedType, size: int
) -> dict[str, Any]:
    """The attributes of a layer whose element i has the constants of row i modulo the rows.

    Rows of one name are one function.
    """

    def function(row: Layer) -> Callable[[Codes], Codes]:
        return lambda codes: evaluate(row, [codes.reshape(-1, 1)], [type_]).reshape(-1)

    first: dict[Any, int] = {}
    keys = np.array([first.setdefault(name, number) for number, name in enumerate(names)])
    return {
        "reads": np.arange(size)[:, None],
        "width": 1,
        "result": rows[0].result,
        "keys": keys[np.arange(size) % len(rows)],
        "functions": [function(row) for row in rows],
    }


@spec_of.register
def _requantise(layer: layers.Requantise, types: Sequence[FixedType], sizes: Sequence[int]) -> Spec:
    count = max(len(layer.scale.codes), len(layer.bias.codes))
    scale, bias = (np.resize(c.codes, count) for c in (layer.scale, layer.bias))
    rows = [
        replace(
            layer,
            scale=Constant(scale[row : row + 1], layer.scale.type),
            bias=Constant(bias[row : row + 1], layer.bias.type),
        )
        for row in range(count)
    ]
    own = types[0].fraction + layer.scale.type.fraction
    finest = max(own, layer.bias.type.fraction)
    names = list(zip(scale.tolist(), bias.tolist(), strict=True))
    shifts = finest - own, finest - layer.bias.type.fraction
    linear = [(a << shifts[0], b << shifts[1], finest) for a, b in names]
    return Unary(**_rows(rows, names, types[0], sizes[0]), linear=linear)


@spec_of.register
def _activation(layer: layers.Activation, types: Sequence[FixedType], sizes: Sequence[int]) -> Spec:
    linear = [(1, 0, types[0].fraction)] if layer.function == "cast" else []
    return Unary(**_rows([layer], [0], types[0], sizes[0]), linear=linear)


@spec_of.register
def _threshold(layer: layers.Threshold, types: Sequence[FixedType], sizes: Sequence[int]) -> Spec:
    held = layer.thresholds
    rows = [replace(layer, thresholds=Constant(row[None], held.type)) for row in held.codes]
    names = [row.tobytes() for row in held.codes]
    return Unary(**_rows(rows, names, types[0], sizes[0]))


@spec_of.register
def _table(layer: layers.Table, types: Sequence[FixedType], sizes: Sequence[int]) -> Spec:
    rows = [replace(layer, table=Constant(r[None], layer.table.type)) for r in layer.table.codes]
    names = [row.tobytes() for row in layer.table.codes]
    return Unary(**_rows(rows, names, types[0], sizes[0]))


@spec_of.register
def _rearrange(layer: layers.Rearrange, types: Sequence[FixedType], sizes: Sequence[int]) -> Spec:
    def function(type_: FixedType) -> Callable[[Codes], Codes]:
        return lambda codes: assigned(codes, type_.fraction, layer.result)

    owner = np.append(np.repeat(np.arange(len(sizes)), sizes), PADDING)
    return Unary(
        layer.index.reshape(-1, 1),
        1,
        layer.result,
        keys=owner[layer.index],
        functions=[function(type_) for type_ in types],
        padding=layer.fill,
        linear=[(1, 0, type_.fraction) for type_ in types],
    )
