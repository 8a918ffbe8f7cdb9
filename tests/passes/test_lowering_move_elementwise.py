"""Elementwise operators and rearrangements that mix channels, and layers over two scales."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx_ir import Model
from support.qonnx_graphs import Net, ops

from hqc import pipeline
from hqc.driver import steps_of
from hqc.equivalence.samples import generate
from hqc.equivalence.translation_validation import against_oracle, compare
from hqc.execution.fast import Fast
from hqc.execution.reference import Reference
from hqc.passes.lowering.move_elementwise import hoist_elementwise
from hqc.pipeline.registry import Registry

SCALES = np.float32([0.11, 0.07, 0.13, 0.05])
LAST, FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def layer(net: Net) -> str:
    """A convolution whose channels have scales of their own: (N, 4, 3, 3)."""
    x = net.quant(net.input("x", 2, 3, 3), 0.125, 6)
    rng = np.random.default_rng(0)
    raw = net.const(rng.normal(0, 0.4, (4, 2, 1, 1)))
    return net.op("Conv", x, net.quant(raw, SCALES.reshape(-1, 1, 1, 1), 4))


def lowers_exactly(model: Model) -> Model:
    inputs = dict(generate(model, 64, seed=3))
    want = Reference(model).run(inputs)
    assert against_oracle(model, inputs).unexplained == 0
    pipeline.run(model, steps_of(None), Registry.builtin(), check_samples=24)
    assert compare(Reference(model).run(inputs), want).equal
    assert compare(Fast(model).run(inputs), want).equal
    assert against_oracle(model, inputs).unexplained == 0
    return model


def relu(net: Net, x: str) -> str:
    return net.op("Relu", x)


def scaled(net: Net, x: str) -> str:
    return net.op("Mul", x, net.const(0.3))


def biased(net: Net, x: str) -> str:
    """Along the last axis, which is that of the channels behind the transpose."""
    return net.op("Add", x, net.const([0.5, -0.25, 0.1, 0.9]))


def subtracted_from(net: Net, x: str) -> str:
    return net.op("Sub", net.const([0.5, -0.25, 0.1, 0.9]), x)


def quantised_bias(net: Net, x: str) -> str:
    return net.op("Add", net.quant(net.const([0.5, -0.25, 0.1, 0.9]), 0.0625, 5), x)


@pytest.mark.parametrize(
    "between", [relu, scaled, biased, subtracted_from, quantised_bias], ids=lambda f: f.__name__
)
def test_what_stands_behind_a_transpose_moves_in_front(between: Callable[[Net, str], str]) -> None:
    net = Net()
    x = net.op("Transpose", layer(net), perm=LAST)
    model = net.model(net.quant(between(net, x), 0.1, 5))
    assert ops(model)[-2:] == ["Quant", "Transpose"]
    assert hoist_elementwise(model) == 0
    lowers_exactly(model)


def test_several_readers_keep_the_transpose_where_it_is() -> None:
    net = Net()
    x = net.op("Transpose", layer(net), perm=LAST)
    model = net.raw(net.op("Relu", x), net.op("Identity", x))
    assert hoist_elementwise(model) == 0


def test_a_transpose_that_keeps_channels_apart_stays() -> None:
    net = Net()
    x = net.op("Transpose", layer(net), perm=[0, 1, 3, 2])
    model = net.model(net.quant(x, 0.1, 5))
    assert ops(model)[-2:] == ["Transpose", "Quant"]
    lowers_exactly(model)


def test_an_output_behind_a_transpose_needs_no_quantiser() -> None:
    net = Net()
    lowers_exactly(net.model(net.op("Transpose", layer(net), perm=LAST)))


@pytest.mark.parametrize("rank", [3, 4])
def test_a_dense_layer_on_the_last_axis(rank: int) -> None:
    net = Net()
    dims = (3, 2, 4)[-rank + 1 :]
    x = net.quant(net.input("x", *dims), 0.125, 6)
    x = net.op(
        "Add", net.dense(x, np.random.default_rng(1).normal(size=(4, 3))), net.const([1, 2, 3])
    )
    model = lowers_exactly(net.model(net.quant(x, 0.3, 5)))
    assert "MatMul" not in ops(model)


def joined(net: Net, *scales: float) -> str:
    x = net.quant(net.input("x", 2, 3, 3), 0.125, 6)
    parts = [net.quant(net.op("Mul", x, net.const(0.7)), scale, 4) for scale in scales]
    return net.op("Concat", *parts, axis=1)


@pytest.mark.parametrize("output", ["quantised", "real"])
@pytest.mark.parametrize("kind", ["Conv", "MatMul", "ConvTranspose"])
def test_a_layer_over_channels_of_two_scales(kind: str, output: str) -> None:
    net = Net()
    x = joined(net, 0.11, 0.17)
    rng = np.random.default_rng(2)
    if kind == "MatMul":
        x = net.dense(net.op("Flatten", x), rng.normal(size=(36, 3)))
    else:
        shape = (3, 4, 2, 2) if kind == "Conv" else (4, 3, 2, 2)
        weights = net.quant(net.const(rng.normal(0, 0.3, shape)), 0.09, 4)
        x = net.op(kind, x, weights, net.const([0.1, -0.2, 0.3]), pads=[1, 1, 0, 0])
    x = net.quant(x, 0.3, 4) if output == "quantised" else x
    model = lowers_exactly(net.model(x))
    assert sum(op in ("Conv", "MatMul") for op in ops(model)) == 2


def test_scales_with_a_simple_ratio_stay_one_layer() -> None:
    net = Net()
    x = net.op("Flatten", joined(net, 0.125, 0.375))
    x = net.dense(x, np.random.default_rng(3).normal(size=(36, 3)))
    model = lowers_exactly(net.model(net.quant(x, 0.3, 4)))
    assert ops(model).count("MatMul") == 1
