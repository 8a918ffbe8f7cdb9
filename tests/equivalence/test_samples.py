"""Generated inputs: reproducible, and where graphs can differ: ties, corners, the whole range."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from support.qonnx_graphs import Net

from hqc.equivalence.samples import generate
from hqc.ir import Array

WEIGHTS = np.array([[1.0, -1.0], [-0.5, 0.25], [0.0, 1.0]])


def model_of(net: Net, x: str) -> dict[str, Array]:
    net.dense(x, WEIGHTS, 0.25, name="y")
    return dict(generate(net.model("y"), 400, 3))


def test_samples_are_reproducible_and_in_shape() -> None:
    net = Net()
    x = net.op("Flatten", net.quant(net.input("x", 3, 1), 0.5, 4))
    net.dense(x, WEIGHTS, 0.25, name="y")
    model = net.model("y")
    one, two, other = (generate(model, 100, seed)["x"] for seed in (1, 1, 2))
    assert one.shape == (100, 3, 1)
    assert one.dtype == np.float32
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_any_number_of_samples(n: int) -> None:
    net = Net()
    net.quant(net.input("x", 2), 0.5, 4, name="y")
    assert generate(net.model("y"), n)["x"].shape == (n, 2)


def test_ties_and_their_neighbours_are_among_them() -> None:
    net = Net()
    x = model_of(net, net.quant(net.input("x", 3), 0.5, 4))["x"]
    ties = (np.arange(-8, 7) + 0.5) * np.float32(0.5)
    on = np.isin(x, ties.astype(np.float32))
    assert np.unique(x[on]).size == 15
    above = np.nextafter(ties.astype(np.float32), np.float32(np.inf))
    below = np.nextafter(ties.astype(np.float32), np.float32(-np.inf))
    assert np.isin(x, above).any()
    assert np.isin(x, below).any()


def test_neurons_are_driven_to_both_ends() -> None:
    net = Net()
    x = model_of(net, net.quant(net.input("x", 3), 0.5, 4))["x"]
    codes = np.clip(np.rint(x / 0.5), -8, 7) * 0.5
    sums = codes @ WEIGHTS
    for column in WEIGHTS.T:
        top = np.where(column > 0, 3.5, -4.0)
        assert np.any(np.all((codes == top) | (column == 0), axis=1))
    assert sums.max(axis=0).tolist() == [5.5, 8.375]
    assert sums.min(axis=0).tolist() == [-5.75, -8.5]


def test_ties_are_those_of_the_scaled_input() -> None:
    """x -> 3 - 2x before the quantiser: ties and corners are turned round."""
    net = Net()
    x = net.op("Sub", net.const(3.0), net.op("Mul", net.input("x", 3), net.const(2.0)))
    x = model_of(net, net.quant(x, 0.5, 4))["x"]
    quotients = [Fraction(float(v)) for v in np.unique(x)]
    hits = {
        q for q in ((3 - 2 * v) * 2 for v in quotients) if (q - Fraction(1, 2)).denominator == 1
    }
    assert len(hits) >= 15
    codes = np.clip(np.rint((3 - 2 * x) / 0.5), -8, 7) * 0.5
    assert (codes @ WEIGHTS).max(axis=0).tolist() == [5.5, 8.375]


def bipolar(net: Net, x: str) -> str:
    return net.bipolar(x, 0.75)


def thresholds(net: Net, x: str) -> str:
    return net.thresholds(x, [[-1.0, 0.5]])


def constant(net: Net, x: str) -> str:
    return net.quant(net.op("Mul", x, net.const(0.0)), 0.5, 4)


def rectified(net: Net, x: str) -> str:
    return net.quant(net.op("Relu", x), 0.5, 4)


def wide(net: Net, x: str) -> str:
    return net.quant(x, 1e-6, 16)


@pytest.mark.parametrize("make", [bipolar, thresholds, constant, rectified, wide])
def test_every_port_gets_finite_samples(make: object) -> None:
    net = Net()
    x = model_of(net, make(net, net.input("x", 3)))["x"]  # type: ignore[operator]
    assert x.shape == (400, 3)
    assert np.isfinite(x).all()


def test_every_input_gets_its_own() -> None:
    net = Net()
    one = net.quant(net.input("a", 3), 0.5, 4)
    two = net.quant(net.input("b", 3), 0.25, 4)
    net.dense(net.quant(net.op("Add", one, two), 1.0, 4), WEIGHTS, 0.25, name="y")
    found = generate(net.model("y"), 50)
    assert set(found) == {"a", "b"}
    assert not np.array_equal(found["a"], found["b"])
