"""What circuits cost, by counting: estimates that need no synthesis, to choose between forms."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hqc.backends.rtl import circuit as ops
from hqc.backends.rtl.builder import Builder
from hqc.backends.rtl.circuit import Circuit, Op, Wire, operands, width_of
from hqc.numerics.types import Range, Rounding

#: A way to compute the result from the argument's wire.
Form = Callable[[Builder, Wire], Wire]
#: Inputs of one look-up table, and bits of its truth table.
_LUT_INPUTS, _LUT_BITS = 6, 64


def adder_bits(circuit: Circuit) -> int:
    """Full adders of all sums and differences: each takes about one look-up table."""
    return sum(
        _adder(op, circuit, circuit.ranges[wire])
        for wire, op in enumerate(circuit.ops)
        if isinstance(op, ops.Add)
    )


def depth(circuit: Circuit) -> int:
    """Adders on the longest way."""
    found: list[int] = []
    for op in circuit.ops:
        found.append(
            isinstance(op, ops.Add) + max((found[wire] for wire in operands(op)), default=0)
        )
    return max(found, default=0)


def luts(circuit: Circuit) -> float:
    """An estimate of the 6-input look-up tables of a circuit."""
    return sum(_luts(op, circuit, circuit.ranges[w]) for w, op in enumerate(circuit.ops))


def cheapest(held: Range, forms: Iterable[Form]) -> Form:
    """The form of a function of one argument, which can be `held`, that takes the fewest tables."""

    def cost(form: Form) -> float:
        b = Builder([held])
        return luts(b.finish([form(b, b.inputs[0])]))

    return min(forms, key=cost)


def _adder(op: ops.Add, circuit: Circuit, result: Range) -> int:
    """Bits of the result behind those that only one operand has: they need no carry.

    A lower bit of what is subtracted has to be negated, so it stays in the chain.
    """
    low_x, low_y = (_zeros(circuit, wire, by) for wire, by in ((op.x, op.left), (op.y, op.right)))
    x, y = (circuit.ranges[wire] for wire in (op.x, op.y))
    for low, other, by in ((low_x, y, op.right), (low_y, x, op.left)):
        if low >= width_of(other) + by and other.lo >= 0 and not op.minus:
            return 0  # the operands do not overlap
    return max(0, width_of(result) - (low_y if op.minus else max(low_x, low_y)))


def _zeros(circuit: Circuit, wire: Wire, shift: int) -> int:
    """Low bits of a shifted operand that are always 0."""
    op = circuit.ops[wire]
    if isinstance(op, ops.Constant) and op.value:
        return shift + (op.value & -op.value).bit_length() - 1
    return shift


def _luts(op: Op, circuit: Circuit, result: Range) -> float:
    ranges = circuit.ranges
    match op:
        case ops.Add():
            return _adder(op, circuit, result)
        case ops.RoundShift(_, shift, rounding):
            exact = shift <= 0 or rounding is Rounding.FLOOR
            return 0 if exact else width_of(result) + shift / (_LUT_INPUTS - 1)
        case ops.Clamp(x, lo, hi):
            bounds = sum(b not in (None, 0) for b in (lo, hi))
            return width_of(result) / 2 + bounds * _compare(width_of(ranges[x]))
        case ops.Product(x, y):
            return width_of(ranges[x]) * width_of(ranges[y])
        case ops.Larger(x, y):
            return width_of(result) / 2 + max(width_of(ranges[x]), width_of(ranges[y])) / 2
        case ops.AtLeast(x, threshold):
            return 0 if threshold == 0 else _compare(width_of(ranges[x]))
        case ops.Lookup(x, _, table):
            return width_of(result) * table_bit(len(table))
        case ops.Select():
            return width_of(result) / 2
    return 0


def _compare(bits: int) -> float:
    """A comparison with a constant: each table has an input from the one before."""
    return bits / (_LUT_INPUTS - 1)


def table_bit(entries: int) -> float:
    """One bit of a table."""
    return max(0.25, entries / _LUT_BITS) if entries > 2 else 0
