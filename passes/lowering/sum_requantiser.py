"""Two tensors on different scales, added and quantised at once, by small integer factors.

For x and y in proven ranges, code(a * x + c * y) is found for every pair. Small integers m and n
serve as well as the real factors if m * x + n * y keeps the pairs of each code on their side of
the others: if the largest m * x + n * y below code k is smaller than the smallest at or above it.
For each y that is one comparison, at the two x beside the threshold, so it is decided for all
pairs, with no error term. What is left is a requantiser of one integer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from hqc.analysis.dyadic_requantiser import Corners
from hqc.analysis.step_functions import Coder
from hqc.numerics.bounds import Bound
from hqc.numerics.exact_tensor import common_unit
from hqc.numerics.monotone_chain import Chain

#: Values of the narrower operand, times codes, up to which every pair is looked at.
MAX_PAIRS = 1 << 21
#: Bits of the factors that are tried.
MAX_BITS = 26


@dataclass(frozen=True)
class Operand:
    """One side of a sum: codes lo..hi, and the factor of one channel."""

    factor: Fraction
    lo: int
    hi: int


@dataclass(frozen=True)
class Factors:
    """m * x + n * y for one channel, and where its codes begin.

    Attributes:
        m, n: the integers.
        corners: at which sums the code is at least k, and at which below k.
        sign: -1 where codes fall with the sum.
    """

    m: int
    n: int
    corners: Corners
    sign: int


def smallest_factors(
    x: Operand, y: Operand, chain: Chain, coder: Coder, channel: int
) -> Factors | None:
    """The narrowest integer factors that keep every code of one channel, or None.

    Args:
        x, y: the operands; y is enumerated, so it should be the one with fewer values.
        chain: from a.factor * x + b.factor * y to what is quantised.
        coder: the quantiser.
        channel: of chain and coder.
    """
    sides = _sides(x, y, chain, coder, channel)
    if sides is None:
        return None
    sign, at = sides
    largest = max(abs(x.factor), abs(y.factor))
    for bits in range(1, MAX_BITS + 1):
        scale = ((1 << bits) - 1) / largest
        m, n = round(x.factor * scale), round(y.factor * scale)
        if not m and x.factor and x.hi > x.lo:
            continue
        found = _corners(m, n, x, y, at, coder, sign)
        if found is not None:
            return Factors(m, n, found, sign)
    return None


def _sides(
    x: Operand, y: Operand, chain: Chain, coder: Coder, channel: int
) -> tuple[int, npt.NDArray[np.int64]] | None:
    """For each y (rows) and code (columns) the first x at or above it, in order of sums.

    x counts in the direction in which the sum grows; entries lie in lo..hi + 1.
    """
    codes = range(coder.lo + 1, coder.hi + 1)
    values = y.hi - y.lo + 1
    if values * len(codes) > MAX_PAIRS:
        return None
    sign = -1 if chain.slope(channel) < 0 else 1
    bounds = [chain.invert(coder.bound(k, channel), channel) for k in codes]
    rising = x.factor * sign > 0
    lo, hi = (x.lo, x.hi) if rising else (-x.hi, -x.lo)
    a, c = abs(x.factor), y.factor * sign
    unit = common_unit([v for v in (a, c) if v] or [Fraction(1)])
    step, slope = int(a / unit), int(abs(c) / unit) * (1 if c > 0 else -1)
    if not step:
        return None
    at = np.empty((values, len(codes)), np.int64)
    ys = np.array([slope * v for v in range(y.lo, y.hi + 1)], object)
    for column, bound in enumerate(bounds):
        if isinstance(bound, bool):
            at[:, column] = lo if bound else hi + 1
            continue
        first = _first(bound, sign, unit) - ys  # the sum reaches it from this integer on
        needed = -((-first) // step)
        at[:, column] = np.clip(needed, lo, hi + 1).astype(np.int64)
    return sign, at


def _first(bound: Bound, sign: int, unit: Fraction) -> int:
    """The first integer multiple of the unit, in growing order, that meets a bound."""
    value = sign * bound.value / unit
    whole = math.ceil(value)
    return whole + 1 if whole == value and not bound.inclusive else whole


def _corners(
    m: int,
    n: int,
    x: Operand,
    y: Operand,
    at: npt.NDArray[np.int64],
    coder: Coder,
    sign: int,
) -> Corners | None:
    """Where codes begin and end among the sums m * x + n * y, if they do not overlap."""
    rising = x.factor * sign > 0
    lo, hi = (x.lo, x.hi) if rising else (-x.hi, -x.lo)
    across = (n * sign * np.arange(y.lo, y.hi + 1, dtype=np.int64))[:, None]
    step = abs(m)
    huge = np.int64(2**62)
    reached = np.where(at <= hi, step * at + across, huge).min(axis=0)
    missed = np.where(at > lo, step * (at - 1) + across, -huge).max(axis=0)
    if np.any(missed >= reached):
        return None
    codes = np.arange(coder.lo + 1, coder.hi + 1, dtype=np.int64)
    is_reached, is_missed = reached < huge, missed > -huge
    above, below = reached[is_reached], missed[is_missed]
    first, last = int((step * lo + across).min()), int((step * hi + across).max())
    least = coder.lo + int(np.sum(~is_missed))
    most = coder.lo + int(np.sum(is_reached))
    ends_low = ([first], [least]) if least > coder.lo or least == most else ([], [])
    ends_high = ([last], [most + 1]) if most < coder.hi or least == most else ([], [])
    inner = codes[is_reached] > least
    return Corners(
        np.array([*ends_low[0], *above[inner]], np.int64),
        np.array([*ends_low[1], *codes[is_reached][inner]], np.int64),
        np.array([*below[codes[is_missed] <= most], *ends_high[0]], np.int64),
        np.array([*codes[is_missed][codes[is_missed] <= most], *ends_high[1]], np.int64),
    )
