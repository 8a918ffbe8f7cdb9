"""Quantisers as code boundaries, and what they make of a chain: step functions of integers.

A chain before a quantiser is a monotone step function, so it is fully described by one integer
threshold per code. Nothing here is ever rounded.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hqc.ir.operators import MultiThreshold, Quant, exact
from hqc.numerics.activations import Rectifier
from hqc.numerics.bounds import Bound
from hqc.numerics.monotone_chain import Affine, Chain
from hqc.numerics.types import INT64_BITS, Codes, Rounding

#: Thresholds that no value reaches, or that every value passes.
NEVER, ALWAYS = np.int64(2**62), np.int64(-(2**62))


@dataclass(frozen=True)
class Quantiser:
    """A quantiser as code boundaries: per-channel scale and zero point, code limits, rounding.

    `bipolar` quantisers have the codes 0 and 1 for (-1 - zero point) and (1 - zero point) steps.
    """

    scale: tuple[Fraction, ...]
    zero_point: tuple[int, ...]
    lo: int
    hi: int
    rounding: Rounding
    bipolar: bool = False

    @classmethod
    def of(cls, quant: Quant) -> Quantiser:
        """From a Quant view; scale and zero point are scalar or per channel (axis 1)."""
        zero_point = tuple(int(z) for z in quant.zero_point.ravel())
        if quant.is_bipolar:
            return cls(tuple(exact(quant.scale)), zero_point, 0, 1, Rounding.FLOOR, True)
        lo, hi = quant.code_limits
        return cls(tuple(exact(quant.scale)), zero_point, lo, hi, quant.rounding)

    @property
    def channels(self) -> int:
        """How many channels are told apart."""
        return max(len(self.scale), len(self.zero_point))

    def picked(self, channel: int) -> tuple[Fraction, int]:
        """A channel's scale and zero point: where both are equal, so are the boundaries."""
        scale = self.scale[channel if len(self.scale) > 1 else 0]
        return scale, self.zero_point[channel if len(self.zero_point) > 1 else 0]

    def grid(self) -> Affine:
        """From codes to real values."""
        grids = [self.picked(c) for c in range(self.channels)]
        if self.bipolar:  # the zero point moves the values -1 and 1 as it does other codes
            return Affine(tuple(2 * s for s, _ in grids), tuple(-s * (1 + z) for s, z in grids))
        return Affine(tuple(s for s, _ in grids), tuple(-s * z for s, z in grids))

    @property
    def bends(self) -> bool:
        """Whether the boundaries are not one scale apart everywhere."""
        return self.bipolar or self.rounding in (Rounding.DOWN, Rounding.UP)

    @cached_property
    def inclusive_codes(self) -> tuple[bool, ...]:
        """Whether the boundary of a code itself rounds up to it, for each code but the lowest."""
        boundary = _BOUNDARY[self.rounding]
        return tuple(boundary(code)[1] for code in range(self.lo + 1, self.hi + 1))

    def bound(self, code: int, channel: int) -> Bound:
        """The values whose code is at least `code`."""
        scale, zero = self.picked(channel)
        if self.bipolar:
            return Bound(-zero * scale, inclusive=True)
        offset, inclusive = _BOUNDARY[self.rounding](code)
        return Bound((code + offset - zero) * scale, inclusive)


_HERE, _HALF_BELOW, _ONE_BELOW = Fraction(0), Fraction(-1, 2), Fraction(-1)

#: By rounding mode: (boundary of code k) - k, and whether the boundary itself rounds up to k.
_BOUNDARY: dict[Rounding, Callable[[int], tuple[Fraction, bool]]] = {
    Rounding.ROUND: lambda k: (_HALF_BELOW, k % 2 == 0),
    Rounding.HALF_UP: lambda k: (_HALF_BELOW, k > 0),
    Rounding.HALF_DOWN: lambda k: (_HALF_BELOW, k <= 0),
    Rounding.FLOOR: lambda k: (_HERE, True),
    Rounding.CEIL: lambda k: (_ONE_BELOW, False),
    Rounding.DOWN: lambda k: (_HERE, True) if k > 0 else (_ONE_BELOW, False),
    Rounding.UP: lambda k: (_ONE_BELOW, False) if k > 0 else (_HERE, True),
}


