"""The smallest identical requantiser: full enumeration, and a search for a smaller one."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.dyadic_search import (
    HALF,
    HARDWARE,
    Case,
    boundaries,
    check,
    exists,
    fast_boundaries,
    significant,
)

from hqc.analysis.dyadic_requantiser import (
    Dyadic,
    corners,
    digits,
    fewest_bits,
    offsets,
    reach,
    thresholds_are_cheaper,
)
from hqc.analysis.step_functions import StepFunction
from hqc.numerics.types import Rounding, round_shift


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    channels = 1 if seed % 2 else 3
    mode = Rounding.ROUND if seed % 3 else list(Rounding)[int(rng.integers(7))]
    bits = int(rng.integers(1, 6))
    signed = bool(rng.integers(0, 2)) and bits > 1
    scale = Fraction(float(np.float32(rng.uniform(0.05, 2))))
    width = int(rng.integers(1, 160))
    lo = tuple(int(x) for x in rng.integers(-width, width // 2 + 1, channels))
    hi = tuple(
        low + int(x) for low, x in zip(lo, rng.integers(0, width + 1, channels), strict=True)
    )
    reach_ = float(scale) * 2.0**bits / width
    kinds = rng.integers(0, 8, channels)
    a, b = [], []
    for kind in kinds:
        slope = Fraction(float(np.float32(rng.uniform(0.2, 1.6) * reach_)))
        if kind == 0:  # ties everywhere
            slope = scale * Fraction(1, int(rng.integers(1, 9)))
        if kind == 1:  # a power of two
            slope = scale * Fraction(1, 1 << int(rng.integers(0, 5)))
        a.append(slope * int(rng.choice([-1, 1])) * (kind != 7))
        offset = Fraction(float(np.float32(rng.normal(0, 1) * float(scale) * 2**bits / 4)))
        b.append(offset if kind > 2 else scale * Fraction(int(rng.integers(-8, 9)), 2))
    relu = bool(rng.integers(0, 4) == 0)
    return Case(tuple(a), tuple(b), scale, bits, signed, mode, lo, hi, relu)


@pytest.mark.parametrize("block", range(8))
def test_random_requantisers_are_identical_and_one_bit_fewer_fails(block: int) -> None:
    """200 random ranges and scale ratios, per tensor and per channel."""
    found = [check(random_case(seed)) for seed in range(25 * block, 25 * block + 25)]
    assert sum(d is not None for d in found) >= 10


def test_boundaries() -> None:
    codes = np.arange(-5, 6)
    for mode in HARDWARE:
        for shift in range(5):
            want = boundaries(codes, shift, mode)
            np.testing.assert_array_equal(fast_boundaries(codes, shift, mode), want)
            assert [reach(int(k), shift, mode) for k in codes] == want.tolist()


def test_a_slope_of_one_half_takes_the_hardwares_own_rounding() -> None:
    """Ties to even make the thresholds uneven: there is no floor, whatever its multiplier."""
    case = Case((HALF,), (Fraction(0),), Fraction(1), 5, True, Rounding.ROUND, (-25,), (25,))
    d = check(case)
    assert d is not None
    assert (d.rounding, d.multiplier.tolist(), d.shift) == (Rounding.ROUND, [1], 1)
    n, k = case.table(0)
    assert exists(n, k, case.limits, np.arange(1, 256), Rounding.FLOOR) is None


def test_a_slope_of_one_sixth_with_ties_has_no_requantiser() -> None:
    """The ties of 1/6 are met by no dyadic multiplier: thresholds remain, and they are exact."""
    case = Case(
        (Fraction(1, 6),), (Fraction(0),), Fraction(1), 4, True, Rounding.ROUND, (-60,), (60,)
    )
    assert check(case) is None


@pytest.mark.parametrize("mode", list(Rounding))
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("slope", [Fraction(1, 4), Fraction(1, 3), Fraction(3, 7), Fraction(5, 2)])
def test_every_rounding_mode(mode: Rounding, sign: int, slope: Fraction) -> None:
    check(Case((sign * slope,), (Fraction(1, 2),), Fraction(1), 3, True, mode, (-11,), (13,)))


@pytest.mark.parametrize("mode", [Rounding.DOWN, Rounding.UP])
def test_rounding_towards_or_from_zero_needs_no_thresholds_on_one_side(mode: Rounding) -> None:
    """Where only one sign is reachable, or the other saturates, a floor does it."""
    case = Case((Fraction(1, 3),), (Fraction(0),), Fraction(1), 4, False, mode, (-20,), (40,))
    assert check(case) is not None
    both = Case((Fraction(1, 3),), (Fraction(0),), Fraction(1), 4, True, mode, (-20,), (20,))
    assert check(both) is None


@pytest.mark.parametrize("n", [-7, 0, 1, 1000])
@pytest.mark.parametrize("mode", list(Rounding))
def test_ranges_with_one_element(n: int, mode: Rounding) -> None:
    case = Case((Fraction(1, 3),), (Fraction(-1, 7),), Fraction(1), 4, True, mode, (n,), (n,))
    d = check(case)
    assert d is not None
    assert d.bits == 0


def test_constant_channels_among_others() -> None:
    """A slope of zero, a saturated channel, and one that moves."""
    case = Case(
        (Fraction(0), Fraction(2), Fraction(-1, 5)),
        (Fraction(3, 2), Fraction(500), Fraction(1)),
        Fraction(1),
        4,
        True,
        Rounding.ROUND,
        (-9, -9, -9),
        (9, 9, 9),
    )
    d = check(case)
    assert d is not None
    assert d.multiplier[0] == d.multiplier[1] == 0
    assert d.multiplier[2] < 0


def test_two_reachable_codes_need_one_bit() -> None:
    case = Case(
        (Fraction(7, 100),), (Fraction(0),), Fraction(1), 8, False, Rounding.ROUND, (0,), (20,)
    )
    d = check(case)
    assert d is not None
    assert significant(int(d.multiplier[0])) == 1


def test_bits_count_what_the_constant_has_when_emitted() -> None:
    """Zeros that all multipliers end in are no bits: the type of the constant has none of them."""
    one = Dyadic(np.array([4]), np.array([0]), 2, Rounding.FLOOR, 0, 7)
    two = Dyadic(np.array([12, -2]), np.array([0, 0]), 2, Rounding.FLOOR, 0, 7)
    none = Dyadic(np.array([0]), np.array([5]), 0, Rounding.FLOOR, 0, 7)
    assert [one.bits, two.bits, none.bits] == [1, 3, 0]


@pytest.mark.parametrize("seed", range(12))
def test_large_accumulators_get_the_smallest_multiplier_too(seed: int) -> None:
    """Beyond enumeration: the corners decide, and the exact multiplier interval gives the bits."""
    rng = np.random.default_rng(seed)
    top = int(2 ** rng.uniform(14, 24))
    slope = Fraction(float(np.float32(rng.uniform(0.7, 1.4) * 200 / top)))
    offset = Fraction(float(rng.uniform(-3, 3)))
    case = Case((slope,), (offset,), Fraction(1), 8, False, Rounding.ROUND, (-top,), (top,))
    d = case.smallest()
    assert d is not None
    f = case.step_function()
    row = f.thresholds[0]
    row = row[(row > -top) & (row <= top)]
    near = np.unique(np.clip(np.concatenate([row - 1, row, [-top, top]]), -top, top))
    np.testing.assert_array_equal(d(near[:, None]), f(near[:, None]))
    low, high = exact_interval(f, top)
    value = Fraction(int(d.multiplier[0]), 1 << d.shift)
    assert low < value < high
    assert significant(int(d.multiplier[0])) <= fewest_in(low, high) + 1


def exact_interval(f: StepFunction, top: int) -> tuple[Fraction, Fraction]:
    """Multipliers between which a real offset exists, from all pairs of corners."""
    row = f.thresholds[0]
    reachable = (row > -top) & (row <= top)
    up, code = row[reachable].tolist(), (f.lo + 1 + np.flatnonzero(reachable)).tolist()
    low, high = Fraction(0), Fraction(10**9)
    for n, k in zip(up, code, strict=True):
        for m, j in zip(up, code, strict=True):
            below, limit = m - 1, j
            if n > below:
                low = max(low, Fraction(k - limit, n - below))
            elif n < below:
                high = min(high, Fraction(limit - k, below - n))
    return low, high


def fewest_in(low: Fraction, high: Fraction) -> int:
    """Bits of the shortest dyadic strictly inside an interval."""
    for shift in range(64):
        m = math.floor(low * 2**shift) + 1
        if m < high * 2**shift:
            return significant(m)
    raise AssertionError("empty interval")


# --- parts --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(low=st.integers(-200, 200), size=st.integers(0, 200))
def test_fewest_bits_is_the_roundest_number(low: int, size: int) -> None:
    def zeros(x: int) -> float:
        return math.inf if x == 0 else (x & -x).bit_length()

    found = fewest_bits(low, low + size)
    assert low <= found <= low + size
    assert zeros(found) == max(zeros(x) for x in range(low, low + size + 1))


def test_digits_count_the_terms_of_a_signed_sum() -> None:
    assert [digits(m) for m in (0, 1, 2, 3, 7, 8, 11, 15, 0b101010)] == [0, 1, 1, 2, 2, 1, 3, 2, 3]


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(0, 40),
    shift=st.integers(0, 5),
    mode=st.sampled_from(HARDWARE),
    seed=st.integers(0, 10**6),
)
def test_offsets_are_exactly_the_admissible_ones(
    m: int, shift: int, mode: Rounding, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    slope = Fraction(m, 1 << shift) + Fraction(int(rng.integers(-1, 2)), 50)
    low = int(rng.integers(-12, 3))
    case = Case((slope,), (HALF / 3,), Fraction(1), 3, True, mode, (low,), (low + 15,))
    sign, cut = corners(case.step_function(), 0, low, low + 15)
    n, want = case.table(0)
    assume(len(set(want.tolist())) > 1)  # one code needs no multiplier, and gets none
    admissible = []
    for o in range(-400, 900):
        got = np.clip(round_shift(sign * n * m + o, shift, mode), -4, 3)
        if np.array_equal(got, want):
            admissible.append(o)
    found = offsets(cut, m, shift, mode)
    if found is None:
        assert not admissible
    else:
        low_o, high_o = max(found[0], -400), min(found[1], 899)
        assert admissible == list(range(low_o, high_o + 1))


def test_thresholds_win_for_few_codes_and_lose_for_many() -> None:
    def cheaper(bits: int) -> bool:
        slope = Fraction(2**bits, 200) * Fraction(97, 100)
        case = Case(
            (slope,), (Fraction(0),), Fraction(1), bits, False, Rounding.ROUND, (0,), (199,)
        )
        d = case.smallest()
        assert d is not None
        return thresholds_are_cheaper(case.step_function(), d, np.array(case.lo), np.array(case.hi))

    assert cheaper(1)
    assert not cheaper(6)


def test_what_is_beyond_the_largest_shift_is_left_to_thresholds() -> None:
    top = 2**40
    case = Case(
        (Fraction(1, top // 100),), (Fraction(1, 3),), Fraction(1), 8, False, Rounding.ROUND,
        (0,), (top,),
    )  # fmt: skip
    d = case.smallest()
    f = case.step_function()
    near: npt.NDArray[Any] = np.unique(
        np.clip(np.concatenate([f.thresholds[0] - 1, f.thresholds[0]]), 0, top)
    )
    if d is not None:
        np.testing.assert_array_equal(d(near[:, None]), f(near[:, None]))
