"""Products of wires by a constant matrix, with few and narrow adders.

A solver finds which sums the columns of the matrix share; what each column adds up then, its bias
with it, is put in the order of the narrowest adders. The result is compared, as exact affine
forms, with the matrix; nothing that differs is ever used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import or_

import numpy as np

from hqc.backends.rtl.affine import Affine, Sums
from hqc.backends.rtl.builder import Builder
from hqc.backends.rtl.circuit import Wire
from hqc.backends.rtl.cost import adder_bits, depth
from hqc.backends.rtl.lowering.csd import dot
from hqc.backends.rtl.lowering.regroup import Term, regrouped, total
from hqc.backends.rtl.lowering.scaled import Scaled, add, fixed, positive
from hqc.backends.rtl.lowering.solver import OPTIONS, Stage, fits, solve
from hqc.diagnostics import Location, reject
from hqc.ir import Array

#: The solver's time grows with the square of the weights' digits: so many at once.
_DIGITS = 5000
#: Up to so many, all settings are tried.
_FEW = 2500
#: How many levels of adders are worth as much as all of the adders' bits.
_LEVELS = 200


def multiply(
    sums: Sums,
    inputs: Sequence[Wire],
    weight: Array,
    bias: Sequence[int],
    where: Location | None = None,
) -> list[Scaled]:
    """The wires of `bias + inputs @ weight`; none of them is negative.

    Args:
        sums: of the builder that gets the adders.
        inputs: n_in wires, some of which may be constant or equal.
        weight: (n_in, n_out) codes, integers of any size.
        bias: n_out codes.
        where: named by diagnostics.

    Raises:
        HqcError: HQC404, da4ml is missing; HQC420, its result is not the product.
    """
    wires, rows, start = _variables(sums, inputs, weight, bias)
    columns = [_normal([int(c) for c in column]) for column in rows.T]
    shapes = [shape for shape in dict.fromkeys(shape for shape, _ in columns) if any(shape)]
    parts = _products(sums, wires, np.array(shapes, object).reshape(len(shapes), len(wires)).T)
    made = dict(zip(shapes, parts, strict=True))
    found = [
        _sum(sums, [t.times(exponent, False) for t in made.get(shape, ())], constant)
        for (shape, exponent), constant in zip(columns, start, strict=True)
    ]
    _check(sums, wires, rows, start, found, where)
    return found


def _variables(
    sums: Sums, inputs: Sequence[Wire], weight: Array, bias: Sequence[int]
) -> tuple[list[Wire], Array, list[int]]:
    """Different wires that vary, their rows, and the bias with what the others give."""
    start = [int(b) for b in bias]
    rows: dict[Wire, Array] = {}
    for wire, row in zip(inputs, weight.astype(object), strict=True):
        held = sums.builder.ranges[wire]
        if held.lo == held.hi:
            start = [b + held.lo * int(w) for b, w in zip(start, row, strict=True)]
        else:
            rows[wire] = rows[wire] + row if wire in rows else row
    rows = {wire: row for wire, row in rows.items() if np.any(row != 0)}
    table = np.array(list(rows.values()), object).reshape(len(rows), len(start))
    return list(rows), table, start


def _normal(column: list[int]) -> tuple[tuple[int, ...], int]:
    """A column without its common power of two, and the power."""
    held = reduce(or_, column, 0)
    exponent = (held & -held).bit_length() - 1 if held else 0
    return tuple(c >> exponent for c in column), exponent


def _sum(sums: Sums, terms: Sequence[Term], constant: int) -> Scaled:
    """`constant` and the terms."""
    if not terms:
        return Scaled(sums.builder.constant(constant))
    if constant:
        terms = [*terms, Term.of(sums, fixed(sums, constant))]
    return positive(sums, total(sums, terms).value)


# --- the solver's sums ------------------------------------------------------------------------


def _products(sums: Sums, wires: Sequence[Wire], kernel: Array) -> list[list[Term]]:
    """What each column of a matrix adds up."""
    found: list[list[Term]] = [[] for _ in range(kernel.shape[1])]
    for rows in _chunks(kernel):
        part = kernel[rows]
        if fits(max(abs(int(w)) for w in part.flat)):
            terms = _solved(sums, wires[rows], part)
        else:
            values = [Scaled(wire) for wire in wires[rows]]
            columns = [dot(sums, values, [int(w) for w in column]) for column in part.T]
            terms = [[] if x is None else [Term.of(sums, x)] for x in columns]
        for known, new in zip(found, terms, strict=True):
            known += new
    return found


def _chunks(kernel: Array) -> Iterator[slice]:
    """Rows that are solved together."""
    if not kernel.size:
        return
    parts = -(-_digits(kernel) // _DIGITS)
    step = -(-len(kernel) // parts)
    yield from (slice(first, first + step) for first in range(0, len(kernel), step))


def _digits(kernel: Array) -> int:
    """About as many as there are signed digits in a matrix that are not 0."""
    return 1 + sum((abs(int(w)) ^ abs(3 * int(w))).bit_count() for w in kernel.flat)


def _solved(sums: Sums, wires: Sequence[Wire], kernel: Array) -> list[list[Term]]:
    """The terms of each column, by the setting of the solver that gives the least."""
    ranges = [sums.builder.ranges[wire] for wire in wires]
    matrix = kernel.astype(np.float32)
    settings = OPTIONS if _digits(kernel) <= _FEW else OPTIONS[:1]
    tried = []
    for number, options in enumerate(settings):
        scratch = Sums(Builder(ranges))
        values = [Scaled(wire) for wire in scratch.builder.inputs]
        for stage in solve(matrix, ranges, options):
            values = _stage(scratch, stage, values)
        circuit = scratch.builder.finish([v.wire for v in values])
        score = adder_bits(circuit) * (_LEVELS + depth(circuit))
        tried.append((score, number, circuit, values))
    _, _, circuit, values = min(tried, key=lambda t: t[:2])
    return regrouped(sums, circuit, wires, values)


def _stage(sums: Sums, stage: Stage, inputs: Sequence[Scaled]) -> list[Scaled]:
    """The adders of one stage."""
    given = [x.times(shift) for x, shift in zip(inputs, stage.shifts, strict=True)]
    values: list[Scaled] = []
    for first, second, shift, minus in stage.steps:
        if second is None:
            values.append(given[first])
        else:
            values.append(add(sums, values[first], values[second].times(shift, minus)))
    zero = Scaled(sums.builder.constant(0))
    return [zero if i < 0 else values[i].times(s, minus) for i, s, minus in stage.outputs]


def _check(
    sums: Sums,
    wires: Sequence[Wire],
    rows: Array,
    start: Sequence[int],
    found: Sequence[Scaled],
    where: Location | None,
) -> None:
    """Each result is, for all inputs, what was asked for."""
    for column, constant, result in zip(rows.T, start, found, strict=True):
        terms = {w: int(c) for w, c in zip(wires, column, strict=True) if c}
        form = sums.form(result.wire).shifted(-result.exponent)
        if result.negative or form != Affine(terms, constant):
            raise reject(
                "HQC420",
                "the adders of a constant matrix do not compute its product",
                where=where,
                notes=("the solver's result was not used",),
            )
