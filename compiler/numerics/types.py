"""Fixed-point types and proven ranges, with exact arithmetic. No ONNX and no torch in here.

A *code* is the integer the hardware holds; a `FixedType` gives its width and where its binary
point stands; a `Range` is what a value can reach, as codes on a power-of-two step. All arithmetic
is on Python integers or int64 arrays whose fit is checked first, so nothing is ever rounded
unless rounding is what was asked for.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.int64]

#: float32 and float64 hold every integer of up to this many bits, so sums below are exact.
SINGLE_BITS, DOUBLE_BITS = 24, 53
#: Codes beyond this magnitude are refused by int64 arithmetic.
INT64_BITS = 62


class Rounding(enum.Enum):
    """QONNX rounding modes by what they do (executor of qonnx 1.0), values as QONNX spells them."""

    ROUND = "ROUND"  # nearest, ties to even
    HALF_UP = "HALF_UP"  # nearest, ties away from zero
    HALF_DOWN = "HALF_DOWN"  # nearest, ties towards zero
    FLOOR = "FLOOR"
    DOWN = "DOWN"  # towards zero
    CEIL = "CEIL"
    UP = "UP"  # away from zero

    @property
    def hardware(self) -> str | None:
        """Suffix of the `ap_fixed`/`ac_fixed` quantisation mode, or None where none exists."""
        return _HARDWARE.get(self)


_HARDWARE = {
    Rounding.ROUND: "RND_CONV",
    Rounding.HALF_UP: "RND_INF",
    Rounding.HALF_DOWN: "RND_ZERO",
    Rounding.FLOOR: "TRN",
    Rounding.DOWN: "TRN_ZERO",
}
ROUNDING_OF_HARDWARE = {suffix: rounding for rounding, suffix in _HARDWARE.items()}


class Overflow(enum.Enum):
    """What happens to a code outside the type: saturate, saturate symmetrically, or wrap."""

    SAT = "SAT"
    SAT_SYM = "SAT_SYM"
    WRAP = "WRAP"


def round_shift(codes: Codes, shift: int, rounding: Rounding) -> Codes:
    """Divide codes by 2**shift and round; a negative shift multiplies.

    Args:
        codes: int64 array of any shape.
        shift: number of fractional bits dropped.
        rounding: how the dropped bits round.

    Raises:
        OverflowError: a left shift would leave int64.
    """
    if shift <= 0:
        top = max(int(np.max(codes, initial=0)), -int(np.min(codes, initial=0)))
        if top == 0:
            return codes.copy()
        if top.bit_length() - shift > INT64_BITS:
            raise OverflowError(f"shift by {-shift} of a {top.bit_length()}-bit code")
        return codes << -shift
    if shift > INT64_BITS:  # everything is a fraction: keep only the sign, the rest is the same
        codes, shift = np.sign(codes), 2
    floor = codes >> shift
    rest = codes - (floor << shift)  # 0 <= rest < 2**shift
    half = 1 << (shift - 1)
    if rounding is Rounding.FLOOR:
        return floor
    if rounding is Rounding.CEIL:
        return floor + (rest > 0)
    if rounding is Rounding.DOWN:
        return floor + ((rest > 0) & (codes < 0))
    if rounding is Rounding.UP:
        return floor + ((rest > 0) & (codes > 0))
    tie = rest == half
    up_on_tie: npt.NDArray[np.bool_] = {
        Rounding.ROUND: (floor & 1) == 1,
        Rounding.HALF_UP: codes > 0,
        Rounding.HALF_DOWN: codes < 0,
    }[rounding]
    rounded: Codes = floor + ((rest > half) | (tie & up_on_tie))
    return rounded


@dataclass(frozen=True, order=True)
class Range:
    """Every value is `code * 2**exponent` with `lo <= code <= hi`. Proven, never sampled."""

    lo: int
    hi: int
    exponent: int = 0

    def __post_init__(self) -> None:
        if self.lo > self.hi:
            raise ValueError(f"empty range {self.lo}..{self.hi}")

    def at(self, exponent: int) -> Range:
        """The same values on a finer step (smaller exponent)."""
        shift = self.exponent - exponent
        if shift < 0:
            raise ValueError(f"step 2**{exponent} is coarser than 2**{self.exponent}")
        return Range(self.lo << shift, self.hi << shift, exponent)

    def join(self, other: Range) -> Range:
        """The smallest range that holds both."""
        e = min(self.exponent, other.exponent)
        a, b = self.at(e), other.at(e)
        return Range(min(a.lo, b.lo), max(a.hi, b.hi), e)

    def contains(self, other: Range) -> bool:
        """Whether each value of `other` is a value of this range."""
        if other.exponent < self.exponent and (other.lo or other.hi):
            return False
        e = min(self.exponent, other.exponent)
        a, b = self.at(e), other.at(e)
        return a.lo <= b.lo and b.hi <= a.hi

    def __add__(self, other: Range) -> Range:
        e = min(self.exponent, other.exponent)
        a, b = self.at(e), other.at(e)
        return Range(a.lo + b.lo, a.hi + b.hi, e)

    def __neg__(self) -> Range:
        return Range(-self.hi, -self.lo, self.exponent)

    def __mul__(self, other: Range) -> Range:
        ends = [a * b for a in (self.lo, self.hi) for b in (other.lo, other.hi)]
        return Range(min(ends), max(ends), self.exponent + other.exponent)

    def relu(self) -> Range:
        """The range after max(0, x)."""
        return Range(max(0, self.lo), max(0, self.hi), self.exponent)

    def fit(self) -> FixedType:
        """The narrowest type that holds the whole range on its step, without dropping bits."""
        signed = self.lo < 0
        width = max(max(0, self.hi).bit_length(), (-self.lo - 1).bit_length() if signed else 0)
        width = max(1, width + signed)
        return FixedType(signed, width, width + self.exponent)

    @property
    def magnitude_bits(self) -> int:
        """Bits of the largest code's magnitude."""
        return max(abs(self.lo), abs(self.hi)).bit_length()


