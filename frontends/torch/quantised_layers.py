"""What layers with quantised weights share: their quantisers, and parameters on their grids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hqc.frontends.torch.quantisers import BiasQuant, WeightQuant

__all__ = ["bias_quantiser", "quantised", "weight_quantiser"]


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
