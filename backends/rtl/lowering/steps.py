"""Step functions: how many thresholds a wire reaches, in the form that costs least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from hqc.backends.rtl.builder import Builder
from hqc.backends.rtl.circuit import Wire
from hqc.backends.rtl.cost import cheapest
from hqc.numerics.types import Range

#: Entries of the largest table.
_ENTRIES = 1 << 12


@dataclass(frozen=True)
class Steps:
    """`start` below the first threshold, then more: `levels[k]` from `thresholds[k]` on.

    Thresholds ascend, and lie within the range of the argument but for its lower end.
    """

    start: int
    thresholds: tuple[int, ...]
    levels: tuple[int, ...]

    @staticmethod
    def of(thresholds: Sequence[int], start: int, held: Range) -> Steps:
        """Thresholds in any order, each worth 1."""
        start += sum(t <= held.lo for t in thresholds)
        inside = sorted(t for t in thresholds if held.lo < t <= held.hi)
        levels = {t: start + number for number, t in enumerate(inside, 1)}
        return Steps(start, tuple(levels), tuple(levels.values()))


def count(b: Builder, x: Wire, steps: Steps) -> Wire:
    """The wire of a step function of x, in the form that costs least."""
    held = b.ranges[x]
    forms = [_compared, _searched]
    if held.hi - held.lo < _ENTRIES:
        forms.append(_tabulated)
    return cheapest(held, [partial(form, steps) for form in forms])(b, x)


def _compared(steps: Steps, b: Builder, x: Wire) -> Wire:
    """One comparator for each threshold."""
    values = (steps.start, *steps.levels)
    bits = [b.at_least(x, t) for t in steps.thresholds]
    return _chosen(b, bits, [b.constant(v) for v in values])


def _tabulated(steps: Steps, b: Builder, x: Wire) -> Wire:
    """One table."""
    held = b.ranges[x]
    places = np.searchsorted(steps.thresholds, np.arange(held.lo, held.hi + 1), side="right")
    values = np.array((steps.start, *steps.levels), np.int64)[places]
    return b.lookup(x, held.lo, values.tolist())


def _searched(steps: Steps, b: Builder, x: Wire) -> Wire:
    """Bit by bit: which threshold to compare with depends on the bits so far."""
    bits = len(steps.thresholds).bit_length()
    never = b.ranges[x].hi + 1
    padded = [*steps.thresholds, *[never] * ((1 << bits) - 1 - len(steps.thresholds))]
    place = b.constant(0)
    for bit in reversed(range(bits)):
        own = padded[(1 << bit) - 1 :: 2 << bit]
        threshold = b.lookup(place, 0, own)
        reached = b.at_least(b.plus(x, threshold, minus=True), 0)
        place = b.plus(place, reached, left=1)
    levels = (steps.start, *steps.levels)
    last = b.ranges[place].hi
    padded_levels = [*levels, *[levels[-1]] * (last + 1 - len(levels))]
    if all(level == levels[0] + number for number, level in enumerate(levels)):
        return b.clamp(b.plus(place, b.constant(levels[0])), None, levels[-1])
    return b.lookup(place, 0, padded_levels)


def _chosen(b: Builder, bits: Sequence[Wire], values: Sequence[Wire]) -> Wire:
    """The value behind the last bit that is set; a bit is only set if those before it are."""
    if not bits:
        return values[0]
    middle = len(bits) // 2
    low = _chosen(b, bits[:middle], values[: middle + 1])
    high = _chosen(b, bits[middle + 1 :], values[middle + 1 :])
    return b.select(bits[middle], high, low)
