"""What every wire of a circuit can be, derived anew: exact affine forms and reachable intervals.

Nothing here trusts the ranges that a circuit declares. Forms are carried through the operations
that are linear, so a sum of many terms has the interval of its terms, not that of its last
addition, and its coefficients can be compared with the weights of a layer, as integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hqc.backends.rtl import circuit as ops
from hqc.backends.rtl.circuit import Circuit, Op, Wire, bounds_of, kept, operands
from hqc.ir import Array
from hqc.numerics.types import INT64_BITS, Range


@dataclass(frozen=True, eq=False)
class Form:
    """`sum(coefficients * inputs) + constant`, exactly.

    Attributes:
        coefficients: one per input of the circuit; int64 where nothing can overflow, else
            Python's integers.
        constant: the rest.
        support: bit i is set if input i may have a coefficient.
        top: no smaller than any coefficient, and than any value, of this form in magnitude.
    """

    coefficients: Array
    constant: int
    support: int
    top: int

    def scaled(self, factor: int) -> Form:
        """The form times a number."""
        top = self.top * abs(factor)
        held = self.coefficients.astype(_kind(top)) * factor
        return Form(held, self.constant * factor, self.support, top)

    def plus(self, other: Form) -> Form:
        """The sum of two forms."""
        top = self.top + other.top
        kind = _kind(top)
        held = self.coefficients.astype(kind, copy=False)
        held = held + other.coefficients.astype(kind, copy=False)
        constant = self.constant + other.constant
        return Form(held, constant, self.support | other.support, top)

    def divided(self, shift: int) -> Form | None:
        """The form divided by 2**shift, if that is exact for every input."""
        held = self.coefficients if shift <= INT64_BITS else self.coefficients.astype(object)
        mask = (1 << shift) - 1
        if self.constant & mask or np.any(held & mask):
            return None
        return Form(held >> shift, self.constant >> shift, self.support, self.top)


def _kind(top: int) -> Any:
    return np.int64 if top.bit_length() <= INT64_BITS else object


@dataclass(frozen=True, eq=False)
class Forms:
    """What is known of the wires of a circuit.

    Attributes:
        forms: of each wire, None where it is not affine.
        reach: an interval that holds every value each wire takes.
        same: of each wire, the earliest one that always has its value.
        doubts: wires whose operand may leave what the operation is defined for, as far as
            intervals tell; only an enumeration can say more.
    """

    forms: tuple[Form | None, ...]
    reach: tuple[Range, ...]
    same: tuple[Wire, ...]
    doubts: frozenset[Wire]


def derive(circuit: Circuit, inputs: Sequence[Range]) -> Forms:
    """Forms and intervals of all wires.

    Args:
        circuit: whose declared ranges are not looked at.
        inputs: what each input can be.
    """
    return _Derivation(circuit, inputs).run()


class _Derivation:
    def __init__(self, circuit: Circuit, inputs: Sequence[Range]) -> None:
        self.circuit = circuit
        self.inputs = inputs
        tops = [max(abs(r.lo), abs(r.hi)) for r in inputs]
        self.tops = [max(1, top) for top in tops]
        kind = _kind(max(tops, default=0))
        self.low: Array = np.array([r.lo for r in inputs], kind)
        self.high: Array = np.array([r.hi for r in inputs], kind)
        self.forms: list[Form | None] = []
        self.reach: list[Range] = []
        self.exact: list[bool] = []
        self.same: list[Wire] = []
        self.doubts: set[Wire] = set()

    def run(self) -> Forms:
        for wire, op in enumerate(self.circuit.ops):
            same = kept(op, self.reach)
            self.same.append(wire if same is None else self.same[same])
            form = self._form(op) if same is None else self.forms[same]
            bounds, exact = self._bounds(wire, op, form)
            self.forms.append(form)
            self.reach.append(bounds)
            self.exact.append(exact)
        return Forms(tuple(self.forms), tuple(self.reach), tuple(self.same), frozenset(self.doubts))

    def _bounds(self, wire: Wire, op: Op, form: Form | None) -> tuple[Range, bool]:
        """An interval, and whether it is known to be that of the wire's affine form."""
        if isinstance(op, ops.Input):
            return self.inputs[op.index], True
        try:
            bounds = bounds_of(op, self.reach)
        except ValueError:
            self.doubts.add(wire)
            bounds = _anything(op, self.reach)
        if form is None or self._independent(op):
            return bounds, form is not None
        held = self._interval(form)
        return Range(max(bounds.lo, held.lo), min(bounds.hi, held.hi)), True

    def _independent(self, op: Op) -> bool:
        """Whether the operands have exact intervals and share no input, so the result is exact."""
        used = operands(op)
        if not all(self.exact[wire] for wire in used):
            return False
        if len(used) < 2:
            return True
        first, second = (self.forms[wire] for wire in used[:2])
        return first is not None and second is not None and not first.support & second.support

    def _interval(self, form: Form) -> Range:
        kind = form.coefficients.dtype
        ends = [form.coefficients * end.astype(kind, copy=False) for end in (self.low, self.high)]
        low, high = np.minimum(*ends).sum(), np.maximum(*ends).sum()
        return Range(int(low) + form.constant, int(high) + form.constant)

    # --- forms ------------------------------------------------------------------------------

    def _form(self, op: Op) -> Form | None:
        match op:
            case ops.Input(index):
                return self._input(index)
            case ops.Constant(value):
                return self._constant(value)
            case ops.Add(x, y, left, right, minus):
                return self._sum(x, y, 1 << left, -(1 << right) if minus else 1 << right)
            case ops.RoundShift(x, shift):
                form = self.forms[x]
                if form is None:
                    return None
                return form.scaled(1 << -shift) if shift <= 0 else form.divided(shift)
            case ops.Product(x, y):
                return self._product(x, y)
            case _:
                return None

    def _input(self, index: int) -> Form:
        """An input that can be one value only is that value."""
        bounds = self.inputs[index]
        if bounds.lo == bounds.hi:
            return self._constant(bounds.lo)
        held = np.zeros(len(self.inputs), np.int64)
        held[index] = 1
        return Form(held, 0, 1 << index, self.tops[index])

    def _constant(self, value: int) -> Form:
        return Form(np.zeros(len(self.inputs), np.int64), value, 0, max(1, abs(value)))

    def _sum(self, x: Wire, y: Wire, left: int, right: int) -> Form | None:
        a, b = self.forms[x], self.forms[y]
        if a is None or b is None:
            return None
        a = a if left == 1 else a.scaled(left)
        return a.plus(b if right == 1 else b.scaled(right))

    def _product(self, x: Wire, y: Wire) -> Form | None:
        a, b = self.forms[x], self.forms[y]
        if a is None or b is None or (a.support and b.support):
            return None
        return b.scaled(a.constant) if b.support else a.scaled(b.constant)


def _anything(op: Op, reach: Sequence[Range]) -> Range:
    """Bounds of an operation whose operand may not be one it is defined for."""
    if isinstance(op, ops.Lookup):
        return Range(min(op.table), max(op.table))
    wires = operands(op)[1:]
    found = reach[wires[0]]
    for wire in wires[1:]:
        found = found.join(reach[wire])
    return found
