"""HAWQ's layer classes as declarations: what a model file imports where HAWQ's own are absent.

    from hqc.frontends.hawq.modules import QuantAct, QuantLinear

instead of `from utils.quantization_utils.quant_modules import *` makes the class of a HAWQ network
loadable as it is, for `--hawq-model FILE.py:NAME`. Its forward is traced, never run: the layers
take the arguments that HAWQ's take, remember bits and modes, and compute nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = [
    "QuantAct",
    "QuantAveragePool2d",
    "QuantBnConv2d",
    "QuantConv2d",
    "QuantDropout",
    "QuantLinear",
    "QuantMaxPool2d",
]


class _Declared(nn.Module):  # type: ignore[misc]
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Never run."""
        raise NotImplementedError(f"{type(self).__name__} declares a layer; hqc traces it")


class QuantAct(_Declared):
    """An activation quantiser."""

    def __init__(
        self,
        activation_bit: int = 4,
        act_range_momentum: float = 0.95,
        full_precision_flag: bool = False,
        running_stat: bool = True,
        quant_mode: str = "symmetric",
        fix_flag: bool = False,
        act_percentile: float = 0,
        fixed_point_quantization: bool = False,
    ) -> None:
        super().__init__()
        self.activation_bit, self.quant_mode = activation_bit, quant_mode
        self.full_precision_flag = full_precision_flag
        self.fixed_point_quantization = fixed_point_quantization
        self.register_buffer("act_scaling_factor", torch.ones(1))  # traced where forward reads it


class _Weighted(_Declared):
    _scale = "fc_scaling_factor"

    def __init__(
        self,
        weight_bit: int = 4,
        bias_bit: int | None = None,
        full_precision_flag: bool = False,
        quant_mode: str = "symmetric",
        per_channel: bool = False,
        fix_flag: bool = False,
        weight_percentile: float = 0,
    ) -> None:
        super().__init__()
        self.weight_bit, self.bias_bit, self.per_channel = weight_bit, bias_bit, per_channel
        self.register_buffer(self._scale, torch.ones(1))


class QuantLinear(_Weighted):
    """A linear layer."""

    def set_param(self, linear: nn.Module) -> None:
        """Take a float layer; its numbers come from the state dict."""


class QuantConv2d(_Weighted):
    """A convolution."""

    _scale = "conv_scaling_factor"

    def set_param(self, conv: nn.Module) -> None:
        """Take the shape of a float convolution."""
        self.conv = conv


class QuantBnConv2d(_Weighted):
    """A convolution with the batch norm behind it."""

    _scale = "convbn_scaling_factor"

    def __init__(
        self, *args: Any, fix_BN: bool = False, fix_BN_threshold: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)

    def set_param(self, conv: nn.Module, bn: nn.Module) -> None:
        """Take the shape of a float convolution, and the epsilon of its batch norm."""
        self.conv, self.bn = conv, bn


class QuantMaxPool2d(_Declared):
    """Max pooling."""

    def __init__(self, kernel_size: int = 3, stride: int = 2, padding: int = 0) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(kernel_size, stride, padding)


class QuantAveragePool2d(_Declared):
    """Average pooling of codes, truncated."""

    def __init__(self, kernel_size: int = 7, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.final_pool = nn.AvgPool2d(kernel_size, stride, padding)

    def set_param(self, pool: nn.Module) -> None:
        """Take the shape of a float pooling."""
        self.final_pool = pool


class QuantDropout(_Declared):
    """Dropout, which does nothing in evaluation."""

    def __init__(self, p: float = 0) -> None:
        super().__init__()
        self.p = p
