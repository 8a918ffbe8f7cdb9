"""Brevitas models: its own CNV, a trained residual network, and usual small architectures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo.digits import digits, train
from zoo.source import Source, of_module, settle


def _layers() -> tuple[Any, Any]:
    return pytest.importorskip("brevitas.nn"), pytest.importorskip("brevitas.quant")


def cnv_1w1a() -> Source:
    """Brevitas' CNV for CIFAR-10: one-bit weights and activations."""
    return _cnv(1)


def cnv_1w2a() -> Source:
    """Brevitas' CNV for CIFAR-10: one-bit weights, two-bit activations."""
    return _cnv(2)


def _cnv(bits: int) -> Source:
    models = pytest.importorskip("brevitas_examples.bnn_pynq.models.CNV")
    torch.manual_seed(bits)
    net = models.CNV(10, weight_bit_width=1, act_bit_width=bits, in_bit_width=8, in_ch=3)
    settle(net, [torch.rand(16, 3, 32, 32) for _ in range(3)], seed=bits)
    return of_module(net, 3, 32, 32)


def residual_digits() -> Source:
    """A residual CNN with scales per channel and branches of different scales, trained."""
    bnn, quant = _layers()
    weights = {"weight_quant": quant.Int8WeightPerChannelFloat, "bias": False}

    class Block(nn.Module):
        def __init__(self, width: int, bits: int) -> None:
            super().__init__()
            self.conv1 = bnn.QuantConv2d(width, width, 3, padding=1, weight_bit_width=4, **weights)
            self.norm1 = nn.BatchNorm2d(width)
            self.act1 = bnn.QuantReLU(bit_width=bits)
            self.conv2 = bnn.QuantConv2d(width, width, 3, padding=1, weight_bit_width=4, **weights)
            self.norm2 = nn.BatchNorm2d(width)
            self.branch = bnn.QuantIdentity(bit_width=bits + 1)
            self.act2 = bnn.QuantReLU(bit_width=bits)

        def forward(self, x: Tensor) -> Tensor:
            y = self.act1(self.norm1(self.conv1(x)))
            return self.act2(x + self.branch(self.norm2(self.conv2(y))))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inp = bnn.QuantIdentity(bit_width=5, signed=False)
            self.stem = bnn.QuantConv2d(1, 8, 3, padding=1, weight_bit_width=6, **weights)
            self.norm = nn.BatchNorm2d(8)
            self.act = bnn.QuantReLU(bit_width=5)
            self.block1, self.block2 = Block(8, 5), Block(8, 4)
            self.pool = nn.MaxPool2d(2)
            self.fc = bnn.QuantLinear(
                128, 10, bias=True, weight_quant=quant.Int8WeightPerTensorFloat, weight_bit_width=5
            )

        def forward(self, x: Tensor) -> Tensor:
            x = self.block1(self.act(self.norm(self.stem(self.inp(x)))))
            x = self.block2(self.pool(x))
            return self.fc(torch.flatten(x, 1))

    torch.manual_seed(0)
    net = train(Net(), epochs=6)
    return of_module(net, 1, 8, 8, samples=digits()[1][0][:64].numpy())


def depthwise() -> Source:
    """A depthwise-separable CNN: two MobileNet blocks, the second with stride 2."""
    bnn, quant = _layers()

    def block(n_in: int, n_out: int, stride: int) -> list[nn.Module]:
        options = {"weight_quant": quant.Int8WeightPerChannelFloat, "bias": False}
        return [
            bnn.QuantConv2d(
                n_in, n_in, 3, stride, padding=1, groups=n_in, weight_bit_width=6, **options
            ),
            nn.BatchNorm2d(n_in),
            bnn.QuantReLU(bit_width=5),
            bnn.QuantConv2d(n_in, n_out, 1, weight_bit_width=4, **options),
            nn.BatchNorm2d(n_out),
            bnn.QuantReLU(bit_width=4),
        ]

    torch.manual_seed(1)
    net = nn.Sequential(
        bnn.QuantIdentity(bit_width=8),
        *block(3, 8, 1),
        *block(8, 12, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        bnn.QuantIdentity(bit_width=8),
        bnn.QuantLinear(12, 4, bias=True, weight_bit_width=5),
    )
    settle(net, [torch.randn(32, 3, 8, 8) for _ in range(4)], seed=1)
    return of_module(net, 3, 8, 8)


def autoencoder() -> Source:
    """Convolutions down to a code, transposed convolutions back up to the image."""
    bnn, quant = _layers()
    per_channel = {"weight_quant": quant.Int8WeightPerChannelFloat}
    torch.manual_seed(2)
    net = nn.Sequential(
        bnn.QuantIdentity(bit_width=6, signed=False),
        bnn.QuantConv2d(1, 6, 3, 2, padding=1, bias=True, weight_bit_width=5, **per_channel),
        bnn.QuantReLU(bit_width=5),
        bnn.QuantConv2d(6, 4, 3, 2, padding=1, bias=True, weight_bit_width=5, **per_channel),
        bnn.QuantReLU(bit_width=5),
        bnn.QuantConvTranspose2d(4, 6, 2, 2, bias=True, weight_bit_width=5),
        bnn.QuantReLU(bit_width=5),
        bnn.QuantConvTranspose2d(
            6, 1, 3, 2, padding=1, output_padding=1, bias=True, weight_bit_width=5
        ),
        bnn.QuantIdentity(bit_width=8),
    )
    settle(net, [torch.rand(32, 1, 8, 8) for _ in range(4)], seed=2)
    return of_module(net, 1, 8, 8)


def conv1d() -> Source:
    """A 1-D CNN on a waveform of two channels: strides, dilation, pooling."""
    bnn, quant = _layers()
    weights = {"weight_quant": quant.Int8WeightPerChannelFloat, "bias": False}
    torch.manual_seed(3)
    net = nn.Sequential(
        bnn.QuantIdentity(bit_width=8),
        bnn.QuantConv1d(2, 8, 5, 2, padding=2, weight_bit_width=6, **weights),
        nn.BatchNorm1d(8),
        bnn.QuantReLU(bit_width=6),
        nn.MaxPool1d(2),
        bnn.QuantConv1d(8, 8, 3, padding=2, dilation=2, weight_bit_width=4, **weights),
        nn.BatchNorm1d(8),
        bnn.QuantReLU(bit_width=4),
        nn.AvgPool1d(2),
        bnn.QuantIdentity(bit_width=6, signed=False),
        nn.Flatten(),
        bnn.QuantLinear(32, 3, bias=True, weight_bit_width=6),
    )
    settle(net, [torch.randn(64, 2, 32) for _ in range(4)], seed=3)
    return of_module(net, 2, 32)