@dataclass(frozen=True)
class Thresholds:
    """Explicit thresholds as code boundaries: the count of thresholds that are reached, plus `lo`.

    Attributes:
        rows: per channel (or one for all), ascending.
        lo: the code below the first threshold.
    """

    rows: tuple[tuple[Fraction, ...], ...]
    lo: int

    @classmethod
    def of(cls, view: MultiThreshold) -> Thresholds:
        """From a MultiThreshold view, whose counts are the codes."""
        return cls(tuple(tuple(exact(row)) for row in view.thresholds), 0)

    @property
    def hi(self) -> int:
        """Highest code."""
        return self.lo + len(self.rows[0])

    @property
    def channels(self) -> int:
        """How many channels are told apart."""
        return len(self.rows)

    def picked(self, channel: int) -> tuple[Fraction, ...]:
        """What is a channel's own: channels for which it is equal have the same boundaries."""
        return self.rows[channel if len(self.rows) > 1 else 0]

    def bound(self, code: int, channel: int) -> Bound:
        """The values whose code is at least `code`."""
        return Bound(self.picked(channel)[code - self.lo - 1], inclusive=True)


#: What turns a real value into a code.
Coder = Quantiser | Thresholds


@dataclass(frozen=True)
class StepFunction:
    """A monotone map from integers to codes, per channel.

    code(n) = lo + #{k : sign[c] * n >= thresholds[c, k]}, thresholds ascending along k.

    Attributes:
        lo: lowest code.
        sign: (C,) +1 where codes grow with n, -1 where they fall.
        thresholds: int64 (C, K), `ALWAYS` and `NEVER` where n does not decide.
    """

    lo: int
    sign: Codes
    thresholds: Codes

    @property
    def hi(self) -> int:
        """Highest code."""
        return self.lo + int(self.thresholds.shape[1])

    def __call__(self, n: Codes) -> Codes:
        """Codes of an int64 array (N, C, ...); C may be anything if the function has one channel.

        Channels stand on axis 1 (axis 0 of one-dimensional arrays has no channels).
        """
        if len(self.sign) == 1:
            count = np.searchsorted(self.thresholds[0], self.sign[0] * n, side="right")
            return np.asarray(self.lo + count, np.int64)
        out = np.empty_like(n)
        for c in range(n.shape[1]):
            column = self.sign[c] * n[:, c]
            out[:, c] = self.lo + np.searchsorted(self.thresholds[c], column, side="right")
        return out


def step_function(chain: Chain, quantiser: Coder, channels: int) -> StepFunction:
    """The step function of a chain over integers followed by a quantiser.

    Args:
        chain: from the integer n to the quantiser's input; every channel's map.
        quantiser: what follows.
        channels: number of channels to tell apart (1 if neither side has several).
    """
    found: dict[Hashable, tuple[int, Sequence[int] | Codes]] = {}
    kinds = [(chain.picked((c,)), quantiser.picked(c)) for c in range(channels)]
    for c, kind in enumerate(kinds):  # most channels are scaled alike
        if kind not in found:
            found[kind] = _thresholds(chain, quantiser, c)
    signs, rows = zip(*(found[kind] for kind in kinds), strict=True)
    return StepFunction(quantiser.lo, np.array(signs, np.int64), np.array(rows, np.int64))


def wide_codes(chain: Chain, quantiser: Coder, base: npt.NDArray[Any]) -> Codes:
    """Codes of a chain over Python's integers (N, C, ...), whatever their size."""
    channels = max(chain.channels, quantiser.channels)
    out = np.empty(base.shape, np.int64)
    for c in range(channels):
        part = base if channels == 1 else base[:, c]
        sign = -1 if chain.slope(c) < 0 else 1
        row: list[int] = []
        passed = 0
        for code in range(quantiser.lo + 1, quantiser.hi + 1):
            bound = chain.invert(quantiser.bound(code, c), c)
            if isinstance(bound, bool):
                passed += bound
            else:
                row.append(sign * bound.integer())
        count = np.searchsorted(np.array(row, object), sign * part, side="right")
        out[(slice(None), c) if channels > 1 else ...] = quantiser.lo + passed + count
    return out


