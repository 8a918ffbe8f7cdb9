"""Convolutions with quantised weights: grids, numbers in the exported graph, what compiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.onnx_run import qonnx_run
from torch import Tensor, nn

import hqc
from hqc import ir
from hqc.diagnostics import HqcError
from hqc.driver.loading import normalise, read
from hqc.execution.reference import Reference
from hqc.frontends.torch import (
    QuantConv1d,
    QuantConv2d,
    QuantConvTranspose1d,
    QuantConvTranspose2d,
    QuantIdentity,
    QuantLinear,
    QuantReLU,
)
from hqc.frontends.torch_export import export_module, from_module

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "1d": (lambda: QuantConv1d(2, 4, 3, padding=2, dilation=2, weight_bits=4), (2, 9)),
    "1d per channel": (lambda: QuantConv1d(2, 4, 3, 2, per_channel=True, bias_bits=10), (2, 9)),
    "2d": (lambda: QuantConv2d(2, 4, (3, 2), padding=(1, 0), bias=False), (2, 6, 6)),
    "2d per channel": (
        lambda: QuantConv2d(2, 4, 3, stride=2, per_channel=True, bias_bits=8),
        (2, 7, 7),
    ),
    "2d depthwise": (
        lambda: QuantConv2d(2, 4, 3, groups=2, power_of_two=True, learned=True),
        (2, 6, 6),
    ),
    "2d asymmetric": (
        lambda: QuantConv2d(2, 3, 3, symmetric=False, signed=False, narrow=False),
        (2, 6, 6),
    ),
    "transposed 1d": (lambda: QuantConvTranspose1d(2, 3, 3, 2, per_channel=True), (2, 5)),
    "transposed 2d": (
        lambda: QuantConvTranspose2d(2, 3, 3, 2, 1, 1, per_channel=True, learned=True),
        (2, 4, 4),
    ),
    "transposed with groups": (
        lambda: QuantConvTranspose2d(2, 4, 2, groups=2, bias_bits=9),
        (2, 4, 4),
    ),
}


def made(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    return make(), shape


class Around(nn.Module):
    """A layer between quantisers."""

    def __init__(self, layer: nn.Module, **options: Any) -> None:
        super().__init__()
        self.inp, self.layer, self.act = QuantIdentity(6, **options), layer, QuantReLU(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.layer(self.inp(x), self.inp.scale))


def calibrated(module: nn.Module, shape: tuple[int, ...]) -> tuple[nn.Module, Tensor]:
    x = torch.randn(40, *shape, generator=torch.Generator().manual_seed(0))
    module(x)
    return module.eval(), x


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_exported_graph_computes_the_module(name: str, symmetric: bool) -> None:
    layer, shape = made(name)
    net, x = calibrated(Around(layer, symmetric=symmetric), shape)
    want = net(x).detach().numpy()
    model = from_module(net, x[:2])
    close = np.isclose(qonnx_run(model, x.numpy()), want, atol=1e-5)
    assert close.mean() > 0.99  # float32 sums in another order, next to a tie
    exact = Reference(normalise(read(net, x[:2])).model).run({"x": x.numpy()})["output"]
    assert np.isclose(exact, want, atol=1e-5).mean() > 0.99


@pytest.mark.parametrize("name", LAYERS)
def test_weights_lie_on_their_grid(name: str) -> None:
    layer, _ = made(name)
    scale, zero = layer.weight_quant.parameters_of(layer.weight)
    codes = (layer.weight_quant(layer.weight) / scale + zero).detach()
    np.testing.assert_allclose(codes, codes.round(), atol=1e-3)
    if layer.weight_quant.per_channel:
        axis = 1 if "transposed" in name else 0
        sizes = [1] * layer.weight.dim()
        sizes[axis] = layer.out_channels
        assert list(scale.shape) == sizes


def test_biases_are_on_the_grid_of_the_accumulator() -> None:
    layer = QuantConv2d(2, 3, 3, bias_bits=12, per_channel=True)
    step = layer.weight_quant.parameters_of(layer.weight)[0].reshape(1, -1, 1, 1) * 0.25
    found = layer(torch.zeros(1, 2, 3, 3), torch.tensor(0.25)) / step
    np.testing.assert_allclose(found.detach(), found.detach().round(), atol=1e-3)


def test_mistakes_are_refused() -> None:
    with pytest.raises(HqcError, match=r"HQC102.*groups"):
        QuantConvTranspose2d(2, 4, 3, groups=2, per_channel=True)
    with pytest.raises(HqcError, match="HQC107"):
        QuantConv1d(1, 1, 1, weight_bits=0)
    with pytest.raises(TypeError, match="strides"):
        QuantConv1d(1, 1, 1, strides=2)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inp = QuantIdentity(6)
        self.conv1 = QuantConv2d(1, 4, 3, padding=1, weight_bits=4, per_channel=True)
        self.norm, self.act1 = nn.BatchNorm2d(4), QuantReLU(4)
        self.conv2 = QuantConv2d(4, 4, 3, groups=4, weight_bits=4, bias_bits=10)
        self.act2 = QuantReLU(4, power_of_two=True)
        self.fc = QuantLinear(16, 3, weight_bits=4)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.act1(self.norm(self.conv1(self.inp(x)))), 2)
        return self.fc(self.act2(self.conv2(x)).flatten(1))


def test_training_reduces_the_loss() -> None:
    torch.manual_seed(0)
    net, x = Net(), torch.randn(128, 1, 8, 8)
    labels = x[:, 0, 2:5, 3].argmax(1)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(net(x), labels)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_a_file_gives_the_same_graph(tmp_path: Path) -> None:
    net, x = calibrated(Net(), (1, 8, 8))
    torch.export.save(export_module(net, x[:2]), tmp_path / "net.pt2")
    assert ir.to_bytes(from_module(net, x[:2])) == ir.to_bytes(read(tmp_path / "net.pt2").model)


@pytest.mark.emulation
def test_it_compiles_bit_exact(tmp_path: Any) -> None:
    torch.manual_seed(0)
    net, x = calibrated(Net(), (1, 8, 8))
    artifact = hqc.compile(net, "vitis", tmp_path / "out", example_inputs=x[:2], check=40)
    assert artifact.manifest.verdict.exact
    assert artifact.manifest.verdict.overflow_free
