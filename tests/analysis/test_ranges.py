"""Ranges of integer graphs: exact, channel by channel, and reached."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.backend_graphs import Builder, signed, unsigned

from hqc.analysis.precision_propagation import channel_ranges
from hqc.analysis.ranges import ChannelRange, fit, value_range
from hqc.diagnostics import HqcError
from hqc.numerics.types import FixedType, Range, Rounding

ONE = FixedType(True, 20, 20)


def range_at(b: Builder, value: object) -> ChannelRange:
    model, _ = b.finish(value)  # type: ignore[arg-type]
    return channel_ranges(model)[value]  # type: ignore[index]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_linear_ranges_are_reached_and_never_left(seed: int) -> None:
    """Every input code by enumeration: the ends of each channel are its extreme sums."""
    rng = np.random.default_rng(seed)
    b = Builder()
    x = b.input("x", 3, [signed(2, 1), unsigned(2, 2)][seed % 2])
    weights = rng.integers(-4, 5, (3, 4))
    bias = rng.integers(-9, 10, 4)
    y = b.add(b.matmul(x, weights, FixedType(True, 4, 3)), bias, FixedType(True, 5, 1))
    found = range_at(b, y)
    limits = b.range_of(x)
    codes = np.array(list(itertools.product(range(limits.lo, limits.hi + 1), repeat=3)))
    step = Fraction(2) ** (limits.exponent - 1)
    unit = Fraction(2) ** found.exponent
    sums = (codes @ weights) * (step / unit) + bias * (Fraction(1, 16) / unit)
    assert found.lo.tolist() == sums.min(axis=0).tolist()
    assert found.hi.tolist() == sums.max(axis=0).tolist()


def test_requantised_and_counted_ranges_are_those_of_the_ends() -> None:
    b = Builder()
    x = b.input("x", 2, signed(5, 3))
    scaled = b.mul(x, np.array([3, -2]), FixedType(True, 3, 3))
    shifted = b.add(scaled, np.array([1, -50]), FixedType(True, 8, 8))
    quantised = b.quant(shifted, signed(4, 4, Rounding.FLOOR))
    counted = b.thresholds(shifted, [[-100.0, 0.0, 5.0], [-60.0, -55.0, 0.0]], bias=-1)
    model, _ = b.finish(quantised, counted, b.relu(shifted))
    found = {str(v.name): r for v, r in channel_ranges(model).items()}
    assert found[str(shifted.name)].lo.tolist() == [(-12 + 1) * 4, round((-7.5 - 50) * 4)]
    assert found[str(shifted.name)].hi.tolist() == [round((11.25 + 1) * 4), (8 - 50) * 4]
    quant_ = found[str(quantised.name)]
    assert (quant_.lo.tolist(), quant_.hi.tolist()) == ([-8, -8], [7, -8])
    assert quant_.constant.tolist() == [False, True]
    count = found[str(counted.name)]
    assert (count.lo.tolist(), count.hi.tolist()) == ([0, 0], [2, 1])


def test_a_merge_aligns_steps() -> None:
    b = Builder()
    x = b.input("x", 2, signed(4, 2))
    total = b.merge(x, b.quant(x, signed(3, 3)))
    found = range_at(b, total)
    assert found.joined == Range(-8 - 8, 7 + 8, -2) or found.joined == Range(-8 - 8, 7 + 12, -2)
    assert found.exponent == -2


def test_channels_repeat_behind_a_flatten_and_finer_steps_change_nothing() -> None:
    narrow = ChannelRange(np.array([-1, 2]), np.array([3, 2]), -1)
    assert narrow.at(-3).lo.tolist() == [-4, 8]
    assert narrow.joined == Range(-1, 3, -1)
    assert narrow.constant.tolist() == [False, True]
    with pytest.raises(ValueError, match="coarser"):
        narrow.at(0)
    with pytest.raises(OverflowError):
        narrow.at(-80)


@pytest.mark.parametrize("wide", ["matmul", "mul", "add"])
def test_sums_beyond_62_bits_are_refused(wide: str) -> None:
    b = Builder()
    x = b.input("x", 4, signed(20, 10))
    big = FixedType(True, 31, 31)
    y = b.matmul(x, np.full((4, 4), 2**30), big)
    if wide == "add":
        y = b.add(y, np.array([1]), FixedType(True, 2, -50))
    else:
        y = b.mul(y, np.array([2**30]), big)
    y = b.matmul(y, np.full((y.shape[1], 1), 2**30), big) if wide == "matmul" else y
    y = b.quant(y, signed(8, 8))
    with pytest.raises(HqcError, match="HQC204"):
        range_at(b, y)


def test_operators_outside_the_integer_state_are_refused() -> None:
    b = Builder()
    x = b.input("x", 2, signed(4, 2))
    y = b.node("Sigmoid", [x], signed(4, 2))
    z = b.quant(y, signed(3, 2))
    with pytest.raises(HqcError, match="HQC205"):
        range_at(b, z)


@settings(max_examples=80, deadline=None)
@given(codes=st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=6), e=st.integers(-40, 40))
def test_the_coarsest_step_that_holds_all_numbers(codes: list[int], e: int) -> None:
    values = np.ldexp(np.array(codes, np.float64), e)
    found = value_range(values)
    step = Fraction(2) ** found.exponent
    exact = [Fraction(v) / step for v in values.tolist()]
    assert all(x.denominator == 1 for x in exact)
    assert (found.lo, found.hi) == (min(exact), max(exact))
    if any(codes):
        assert any(x.numerator % 2 for x in exact)
    assert fit(values).contains(found)
