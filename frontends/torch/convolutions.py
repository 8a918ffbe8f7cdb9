"""Convolutions with quantised weights for training in PyTorch, in the style of `QuantLinear`.

    conv = QuantConv2d(3, 16, 3, padding=1, weight_bits=6, per_channel=True)

Arguments by position, and `stride` and the like, are those of PyTorch's layers. By name:

    weight_bits: width of the weights (6).
    bias_bits: width of the bias; None keeps it a float, which folds exactly into the next
        requantisation.
    bias_scale: the scale of the bias where `bias_bits` is given; see `BiasQuant`.
    per_channel, power_of_two, symmetric, narrow, signed, rounding, learned: see `WeightQuant`.

Padding is with real zeros: with the zero point, where the input has one.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from hqc.diagnostics import reject
from hqc.frontends.torch.quantised_layers import bias_quantiser, quantised, weight_quantiser

#: Options of PyTorch's convolutions; all others are the quantisers'.
_OF_TORCH = {
    *("stride", "padding", "output_padding", "dilation", "groups", "bias", "padding_mode"),
    *("device", "dtype"),
}


def _apart(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of PyTorch's layer, and options of the quantisers."""
    ours = {key: value for key, value in options.items() if key not in _OF_TORCH}
    return {key: value for key, value in options.items() if key in _OF_TORCH}, ours


class _Quantised:
    """What the layers below add to PyTorch's own, which stand behind this in their bases."""

    def __init__(
        self,
        *args: Any,
        weight_bits: int = 6,
        bias_bits: int | None = None,
        bias_scale: float | None = None,
        **options: Any,
    ) -> None:
        theirs, ours = _apart(options)
        super().__init__(*args, **theirs)
        layer: Any = self
        if layer.transposed:
            ours = _transposed(layer, ours)
        layer.weight_quant = weight_quantiser(layer.weight, weight_bits, ours)
        layer.bias_quant = bias_quantiser(layer.bias, bias_bits, bias_scale, ours)


class QuantConv1d(_Quantised, nn.Conv1d):  # type: ignore[misc]
    """Convolution over lines (N, C, length); arguments in the module's docstring."""

    def forward(self, x: Tensor, input_scale: Tensor | None = None) -> Tensor:
        """Shapes (N, C, length) to (N, out, length'); `input_scale` as for `QuantLinear`."""
        return self._conv_forward(x, *quantised(self, input_scale))


class QuantConv2d(_Quantised, nn.Conv2d):  # type: ignore[misc]
    """Convolution over images (N, C, rows, columns); arguments in the module's docstring."""

    def forward(self, x: Tensor, input_scale: Tensor | None = None) -> Tensor:
        """Shapes (N, C, ...) to (N, out, ...); `input_scale` as for `QuantLinear`."""
        return self._conv_forward(x, *quantised(self, input_scale))


class QuantConvTranspose1d(_Quantised, nn.ConvTranspose1d):  # type: ignore[misc]
    """Transposed convolution over lines; arguments in the module's docstring."""

    def forward(self, x: Tensor, input_scale: Tensor | None = None) -> Tensor:
        """Shapes (N, C, length) to (N, out, length'); `input_scale` as for `QuantLinear`."""
        weight, bias = quantised(self, input_scale)
        sizes = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        return nn.functional.conv_transpose1d(x, weight, bias, *sizes)


class QuantConvTranspose2d(_Quantised, nn.ConvTranspose2d):  # type: ignore[misc]
    """Transposed convolution over images; arguments in the module's docstring."""

    def forward(self, x: Tensor, input_scale: Tensor | None = None) -> Tensor:
        """Shapes (N, C, ...) to (N, out, ...); `input_scale` as for `QuantLinear`."""
        weight, bias = quantised(self, input_scale)
        sizes = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        return nn.functional.conv_transpose2d(x, weight, bias, *sizes)


def _transposed(layer: nn.Module, options: dict[str, Any]) -> dict[str, Any]:
    """Options for weights (in, out / groups, ...), whose output channels are axis 1.

    Raises:
        HqcError: HQC102, scales per channel in several groups, which share that axis.
    """
    if options.get("per_channel") and layer.groups > 1:
        raise reject(
            "HQC102",
            "weights per channel in a transposed convolution with groups",
            helps=("leave out per_channel, or make one layer per group",),
        )
    return {**options, "axis": 1}
