"""The operator `hqc::quant`: one quantiser, one node in a `torch.export` graph.

Its forward is QONNX's `Quant`, step by step in the dtype of the input (divide by the scale, add
the zero point, clamp, round, subtract the zero point, multiply by the scale), so an executor of the
exported graph gets the same float numbers. Its gradient is the straight-through estimator with
clipping (Bengio et al., arXiv:1308.3432); the gradient of the scale is the one of learned step
sizes (Esser et al., arXiv:1902.08153).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hqc.numerics.types import Rounding

#: Rounding modes that PyTorch has itself.
_PLAIN: dict[Rounding, Callable[[Tensor], Tensor]] = {
    Rounding.ROUND: torch.round,
    Rounding.FLOOR: torch.floor,
    Rounding.CEIL: torch.ceil,
    Rounding.DOWN: torch.trunc,
}


def code_limits(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    """Lowest and highest code; one signed bit is bipolar, as in QONNX."""
    if signed and bits == 1:
        return -1, 1
    if signed:
        hi = (1 << (bits - 1)) - 1
        return (-hi if narrow else -hi - 1), hi
    return 0, (1 << bits) - (2 if narrow else 1)


def round_codes(codes: Tensor, rounding: str) -> Tensor:
    """Round to whole codes by the QONNX mode `rounding`.

    Raises:
        ValueError: the mode is not one of `hqc.numerics.types.Rounding`.
    """
    mode = Rounding(rounding)
    if (plain := _PLAIN.get(mode)) is not None:
        return plain(codes)
    size = codes.abs()
    if mode is Rounding.UP:
        return codes.sign() * size.ceil()
    if mode is Rounding.HALF_UP:
        return codes.sign() * (size + 0.5).floor()
    return codes.sign() * (size - 0.5).ceil()


def power_of_two_at_least(scale: Tensor) -> Tensor:
    """The smallest power of two not below each element, exactly; gradients pass straight through.

    `x = m * 2**e` with m in [0.5, 1) gives `x / m`, which is a float without rounding error.
    """
    mantissa, _ = torch.frexp(scale.detach())
    power = torch.where(mantissa == 0.5, scale.detach(), scale.detach() / mantissa)
    return power + (scale - scale.detach()) if scale.requires_grad else power


@torch.library.custom_op(  # type: ignore[untyped-decorator]
    "hqc::quant",
    mutates_args=(),
    schema=(
        "(Tensor x, Tensor scale, Tensor zero_point, int bits, bool signed, bool narrow, "
        "str rounding) -> Tensor"
    ),
)
def quant(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    bits: int,
    signed: bool,
    narrow: bool,
    rounding: str,
) -> Tensor:
    """Put `x` on the grid `scale * (code - zero_point)`.

    Args:
        x: float tensor of any shape.
        scale: positive, of shape () or broadcastable against `x`.
        zero_point: whole numbers, same shapes allowed.
        bits, signed, narrow: the range of codes.
        rounding: a QONNX rounding mode; ROUND is to nearest, ties to even.
    """
    codes = x / scale + zero_point
    if signed and bits == 1:
        codes = torch.where(codes >= 0, torch.ones_like(codes), -torch.ones_like(codes))
    else:
        codes = round_codes(codes.clamp(*code_limits(bits, signed, narrow)), rounding)
    return (codes - zero_point) * scale


@quant.register_fake  # type: ignore[untyped-decorator]
def _fake(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, zero_point, bits, signed, narrow, _ = inputs
    ctx.save_for_backward(x, scale, zero_point, output)
    ctx.limits = code_limits(bits, signed, narrow)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, scale, zero_point, output = ctx.saved_tensors
    lo, hi = ctx.limits
    steps = x / scale
    inside = (steps + zero_point >= lo) & (steps + zero_point <= hi)
    grad_x = grad * inside if ctx.needs_input_grad[0] else None
    grad_scale = grad_zero = None
    if ctx.needs_input_grad[1]:
        slope = output / scale - torch.where(inside, steps, torch.zeros_like(steps))
        grad_scale = (grad * slope).sum_to_size(scale.shape)
    if ctx.needs_input_grad[2]:
        grad_zero = (-grad * scale * ~inside).sum_to_size(zero_point.shape)
    return grad_x, grad_scale, grad_zero, None, None, None, None


quant.register_autograd(_backward, setup_context=_setup_context)
