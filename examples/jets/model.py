"""The jet tagger: a multilayer perceptron 16-64-32-32-5 with quantisers of hqc.

Topology: Duarte et al., JINST 13 (2018) P07027. Weights have one scale per output channel and
activations one per tensor, none restricted to powers of two; the compiler finds the exact integer
requantisation. Batch norm follows the first two layers and folds into the requantisation too. The
softmax stays outside: the outputs are logits on a grid.
"""

from __future__ import annotations

from torch import Tensor, nn

from hqc.frontends.torch import QuantIdentity, QuantLinear, QuantReLU

INPUTS, CLASSES = 16, 5


class JetTagger(nn.Module):
    """Logits (N, 5) of standardised observables (N, 16).

    Args:
        weight_bits: width of all weights.
        bits: width of hidden activations.
        input_bits, output_bits: widths at the two ports.
    """

    def __init__(
        self, *, weight_bits: int = 6, bits: int = 6, input_bits: int = 8, output_bits: int = 10
    ) -> None:
        super().__init__()

        def linear(n_in: int, n_out: int, *, bias: bool = True) -> QuantLinear:
            return QuantLinear(n_in, n_out, bias, weight_bits=weight_bits, per_channel=True)

        self.input = QuantIdentity(input_bits, ranges="percentile", percentile=99.9)
        self.fc1, self.norm1 = linear(INPUTS, 64, bias=False), nn.BatchNorm1d(64)
        self.act1 = QuantReLU(bits)
        self.fc2, self.norm2 = linear(64, 32, bias=False), nn.BatchNorm1d(32)
        self.act2 = QuantReLU(bits)
        self.fc3, self.act3 = linear(32, 32), QuantReLU(bits)
        self.fc4, self.output = linear(32, CLASSES), QuantIdentity(output_bits)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch."""
        x = self.input(x)
        x = self.act1(self.norm1(self.fc1(x)))
        x = self.act2(self.norm2(self.fc2(x)))
        x = self.act3(self.fc3(x))
        return self.output(self.fc4(x))
