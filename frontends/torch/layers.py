"""Layers with quantised weights and activations: linear ones, ReLU and identity."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hqc.frontends.torch.quantised_layers import bias_quantiser, quantised, weight_quantiser
from hqc.frontends.torch.quantisers import ActQuant


class QuantIdentity(ActQuant):
    """Quantises its input and does nothing else: model inputs, outputs, residual branches."""

    def __init__(self, bits: int = 8, **options: Any) -> None:
        super().__init__(bits, **options)


class QuantReLU(ActQuant):
    """ReLU, then an unsigned quantiser; options as for `ActQuant`."""

    def __init__(self, bits: int = 6, **options: Any) -> None:
        super().__init__(bits, **{"signed": False, **options})

    def forward(self, x: Tensor) -> Tensor:
        """The rectified activations on their grid."""
        return super().forward(torch.relu(x))


class QuantLinear(nn.Linear):  # type: ignore[misc]
    """Linear layer with quantised weights (out, in), and optionally a quantised bias.

    Args:
        in_features, out_features, bias: as for `nn.Linear`.
        weight_bits, per_channel, power_of_two, symmetric, narrow, signed, rounding, learned: see
            `WeightQuant`.
        bias_bits: width of the bias; None keeps it a float, which folds exactly into the next
            requantisation.
        bias_scale: the scale of the bias where `bias_bits` is given; see `BiasQuant`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        weight_bits: int = 6,
        bias_bits: int | None = None,
        bias_scale: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.weight_quant = weight_quantiser(self.weight, weight_bits, options)
        self.bias_quant = bias_quantiser(self.bias, bias_bits, bias_scale, options)

    def forward(self, x: Tensor, input_scale: Tensor | None = None) -> Tensor:
        """Shapes (N, ..., in) to (N, ..., out).

        With `input_scale`, the scale of the quantiser before, a quantised bias without a scale of
        its own is put on the grid of the accumulator: weight scale times input scale.
        """
        weight, bias = quantised(self, input_scale)
        return nn.functional.linear(x, weight, bias)
