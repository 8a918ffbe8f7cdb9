"""HAWQ's layers for training: integers simulated in float, gradients straight through.

Weights are uniform and symmetric, per tensor or per channel; biases are integers on the scale of
weights times input; activations follow running ranges or percentiles until they are frozen. Batch
norm trains beside the layer first and is folded into its weights later. In eval mode a layer is
always what is exported. Codes are grids with a whole zero point, so that real zeros, with which
convolutions pad, are on them. After Yao et al., *HAWQ-V3* (arXiv:2011.10680).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from hqc.diagnostics import reject
from hqc.frontends.torch import ActQuant, BiasQuant, WeightQuant, quant

MODES = ("symmetric", "asymmetric")


@dataclass(frozen=True)
class Scheme:
    """How a model is quantised, beside its bit widths.

    Attributes:
        per_channel: one scale of the weights per output channel, else one per layer.
        mode: "asymmetric": unsigned codes behind a ReLU, a zero point elsewhere; "symmetric":
            signed codes everywhere, as HAWQ's default has it.
        ranges: "ema", "max" or "percentile", see `hqc.frontends.torch.ActQuant`.
        percentile: of the values, in per cent, that a range by percentile covers.
        momentum: weight of a new batch in a running range (HAWQ's 0.95 is 0.05 here).
        bias_bits: width of the biases.
        power_of_two: round scales up to powers of two.
        fold_after: training steps after which batch norms are folded; None: when frozen.
    """

    per_channel: bool = False
    mode: str = "asymmetric"
    ranges: str = "ema"
    percentile: float = 99.9
    momentum: float = 0.05
    bias_bits: int = 32
    power_of_two: bool = False
    fold_after: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise reject("HQC102", f"mode {self.mode!r}", helps=(f"one of {', '.join(MODES)}",))


class HawqAct(ActQuant):
    """An activation quantiser whose range can be frozen while training goes on.

    Args:
        bits: width of a code.
        scheme: mode and ranges.
        rectified: put a ReLU in front; the codes are then unsigned in asymmetric mode.
        positive: the values have no negative ones among them; codes as for `rectified`.
    """

    def __init__(
        self, bits: int, scheme: Scheme, *, rectified: bool = False, positive: bool = False
    ) -> None:
        unsigned = (rectified or positive) and scheme.mode == "asymmetric"
        symmetric = unsigned or scheme.mode == "symmetric"
        super().__init__(
            bits,
            signed=not unsigned,
            symmetric=symmetric,
            power_of_two=scheme.power_of_two,
            ranges=scheme.ranges,
            percentile=scheme.percentile,
            momentum=scheme.momentum,
        )
        self.rectified = rectified
        self.register_buffer("frozen", torch.zeros((), dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        """The activations on their grid."""
        return super().forward(torch.relu(x) if self.rectified else x)

    def _observe(self, x: Tensor) -> None:
        if not bool(self.frozen):
            super()._observe(x)


class HawqAdd(nn.Module):  # type: ignore[misc]
    """A residual sum: both parts on one grid, so that the sum is one of integers.

    Args:
        bits: width of the codes of each part.
        scheme: mode and ranges; the codes are signed and have no zero point.
    """

    def __init__(self, bits: int, scheme: Scheme) -> None:
        super().__init__()
        self.quant = HawqAct(bits, replace(scheme, mode="symmetric"))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum of both on their grid."""
        quant = self.quant
        if self.training:
            quant._observe(torch.stack([x.detach(), y.detach()], 1).flatten(0, 1))
        grid = quant._current_grid(x)
        return quant._quantise(x, *grid) + quant._quantise(y, *grid)


class HawqLayer(nn.Module):  # type: ignore[misc]
    """What layers with weights share: quantisers, and the batch norm behind, folded in time.

    Args:
        layer: the float layer; its parameters are taken over.
        norm: the batch norm behind the layer, trained beside it until it is folded.
        bits: width of the weights.
        scheme: scales and bias width.
    """

    _kind = ""  # what state dicts call the float layer

    def __init__(
        self,
        layer: nn.Linear | nn.Conv1d | nn.Conv2d,
        norm: nn.BatchNorm1d | nn.BatchNorm2d | None,
        bits: int,
        scheme: Scheme,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.fold_after = scheme.fold_after
        self.weight_quant = WeightQuant(
            bits, per_channel=scheme.per_channel, power_of_two=scheme.power_of_two
        )
        self.bias_quant = BiasQuant(scheme.bias_bits, power_of_two=scheme.power_of_two)
        self.register_buffer("folded", torch.zeros((), dtype=torch.bool))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.add_module(self._kind, layer)

    @property
    def layer(self) -> Any:
        """The float layer, which holds the parameters."""
        return getattr(self, self._kind)

    def apply_to(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What the float layer computes, with other parameters."""
        raise NotImplementedError

    def forward(self, x: Tensor, input_scale: Tensor) -> Tensor:
        """The layer on x, of the float layer's shapes; `input_scale` () is of x's quantiser."""
        if self.training and self.norm is not None and not self._fold_now():
            weight = self.weight_quant(self.layer.weight)
            found: Tensor = self.norm(self.apply_to(x, weight, self.layer.bias))
            return found
        weight, bias = self.folded_parameters()
        scale, zero_point = self.weight_quant.parameters_of(weight)
        weight = self.weight_quant._quantise(weight, scale, zero_point)
        if bias is not None:
            bias = self.bias_quant(bias, scale.detach().reshape(-1) * input_scale.detach())
        return self.apply_to(x, weight, bias)

    def folded_parameters(self) -> tuple[Tensor, Tensor | None]:
        """Float weights (out, ...) and bias (out,), the running statistics folded in."""
        weight, bias = self.layer.weight, self.layer.bias
        norm = self.norm
        if norm is None:
            return weight, bias
        factor = 1.0 / torch.sqrt(norm.running_var + norm.eps)
        shift = -norm.running_mean if bias is None else bias - norm.running_mean
        if norm.affine:
            factor = norm.weight * factor
        shift = shift * factor
        folded = weight * factor.reshape(-1, *(1,) * (weight.dim() - 1))
        return folded, shift + norm.bias if norm.affine else shift

    def _fold_now(self) -> bool:
        if not bool(self.folded) and self.fold_after is not None:
            self.steps += 1
            self.folded |= self.steps > self.fold_after
        return bool(self.folded)


class HawqLinear(HawqLayer):
    """A linear layer with the batch norm behind it, if any: (N, in) to (N, out)."""

    _kind = "linear"

    def apply_to(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """A linear map."""
        return nn.functional.linear(x, weight, bias)


class HawqConv(HawqLayer):
    """A convolution in one or two dimensions with the batch norm behind it, if any.

    Padding is with real zeros, which every grid holds: with the zero point, where there is one.
    """

    _kind = "conv"

    def apply_to(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """A convolution."""
        conv = self.layer
        convolve = nn.functional.conv1d if weight.dim() == 3 else nn.functional.conv2d
        return convolve(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


class HawqAverage(nn.Module):  # type: ignore[misc]
    """The integer mean of codes: the average, rounded down to the grid of what is averaged.

    An average of n codes is a multiple of 1/n. Before the fraction is dropped, a power of two of at
    most 1/(2n) steps is added: no average is rounded to another code for it, and none is so close
    to a whole number that float arithmetic could. As operators: `AveragePool`, `Add`, `Quant` with
    FLOOR. HAWQ's own average adds 0.01 and truncates: the same for codes that are not negative.

    Args:
        pool: the float average.
        bits, signed: of the codes.
    """

    def __init__(self, pool: nn.Module, bits: int, *, signed: bool) -> None:
        super().__init__()
        self.pool, self.bits, self.signed = pool, bits, signed

    def forward(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        """Averages of x, which is on the grid of `scale` () and `zero_point` ()."""
        offset = scale.detach() * 2.0 ** -math.ceil(math.log2(2 * self._count(x)))
        mean = self.pool(x) + offset
        found: Tensor = quant(mean, scale, zero_point, self.bits, self.signed, False, "FLOOR")
        return found

    def _count(self, x: Tensor) -> int:
        """How many codes are averaged, at most."""
        pool = self.pool
        if isinstance(pool, Mean):
            return math.prod(x.shape[dim] for dim in pool.dims)
        if isinstance(pool, nn.AvgPool1d | nn.AvgPool2d):
            size = pool.kernel_size
            sides = size if isinstance(size, tuple | list) else (size,) * (x.dim() - 2)
            return math.prod(sides)
        return math.prod(x.shape[2:])


class Mean(nn.Module):  # type: ignore[misc]
    """`x.mean(dims, keepdim)` as a module; dims without that of the batch."""

    def __init__(self, dims: tuple[int, ...], keepdim: bool) -> None:
        super().__init__()
        self.dims, self.keepdim = dims, keepdim

    def forward(self, x: Tensor) -> Tensor:
        """The mean over the axes."""
        return x.mean(self.dims, self.keepdim)


def freeze(model: nn.Module, *, ranges: bool = True, norms: bool = True) -> None:
    """Fix activation ranges and fold batch norms, for the rest of the training."""
    _set(model, ranges, norms, True)


def unfreeze(model: nn.Module, *, ranges: bool = True, norms: bool = True) -> None:
    """Let activation ranges follow the data again, and batch norms train beside their layers."""
    _set(model, ranges, norms, False)


def _set(model: nn.Module, ranges: bool, norms: bool, value: bool) -> None:
    chosen: tuple[tuple[bool, Any, str], ...] = (
        (ranges, HawqAct, "frozen"),
        (norms, HawqLayer, "folded"),
    )
    for module in model.modules():
        for wanted, kind, flag in chosen:
            if wanted and isinstance(module, kind):
                getattr(module, flag).fill_(value)
