"""What each element of a value can be, and circuits that begin with such elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hqc.backends.layers import Layer
from hqc.backends.layers.template_parameters import layer_types
from hqc.backends.rtl.builder import Builder
from hqc.backends.rtl.circuit import Circuit, Wire
from hqc.backends.rtl.design import Block
from hqc.numerics.types import Codes, FixedType, Range


@dataclass(frozen=True, eq=False)
class Elements:
    """Bounds of each element of a value, as codes of a type."""

    lo: Codes
    hi: Codes

    @staticmethod
    def of(ranges: Sequence[Range]) -> Elements:
        """From one range per element."""
        lo, hi = ([getattr(r, end) for r in ranges] for end in ("lo", "hi"))
        return Elements(np.array(lo, np.int64), np.array(hi, np.int64))

    def at(self, index: Codes, fill: int = 0) -> Elements:
        """Bounds of the elements of a table; -1 is the fill."""
        lo, hi = (np.append(ends, np.int64(fill))[index] for ends in (self.lo, self.hi))
        return Elements(lo, hi)

    def joined(self, index: Codes, fill: int = 0) -> tuple[Range, ...]:
        """What each column of a table (instances, columns) can be in any instance."""
        found = self.at(index, fill)
        ends = zip(found.lo.min(axis=0), found.hi.max(axis=0), strict=True)
        return tuple(Range(int(lo), int(hi)) for lo, hi in ends)


@dataclass(frozen=True, eq=False)
class Sources:
    """What a layer reads: names, types and elements, each source once, one behind the other."""

    names: tuple[str, ...]
    types: tuple[FixedType, ...]
    elements: Elements

    @property
    def type(self) -> FixedType:
        """Of the one source, or the first."""
        return self.types[0]


class Start:
    """A circuit in the making whose inputs are elements of a layer's sources.

    Inputs that can only be one number are constants.
    """

    def __init__(self, sources: Sources, index: Codes, fill: int = 0) -> None:
        self.sources, self.index, self.fill = sources, index, fill
        self.builder = Builder(sources.elements.joined(index, fill))
        self.wires: tuple[Wire, ...] = tuple(map(self.builder.known, self.builder.inputs))

    def block(self, layer: Layer, kind: str, outputs: Sequence[Wire]) -> Block:
        """The block of a layer with these results."""
        circuit: Circuit = self.builder.finish(outputs)
        types = tuple(layer_types(layer).items())
        return Block(
            layer.name,
            kind,
            self.sources.names,
            circuit,
            self.index,
            layer.result,
            self.fill,
            types,
            layer.where,
        )


def by_position(layer: Layer, rows: int = 1) -> Codes:
    """(positions, channels): elements of a layer that goes element by element.

    One circuit does all channels of a position; where constants differ between positions, or
    there is but one axis, one circuit does all elements.

    Args:
        layer: whose shape ends with the channels.
        rows: how many different constants its elements have, in turn.
    """
    channels = layer.shape[-1] if layer.shape else 1
    if channels % rows:
        channels = layer.size
    return np.arange(layer.size).reshape(-1, channels)
