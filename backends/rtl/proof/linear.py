"""Sums of products: exact affine propagation, then the assignment as a function of one variable.

The sum that a layer assigns is `g * t + b` of one integer t, g the common divisor of its
coefficients. A circuit computes it if every affine wire that its assignment reads is a function
of the same t, and the assignment is right for all t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hqc.backends.rtl.circuit import Clamp, RoundShift, Wire, Wrap, evaluate, operands
from hqc.backends.rtl.proof.cones import cone_of, open_circuit
from hqc.backends.rtl.proof.forms import Form
from hqc.backends.rtl.proof.specs import assigned
from hqc.backends.rtl.proof.subject import Claim, Question, Refuted, Subject, Undecided
from hqc.ir import Array
from hqc.numerics.types import INT64_BITS, Codes, FixedType, Overflow, Range, Rounding

#: Inputs that a search for a counterexample tries beside the corners.
_TRIES = 2000


@dataclass(frozen=True, eq=False)
class Sum:
    """What an output must be: `result((coefficients @ inputs + constant) * 2**-fraction)`.

    Attributes:
        output: number of the output.
        coefficients: exact, one per input of the circuit.
        constant, fraction, result: as above.
    """

    output: int
    coefficients: Array
    constant: int
    fraction: int
    result: FixedType


def prove_sums(subject: Subject, sums: Sequence[Sum]) -> list[Claim]:
    """Prove outputs, each an assigned sum.

    Raises:
        Refuted: one is something else.
        Undecided: one has too many values to enumerate, and another form than the definition.
    """
    questions: list[Question] = []
    structural = 0
    for wanted in sums:
        try:
            question = _Output(subject, wanted).question()
        except _Mismatch as reason:
            raise _refuted(subject, wanted, str(reason)) from None
        if question is None:
            structural += 1
        else:
            questions.append(question)
    claims = [Claim("sums", "affine forms, coefficient by coefficient", len(sums))]
    if questions:
        cases = _answered(subject, sums, questions)
        claims.append(Claim("assignments", "enumeration", len(questions), cases))
    if structural:
        claims.append(Claim("assignments", "the definition, literally", structural))
    return claims


def _answered(subject: Subject, sums: Sequence[Sum], questions: Sequence[Question]) -> int:
    """Cases that the questions took; a refutation also names inputs."""
    try:
        return subject.answer(questions)
    except Refuted as reason:
        wires = subject.circuit.outputs
        wanted = next(wanted for wanted in sums if wires[wanted.output] == reason.wire)
        notes = (*reason.notes, counterexample(subject, wanted))
        raise Refuted(str(reason), reason.wire, notes) from None


class _Mismatch(Exception):
    """An affine wire that is no function of the sum."""


class _Output:
    """One output: its affine leaves, and the logic behind them."""

    #: Values that are enumerated although the assignment is the definition, literally.
    few = 1 << 22

    def __init__(self, subject: Subject, wanted: Sum) -> None:
        self.subject = subject
        self.wanted = wanted = _without_constants(subject, wanted)
        self.step, self.base = _lattice(wanted.coefficients, wanted.constant)
        self.sum = subject_range(subject, wanted)
        wire = subject.circuit.outputs[wanted.output]
        forms = subject.known.forms
        self.cone = cone_of(subject.circuit, wire, lambda w: forms[w] is not None)
        self.maps = tuple(self._map(leaf) for leaf in self.cone.leaves)

    def question(self) -> Question | None:
        """What remains to be enumerated; None if the assignment is literally the definition."""
        wanted, step, base = self.wanted, self.step, self.base
        first, last = (self.sum.lo - base) // step, (self.sum.hi - base) // step
        leaves = [self.subject.known.reach[leaf] for leaf in self.cone.leaves]
        held = self.subject.fits(self.cone, [self.sum, *leaves, Range(base, base)])
        if not held or last - first >= self.few:
            if self._is_definition():
                return None
            if not held:
                raise Undecided(f"output {wanted.output} has sums of more than {INT64_BITS} bits")

        def expected(variable: Codes) -> Codes:
            return assigned(variable * step + base, wanted.fraction, wanted.result)

        name = (step, base, wanted.fraction, wanted.result)
        return Question(wanted.output, self.cone, self.maps, first, last, name, expected)

    def _map(self, leaf: Wire) -> tuple[int, int]:
        """The leaf as a function of the variable, where the sum is `step * variable + base`."""
        form = self.subject.known.forms[leaf]
        assert isinstance(form, Form)
        given, wanted = form.coefficients, self.wanted.coefficients
        if not np.any(given):
            return 0, form.constant
        factor = _ratio(given, wanted, self.step)
        if factor is None:
            raise _Mismatch(_difference(given, wanted, leaf))
        skipped = (self.wanted.constant - self.base) // self.step
        return factor, form.constant - factor * skipped

    # --- without enumeration ------------------------------------------------------------------

    def _is_definition(self) -> bool:
        """Whether the logic is a rounding shift and an overflow with the type's parameters."""
        if len(self.cone.leaves) != 1:
            return False
        (factor, offset), leaf = self.maps[0], self.cone.leaves[0]
        shift = _power(factor, self.step)
        if shift is None or offset << max(0, -shift) != self.base << max(0, shift):
            return False
        result = self.wanted.result
        drop = self.wanted.fraction + shift - result.fraction
        if drop < 0:
            return False
        chain = _Chain(self.subject, leaf, self.subject.circuit.outputs[self.wanted.output])
        return chain.rounds(drop, result.rounding) and chain.overflows(result) and chain.ends()


