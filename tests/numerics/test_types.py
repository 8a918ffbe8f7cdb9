"""Fixed-point types and ranges against exact rational arithmetic and the QONNX executor."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hqc.numerics.types import INT64_BITS, FixedType, Overflow, Range, Rounding, round_shift

CODES = st.integers(-(2**40), 2**40)
EXPONENTS = st.integers(-12, 12)
RANGES = st.builds(lambda a, b, e: Range(min(a, b), max(a, b), e), CODES, CODES, EXPONENTS)
SMALL = st.builds(
    lambda lo, size, e: Range(lo, lo + size, e),
    st.integers(-9, 9),
    st.integers(0, 6),
    st.integers(-2, 2),
)


def values(range_: Range) -> set[Fraction]:
    """Every value of a small range."""
    step = Fraction(2) ** range_.exponent
    return {code * step for code in range(range_.lo, range_.hi + 1)}


def round_fraction(x: Fraction, rounding: Rounding) -> int:
    """Rounding by its definition, on rationals."""
    down, up = math.floor(x), math.ceil(x)
    toward = down if x > 0 else up
    away = up if x > 0 else down
    if rounding in (Rounding.FLOOR, Rounding.CEIL, Rounding.DOWN, Rounding.UP):
        return {"FLOOR": down, "CEIL": up, "DOWN": toward, "UP": away}[rounding.value]
    if x - down != Fraction(1, 2):
        return down if x - down < Fraction(1, 2) else up
    even = down if down % 2 == 0 else up
    return {"ROUND": even, "HALF_UP": away, "HALF_DOWN": toward}[rounding.value]


def types(max_width: int = 6) -> list[FixedType]:
    """Every small type with one or two binary points and every overflow it can have."""
    return [
        FixedType(signed, width, integer, rounding, overflow)
        for signed in (False, True)
        for width in range(1, max_width)
        for integer in (-1, 2)
        for rounding in Rounding
        for overflow in Overflow
        if signed or overflow is not Overflow.SAT_SYM
    ]


# --- rounding -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", Rounding)
def test_round_shift_is_exact_on_every_small_code(rounding: Rounding) -> None:
    codes = np.arange(-256, 257)
    for shift in range(6):
        got = round_shift(codes, shift, rounding)
        want = [round_fraction(Fraction(int(c), 2**shift), rounding) for c in codes]
        assert got.tolist() == want


@given(st.integers(-(2**62) + 1, 2**62 - 1), st.integers(0, 100), st.sampled_from(Rounding))
def test_round_shift_is_exact_on_large_codes(code: int, shift: int, rounding: Rounding) -> None:
    got = round_shift(np.array([code]), shift, rounding)
    assert got.tolist() == [round_fraction(Fraction(code, 2**shift), rounding)]


@given(st.integers(-(2**62) + 1, 2**62 - 1), st.integers(0, 70))
def test_a_left_shift_is_exact_or_refused(code: int, shift: int) -> None:
    if code and code.bit_length() + shift > INT64_BITS:
        with pytest.raises(OverflowError):
            round_shift(np.array([code]), -shift, Rounding.FLOOR)
    else:
        assert round_shift(np.array([code]), -shift, Rounding.FLOOR).tolist() == [code << shift]


def test_the_lowest_int64_is_not_taken_for_small() -> None:
    with pytest.raises(OverflowError):
        round_shift(np.array([-(2**63)]), -1, Rounding.FLOOR)


def test_round_shift_keeps_shape_and_takes_nothing() -> None:
    assert round_shift(np.zeros((0, 3), np.int64), 3, Rounding.ROUND).shape == (0, 3)
    assert round_shift(np.zeros((0, 3), np.int64), -80, Rounding.ROUND).shape == (0, 3)
    assert round_shift(np.array(5), 1, Rounding.ROUND) == 2


@pytest.mark.parametrize("rounding", Rounding)
def test_rounding_modes_are_those_of_the_qonnx_executor(rounding: Rounding) -> None:
    qonnx = pytest.importorskip("qonnx.custom_op.general.quant")
    codes = np.arange(-512, 513)
    for shift in range(6):
        want = qonnx.resolve_rounding_mode(rounding.value)(codes / 2.0**shift)
        assert round_shift(codes, shift, rounding).tolist() == want.tolist()


@pytest.mark.parametrize(("signed", "narrow"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("rounding", [r for r in Rounding if r.hardware])
def test_assignment_is_what_the_qonnx_executor_computes(
    signed: bool, narrow: bool, rounding: Rounding
) -> None:
    """Saturating types against `quant`, over each code of a type with four more fraction bits."""
    qonnx = pytest.importorskip("qonnx.custom_op.general.quant")
    for width in range(2, 6):
        overflow = Overflow.SAT_SYM if narrow else Overflow.SAT
        type_ = FixedType(signed, width, 2, rounding, overflow)
        exponent = -type_.fraction - 4
        codes = np.arange(-(2**11), 2**11)
        step = np.float64(2.0**-type_.fraction)
        want = qonnx.quant(
            codes * 2.0**exponent,
            step,
            np.float64(0),
            np.float64(width),
            signed,
            narrow,
            rounding.value,
        )
        got = type_.quantise(codes, exponent)
        assert (got * step).tolist() == want.tolist()


# --- types --------------------------------------------------------------------------------------


def test_assignment_to_every_small_type() -> None:
    codes = np.arange(-70, 71)
    for type_ in types():
        limits = type_.limits
        for exponent in (-4, 0, 1):
            step = Fraction(2) ** (exponent + type_.fraction)
            for code, got in zip(codes, type_.quantise(codes, exponent), strict=True):
                want = round_fraction(int(code) * step, type_.rounding)
                if type_.overflow is Overflow.WRAP:
                    assert (got - want) % 2**type_.width == 0
                    assert limits.lo <= got <= limits.hi
                else:
                    assert got == min(max(want, limits.lo), limits.hi)


def test_limits_count_the_codes() -> None:
    for type_ in types(9):
        symmetric = type_.overflow is Overflow.SAT_SYM
        assert type_.limits.hi - type_.limits.lo + 1 == 2**type_.width - symmetric
        assert (type_.limits.lo < 0) == (type_.signed and type_.limits.lo < type_.limits.hi)


@pytest.mark.parametrize("bad", [(True, 0, 0), (False, -1, 3)])
def test_types_have_at_least_one_bit(bad: tuple[bool, int, int]) -> None:
    with pytest.raises(ValueError, match="width"):
        FixedType(*bad)


def test_symmetric_saturation_needs_a_sign() -> None:
    with pytest.raises(ValueError, match="signed"):
        FixedType(False, 4, 4, overflow=Overflow.SAT_SYM)


def test_wrapping_of_wide_types_is_refused() -> None:
    with pytest.raises(OverflowError):
        FixedType(True, 63, 63).quantise(np.array([1]), 0)


@given(SMALL, st.integers(1, 6), st.integers(-3, 8), st.booleans(), st.sampled_from(Overflow))
def test_a_type_contains_what_assignment_keeps(
    range_: Range, width: int, integer: int, signed: bool, overflow: Overflow
) -> None:
    if not signed and overflow is Overflow.SAT_SYM:
        overflow = Overflow.SAT
    type_ = FixedType(signed, width, integer, Rounding.FLOOR, overflow)
    codes = np.arange(range_.lo, range_.hi + 1)
    kept = type_.quantise(codes, range_.exponent)
    steps = (Fraction(2) ** range_.exponent, Fraction(2) ** -type_.fraction)
    same = all(int(a) * steps[0] == int(b) * steps[1] for a, b in zip(codes, kept, strict=True))
    if type_.contains(range_):
        assert same
    elif range_.lo != range_.hi:  # a single value may lie on a finer step by chance
        assert not same


@given(RANGES)
def test_exact_types_keep_their_bits(range_: Range) -> None:
    type_ = FixedType(True, 9, 3, Rounding.ROUND, Overflow.SAT)
    assert type_.exact().limits == type_.limits
    assert str(type_.exact()) == "fixed<9,3>"
    assert range_.fit() == range_.fit().exact()


# --- ranges -------------------------------------------------------------------------------------


@given(RANGES)
def test_fit_holds_the_range_and_nothing_narrower_does(range_: Range) -> None:
    type_ = range_.fit()
    assert type_.contains(range_)
    assert -type_.fraction == range_.exponent
    assert type_.signed == (range_.lo < 0)
    if type_.width > 1:
        narrower = FixedType(type_.signed, type_.width - 1, type_.integer - 1)
        assert not narrower.contains(range_)
        if type_.signed:
            unsigned = FixedType(False, type_.width - 1, type_.integer - 1)
            assert not unsigned.contains(range_)


@pytest.mark.parametrize(
    ("range_", "want"),
    [
        (Range(0, 0), "ufixed<1,1>"),
        (Range(-1, 0), "fixed<1,1>"),
        (Range(0, 1), "ufixed<1,1>"),
        (Range(-1, 1), "fixed<2,2>"),
        (Range(-128, 127), "fixed<8,8>"),
        (Range(-128, 128), "fixed<9,9>"),
        (Range(-129, 0), "fixed<9,9>"),
        (Range(0, 255, -4), "ufixed<8,4>"),
        (Range(3, 5, 2), "ufixed<3,5>"),
    ],
)
def test_fit_by_hand(range_: Range, want: str) -> None:
    assert str(range_.fit()) == want


@given(SMALL, SMALL)
def test_arithmetic_holds_every_result_and_is_tight(a: Range, b: Range) -> None:
    for result, operation in (
        (a + b, lambda x, y: x + y),
        (a * b, lambda x, y: x * y),
    ):
        reached = {operation(x, y) for x in values(a) for y in values(b)}
        step = Fraction(2) ** result.exponent
        assert (result.lo * step, result.hi * step) == (min(reached), max(reached))
        assert all((x / step).denominator == 1 for x in reached)


@given(SMALL)
def test_negation_and_rectification(range_: Range) -> None:
    assert values(-range_) == {-x for x in values(range_)}
    assert values(range_.relu()) >= {max(x, Fraction(0)) for x in values(range_)}
    reached = {max(x, Fraction(0)) for x in values(range_)}
    assert (min(values(range_.relu())), max(values(range_.relu()))) == (min(reached), max(reached))


@given(SMALL, SMALL)
def test_join_is_the_smallest_that_holds_both(a: Range, b: Range) -> None:
    joined = a.join(b)
    both = values(a) | values(b)
    assert both <= values(joined)
    assert {min(values(joined)), max(values(joined))} == {min(both), max(both)}
    assert joined == b.join(a)
    assert joined.contains(a)
    assert joined.contains(b)


@given(SMALL, SMALL)
def test_contains_is_inclusion(a: Range, b: Range) -> None:
    """Never claimed without it, and always where the other is no finer."""
    included = values(b) <= values(a)
    if a.contains(b):
        assert included
    if included and b.exponent >= a.exponent:
        assert a.contains(b)


@given(RANGES, st.integers(0, 20))
def test_a_finer_step_changes_no_value(range_: Range, finer: int) -> None:
    again = range_.at(range_.exponent - finer)
    assert again.contains(range_)
    assert again.lo == range_.lo * 2**finer
    assert again.hi == range_.hi * 2**finer


def test_a_coarser_step_and_an_empty_range_are_refused() -> None:
    with pytest.raises(ValueError, match="coarser"):
        Range(0, 1, 0).at(1)
    with pytest.raises(ValueError, match="empty"):
        Range(1, 0)


@given(RANGES)
def test_magnitude_bits(range_: Range) -> None:
    largest = max(abs(range_.lo), abs(range_.hi))
    assert largest < 2**range_.magnitude_bits
    assert largest == 0 or largest >= 2 ** (range_.magnitude_bits - 1)
