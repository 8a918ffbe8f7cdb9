"""Networks of the size and shape that classify ImageNet, 3 x 224 x 224; random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo.source import Source, of_module, settle

SHAPE = (3, 224, 224)


def mobilenet_v1() -> Source:
    """Brevitas' MobileNet v1: depthwise convolutions, 4 bits, some scales per channel."""
    models = pytest.importorskip("brevitas_examples.imagenet_classification.models.mobilenetv1")
    torch.manual_seed(0)
    channels = [[32], [64], [128, 128], [256, 256], [512] * 6, [1024, 1024]]
    net = models.MobileNet(channels, first_stage_stride=False, act_bit_width=4, weight_bit_width=4)
    return _settled(net, seed=0)


def resnet18() -> Source:
    """ResNet-18 of Brevitas layers: scales per channel, branches of different scales."""
    torch.manual_seed(1)
    return _settled(_resnet(), seed=1)


def _settled(net: nn.Module, seed: int) -> Source:
    settle(net, [torch.randn(2, *SHAPE) for _ in range(2)], seed)
    return of_module(net, *SHAPE)


def _resnet() -> nn.Module:
    bnn = pytest.importorskip("brevitas.nn")
    quant = pytest.importorskip("brevitas.quant")

    def conv(n_in: int, n_out: int, kernel: int, stride: int, bits: int = 4) -> list[nn.Module]:
        weights: dict[str, Any] = {
            "weight_quant": quant.Int8WeightPerChannelFloat,
            "weight_bit_width": bits,
        }
        made = bnn.QuantConv2d(
            n_in, n_out, kernel, stride, padding=kernel // 2, bias=False, **weights
        )
        return [made, nn.BatchNorm2d(n_out)]

    class Block(nn.Module):
        def __init__(self, n_in: int, n_out: int, stride: int) -> None:
            super().__init__()
            self.first = nn.Sequential(*conv(n_in, n_out, 3, stride), bnn.QuantReLU(bit_width=4))
            self.second = nn.Sequential(*conv(n_out, n_out, 3, 1), bnn.QuantIdentity(bit_width=5))
            self.short: nn.Module = nn.Identity()
            if stride != 1:
                layers = conv(n_in, n_out, 1, stride)
                self.short = nn.Sequential(*layers, bnn.QuantIdentity(bit_width=5))
            self.act = bnn.QuantReLU(bit_width=4)

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.second(self.first(x)) + self.short(x))

    layers = [bnn.QuantIdentity(bit_width=8), *conv(3, 64, 7, 2, bits=8)]
    layers += [bnn.QuantReLU(bit_width=4), nn.MaxPool2d(3, 2, padding=1)]
    width = 64
    for n_out in (64, 128, 256, 512):
        layers += [Block(width, n_out, 1 + (n_out > width)), Block(n_out, n_out, 1)]
        width = n_out
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), bnn.QuantIdentity(bit_width=8)]
    layers += [bnn.QuantLinear(512, 1000, bias=True, weight_bit_width=8)]
    return nn.Sequential(*layers)
