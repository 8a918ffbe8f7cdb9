"""Exact tensors: integer codes and the chain that turns them into real values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from hqc.numerics.activations import Clip, Leaky, Rectifier
from hqc.numerics.monotone_chain import Affine, Chain
from hqc.numerics.types import INT64_BITS, Codes


@dataclass(frozen=True)
class ExactTensor:
    """A tensor: `chain(base)`.

    Attributes:
        base: int64 codes; Python's integers (dtype object) where 62 bits do not hold a sum of
            tensors on different scales; float64 while no quantiser has been met.
        chain: from the base to real values.
    """

    base: npt.NDArray[np.int64] | npt.NDArray[np.object_] | npt.NDArray[np.float64]
    chain: Chain

    @property
    def is_real(self) -> bool:
        """Whether the base is still the model's float input."""
        return bool(self.base.dtype == np.float64)

    @property
    def is_wide(self) -> bool:
        """Whether the base needs more than 62 bits."""
        return bool(self.base.dtype == object)

    @property
    def codes(self) -> Codes:
        """The base as int64."""
        return self.base.astype(np.int64, copy=False)

    @property
    def top(self) -> int:
        """The largest magnitude of the base."""
        return int(np.max(np.abs(self.base), initial=0))

    def values(self) -> npt.NDArray[np.float64]:
        """The tensor in float64: one product and one sum per step, channels on axis 1."""
        x = np.asarray(self.base, np.float64)
        for step in self.chain.steps:
            x = step.floats(x)
        return x


def column(values: Sequence[int], rank: int, kind: type[Any] = np.int64) -> npt.NDArray[Any]:
    """Integers along axis 1 of a tensor of that rank; one number stays one number."""
    found = np.array(values, kind)
    return found.reshape(()) if found.size == 1 else found.reshape(-1, *(1,) * (rank - 2))


def common_unit(scales: Sequence[Fraction]) -> Fraction:
    """The largest rational of which all scales are integer multiples."""
    numerator = int(np.gcd.reduce(np.array([s.numerator for s in scales], object)))
    denominator = int(np.lcm.reduce(np.array([s.denominator for s in scales], object)))
    return Fraction(numerator, denominator)


def common_units(
    first: Sequence[Fraction], second: Sequence[Fraction]
) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...], tuple[Fraction, ...]]:
    """Factors of two tensors (one, or one per channel) as whole multiples of one unit per channel.

    Returns:
        The multiples of the first and of the second, and the units.
    """
    n = max(len(first), len(second))
    if len(set(first)) == 1 and len(set(second)) == 1:
        n = 1
    pairs = [(first[c % len(first)], second[c % len(second)]) for c in range(n)]
    units = tuple(common_unit((abs(a), abs(b))) if a or b else Fraction(1) for a, b in pairs)
    lefts = tuple(a / u for (a, _), u in zip(pairs, units, strict=True))
    rights = tuple(b / u for (_, b), u in zip(pairs, units, strict=True))
    return lefts, rights, units


def on_integers(x: ExactTensor, affine: Affine) -> ExactTensor | None:
    """`affine(x.base)` as integers times one unit per channel; None beyond 62 bits."""
    if x.is_wide:
        return None
    pairs = [affine.at(c) for c in range(affine.channels)]
    units = [common_unit((abs(a), abs(b))) if a or b else Fraction(1) for a, b in pairs]
    factors = [int(a / u) for (a, _), u in zip(pairs, units, strict=True)]
    offsets = [int(b / u) for (_, b), u in zip(pairs, units, strict=True)]
    largest = x.top * max(map(abs, factors)) + max(map(abs, offsets))
    if largest.bit_length() > INT64_BITS:
        return None
    rank = x.base.ndim
    base = x.codes * column(factors, rank) + column(offsets, rank)
    zeros = tuple(Fraction(0) for _ in units)
    return ExactTensor(np.asarray(base, np.int64), Chain().then(Affine(tuple(units), zeros)))


def straightened(x: ExactTensor) -> ExactTensor:
    """The same tensor with its bends computed, where integers hold what they bend."""
    while not x.is_real and x.chain.affine is None:
        steps = x.chain.steps
        at = 1 if isinstance(steps[0], Affine) else 0
        line = steps[0] if isinstance(steps[0], Affine) else Affine.of()
        bend = steps[at]
        whole = on_integers(x, line)
        bent = _bend(whole, bend) if whole is not None else None
        if bent is None:
            return x
        x = ExactTensor(bent.base, bent.chain.extended(steps[at + 1 :]))
    return x


