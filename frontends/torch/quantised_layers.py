"""The linear layer with quantised weights, and what it shares with the convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hqc.frontends.torch.quantisers import BiasQuant, WeightQuant


def weight_quantiser(weight: Tensor, bits: int, options: Mapping[str, Any]) -> WeightQuant:
    """The quantiser of a weight tensor; options as for `WeightQuant`."""
    found = WeightQuant(bits, **options)
    if found.learned:
        found.reset(weight)
    return found


def bias_quantiser(
    bias: Tensor | None, bits: int | None, scale: float | None, options: Mapping[str, Any]
) -> BiasQuant | None:
    """The quantiser of a bias, or None where there is no bias, or it stays a float."""
    if bias is None or bits is None:
        return None
    return BiasQuant(bits, scale=scale, power_of_two=bool(options.get("power_of_two", False)))


def quantised(layer: nn.Module, input_scale: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Weights and bias of a layer on their grids.

    Args:
        layer: with `weight`, `bias`, `weight_quant` and `bias_quant`.
        input_scale: () of the quantiser in front, for a bias on the grid of the accumulator.
    """
    quant: WeightQuant = layer.weight_quant
    scale, zero_point = quant.parameters_of(layer.weight)
    weight = quant._quantise(layer.weight, scale, zero_point)
    bias: Tensor | None = layer.bias
    if bias is not None and layer.bias_quant is not None:
        given = None if input_scale is None else scale.detach().reshape(-1) * input_scale
        bias = layer.bias_quant(bias, given)
    return weight, bias


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