def _thresholds(chain: Chain, quantiser: Coder, channel: int) -> tuple[int, Sequence[int] | Codes]:
    slope = chain.slope(channel)
    sign = -1 if slope < 0 else 1
    rectified = bool(chain.steps) and isinstance(chain.steps[-1], Rectifier)
    affine = Chain(chain.steps[:-1]).affine if rectified else chain.affine
    if isinstance(quantiser, Quantiser) and affine is not None and slope != 0:
        spaced = sign * _evenly_spaced(affine, quantiser, channel)
        row = np.clip(spaced, ALWAYS, NEVER).astype(np.int64)
        if rectified:  # codes that 0 reaches are reached by everything
            codes = range(quantiser.lo + 1, quantiser.hi + 1)
            zero = Fraction(0)
            missed = bisect_left(
                codes, True, key=lambda k: not quantiser.bound(k, channel).holds(zero)
            )
            row[:missed] = ALWAYS
        return sign, row
    steps = []
    for code in range(quantiser.lo + 1, quantiser.hi + 1):
        bound = chain.invert(quantiser.bound(code, channel), channel)
        if isinstance(bound, bool):
            steps.append(int(ALWAYS if bound else NEVER))
        else:
            steps.append(max(int(ALWAYS), min(int(NEVER), sign * bound.integer())))
    return sign, steps


def _evenly_spaced(
    affine: Affine, quantiser: Quantiser, channel: int
) -> npt.NDArray[np.int64] | npt.NDArray[np.object_]:
    """`chain.invert(bound).integer()` for each code of an affine chain, in integer arithmetic.

    The boundary of code k lies at k * u + w but for the rounding mode's own shift, so numerators
    over one denominator do; this is the inner loop of every lowering. Python's integers (dtype
    object) take over where 62 bits do not hold them.
    """
    a, b = affine.at(channel)
    u = quantiser.picked(channel)[0] / a
    first = quantiser.bound(0, channel)
    w = (first.value - b) / a
    denominator = math.lcm(u.denominator, w.denominator)
    step = u.numerator * (denominator // u.denominator)
    start = w.numerator * (denominator // w.denominator)
    codes = range(quantiser.lo + 1, quantiser.hi + 1)
    if quantiser.bends:
        bounds = (quantiser.bound(code, channel) for code in codes)
        moved = (Bound((x.value - b) / a, x.inclusive, a > 0).integer() for x in bounds)
        return np.array(list(moved), object)
    upward = a > 0
    ends = (abs(start) + abs(code * step) for code in (*codes[:1], *codes[-1:]))
    largest = max(denominator, abs(step), *ends)
    kind = np.int64 if largest.bit_length() <= INT64_BITS else object
    numerators = start + np.array(codes, kind) * step
    inclusive = np.array(quantiser.inclusive_codes)
    from_below = -(-numerators // denominator) - (not upward)
    from_above = numerators // denominator + upward
    return np.where(inclusive == upward, from_below, from_above)


def real_step_function(
    chain: Chain, quantiser: Coder, channels: int
) -> Callable[[npt.NDArray[np.float64]], Codes]:
    """Like `step_function`, over real inputs given as float64 arrays; exact for each of them."""

    def codes(x: npt.NDArray[np.float64]) -> Codes:
        if channels == 1:
            return _real_codes(chain, quantiser, 0, x)
        out = np.empty(x.shape, np.int64)
        for c in range(channels):
            out[:, c] = _real_codes(chain, quantiser, c, x[:, c])
        return out

    return codes


def _real_codes(chain: Chain, quantiser: Coder, channel: int, x: npt.NDArray[np.float64]) -> Codes:
    """Codes of one channel's values: for each, a bisection over the exact code boundaries.

    All values that take the same way ask the same boundary, so each is computed once, and of many
    codes only those that values come near.
    """
    sign = -1 if chain.slope(channel) < 0 else 1
    distinct, back = np.unique(sign * x, return_inverse=True)
    counts = np.zeros(len(distinct), np.int64)
    pending = [(quantiser.lo + 1, quantiser.hi + 1, 0, len(distinct))]
    while pending:
        first, last, begin, end = pending.pop()  # codes first..last-1 are open for begin..end-1
        if begin == end:
            continue
        if first == last:
            counts[begin:end] = first - 1
            continue
        code = (first + last) // 2
        threshold = _real_threshold(chain, quantiser, code, channel, sign)
        cut = begin + int(np.searchsorted(distinct[begin:end], threshold))
        pending += [(first, code, begin, cut), (code + 1, last, cut, end)]
    return counts[back].reshape(x.shape)


def _real_threshold(chain: Chain, quantiser: Coder, code: int, channel: int, sign: int) -> float:
    """The smallest float64, times the chain's sign, whose code is at least `code`."""
    bound = chain.invert(quantiser.bound(code, channel), channel)
    if isinstance(bound, bool):
        return -np.inf if bound else np.inf
    return float(Bound(sign * bound.value, bound.inclusive).outermost(np.float64))
