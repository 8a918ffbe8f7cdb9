"""The logic in front of one wire, and what it computes for every value of one variable."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from hqc.backends.rtl import circuit as ops
from hqc.backends.rtl.circuit import Circuit, Op, Wire, evaluate, operands, rewire
from hqc.numerics.types import INT64_BITS, Codes, Range

#: Cases that are computed at once: the wires of a cone then stay in the processor's cache.
CHUNK = 1 << 14


@dataclass(frozen=True, eq=False)
class Cone:
    """The operations between some wires, the leaves, and one wire.

    Attributes:
        ops: leaf i is `Input(i)`; the last is the wire. No operand of a `Lookup` leaves its table
            here: a `Clamp` stands in front of it.
        wires: of the whole circuit, by number here; -1 for what the circuit does not have.
        leaves: of the whole circuit.
    """

    ops: tuple[Op, ...]
    wires: tuple[Wire, ...]
    leaves: tuple[Wire, ...]


def cone_of(circuit: Circuit, output: Wire, leaves: Callable[[Wire], bool]) -> Cone:
    """The cone of a wire; constants are part of it, inputs that are no leaves too."""
    found: set[Wire] = set()
    todo = [output]
    while todo:
        wire = todo.pop()
        if wire not in found:
            found.add(wire)
            if not _is_leaf(circuit, wire, leaves):
                todo.extend(operands(circuit.ops[wire]))
    order = sorted(found)
    ends = [wire for wire in order if _is_leaf(circuit, wire, leaves)]
    place = [-1] * (output + 1)
    for number, wire in enumerate(ends):
        place[wire] = number
    made: list[Op] = [ops.Input(number) for number in range(len(ends))]
    wires = list(ends)
    for wire in order:
        if place[wire] >= 0:
            continue
        op = rewire(circuit.ops[wire], place)
        if isinstance(op, ops.Lookup):  # guarded: what is outside the table is found by `sweep`
            made.append(ops.Clamp(op.x, op.first, op.first + len(op.table) - 1))
            wires.append(-1)
            op = ops.Lookup(len(made) - 1, op.first, op.table)
        made.append(op)
        wires.append(wire)
        place[wire] = len(made) - 1
    return Cone(tuple(made), tuple(wires), tuple(ends))


def _is_leaf(circuit: Circuit, wire: Wire, leaves: Callable[[Wire], bool]) -> bool:
    return not isinstance(circuit.ops[wire], ops.Constant) and leaves(wire)


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a cone did for all values of its variable.

    Attributes:
        cases: how many there were.
        wrong: the first value for which the result was not the expected one, or None.
        got, want: the results for it.
        seen: what each operation of the cone was, by number in the cone.
    """

    cases: int
    wrong: int | None
    got: int
    want: int
    seen: tuple[Range, ...]


def fits(cone: Cone, reach: Sequence[Range], leaves: Sequence[Range]) -> bool:
    """Whether int64 holds every wire, whose intervals `reach` gives for the whole circuit."""
    held = [reach[wire] for wire in cone.wires if wire >= 0]
    return all(bounds.magnitude_bits <= INT64_BITS for bounds in (*held, *leaves))


def open_circuit(cone: Cone) -> Circuit:
    """The cone as a circuit whose wires may be anything that int64 holds."""
    top = Range(-(1 << INT64_BITS) + 1, (1 << INT64_BITS) - 1)
    return Circuit(cone.ops, (top,) * len(cone.ops), (len(cone.ops) - 1,))


def sweep(
    cone: Cone,
    values: Sequence[Callable[[Codes], Codes]],
    first: int,
    last: int,
    expected: Callable[[Codes], Codes],
) -> Sweep:
    """Compute a cone for every value of a variable.

    Args:
        cone: that int64 holds.
        values: of each leaf, for values of the variable.
        first, last: of the variable.
        expected: the result, for values of the variable.
    """
    circuit = open_circuit(cone)
    lows: list[Codes] = []
    highs: list[Codes] = []
    for start in range(first, last + 1, CHUNK):
        variable = np.arange(start, min(start + CHUNK, last + 1))
        leaves = [value(variable) for value in values] or [variable]
        wires = evaluate(circuit, np.stack(leaves, axis=1))
        want = expected(variable)
        lows.append(wires.min(axis=0))
        highs.append(wires.max(axis=0))
        different = np.flatnonzero(wires[:, -1] != want)
        if different.size:
            at = int(different[0])
            seen = _seen(lows, highs)
            got = int(wires[at, -1])
            return Sweep(start - first + at + 1, start + at, got, int(want[at]), seen)
    return Sweep(last - first + 1, None, 0, 0, _seen(lows, highs))


def _seen(lows: Sequence[Codes], highs: Sequence[Codes]) -> tuple[Range, ...]:
    ends = zip(np.min(lows, axis=0).tolist(), np.max(highs, axis=0).tolist(), strict=True)
    return tuple(Range(low, high) for low, high in ends)


def settled(cone: Cone, seen: Sequence[Range], doubts: Collection[Wire]) -> set[Wire]:
    """Which doubtful wires of a cone are defined for everything that was seen."""
    found = set()
    for wire, op in zip(cone.wires, cone.ops, strict=True):
        if wire not in doubts:
            continue
        if isinstance(op, ops.Lookup):
            guard = cone.ops[op.x]
            assert isinstance(guard, ops.Clamp)
            table = Range(op.first, op.first + len(op.table) - 1)
            if table.contains(seen[guard.x]):
                found.add(wire)
        elif isinstance(op, ops.Select) and Range(0, 1).contains(seen[op.bit]):
            found.add(wire)
    return found
