"""One Verilog expression for each operation, and the words of its comment.

Every expression has exactly the width of the wire it drives, and so have the operands of every
`+`, `-`, `*`, `&` between vectors, `>=` and `?:`. They are names, part-selects and concatenations,
all unsigned to Verilog: no meaning rests on the sign of a declaration or on the width of a
context. `x{n}` below is "the low n bits of x, extended by its own sign or by 0":

    operand   NAME | NAME[i] | NAME[h:l] | {FILL, operand} | FILL
    FILL      NAME[w-1] | {k{NAME[w-1]}}   sign of a signed wire;   k'd0   above an unsigned one

    Input       x[h:l]                     the port of the module
    Constant    W'd<value mod 2**W>
    Add         {HIGH, low bits of one operand, k'd0}, parts of no width left out;
                HIGH = operand + operand | operand - operand, or an operand alone where the other
                one ends below it; for `-` a shifted first operand is {operand, k'd0}
    RoundShift  operand                    floor, and multiplication ({operand, k'd0})
                operand + {k'd0, BIT}      other modes; BIT: `|` and `&` of bits of x and of `|` of
                                           its fraction, the table stands at `_carry`;
                operand ^ (BIT)            the same for a result of one bit
    Clamp       operand & {W{~x[w-1]}}                       ReLU
                (GE) ? W'dHI : (GE) ? operand : W'dLO        either part may be missing
    AtLeast     GE
    Wrap        operand
    Product     operand * operand          $signed(operand) * $signed(operand) if one is signed
    Larger      (operand >= operand) ? operand : operand     $signed(...) on both sides likewise
    Lookup      t<k>(NAME)                 a function of the module
    Select      NAME ? operand : operand

GE is `x >= constant` without a comparator: bits from the highest down, `b & (rest)` where the
constant has a one, `b | (rest)` where it has a zero, runs of one kind as `(&x[h:l])`, `(|x[h:l])`,
ending at the lowest one of the constant; the sign bit stands as `~x[w-1]` (adding 2**(w-1) to both
sides makes them unsigned).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hqc.backends.rtl import circuit as ops
from hqc.backends.rtl.circuit import Op, Wire, width_of
from hqc.backends.rtl.emission.widths import adder, common_width
from hqc.numerics.types import Range, Rounding


def literal(width: int, value: int) -> str:
    """A number in two's complement."""
    return f"{width}'d{value & ((1 << width) - 1)}"


def concatenate(parts: Sequence[str]) -> str:
    """Parts from the highest to the lowest bits; empty ones are left out."""
    kept = [part for part in parts if part]
    return kept[0] if len(kept) == 1 else "{" + ", ".join(kept) + "}"


@dataclass(frozen=True)
class Operand:
    """A named vector and what it can be."""

    name: str
    bounds: Range

    @property
    def width(self) -> int:
        """Bits of the vector."""
        return width_of(self.bounds)

    @property
    def signed(self) -> bool:
        """Whether its highest bit is a sign."""
        return self.bounds.lo < 0

    @property
    def sign(self) -> str:
        """The highest bit."""
        return self.bit(self.width - 1)

    def bit(self, place: int) -> str:
        """One bit, beyond the vector its sign."""
        if place >= self.width and not self.signed:
            return "1'd0"
        return f"{self.name}[{min(place, self.width - 1)}]"

    def select(self, low: int, width: int) -> str:
        """Bits within the vector."""
        if width == self.width:
            return self.name
        return self.bit(low) if width == 1 else f"{self.name}[{low + width - 1}:{low}]"

    def bits(self, low: int, width: int) -> str:
        """Bits of the vector as extended without end; "" for none."""
        if width <= 0:
            return ""
        inside = max(0, min(width, self.width - low))
        if inside == width:
            return self.select(low, width)
        more = width - inside
        fill = self.sign if more == 1 else f"{{{more}{{{self.sign}}}}}"
        if not self.signed:
            fill = literal(more, 0)
        return concatenate([fill, self.select(low, inside) if inside else ""])

    def any(self, low: int, width: int) -> str:
        """Whether one of the bits is 1; "" if none can be."""
        inside = min(width, self.width - low)
        if width <= 0 or (inside <= 0 and not self.signed):
            return ""
        if inside <= 0:
            return self.sign
        return self.bit(low) if inside == 1 else f"(|{self.select(low, inside)})"


