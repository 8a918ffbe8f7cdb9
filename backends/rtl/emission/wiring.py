"""Packed buses and the concatenations that rearrange their elements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hqc.backends.rtl.emission.expressions import literal
from hqc.numerics.types import Codes, FixedType

#: Where lines of long concatenations break.
_COLUMNS = 96


@dataclass(frozen=True)
class Bus:
    """A vector of `size` elements of a type, element 0 in the lowest bits."""

    name: str
    size: int
    type: FixedType

    @property
    def width(self) -> int:
        """Bits of all elements."""
        return self.size * self.type.width


@dataclass(frozen=True)
class Element:
    """Bits `low` and up of a vector, extended to `width`; a number if the vector has no name.

    Attributes:
        name: of the vector.
        low: the lowest bit, or the number.
        held: bits that are there.
        width: bits that are wanted.
        signed: whether the highest bit held is a sign.
    """

    name: str
    low: int
    held: int
    width: int
    signed: bool

    @property
    def text(self) -> str:
        """As part of a concatenation."""
        if not self.name:
            return literal(self.width, self.low)
        top = self.low + self.held - 1
        select = f"{self.name}[{top}:{self.low}]" if self.held > 1 else f"{self.name}[{top}]"
        more = self.width - self.held
        if not more:
            return select
        sign = f"{self.name}[{top}]"
        fill = sign if more == 1 else f"{{{more}{{{sign}}}}}"
        return f"{fill if self.signed else literal(more, 0)}, {select}"


def elements_of(buses: Sequence[Bus]) -> list[tuple[Bus, int]]:
    """The elements of some buses, one behind the other: bus and lowest bit."""
    return [(bus, place * bus.type.width) for bus in buses for place in range(bus.size)]


def gather(
    elements: Sequence[tuple[Bus, int]],
    index: Codes,
    numbers: Sequence[int],
    widths: Sequence[int],
) -> list[Element]:
    """The elements that an index picks, each at the width given for it.

    Behind the elements stand `numbers`, so index -1 is the last of them.
    """
    found = []
    for place, width in zip(index.tolist(), widths, strict=True):
        if place < 0 or place >= len(elements):
            number = numbers[place if place < 0 else place - len(elements)]
            found.append(Element("", number, width, width, False))
            continue
        bus, low = elements[place]
        held = min(width, bus.type.width)
        found.append(Element(bus.name, low, held, width, bus.type.signed))
    return found


def concatenation(elements: Iterable[Element], indent: str) -> str:
    """Elements, the first in the lowest bits, as one expression on lines that are not too long."""
    texts = [element.text for element in reversed(_merged(elements))]
    if len(texts) == 1 and "," not in texts[0]:
        return texts[0]
    lines, line = [], ""
    for text in texts:
        if line and len(indent) + len(line) + len(text) > _COLUMNS:
            lines.append(line + ",")
            line = text
        else:
            line = f"{line}, {text}" if line else text
    return "{" + f"\n{indent}".join([*lines, line]) + "}"


def _merged(elements: Iterable[Element]) -> list[Element]:
    """Neighbours of one vector as one slice."""
    found: list[Element] = []
    for element in elements:
        before = found[-1] if found else None
        if (
            before is not None
            and element.name
            and before.name == element.name
            and before.width == before.held
            and before.low + before.held == element.low
        ):
            held, width = before.held + element.held, before.width + element.width
            found[-1] = Element(element.name, before.low, held, width, element.signed)
        else:
            found.append(element)
    return found
