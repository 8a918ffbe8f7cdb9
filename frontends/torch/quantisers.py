"""Quantisers for training in PyTorch: of weights, of biases, and of activations.

Grids are found from ranges or learned; gradients pass straight through
(`hqc.frontends.torch.quant_operator`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from hqc.diagnostics import reject
from hqc.frontends.torch.quant_operator import code_limits, power_of_two_at_least, quant
from hqc.numerics.types import Rounding

#: How an activation quantiser finds its range.
RANGES = ("ema", "max", "percentile", "learned")
#: Percentiles look at no more values than this of a batch, evenly spread.
_PERCENTILE_VALUES = 1 << 20


class _Quantiser(nn.Module):  # type: ignore[misc]
    """What all quantisers share: the code range, the rounding, and scales from real ranges."""

    def __init__(
        self,
        bits: int,
        *,
        signed: bool,
        symmetric: bool,
        narrow: bool,
        power_of_two: bool,
        rounding: str,
    ) -> None:
        super().__init__()
        if not 1 <= bits <= 32:
            raise reject("HQC107", f"bit width {bits} is not between 1 and 32")
        if rounding not in Rounding.__members__:
            known = ", ".join(Rounding.__members__)
            raise reject(
                "HQC102", f"unknown rounding mode {rounding!r}", helps=(f"one of {known}",)
            )
        self.bits, self.signed, self.symmetric = bits, signed, symmetric
        self.narrow, self.power_of_two, self.rounding = narrow, power_of_two, rounding
        self.limits = code_limits(bits, signed, narrow)

    def extra_repr(self) -> str:
        """The options, for `print(module)`."""
        kind = "signed" if self.signed else "unsigned"
        step = ", power of two" if self.power_of_two else ""
        return f"bits={self.bits}, {kind}{'' if self.symmetric else ', asymmetric'}{step}"

    def _grid(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point whose grid spans low..high; 1 and 0 where the range is empty."""
        code_lo, code_hi = self.limits
        low, high = low.clamp(max=0.0), high.clamp(min=0.0)
        if self.symmetric:
            top = torch.maximum(-low, high) if self.signed else high
            scale = top / code_hi
        else:
            scale = (high - low) / (code_hi - code_lo)
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        if self.power_of_two:
            scale = power_of_two_at_least(scale)
        if self.symmetric:
            return scale, torch.zeros_like(scale)
        zero_point = torch.round(code_lo - low / scale).clamp(code_lo, code_hi)
        return scale, zero_point.detach()

    def _quantise(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        found: Tensor = quant(
            x, scale, zero_point, self.bits, self.signed, self.narrow, self.rounding
        )
        return found


class WeightQuant(_Quantiser):
    """Quantises weights on a grid that spans their largest magnitude, or on a learned scale.

    Args:
        bits: width of a code; 1 is bipolar (plus or minus the mean magnitude).
        per_channel: one scale per output channel, else one for the tensor.
        power_of_two: round scales up to powers of two.
        symmetric: zero point 0; else the grid spans minimum to maximum with a zero point.
        narrow: leave out the lowest signed code, so that the grid is symmetric.
        signed: whether codes are signed; unsigned codes need `symmetric=False`.
        rounding: a QONNX rounding mode.
        learned: train the scale; `reset` sets it from a weight tensor first.
        axis: of the output channels; 1 for the weights of transposed convolutions.
    """

    def __init__(
        self,
        bits: int = 6,
        *,
        per_channel: bool = False,
        power_of_two: bool = False,
        symmetric: bool = True,
        narrow: bool = True,
        signed: bool = True,
        rounding: str = "ROUND",
        learned: bool = False,
        axis: int = 0,
    ) -> None:
        super().__init__(
            bits,
            signed=signed,
            symmetric=symmetric,
            narrow=narrow and bits > 1,
            power_of_two=power_of_two,
            rounding=rounding,
        )
        if symmetric and not signed:
            raise reject("HQC102", "unsigned weights need symmetric=False")
        self.per_channel, self.learned, self.axis = per_channel, learned, axis
        if learned:
            self.raw_scale = nn.UninitializedParameter()
            self.register_buffer("zero_point", torch.zeros(()))

    def reset(self, weight: Tensor) -> None:
        """Set a learned scale from the range of a weight tensor (out, ...)."""
        scale, zero_point = self._from_range(weight.detach())
        self.raw_scale = nn.Parameter(scale.clone())
        self.zero_point = zero_point.clone()

    def parameters_of(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point for a weight tensor (out, ...), broadcastable against it."""
        if not self.learned:
            return self._from_range(weight)
        scale = self.raw_scale.abs()
        return (power_of_two_at_least(scale) if self.power_of_two else scale), self.zero_point

    def forward(self, weight: Tensor) -> Tensor:
        """The weights on their grid, as floats."""
        return self._quantise(weight, *self.parameters_of(weight))

    def _from_range(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        weight = weight.detach()
        kept = (self.axis,) if self.per_channel else ()
        axes = [axis for axis in range(weight.dim()) if axis not in kept]
        if self.bits == 1 and self.signed:
            top = weight.abs().mean(dim=axes, keepdim=self.per_channel)
            return self._grid(-top, top)
        keep = self.per_channel
        return self._grid(weight.amin(dim=axes, keepdim=keep), weight.amax(dim=axes, keepdim=keep))


class BiasQuant(_Quantiser):
    """Quantises a bias at a scale that is given, or that spans its largest magnitude.

    Args:
        bits: width of a code.
        scale: the given scale; None takes the one handed to `forward` (HAWQ's convention: the
            scale of the weights times the scale of the input), else the range of the bias.
        power_of_two: round scales up to powers of two; a given `scale` is taken as it is.
    """

    def __init__(
        self, bits: int = 16, *, scale: float | None = None, power_of_two: bool = False
    ) -> None:
        super().__init__(
            bits,
            signed=True,
            symmetric=True,
            narrow=False,
            power_of_two=power_of_two,
            rounding="ROUND",
        )
        if scale is not None and not (math.isfinite(scale) and scale > 0):
            raise reject("HQC106", f"bias scale {scale} is not positive and finite")
        self.register_buffer("scale", None if scale is None else torch.tensor(scale))

    def forward(self, bias: Tensor, scale: Tensor | None = None) -> Tensor:
        """The bias on its grid; `scale`, () or (out,), is used where none was given."""
        if self.scale is not None:
            scale = self.scale
        elif scale is None:
            scale, _ = self._grid(bias.detach().amin(), bias.detach().amax())
        elif self.power_of_two:
            scale = power_of_two_at_least(scale)
        return self._quantise(bias, scale, torch.zeros_like(scale))


class ActQuant(_Quantiser):
    """Quantises activations on a grid found from data in training mode and frozen in eval mode.

    Args:
        bits: width of a code.
        signed, symmetric, narrow: the range of codes; `symmetric=False` adds a zero point.
        power_of_two: round scales up to powers of two (the cheapest hardware).
        rounding: a QONNX rounding mode.
        ranges: "ema" follows the range of each batch with `momentum`; "max" keeps the largest
            seen; "percentile" is "ema" on the central `percentile` per cent of the values;
            "learned" starts from the first batch and trains the scale by gradient.
        channels: number of channels (axis 1) for a scale each, or None for one scale.
    """

    def __init__(
        self,
        bits: int = 6,
        *,
        signed: bool = True,
        symmetric: bool = True,
        narrow: bool = False,
        power_of_two: bool = False,
        rounding: str = "ROUND",
        ranges: str = "ema",
        momentum: float = 0.1,
        percentile: float = 99.9,
        channels: int | None = None,
    ) -> None:
        super().__init__(
            bits,
            signed=signed,
            symmetric=symmetric,
            narrow=narrow,
            power_of_two=power_of_two,
            rounding=rounding,
        )
        if ranges not in RANGES:
            helps = (f"one of {', '.join(RANGES)}",)
            raise reject("HQC102", f"unknown ranges {ranges!r}", helps=helps)
        self.ranges, self.momentum, self.percentile = ranges, momentum, percentile
        self.channels = channels
        shape = (channels,) if channels else ()
        for name in ("low", "high", "scale", "zero_point"):
            self.register_buffer(name, torch.full(shape, math.nan))
        if ranges == "learned":
            self.raw_scale = nn.Parameter(torch.full(shape, math.nan))

    @property
    def calibrated(self) -> bool:
        """Whether the quantiser has seen data, or was given a range."""
        return not bool(self.scale.isnan().any())

    def set_range(self, low: float | Tensor, high: float | Tensor) -> None:
        """Fix the range by hand; the grid spans it."""
        self._take(torch.as_tensor(low).to(self.low), torch.as_tensor(high).to(self.high))

    def forward(self, x: Tensor) -> Tensor:
        """The activations on their grid.

        Raises:
            HqcError: HQC106, eval mode before the quantiser has seen any data.
        """
        if self.training:
            self._observe(x.detach())
        elif not torch.compiler.is_exporting() and not self.calibrated:
            raise reject(
                "HQC106",
                f"{type(self).__name__} has seen no data: its scale is not known",
                helps=("run a few batches in training mode first, or call set_range",),
            )
        return self._quantise(x, *self._current_grid(x))

    def _current_grid(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scale, zero_point = self.scale, self.zero_point
        if self.ranges == "learned":
            scale = self.raw_scale.abs()
            if self.training and scale.requires_grad:
                factor = 1.0 / math.sqrt(max(1, x.numel() // max(1, x.shape[0])) * self.limits[1])
                scale.register_hook(lambda grad: grad * factor)
            if self.power_of_two:
                scale = power_of_two_at_least(scale)
        if self.channels and x.dim() > 2:
            shape = (-1, *(1 for _ in range(x.dim() - 2)))
            scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
        return scale, zero_point

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _observe(self, x: Tensor) -> None:
        if self.ranges == "learned" and self.calibrated:
            return
        low, high = self._range_of(x)
        if self.calibrated:
            if self.ranges == "max":
                low, high = torch.minimum(low, self.low), torch.maximum(high, self.high)
            else:
                low = self.low + self.momentum * (low - self.low)
                high = self.high + self.momentum * (high - self.high)
        self._take(low, high)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _take(self, low: Tensor, high: Tensor) -> None:
        scale, zero_point = self._grid(low, high)
        state = {"low": low, "high": high, "scale": scale, "zero_point": zero_point}
        for name, found in state.items():
            getattr(self, name).copy_(found)
        if self.ranges == "learned":
            self.raw_scale.copy_(scale)

    def _range_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = x.movedim(1, 0).flatten(1) if self.channels else x.reshape(1, -1)
        if self.ranges == "percentile":
            values = values[:, :: max(1, values.shape[1] // _PERCENTILE_VALUES)].float()
            tail = (1.0 - self.percentile / 100.0) / 2
            low, high = torch.quantile(values, tail, dim=1), torch.quantile(values, 1 - tail, dim=1)
        else:
            low, high = values.amin(dim=1), values.amax(dim=1)
        return (low, high) if self.channels else (low[0], high[0])


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
