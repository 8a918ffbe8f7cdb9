"""A network as blocks of logic: each layer one circuit, laid out once or many times.

A convolution's circuit computes one window and stands at every position; a dense layer's circuit
stands once. Which elements of its sources an instance reads is an index table, so rearrangements
are wires and cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hqc.backends.rtl.circuit import Circuit, evaluate
from hqc.diagnostics import Location
from hqc.numerics.types import Codes, FixedType, Range


@dataclass(frozen=True, eq=False)
class Port:
    """An input of the design: `size` elements of a type, element 0 in the lowest bits."""

    name: str
    type: FixedType
    size: int
    where: Location = field(default_factory=Location)

    @property
    def ranges(self) -> tuple[Range, ...]:
        """What each element can be."""
        limits = self.type.limits
        return (Range(limits.lo, limits.hi),) * self.size


@dataclass(frozen=True, eq=False)
class Block:
    """One layer.

    Attributes:
        name: of the layer; a C identifier, unique in the design.
        kind: of the layer, in the words of `hqc.pipeline.backend.EmittedLayer`; "rearrange" blocks
            are wires: their circuit has one input and hands it on.
        sources: names of the ports and blocks it reads.
        circuit: the logic of one instance.
        index: (instances, inputs of the circuit): which element of the sources, one behind the
            other and `constants` last, each input is; -1 is the constant `fill`.
        fill: a code of the source's type.
        type: of each element of the result; the circuit's results are codes of it, and lie
            within it.
        constants: numbers that stand behind the elements of the sources; each of them is read.
        types: (role, type) pairs for the report, as in `EmittedLayer`.
        where: the node it comes from.
    """

    name: str
    kind: str
    sources: tuple[str, ...]
    circuit: Circuit
    index: Codes
    type: FixedType
    fill: int = 0
    types: tuple[tuple[str, FixedType], ...] = ()
    where: Location = field(default_factory=Location)
    constants: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Elements of the result: those of instance 0, then those of instance 1, ..."""
        return len(self.index) * len(self.circuit.outputs)

    @property
    def ranges(self) -> tuple[Range, ...]:
        """What each element of the result can be."""
        return self.circuit.results * len(self.index)

    @property
    def bus(self) -> FixedType:
        """The narrowest type on `type`'s step that holds every element: what wires carry."""
        held = self.circuit.results[0]
        for bounds in self.circuit.results[1:]:
            held = held.join(bounds)
        return Range(held.lo, held.hi, -self.type.fraction).fit()


@dataclass(frozen=True, eq=False)
class Design:
    """Ports and blocks in the order they run; outputs name blocks, in the order of the ports."""

    inputs: tuple[Port, ...]
    blocks: tuple[Block, ...]
    outputs: tuple[str, ...]

    def of(self, name: str) -> Port | Block:
        """The port or block of a name."""
        parts: tuple[Port | Block, ...] = (*self.inputs, *self.blocks)
        return next(part for part in parts if part.name == name)


def run(design: Design, inputs: Mapping[str, Codes]) -> dict[str, Codes]:
    """Codes (N, size) of every port and block, from codes (N, size) of the inputs.

    This is what the circuits compute; what the layers mean is `hqc.backends.layers.evaluate`.
    """
    known = {port.name: inputs[port.name].reshape(-1, port.size) for port in design.inputs}
    for block in design.blocks:
        given = np.concatenate([known[name] for name in block.sources], axis=1)
        numbers = np.array([*block.constants, block.fill], np.int64)
        more = np.broadcast_to(numbers, (len(given), len(numbers)))
        filled = np.concatenate([given, more], axis=1)
        cases = filled[:, block.index].reshape(-1, block.index.shape[1])
        wires = evaluate(block.circuit, cases)[:, list(block.circuit.outputs)]
        known[block.name] = wires.reshape(len(given), -1)
    return known
