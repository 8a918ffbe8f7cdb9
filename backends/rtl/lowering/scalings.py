"""Cheaper multipliers for a requantisation: all that give the same code for every input.

A requantisation is a step function. A factor and an offset give the same steps wherever each step
falls between the same two neighbouring inputs, so factors form an interval, and for each factor
so do the offsets: any of them is exact, and the one whose signed digits are fewest is cheapest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from hqc.numerics.types import Codes, Range

#: Factors that are looked at for one shift, and those kept for one number of digits.
_FACTORS, _KEPT = 2048, 6
#: Most steps of a function, and how many are looked at first.
_STEPS, _SOME = 1 << 12, 16
#: Products of candidates and steps stay below, so that int64 is exact.
_BITS = 60


@dataclass(frozen=True)
class Scaling:
    """`floor((x * factor + offset) / 2**shift)`, to be saturated."""

    factor: int
    offset: int
    shift: int


def equivalents(values: Codes, first: int, slope: Fraction, limits: Range) -> list[Scaling]:
    """Scalings that give `values[x - first]`, after saturation, for every x; few digits first.

    Args:
        values: codes of the result for x = first, first + 1, ...
        first: the lowest input.
        slope: of the requantisation; its sign is that of the result's growth.
        limits: of the result.

    Returns:
        Nothing where the values do not follow a slope, or none was found.
    """
    if slope < 0:
        turned = equivalents(values[::-1], 1 - first - len(values), -slope, limits)
        return [Scaling(-s.factor, s.offset, s.shift) for s in turned]
    if slope == 0 or not 0 < values[-1] - values[0] <= _STEPS or np.any(np.diff(values) < 0):
        return []
    steps = _Steps.of(values, first, limits)
    found = [s for shift in range(_BITS) for s in _of_shift(steps, slope, shift)]
    return sorted(found, key=lambda s: (_digits(s.factor) + _digits(s.offset), s.shift))


@dataclass(frozen=True)
class _Steps:
    """Where results are reached: at `least[i]` the result must be `level[i]` or more, at `most[i]`
    less than `above[i]`."""

    least: Codes
    level: Codes
    most: Codes
    above: Codes

    @staticmethod
    def of(values: Codes, first: int, limits: Range) -> _Steps:
        low, high = int(values[0]), int(values[-1])
        levels = np.arange(low + 1, high + 1)
        places = first + np.searchsorted(values, levels)
        least, level, most, above = places, levels, places - 1, levels
        if low > limits.lo:  # it is not saturation that keeps the first value
            least, level = np.append(least, first), np.append(level, low)
        if high < limits.hi:
            most, above = np.append(most, first + len(values) - 1), np.append(above, high + 1)
        return _Steps(least, level, most, above)

    def offsets(self, factors: Codes, shift: int) -> tuple[Codes, Codes]:
        """The lowest and highest offset for each factor; none if the lowest is higher."""
        low = (self.level[:, None] << shift) - self.least[:, None] * factors
        high = (self.above[:, None] << shift) - self.most[:, None] * factors - 1
        return low.max(axis=0), high.min(axis=0)

    @property
    def some(self) -> _Steps:
        """A few of them, from end to end."""
        least, most = (
            np.unique(np.linspace(0, len(part) - 1, _SOME).astype(np.int64))
            for part in (self.least, self.most)
        )
        return _Steps(self.least[least], self.level[least], self.most[most], self.above[most])

    @property
    def top(self) -> int:
        return max(int(np.abs(part).max()) for part in (self.least, self.most))


def _of_shift(steps: _Steps, slope: Fraction, shift: int) -> Iterator[Scaling]:
    """The best scalings with odd factors for one shift."""
    centre = slope * (1 << shift)
    span = max(1, centre // max(1, int(steps.above.max() - steps.level.min())))
    lowest, highest = int(centre - span), int(centre + span) + 1
    high_level = int(np.abs(steps.above).max()) + 1
    if (high_level << shift).bit_length() + 1 > _BITS or (
        steps.top * highest
    ).bit_length() + 1 > _BITS:
        return
    if highest - lowest > 2 * _FACTORS:
        return
    factors = np.arange(max(1, lowest) | 1, highest + 1, 2)
    if not len(factors):
        return
    for part in (steps.some, steps):  # few steps rule most factors out
        low, high = part.offsets(factors, shift)
        exact = low <= high
        factors, low, high = factors[exact], low[exact], high[exact]
    digits = np.bitwise_count(factors ^ (3 * factors))
    order = np.argsort(digits, kind="stable")[:_KEPT]
    for factor, first, last in zip(factors[order], low[order], high[order], strict=True):
        yield Scaling(int(factor), _roundest(int(first), int(last)), shift)


def _roundest(low: int, high: int) -> int:
    """The integer of an interval with the most low zeros, the smallest of those."""
    if low <= 0 <= high:
        return 0
    place = (high - low).bit_length()
    while True:
        found = -(-low >> place) << place
        if found <= high:
            return found
        place -= 1


def _digits(number: int) -> int:
    """Signed digits that are not 0."""
    return (abs(number) ^ (3 * abs(number))).bit_count()
