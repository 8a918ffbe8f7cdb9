"""Requantisation of one element in the form that costs least, of several that are all exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial

import numpy as np

from hqc.backends.rtl.affine import Sums
from hqc.backends.rtl.builder import Builder
from hqc.backends.rtl.circuit import Wire
from hqc.backends.rtl.cost import Form, cheapest
from hqc.backends.rtl.lowering.assign import assign
from hqc.backends.rtl.lowering.chains import Chains, odd_part
from hqc.backends.rtl.lowering.csd import digits, dot
from hqc.backends.rtl.lowering.regroup import Term, total
from hqc.backends.rtl.lowering.scaled import Scaled, fixed, offset, positive
from hqc.backends.rtl.lowering.scalings import Scaling, equivalents
from hqc.numerics.types import INT64_BITS, Codes, FixedType, Range

#: A way to compute a product and a sum.
Way = Callable[[Sums, Wire, int, int], Scaled]
#: The function is tabulated up to so many inputs; up to so many, it may be a table in logic.
_INPUTS, _ENTRIES = 1 << 20, 1 << 12
#: How many scalings are built to compare them.
_TRIED = 6


def requantiser(
    held: Range, factor: int, bias: int, fraction: int, type_: FixedType, chains: Chains
) -> Form:
    """The cheapest form of `assign((x * factor + bias) * 2**-fraction)`.

    Args:
        held: all that x can be.
        factor, bias, fraction: of the requantisation; not all forms multiply.
        type_: of the result.
        chains: found so far.
    """
    return cheapest(held, _forms(held, factor, bias, fraction, type_, chains))


def _forms(
    held: Range, factor: int, bias: int, fraction: int, type_: FixedType, chains: Chains
) -> Iterator[Form]:
    ways = (_in_pairs, _narrow_first, partial(_by_chain, chains))
    for way in ways:
        yield partial(_given, factor, bias, fraction, type_, way)
    values = _values(held, factor, bias, fraction, type_)
    if values is None:
        return
    slope = Fraction(factor) * Fraction(2) ** (type_.fraction - fraction)
    for scaling in equivalents(values, held.lo, slope, type_.limits)[:_TRIED]:
        for way in ways:
            yield partial(_scaled, scaling, type_, way)
    if len(values) <= _ENTRIES:
        entries = [int(v) for v in values]
        yield lambda b, x: b.lookup(x, held.lo, entries)


def _given(
    factor: int,
    bias: int,
    fraction: int,
    type_: FixedType,
    way: Way,
    b: Builder,
    x: Wire,
) -> Wire:
    """As the layer says."""
    found = way(Sums(b), x, factor, bias)
    return assign(b, found.wire, fraction - found.exponent, type_)


def _scaled(scaling: Scaling, type_: FixedType, way: Way, b: Builder, x: Wire) -> Wire:
    """By another scaling with the same results."""
    found = way(Sums(b), x, scaling.factor, scaling.offset)
    floor = b.shift(found.wire, scaling.shift - found.exponent)
    return b.clamp(floor, type_.limits.lo, type_.limits.hi)


# --- ways to `x * factor + bias`, not negative --------------------------------------------------


def _in_pairs(sums: Sums, x: Wire, factor: int, bias: int) -> Scaled:
    """Digit by digit, neighbours first."""
    return offset(sums, dot(sums, [Scaled(x)], [factor]), bias)


def _narrow_first(sums: Sums, x: Wire, factor: int, bias: int) -> Scaled:
    """Digit by digit and the bias, each time the two with the narrowest adder."""
    terms = [Term.of(sums, Scaled(x, *digit)) for digit in digits(factor)]
    if bias or not terms:
        terms.append(Term.of(sums, fixed(sums, bias)))
    return positive(sums, total(sums, terms).value)


def _by_chain(chains: Chains, sums: Sums, x: Wire, factor: int, bias: int) -> Scaled:
    """With sums that are used more than once."""
    if factor == 0:
        return offset(sums, None, bias)
    odd, power = odd_part(abs(factor))
    value = chains.of(odd).build(sums, Scaled(x)).times(power, factor < 0)
    return offset(sums, value, bias)


def _values(held: Range, factor: int, bias: int, fraction: int, type_: FixedType) -> Codes | None:
    """The result for every input, None where there are too many or they are too large."""
    if held.hi - held.lo >= _INPUTS:
        return None
    whole = held * Range(factor, factor) + Range(bias, bias)
    if whole.magnitude_bits + max(0, type_.fraction - fraction) > INT64_BITS:
        return None
    x = np.arange(held.lo, held.hi + 1)
    return type_.quantise(x * factor + bias, -fraction)