class _Chain:
    """Operations of one operand between two wires, in order; empty where there are others too."""

    def __init__(self, subject: Subject, first: Wire, last: Wire) -> None:
        self.subject = subject
        ops = subject.circuit.ops
        self.wires: list[Wire] = []
        wire = last
        while wire != first and len(used := operands(ops[wire])) == 1:
            self.wires.insert(0, wire)
            wire = used[0]
        self.before = wire
        self.whole = wire == first

    def rounds(self, shift: int, rounding: Rounding) -> bool:
        """Take the rounding shift off, if that is what comes first."""
        if shift == 0:
            return True
        op = self._next()
        return isinstance(op, RoundShift) and (op.shift, op.rounding) == (shift, rounding)

    def overflows(self, type_: FixedType) -> bool:
        """Take the overflow off; it may be missing where nothing overflows."""
        limits = Range(type_.limits.lo, type_.limits.hi)
        reach = self.subject.known.reach[self.before]
        if not self.wires:
            return limits.contains(reach)
        op = self._next()
        if type_.overflow is Overflow.WRAP:
            return isinstance(op, Wrap) and (op.width, op.signed) == (type_.width, type_.signed)
        if not isinstance(op, Clamp):
            return False
        low = op.lo == limits.lo or (op.lo is None and limits.lo <= reach.lo)
        high = op.hi == limits.hi or (op.hi is None and reach.hi <= limits.hi)
        return low and high

    def ends(self) -> bool:
        """Whether nothing is left."""
        return self.whole and not self.wires

    def _next(self) -> object:
        if not self.wires:
            return None
        self.before = self.wires.pop(0)
        return self.subject.circuit.ops[self.before]


def _without_constants(subject: Subject, wanted: Sum) -> Sum:
    """The sum in which inputs that can be one value only are part of the constant."""
    fixed = [i for i, bounds in enumerate(subject.inputs) if bounds.lo == bounds.hi]
    if not fixed:
        return wanted
    held = wanted.coefficients.copy()
    held[fixed] = 0
    more = sum(int(wanted.coefficients[i]) * subject.inputs[i].lo for i in fixed)
    return replace(wanted, coefficients=held, constant=wanted.constant + more)


def _lattice(coefficients: Array, constant: int) -> tuple[int, int]:
    """Step and base of the values of a form: `step * t + base` for integers t."""
    step = int(np.gcd.reduce(coefficients)) if len(coefficients) else 0
    return (step, constant % step) if step else (1, constant)


def subject_range(subject: Subject, wanted: Sum) -> Range:
    """What a sum can be."""
    low = high = wanted.constant
    for factor, bounds in zip(wanted.coefficients.tolist(), subject.inputs, strict=True):
        ends = factor * bounds.lo, factor * bounds.hi
        low, high = low + min(ends), high + max(ends)
    return Range(low, high)


def _ratio(given: Array, wanted: Array, step: int) -> int | None:
    """f such that `given * step == f * wanted`, an integer; None if there is none."""
    if np.array_equal(given, wanted):
        return step
    at = int(np.argmax(wanted != 0))
    if wanted[at] == 0:
        return None
    factor, rest = divmod(int(given[at]) * step, int(wanted[at]))
    same = given.astype(object) * step == wanted.astype(object) * factor
    return factor if not rest and bool(np.all(same)) else None


def _power(factor: int, step: int) -> int | None:
    """n with `factor == step * 2**n`."""
    if factor <= 0:
        return None
    shift = factor.bit_length() - step.bit_length()
    return shift if factor << max(0, -shift) == step << max(0, shift) else None


# --- what is wrong ----------------------------------------------------------------------------


def _difference(given: Array, wanted: Array, leaf: Wire) -> str:
    places = np.flatnonzero(given != wanted)
    at = int(places[0]) if len(places) else 0
    return (
        f"wire v{leaf} has {int(given[at])} times input {at}, the layer {int(wanted[at])} "
        f"({len(places)} of {len(given)} coefficients differ)"
    )


def _refuted(subject: Subject, wanted: Sum, reason: str) -> Refuted:
    wire = subject.circuit.outputs[wanted.output]
    return Refuted(
        f"output {wanted.output} is not the layer's sum: {reason}",
        wire,
        (counterexample(subject, wanted),),
    )


def counterexample(subject: Subject, wanted: Sum) -> str:
    """Inputs for which an output is wrong, in words; or that none was found."""
    cone = cone_of(subject.circuit, subject.circuit.outputs[wanted.output], lambda _: False)
    if not subject.fits(cone, [subject_range(subject, wanted)]):
        return "the sums are too wide to search for a counterexample"
    guarded = open_circuit(cone)
    for given in _candidates(subject):
        got = evaluate(guarded, given)[:, -1]
        total = given @ wanted.coefficients.astype(np.int64) + wanted.constant
        want = assigned(total, wanted.fraction, wanted.result)
        wrong = np.flatnonzero(got != want)
        if len(wrong):
            row = int(wrong[np.argmin(np.count_nonzero(given[wrong], axis=1))])
            inputs = ", ".join(f"input {i} = {v}" for i, v in enumerate(given[row]) if v)
            return (
                f"counterexample: with {inputs or 'all inputs 0'}, the rest 0, it is "
                f"{int(got[row])} where it must be {int(want[row])}"
            )
    return "no counterexample was found among the corners and some random inputs"


def _candidates(subject: Subject) -> list[Codes]:
    low = np.array([r.lo for r in subject.inputs], np.int64)
    high = np.array([r.hi for r in subject.inputs], np.int64)
    zero = np.clip(np.zeros_like(low), low, high)
    single = np.repeat(zero[None], 2 * len(low), axis=0)
    for number, ends in enumerate(zip(low, high, strict=True)):
        single[2 * number : 2 * number + 2, number] = ends
    random = np.random.default_rng(0).integers(low, high + 1, (_TRIES, len(low)))
    return [zero[None], single, np.stack([low, high]), random]
