"""Models of hqc's own quantised layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hqc.frontends.torch import (
    QuantConv1d,
    QuantConv2d,
    QuantConvTranspose2d,
    QuantIdentity,
    QuantLinear,
    QuantReLU,
)
from zoo.source import Source, of_module, settle


def depthwise() -> Source:
    """An inverted-bottleneck block: expand, depthwise, project, and the sum around it."""

    class Block(nn.Module):
        def __init__(self, width: int, inner: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                QuantConv2d(width, inner, 1, bias=False, weight_bits=5, per_channel=True),
                nn.BatchNorm2d(inner),
                QuantReLU(5),
                QuantConv2d(inner, inner, 3, padding=1, groups=inner, bias=False, per_channel=True),
                nn.BatchNorm2d(inner),
                QuantReLU(5),
                QuantConv2d(inner, width, 1, bias=False, weight_bits=5, per_channel=True),
                nn.BatchNorm2d(width),
                QuantIdentity(6),
            )
            self.out = QuantIdentity(6)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(x + self.body(x))

    torch.manual_seed(4)
    net = nn.Sequential(
        QuantIdentity(8),
        QuantConv2d(3, 6, 3, stride=2, padding=1, per_channel=True),
        QuantIdentity(6),
        Block(6, 12),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        QuantLinear(6, 4, per_channel=True),
    )
    settle(net, [torch.randn(32, 3, 8, 8) for _ in range(4)], seed=4)
    return of_module(net, 3, 8, 8)


def autoencoder() -> Source:
    """Strided convolution and its transpose, on powers of two: every float is exact."""
    step = {"power_of_two": True}
    torch.manual_seed(5)
    net = nn.Sequential(
        QuantIdentity(6, signed=False, **step),
        QuantConv2d(1, 4, 3, stride=2, padding=1, bias_bits=8, **step),
        QuantReLU(5, **step),
        QuantConvTranspose2d(
            4, 1, 3, stride=2, padding=1, output_padding=1, bias_bits=8, per_channel=True, **step
        ),
        QuantIdentity(8, **step),
    )
    settle(net, [torch.rand(32, 1, 8, 8) for _ in range(4)], seed=5)
    return of_module(net, 1, 8, 8)


def conv1d() -> Source:
    """A waveform through a causal convolution (padded in front only) and a strided one."""
    torch.manual_seed(6)
    net = nn.Sequential(
        QuantIdentity(8),
        nn.ConstantPad1d((2, 0), 0.0),
        QuantConv1d(2, 6, 3, per_channel=True),
        QuantReLU(5),
        QuantConv1d(6, 4, 4, stride=4, weight_bits=4),
        nn.BatchNorm1d(4),
        QuantReLU(4),
        nn.Flatten(),
        QuantLinear(16, 3, bias_bits=10),
    )
    settle(net, [torch.randn(64, 2, 16) for _ in range(4)], seed=6)
    return of_module(net, 2, 16)


def squeeze_excite() -> Source:
    """A gate per channel, from the channels' means, multiplied into the image."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(
                QuantIdentity(8),
                QuantConv2d(3, 8, 3, padding=1, bias=False, per_channel=True),
                nn.BatchNorm2d(8),
                QuantReLU(5),
            )
            self.gate = nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                QuantIdentity(6, signed=False),
                QuantConv2d(8, 4, 1),
                QuantReLU(5),
                QuantConv2d(4, 8, 1),
                nn.Sigmoid(),
                QuantIdentity(5, signed=False),
            )
            self.out = nn.Sequential(QuantIdentity(5, signed=False), nn.Flatten(2))
            self.fc = QuantLinear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.fc(self.out(x * self.gate(x)).amax(2))

    torch.manual_seed(7)
    net = settle(Net(), [torch.randn(32, 3, 8, 8) for _ in range(4)], seed=7)
    return of_module(net, 3, 8, 8)


def late_residual() -> Source:
    """Sums of a batch norm and a branch that nothing quantises first, and of two layers."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            per_channel = {"bias": False, "per_channel": True, "weight_bits": 4}
            self.inp = QuantIdentity(6)
            self.left = nn.Sequential(
                QuantConv2d(3, 6, 3, padding=1, **per_channel), nn.BatchNorm2d(6)
            )
            self.right = nn.Sequential(QuantConv2d(3, 6, 1, **per_channel), nn.BatchNorm2d(6))
            self.act1 = QuantReLU(4)
            self.body = nn.Sequential(
                QuantConv2d(6, 6, 3, padding=1, **per_channel), nn.BatchNorm2d(6)
            )
            self.act2 = QuantReLU(4)
            self.fc = QuantLinear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.inp(x)
            y = self.act1(self.left(x) + self.right(x))
            z = self.act2(self.body(y) + y)
            return self.fc(torch.cat([y, z], dim=1).amax((2, 3)))

    torch.manual_seed(8)
    net = settle(Net(), [torch.randn(32, 3, 8, 8) for _ in range(4)], seed=8)
    return of_module(net, 3, 8, 8)
