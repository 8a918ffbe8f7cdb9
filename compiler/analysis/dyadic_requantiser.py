"""The smallest dyadic requantiser that is provably identical to the real one.

A requantiser turns an accumulator n into a code. Its exact meaning is a monotone step function
(`hqc.analysis.step_functions.StepFunction`); hardware computes

    code = clamp(floor((m * n + o) / 2**e))

with integers m (multiplier), o (offset) and e (shift). Because n has a proven, finite range, only
the thresholds inside that range matter, and on either side of each only one integer: identity
holds for every reachable n if and only if it holds at those points (both sides are monotone).
For one (m, e) the admissible offsets are an interval of integers; the multipliers m / 2**e for
which it is not empty are an interval, too, since the width of the offset interval is concave in
the multiplier. The dyadic with the fewest bits in that interval is the one with the smallest e.

Where ties to even make the thresholds uneven, no such floor exists, but the hardware's own
rounding may do; where neither does, the thresholds themselves remain (`MultiThreshold`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hqc.analysis.step_functions import ALWAYS, NEVER, StepFunction
from hqc.numerics.types import INT64_BITS, Codes, Rounding, round_shift

#: Shifts beyond this are not worth a multiplier; thresholds take over.
MAX_SHIFT = 40
#: Multipliers tried per shift, fewest bits first.
CANDIDATES = 8


@dataclass(frozen=True)
class Dyadic:
    """code = clamp(round((m * n + o) / 2**shift), lo, hi), per channel.

    Attributes:
        multiplier, offset: int64 (C,).
        shift: number of fractional bits, shared by all channels.
        rounding: FLOOR, or the quantiser's own mode.
        lo, hi: code limits.
    """

    multiplier: Codes
    offset: Codes
    shift: int
    rounding: Rounding
    lo: int
    hi: int

    def __call__(self, n: Codes) -> Codes:
        """Codes of accumulators (N, C, ...)."""
        column = (-1, *(1,) * (n.ndim - 2))
        scaled = n * self.multiplier.reshape(column) + self.offset.reshape(column)
        return np.clip(round_shift(scaled, self.shift, self.rounding), self.lo, self.hi)

    @property
    def bits(self) -> int:
        """Bits of the widest multiplier's magnitude, without the zeros that all of them end in."""
        widest = int(np.max(np.abs(self.multiplier), initial=0))
        shared = int(np.bitwise_or.reduce(self.multiplier))
        return widest.bit_length() - ((shared & -shared).bit_length() - 1 if shared else 0)


@dataclass(frozen=True)
class Corners:
    """One channel's step function cut to the reachable range, growing with n.

    The code must be at least `codes[i]` at `above[i]`, and below `codes_below[j]` at `below[j]`.
    """

    above: Codes
    codes: Codes
    below: Codes
    codes_below: Codes

    @cached_property
    def under(self) -> list[tuple[int, int]]:
        """Upper hull of the points (n, code) that the requantiser must reach."""
        return _hull(self.above, self.codes, 1)

    @cached_property
    def over(self) -> list[tuple[int, int]]:
        """Lower hull of the points that it must stay below."""
        return _hull(self.below, self.codes_below, -1)

    @property
    def constant(self) -> int | None:
        """The code, if only one is reachable."""
        if len(self.above) == 1 and len(self.below) == 1 and self.codes[0] + 1 == self.codes_below:
            return int(self.codes[0])
        return None


def corners(f: StepFunction, channel: int, lo: int, hi: int) -> tuple[int, Corners]:
    """The reachable corners of one channel over lo <= n <= hi, and the sign of its slope.

    Codes beyond the clamp are free: the hardware saturates there.
    """
    sign = int(f.sign[channel])
    if sign < 0:
        lo, hi = -hi, -lo
    row = f.thresholds[channel]
    code = np.arange(f.lo + 1, f.hi + 1, dtype=np.int64)
    reachable = (row > lo) & (row <= hi)
    at_lo = f.lo + int(np.searchsorted(row, lo, side="right"))
    at_hi = f.lo + int(np.searchsorted(row, hi, side="right"))
    above, codes = row[reachable], code[reachable]
    below, codes_below = above - 1, codes
    if at_lo > f.lo or at_lo == at_hi:
        above = np.concatenate(([np.int64(lo)], above))
        codes = np.concatenate(([np.int64(at_lo)], codes))
    if at_hi < f.hi or at_lo == at_hi:
        below = np.concatenate((below, [np.int64(hi)]))
        codes_below = np.concatenate((codes_below, [np.int64(at_hi + 1)]))
    return sign, Corners(above, codes, below, codes_below)


