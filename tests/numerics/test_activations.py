"""Bends of chains: inverted exactly, on both sides of every bound."""

from __future__ import annotations

from decimal import Context, Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hqc.numerics.activations import Bend, Clip, Curve, Leaky, Rectifier, Single
from hqc.numerics.bounds import Bound
from hqc.numerics.monotone_chain import Affine, Chain

RATIONALS = st.fractions(-8, 8, max_denominator=64)
BOUNDS = st.builds(Bound, RATIONALS, st.booleans(), st.booleans())
CLIPS = st.tuples(RATIONALS, RATIONALS).map(lambda ends: Clip(min(ends), max(ends)))
LINES: dict[str, st.SearchStrategy[Bend]] = {
    "relu": st.just(Rectifier()),
    "clip": st.one_of(
        CLIPS, RATIONALS.map(lambda x: Clip(x, None)), RATIONALS.map(lambda x: Clip(None, x))
    ),
    "leaky": st.fractions(Fraction(1, 64), 4, max_denominator=64).map(lambda s: Leaky((s,))),
}


def exactly(bend: Bend, x: Fraction) -> Fraction:
    if isinstance(bend, Rectifier):
        return max(x, Fraction(0))
    if isinstance(bend, Clip):
        low = x if bend.lo is None else max(x, bend.lo)
        return low if bend.hi is None else min(low, bend.hi)
    assert isinstance(bend, Leaky)
    return x if x >= 0 else bend.slopes[0] * x


@pytest.mark.parametrize("kind", LINES)
@given(data=st.data(), bound=BOUNDS, x=RATIONALS)
def test_inverse(kind: str, data: st.DataObject, bound: Bound, x: Fraction) -> None:
    bend = data.draw(LINES[kind])
    inverse = bend.invert(bound, 0)
    before = inverse if isinstance(inverse, bool) else inverse.holds(x)
    assert before == bound.holds(exactly(bend, x))


@given(
    name=st.sampled_from(["Sigmoid", "Tanh"]),
    bound=st.builds(Bound, st.fractions(-2, 2, max_denominator=64), st.booleans(), st.booleans()),
    x=RATIONALS,
)
def test_inverse_of_curves(name: str, bound: Bound, x: Fraction) -> None:
    context = Context(prec=50)
    double = 2 * x if name == "Tanh" else x
    power = context.exp(context.divide(Decimal(-double.numerator), Decimal(double.denominator)))
    y = Fraction(context.divide(Decimal(1), context.add(Decimal(1), power)))
    y = 2 * y - 1 if name == "Tanh" else y
    if x == 0:
        y = Fraction(0) if name == "Tanh" else Fraction(1, 2)
    inverse = Curve(name).invert(bound, 0)  # type: ignore[arg-type]
    before = inverse if isinstance(inverse, bool) else inverse.holds(x)
    assert before == bound.holds(y)


def test_values_in_floats() -> None:
    x = np.array([[-2.0, -0.5, 0.0, 3.0]]).T
    bends = (Rectifier(), Clip(Fraction(-1), Fraction(2)), Leaky((Fraction(1, 4),)))
    for bend in bends:
        want = [float(exactly(bend, Fraction(v))) for v in x.ravel()]
        assert bend.floats(x).ravel().tolist() == want
    assert Curve("Sigmoid").floats(x)[2] == 0.5
    assert Curve("Tanh").floats(x)[2] == 0.0
    assert Single().floats(np.array([0.1]))[0] == np.float32(0.1)


def test_only_idempotent_bends_merge() -> None:
    once = Chain().then(Rectifier())
    assert once.then(Rectifier()) == once
    leaky = Chain().then(Leaky((Fraction(1, 2),)))
    assert len(leaky.then(Leaky((Fraction(1, 2),))).steps) == 2
    curve = Chain().then(Curve("Tanh"))
    assert len(curve.then(Curve("Tanh")).steps) == 2


def test_channels_follow_a_rearrangement() -> None:
    slopes = Leaky((Fraction(1, 2), Fraction(1, 4)))
    line = Affine((Fraction(1), Fraction(3)), (Fraction(0),))
    chain = Chain().then(line).then(slopes)
    turned = chain.picked([1, 0, 1])
    assert turned.channels == 3
    assert turned.steps[1] == Leaky((Fraction(1, 4), Fraction(1, 2), Fraction(1, 4)))
    assert chain.joined([[0], [1, 1]]) == chain
    assert chain.joined([[0, 1]]) is None
