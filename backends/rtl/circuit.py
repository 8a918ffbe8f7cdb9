"""Combinational logic on integers: a straight-line program whose every wire has proven bounds.

A circuit is the form between the hardware layers and Verilog. Its wires carry codes, plain
integers; where the binary point stands is the layers' affair. An operation says everything about
its result, so one meaning (`evaluate`) serves the lowering, the schedule, the printer, the reader
and the proofs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from hqc.numerics.types import INT64_BITS, Codes, Range, Rounding, round_shift

#: A wire is the number of the operation that drives it.
Wire = int


@dataclass(frozen=True)
class Input:
    """Input `index` of the circuit."""

    index: int


@dataclass(frozen=True)
class Constant:
    """A number."""

    value: int


@dataclass(frozen=True)
class Add:
    """`(x << left) + (y << right)`, or minus the second with `minus`."""

    x: Wire
    y: Wire
    left: int = 0
    right: int = 0
    minus: bool = False


@dataclass(frozen=True)
class RoundShift:
    """`x / 2**shift`, rounded as the mode says; a negative shift multiplies."""

    x: Wire
    shift: int
    rounding: Rounding = Rounding.FLOOR


@dataclass(frozen=True)
class Clamp:
    """`min(max(x, lo), hi)`: saturation, and ReLU with `lo` 0; None is no bound."""

    x: Wire
    lo: int | None
    hi: int | None


@dataclass(frozen=True)
class Wrap:
    """The low `width` bits of x, read as two's complement if `signed`."""

    x: Wire
    width: int
    signed: bool


@dataclass(frozen=True)
class Product:
    """`x * y` of two computed values."""

    x: Wire
    y: Wire


@dataclass(frozen=True)
class Larger:
    """`max(x, y)`."""

    x: Wire
    y: Wire


@dataclass(frozen=True)
class AtLeast:
    """1 where `x >= threshold`, else 0."""

    x: Wire
    threshold: int


@dataclass(frozen=True)
class Lookup:
    """`table[x - first]`; x lies within the table."""

    x: Wire
    first: int
    table: tuple[int, ...]


@dataclass(frozen=True)
class Select:
    """x where the wire `bit` is 1, y where it is 0."""

    bit: Wire
    x: Wire
    y: Wire


Op = (
    Input
    | Constant
    | Add
    | RoundShift
    | Clamp
    | Wrap
    | Product
    | Larger
    | AtLeast
    | Lookup
    | Select
)
_WIRES = ("x", "y", "bit")


def operands(op: Op) -> tuple[Wire, ...]:
    """The wires an operation reads."""
    return tuple(getattr(op, f.name) for f in fields(op) if f.name in _WIRES)


def rewire(op: Op, wires: Sequence[Wire]) -> Op:
    """The operation with wire i replaced by `wires[i]`."""
    names = (f.name for f in fields(op) if f.name in _WIRES)
    return replace(op, **{name: wires[getattr(op, name)] for name in names})


@dataclass(frozen=True, eq=False)
class Circuit:
    """A straight-line program; wire i is the result of `ops[i]`, which reads earlier wires only.

    Attributes:
        ops: in order; every input has exactly one `Input`, used or not.
        ranges: what each wire can be, exponent 0. At least as tight as `bounds_of` would give; a
            tighter one rests on more than one operation (see `hqc.backends.rtl.affine`).
        outputs: wires, one per output; a wire may appear more than once.
    """

    ops: tuple[Op, ...]
    ranges: tuple[Range, ...]
    outputs: tuple[Wire, ...]

    @property
    def inputs(self) -> tuple[Range, ...]:
        """What each input can be."""
        pairs = zip(self.ops, self.ranges, strict=True)
        found = {op.index: bounds for op, bounds in pairs if isinstance(op, Input)}
        return tuple(found[index] for index in range(len(found)))

    @property
    def results(self) -> tuple[Range, ...]:
        """What each output can be."""
        return tuple(self.ranges[wire] for wire in self.outputs)


def bounds_of(op: Op, ranges: Sequence[Range]) -> Range:
    """Exact bounds of an operation whose operands range independently over `ranges`.

    Args:
        op: not an `Input`.
        ranges: of the wires, by number.

    Raises:
        ValueError: the operand of a `Lookup` leaves the table, a `Select` is not by a bit, or
            the operation is an `Input`.
    """
    match op:
        case Constant(value):
            return Range(value, value)
        case Add(x, y, left, right, minus):
            a, b = _scaled(ranges[x], left), _scaled(ranges[y], right)
            return a + (-b if minus else b)
        case RoundShift(x, shift, rounding):
            return Range(*(_round(end, shift, rounding) for end in _ends(ranges[x])))
        case Clamp(x, lo, hi):
            return Range(*(_clamp(end, lo, hi) for end in _ends(ranges[x])))
        case Wrap(x, width, signed):
            return ranges[x] if kept(op, ranges) is not None else held_by(width, signed)
        case Product(x, y):
            return _square(ranges[x]) if x == y else ranges[x] * ranges[y]
        case Larger(x, y):
            a, b = ranges[x], ranges[y]
            return Range(max(a.lo, b.lo), max(a.hi, b.hi))
        case AtLeast(x, threshold):
            return Range(int(ranges[x].lo >= threshold), int(ranges[x].hi >= threshold))
        case Lookup(x, first, table):
            lo, hi = (end - first for end in _ends(ranges[x]))
            if lo < 0 or hi >= len(table):
                raise ValueError(f"{ranges[x]} leaves a table of {len(table)} from {first}")
            return Range(min(table[lo : hi + 1]), max(table[lo : hi + 1]))
        case Select(bit, x, y):
            if not Range(0, 1).contains(ranges[bit]):
                raise ValueError(f"a choice by {ranges[bit]}")
            return ranges[x].join(ranges[y])
    raise ValueError(f"{op} has no bounds of its own")