def offsets(c: Corners, m: int, shift: int, rounding: Rounding) -> tuple[int, int] | None:
    """The admissible integer offsets of one multiplier, lowest and highest, or None."""
    # without parity in it, a linear function of (n, k) has its extremes on the hulls
    linear = rounding is Rounding.FLOOR or shift == 0
    above = c.under if linear else zip(c.above.tolist(), c.codes.tolist(), strict=True)
    below = c.over if linear else zip(c.below.tolist(), c.codes_below.tolist(), strict=True)
    low = max(reach(k, shift, rounding) - m * n for n, k in above)
    high = min(reach(k, shift, rounding) - 1 - m * n for n, k in below)
    return (low, high) if low <= high else None


def reach(code: int, shift: int, rounding: Rounding) -> int:
    """The smallest integer x whose x / 2**shift rounds to at least `code`."""
    if rounding is Rounding.FLOOR or shift == 0:
        return code << shift
    boundary = ((2 * code - 1) << shift) >> 1
    up = {
        Rounding.ROUND: code % 2 == 0,
        Rounding.HALF_UP: code > 0,
        Rounding.HALF_DOWN: code <= 0,
    }[rounding]
    return boundary + (0 if up else 1)


def smallest_dyadic(
    f: StepFunction,
    lo: npt.NDArray[np.int64],
    hi: npt.NDArray[np.int64],
    rounding: Rounding,
) -> Dyadic | None:
    """The requantiser with the fewest multiplier bits that equals `f` on lo <= n <= hi.

    Args:
        f: exact step function, C channels.
        lo, hi: (C,) proven range of the accumulator, per channel.
        rounding: the quantiser's own mode, tried where no floor exists.

    Returns:
        One dyadic for all channels (shift in common, each multiplier minimal), or None.
    """
    cut = [corners(f, c, int(lo[c]), int(hi[c])) for c in range(len(lo))]
    return dyadic_through(cut, (f.lo, f.hi), rounding)


def dyadic_through(
    cut: Sequence[tuple[int, Corners]], limits: tuple[int, int], rounding: Rounding
) -> Dyadic | None:
    """The requantiser with the fewest multiplier bits between the corners of every channel.

    Args:
        cut: for each channel the sign of its slope, and its corners in growing order.
        limits: lowest and highest code.
        rounding: the quantiser's own mode, tried where no floor exists.
    """
    modes = [Rounding.FLOOR]
    if rounding in (Rounding.ROUND, Rounding.HALF_UP, Rounding.HALF_DOWN):
        modes.append(rounding)
    for mode in modes:
        found = [_channel(c, mode) for _, c in cut]
        if all(x is not None for x in found):
            pairs = [x for x in found if x is not None]
            return _join(cut, limits, pairs, mode)
    return None


def _join(
    cut: Sequence[tuple[int, Corners]],
    limits: tuple[int, int],
    pairs: list[tuple[int, int]],
    mode: Rounding,
) -> Dyadic | None:
    shift = max(0, *(e for _, e in pairs))
    multipliers, chosen = [], []
    for (sign, c), (m, e) in zip(cut, pairs, strict=True):
        scaled = m << (shift - e)
        interval = offsets(c, scaled, shift, mode)
        if interval is None or max(map(abs, interval)).bit_length() > INT64_BITS:
            return None
        multipliers.append(sign * scaled)
        chosen.append(fewest_bits(*interval))
    return Dyadic(np.array(multipliers, np.int64), np.array(chosen, np.int64), shift, mode, *limits)


