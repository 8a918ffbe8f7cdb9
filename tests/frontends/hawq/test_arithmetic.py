"""The fixed-point arithmetic of HAWQ, and its rescaling as products and thresholds."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hawq_models import dyadic, mlp

from hqc.execution.reference import Reference
from hqc.frontends.hawq import fixed_point, load
from hqc.frontends.hawq.rescaling import Ratio, Stage, Thresholds, agrees, boundaries, find
from hqc.numerics.activations import Single
from hqc.numerics.bounds import Bound
from hqc.numerics.monotone_chain import Affine, Chain

TOLD, UNTOLD = {"pass_weight_scale": True}, {"pass_weight_scale": False}


@settings(max_examples=200)
@given(st.floats(1e-9, 1e9))
def test_dyadic(ratio: float) -> None:
    m, e = fixed_point.dyadic(np.array([ratio]))
    assert (int(m[0]), int(e[0])) == dyadic(ratio)
    assert abs(Fraction(int(m[0])) / Fraction(2) ** int(e[0]) / Fraction(ratio) - 1) <= 2**-31


@settings(max_examples=300)
@given(st.floats(0.015625, 1000, width=32), st.integers(-3000, 3000), st.booleans(), st.booleans())
def test_a_product_in_float32_decides_by_its_rounding(
    factor: float, half: int, inclusive: bool, upward: bool
) -> None:
    """The bound on the input is where the float32 product crosses the bound on the output."""
    chain = Chain().then(Affine.of(Fraction(factor))).then(Single())
    bound = Bound(Fraction(half, 2), inclusive, upward)
    back = chain.invert(bound, 0)
    assert isinstance(back, Bound)
    near = np.float32(float(back.value))
    for _ in range(3):
        near = np.nextafter(near, np.float32(-np.inf))
    for _ in range(7):
        want = bound.holds(Fraction(float(np.float32(factor) * near)))
        assert back.holds(Fraction(float(near))) is want
        near = np.nextafter(near, np.float32(np.inf))


def test_the_input_rounds_in_float32_as_the_original() -> None:
    """Inputs next to ties: the product rounds to float32 first, and may become one."""
    truth = mlp((4, 3), input_bits=14)
    scale = truth.state["quant_input.act_scaling_factor"].numpy()
    ties = (np.arange(-4000, 4000) + 0.5).astype(np.float32) * scale
    steps = [ties, np.nextafter(ties, np.float32(9)), np.nextafter(ties, np.float32(-9))]
    x = np.stack([*steps, ties], axis=1)
    want = np.clip(np.rint((np.float32(1) / scale) * x), -(2**13), 2**13 - 1)
    exact = np.rint(x.astype(np.float64) * float(np.float32(1) / scale[0]))
    assert np.any(exact != want)  # else this would show nothing
    trace = Reference(load(truth.state, config=UNTOLD)).trace({"x": x})
    found = {str(v.name): t for v, t in trace.items()}["quant_input"]
    np.testing.assert_array_equal(found.values(), want)


class TestRescaling:
    lo, hi = np.array([0]), np.array([900])
    ones = np.ones(1, np.float32)

    def test_boundaries_are_found_by_bisection(self) -> None:
        def meaning(n: Any) -> Any:
            return np.clip((n + 5) // 100, 0, 7)

        f = boundaries(meaning, self.lo, self.hi, (0, 7))
        n = np.arange(0, 901)[:, None]
        np.testing.assert_array_equal(f(n), meaning(n))
        assert agrees((Stage(np.array([0.01]), np.array([-0.45]), 3, False),), f, self.lo, self.hi)
        assert not agrees((Stage(np.array([0.01]), np.zeros(1), 3, False),), f, self.lo, self.hi)

    def test_what_no_product_gives_is_thresholds_or_nothing(self) -> None:
        def uneven(n: Any) -> Any:
            return (n > 3).astype(np.int64) + (n > 4) + (n > 800)

        ratio = Ratio(self.ones, self.ones, self.ones, self.ones)
        form = find(ratio, uneven, self.lo, self.hi, 2, signed=False)
        assert isinstance(form, Thresholds)
        assert form.thresholds.tolist() == [[4, 5, 801]]
        assert find(ratio, uneven, self.lo, self.hi, 12, signed=False) is None
