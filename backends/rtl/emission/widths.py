"""Widths and shapes of operations in hardware: what the printer and the delay model agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hqc.backends.rtl.circuit import Add, width_of
from hqc.numerics.types import Range


def common_width(x: Range, y: Range) -> int:
    """Bits that hold both as one kind of number, signed if either is."""
    return x.join(y).fit().width


@dataclass(frozen=True)
class Adder:
    """How the bits of an `Add` come about, from the lowest to the highest.

    First `zeros` bits are 0; then `low` bits pass through unchanged from the operand that is not
    shifted as far; `bits` bits are added (none of them if one operand ends below the other: then
    the higher one is copied).

    Attributes:
        zeros, low, bits: as above; they add up to the width of the result.
        low_first: whether the bits that pass are of x.
        added: whether the highest part is a sum.
    """

    zeros: int
    low: int
    bits: int
    low_first: bool
    added: bool


def adder(op: Add, ranges: Sequence[Range], result: Range) -> Adder:
    """The shape of an addition.

    Args:
        op: the addition.
        ranges: of the wires, by number.
        result: what it can be; its width is that of the wire.
    """
    width = width_of(result)
    zeros = min(op.left, op.right, width)
    gap = abs(op.left - op.right)
    low_first = op.left <= op.right
    passing = gap if low_first or not op.minus else 0
    low = min(passing, width - zeros)
    bits = width - zeros - low
    below = ranges[op.x if low_first else op.y]
    apart = passing > 0 and below.lo >= 0 and width_of(below) <= passing
    return Adder(zeros, low, bits, low_first, bits > 0 and not (apart and not op.minus))
