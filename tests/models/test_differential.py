"""Random networks through every executor, state and text form; and what they have found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from onnx import TensorProto, helper
from support.differential import Agreement, Checks, check
from support.graph_writer import FEATURES, Tensor, Writer
from support.graphs import finish, graphs, random_graph

CHUNK = 12


@pytest.mark.parametrize("chunk", range(5))
def test_random_networks_agree_everywhere(chunk: int, tmp_path: Path) -> None:
    seeds = range(chunk * CHUNK, (chunk + 1) * CHUNK)
    found = [check(random_graph(s), tmp_path, Checks(32, s, contracts=s % 4 == 0)) for s in seeds]
    compiled = [f for f in found if not f.refused]
    assert len(compiled) >= CHUNK // 3
    assert all(f.states == 10 and f.compared for f in compiled)


@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(graphs())
def test_networks_with_some_features_agree(tmp_path: Path, proto: onnx.ModelProto) -> None:
    check(proto, tmp_path, Checks(samples=24))


@pytest.mark.long
@pytest.mark.parametrize("chunk", range(20))
def test_many_random_networks_agree(chunk: int, tmp_path: Path) -> None:
    for seed in range(10_000 + chunk * 50, 10_050 + chunk * 50):
        check(random_graph(seed), tmp_path, Checks(seed=seed))


# Networks that something went wrong with


class Network:
    """A network written by hand: `Writer` with an input of a given width."""

    def __init__(self, width: int, rank: int = 2) -> None:
        self.w = Writer(1, FEATURES)
        dims = (width, *(2,) * (rank - 2))
        info = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *dims])
        self.w.inputs.append(info)
        self.x = Tensor("x", np.float32(self.w.rng.normal(0, 1, (64, *dims))))

    def quant(
        self, x: Tensor, scale: float, bits: int, *, signed: bool = True, zero: float = 0.0
    ) -> Tensor:
        return self.w.quant(x.name, x.values, np.float32(scale), zero, bits, signed=signed)

    def linear(self, x: Tensor, columns: int, scale: float, bits: int = 4) -> Tensor:
        raw = np.float32(self.w.rng.normal(0, 1, (x.values.shape[1], columns)))
        name = self.w.const("weight", raw)
        weight = self.w.quant(name, raw, np.float32(scale), 0.0, bits, signed=True)
        return self.w.op("MatMul", [x.name, weight.name], x.values @ weight.values)

    def add(self, x: Tensor, numbers: list[float]) -> Tensor:
        other = np.float32(numbers)
        return self.w.op("Add", [x.name, self.w.const("bias", other)], x.values + other)

    def check(self, out: Tensor, folder: Path) -> Agreement:
        found = check(finish(self.w, [out]), folder)
        assert not found.refused, found.message
        assert found.compared
        return found


def rectified_between_layers(n: Network) -> Tensor:
    """A rectifier behind a signed quantiser, not before it."""
    x = n.w.relu(n.quant(n.x, 0.13, 6))
    return n.quant(n.linear(x, 3, 0.21), 0.3, 5)


def rectified_with_zero_point(n: Network) -> Tensor:
    """max(0, s * (q - z)) is s * max(0, q - z)."""
    x = n.w.relu(n.quant(n.x, 0.13, 6, signed=False, zero=20.0))
    return n.quant(n.linear(x, 3, 0.21), 0.3, 5)


def rectified_output(n: Network) -> Tensor:
    """A rectifier after a free scale, and nothing behind it."""
    return n.w.relu(n.linear(n.quant(n.x, 0.13, 6), 3, 0.21))


def bias_between_layers(n: Network) -> Tensor:
    """Two linear layers with nothing but a bias between them."""
    x = n.add(n.linear(n.quant(n.x, 0.13, 4), 3, 0.21), [0.7, -0.3, 0.1])
    return n.quant(n.linear(x, 2, 0.17), 0.9, 5)


def one_bit_weights_with_zero_point(n: Network) -> Tensor:
    """One signed bit is -1 or 1, from which the zero point is subtracted like from any code."""
    raw = np.float32(n.w.rng.normal(0, 1, (4, 3)))
    name = n.w.const("weight", raw)
    weight = n.w.quant(name, raw, np.float32(0.3), 2.0, 1, signed=True)
    x = n.quant(n.x, 0.13, 6)
    out = n.w.op("MatMul", [x.name, weight.name], x.values @ weight.values)
    return n.quant(out, 0.4, 5)


def one_bit_activation_with_zero_point(n: Network) -> Tensor:
    x = n.linear(n.quant(n.x, 0.13, 6), 5, 0.21)
    return n.quant(n.linear(n.quant(x, 0.4, 1, zero=1.0), 3, 0.2), 0.4, 5)


def wide_accumulator(n: Network) -> Tensor:
    """Products beyond float32: float64 in the file up to the quantiser, float32 behind it."""
    x = n.quant(n.linear(n.quant(n.x, 0.002, 10), 5, 0.06, bits=6), 0.031, 8)
    return n.quant(n.linear(x, 3, 0.21), 0.3, 5)


def zero_point_beside_a_small_value(n: Network) -> Tensor:
    """x / scale vanishes in float32 when a large zero point is added: that is a tie, too."""
    x = n.quant(n.add(n.x, [1.0, 2.0, 0.5, 1.5]), 0.03125, 6, signed=False, zero=32.0)
    return n.quant(n.linear(x, 3, 0.25), 0.3, 5)


def residual_on_one_scale(n: Network) -> Tensor:
    """One branch in units of the power-of-two scale, the other in codes, as is cheaper."""
    x = n.quant(n.x, 0.13, 4)
    one = n.quant(n.linear(x, 3, 0.21), 0.125, 5)
    two = n.quant(n.w.relu(n.linear(x, 3, 0.25)), 0.125, 2)
    return n.quant(n.w.op("Add", [one.name, two.name], one.values + two.values), 0.3, 4)


def residual_on_multiples_of_a_scale(n: Network) -> Tensor:
    x = n.quant(n.x, 0.13, 4)
    one, two = n.quant(n.linear(x, 3, 0.21), 0.3, 5), n.quant(n.linear(x, 3, 0.21), 0.6, 5)
    return n.quant(n.w.op("Add", [one.name, two.name], one.values + two.values), 0.7, 4)


def scale_per_channel_in_name_only(n: Network) -> Tensor:
    """The same power of two for each channel, on a layer that loses some channels."""
    x = n.quant(n.x, 0.25, 4, signed=False)
    y = n.linear(x, 6, 0.25)
    each = np.full((1, 6), 0.5, np.float32)
    y = n.w.quant(y.name, y.values, each, 0.0, 3, signed=False)
    raw = np.float32(n.w.rng.normal(0, 1, (6, 2)))
    raw[2:4] = 0.0
    weight = n.w.quant(n.w.const("weight", raw), raw, np.float32(0.25), 0.0, 4, signed=True)
    return n.quant(n.w.op("MatMul", [y.name, weight.name], y.values @ weight.values), 0.4, 5)


def scaled_thresholds_output(n: Network) -> Tensor:
    """float32 rounds scale * count, and the sum with the bias again."""
    x = n.linear(n.quant(n.x, 0.13, 6), 3, 0.21)
    rows = np.float32(np.sort(n.w.rng.normal(0, 1, (3, 7)), axis=1))
    counts = (x.values[..., None] >= rows).sum(-1)
    return n.w.op(
        "MultiThreshold",
        [x.name, n.w.const("thresholds", rows)],
        0.37 * counts - 1.1,
        n.w.domain,
        out_dtype="INT8",
        out_scale=0.37,
        out_bias=-1.1,
    )


def bias_of_more_bits_than_float32(n: Network) -> Tensor:
    """A quantised bias of 14-bit codes on a free scale is rounded by every float32 executor."""
    x = n.linear(n.quant(n.x, 0.13, 6), 3, 0.25)
    raw = np.float32([-0.84652179, 0.48649057, -0.16722789])
    bias = n.w.quant(n.w.const("bias", raw), raw, np.float32(0.01178287), 0.0, 14, signed=True)
    return n.w.op("Add", [x.name, bias.name], x.values + bias.values)


NETWORKS = (
    bias_of_more_bits_than_float32,
    residual_on_one_scale,
    residual_on_multiples_of_a_scale,
    scale_per_channel_in_name_only,
    scaled_thresholds_output,
    rectified_between_layers,
    rectified_with_zero_point,
    rectified_output,
    bias_between_layers,
    one_bit_weights_with_zero_point,
    one_bit_activation_with_zero_point,
    wide_accumulator,
    zero_point_beside_a_small_value,
)


@pytest.mark.parametrize("build", NETWORKS, ids=lambda f: f.__name__)
def test_networks_that_went_wrong_once(build: Callable[[Network], Tensor], tmp_path: Path) -> None:
    network = Network(4)
    network.check(build(network), tmp_path)


def test_thresholds_with_channels_last(tmp_path: Path) -> None:
    """qonnx takes the last axis of a tensor of rank 3 as its channels, unless told otherwise."""
    network = Network(2, rank=3)
    rows = np.float32([[0.0, 0.5], [-0.5, 0.25]])
    inputs = ["x", network.w.const("thresholds", rows)]
    x = network.w.op("MultiThreshold", inputs, network.x.values, network.w.domain, out_dtype="INT8")
    flat = network.w.op("Flatten", [x.name], x.values.reshape(64, -1), axis=1)
    network.check(network.quant(network.linear(flat, 2, 0.25), 0.5, 4), tmp_path)
