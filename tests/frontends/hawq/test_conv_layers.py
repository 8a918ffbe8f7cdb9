"""HAWQ's scheme on convolutional module trees: what is wrapped, what it computes, what compiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.onnx_run import qonnx_run
from torch import Tensor, nn
from torch.nn import functional as F

import hqc
from hqc.diagnostics import HqcError
from hqc.driver.loading import normalise, read
from hqc.execution.reference import Reference
from hqc.frontends.hawq.layers import HawqAct, HawqAdd, HawqAverage, HawqConv, Scheme, freeze
from hqc.frontends.hawq.wrap import layer_names, quantize_model
from hqc.frontends.torch_export import from_module


class Block(nn.Module):
    """A residual block with a depthwise convolution, one rectifier called twice."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(n, n, 3, padding=1, bias=False), nn.BatchNorm2d(n)
        self.deep = nn.Conv2d(n, n, 3, padding=1, groups=n)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.deep(self.relu(self.norm(self.conv(x))))
        return self.relu(y + x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        stem = nn.Conv2d(2, 6, 3, stride=2, padding=1)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(6), nn.MaxPool2d(2), nn.ReLU())
        self.blocks = nn.Sequential(Block(6))
        self.pool = nn.AvgPool2d(2, 1, padding=1)
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.blocks(self.stem(x)))
        return self.head(F.adaptive_avg_pool2d(x, 1))


class Lines(nn.Module):
    """One dimension: dilated and grouped convolutions, functional pooling, a mean at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(2, 4, 3, padding=2, dilation=2)
        self.norm = nn.BatchNorm1d(4)
        self.two = nn.Conv1d(4, 6, 3, padding=1, groups=2)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norm(self.one(F.avg_pool1d(x, 2))))
        x = torch.relu(self.two(F.max_pool1d(x, 2)))
        return self.last(x.mean(-1))


SCHEMES = [
    Scheme(),
    Scheme(per_channel=True, mode="symmetric", ranges="percentile", bias_bits=16),
    Scheme(power_of_two=True, ranges="max", per_channel=True),
]
SHAPES = {Net: (2, 12, 12), Lines: (2, 16)}


def trained(make: type[nn.Module], scheme: Scheme, steps: int = 8) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    bits = dict.fromkeys(layer_names(make()), (5, 6))
    net, x = quantize_model(make(), bits, scheme), torch.randn(24, *SHAPES[make])
    labels = (x.flatten(1)[:, :3]).argmax(1)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(net(x), labels).backward()
        optimiser.step()
    freeze(net)
    net.eval()
    return net, x


def parts(net: nn.Module, kind: type) -> dict[str, Any]:
    return {name: m for name, m in net.named_modules() if isinstance(m, kind)}


@pytest.mark.parametrize("make", [Net, Lines])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_exported_model_is_the_module(make: type[nn.Module], scheme: Scheme) -> None:
    """The float module, qonnx's executor and exact arithmetic agree, up to float32 ties."""
    net, x = trained(make, scheme)
    want = net(x).detach().numpy()
    model = from_module(net, x[:2])
    np.testing.assert_allclose(qonnx_run(model, x.numpy()), want, rtol=1e-4, atol=1e-4)
    exact = Reference(normalise(read(net, x[:2])).model).run({"x": x.numpy()})["output"]
    close = np.isclose(exact, want, rtol=1e-4, atol=1e-4).all(axis=1)
    assert close.mean() > 0.9


def test_every_layer_is_wrapped_where_it_stands() -> None:
    assert layer_names(Net()) == ("stem.0", "blocks.0.conv", "blocks.0.deep", "head.2")
    net, _ = trained(Net, Scheme())
    assert tuple(parts(net, HawqConv)) == ("stem.0", "blocks.0.conv", "blocks.0.deep")
    assert net.get_submodule("blocks.0.conv").norm is not None
    assert len(parts(net, HawqAdd)) == 1
    assert "pool" in parts(net, HawqAverage)
    assert len(parts(net, HawqAverage)) == 2
    assert not parts(net, nn.ReLU)
    assert len(parts(net, nn.MaxPool2d)) == 1