def held_by(width: int, signed: bool) -> Range:
    """Every number that so many bits are."""
    low = -(1 << (width - 1)) if signed else 0
    return Range(low, low + (1 << width) - 1)


def width_of(bounds: Range) -> int:
    """Bits of a wire: signed where its range is below 0, else unsigned; at least 1."""
    return bounds.fit().width


def kept(op: Op, ranges: Sequence[Range]) -> Wire | None:
    """The operand that an operation hands on unchanged, for all that the wires can be."""
    match op:
        case Clamp(x, lo, hi):
            inside = (lo is None or lo <= ranges[x].lo) and (hi is None or ranges[x].hi <= hi)
            return x if inside else None
        case Wrap(x, width, signed):
            return x if held_by(width, signed).contains(ranges[x]) else None
        case Larger(x, y):
            for one, other in ((x, y), (y, x)):
                if ranges[one].lo >= ranges[other].hi:
                    return one
    return None


def _ends(bounds: Range) -> tuple[int, int]:
    return bounds.lo, bounds.hi


def _scaled(bounds: Range, shift: int) -> Range:
    return Range(bounds.lo << shift, bounds.hi << shift)


def _square(bounds: Range) -> Range:
    ends = sorted(end * end for end in _ends(bounds))
    return Range(0 if bounds.lo < 0 < bounds.hi else ends[0], ends[1])


def _clamp(value: int, lo: int | None, hi: int | None) -> int:
    value = value if lo is None else max(value, lo)
    return value if hi is None else min(value, hi)


def _round(value: int, shift: int, rounding: Rounding) -> int:
    return int(round_shift(np.array([value], np.int64), shift, rounding)[0])


def evaluate(circuit: Circuit, inputs: Codes) -> Codes:
    """Every wire for a batch of inputs.

    Args:
        circuit: whose wires all fit `INT64_BITS`.
        inputs: (N, inputs), within the circuit's input ranges.

    Returns:
        (N, wires).

    Raises:
        ValueError: an input lies outside its range.
        OverflowError: a wire is wider than int64 arithmetic holds.
    """
    wires = np.empty((len(circuit.ops), len(inputs)), np.int64)  # a wire is a row: contiguous
    for number, (op, bounds) in enumerate(zip(circuit.ops, circuit.ranges, strict=True)):
        if bounds.magnitude_bits > INT64_BITS:
            raise OverflowError(f"wire {number} of {bounds} does not fit int64")
        wires[number] = _input(op, bounds, inputs) if isinstance(op, Input) else _value(op, wires)
    return wires.T


def _input(op: Input, bounds: Range, inputs: Codes) -> Codes:
    given: Codes = inputs[:, op.index]
    if given.size and not (bounds.lo <= given.min() and given.max() <= bounds.hi):
        raise ValueError(f"input {op.index} leaves {bounds.lo}..{bounds.hi}")
    return given


def _value(op: Op, wires: Codes) -> Codes:
    def row(wire: Wire) -> Codes:
        found: Codes = wires[wire]
        return found

    match op:
        case Constant(value):
            return np.full(wires.shape[1], value, np.int64)
        case Add(x, y, left, right, minus):
            second = row(y) << right
            return (row(x) << left) + (-second if minus else second)
        case RoundShift(x, shift, rounding):
            return round_shift(row(x), shift, rounding)
        case Clamp(x, lo, hi):
            return row(x) if lo is None and hi is None else np.clip(row(x), lo, hi)
        case Wrap(x, width, signed):
            low = held_by(width, signed).lo
            return ((row(x) - low) & ((1 << width) - 1)) + low
        case Product(x, y):
            return row(x) * row(y)
        case Larger(x, y):
            return np.maximum(row(x), row(y))
        case AtLeast(x, threshold):
            return (row(x) >= threshold).astype(np.int64)
        case Lookup(x, first, table):
            found: Codes = np.array(table, np.int64)[row(x) - first]
            return found
        case Select(bit, x, y):
            return np.where(row(bit) == 1, row(x), row(y))
    raise TypeError(f"{op} has no value")
