"""Chains, quantisers as boundaries, and step functions, against rational arithmetic and qonnx."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hqc.analysis.step_functions import (
    ALWAYS,
    NEVER,
    Quantiser,
    Thresholds,
    real_step_function,
    step_function,
)
from hqc.ir import Array
from hqc.ir.operators import MultiThreshold, Quant
from hqc.numerics.activations import Rectifier
from hqc.numerics.bounds import Bound
from hqc.numerics.monotone_chain import Affine, Chain
from hqc.numerics.types import Rounding

RATIONALS = st.fractions(min_value=-4, max_value=4, max_denominator=12)
STEPS = st.one_of(
    st.builds(lambda a, b: Affine((a,), (b,)), RATIONALS, RATIONALS), st.just(Rectifier())
)
CHAINS = st.lists(STEPS, max_size=4)
MODES = st.sampled_from(list(Rounding))


def chain(*steps: Affine | Rectifier) -> Chain:
    found = Chain()
    for step in steps:
        found = found.then(step)
    return found


def apply(steps: list[Affine | Rectifier], x: Fraction) -> Fraction:
    for step in steps:
        if isinstance(step, Rectifier):
            x = max(x, Fraction(0))
        else:
            a, b = step.at(0)
            x = a * x + b
    return x


def executed(
    x: Array, bits: int, mode: Rounding, *, signed: bool, narrow: bool, scale: float, zero: int
) -> Array:
    """Values by qonnx's own executor, in float64."""
    from qonnx.custom_op.general.intquant import int_quant

    found = int_quant(
        np.asarray(x, np.float64),
        np.float64(scale),
        np.float64(zero),
        np.float64(bits),
        signed,
        narrow,
        mode.value,
    )
    return np.asarray(found)


def quant(
    bits: int, mode: Rounding, *, signed: bool, narrow: bool, scale: float, zero: int
) -> Quantiser:
    view = Quant(np.array(scale), np.array(zero), bits, signed, narrow, mode)
    return Quantiser.of(view)


@pytest.mark.parametrize("mode", list(Rounding))
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("narrow", [True, False])
def test_quantisers_are_those_of_the_qonnx_executor(
    mode: Rounding, signed: bool, narrow: bool
) -> None:
    """Every dyadic input around every code, every mode, zero points, one bit and bipolar too."""
    for bits in (1, 2, 3, 4):
        if bits == 1 and narrow:
            continue
        for zero in (-3, 0, 1):
            for scale in (1.0, 0.25):
                n = np.arange(-20 * 8, 20 * 8 + 1)
                x = n * scale / 8
                options = {"signed": signed, "narrow": narrow, "scale": scale, "zero": zero}
                want = executed(x, bits, mode, **options)  # type: ignore[arg-type]
                view = quant(bits, mode, **options)  # type: ignore[arg-type]
                a, b = view.grid().at(0)
                f = step_function(chain(Affine.of(Fraction(scale) / 8)), view, 1)
                np.testing.assert_array_equal(f(n) * float(a) + float(b), want)
                real = real_step_function(Chain(), view, 1)(x)
                np.testing.assert_array_equal(real * float(a) + float(b), want)


@settings(max_examples=150, deadline=None)
@given(steps=CHAINS, mode=MODES, bits=st.integers(1, 4), signed=st.booleans(), scale=RATIONALS)
def test_step_functions_are_the_chain_and_the_quantiser(
    steps: list[Affine | Rectifier], mode: Rounding, bits: int, signed: bool, scale: Fraction
) -> None:
    scale = abs(scale) or Fraction(1, 3)
    lo, hi = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    view = Quantiser((scale,), (0,), lo, hi, mode)
    n = np.arange(-40, 41)
    f = step_function(chain(*steps), view, 1)
    want = []
    for i in n.tolist():
        value = apply(steps, Fraction(i)) / scale
        want.append(max(lo, min(hi, by_definition(value, mode))))
    np.testing.assert_array_equal(f(n), want)
    assert np.all(f.thresholds[:, 1:] >= f.thresholds[:, :-1])
    assert (f.lo, f.hi) == (lo, hi)
    np.testing.assert_array_equal(
        real_step_function(chain(*steps), view, 1)(n.astype(np.float64)), want
    )


def by_definition(x: Fraction, mode: Rounding) -> int:
    down, up = math.floor(x), math.ceil(x)
    toward, away = (down, up) if x > 0 else (up, down)
    if mode in (Rounding.FLOOR, Rounding.CEIL, Rounding.DOWN, Rounding.UP):
        return {"FLOOR": down, "CEIL": up, "DOWN": toward, "UP": away}[mode.value]
    if x - down != Fraction(1, 2):
        return down if x - down < Fraction(1, 2) else up
    even = down if down % 2 == 0 else up
    return {"ROUND": even, "HALF_UP": away, "HALF_DOWN": toward}[mode.value]


@settings(max_examples=100, deadline=None)
@given(steps=CHAINS, value=RATIONALS, inclusive=st.booleans(), x=RATIONALS)
def test_a_bound_inverts_through_a_chain(
    steps: list[Affine | Rectifier], value: Fraction, inclusive: bool, x: Fraction
) -> None:
    bound = Bound(value, inclusive)
    inverse = chain(*steps).invert(bound, 0)
    want = bound.holds(apply(steps, x))
    assert (inverse if isinstance(inverse, bool) else inverse.holds(x)) == want