def test_max_pools_pick_codes_and_need_no_quantiser() -> None:
    """The rectifier and its quantiser move in front of the pool; the function is the same."""
    net, x = trained(Net, Scheme())
    kinds = [node.op_type for node in from_module(net, x[:2]).graph]
    at = kinds.index("MaxPool")
    assert kinds[at - 2 : at] == ["Relu", "Quant"]
    readers = [n for n in net.graph.nodes if n.target == "blocks.0.conv"]
    assert readers[0].args[0].target == "stem.2"


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("pool", [nn.AvgPool2d(2), nn.AvgPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(1)])
def test_averages_are_integer_means_rounded_down(pool: nn.Module, signed: bool) -> None:
    average = HawqAverage(pool, 6, signed=signed)
    scale, zero = torch.tensor(0.0137), torch.tensor(-5.0 if signed else 9.0)
    low = -32 if signed else 0
    codes = torch.randint(low, low + 64, (50, 3, 6, 6)).double()
    found = average(((codes - zero) * scale).float(), scale, zero) / scale + zero
    padded = isinstance(pool, nn.AvgPool2d) and pool.padding
    if padded:  # with real zeros, whose code is the zero point
        codes = F.pad(codes, (1, 1, 1, 1), value=float(zero))
        pool = nn.AvgPool2d(3, 2)
    sums = pool(codes) * (9 if padded else 4 if isinstance(pool, nn.AvgPool2d) else 36)
    count = 9 if padded else 4 if isinstance(pool, nn.AvgPool2d) else 36
    want = torch.div(sums.round(), count, rounding_mode="floor")
    np.testing.assert_allclose(found.numpy(), want.numpy(), atol=1e-3)


def test_gradients_pass_averages() -> None:
    average = HawqAverage(nn.AvgPool2d(2), 6, signed=False)
    x = torch.rand(1, 1, 4, 4, requires_grad=True)
    average(x, torch.tensor(0.05), torch.tensor(0.0)).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.full_like(x, 0.25))


