"""Monotone functions of one number between quantisers, inverted exactly.

Each is non-decreasing, so "f(x) reaches this bound" is a bound on x, or true or false for every x.
Formulas follow the ONNX operator specifications; sigmoid and tanh are the real functions, whose
inverse at a rational is irrational (Lindemann, Weierstrass) except where it is 0, and is taken to
60 digits: no decision of ours is that close.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from hqc.numerics.bounds import Bound

Floats = npt.NDArray[np.float64]

_DIGITS = Context(prec=60)


@dataclass(frozen=True)
class Rectifier:
    """x -> max(0, x)."""

    channels = 1

    def invert(self, bound: Bound, channel: int) -> Bound | bool:
        """The condition on x under which the result meets `bound`."""
        if bound.holds(Fraction(0)) == bound.upward:
            return bound.upward  # met by 0, hence by all; or not met by 0 nor above
        return bound

    def picked(self, channels: Sequence[int]) -> Rectifier:
        """The same for all channels."""
        return self

    def floats(self, x: Floats) -> Floats:
        """In float64."""
        return np.maximum(x, 0.0)


@dataclass(frozen=True)
class Single:
    """x -> the nearest float32, ties to even: a host that computes a product in float32."""

    channels = 1

    def invert(self, bound: Bound, channel: int) -> Bound | bool:
        """The condition on x under which the result meets `bound`."""
        return bound.before_single()

    def picked(self, channels: Sequence[int]) -> Single:
        """The same for all channels."""
        return self

    def floats(self, x: Floats) -> Floats:
        """In float64."""
        return x.astype(np.float32).astype(np.float64)


@dataclass(frozen=True)
class Clip:
    """x -> min(max(x, lo), hi); None is no limit."""

    lo: Fraction | None
    hi: Fraction | None

    channels = 1

    def invert(self, bound: Bound, channel: int) -> Bound | bool:
        """The condition on x under which the result meets `bound`."""
        least, most = (self.lo, self.hi) if bound.upward else (self.hi, self.lo)
        if least is not None and bound.holds(least):
            return True
        if most is not None and not bound.holds(most):
            return False
        return bound

    def picked(self, channels: Sequence[int]) -> Clip:
        """The same for all channels."""
        return self

    def floats(self, x: Floats) -> Floats:
        """In float64."""
        low = None if self.lo is None else float(self.lo)
        high = None if self.hi is None else float(self.hi)
        return x if low is None and high is None else np.asarray(np.clip(x, low, high))


@dataclass(frozen=True)
class Leaky:
    """x -> x where x >= 0, else slope * x; positive slopes, one or one per channel."""

    slopes: tuple[Fraction, ...]

    @property
    def channels(self) -> int:
        """How many channels are told apart."""
        return len(self.slopes)

    def invert(self, bound: Bound, channel: int) -> Bound | bool:
        """The condition on x under which the result meets `bound`."""
        if bound.value >= 0:
            return bound
        slope = self.slopes[channel if len(self.slopes) > 1 else 0]
        return Bound(bound.value / slope, bound.inclusive, bound.upward)

    def picked(self, channels: Sequence[int]) -> Leaky:
        """The function over other channels, each of which was one of these."""
        if len(self.slopes) == 1:
            return self
        return Leaky(tuple(self.slopes[c] for c in channels))

    def floats(self, x: Floats) -> Floats:
        """In float64."""
        return np.where(x >= 0, x, x * per_channel(self.slopes, x.ndim))


@dataclass(frozen=True)
class Curve:
    """The sigmoid 1 / (1 + exp(-x)), or tanh(x)."""

    name: Literal["Sigmoid", "Tanh"]

    channels = 1

    def invert(self, bound: Bound, channel: int) -> Bound | bool:
        """The condition on x under which the result meets `bound`."""
        # tanh(x) = 2 * sigmoid(2 * x) - 1
        half = self.name == "Tanh"
        y = (bound.value + 1) / 2 if half else bound.value
        if not 0 < y < 1:  # never reached: all results are on one side
            return bound.upward == (y <= 0)
        if y == Fraction(1, 2):
            return Bound(Fraction(0), bound.inclusive, bound.upward)
        x = _logarithm(y / (1 - y))
        return Bound(x / 2 if half else x, bound.inclusive, bound.upward)

    def picked(self, channels: Sequence[int]) -> Curve:
        """The same for all channels."""
        return self

    def floats(self, x: Floats) -> Floats:
        """In float64."""
        if self.name == "Tanh":
            return np.tanh(x)
        with np.errstate(over="ignore"):
            return np.asarray(1.0 / (1.0 + np.exp(-x)))


@lru_cache(maxsize=1 << 16)
def _logarithm(x: Fraction) -> Fraction:
    """ln(x) to 60 digits; each channel of a layer asks for the same ones."""
    return Fraction(_DIGITS.ln(_DIGITS.divide(Decimal(x.numerator), Decimal(x.denominator))))


#: What bends a line without turning it round.
Bend = Rectifier | Single | Clip | Leaky | Curve
BENDS = (Rectifier, Single, Clip, Leaky, Curve)
#: Doing it twice is doing it once.
IDEMPOTENT = (Rectifier, Single, Clip)


def per_channel(coefficients: Sequence[Fraction], rank: int) -> Floats:
    """Coefficients as a float64 array that broadcasts along axis 1 of a tensor of that rank."""
    column = np.array([float(c) for c in coefficients], np.float64)
    return column.reshape(()) if column.size == 1 else column.reshape(-1, *(1,) * (rank - 2))