@given(value=RATIONALS, inclusive=st.booleans(), upward=st.booleans())
def test_the_outermost_integer_of_a_bound(value: Fraction, inclusive: bool, upward: bool) -> None:
    bound = Bound(value, inclusive, upward)
    n = bound.integer()
    assert bound.holds(Fraction(n))
    assert not bound.holds(Fraction(n - 1 if upward else n + 1))


@settings(max_examples=60, deadline=None)
@given(steps=CHAINS, x=RATIONALS)
def test_merging_changes_no_value(steps: list[Affine | Rectifier], x: Fraction) -> None:
    merged = list(chain(*steps).steps)
    assert apply(merged, x) == apply(steps, x)
    assert not any(isinstance(a, type(b)) for a, b in pairwise(merged))
    assert not any(isinstance(s, Affine) and s.is_identity for s in merged)


def test_channels_are_told_apart() -> None:
    """Negative slopes, zero slopes and offsets, one channel each; scales per channel."""
    affine = Affine(
        (Fraction(1, 2), Fraction(-1, 3), Fraction(0)), (Fraction(0), Fraction(1), Fraction(7, 2))
    )
    scales = (Fraction(1), Fraction(1, 2), Fraction(2))
    view = Quantiser(scales, (0, 1, 0), -4, 3, Rounding.ROUND)
    f = step_function(chain(affine), view, 3)
    n = np.arange(-20, 21).repeat(3).reshape(-1, 3)
    for c, zero in enumerate((0, 1, 0)):
        a, b = affine.at(c)
        want = [
            max(-4, min(3, by_definition((a * int(i) + b) / scales[c] + zero, Rounding.ROUND)))
            for i in n[:, c]
        ]
        np.testing.assert_array_equal(f(n)[:, c], want)
    assert f.sign.tolist() == [1, -1, 1]
    assert set(f.thresholds[2].tolist()) <= {int(ALWAYS), int(NEVER)}
    deep = np.stack([n, n[::-1]], axis=2)
    np.testing.assert_array_equal(f(deep)[:, :, 0], f(n))
    assert view.grid().at(1) == (Fraction(1, 2), Fraction(-1, 2))


def test_codes_far_beyond_int64_never_wrap() -> None:
    tiny = chain(Affine.of(Fraction(1, 2**80)))
    view = Quantiser((Fraction(1),), (0,), -2, 1, Rounding.ROUND)
    f = step_function(tiny, view, 1)
    top = np.array([-(2**61), 0, 2**61])
    np.testing.assert_array_equal(f(top), [0, 0, 0])


def test_real_thresholds_are_exact_to_the_last_float() -> None:
    """1/3 is no float: the float below rounds to 0 and the one above to 1."""
    view = Quantiser((Fraction(2, 3),), (0,), 0, 1, Rounding.HALF_UP)
    codes = real_step_function(Chain(), view, 1)
    third = 1 / 3
    assert Fraction(third) < Fraction(1, 3)
    assert codes(np.array([third, math.nextafter(third, 1)])).tolist() == [0, 1]
    falling = real_step_function(chain(Affine.of(-1)), view, 1)
    assert falling(np.array([-third, math.nextafter(-third, -1)])).tolist() == [0, 1]


def test_a_real_chain_saturates_where_nothing_decides() -> None:
    view = Quantiser((Fraction(1),), (0,), 0, 3, Rounding.ROUND)
    always = real_step_function(chain(Affine.of(0, 2)), view, 1)
    assert always(np.array([-1e30, 0.0, 1e30])).tolist() == [2, 2, 2]
    never = real_step_function(chain(Affine.of(-1), Rectifier(), Affine.of(-1, 3)), view, 1)
    assert never(np.array([5.0, -1.0, -9.0])).tolist() == [3, 2, 0]


def test_thresholds_count() -> None:
    table = Thresholds.of(MultiThreshold(np.array([[-1.5, 0.0, 0.0], [1.0, 2.0, 3.0]])))
    f = step_function(chain(Affine.of(Fraction(1, 2))), table, 2)
    n = np.array([[-4, 1], [-3, 2], [-1, 4], [0, 6], [1, 7]])
    assert f(n).tolist() == [[0, 0], [1, 1], [1, 2], [3, 3], [3, 3]]
    assert (table.channels, table.hi) == (2, 3)


def test_slope_and_affine() -> None:
    assert chain().affine == Affine.of()
    assert chain(Rectifier()).affine is None
    assert chain(Affine.of(2), Rectifier(), Affine.of(-3)).slope(0) == -6
    assert chain(Affine.of(2, 1), Affine.of(3)).affine == Affine.of(6, 3)
    wide = chain(Affine((Fraction(1), Fraction(2)), (Fraction(0),)))
    assert wide.channels == 2
    assert not Affine((Fraction(1), Fraction(2)), (Fraction(0),)).is_scalar
    assert wide.then(Affine.of(2, 1)).affine == Affine(
        (Fraction(2), Fraction(4)), (Fraction(1),) * 2
    )
