"""Constants of an integer graph as codes, exactly, in the forms that hardware layers take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from onnx_ir import Value

from hqc.backends.layers.layers import CONSTANT_BITS, Constant
from hqc.backends.layers.layout import spread
from hqc.diagnostics import Diagnostic, Location
from hqc.ir import Array, constant, type_of
from hqc.numerics.types import Codes, FixedType, Range


class Illegal(Exception):
    """One node (or port) that has no layer."""

    def __init__(self, message: str, notes: Sequence[str] = (), helps: Sequence[str] = ()):
        super().__init__(message)
        self.message, self.notes, self.helps = message, tuple(notes), tuple(helps)

    def diagnostic(self, where: Location) -> Diagnostic:
        """The message, at a place."""
        return Diagnostic("HQC401", self.message, where, self.notes, self.helps)


def read_constant(value: Value | None, what: str) -> Constant:
    """A constant as codes of its annotated type, or of the narrowest one that holds it."""
    array = constant(value)
    if array is None or value is None:
        raise Illegal(f"{what} is not a constant")
    if not np.all(np.isfinite(array)):
        raise Illegal(f"{what} is not finite")
    type_ = type_of(value) or _narrowest(array)
    codes = np.ldexp(array.astype(np.float64), type_.fraction)
    limits = type_.limits
    if np.any(codes != np.rint(codes)) or np.any((codes < limits.lo) | (codes > limits.hi)):
        raise Illegal(f"{what} {value.name} is not on the grid of its type {type_}")
    found = codes.astype(np.int64)
    if int(np.max(np.abs(found), initial=0)).bit_length() > CONSTANT_BITS:
        raise Illegal(
            f"{what} {value.name} needs more than {CONSTANT_BITS} bits",
            notes=("its decimal literal would be rounded by the C++ compiler",),
        )
    return Constant(found, type_.exact())


def _narrowest(array: Array) -> FixedType:
    fraction = 0
    for value in np.abs(np.unique(array.astype(np.float64))):
        denominator = float(value).as_integer_ratio()[1]
        fraction = max(fraction, denominator.bit_length() - 1)
    codes = np.ldexp(array.astype(np.float64), fraction)
    return Range(int(codes.min()), int(codes.max()), -fraction).fit()


def bias_codes(bias: Constant, channels: int, shape: tuple[int, ...]) -> Constant | None:
    """A bias that broadcasts against (N, *shape) as one element per channel, None if it varies."""
    grouped = _elements(bias.codes, shape).reshape(-1, channels)
    if np.any(grouped != grouped[0]):
        return None
    return replace(bias, codes=np.ascontiguousarray(grouped[0]))


def together(scale: Constant, bias: Constant, shape: tuple[int, ...]) -> tuple[Constant, Constant]:
    """Scale and offset in hardware order, both with as few elements as say all: one, one per
    channel, or one per element of (N, *shape)."""
    if scale.codes.size == 1 and bias.codes.size == 1:
        flat = [scale.codes.reshape(1), bias.codes.reshape(1)]
    else:
        flat = [_elements(c.codes, shape) for c in (scale, bias)]
        rows = [codes.reshape(-1, shape[0]) for codes in flat]
        if all(np.all(codes == codes[0]) for codes in rows):
            flat = [codes[0] for codes in rows]
    held = [np.ascontiguousarray(codes) for codes in flat]
    return replace(scale, codes=held[0]), replace(bias, codes=held[1])


def _elements(codes: Codes, shape: tuple[int, ...]) -> Codes:
    """One entry per element, in hardware order, of a constant that broadcasts against samples."""
    try:
        return spread(codes, shape)
    except ValueError as error:
        raise Illegal(f"a constant of shape {codes.shape} against elements {shape}") from error


def threshold_codes(thresholds: Array, type_: FixedType) -> Codes:
    """Thresholds as codes on x's grid: x >= t exactly when code(x) >= ceil(t / step).

    A threshold that no x reaches becomes one code above the highest, one that every x reaches the
    lowest code, so that infinities are legal.
    """
    limits = type_.limits
    if type_.width > CONSTANT_BITS:
        raise Illegal(f"thresholds on {type_}: wider than {CONSTANT_BITS} bits")
    codes = np.ceil(np.ldexp(thresholds.astype(np.float64), type_.fraction))
    return np.clip(codes, limits.lo, limits.hi + 1).astype(np.int64)


def c_name(text: str) -> str:
    """A name that C++ accepts after a letter, readable and ASCII."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in text).strip("_") or "x"
