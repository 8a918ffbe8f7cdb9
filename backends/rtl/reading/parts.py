"""Ports and blocks of a top module as one numbering of elements and of their bits."""

from __future__ import annotations

import numpy as np

from hqc.backends.rtl.circuit import held_by
from hqc.backends.rtl.reading.bits import Elements, Span
from hqc.backends.rtl.reading.terms import Malformed
from hqc.numerics.types import Codes, FixedType, Range


def held(type_: FixedType) -> Range:
    """Every code that bits of a type can be."""
    return held_by(type_.width, type_.signed)


class Parts:
    """What has elements so far, by name, in order."""

    def __init__(self) -> None:
        self.types: dict[str, FixedType] = {}
        self.sizes: dict[str, int] = {}
        self.firsts: dict[str, int] = {}
        self.count = self._bits = 0
        self._elements: Elements | None = None

    def add(self, name: str, size: int, type_: FixedType) -> Span:
        """Number the elements of a port or block; the bits they have."""
        if name in self.types:
            raise Malformed(f"two blocks are called {name}")
        self.firsts[name], self.types[name], self.sizes[name] = self.count, type_, size
        self.count += size
        start, self._bits = self._bits, self._bits + size * type_.width
        self._elements = None
        return start, size * type_.width

    def picked(self, bits: Codes, signed: bool) -> tuple[Codes, set[int]]:
        """Elements that rows of bits are, as `Elements.picked` says."""
        if self._elements is None:
            vectors = [(self.sizes[name], self.types[name]) for name in self.types]
            self._elements = Elements.of(vectors)
        return self._elements.picked(bits, signed)

    def owner(self, element: int) -> str:
        """The part an element is of."""
        if not 0 <= element < self.count:
            raise Malformed("an element of nothing")
        return next(name for name, first in reversed(self.firsts.items()) if first <= element)

    def owners(self, elements: Codes) -> tuple[str, ...]:
        """The parts some elements are of, in order; the first part if there is none."""
        real = np.unique(elements[elements >= 0]).tolist()
        found = {self.owner(element) for element in real}
        names = tuple(self.types)
        return tuple(name for name in names if name in found) or names[:1]

    def index(self, elements: Codes, sources: tuple[str, ...]) -> Codes:
        """Elements by their place among those of some parts; -1 stays."""
        table = np.full(self.count + 1, -1, np.int64)
        start = 0
        for name in sources:
            first, size = self.firsts[name], self.sizes[name]
            table[first : first + size] = np.arange(start, start + size)
            start += size
        found: Codes = table[elements]
        return found

    def hull(self, elements: Codes, fills: set[int]) -> Range:
        """What some elements, or literals, can be."""
        real = bool(np.any(elements >= 0))
        ranges = [held(self.types[name]) for name in self.owners(elements)] if real else []
        ranges += [Range(fill, fill) for fill in sorted(fills)]
        found = ranges[0] if ranges else Range(0, 0)
        for bounds in ranges[1:]:
            found = found.join(bounds)
        return found