def expression(
    op: Op,
    ranges: Sequence[Range],
    result: Range,
    name: Callable[[Wire], str],
    tables: Callable[[ops.Lookup, Range], str],
) -> str:
    """The expression of an operation.

    Args:
        op: not an `Input`, which is a slice of a port.
        ranges: of the wires, by number.
        result: what it can be.
        name: how the operation reads a wire.
        tables: the function for a lookup and the range of the result.
    """

    def of(wire: Wire) -> Operand:
        return Operand(name(wire), ranges[wire])

    width = width_of(result)
    match op:
        case ops.Constant(value):
            return literal(width, value)
        case ops.Add():
            return _add(op, of(op.x), of(op.y), ranges, result)
        case ops.RoundShift(x, shift, rounding):
            return _round(of(x), shift, rounding, width)
        case ops.Clamp(x, lo, hi):
            return _clamp(of(x), lo, hi, width)
        case ops.Wrap(x, _, _):
            return of(x).bits(0, width)
        case ops.Product(x, y):
            sides = of(x), of(y)
            return " * ".join(_numbers(sides, width))
        case ops.Larger(x, y):
            sides = of(x), of(y)
            left, right = _numbers(sides, common_width(ranges[x], ranges[y]))
            return f"({left} >= {right}) ? {sides[0].bits(0, width)} : {sides[1].bits(0, width)}"
        case ops.AtLeast(x, threshold):
            return at_least(of(x), threshold)
        case ops.Lookup(x, _, _):
            return f"{tables(op, result)}({name(x)})"
        case ops.Select(bit, x, y):
            return f"{name(bit)} ? {of(x).bits(0, width)} : {of(y).bits(0, width)}"
    raise TypeError(f"{op} has no expression")


def _numbers(sides: Sequence[Operand], width: int) -> list[str]:
    """Both operands as numbers of one width and kind."""
    texts = [side.bits(0, width) for side in sides]
    return [f"$signed({t})" for t in texts] if any(s.signed for s in sides) else texts


def _add(op: ops.Add, x: Operand, y: Operand, ranges: Sequence[Range], result: Range) -> str:
    shape = adder(op, ranges, result)
    gap, bits = abs(op.left - op.right), shape.bits
    zeros = literal(shape.zeros, 0) if shape.zeros else ""
    low = (x if shape.low_first else y).bits(0, shape.low)
    if not shape.added:
        return concatenate([(y if shape.low_first else x).bits(0, bits), low, zeros])
    if shape.low_first:
        left, right = x.bits(gap, bits), y.bits(0, bits)
    elif op.minus:
        left = concatenate([x.bits(0, bits - gap), literal(min(gap, bits), 0)])
        right = y.bits(0, bits)
    else:
        left, right = x.bits(0, bits), y.bits(gap, bits)
    return concatenate([f"{left} {'-' if op.minus else '+'} {right}", low, zeros])


def _round(x: Operand, shift: int, rounding: Rounding, width: int) -> str:
    if shift <= 0:
        zeros = min(-shift, width)
        return concatenate([x.bits(0, width - zeros), literal(zeros, 0) if zeros else ""])
    floor, carry = x.bits(shift, width), _carry(x, shift, rounding)
    if not carry:
        return floor
    if width == 1:
        return f"{floor} ^ ({carry})"
    return f"{floor} + {{{literal(width - 1, 0)}, {carry}}}"


