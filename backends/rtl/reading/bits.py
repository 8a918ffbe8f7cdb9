"""Concatenations of parts of vectors, bit by bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hqc.backends.rtl.reading.terms import Malformed, code_of, literal_of, repeated, span_of
from hqc.numerics.types import Codes, FixedType

#: Bits that are no bit of a vector.
ZERO, ONE = -1, -2


#: Where a vector begins in a numbering of bits, and how many it has.
Span = tuple[int, int]


def bits_of(tree: tuple[Any, ...], vectors: Mapping[str, Span]) -> Codes:
    """Where each bit of an expression comes from, the lowest first.

    Args:
        tree: names, slices, bits, repetitions, literals and concatenations of them.
        vectors: what the names are.

    Returns:
        Numbers of bits, `ZERO` and `ONE`.

    Raises:
        Malformed: it is something else.
    """
    kind, *parts = tree
    match kind:
        case "concatenation":
            return np.concatenate([bits_of(part, vectors) for part in reversed(parts)])
        case "literal":
            width, value = literal_of(parts[0])
            return np.where([value >> bit & 1 for bit in range(width)], ONE, ZERO)
        case "repeat":
            bit = bits_of(parts[1], vectors)
            if len(bit) != 1:
                raise Malformed("a vector where a bit is meant")
            return np.repeat(bit, repeated(parts[0]))
        case "name" | "bit" | "slice":
            name, *places = parts
            if name not in vectors:
                raise Malformed(f"{name} is not known here")
            start, width = vectors[name]
            low, bits = span_of(name, *places, width=width)
            return np.arange(start + low, start + low + bits)
    raise Malformed("no wiring")


@dataclass(frozen=True, eq=False)
class Elements:
    """The elements of some vectors.

    Attributes:
        start, width, signed: of each element: its lowest bit, bits, whether the highest is a sign.
        of_bit: the element that each bit is of.
    """

    start: Codes
    width: Codes
    signed: Codes
    of_bit: Codes

    @classmethod
    def of(cls, vectors: Sequence[tuple[int, FixedType]]) -> Elements:
        """Of vectors that stand one behind the other: (elements, type) of each."""
        counts = [size for size, _ in vectors]
        width = np.repeat([type_.width for _, type_ in vectors], counts).astype(np.int64)
        signed = np.repeat([int(type_.signed) for _, type_ in vectors], counts).astype(np.int64)
        start = np.cumsum(width) - width
        return cls(start, width, signed, np.repeat(np.arange(len(width)), width))

    def picked(self, bits: Codes, signed: bool) -> tuple[Codes, set[int]]:
        """Elements that some fields are, each at the field's width.

        Args:
            bits: (fields, width).
            signed: how literals are read.

        Returns:
            Numbers of elements, -1 for a literal, and the values of those.

        Raises:
            Malformed: a field is no element.
        """
        first = bits[:, 0]
        literal = first < 0
        element = np.where(literal, 0, self.of_bit[np.maximum(first, 0)])
        place = np.arange(bits.shape[1])
        start, width = self.start[element][:, None], self.width[element][:, None]
        sign = np.where(self.signed[element][:, None] == 1, start + width - 1, ZERO)
        wanted = np.where(place < width, start + place, sign)
        right = np.where(literal, np.all(bits < 0, axis=1), np.all(bits == wanted, axis=1))
        if not np.all(right):
            raise Malformed(f"field {int(np.argmin(right))} is no element")
        return np.where(literal, -1, element), {_value(row, signed) for row in bits[literal]}


def _value(row: Codes, signed: bool) -> int:
    bits = [int(bit == ONE) for bit in row]
    return code_of(sum(bit << place for place, bit in enumerate(bits)), len(bits), signed)
