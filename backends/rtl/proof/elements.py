"""Functions of one input, of the maximum of some inputs, and of the product of two."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hqc.backends.rtl.circuit import Constant, Input, Larger, Product, Wire, evaluate
from hqc.backends.rtl.proof.cones import CHUNK, Cone, cone_of, open_circuit
from hqc.backends.rtl.proof.linear import Sum, prove_sums
from hqc.backends.rtl.proof.specs import assigned
from hqc.backends.rtl.proof.subject import Claim, Question, Refuted, Subject, Undecided
from hqc.numerics.types import Codes, FixedType, Range

#: Pairs of values of a product that are enumerated.
_PAIRS = 1 << 24


@dataclass(frozen=True, eq=False)
class Curve:
    """What an output must be: a function of one input, in some instances.

    Attributes:
        output: number of the output.
        input: number of the input; None where the circuit does not read it.
        bounds: what the layer's element can be in these instances.
        name: equal for equal functions.
        function: codes of the output for codes of the element.
        sum: the function as an assigned sum (factor, offset, fraction), where it is one.
        result: type of the output.
    """

    output: int
    input: int | None
    bounds: Range
    name: Hashable
    function: Callable[[Codes], Codes]
    sum: tuple[int, int, int] | None
    result: FixedType


def prove_curves(subject: Subject, curves: Sequence[Curve]) -> list[Claim]:
    """Prove outputs, each a function of one input.

    Raises:
        Refuted: one is another function, or reads another input.
        Undecided: there are too many values to enumerate, and the function is no assigned sum.
    """
    questions = [_question(subject, curve) for curve in curves]
    try:
        return [Claim("functions", "enumeration", len(curves), subject.answer(questions))]
    except Undecided:
        sums = [_sum(subject, curve) for curve in curves]
        if None in sums:
            raise
        return prove_sums(subject, [wanted for wanted in sums if wanted is not None])


def _question(subject: Subject, curve: Curve) -> Question:
    cone = _inputs_cone(subject, curve.output)
    allowed = () if curve.input is None else (_input_wire(subject, curve.input),)
    if not set(cone.leaves) <= set(allowed):
        names = ", ".join(f"input {_index(subject, leaf)}" for leaf in cone.leaves)
        own = "no input" if curve.input is None else f"input {curve.input} alone"
        message = f"output {curve.output} reads {names}, the layer {own}"
        raise Refuted(message, cone.wires[-1])
    lo, hi = curve.bounds.lo, curve.bounds.hi
    maps = ((1, 0),) * len(cone.leaves)
    return Question(curve.output, cone, maps, lo, hi, curve.name, curve.function)


def _sum(subject: Subject, curve: Curve) -> Sum | None:
    if curve.sum is None or curve.input is None:
        return None
    factor, offset, fraction = curve.sum
    coefficients = np.zeros(len(subject.inputs), object)
    coefficients[curve.input] = factor
    return Sum(curve.output, coefficients, offset, fraction, curve.result)


def _inputs_cone(subject: Subject, output: int) -> Cone:
    circuit = subject.circuit
    return cone_of(circuit, circuit.outputs[output], lambda w: isinstance(circuit.ops[w], Input))


def _input_wire(subject: Subject, index: int) -> Wire:
    return next(wire for wire, op in enumerate(subject.circuit.ops) if op == Input(index))


def _index(subject: Subject, wire: Wire) -> int:
    op = subject.circuit.ops[wire]
    assert isinstance(op, Input)
    return op.index


# --- maxima -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Window:
    """What an output must be: `result(max(inputs) * 2**-fraction)`."""

    output: int
    inputs: frozenset[int]
    fraction: int
    result: FixedType


def prove_windows(subject: Subject, windows: Sequence[Window]) -> list[Claim]:
    """Prove outputs, each the assigned maximum of some inputs.

    Raises:
        Refuted: one is something else.
        Undecided: there are too many values to enumerate.
    """
    sets = _maxima(subject)
    questions = []
    for window in windows:
        wire = subject.circuit.outputs[window.output]
        cone = cone_of(subject.circuit, wire, lambda w: sets[w] is not None)
        found = sets[cone.leaves[0]] if len(cone.leaves) == 1 else None
        bounds = _maximum_range(subject, window.inputs)
        if found is not None:
            _same_maximum(subject, window, found, wire)
        elif cone.leaves or bounds.lo != bounds.hi:
            message = f"output {window.output} is not a function of one maximum"
            raise Refuted(message, wire)
        questions.append(_assignment(window, cone, bounds))
    cases = subject.answer(questions)
    return [
        Claim("maxima", "sets of inputs", len(windows)),
        Claim("assignments", "enumeration", len(windows), cases),
    ]


#: What a maximum is of: inputs by number, and numbers.
_Set = frozenset[int | tuple[int]]


def _maxima(subject: Subject) -> list[_Set | None]:
    """What each wire is the maximum of; None for one that is none."""
    found: list[_Set | None] = []
    for wire, op in enumerate(subject.circuit.ops):
        if subject.known.same[wire] != wire:
            found.append(found[subject.known.same[wire]])
        elif isinstance(op, Input):
            found.append(_items(subject, [op.index]))
        elif isinstance(op, Constant):
            found.append(frozenset([(op.value,)]))
        elif isinstance(op, Larger):
            x, y = found[op.x], found[op.y]
            found.append(None if x is None or y is None else x | y)
        else:
            found.append(None)
    return found


def _items(subject: Subject, inputs: Iterable[int]) -> _Set:
    """Inputs, those that can be one value only as numbers."""
    bounds = subject.inputs
    return frozenset((bounds[i].lo,) if bounds[i].lo == bounds[i].hi else i for i in inputs)


def _same_maximum(subject: Subject, window: Window, found: _Set, wire: Wire) -> None:
    """Two sets have one maximum if what only one has never exceeds what both have."""
    wanted = _items(subject, window.inputs)
    floor = max((_ends(subject, item).lo for item in found & wanted), default=None)
    for item in found ^ wanted:
        if floor is None or _ends(subject, item).hi > floor:
            verb = "reads" if item in found else "does not read"
            what = f"input {item}" if isinstance(item, int) else f"the number {item[0]}"
            message = f"output {window.output} is a maximum that {verb} {what}"
            raise Refuted(message, wire)


def _ends(subject: Subject, item: int | tuple[int]) -> Range:
    return subject.inputs[item] if isinstance(item, int) else Range(item[0], item[0])


def _maximum_range(subject: Subject, inputs: frozenset[int]) -> Range:
    bounds = [subject.inputs[i] for i in inputs]
    return Range(max(b.lo for b in bounds), max(b.hi for b in bounds))


def _assignment(wanted: Window | Pair, cone: Cone, bounds: Range) -> Question:
    """Whether an output is the assignment of what the one leaf of its cone is."""

    def expected(codes: Codes) -> Codes:
        return assigned(codes, wanted.fraction, wanted.result)

    name = (wanted.fraction, wanted.result)
    maps = ((1, 0),) * len(cone.leaves)
    return Question(wanted.output, cone, maps, bounds.lo, bounds.hi, name, expected)


# --- products ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Pair:
    """What an output must be: `result(x * y * 2**-fraction)` of two inputs."""

    output: int
    inputs: tuple[int, int]
    fraction: int
    result: FixedType


def prove_pairs(subject: Subject, pairs: Sequence[Pair]) -> list[Claim]:
    """Prove outputs, each the assigned product of two inputs.

    Raises:
        Refuted: one is something else.
        Undecided: there are too many pairs, and the product is not one operation.
    """
    questions = []
    enumerated = cases = 0
    for pair in pairs:
        question = _product(subject, pair)
        if question is not None:
            questions.append(question)
        else:
            cases += _all_pairs(subject, pair)
            enumerated += 1
    claims = []
    if questions:
        claims.append(Claim("products", "one operation", len(questions)))
        claims.append(
            Claim("assignments", "enumeration", len(questions), subject.answer(questions))
        )
    if enumerated:
        claims.append(Claim("products", "enumeration of pairs", enumerated, cases))
    return claims


def _product(subject: Subject, pair: Pair) -> Question | None:
    """The assignment behind the product; None where the product is not one operation."""
    circuit = subject.circuit
    wires = tuple(_input_wire(subject, i) for i in pair.inputs)

    def is_product(wire: Wire) -> bool:
        op = circuit.ops[wire]
        if not isinstance(op, Product):
            return False
        factors = subject.known.same[op.x], subject.known.same[op.y]
        return factors in (wires, wires[::-1])

    cone = cone_of(circuit, circuit.outputs[pair.output], is_product)
    if len(cone.leaves) != 1 or not is_product(cone.leaves[0]):
        return None
    return _assignment(pair, cone, subject.known.reach[cone.leaves[0]])


def _all_pairs(subject: Subject, pair: Pair) -> int:
    """Try all pairs of two inputs; how many there were."""
    cone = cone_of(subject.circuit, subject.circuit.outputs[pair.output], lambda _: False)
    x, y = (subject.inputs[i] for i in pair.inputs)
    total = (x.hi - x.lo + 1) * (y.hi - y.lo + 1)
    if total > _PAIRS or not subject.fits(cone, [x * y]):
        raise Undecided(f"{total:,} pairs are more than {_PAIRS:,}")
    read = {op.index for op in cone.ops if isinstance(op, Input)}
    if not read <= set(pair.inputs):
        message = f"output {pair.output} reads inputs {sorted(read)}, the layer {pair.inputs}"
        raise Refuted(message, cone.wires[-1])
    circuit = open_circuit(cone)
    rows = max(1, CHUNK // (y.hi - y.lo + 1))
    for start in range(x.lo, x.hi + 1, rows):
        left = np.arange(start, min(start + rows, x.hi + 1))
        right = np.arange(y.lo, y.hi + 1)
        a, b = np.repeat(left, len(right)), np.tile(right, len(left))
        given = np.zeros((len(a), len(subject.inputs)), np.int64)
        given[:, pair.inputs[0]], given[:, pair.inputs[1]] = a, b
        got, want = evaluate(circuit, given)[:, -1], assigned(a * b, pair.fraction, pair.result)
        wrong = np.flatnonzero(got != want)
        if len(wrong):
            at = int(wrong[0])
            message = f"output {pair.output} is {got[at]} where it must be {want[at]}"
            raise Refuted(message, cone.wires[-1], (f"counterexample: {a[at]} and {b[at]}",))
    return total
