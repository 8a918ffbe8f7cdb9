"""The quantiser modules: numbers, gradients, ranges, training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qonnx.custom_op.general.intquant import int_quant
from torch import nn

from hqc.diagnostics import HqcError
from hqc.frontends.torch import (
    ActQuant,
    BiasQuant,
    QuantIdentity,
    QuantLinear,
    QuantReLU,
    WeightQuant,
    quant,
)
from hqc.frontends.torch.quant_operator import power_of_two_at_least
from hqc.numerics.types import Rounding

FLOATS = st.floats(-1e3, 1e3, width=32)


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(FLOATS, min_size=1, max_size=20),
    scale=st.floats(2.0**-6, 8, width=32),
    zero_point=st.integers(-8, 8),
    bits=st.integers(1, 12),
    signed=st.booleans(),
    narrow=st.booleans(),
    rounding=st.sampled_from(list(Rounding)),
)
def test_same_floats_as_qonnx(
    values: list[float],
    scale: float,
    zero_point: int,
    bits: int,
    signed: bool,
    narrow: bool,
    rounding: Rounding,
) -> None:
    x = np.array(values, np.float32)
    # Ties are the hard case: put some of the values on them.
    x[::2] = (np.floor(x[::2]) + np.float32(0.5)) * np.float32(scale)
    s, z = np.float32(scale), np.float32(zero_point)
    want = int_quant(x, s, z, np.array(bits), signed, narrow, rounding.value)
    got = quant(
        torch.tensor(x), torch.tensor(s), torch.tensor(z), bits, signed, narrow, rounding.value
    )
    assert np.array_equal(got.numpy(), want)


@given(st.floats(2.0**-60, 2.0**60, width=32))
def test_power_of_two_is_exact_and_not_below(value: float) -> None:
    power = float(power_of_two_at_least(torch.tensor(value)))
    assert math.frexp(power)[0] == 0.5
    assert power / 2 < value <= power


def test_gradients_pass_inside_and_stop_outside() -> None:
    x = torch.tensor([-9.0, -1.2, 0.3, 2.2, 9.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    y = quant(x, scale, torch.tensor(0.0), 4, True, False, "ROUND")
    y.sum().backward()
    assert x.grad is not None
    assert scale.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    # Learned step size: clipped values pull by their code, others by their rounding error.
    steps = x.detach() / 0.5
    want = -8 + 7 + (steps[1:4].round() - steps[1:4]).sum()
    assert torch.allclose(scale.grad, want)


def test_per_channel_gradient_of_scale_has_its_shape() -> None:
    weights = WeightQuant(4, per_channel=True, learned=True)
    w = torch.randn(3, 5)
    weights.reset(w)
    weights(w).square().sum().backward()
    assert weights.raw_scale.grad.shape == (3, 1)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("power_of_two", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 6])
def test_weights_lie_on_their_grid(learned: bool, power_of_two: bool, bits: int) -> None:
    layer = QuantLinear(
        7, 5, weight_bits=bits, per_channel=True, power_of_two=power_of_two, learned=learned
    )
    scale, _ = layer.weight_quant.parameters_of(layer.weight)
    weights = layer.weight_quant(layer.weight).detach()
    codes = (weights / scale.detach()).round()
    assert torch.equal(codes * scale.detach(), weights)
    assert codes.abs().max() <= max(1, 2 ** (bits - 1) - 1)
    if power_of_two:
        assert torch.all(torch.frexp(scale.detach())[0] == 0.5)


def test_asymmetric_activations_hold_zero_and_their_range() -> None:
    act = ActQuant(6, signed=False, symmetric=False, ranges="max")
    x = torch.linspace(-1.0, 5.0, 1000)
    act(x)
    act.eval()
    assert float(act(torch.zeros(1))) == 0
    assert (act(x) - x).abs().max() <= act.scale


def test_ranges_follow_data_and_freeze() -> None:
    act = QuantReLU(8, momentum=0.5)
    act(torch.tensor([[4.0]]))
    act(torch.tensor([[2.0]]))
    assert float(act.high) == 3.0
    act.eval()
    before = float(act.scale)
    act(torch.tensor([[100.0]]))
    assert float(act.scale) == before


def test_percentile_ignores_outliers() -> None:
    x = torch.randn(20_000)
    x[0] = 1e6
    act = QuantIdentity(8, ranges="percentile", percentile=99.0)
    act(x)
    assert float(act.high) < 10


def test_learned_range_starts_from_data_and_moves() -> None:
    act = QuantIdentity(4, ranges="learned")
    x = torch.randn(64, 3)
    act(x).square().sum().backward()
    assert act.raw_scale.grad is not None
    assert float(act.raw_scale.grad) != 0
    assert float(act.raw_scale.detach()) == float(act.scale)


def test_bias_on_the_grid_of_the_accumulator() -> None:
    layer = QuantLinear(4, 3, bias_bits=16)
    scale = torch.tensor(0.25)
    got = layer(torch.zeros(1, 4), scale)
    step = layer.weight_quant.parameters_of(layer.weight)[0] * scale
    assert torch.allclose((got / step).round(), got / step, atol=1e-3)
    fixed = BiasQuant(8, scale=2.0**-4)
    assert torch.equal(fixed(torch.tensor([0.3])), torch.tensor([0.3125]))


def test_mistakes_are_refused() -> None:
    with pytest.raises(HqcError, match="HQC107"):
        QuantReLU(0)
    with pytest.raises(HqcError, match="HQC102"):
        ActQuant(4, rounding="SOMEHOW")
    with pytest.raises(HqcError, match="HQC106"):
        QuantReLU(4).eval()(torch.zeros(2, 2))
    with pytest.raises(HqcError, match="HQC106"):
        BiasQuant(8, scale=-1.0)


@pytest.mark.parametrize("ranges", ["ema", "learned"])
def test_training_reduces_the_loss(ranges: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        QuantIdentity(8),
        QuantLinear(8, 32, weight_bits=4),
        nn.BatchNorm1d(32),
        QuantReLU(4, ranges=ranges),
        QuantLinear(32, 3, weight_bits=4, learned=True),
    )
    x = torch.randn(512, 8)
    labels = (x[:, :3] * x[:, 3:6]).argmax(1)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(net(x), labels)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