def fewest_bits(low: int, high: int) -> int:
    """The integer in low..high with the most trailing zero bits (0 if it is among them)."""
    if low <= 0 <= high:
        return 0
    step = 1
    best = low
    while (multiple := -(-low // step) * step) <= high:
        best = multiple
        step *= 2
    return best


def _channel(c: Corners, mode: Rounding) -> tuple[int, int] | None:
    """Fewest-bit (m, e) of one growing channel; None beyond `MAX_SHIFT`."""
    if c.constant is not None:
        return 0, 0
    interval = multiplier_interval(c)
    if interval is None:
        return None
    low, high = interval
    for shift in range(MAX_SHIFT + 1):
        first, last = max(1, math.ceil(low * 2**shift)), math.floor(high * 2**shift)
        tried = range(first, min(last, max(2 * first - 1, first + CANDIDATES)) + 1)
        for m in sorted(tried, key=significant_bits)[:CANDIDATES]:
            if mode is Rounding.FLOOR and Fraction(m, 2**shift) in interval:
                continue  # at the ends no offset remains
            for finer in range(MAX_SHIFT + 1 - shift):  # until one of the offsets is an integer
                if offsets(c, m << finer, shift + finer, mode) is not None:
                    return m << finer, shift + finer
    return None


def significant_bits(m: int) -> int:
    """Bits of a multiplier without its trailing zeros, which are wires."""
    return (m // (m & -m)).bit_length() if m else 0


def multiplier_interval(c: Corners) -> tuple[Fraction, Fraction] | None:
    """The multipliers for which a real offset exists, ends included; None if there are none.

    A requantiser is a line that passes on or above the points (above, codes) and below the points
    (below, codes_below), so its slope lies between those of the lines through one point of each.
    Only the hulls of the two sets matter. Rounding is left out (floor): the half modes have the
    same interval, shifted by a half, and may include its ends.
    """
    pairs = [(n - m, k - j) for n, k in c.under for m, j in c.over]
    low = max((Fraction(rise, run) for run, rise in pairs if run > 0), default=Fraction(0))
    steepest = 4 * low + 2  # where nothing bounds it: well beyond the next power of two
    high = min((Fraction(rise, run) for run, rise in pairs if run < 0), default=steepest)
    return (max(low, Fraction(0)), high) if low <= high else None


def _hull(x: Codes, y: Codes, side: int) -> list[tuple[int, int]]:
    """Upper (side 1) or lower (side -1) convex hull of points, x ascending (Andrew's chain)."""
    hull: list[tuple[int, int]] = []
    for p in zip(x.tolist(), y.tolist(), strict=True):
        while hull and (
            (hull[-1][0] == p[0] and side * (p[1] - hull[-1][1]) >= 0)
            or (len(hull) > 1 and side * _turn(hull[-2], hull[-1], p) >= 0)
        ):
            hull.pop()
        if not hull or hull[-1][0] != p[0]:
            hull.append(p)
    return hull


def _turn(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> int:
    """Positive if a, b, c turn left."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def digits(m: int) -> int:
    """Non-zero digits of the canonical signed-digit form: adders of a constant multiplier."""
    return (m ^ (3 * m)).bit_count()


def thresholds_are_cheaper(f: StepFunction, d: Dyadic, lo: Codes, hi: Codes) -> bool:
    """Whether comparing with each reachable threshold takes fewer adder bits than multiplying."""
    multiply = compare = 0
    for c in range(len(lo)):
        width = max(abs(int(lo[c])), abs(int(hi[c]))).bit_length() + 1
        row = f.thresholds[c] * f.sign[c]
        compare += width * int(np.sum((row > int(lo[c]) - 1) & (row <= int(hi[c]) + 1)))
        m = abs(int(d.multiplier[c]))
        multiply += (digits(m) - 1) * (width + m.bit_length()) if m else 0
        multiply += (width + m.bit_length()) * (int(d.offset[c]) != 0)
    return compare <= multiply


def reachable_thresholds(f: StepFunction, lo: Codes, hi: Codes) -> Codes:
    """Thresholds clipped to just outside the reachable range, so that they fit its width."""
    out = np.empty_like(f.thresholds)
    for c in range(len(lo)):
        first, last = int(lo[c]), int(hi[c])
        if f.sign[c] < 0:
            first, last = -last, -first
        out[c] = np.clip(f.thresholds[c], max(first, int(ALWAYS)), min(last + 1, int(NEVER)))
    return out
