"""Exact monotone chains: what stands between an integer accumulator and the next quantiser.

A chain is a sequence of per-channel affine maps with rational coefficients and rectifiers. Put
before a quantiser it is a monotone step function of an integer, so it is fully described by one
integer threshold per code (`hqc.analysis.step_functions.StepFunction`). Nothing here is ever
rounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from hqc.numerics.activations import BENDS, IDEMPOTENT, Bend, Floats, per_channel
from hqc.numerics.bounds import Bound
from hqc.numerics.types import Codes


@dataclass(frozen=True)
class Affine:
    """x -> a * x + b, per channel (length C) or for all channels (length 1)."""

    a: tuple[Fraction, ...]
    b: tuple[Fraction, ...]

    @classmethod
    def of(cls, a: Fraction | int = 1, b: Fraction | int = 0) -> Affine:
        """The same map for every channel."""
        return cls((Fraction(a),), (Fraction(b),))

    @property
    def channels(self) -> int:
        """How many channels the coefficients tell apart."""
        return max(len(self.a), len(self.b))

    def picked(self, channels: Sequence[int]) -> Affine:
        """The map over other channels, each of which was one of these."""
        one = len(self.a) == 1, len(self.b) == 1
        return Affine(
            self.a if one[0] else tuple(self.a[c] for c in channels),
            self.b if one[1] else tuple(self.b[c] for c in channels),
        )

    def floats(self, x: Floats) -> Floats:
        """The map in float64, one product and one sum; channels on axis 1."""
        for op, numbers in self.in_floats:
            column = per_channel(numbers, x.ndim)
            x = x + column if op == "Add" else x * column
        return x

    @property
    def is_scalar(self) -> bool:
        """Whether every channel has the same map."""
        return len(set(self.a)) == 1 and len(set(self.b)) == 1

    @property
    def has_one_factor(self) -> bool:
        """Whether every channel has the same factor; offsets may differ."""
        return len(set(self.a)) == 1

    def add_offsets(self, other: Affine) -> tuple[Fraction, ...]:
        """The sums of both maps' offsets, per channel where either has several."""
        n = max(len(self.b), len(other.b))
        return tuple(self.at(c)[1] + other.at(c)[1] for c in range(n))

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return set(self.a) == {Fraction(1)} and set(self.b) == {Fraction(0)}

    def at(self, channel: int) -> tuple[Fraction, Fraction]:
        """Coefficients of one channel."""
        return (
            self.a[channel if len(self.a) > 1 else 0],
            self.b[channel if len(self.b) > 1 else 0],
        )

    @property
    def in_floats(self) -> tuple[tuple[str, tuple[Fraction, ...]], ...]:
        """The map as "Add" and "Mul" steps that round least in floating point.

        a * (x + b / a) where b / a is a short dyadic (a zero point): then x + b / a is exact, and
        what cancels cancels to zero. Otherwise a * x + b.
        """
        n = max(len(self.a), len(self.b))
        pairs = [self.at(c) for c in range(n)]
        offsets = tuple(b / a if a else Fraction(-1, 3) for a, b in pairs)
        if all(_is_short(r) for r in offsets):
            return (("Add", offsets), ("Mul", self.a))
        return (("Mul", self.a), ("Add", self.b))

    @property
    def divided(self) -> Affine:
        """x -> x + b / a, which times a is this map; ZeroDivisionError where a is 0."""
        pairs = [self.at(c) for c in range(self.channels)]
        return Affine(tuple(Fraction(1) for _ in pairs), tuple(b / a for a, b in pairs))

    @property
    def through_zero(self) -> Affine:
        """x -> a * x."""
        return Affine(self.a, (Fraction(0),))

    def then(self, after: Affine) -> Affine:
        """The map that applies this one first."""
        n = max(len(self.a), len(self.b), len(after.a), len(after.b))
        pairs = [(self.at(c), after.at(c)) for c in range(n)]
        return Affine(
            tuple(a2 * a1 for (a1, _), (a2, _) in pairs),
            tuple(a2 * b1 + b2 for (_, b1), (a2, b2) in pairs),
        )


def _is_short(r: Fraction) -> bool:
    """Whether a rational is a dyadic of up to 32 significant bits."""
    n, d = abs(r.numerator), r.denominator
    odd = n // (n & -n) if n else 0
    return d & (d - 1) == 0 and odd.bit_length() <= 32


Step = Affine | Bend


@dataclass(frozen=True)
class Chain:
    """Steps applied one after another to an integer (or real) base value."""

    steps: tuple[Step, ...] = ()

    def then(self, step: Step) -> Chain:
        """The chain with one more step; neighbouring affine maps merge, identities vanish."""
        steps = list(self.steps)
        if isinstance(step, Affine):
            if steps and isinstance(steps[-1], Affine):
                step = steps.pop().then(step)  # type: ignore[union-attr]
            if step.is_identity:
                return Chain(tuple(steps))
        elif steps and steps[-1] == step and isinstance(step, IDEMPOTENT):
            return self
        return Chain((*steps, step))

    def extended(self, steps: Iterable[Step]) -> Chain:
        """The chain with more steps behind it, one after another."""
        found = self
        for step in steps:
            found = found.then(step)
        return found

    @property
    def affine(self) -> Affine | None:
        """The whole chain as one affine map, or None if it rectifies."""
        if not self.steps:
            return Affine.of()
        if len(self.steps) == 1 and isinstance(self.steps[0], Affine):
            return self.steps[0]
        return None

    @property
    def channels(self) -> int:
        """How many channels the coefficients tell apart (1 when they are shared)."""
        return max((step.channels for step in self.steps), default=1)

    def picked(self, channels: Sequence[int]) -> Chain:
        """The chain over other channels, each of which was one of these."""
        return Chain(tuple(step.picked(channels) for step in self.steps))

    def joined(self, groups: Sequence[Codes]) -> Chain | None:
        """The chain over channels that each hold several of these; None where they differ."""
        first = [int(group[0]) if len(group) else 0 for group in groups]
        found = self.picked(first)
        for position in range(1, max(map(len, groups), default=0)):
            other = [
                int(g[position]) if position < len(g) else f
                for g, f in zip(groups, first, strict=True)
            ]
            if self.picked(other) != found:
                return None
        return found

    def slope(self, channel: int) -> Fraction:
        """Product of all factors of one channel: the slope where nothing is rectified."""
        product = Fraction(1)
        for step in self.steps:
            if isinstance(step, Affine):
                product *= step.at(channel)[0]
        return product

    def invert(self, bound: Bound, channel: int) -> Bound | bool:
        """The condition on the base under which the end of the chain meets `bound`."""
        for step in reversed(self.steps):
            if isinstance(step, BENDS):
                before = step.invert(bound, channel)
                if isinstance(before, bool):
                    return before
                bound = before
                continue
            a, b = step.at(channel)
            if a == 0:
                return bound.holds(b)
            value = (bound.value - b) / a
            bound = Bound(value, bound.inclusive, bound.upward == (a > 0))
        return bound
