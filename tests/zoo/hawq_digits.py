"""The class behind the HAWQ checkpoint of a residual CNN on scikit-learn's digits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hqc.frontends.hawq.modules import QuantAct, QuantBnConv2d, QuantLinear, QuantMaxPool2d


class Digits(nn.Module):
    """Two convolutions with a residual sum, pooling, and a linear layer."""

    input_shape = (1, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.quant_input = QuantAct(8)
        self.quant_act_1 = QuantAct(8, quant_mode="asymmetric")
        self.quant_act_2 = QuantAct(8, quant_mode="asymmetric")
        for i, n in ((1, 1), (2, 8)):
            layer = QuantBnConv2d(weight_bit=6, bias_bit=16, per_channel=True)
            layer.set_param(nn.Conv2d(n, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
            setattr(self, f"convbn{i}", layer)
        self.pool = QuantMaxPool2d(2, 2)
        self.quant_fc = QuantLinear(weight_bit=6, bias_bit=16)

    def forward(self, x: Tensor) -> Tensor:
        x, s0 = self.quant_input(x)
        x, w1 = self.convbn1(x, s0)
        x, s1 = self.quant_act_1(torch.relu(x), s0, w1)
        y, w2 = self.convbn2(x, s1)
        y, s2 = self.quant_act_2(torch.relu(y + x), s1, w2, x, s1)
        y, s2 = self.pool(y, s2)
        return self.quant_fc(y.view(y.size(0), -1), s2)
