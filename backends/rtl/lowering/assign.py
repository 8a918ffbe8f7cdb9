"""Assignment to a type: rounding, then overflow, in the form that costs least."""

from __future__ import annotations

from hqc.backends.rtl.builder import Builder
from hqc.backends.rtl.circuit import Wire
from hqc.numerics.types import FixedType, Overflow, Rounding


def assign(b: Builder, x: Wire, fraction: int, type_: FixedType, relu: bool = False) -> Wire:
    """The code of a type after assignment of `x * 2**-fraction`, or of `max(0, x)` with `relu`."""
    drops = fraction - type_.fraction
    if type_.overflow is Overflow.WRAP:
        return b.assign(b.clamp(x, 0, None) if relu else x, fraction, type_)
    lowest = max(0, type_.limits.lo) if relu else type_.limits.lo
    if drops <= 0 or type_.rounding is Rounding.FLOOR:  # a floor keeps signs, and 0
        return b.clamp(b.shift(x, drops), lowest, type_.limits.hi)
    return b.clamp(
        b.shift(b.clamp(x, 0, None) if relu else x, drops, type_.rounding), lowest, type_.limits.hi
    )
