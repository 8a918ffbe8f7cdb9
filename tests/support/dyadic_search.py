"""An exhaustive search for requantisers, sharing nothing with `hqc.analysis.dyadic_requantiser`.

For each multiplier and shift it computes the interval of offsets from every reachable accumulator,
not from corners, by rounding's definition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from hqc.analysis.dyadic_requantiser import Dyadic, reachable_thresholds, smallest_dyadic
from hqc.analysis.step_functions import Quantiser, StepFunction, step_function
from hqc.numerics.activations import Rectifier
from hqc.numerics.monotone_chain import Affine, Chain
from hqc.numerics.types import Codes, Rounding

HALF = Fraction(1, 2)
HARDWARE = (Rounding.FLOOR, Rounding.ROUND, Rounding.HALF_UP, Rounding.HALF_DOWN)


def rounded(x: Fraction, mode: Rounding) -> int:
    """Rounding by its definition."""
    down, up = math.floor(x), math.ceil(x)
    toward, away = (down, up) if x > 0 else (up, down)
    if mode in (Rounding.FLOOR, Rounding.CEIL, Rounding.DOWN, Rounding.UP):
        return {"FLOOR": down, "CEIL": up, "DOWN": toward, "UP": away}[mode.value]
    if x - down != HALF:
        return down if x - down < HALF else up
    even = down if down % 2 == 0 else up
    return {"ROUND": even, "HALF_UP": away, "HALF_DOWN": toward}[mode.value]


@dataclass(frozen=True)
class Case:
    """A requantisation: slope and offset per channel, a quantiser, and ranges."""

    a: tuple[Fraction, ...]
    b: tuple[Fraction, ...]
    scale: Fraction
    bits: int
    signed: bool
    mode: Rounding
    lo: tuple[int, ...]
    hi: tuple[int, ...]
    relu: bool = False

    @property
    def limits(self) -> tuple[int, int]:
        top = (1 << (self.bits - self.signed)) - 1
        return (-top - 1 if self.signed else 0), top

    def code(self, n: int, channel: int) -> int:
        """The original arithmetic, on rationals."""
        value = self.a[channel] * n + self.b[channel]
        if self.relu:
            value = max(value, Fraction(0))
        low, high = self.limits
        return max(low, min(high, rounded(value / self.scale, self.mode)))

    def table(self, channel: int) -> tuple[Codes, Codes]:
        n = np.arange(self.lo[channel], self.hi[channel] + 1)
        return n, np.array([self.code(int(i), channel) for i in n])

    def step_function(self) -> StepFunction:
        chain = Chain().then(Affine(self.a, self.b))
        if self.relu:
            chain = chain.then(Rectifier())
        low, high = self.limits
        quantiser = Quantiser((self.scale,), (0,), low, high, self.mode)
        return step_function(chain, quantiser, len(self.a))

    def smallest(self) -> Dyadic | None:
        return smallest_dyadic(
            self.step_function(), np.array(self.lo), np.array(self.hi), self.mode
        )


def column(values: Codes, channel: int, channels: int) -> Codes:
    """Accumulators of one channel among others that are zero."""
    out = np.zeros((len(values), channels), np.int64)
    out[:, channel] = values
    return out


def significant(m: int) -> int:
    """Bits of a multiplier without its trailing zeros, which are wires."""
    m = abs(int(m))
    return (m // (m & -m)).bit_length() if m else 0


def boundaries(codes: Codes, shift: int, mode: Rounding) -> Codes:
    """The smallest x for which x / 2**shift rounds to each code; found by trying."""
    found = {}
    for k in set(codes.tolist()):
        x = (k << shift) - (1 << shift) - 1
        while rounded(Fraction(x, 1 << shift), mode) < k:
            x += 1
        found[k] = x
    return np.array([found[int(k)] for k in codes])


def fast_boundaries(codes: Codes, shift: int, mode: Rounding) -> Codes:
    """The same by formula; `test_boundaries` holds the two against each other."""
    if mode is Rounding.FLOOR or shift == 0:
        return codes << shift
    half = (codes << shift) - (1 << (shift - 1))
    up = {
        Rounding.ROUND: codes % 2 == 0,
        Rounding.HALF_UP: codes > 0,
        Rounding.HALF_DOWN: codes <= 0,
    }[mode]
    return half + ~up


def exists(
    n: Codes, k: Codes, limits: tuple[int, int], multipliers: Codes, mode: Rounding
) -> tuple[int, int] | None:
    """A (multiplier, shift) among these, for any shift, that gives every code; None if none does.

    A multiplier m with a shift e beyond `span` moves by less than two codes over the range, so
    that larger shifts offer nothing new; negative shifts are multipliers with wires, tried as
    m * 2**s. So are two finer bits, which let the offset stand beside a tie.
    """
    low, high = limits
    multipliers = np.unique(np.concatenate([multipliers << fine for fine in range(3)]))
    free_down, free_up = k > low, k < high
    span = int(int(np.max(multipliers, initial=0)) * int(n[-1] - n[0])).bit_length() + 1
    wires = int(high - low).bit_length() + 1
    for e in range(-wires, span + 1):
        m = multipliers << max(0, -e)
        products = np.outer(m, n)
        shift = max(0, e)
        lowest = np.where(free_down, fast_boundaries(k, shift, mode) - products, -(2**60))
        highest = np.where(free_up, fast_boundaries(k + 1, shift, mode) - 1 - products, 2**60)
        fits = lowest.max(axis=1) <= highest.min(axis=1)
        if fits.any():
            return int(m[np.argmax(fits)]), e
    return None


def smaller(bits: int) -> Codes:
    """Every odd multiplier of fewer bits."""
    return np.arange(1, 1 << max(0, bits - 1), 2, dtype=np.int64)


def check(case: Case, limit_bits: int = 11) -> Dyadic | None:
    """The requantiser of a case gives every code, and no smaller one does."""
    f = case.step_function()
    d = case.smallest()
    channels = len(case.a)
    rows = reachable_thresholds(f, np.array(case.lo), np.array(case.hi))
    for c in range(channels):
        n, want = case.table(c)
        np.testing.assert_array_equal(f(column(n, c, channels))[:, c], want)
        counted = f.lo + (f.sign[c] * n[:, None] >= rows[c]).sum(axis=1)
        np.testing.assert_array_equal(counted, want)
        up, k = (n, want) if f.sign[c] > 0 else (-n[::-1], want[::-1])
        if d is None:
            continue
        np.testing.assert_array_equal(d(column(n, c, channels))[:, c], want)
        bits = significant(int(d.multiplier[c]))
        if len(set(want.tolist())) == 1:
            assert d.multiplier[c] == 0
            continue
        assert bits >= 1
        assert np.sign(d.multiplier[c]) == f.sign[c]
        if bits <= limit_bits:
            m = abs(int(d.multiplier[c]))
            own = np.array([m // (m & -m)])
            assert exists(up, k, case.limits, own, d.rounding), "the search is blind"
            found = exists(up, k, case.limits, smaller(bits), d.rounding)
            assert found is None, f"{case}: {d.multiplier[c]} >> {d.shift}, but {found} does it"
    if d is None:
        modes = {Rounding.FLOOR, case.mode} & set(HARDWARE)
        few = np.arange(1, 1 << 7, 2)
        tables = [case.table(c) for c in range(channels)]
        turned = [
            (n, k) if f.sign[c] > 0 else (-n[::-1], k[::-1]) for c, (n, k) in enumerate(tables)
        ]
        for mode in modes:
            assert not all(
                len(set(k.tolist())) == 1 or exists(n, k, case.limits, few, mode) for n, k in turned
            ), f"{case}: a {mode} requantiser exists"
    return d
