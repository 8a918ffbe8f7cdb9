"""Expressions with the widths and the signs that Verilog gives them.

hqc writes expressions whose operands all have the width of their result, so that Verilog's rules
for contexts never apply; an expression in which they would is refused here. What is left means
the same modulo 2**width whatever is signed, but for comparisons, which keep that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hqc.backends.rtl.circuit import Wire
from hqc.backends.rtl.reading.text import Table

__all__ = [
    "Binary",
    "WIDEST",
    "Call",
    "Cat",
    "Choice",
    "Malformed",
    "Not",
    "Number",
    "Reduce",
    "Repeat",
    "Signal",
    "Signed",
    "Slice",
    "Term",
    "as_slice",
    "typed",
]


#: Bits of the widest wire of a circuit that is read.
WIDEST = 64


class Malformed(Exception):
    """Something that hqc does not write; says what."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A named vector.

    Attributes:
        wire: whose value it is, or of another numbering of the caller's.
        width, signed: as declared.
        stage: how many registers lie between the inputs and it; None for a constant.
    """

    wire: Wire
    width: int
    signed: bool
    stage: int | None


@dataclass(frozen=True, slots=True)
class Slice:
    """Bits `low` and up of a signal extended without end: `floor(x / 2**low) mod 2**width`.

    Attributes:
        signal, low, width: as above.
        signed: whether Verilog takes it for a signed number.
    """

    signal: Signal
    low: int
    width: int
    signed: bool = False


@dataclass(frozen=True, slots=True)
class Number:
    """A literal."""

    width: int
    value: int


@dataclass(frozen=True, slots=True)
class Cat:
    """Parts, the highest first."""

    parts: tuple[Term, ...]
    width: int


@dataclass(frozen=True, slots=True)
class Repeat:
    """A bit, many times."""

    bit: Term
    width: int


@dataclass(frozen=True, slots=True)
class Not:
    """Each bit inverted."""

    x: Term
    width: int


@dataclass(frozen=True, slots=True)
class Reduce:
    """Whether all ("all") or any ("any") bits are 1."""

    kind: str
    x: Term
    width: int = 1


@dataclass(frozen=True, slots=True)
class Binary:
    """`kind` is "plus", "minus", "times", "and_", "or_", "differ" or "at_least"."""

    kind: str
    x: Term
    y: Term
    width: int


@dataclass(frozen=True, slots=True)
class Choice:
    """x where the condition is 1, else y."""

    condition: Term
    x: Term
    y: Term
    width: int


@dataclass(frozen=True, slots=True)
class Signed:
    """The same bits, a signed number to Verilog."""

    x: Term
    width: int


@dataclass(frozen=True, slots=True)
class Call:
    """A table at a code."""

    table: Table
    x: Term
    width: int


Term = Slice | Number | Cat | Repeat | Not | Reduce | Binary | Choice | Signed | Call


def typed(
    tree: tuple[Any, ...], signal: Callable[[str], Signal], tables: Mapping[str, Table]
) -> Term:
    """The term of a tree of `readback.lark`.

    Raises:
        Malformed: widths differ, a bit is not there, or a name means nothing.
    """
    return _Typing(signal, tables).term(tree)


class _Typing:
    def __init__(self, signal: Callable[[str], Signal], tables: Mapping[str, Table]) -> None:
        self.signal = signal
        self.tables = tables

    def term(self, tree: tuple[Any, ...]) -> Term:
        kind, *parts = tree
        match kind:
            case "name":
                found = self.signal(parts[0])
                return Slice(found, 0, found.width, found.signed)
            case "bit":
                return self._slice(parts[0], parts[1], parts[1])
            case "slice":
                return self._slice(*parts)
            case "literal":
                width, value = parts[0]
                if not 0 < width <= WIDEST or value >> width:
                    raise Malformed(f"{width}'d{value} does not hold its value")
                return Number(width, value)
            case "concatenation":
                held = tuple(self.term(part) for part in parts)
                return Cat(held, sum(part.width for part in held)) if len(held) > 1 else held[0]
            case "repeat":
                bit = self._bit(parts[1])
                if not 0 < parts[0] <= WIDEST:
                    raise Malformed("a repetition of nothing, or of too much")
                return Repeat(bit, parts[0])
            case "call":
                return self._call(*parts)
            case "choice":
                condition, x, y = (self.term(part) for part in parts)
                if condition.width != 1:
                    raise Malformed("a choice by a vector")
                return Choice(condition, x, y, _common(x, y))
            case "not_":
                x = self.term(parts[0])
                return Not(x, x.width)
            case "all" | "any":
                return Reduce(kind, self.term(parts[0]))
            case "as_signed":
                x = self.term(parts[0])
                return Signed(x, x.width)
        x, y = (self.term(part) for part in parts)
        width = _common(x, y)
        return Binary(kind, x, y, 1 if kind == "at_least" else width)

    def _slice(self, name: str, high: int, low: int) -> Slice:
        found = self.signal(name)
        if not 0 <= low <= high < found.width:
            raise Malformed(f"{name}[{high}:{low}] is not within its {found.width} bits")
        return Slice(found, low, high - low + 1)

    def _bit(self, tree: tuple[Any, ...]) -> Term:
        found = self.term(tree)
        if found.width != 1:
            raise Malformed("a vector where a bit is meant")
        return found

    def _call(self, name: str, argument: tuple[Any, ...]) -> Call:
        x, table = self.term(argument), self.tables.get(name)
        if table is None or x.width != table.codes:
            raise Malformed(f"{name} is no table of {x.width} bits")
        return Call(table, x, table.width)


def _common(x: Term, y: Term) -> int:
    if x.width != y.width:
        raise Malformed(f"operands of {x.width} and {y.width} bits")
    return x.width


def as_slice(term: Term) -> Slice | None:
    """A term as bits of one signal, with its extension; None if it is something else."""
    match term:
        case Slice():
            return term
        case Repeat(bit, width):
            held = as_slice(bit)
            return _sign(held, width) if held is not None else None
        case Cat(parts, _):
            found = as_slice(parts[-1])
            for part in reversed(parts[:-1]):
                found = _above(part, found) if found is not None else None
            return found
    return None


def _sign(bit: Slice, width: int) -> Slice | None:
    """Copies of a sign."""
    x = bit.signal
    return Slice(x, bit.low, width) if x.signed and bit.low == x.width - 1 else None


def _above(part: Term, found: Slice) -> Slice | None:
    """A slice and what stands above it, as one slice."""
    x, end = found.signal, found.low + found.width
    if isinstance(part, Number):
        above = part.value == 0 and not x.signed and end >= x.width
        return Slice(x, found.low, found.width + part.width) if above else None
    held = as_slice(part)
    if held is None or held.signal != x:
        return None
    extends = x.signed and held.low >= x.width - 1 and end >= x.width
    if held.low == end or extends:
        return Slice(x, found.low, found.width + held.width)
    return None