@dataclass(frozen=True, order=False)
class FixedType:
    """A two's-complement fixed-point type, as `ap_fixed<width, integer, rounding, overflow>`.

    Attributes:
        signed: whether codes can be negative.
        width: all bits, sign included; at least 1.
        integer: bits left of the binary point, sign included; may be negative or exceed `width`.
        rounding: what assignment of a finer value does.
        overflow: what assignment of a larger value does.
    """

    signed: bool
    width: int
    integer: int
    rounding: Rounding = Rounding.FLOOR
    overflow: Overflow = Overflow.WRAP

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width {self.width} < 1")
        if self.overflow is Overflow.SAT_SYM and not self.signed:
            raise ValueError("symmetric saturation needs a signed type")

    @property
    def fraction(self) -> int:
        """Bits right of the binary point; the step is 2**-fraction."""
        return self.width - self.integer

    @property
    def limits(self) -> Range:
        """Every value the type can hold after assignment."""
        hi = (1 << (self.width - self.signed)) - 1
        lo = -hi - 1 if self.signed else 0
        if self.overflow is Overflow.SAT_SYM:
            lo = -hi
        return Range(lo, hi, -self.fraction)

    def contains(self, values: Range) -> bool:
        """Whether assignment keeps each value of the range as it is."""
        return self.limits.contains(values)

    def exact(self) -> FixedType:
        """The same bits, with the cheapest modes: right for values already proven to fit."""
        return replace(self, rounding=Rounding.FLOOR, overflow=Overflow.WRAP)

    def quantise(self, codes: Codes, exponent: int) -> Codes:
        """Codes of this type after assigning `codes * 2**exponent` (rounds, then overflows)."""
        rounded = round_shift(codes, -exponent - self.fraction, self.rounding)
        limits = self.limits
        if self.overflow is not Overflow.WRAP:
            return np.clip(rounded, limits.lo, limits.hi)
        if self.width > INT64_BITS:
            raise OverflowError(f"{self} does not fit int64")
        span = np.int64(1 << self.width)
        return (rounded - limits.lo) % span + limits.lo

    def __str__(self) -> str:
        name = "fixed" if self.signed else "ufixed"
        modes = ""
        if self.rounding is not Rounding.FLOOR or self.overflow is not Overflow.WRAP:
            modes = f",{self.rounding.hardware or self.rounding.value}"
        if self.overflow is not Overflow.WRAP:
            modes += f",{self.overflow.value}"
        return f"{name}<{self.width},{self.integer}{modes}>"