def test_padding_is_with_the_zero_point() -> None:
    """An asymmetric input: what lies around the image is real zero, so code zero point."""
    torch.manual_seed(1)
    net = quantize_model(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, bias=False)), 6)
    x = torch.rand(40, 1, 3, 3) * 3 - 0.5
    net(x)
    net.eval()
    act, conv = next(iter(parts(net, HawqAct).values())), net.get_submodule("0")
    assert float(act.zero_point) != 0
    codes = torch.clamp(torch.round(x / act.scale) + act.zero_point, -32, 31)
    framed = F.pad(codes, (1, 1, 1, 1), value=float(act.zero_point)) - act.zero_point
    weight, _ = conv.folded_parameters()
    scale, _ = conv.weight_quant.parameters_of(weight)
    sums = F.conv2d(framed, torch.round(weight / scale))
    np.testing.assert_allclose(
        net(x).detach(), (sums * scale * act.scale).detach(), rtol=1e-4, atol=1e-5
    )
    model = normalise(read(net, x[:2])).model
    got = Reference(model).run({"input": x.numpy()})["output"]
    np.testing.assert_allclose(got, net(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_folding_is_the_batch_norm_of_evaluation() -> None:
    torch.manual_seed(1)
    norm, conv = nn.BatchNorm2d(4), nn.Conv2d(3, 4, 3, stride=2, padding=1)
    norm(torch.randn(50, 4, 2, 2) * 3 + 1)
    norm.eval()
    layer = HawqConv(conv, norm, 8, Scheme())
    x = torch.randn(5, 3, 7, 7)
    found = layer.apply_to(x, *layer.folded_parameters())
    assert torch.allclose(found, norm(conv(x)), atol=1e-5)


def test_weights_are_integers_per_output_channel() -> None:
    net, _ = trained(Net, Scheme(per_channel=True))
    for layer in parts(net, HawqConv).values():
        weight, _ = layer.folded_parameters()
        scale, _ = layer.weight_quant.parameters_of(weight)
        assert scale.shape == (len(weight), 1, 1, 1)
        codes = (layer.weight_quant(weight) / scale).detach()
        np.testing.assert_allclose(codes, codes.round(), atol=1e-4)
        assert round(float(codes.abs().max())) == 15


class Shared(nn.Module):
    """One rectifier for a quantised value and for the output, which stays a float."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.relu = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.b(self.relu(self.a(x))))


def test_a_rectifier_that_nothing_quantised_reads_stays_one() -> None:
    net = quantize_model(Shared(), 4)
    net(torch.randn(64, 4))
    net.eval()
    x = torch.randn(50, 4) * 100
    found = net(x)
    assert len(parts(net, nn.ReLU)) == 1
    assert len(parts(net, HawqAct)) == 2
    assert float(found.min()) == 0
    assert len(found.unique()) > 16


class Joined(nn.Module):
    """A concatenation: what it gives is quantised as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (
            nn.Conv2d(1, 2, 1),
            nn.Conv2d(1, 2, 3, padding=1),
            nn.Conv2d(4, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.cat([torch.relu(self.a(x)), self.b(x)], 1))


class Mapped(nn.Module):
    """Values that only move: padding, upsampling, slices, a permutation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.up = nn.Conv2d(2, 4, 1), nn.Upsample(scale_factor=2)
        self.b = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(F.pad(x, (1, 0, 0, 1))))
        return self.b(self.up(x)[:, :, 1:3].permute(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("model", "shape", "quantisers"), [(Joined(), (1, 4, 4), 3), (Mapped(), (2, 3, 3), 2)]
)
def test_joins_and_moves(model: nn.Module, shape: tuple[int, ...], quantisers: int) -> None:
    torch.manual_seed(0)
    net, x = quantize_model(model, 6), torch.randn(20, *shape)
    net(x)
    net.eval()
    assert len(parts(net, HawqAct)) == quantisers
    found = qonnx_run(from_module(net, x[:2]), x.numpy())
    close = np.isclose(found, net(x).detach().numpy(), atol=1e-4)
    assert close.mean() > 0.97  # a sum next to a tie may go either way in float32


class Summed(nn.Module):
    """A sum that is pooled as it is."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.c(self.pool(x + self.b(x)))


@pytest.mark.parametrize("pool", [nn.AvgPool2d(2), nn.MaxPool2d(2)])
def test_pools_of_sums_are_on_the_grid_of_the_sum(pool: nn.Module) -> None:
    torch.manual_seed(0)
    net, x = quantize_model(Summed(pool), 6), torch.randn(30, 1, 6, 6)
    net(x)
    net.eval()
    assert len(parts(net, HawqAct)) == 3  # of the input, in front of b, in the sum
    model = normalise(read(net, x[:2])).model
    got = Reference(model).run({"x": x.numpy()})["output"]
    assert np.isclose(got, net(x).detach().numpy(), atol=1e-5).mean() > 0.97


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.fc = nn.Parameter(torch.randn(2, 1, 3, 3)), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.conv2d(x, self.weight))


def chain(*modules: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*modules, nn.Conv2d(1, 1, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (chain(nn.ConvTranspose2d(1, 1, 2)), "ConvTranspose2d has no quantised form"),
        (chain(nn.Conv3d(1, 1, 1)), "Conv3d has no quantised form"),
        (chain(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")), "padding_mode 'reflect'"),
        (chain(nn.LazyConv2d(1, 1)), "without weights yet"),
        (chain(nn.AvgPool2d(2, ceil_mode=True)), "ceil_mode.*no integer form"),
        (chain(nn.AdaptiveAvgPool2d(2)), "more than one value"),
        (chain(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False)), "running stat"),
        (Functional, "conv2d as a function"),
        (nn.ReLU, "no linear layers or convolutions"),
    ],
)
def test_what_cannot_be_wrapped(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(HqcError, match=f"HQC603.*{message}"):
        quantize_model(make(), 6)


@pytest.mark.emulation
@pytest.mark.parametrize(("make", "backend"), [(Net, "catapult"), (Lines, "vitis")])
def test_it_compiles_bit_exact(make: type[nn.Module], backend: str, tmp_path: Any) -> None:
    net, x = trained(make, Scheme(per_channel=True, bias_bits=16))
    artifact = hqc.compile(net, backend, tmp_path / "out", example_inputs=x[:2], check=40)
    assert artifact.manifest.verdict.exact
    assert artifact.manifest.verdict.overflow_free
