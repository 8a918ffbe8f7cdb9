"""HAWQ's scheme on module trees: what is wrapped, what it computes, how it compiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hqc
from hqc.diagnostics import HqcError
from hqc.driver.loading import normalise, read
from hqc.execution.reference import Reference
from hqc.frontends.hawq.layers import HawqAct, HawqAdd, HawqLinear, Scheme, freeze, unfreeze
from hqc.frontends.hawq.wrap import layer_names, quantize_model
from hqc.frontends.torch_export import from_module


class Block(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.fc, self.bn = nn.Linear(n, n), nn.BatchNorm1d(n)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(x + self.bn(self.fc(x)))


class Net(nn.Module):
    """Nested, sequential, residual, with functional and module rectifiers."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Linear(6, 12, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm1d(12), nn.ReLU())
        self.blocks = nn.ModuleList([Block(12), Block(12)])
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


NAMES = ("stem.0", "blocks.0.fc", "blocks.1.fc", "head.1")
BITS = dict(zip(NAMES, ((6, 8), (5, 7), (4, 6), (6, 5)), strict=True))


def trained(scheme: Scheme | None = None, steps: int = 12) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    net, x = quantize_model(Net(), BITS, scheme), torch.randn(64, 6)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), x[:, :3].argmax(1)).backward()
        optimiser.step()
    net.eval()
    return net, x


def parts(net: nn.Module, kind: type) -> dict[str, Any]:
    return {name: m for name, m in net.named_modules() if isinstance(m, kind)}


def test_every_layer_is_wrapped_where_it_stands() -> None:
    assert layer_names(Net()) == NAMES
    net, _ = trained()
    linears = parts(net, HawqLinear)
    assert tuple(linears) == NAMES
    assert {n: m.weight_quant.bits for n, m in linears.items()} == {
        n: b[0] for n, b in BITS.items()
    }
    assert len(parts(net, HawqAdd)) == 2
    assert not parts(net, nn.ReLU)
    assert not [n for n, m in parts(net, nn.BatchNorm1d).items() if not n.endswith(".norm")]
    acts = parts(net, HawqAct)
    assert acts["x_quant"].bits == 8  # the stem reads it
    assert acts["stem.2"].bits == 7  # a block and the sum behind it read it: the larger
    assert {m.signed for n, m in acts.items() if "relu" in n or n == "stem.2"} == {False}


@pytest.mark.parametrize(
    "scheme",
    [
        Scheme(),
        Scheme(per_channel=True, mode="symmetric", ranges="percentile", bias_bits=16),
        Scheme(power_of_two=True, ranges="max"),
    ],
)
def test_the_exported_model_is_the_module(scheme: Scheme) -> None:
    """Weights and biases are integers on their scales; outputs agree up to float32 ties."""
    net, x = trained(scheme)
    model = normalise(read(net, x[:2])).model
    want = net(x).detach().numpy()
    got = Reference(model).run({"x": x.numpy()})["output"]
    close = np.isclose(got, want, rtol=1e-4, atol=1e-4).all(axis=1)
    assert close.mean() > 0.9
    for name, layer in parts(net, HawqLinear).items():
        weight, bias = layer.folded_parameters()
        scale, _ = layer.weight_quant.parameters_of(weight)
        codes = layer.weight_quant(weight) / scale
        np.testing.assert_allclose(codes.detach(), codes.detach().round(), atol=1e-4)
        top = (1 << (BITS[name][0] - 1)) - 1
        assert codes.abs().max() <= top + 1e-4
        assert scale.numel() == (layer.linear.out_features if scheme.per_channel else 1)
        assert bias is not None


def test_biases_are_integers_on_the_scale_of_the_accumulator() -> None:
    net, x = trained(Scheme(bias_bits=8))
    layer, act = net.get_submodule("head.1"), net.get_submodule("relu_1_quant")
    seen: list[Tensor] = []
    layer.bias_quant.register_forward_hook(lambda _, given, out: seen.extend([given[1], out]))
    net(x)
    weight, bias = layer.folded_parameters()
    scale = layer.weight_quant.parameters_of(weight)[0].reshape(-1) * act.scale
    assert torch.equal(seen[0], scale)
    want = torch.clamp(torch.round(bias / scale), -128, 127) * scale
    assert torch.equal(seen[1], want)


