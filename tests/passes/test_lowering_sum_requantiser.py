"""Sums of two scales by small factors: held against every pair of operands."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hqc.analysis.step_functions import Quantiser
from hqc.numerics.monotone_chain import Affine, Chain
from hqc.numerics.types import Rounding
from hqc.passes.lowering.sum_requantiser import MAX_BITS, Operand, smallest_factors

FACTORS = st.fractions(-2, 2, max_denominator=997).filter(bool)
RANGES = st.tuples(st.integers(-12, 3), st.integers(4, 12))


@st.composite
def operands(draw: st.DrawFn) -> Operand:
    lo, hi = draw(RANGES)
    return Operand(draw(FACTORS), lo, hi)


@settings(max_examples=150, deadline=None)
@given(
    x=operands(),
    y=operands(),
    scale=st.fractions(Fraction(1, 50), 3, max_denominator=97),
    offset=st.fractions(-2, 2, max_denominator=13),
    slope=st.sampled_from([Fraction(1), Fraction(-3, 7)]),
    rounding=st.sampled_from(list(Rounding)),
    bits=st.integers(1, 4),
)
def test_every_pair_keeps_its_code(
    x: Operand,
    y: Operand,
    scale: Fraction,
    offset: Fraction,
    slope: Fraction,
    rounding: Rounding,
    bits: int,
) -> None:
    coder = Quantiser((scale,), (0,), -(1 << (bits - 1)), (1 << (bits - 1)) - 1, rounding)
    chain = Chain().then(Affine.of(slope, offset))
    found = smallest_factors(x, y, chain, coder, 0)
    assume(found is not None)
    assert found is not None
    assert max(abs(found.m), abs(found.n)).bit_length() <= MAX_BITS
    sums: dict[int, set[int]] = {}
    for a in range(x.lo, x.hi + 1):
        for b in range(y.lo, y.hi + 1):
            real = slope * (x.factor * a + y.factor * b) + offset
            code = coder.lo + sum(
                coder.bound(k, 0).holds(real) for k in range(coder.lo + 1, coder.hi + 1)
            )
            sums.setdefault(code, set()).add(found.sign * (found.m * a + found.n * b))
    ordered = [sums[code] for code in sorted(sums)]
    for low, high in itertools.pairwise(ordered):
        assert max(low) < min(high)
    corners = found.corners
    for n, code in zip(corners.above, corners.codes, strict=True):
        assert all(min(s) >= n for c, s in sums.items() if c >= code)
        assert all(max(s) < n for c, s in sums.items() if c < code)
    for n, code in zip(corners.below, corners.codes_below, strict=True):
        assert all(max(s) <= n for c, s in sums.items() if c < code)


def test_a_simple_ratio_needs_few_bits() -> None:
    coder = Quantiser((Fraction(1),), (0,), -8, 7, Rounding.ROUND)
    x, y = Operand(Fraction(1, 2), -8, 7), Operand(Fraction(3, 2), -8, 7)
    found = smallest_factors(x, y, Chain(), coder, 0)
    assert found is not None
    assert (found.m, found.n) == (1, 3)


def test_factors_follow_their_signs() -> None:
    coder = Quantiser((Fraction(1),), (0,), -8, 7, Rounding.FLOOR)
    x, y = Operand(Fraction(-1), -8, 7), Operand(Fraction(1), -8, 7)
    found = smallest_factors(x, y, Chain().then(Affine.of(-1)), coder, 0)
    assert found is not None
    assert (found.m, found.n) == (-1, 1)
    assert found.sign == -1
    assert np.all(np.diff(found.corners.above) > 0)
