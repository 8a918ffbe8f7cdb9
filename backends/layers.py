"""The hardware layers: a typed, frozen form of a network that every template can be read from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hqc.diagnostics import Location
from hqc.ir import Array
from hqc.types import Codes, FixedType, Overflow, Range, Rounding

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
        size: number of elements per sample.
        result: type of each element.
        shape: element shape per sample.
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


@dataclass(frozen=True, eq=False)
class Requantise(Layer):
    """`result(x * scale + bias)`; scale and bias hold one element, or one per element of x."""

    scale: Constant = field(kw_only=True)
    bias: Constant = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Activation(Layer):
    """`result(max(0, x))` for "relu", `result(x)` for "cast"."""

    function: Literal["relu", "cast"] = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Threshold(Layer):
    """`result(bias + #{k: x >= thresholds[row, k]})`, rows 1 or one per element of x."""

    thresholds: Constant = field(kw_only=True)
    bias: int = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Merge(Layer):
    """`result(x + y)`."""


@dataclass(frozen=True)
class Network:
    """Layers in the order they run, inputs first, and the layers that are the output ports."""

    layers: tuple[Layer, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

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
    ends = weight.codes.astype(object)[:, :, None] * np.array([x.lo, x.hi], object)
    shift = x.exponent - weight.type.fraction - exponent
    low = ends.min(axis=2) * (1 << shift)
    high = ends.max(axis=2) * (1 << shift)
    start = bias.codes.astype(object) * (1 << (-bias.type.fraction - exponent))
    lowest = start + np.minimum(low, 0).sum(axis=0)
    highest = start + np.maximum(high, 0).sum(axis=0)
    bounds = Range(
        min(int(lowest.min()), int(low.min())), max(int(highest.max()), int(high.max())), exponent
    )
    return bounds.fit()
