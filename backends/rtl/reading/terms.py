"""Expressions with the widths and the signs that Verilog gives them.

hqc writes expressions whose operands all have the width of their result, so that Verilog's rules
for contexts never apply; an expression in which they would is refused here. What is left means
the same modulo 2**width whatever is signed, but for comparisons, which keep that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hqc.backends.rtl.circuit import Wire
from hqc.backends.rtl.reading.text import Table

#: A rule of `readback.lark` and its parts.
Tree = tuple[Any, ...]
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


def typed(tree: Tree, signal: Callable[[str], Signal], tables: Mapping[str, Table]) -> Term:
    """The term of a tree of `readback.lark`.

    Raises:
        Malformed: widths differ, a bit is not there, or a name means nothing.
    """
    return _Typing(signal, tables).term(tree)


class _Typing:
    """A method for each rule of the grammar, with its parts as arguments."""

    def __init__(self, signal: Callable[[str], Signal], tables: Mapping[str, Table]) -> None:
        self.signal = signal
        self.tables = tables

    def term(self, tree: Tree) -> Term:
        rule, *parts = tree
        return _RULES[rule](self, *parts)

    def slice(self, name: str, *places: int) -> Slice:
        found = self.signal(name)
        low, width = span_of(name, *places, width=found.width)
        return Slice(found, low, width, found.signed and not places)

    def literal(self, atom: tuple[int, int]) -> Number:
        return Number(*literal_of(atom))

    def concatenation(self, *parts: Tree) -> Term:
        return cat([self.term(part) for part in parts])

    def repeat(self, count: int, tree: Tree) -> Repeat:
        bit = self.term(tree)
        if bit.width != 1:
            raise Malformed("a vector where a bit is meant")
        return Repeat(bit, repeated(count))

    def call(self, name: str, argument: Tree) -> Call:
        x, table = self.term(argument), self.tables.get(name)
        if table is None or x.width != table.codes:
            raise Malformed(f"{name} is no table of {x.width} bits")
        return Call(table, x, table.width)

    def choice(self, *parts: Tree) -> Choice:
        condition, x, y = (self.term(part) for part in parts)
        if condition.width != 1:
            raise Malformed("a choice by a vector")
        return Choice(condition, x, y, _common(x, y))

    def as_wide(self, part: Tree, *, kind: type[Not | Signed]) -> Not | Signed:
        x = self.term(part)
        return kind(x, x.width)

    def reduced(self, part: Tree, *, kind: str) -> Reduce:
        return Reduce(kind, self.term(part))

    def binary(self, left: Tree, right: Tree, *, kind: str) -> Binary:
        x, y = self.term(left), self.term(right)
        width = _common(x, y)
        return Binary(kind, x, y, 1 if kind == "at_least" else width)


_RULES: Mapping[str, Callable[..., Term]] = {
    **dict.fromkeys(("name", "bit", "slice"), _Typing.slice),
    "literal": _Typing.literal,
    "concatenation": _Typing.concatenation,
    "repeat": _Typing.repeat,
    "call": _Typing.call,
    "choice": _Typing.choice,
    "not_": partial(_Typing.as_wide, kind=Not),
    "as_signed": partial(_Typing.as_wide, kind=Signed),
    **{kind: partial(_Typing.reduced, kind=kind) for kind in ("all", "any")},
    **{
        kind: partial(_Typing.binary, kind=kind)
        for kind in ("plus", "minus", "times", "and_", "or_", "differ", "at_least")
    },
}


def cat(parts: Sequence[Term]) -> Term:
    """Parts as one term, the highest first."""
    return parts[0] if len(parts) == 1 else Cat(tuple(parts), sum(part.width for part in parts))


def code_of(value: int, width: int, signed: bool) -> int:
    """Bits as a number."""
    return value - (1 << width) if signed and value >> (width - 1) else value


def literal_of(atom: tuple[int, int]) -> tuple[int, int]:
    """Width and value of a literal; Malformed if it does not hold the value, or is too wide."""
    width, value = atom
    if not 0 < width <= WIDEST or value >> width:
        raise Malformed(f"{width}'d{value} does not hold its value")
    return width, value


def repeated(count: int) -> int:
    """How often a bit is repeated; Malformed if that is never, or too often."""
    if not 0 < count <= WIDEST:
        raise Malformed("a repetition of nothing, or of too much")
    return count


def span_of(name: str, *places: int, width: int) -> tuple[int, int]:
    """The lowest bit and the number of bits of a vector, of one bit of it, or of a slice.

    Raises:
        Malformed: the vector of that width does not have them.
    """
    high, low = {0: (width - 1, 0), 1: places * 2, 2: places}[len(places)]
    if not 0 <= low <= high < width:
        raise Malformed(f"{name}[{high}:{low}] is not within its {width} bits")
    return low, high - low + 1


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