def _bend(x: ExactTensor, bend: object) -> ExactTensor | None:
    """A bend of integers with one positive unit per channel, as such integers again."""
    units = x.chain.affine
    assert units is not None
    codes, rank = x.codes, x.base.ndim
    if isinstance(bend, Rectifier):
        return ExactTensor(np.maximum(codes, 0), x.chain)
    if isinstance(bend, Clip):
        finer = _on_grid_of(x, [v for v in (bend.lo, bend.hi) if v is not None])
        if finer is None:
            return None
        scale = finer.chain.affine
        assert scale is not None
        clipped = finer.codes
        if bend.lo is not None:
            clipped = np.maximum(clipped, column([int(bend.lo / a) for a in scale.a], rank))
        if bend.hi is not None:
            clipped = np.minimum(clipped, column([int(bend.hi / a) for a in scale.a], rank))
        return ExactTensor(clipped, finer.chain)
    if isinstance(bend, Leaky):
        n = max(len(bend.slopes), len(units.a))
        slopes = bend.slopes * (n // len(bend.slopes))
        denominators = [s.denominator for s in slopes]
        if (x.top * max(max(s.numerator, s.denominator) for s in slopes)).bit_length() > INT64_BITS:
            return None
        positive = codes * column(denominators, rank)
        negative = codes * column([s.numerator for s in slopes], rank)
        steps = Affine(tuple(Fraction(1, d) for d in denominators), (Fraction(0),))
        base = np.asarray(np.where(codes >= 0, positive, negative), np.int64)
        return ExactTensor(base, Chain().then(steps.then(units)))
    return None  # a curve leaves every grid


def _on_grid_of(x: ExactTensor, values: Sequence[Fraction]) -> ExactTensor | None:
    """The same tensor on a step of which these values are multiples as well."""
    affine = x.chain.affine
    assert affine is not None
    units = [common_unit((abs(a), *map(abs, values))) for a in affine.a]
    factors = [int(a / u) for a, u in zip(affine.a, units, strict=True)]
    if (x.top * max(map(abs, factors))).bit_length() > INT64_BITS:
        return None
    base = np.asarray(x.codes * column(factors, x.base.ndim), np.int64)
    zeros = tuple(Fraction(0) for _ in units)
    return ExactTensor(base, Chain().then(Affine(tuple(units), zeros)))


def without_offset(x: ExactTensor) -> ExactTensor | None:
    """The same tensor as integers times one factor per channel, so that code 0 means 0."""
    affine = x.chain.affine
    if affine is None or x.is_wide:
        return None
    if not any(affine.b):
        return x
    ratios = [affine.at(c) for c in range(affine.channels)]
    if any(a == 0 for a, _ in ratios):
        return None
    finer = math.lcm(*((b / a).denominator for a, b in ratios))
    offsets = [int(b / a * finer) for a, b in ratios]
    if (x.top * finer + max(map(abs, offsets))).bit_length() > INT64_BITS:
        return None
    base = np.asarray(x.codes * finer + column(offsets, x.base.ndim), np.int64)
    factors = tuple(a / finer for a in affine.a)
    return ExactTensor(base, Chain().then(Affine(factors, (Fraction(0),))))


def on_common_units(
    x: ExactTensor, y: ExactTensor
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], tuple[Fraction, ...]]:
    """The bases of two offset-free tensors as multiples of one unit per channel.

    In int64, or in Python's integers where 62 bits do not hold them.
    """
    first, second = x.chain.affine, y.chain.affine
    assert first is not None
    assert second is not None
    lefts, rights, units = common_units(first.a, second.a)
    left, right = [int(f) for f in lefts], [int(f) for f in rights]
    tops = x.top * max(map(abs, left)), y.top * max(map(abs, right))
    kind = np.int64 if (2 * max(tops)).bit_length() <= INT64_BITS else object
    bases = [t.base.astype(kind) * column(f, t.base.ndim, kind) for t, f in ((x, left), (y, right))]
    return bases[0], bases[1], units
