"""How long an operation takes: an estimate for fabrics of six-input lookup tables.

The constants are round numbers of the size that data sheets of 7-series and UltraScale parts give
for a lookup table with an average wire, and for a carry chain; no tool is asked. They decide
where registers go, never what is computed.
"""

from __future__ import annotations

from collections.abc import Sequence

from hqc.backends.rtl import circuit as ops
from hqc.backends.rtl.circuit import Circuit, Op, width_of
from hqc.backends.rtl.emission.widths import adder, common_width
from hqc.numerics.types import Range, Rounding

#: Picoseconds of a lookup table and the wire to it, and of one bit of a carry chain.
LEVEL, CARRY = 450, 15
#: From the clock's edge through a register and, at the other end, its setup time.
REGISTER = 200
#: Share of the clock period that wires longer than average and clock skew may take.
_MARGIN = 0.1
_INPUTS = 6


def cutoff_of(clock_ns: float) -> float:
    """The longest path between registers, in nanoseconds, that a clock period leaves room for."""
    return max(clock_ns * (1 - _MARGIN) - REGISTER / 1000, LEVEL / 1000)


def delays(circuit: Circuit) -> list[int]:
    """Picoseconds of each operation."""
    pairs = zip(circuit.ops, circuit.ranges, strict=True)
    return [_delay(op, circuit.ranges, result) for op, result in pairs]


def selection(places: int) -> int:
    """Picoseconds of a multiplexer; a table selects one of four."""
    levels = 0
    while places > 1:
        places, levels = -(-places // 4), levels + 1
    return LEVEL * levels


def _delay(op: Op, ranges: Sequence[Range], result: Range) -> int:
    width = width_of(result)
    match op:
        case ops.Add():
            shape = adder(op, ranges, result)
            return _sum(shape.bits) if shape.added else 0
        case ops.RoundShift(x, shift, rounding):
            plain = rounding is Rounding.FLOOR or shift <= 0
            if plain or (rounding is Rounding.DOWN and ranges[x].lo >= 0):
                return 0
            return _gates(min(shift, width_of(ranges[x])) + 1) + _sum(width)
        case ops.Clamp(x, lo, hi):
            relu = hi is None and lo == 0
            return LEVEL if relu else _gates(width_of(ranges[x])) + LEVEL
        case ops.Product(x, y):
            rows = min(width_of(ranges[x]), width_of(ranges[y]))
            return rows.bit_length() * _sum(0) + CARRY * width
        case ops.Larger(x, y):
            return _sum(common_width(ranges[x], ranges[y])) + LEVEL
        case ops.AtLeast(x, _):
            return _gates(width_of(ranges[x]))
        case ops.Lookup(x, _, _):
            selects = max(0, width_of(ranges[x]) - _INPUTS)
            return LEVEL * (1 + (selects + 1) // 2)  # a table selects one of four
        case ops.Select():
            return LEVEL
    return 0


def _sum(bits: int) -> int:
    """A carry chain of so many bits."""
    return LEVEL + CARRY * bits


def _gates(inputs: int) -> int:
    """A tree of gates."""
    levels, reach = 1, _INPUTS
    while reach < inputs:
        levels, reach = levels + 1, reach * (_INPUTS - 1)
    return LEVEL * levels