def _carry(x: Operand, shift: int, rounding: Rounding) -> str:
    """What is added to the floor, a bit; "" if it is always 0.

    With h the highest bit of the fraction, r whether a lower one is set, s the sign, l the lowest
    bit of the floor: ROUND h & (r | l), HALF_UP h & (r | ~s), HALF_DOWN h & (r | s); with r
    including h: CEIL r, DOWN r & s, UP r & ~s. Where there is no sign, s is 0.
    """
    sign, no_sign = (x.sign, f"~{x.sign}") if x.signed else ("", "1")
    if rounding in (Rounding.FLOOR, Rounding.CEIL, Rounding.DOWN, Rounding.UP):
        rest = x.any(0, shift)
        also = {Rounding.CEIL: "1", Rounding.DOWN: sign, Rounding.UP: no_sign}.get(rounding, "")
        return _and(rest, also)
    half = x.bit(shift - 1) if x.signed or shift <= x.width else ""
    below = x.bit(shift) if x.signed or shift < x.width else ""
    up = {Rounding.ROUND: below, Rounding.HALF_UP: no_sign, Rounding.HALF_DOWN: sign}[rounding]
    return _and(half, _or(x.any(0, shift - 1), up))


def _and(x: str, y: str) -> str:
    if not x or not y:
        return ""
    return x if y == "1" else f"{x} & {y}"


def _or(x: str, y: str) -> str:
    if not x or not y:
        return x or y
    return "1" if y == "1" else f"({x} | {y})"


def _clamp(x: Operand, lo: int | None, hi: int | None, width: int) -> str:
    value = x.bits(0, width)
    if lo == 0 and hi is None and x.signed:
        return f"{value} & {f'{{{width}{{~{x.sign}}}}}' if width > 1 else f'~{x.sign}'}"
    text = value
    if lo is not None and lo > x.bounds.lo:
        text = f"({_nearest(x, lo, lo + 1)}) ? {value} : {literal(width, lo)}"
    if hi is not None and hi < x.bounds.hi:
        text = f"({_nearest(x, hi + 1, hi)}) ? {literal(width, hi)} : {text}"
    return text


def _nearest(x: Operand, first: int, second: int) -> str:
    """At the threshold between the two, both sides of a clamp are equal: the shorter test."""
    tests = [at_least(x, t) for t in (first, second) if x.bounds.lo < t <= x.bounds.hi]
    return min(tests, key=len)


def at_least(x: Operand, threshold: int) -> str:
    """Whether `x >= threshold`, a bit."""
    if threshold <= x.bounds.lo or threshold > x.bounds.hi:
        return literal(1, int(threshold <= x.bounds.lo))
    top = x.width - 1
    number = threshold + (1 << top) if x.signed else threshold
    low = (number & -number).bit_length() - 1
    text = ""
    while low <= top:
        one, high = number >> low & 1, low
        while high < top - x.signed and number >> high + 1 & 1 == one:
            high += 1
        if high == top and x.signed:
            part = f"~{x.sign}"
        elif high == low:
            part = x.bit(low)
        else:
            part = f"({'&' if one else '|'}{x.select(low, high - low + 1)})"
        rest = f"({text})" if " " in text else text
        text = f"{part} {'&' if one else '|'} {rest}" if text else part
        low = high + 1
    return text


def words(op: Op) -> str:
    """An operation as its comment says it."""
    match op:
        case ops.Input(index):
            return f"input {index}"
        case ops.Constant(value):
            return f"{value}"
        case ops.Add(x, y, left, right, minus):
            return f"{_shifted(x, left)} {'-' if minus else '+'} {_shifted(y, right)}"
        case ops.RoundShift(x, shift, rounding):
            return f"v{x} * 2**{-shift}" if shift <= 0 else f"v{x} / 2**{shift} {rounding.value}"
        case ops.Clamp(x, lo, hi):
            text = f"v{x}" if lo is None else f"max(v{x}, {lo})"
            return text if hi is None else f"min({text}, {hi})"
        case ops.Wrap(x, width, signed):
            return f"v{x} wrapped to {'' if signed else 'u'}int{width}"
        case ops.Product(x, y):
            return f"v{x} * v{y}"
        case ops.Larger(x, y):
            return f"max(v{x}, v{y})"
        case ops.AtLeast(x, threshold):
            return f"v{x} >= {threshold}"
        case ops.Lookup(x, first, _):
            return f"table[v{x} - {first}]" if first >= 0 else f"table[v{x} + {-first}]"
        case ops.Select(bit, x, y):
            return f"v{bit} ? v{x} : v{y}"
    raise TypeError(f"{op} has no words")


def _shifted(x: Wire, shift: int) -> str:
    return f"(v{x} << {shift})" if shift else f"v{x}"
