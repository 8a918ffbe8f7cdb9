"""Build circuits operation by operation: ranges follow, and nothing is computed twice."""

from __future__ import annotations

from collections.abc import Sequence

from hqc.backends.rtl import circuit as ops
from hqc.backends.rtl.circuit import Circuit, Op, Wire, bounds_of, kept, operands, rewire
from hqc.numerics.types import FixedType, Overflow, Range, Rounding


class Builder:
    """A circuit in the making.

    Constants are folded, operations that change nothing are left out, and equal operations share
    a wire.
    """

    def __init__(self, inputs: Sequence[Range]) -> None:
        self.ops: list[Op] = []
        self.ranges: list[Range] = []
        self._known: dict[Op, Wire] = {}
        self.inputs = tuple(self._new(ops.Input(i), r) for i, r in enumerate(inputs))

    def finish(self, outputs: Sequence[Wire]) -> Circuit:
        """The circuit with these outputs, without operations that no output needs."""
        needed = set(outputs) | set(self.inputs)
        for wire in reversed(range(len(self.ops))):
            if wire in needed:
                needed.update(operands(self.ops[wire]))
        wires = sorted(needed)
        place = {wire: number for number, wire in enumerate(wires)}
        moved = [place.get(wire, -1) for wire in range(len(self.ops))]
        made = tuple(rewire(self.ops[wire], moved) for wire in wires)
        ranges = tuple(self.ranges[wire] for wire in wires)
        return Circuit(made, ranges, tuple(place[wire] for wire in outputs))

    def add(self, op: Op, within: Range | None = None) -> Wire:
        """The wire of an operation.

        Args:
            op: not an `Input`.
            within: bounds the caller knows, tighter than those of the operation alone.
        """
        if op in self._known:
            return self._known[op]
        bounds = bounds_of(op, self.ranges)
        if within is not None:
            bounds = Range(max(bounds.lo, within.lo), min(bounds.hi, within.hi))
        if bounds.lo == bounds.hi and not isinstance(op, ops.Constant):
            return self.constant(bounds.lo)
        return self._new(op, bounds)

    def _new(self, op: Op, bounds: Range) -> Wire:
        self.ops.append(op)
        self.ranges.append(Range(bounds.lo, bounds.hi))
        self._known[op] = len(self.ops) - 1
        return len(self.ops) - 1

    # --- operations -------------------------------------------------------------------------

    def constant(self, value: int) -> Wire:
        """A number."""
        return self.add(ops.Constant(value))

    def known(self, x: Wire) -> Wire:
        """A wire, or the number that it always is."""
        bounds = self.ranges[x]
        return self.constant(bounds.lo) if bounds.lo == bounds.hi else x

    def plus(
        self,
        x: Wire,
        y: Wire,
        left: int = 0,
        right: int = 0,
        minus: bool = False,
        within: Range | None = None,
    ) -> Wire:
        """`(x << left) + (y << right)`, or minus the second."""
        if self._is(y, 0):
            return self.shift(x, -left)
        if self._is(x, 0) and not minus:
            return self.shift(y, -right)
        return self.add(ops.Add(x, y, left, right, minus), within)

    def shift(self, x: Wire, shift: int, rounding: Rounding = Rounding.FLOOR) -> Wire:
        """`x / 2**shift`, rounded; a negative shift multiplies."""
        return x if shift == 0 else self.add(ops.RoundShift(x, shift, rounding))

    def clamp(self, x: Wire, lo: int | None, hi: int | None) -> Wire:
        """`min(max(x, lo), hi)`; a bound that x never crosses is dropped."""
        lo = None if lo is not None and lo <= self.ranges[x].lo else lo
        hi = None if hi is not None and hi >= self.ranges[x].hi else hi
        return self._changed(ops.Clamp(x, lo, hi))

    def wrap(self, x: Wire, width: int, signed: bool) -> Wire:
        """The low bits of x, if it has more."""
        return self._changed(ops.Wrap(x, width, signed))

    def product(self, x: Wire, y: Wire) -> Wire:
        """`x * y` of two computed values."""
        return self.add(ops.Product(x, y))

    def larger(self, x: Wire, y: Wire) -> Wire:
        """`max(x, y)`; the one that always wins, if there is one."""
        return self._changed(ops.Larger(x, y))

    def at_least(self, x: Wire, threshold: int) -> Wire:
        """1 where `x >= threshold`, else 0."""
        return self.add(ops.AtLeast(x, threshold))

    def lookup(self, x: Wire, first: int, table: Sequence[int]) -> Wire:
        """`table[x - first]`, the table cut to what x can be."""
        lo, hi = self.ranges[x].lo, self.ranges[x].hi
        return self.add(ops.Lookup(x, lo, tuple(table[lo - first : hi + 1 - first])))

    def select(self, bit: Wire, x: Wire, y: Wire) -> Wire:
        """x where the bit is 1, y where it is 0."""
        return x if x == y else self.add(ops.Select(bit, x, y))

    def assign(self, x: Wire, fraction: int, type_: FixedType) -> Wire:
        """The code of a type after assignment of `x * 2**-fraction`: rounds, then overflows."""
        x = self.shift(x, fraction - type_.fraction, type_.rounding)
        if type_.overflow is Overflow.WRAP:
            return self.wrap(x, type_.width, type_.signed)
        return self.clamp(x, type_.limits.lo, type_.limits.hi)

    def _changed(self, op: Op) -> Wire:
        """The wire of an operation, or the operand that it hands on unchanged."""
        same = kept(op, self.ranges)
        return self.add(op) if same is None else same

    def _is(self, x: Wire, value: int) -> bool:
        return self.ranges[x] == Range(value, value)
