"""Wires with a power of two and a sign that cost nothing until someone has to see them."""

from __future__ import annotations

from dataclasses import dataclass

from hqc.backends.rtl.affine import Sums
from hqc.backends.rtl.circuit import Add, Wire

#: How many adders a negation may replace by their turned forms.
_DEPTH = 2


@dataclass(frozen=True)
class Scaled:
    """The value `wire * 2**exponent`, or minus that."""

    wire: Wire
    exponent: int = 0
    negative: bool = False

    def times(self, exponent: int, negative: bool = False) -> Scaled:
        """Multiplied by `2**exponent`, and by -1 if `negative`."""
        return Scaled(self.wire, self.exponent + exponent, self.negative != negative)


def add(sums: Sums, x: Scaled, y: Scaled) -> Scaled:
    """The sum of two values; it is negative only if both are."""
    exponent = min(x.exponent, y.exponent)
    if x.negative and not y.negative:
        x, y = y, x
    shifts = x.exponent - exponent, y.exponent - exponent
    wire = sums.plus(x.wire, y.wire, *shifts, x.negative != y.negative)
    return Scaled(wire, exponent, x.negative and y.negative)


def offset(sums: Sums, x: Scaled | None, constant: int) -> Scaled:
    """`constant + x`, as a wire that is not negative; None is 0."""
    if x is None:
        return Scaled(sums.builder.constant(constant))
    if constant == 0:
        return positive(sums, x)
    return add(sums, fixed(sums, constant), x)


def fixed(sums: Sums, number: int) -> Scaled:
    """A number, with its low zeros as the power of two."""
    exponent = (number & -number).bit_length() - 1 if number else 0
    return Scaled(sums.builder.constant(number >> exponent), exponent)


def positive(sums: Sums, x: Scaled) -> Scaled:
    """The value with its sign done: a difference the other way round where it is one."""
    if not x.negative:
        return x
    turned = _turned(sums, x.wire, _DEPTH)
    if turned is None:
        turned = sums.plus(sums.builder.constant(0), x.wire, minus=True)
    return Scaled(turned, x.exponent)


def _turned(sums: Sums, wire: Wire, depth: int) -> Wire | None:
    """Minus a wire, made of at most `depth` adders that take the place of others."""
    op = sums.builder.ops[wire]
    if not isinstance(op, Add) or not depth:
        return None
    if op.minus:
        return sums.plus(op.y, op.x, op.right, op.left, True)
    for x, y, left, right in ((op.x, op.y, op.left, op.right), (op.y, op.x, op.right, op.left)):
        if (turned := _turned(sums, x, depth - 1)) is not None:
            return sums.plus(turned, y, left, right, True)
    return None
