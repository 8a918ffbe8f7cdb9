"""The hardware layers: a typed, frozen form of a network that every template can be read from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hqc.diagnostics import Location
from hqc.ir import Array
from hqc.numerics.types import INT64_BITS, Codes, FixedType, Overflow, Range, Rounding

#: A double holds every integer of this many bits; wider constants have no exact literal.
CONSTANT_BITS = 53
#: Modes that both `ap_fixed` and `ac_fixed` spell.
ROUNDINGS = tuple(r.hardware for r in Rounding if r.hardware is not None)
OVERFLOWS = tuple(o.value for o in Overflow)


@dataclass(frozen=True, eq=False)
class Constant:
    """An array of codes and the type that holds them."""

    codes: Codes
    type: FixedType

    @property
    def values(self) -> Array:
        """The real numbers, exact in float64."""
        return np.ldexp(self.codes.astype(np.float64), -self.type.fraction)


@dataclass(frozen=True, eq=False)
class Layer:
    """What all layers have.

    Attributes:
        name: unique C-safe name.
        sources: names of the layers it reads.
        shape: of the result per sample in the order of the hardware
            (see `hqc.backends.layers.layout`): (C), (L, C) or (H, W, C); rearrangements may
            pass through other ranks.
        result: type of each element.
        where: the node it comes from.
    """

    name: str
    sources: tuple[str, ...]
    shape: tuple[int, ...]
    result: FixedType
    where: Location = field(default_factory=Location)

    @property
    def size(self) -> int:
        """Number of elements per sample."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Input(Layer):
    """An input port."""


@dataclass(frozen=True, eq=False)
class Dense(Layer):
    """`result(bias + x @ weight)`, added up in `accum`; weight is (n_in, n_out)."""

    weight: Constant = field(kw_only=True)
    bias: Constant = field(kw_only=True)
    accum: FixedType = field(kw_only=True)


@dataclass(frozen=True)
class Sliding:
    """A window over rows and columns; a 1-D window has one row.

    Attributes:
        size: (rows, columns) of the input.
        windows: (rows, columns) of the output.
        kernel, strides, dilations: per axis.
        before: padding at the low ends. What the windows hang over the high ends follows.
    """

    size: tuple[int, int]
    windows: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    before: tuple[int, int]

    @property
    def after(self) -> tuple[int, int]:
        """Padding at the high ends that the last windows reach, at least 0."""
        top, left = (self._over(axis) for axis in (0, 1))
        return top, left

    def _over(self, axis: int) -> int:
        reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1
        last = (self.windows[axis] - 1) * self.strides[axis] - self.before[axis]
        return max(0, last + reach - self.size[axis])


@dataclass(frozen=True, eq=False)
class Conv(Layer):
    """`result(bias + window @ weight)`, added up in `accum`; windows are padded with 0.

    Attributes:
        weight: (rows, columns, input channels per group, output channels).
        bias: (output channels).
        sliding: the window.
        group: both kinds of channels fall into that many parts.
    """

    weight: Constant = field(kw_only=True)
    bias: Constant = field(kw_only=True)
    accum: FixedType = field(kw_only=True)
    sliding: Sliding = field(kw_only=True)
    group: int = field(kw_only=True)

    @property
    def products(self) -> int:
        """Products of one window for one output channel."""
        return math.prod(self.weight.codes.shape[:3])


@dataclass(frozen=True, eq=False)
class MaxPool(Layer):
    """`result(max of each window)`, channel by channel; padding never wins."""

    sliding: Sliding = field(kw_only=True)
    channels: int = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Requantise(Layer):
    """`result(x * scale + bias)`; both hold one element, one per channel or one per element.

    Channels come last, so element i has the constants at i modulo their number.
    """

    scale: Constant = field(kw_only=True)
    bias: Constant = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Activation(Layer):
    """`result(max(0, x))` for "relu", `result(x)` for "cast"."""

    function: Literal["relu", "cast"] = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Threshold(Layer):
    """`result(bias + #{k: x >= thresholds[row, k]})`, row the element modulo the rows."""

    thresholds: Constant = field(kw_only=True)
    bias: int = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Table(Layer):
    """`result(table[row, code(x) - first])`, row the element modulo the rows.

    Attributes:
        table: (rows, codes) of the result.
        step: one element, `2**n`: x times it is the code of x, an integer.
        first: the lowest code.
    """

    table: Constant = field(kw_only=True)
    step: Constant = field(kw_only=True)
    first: int = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Merge(Layer):
    """`result(x + y)` for "add", `result(x * y)` for "multiply"."""

    function: Literal["add", "multiply"] = field(default="add", kw_only=True)


@dataclass(frozen=True, eq=False)
class Rearrange(Layer):
    """Element i is element `index[i]` of the sources, one behind the other; -1 is `fill`.

    Attributes:
        sizes: elements of each source.
        index: flat, one entry per element of the result.
        fill: a code of the result.
        widths: elements of a packet of each source, if they are streams.
    """

    sizes: tuple[int, ...] = field(kw_only=True)
    index: Codes = field(kw_only=True)
    fill: int = field(default=0, kw_only=True)
    widths: tuple[int, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True, eq=False)
class Fork(Layer):
    """Copies of a stream, one for each reader: the layers behind name a copy as their source."""

    copies: tuple[str, ...] = field(kw_only=True)


@dataclass(frozen=True)
class Network:
    """Layers in the order they run, inputs first, and the layers that are the output ports.

    Attributes:
        layers, inputs, outputs: all layers; names of those that are ports.
        stream: whether values are streams of packets (`hqc.backends.hls4ml.streams`), not arrays.
    """

    layers: tuple[Layer, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    stream: bool = False

    def layer(self, name: str) -> Layer:
        """The layer of a name."""
        return next(layer for layer in self.layers if layer.name == name)


def accumulator(x: Range, weight: Constant, bias: Constant) -> FixedType:
    """The narrowest type that holds the bias, each product and every partial sum, in any order.

    Each product w * x lies between its ends; a partial sum is the bias plus some of the products,
    so it lies between the bias plus all negative lower ends and the bias plus all positive upper
    ends. Nothing overflows in this type, whatever order a template adds in.
    """
    exponent = min(x.exponent - weight.type.fraction, -bias.type.fraction)
    shift = x.exponent - weight.type.fraction - exponent
    bias_shift = -bias.type.fraction - exponent
    bits = weight.type.width + x.magnitude_bits + shift + len(weight.codes).bit_length()
    small = max(bits, bias.type.width + bias_shift) < INT64_BITS
    kind: type = np.int64 if small else object  # Python's integers where a sum could be large
    ends: list[Array] = [weight.codes.astype(kind) * (end << shift) for end in (x.lo, x.hi)]
    low, high = np.minimum(*ends), np.maximum(*ends)
    start: Array = bias.codes.astype(kind) * (1 << bias_shift)
    lowest = start + np.minimum(low, 0).sum(axis=0)
    highest = start + np.maximum(high, 0).sum(axis=0)
    bounds = Range(
        min(int(lowest.min()), int(low.min())), max(int(highest.max()), int(high.max())), exponent
    )
    return bounds.fit()


def kind_of(layer: Layer) -> str:
    """The word for a layer in reports."""
    if isinstance(layer, Activation | Merge):
        return layer.function
    return type(layer).__name__.lower()
