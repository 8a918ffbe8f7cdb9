"""Half-lines of the reals: the conditions under which a monotone function reaches a code."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np

Float = TypeVar("Float", np.float32, np.float64)


@dataclass(frozen=True)
class Bound:
    """x >= value, x > value (upward) or x <= value, x < value."""

    value: Fraction
    inclusive: bool
    upward: bool = True

    def holds(self, x: Fraction) -> bool:
        """Whether x meets the bound."""
        if x == self.value:
            return self.inclusive
        return (x > self.value) == self.upward

    def before_single(self) -> Bound:
        """The condition on x under which x, rounded to float32, meets this one."""
        if not math.isfinite(np.float32(float(self.value))):
            return self
        first = self.outermost(np.float32)
        below = np.nextafter(first, np.float32(-np.inf if self.upward else np.inf))
        midpoint = (Fraction(float(first)) + Fraction(float(below))) / 2
        return Bound(midpoint, int(first.view(np.uint32)) % 2 == 0, self.upward)

    def outermost(self, kind: type[Float]) -> Float:
        """The outermost number of a float type that meets it: smallest if upward, else largest."""
        inward = kind(np.inf if self.upward else -np.inf)
        near = kind(float(self.value))
        while not self.holds(Fraction(float(near))):
            near = np.nextafter(near, inward)
        while self.holds(Fraction(float(beyond := np.nextafter(near, -inward)))):
            near = beyond
        return near

    def integer(self) -> int:
        """The outermost integer that meets it: smallest if upward, else largest."""
        if self.upward:
            return math.ceil(self.value) if self.inclusive else math.floor(self.value) + 1
        return math.floor(self.value) if self.inclusive else math.ceil(self.value) - 1
