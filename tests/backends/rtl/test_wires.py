"""Layers that are only wires: permutations, copies, pruned rows, depthwise identities."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hqc
from hqc.diagnostics import HqcError
from hqc.frontends.torch import QuantConv1d, QuantIdentity, QuantLinear, QuantReLU

ROWS = {
    "identity": torch.eye(5),
    "permutation": torch.eye(5)[[2, 0, 1, 4, 3]],
    "copies": torch.eye(4)[[0, 0, 1, 2, 3, 3]],
    "first ones": torch.eye(5)[:2],
    "pruned": torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 0.5]]),
}


class Wired(nn.Module):
    """A layer with the given weights, which are powers of two or nothing, in front of another."""

    def __init__(self, weight: Tensor):
        super().__init__()
        outputs, inputs = weight.shape
        options = {"weight_bits": 4, "power_of_two": True}
        self.inp = QuantIdentity(8, power_of_two=True)
        self.wires = QuantLinear(inputs, outputs, bias=False, **options)
        self.act = QuantReLU(6, power_of_two=True)
        self.out = QuantLinear(outputs, 3, **options)
        with torch.no_grad():
            self.wires.weight.copy_(weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.act(self.wires(self.inp(x))))


class Depthwise(nn.Module):
    """A depthwise convolution that hands each channel on."""

    def __init__(self) -> None:
        super().__init__()
        self.inp = QuantIdentity(8, power_of_two=True)
        self.wires = QuantConv1d(4, 4, 1, groups=4, bias=False, weight_bits=4, power_of_two=True)
        self.act = QuantReLU(6, power_of_two=True)
        with torch.no_grad():
            self.wires.weight.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.wires(self.inp(x)))


def compiled(net: nn.Module, shape: tuple[int, ...], folder: Path) -> hqc.Artifact:
    torch.manual_seed(0)
    x = torch.randn(200, *shape)
    net.train()(x)
    return hqc.compile(net.eval(), backend="rtl", output=folder, example_inputs=x[:2], check=None)


@pytest.mark.parametrize("name", ROWS)
def test_a_dense_layer_of_wires_is_proven(name: str, tmp_path: Path) -> None:
    weight = ROWS[name]
    found = compiled(Wired(weight), (weight.shape[1],), tmp_path / "out").prove()
    assert "2 dense layers by affine propagation" in found["claim"], found["claim"]


def test_a_depthwise_identity_is_proven(tmp_path: Path) -> None:
    assert compiled(Depthwise(), (4, 6), tmp_path / "out").prove()["claim"]


def test_crossed_wires_are_refuted(tmp_path: Path) -> None:
    artifact = compiled(Wired(ROWS["permutation"]), (5,), tmp_path / "out")
    wires = re.compile(r"(wires_MatMul_y = \{)([^,]+), ([^,]+), ")
    sources = (tmp_path / "out" / "project" / "rtl").glob("*.v")
    (path,) = [path for path in sources if wires.search(path.read_text())]
    path.write_text(wires.sub(r"\1\3, \2, ", path.read_text()))
    with pytest.raises(HqcError, match=r"HQC42[45]"):
        artifact.prove()
