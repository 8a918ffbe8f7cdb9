"""Quantiser modules for quantisation-aware training in PyTorch.

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp = QuantIdentity(bits=8)
            self.fc1 = QuantLinear(16, 5, weight_bits=6)
            self.act1 = QuantReLU(bits=6)

        def forward(self, x):
            return self.act1(self.fc1(self.inp(x)))

`QuantConv1d`, `QuantConv2d`, `QuantConvTranspose1d` and `QuantConvTranspose2d` are convolutions in
the same style; pooling, flattening and sums are PyTorch's own.

Train as usual: gradients pass straight through the quantisers, and activation ranges follow the
data in training mode and are frozen in eval mode. `hqc.compile(net, ...)` takes the module as it
is; `torch.export.save` makes a file of it.
"""

from __future__ import annotations

from hqc.frontends.torch.convolutions import (
    QuantConv1d,
    QuantConv2d,
    QuantConvTranspose1d,
    QuantConvTranspose2d,
)
from hqc.frontends.torch.quant_operator import quant
from hqc.frontends.torch.quantised_layers import QuantLinear
from hqc.frontends.torch.quantisers import (
    ActQuant,
    BiasQuant,
    QuantIdentity,
    QuantReLU,
    WeightQuant,
)

__all__ = [
    "ActQuant",
    "BiasQuant",
    "QuantConv1d",
    "QuantConv2d",
    "QuantConvTranspose1d",
    "QuantConvTranspose2d",
    "QuantIdentity",
    "QuantLinear",
    "QuantReLU",
    "WeightQuant",
    "quant",
]
