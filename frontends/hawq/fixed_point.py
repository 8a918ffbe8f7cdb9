"""The arithmetic of HAWQ's modules in evaluation, float step by float step.

HAWQ simulates integers in float32 and float64; which codes come out is decided by the order of its
roundings. The functions here do the same operations in the same precisions, so that their codes
are HAWQ's, ties included. Facts after Yao et al., *HAWQ-V3: Dyadic Neural Network Quantization*
(arXiv:2011.10680), and its published code. Scales are float32 arrays, () or (C,).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from hqc.numerics.types import Codes

Single = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

#: Bits of the mantissa of a dyadic multiplier.
MANTISSA_BITS = 31
#: The range of a scale never spans less than this.
_SMALLEST_SPAN = np.float32(1e-8)
#: HAWQ adds this before it truncates an average.
AVERAGE_EPSILON = np.float32(0.01)


def code_limits(bits: int, *, signed: bool) -> tuple[int, int]:
    """Lowest and highest code."""
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def symmetric_scale(bits: int, low: Array, high: Array) -> Single:
    """The scale whose signed codes span the larger magnitude of a range."""
    top = np.maximum(np.abs(_single(low)), np.abs(_single(high)))
    return _single(np.maximum(top, _SMALLEST_SPAN) / np.float32((1 << (bits - 1)) - 1))


def asymmetric_scale(bits: int, low: Array, high: Array) -> Single:
    """The scale whose unsigned codes span a range; codes stay without a zero point."""
    span = np.maximum(_single(high) - _single(low), _SMALLEST_SPAN)
    return _single(span / np.float32((1 << bits) - 1))


def reciprocal(scale: Single) -> Single:
    """What HAWQ multiplies with to divide by a scale."""
    return _single(np.float32(1.0) / scale)


def quantise(x: Array, scale: Single, limits: tuple[int, int]) -> Codes:
    """Codes of reals: a float32 product with the reciprocal, to the nearest, ties to even."""
    scaled = _single(x) * reciprocal(scale)
    return np.asarray(np.clip(np.rint(scaled), *limits), np.int64)


def dyadic(ratio: Double) -> tuple[Codes, Codes]:
    """(m, e) with `m / 2**e` nearest to positive ratios, halves up, m of 31 bits; same shape."""
    mantissa, exponent = np.frexp(ratio)
    scaled = [Fraction(float(m)) * 2**MANTISSA_BITS for m in mantissa.ravel()]
    whole = [int(s + Fraction(1, 2)) for s in scaled]  # positive: int() is floor
    return np.array(whole, np.int64).reshape(ratio.shape), MANTISSA_BITS - exponent.astype(np.int64)


def scale_ratio(pre: Single, weight: Single, to: Single) -> Double:
    """Scale of the accumulator over scale of the output, the accumulator's rounded to float32."""
    product = pre.astype(np.float64) * weight.astype(np.float64)
    return np.asarray(_single(product).astype(np.float64) / to.astype(np.float64))


def accumulator_codes(z: Single, pre: Single, weight: Single) -> Double:
    """Whole numbers that a float activation is taken for, before the dyadic product.

    Without the weights' scale (`weight` 1) these are in units of the input's scale: a rounding of
    its own, coarser than the accumulator.
    """
    steps = _single(_single(z / pre) / weight)
    return np.rint(steps).astype(np.float64)


def rescale(whole: Double, pre: Single, weight: Single, to: Single) -> Double:
    """Whole numbers times m / 2**e, to the nearest, ties to even, in float64."""
    m, e = dyadic(scale_ratio(pre, weight, to))
    return np.asarray(np.rint(whole * m.astype(np.float64) / np.exp2(e.astype(np.float64))))


def requantise(
    z: Single, pre: Single, weight: Single, to: Single, limits: tuple[int, int]
) -> Codes:
    """Codes of a float activation on the grid `to`; scales broadcast against z."""
    whole = accumulator_codes(z, pre, weight)
    return np.asarray(np.clip(rescale(whole, pre, weight, to), *limits), np.int64)


def requantise_sum(
    z: Single,
    identity: Single,
    scales: tuple[Single, Single],
    identity_scales: tuple[Single, Single],
    to: Single,
) -> Codes:
    """Codes of a residual sum z, of which `identity` is one part; each part rounds, none clamps."""
    other = accumulator_codes(identity, *identity_scales)
    main = accumulator_codes(_single(z - identity), *scales)
    return np.asarray(rescale(other, *identity_scales, to) + rescale(main, *scales, to), np.int64)


def average(codes: Double) -> Codes:
    """Averages of codes, truncated after a small addition."""
    return np.asarray(np.trunc(_single(codes) + AVERAGE_EPSILON), np.int64)


def _single(x: Array | np.float32) -> Single:
    return np.asarray(x, np.float32)