def test_batch_norm_trains_beside_the_layer_until_it_is_folded() -> None:
    net, x = trained(Scheme(fold_after=2), steps=1)
    layer = net.get_submodule("stem.0")
    net.train()
    net(x)
    assert not bool(layer.folded)
    before = layer.norm.running_mean.clone()
    net(x)
    assert bool(layer.folded)
    assert torch.equal(layer.norm.running_mean, before)
    unfreeze(net, ranges=False)
    layer.fold_after = None
    net(x)
    assert not torch.equal(layer.norm.running_mean, before)


def test_frozen_ranges_stay() -> None:
    net, x = trained()
    net.train()
    freeze(net, norms=False)
    scales = {n: m.scale.clone() for n, m in parts(net, HawqAct).items()}
    net(10 * x)
    assert all(torch.equal(m.scale, scales[n]) for n, m in parts(net, HawqAct).items())
    unfreeze(net)
    net(10 * x)
    assert any(not torch.equal(m.scale, scales[n]) for n, m in parts(net, HawqAct).items())


def test_folding_is_the_batch_norm_of_evaluation() -> None:
    torch.manual_seed(1)
    norm, linear = nn.BatchNorm1d(4), nn.Linear(3, 4)
    norm(torch.randn(50, 4) * 3 + 1)
    norm.eval()
    layer = HawqLinear(linear, norm, 8, Scheme())
    weight, bias = layer.folded_parameters()
    x = torch.randn(9, 3)
    assert torch.allclose(nn.functional.linear(x, weight, bias), norm(linear(x)), atol=1e-5)


def test_one_width_for_all_and_a_float_input_layer() -> None:
    net = quantize_model(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2)), 6)
    net(torch.randn(8, 4))
    net.eval()
    model = from_module(net, torch.zeros(2, 4))
    quants = [n for n in model.graph if n.op_type == "Quant"]
    assert len(quants) == 6  # input and between, two weights, two biases
    assert {m.bits for m in parts(net, HawqAct).values()} == {6}


def test_the_state_dict_comes_back() -> None:
    net, x = trained()
    again = quantize_model(Net(), BITS)
    again.load_state_dict(net.state_dict())
    again.eval()
    assert torch.equal(again(x), net(x))


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.fc(x)))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("model", "bits", "message"),
    [
        (nn.Sequential(nn.ConvTranspose1d(1, 1, 1), nn.Linear(4, 2)), 6, "HQC603.*quantised form"),
        (Shared(), 6, "HQC603.*called twice"),
        (Branching(), 6, "HQC603.*cannot be traced"),
        (nn.ReLU(), 6, "HQC603.*no linear"),
        (Net(), {"stem.0": (6, 6)}, "HQC107.*missing"),
        (Net(), {**BITS, "other": (6, 6)}, "HQC107.*no such layer"),
        (Net(), 1, "HQC107"),
        (Net(), {**BITS, "head.1": (6,)}, "HQC107.*head.1"),
    ],
)
def test_what_cannot_be_wrapped(model: nn.Module, bits: Any, message: str) -> None:
    with pytest.raises(HqcError, match=message):
        quantize_model(model, bits)


def test_unknown_modes() -> None:
    with pytest.raises(HqcError, match="HQC102"):
        Scheme(mode="odd")


@pytest.mark.emulation
def test_it_compiles_bit_exact(tmp_path: Any) -> None:
    net, x = trained(Scheme(per_channel=True, mode="symmetric", bias_bits=16))
    artifact = hqc.compile(net, "catapult", tmp_path / "out", example_inputs=x[:2], check=100)
    verdict = artifact.manifest.verdict
    assert verdict.exact
    assert verdict.overflow_free
