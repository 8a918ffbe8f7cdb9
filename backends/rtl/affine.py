"""Exact affine forms of wires: what sums and shifts of inputs are, whatever tree adds them up.

The form of a wire gives its tightest range, since inputs are independent of each other while the
operands of an adder are not: in `(a + b) - a` interval arithmetic counts a twice. It also says
what an adder tree computes, in milliseconds, for all inputs at once; the widths of wires never
enter, so a form together with ranges that hold it is a proof.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hqc.backends.rtl.builder import Builder
from hqc.backends.rtl.circuit import Wire
from hqc.numerics.types import Range


@dataclass(frozen=True)
class Affine:
    """`constant + sum of coefficients[v] * v` over independent variables v; no coefficient is 0."""

    coefficients: Mapping[int, int]
    constant: int = 0

    def plus(self, other: Affine, left: int = 0, right: int = 0, minus: bool = False) -> Affine:
        """`(self << left) + (other << right)`, or minus the second."""
        factor = -(1 << right) if minus else 1 << right
        found = {v: c << left for v, c in self.coefficients.items()}
        for variable, c in other.coefficients.items():
            total = found.get(variable, 0) + c * factor
            if total:
                found[variable] = total
            else:
                del found[variable]
        return Affine(found, (self.constant << left) + other.constant * factor)

    def times(self, factor: int) -> Affine:
        """The form multiplied by a number."""
        if factor == 0:
            return Affine({})
        return Affine({v: c * factor for v, c in self.coefficients.items()}, self.constant * factor)

    def shifted(self, shift: int) -> Affine | None:
        """The form divided by `2**shift`, None where some input would leave a remainder."""
        if shift <= 0:
            return self.times(1 << -shift)
        low = (1 << shift) - 1
        if any(c & low for c in self.coefficients.values()) or self.constant & low:
            return None
        return Affine({v: c >> shift for v, c in self.coefficients.items()}, self.constant >> shift)

    def bounds(self, variables: Mapping[int, Range] | Sequence[Range]) -> Range:
        """Its exact bounds, each variable anywhere within its own."""
        low = high = self.constant
        for variable, c in self.coefficients.items():
            held = variables[variable]
            low += c * (held.lo if c > 0 else held.hi)
            high += c * (held.hi if c > 0 else held.lo)
        return Range(low, high)

    @property
    def key(self) -> tuple[frozenset[tuple[int, int]], int]:
        """Equal for equal forms."""
        return frozenset(self.coefficients.items()), self.constant


class Sums:
    """Adds up wires of a builder, each sum with its tightest range, equal sums only once.

    Wires that did not come from here are the variables.
    """

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self._forms: dict[Wire, Affine] = {}
        self._known: dict[tuple[frozenset[tuple[int, int]], int], Wire] = {}

    def form(self, wire: Wire) -> Affine:
        """What a wire is, in terms of the variables."""
        found = self._forms.get(wire)
        if found is None:
            held = self.builder.ranges[wire]
            fixed = held.lo == held.hi
            found = self._forms[wire] = Affine({}, held.lo) if fixed else Affine({wire: 1})
            self._known.setdefault(found.key, wire)
        return found

    def plus(self, x: Wire, y: Wire, left: int = 0, right: int = 0, minus: bool = False) -> Wire:
        """`(x << left) + (y << right)`, or minus the second."""
        form = self.form(x).plus(self.form(y), left, right, minus)
        key = form.key
        if key not in self._known:
            self._known[key] = self._add(form, x, y, left, right, minus)
            self._forms.setdefault(self._known[key], form)
        return self._known[key]

    def _add(self, form: Affine, x: Wire, y: Wire, left: int, right: int, minus: bool) -> Wire:
        if not form.coefficients:
            return self.builder.constant(form.constant)
        within = form.bounds(self.builder.ranges)
        return self.builder.plus(x, y, left, right, minus, within=within)
