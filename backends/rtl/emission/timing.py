"""What the schedule knows about a circuit, and what it says about it."""

from __future__ import annotations

from dataclasses import dataclass

#: A time is `stage * SPAN + picoseconds since the stage's registers`: one integer, that orders.
SPAN = 1 << 32


@dataclass(frozen=True, eq=False)
class Graph:
    """A circuit as the schedule sees it, wire by wire.

    Attributes:
        sources: wires an operation reads; constants are left out, they are there in any stage.
        delays: picoseconds of the operation.
        inputs: the index of the input, -1 for other operations.
        widths: bits of a register of the wire, 0 for constants.
        outputs: wires that leave.
    """

    sources: list[tuple[int, ...]]
    delays: list[int]
    inputs: list[int]
    widths: list[int]
    outputs: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Timing:
    """Stages of one block.

    Attributes:
        first, last: the stages in which all inputs enter and all outputs leave.
        stages: per wire, the stage in which it is computed.
        until: per wire, the last stage in which it is read: it is registered up to there.
        arrivals: per wire, picoseconds since its stage's registers.
        registers: bits of all registers of one instance.
        longest: picoseconds of the longest path between registers.
    """

    first: int
    last: int
    stages: tuple[int, ...]
    until: tuple[int, ...]
    arrivals: tuple[int, ...]
    registers: int
    longest: int
