"""A circuit under proof: what is derived, what was seen, and questions of one variable.

A question is whether a wire is an expected function of one variable, for every value that the
variable has. Outputs with the same logic ask the same question, so it is answered once, over the
values of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial

from hqc.backends.rtl.circuit import Circuit, Op, Wire
from hqc.backends.rtl.proof.cones import Cone, fits, settled, sweep
from hqc.backends.rtl.proof.forms import Forms, derive
from hqc.numerics.types import INT64_BITS, Codes, Range

#: Cases that a layer may take; numpy computes some ten million a second.
LIMIT = 1 << 26


class Refuted(Exception):
    """The logic is wrong.

    Attributes:
        wire: where it shows, of the circuit; None for the wiring.
        notes: a counterexample, where there is one.
    """

    def __init__(self, message: str, wire: Wire | None = None, notes: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.wire = wire
        self.notes = tuple(notes)


class Undecided(Exception):
    """Neither proven nor refuted; says why."""


@dataclass(frozen=True)
class Claim:
    """Something proven.

    Attributes:
        what: it is about.
        method: how.
        count: outputs, wires or instances it holds for.
        cases: that were computed.
    """

    what: str
    method: str
    count: int
    cases: int = 0


@dataclass(frozen=True, eq=False)
class Question:
    """Whether a wire is a function of a variable.

    Attributes:
        output: number of the output that asks.
        cone: the logic in front of the wire.
        maps: (factor, offset) for each leaf: its value is `factor * variable + offset`.
        first, last: of the variable.
        name: equal for equal expectations.
        expected: codes of the wire for values of the variable.
    """

    output: int
    cone: Cone
    maps: tuple[tuple[int, int], ...]
    first: int
    last: int
    name: Hashable
    expected: Callable[[Codes], Codes]


@dataclass(eq=False)
class Subject:
    """What is known so far of a circuit.

    Attributes:
        circuit: with the ranges it declares, which are to be checked.
        inputs: what each input can be.
        known: forms and intervals, derived from `inputs` alone.
        observed: what wires were, for everything they can be.
        sure: doubtful wires that turned out to be defined.
    """

    circuit: Circuit
    inputs: tuple[Range, ...]
    known: Forms = field(init=False)
    observed: dict[Wire, Range] = field(default_factory=dict)
    sure: set[Wire] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.known = derive(self.circuit, self.inputs)

    def doubtful(self, wire: Wire) -> bool:
        """Whether intervals alone do not show that a wire keeps its declared range."""
        kept = self.circuit.ranges[wire].contains(self.known.reach[wire])
        return not kept or wire in self.known.doubts

    def fits(self, cone: Cone, leaves: Sequence[Range] = ()) -> bool:
        """Whether int64 can compute a cone."""
        return fits(cone, self.known.reach, leaves)

    def answer(self, questions: Sequence[Question], limit: int = LIMIT) -> int:
        """Answer questions with yes; the number of cases that took.

        Raises:
            Refuted: the answer is no.
            Undecided: there are more cases than `limit`, or wires that int64 does not hold.
        """
        groups: dict[Hashable, list[Question]] = {}
        for question in questions:
            alone = any(self.doubtful(wire) for wire in question.cone.wires if wire >= 0)
            own = question.output if alone else -1
            key = (own, question.name, question.maps, question.cone.ops)
            groups.setdefault(key, []).append(question)
        spans = [_span(group) for group in groups.values()]
        total = sum(last - first + 1 for first, last in spans)
        if total > limit:
            raise Undecided(f"{total:,} cases are more than {limit:,}")
        if not all(self.fits(q.cone, [Range(q.first, q.last)]) for q in questions):
            raise Undecided(f"a wire of more than {INT64_BITS} bits")
        return sum(self._answer(group) for group in groups.values())

    def _answer(self, group: list[Question]) -> int:
        first, last = _span(group)
        wrong, cases = self._sweep(group[0], first, last)
        if wrong is None:
            return cases
        if len(group) == 1:
            raise wrong
        for question in group:  # a value between those of two outputs need not be right
            wrong, more = self._sweep(question, question.first, question.last)
            cases += more
            if wrong is not None:
                raise wrong
        return cases

    def _sweep(self, question: Question, first: int, last: int) -> tuple[Refuted | None, int]:
        cone = question.cone
        values = [partial(_line, factor, offset) for factor, offset in question.maps]
        try:
            done = sweep(cone, values, first, last, question.expected)
        except OverflowError as reason:
            raise Undecided(str(reason)) from None
        if done.wrong is not None:
            wire = cone.wires[-1]
            leaves = zip(cone.leaves, question.maps, strict=True)
            given = ", ".join(f"v{leaf} = {a * done.wrong + b}" for leaf, (a, b) in leaves)
            message = f"output {question.output} is {done.got} where it must be {done.want}"
            note = f"counterexample: {given}" if given else f"it is {done.got} always"
            return Refuted(message, wire, (note,)), done.cases
        for wire, seen in zip(cone.wires, done.seen, strict=True):
            if wire >= 0:
                self.observed[wire] = seen
        self.sure |= settled(cone, done.seen, self.known.doubts)
        return None, done.cases

    def check_ranges(self) -> Claim:
        """Every wire keeps its declared range, and every operation is defined for its operands.

        Raises:
            Refuted: a wire may leave its range.
        """
        for wire, op in enumerate(self.circuit.ops):
            if self.doubtful(wire):
                self._check_range(wire, op)
        method = "intervals of affine forms and operations"
        return Claim("ranges", method, len(self.circuit.ops))

    def _check_range(self, wire: Wire, op: Op) -> None:
        declared, reach = self.circuit.ranges[wire], self.known.reach[wire]
        kind = type(op).__name__
        if wire in self.known.doubts and wire not in self.sure:
            raise Refuted(f"a {kind} may be asked for what it does not define", wire)
        seen = self.observed.get(wire)
        if seen is None and not declared.contains(reach):
            message = f"a wire that holds {_text(declared)} may be {_text(reach)}"
            raise Refuted(message, wire, ("a wider value loses its highest bits",))
        if seen is not None and not declared.contains(seen):
            message = f"a wire that holds {_text(declared)} is {_text(seen)}"
            raise Refuted(message, wire, ("a wider value loses its highest bits",))

    def results(self) -> tuple[Range, ...]:
        """What the outputs can be."""
        return tuple(self._result(wire) for wire in self.circuit.outputs)

    def _result(self, wire: Wire) -> Range:
        reach, seen = self.known.reach[wire], self.observed.get(wire)
        if seen is None:
            return reach
        return Range(max(reach.lo, seen.lo), min(reach.hi, seen.hi))


def _line(factor: int, offset: int, variable: Codes) -> Codes:
    found: Codes = variable * factor + offset
    return found


def _span(group: Sequence[Question]) -> tuple[int, int]:
    """The first and the last value of all variables."""
    return min(question.first for question in group), max(question.last for question in group)


def _text(bounds: Range) -> str:
    return f"{bounds.lo}..{bounds.hi}"
