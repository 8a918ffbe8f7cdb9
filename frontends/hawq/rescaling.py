"""HAWQ's requantisation of an accumulator, as multiplications and roundings without float error.

From accumulator to code HAWQ takes half a dozen float operations. Together they are a monotone
function of an integer with a known range, so its code boundaries are found by bisection, and any
other form is the same function if and only if it agrees on both sides of each boundary. Forms are
tried from the plainest: the dyadic product m / 2**e that HAWQ means; with the rounding to the
input's scale in front that it does where it is not told the weights' scale; a dyadic product
fitted to the boundaries; the boundaries themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from hqc.analysis.dyadic_requantiser import smallest_dyadic
from hqc.analysis.step_functions import NEVER, Quantiser, StepFunction, step_function
from hqc.frontends.hawq import fixed_point as fp
from hqc.frontends.hawq.fixed_point import Double, Single
from hqc.ir.operators import exact
from hqc.numerics.monotone_chain import Affine, Chain
from hqc.numerics.types import Codes, Rounding

#: From accumulators (N, C) to codes (N, C), monotone in each channel.
Meaning = Callable[[Codes], Codes]

#: Widest whole numbers between two roundings; the compiler enumerates their boundaries.
MAX_BITS = 16
#: More boundaries per channel than this are no hardware.
MAX_THRESHOLDS = 1024


@dataclass(frozen=True)
class Stage:
    """n -> clamp(round(factor * n + offset)), codes of `bits` bits; factors (C,) or (1,)."""

    factor: Double
    offset: Double
    bits: int
    signed: bool
    rounding: Rounding = Rounding.ROUND

    def function(self) -> StepFunction:
        """The stage as integer thresholds."""
        affine = Affine(tuple(exact(self.factor)), tuple(exact(self.offset)))
        lo, hi = fp.code_limits(self.bits, signed=self.signed)
        quantiser = Quantiser((Fraction(1),), (0,), lo, hi, self.rounding)
        return step_function(Chain().then(affine), quantiser, max(len(affine.a), len(affine.b)))


@dataclass(frozen=True)
class Thresholds:
    """n -> lo + #{k: n >= thresholds[c, k]}."""

    thresholds: Codes
    lo: int


Form = tuple[Stage, ...] | Thresholds


@dataclass(frozen=True)
class Ratio:
    """What HAWQ knows at a requantisation: float32 scales (1,) or (C,).

    Attributes:
        unit: of the accumulator, as the layer multiplies it.
        pre, weight: as the activation is told.
        to: of the activation.
    """

    unit: Single
    pre: Single
    weight: Single
    to: Single

    @property
    def multiplier(self) -> Double:
        """m / 2**e, which float64 holds exactly."""
        m, e = fp.dyadic(fp.scale_ratio(self.pre, self.weight, self.to))
        return np.asarray(np.ldexp(m.astype(np.float64), -e))

    @property
    def steps(self) -> Double:
        """Whole numbers before the product, per step of the accumulator."""
        told = self.pre.astype(np.float64) * self.weight.astype(np.float64)
        return np.asarray(self.unit.astype(np.float64) / told)


def boundaries(meaning: Meaning, lo: Codes, hi: Codes, limits: tuple[int, int]) -> StepFunction:
    """The step function of a meaning over lo <= n <= hi (C,): the least n of each code."""
    codes = np.arange(limits[0] + 1, limits[1] + 1, dtype=np.int64)[:, None]
    below = np.broadcast_to(lo - 1, (len(codes), len(lo))).copy()
    reached = np.broadcast_to(hi + 1, below.shape).copy()
    while np.any(reached - below > 1):
        middle = (below + reached) // 2
        passes = meaning(np.clip(middle, lo, hi)) >= codes
        inside = reached - below > 1
        reached = np.where(inside & passes, middle, reached)
        below = np.where(inside & ~passes, middle, below)
    thresholds = np.where(reached > hi, NEVER, reached).T
    return StepFunction(limits[0], np.ones(len(lo), np.int64), np.ascontiguousarray(thresholds))


def agrees(stages: tuple[Stage, ...], f: StepFunction, lo: Codes, hi: Codes) -> bool:
    """Whether stages give the codes of `f` for every lo <= n <= hi, both being monotone."""
    inside = np.clip(f.thresholds, lo[:, None], hi[:, None]).T
    points = np.concatenate([inside, np.maximum(inside - 1, lo), lo[None], hi[None]])
    found = points
    for stage in stages:
        found = stage.function()(found)
    return np.array_equal(found, f(points))


def find(
    ratio: Ratio, meaning: Meaning, lo: Codes, hi: Codes, bits: int, *, signed: bool
) -> Form | None:
    """The plainest form that is HAWQ's for every accumulator lo <= n <= hi, or None.

    Args:
        ratio: the scales.
        meaning: HAWQ's own arithmetic.
        lo, hi: reachable accumulators, (C,), or (1,) where all channels have the same scales.
        bits, signed: of the codes.
    """
    f = boundaries(meaning, lo, hi, fp.code_limits(bits, signed=signed))
    for stages in _stages(ratio, f, lo, hi, bits, signed):
        if agrees(stages, f, lo, hi):
            return stages
    if f.hi - f.lo > MAX_THRESHOLDS:
        return None
    return Thresholds(f.thresholds, f.lo)


def _stages(
    ratio: Ratio, f: StepFunction, lo: Codes, hi: Codes, bits: int, signed: bool
) -> Iterator[tuple[Stage, ...]]:
    none = np.zeros(1)
    last = Stage(ratio.multiplier, none, bits, signed)
    steps = ratio.steps
    if np.all(np.abs(steps - 1) < 2.0**-20):
        yield (last,)
    top = int(np.ceil(np.max(np.maximum(np.abs(lo), np.abs(hi)) * steps))) + 1
    low_signed = bool(np.any(lo < 0))
    wide = top.bit_length() + low_signed
    if wide <= MAX_BITS:
        yield Stage(steps, none, wide, low_signed), last
    fitted = smallest_dyadic(f, lo, hi, Rounding.ROUND)
    if fitted is not None:
        factor = np.ldexp(fitted.multiplier.astype(np.float64), -fitted.shift)
        offset = np.ldexp(fitted.offset.astype(np.float64), -fitted.shift)
        yield (Stage(factor, offset, bits, signed, fitted.rounding),)
