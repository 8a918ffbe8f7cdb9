"""Which pipeline stage each operation runs in, by estimated delays.

A value of stage s has passed s ranks of registers since the ports. Every operation first takes
the earliest stage it can (arrival times run on through layers, so a layer need not begin with
registers), then the cutoff shrinks while the number of stages stays, which evens out the paths.
At last, operations move to later stages where that needs fewer register bits.

The elements of a block's result leave in one stage, as do those of its sources on entering.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hqc.backends.rtl.circuit import Circuit, Constant, Input, operands, width_of
from hqc.backends.rtl.design import Block, Design
from hqc.backends.rtl.emission.delays import CARRY, delays, selection
from hqc.backends.rtl.emission.retiming import retime
from hqc.backends.rtl.emission.timing import SPAN, Graph, Timing
from hqc.numerics.types import Codes


@dataclass(frozen=True, eq=False)
class Schedule:
    """Stages of a design.

    Attributes:
        cutoff: the longest path between registers that was allowed, in nanoseconds.
        longest: the longest estimated path; above the cutoff if one operation alone is.
        latency: ranks of registers from the ports to the ports, at least 1.
        interval: cycles from one sample to the next.
        blocks: by name.
        steps: by block: cycles it takes, 1 if it is unrolled.
        enter, leave: by block: the stages in which its sources are read and its result stands.
        until: by name of port and block: the last stage in which its elements are read, `latency`
            for those that are outputs. What stands between blocks is delayed up to there.
    """

    cutoff: float
    longest: float
    latency: int
    interval: int
    blocks: Mapping[str, Timing]
    steps: Mapping[str, int]
    enter: Mapping[str, int]
    leave: Mapping[str, int]
    until: Mapping[str, int]

    def registers(self, block: Block) -> int:
        """Register bits in all instances of a block that is unrolled."""
        return self.blocks[block.name].registers * len(block.index)

    def between(self, design: Design) -> int:
        """Register bits between blocks and at the outputs, valid bits left out."""
        bits = sum(self._ranks(self.until[p.name]) * p.size * p.type.width for p in design.inputs)
        return bits + sum(
            self._ranks(self.until[b.name] - self.leave[b.name]) * b.size * b.bus.width
            for b in design.blocks
        )

    def _ranks(self, stages: int) -> int:
        """A rank of registers holds a sample until the next one may come."""
        return -(-stages // self.interval)


def schedule(design: Design, cutoff: float, steps: Mapping[str, int] | None = None) -> Schedule:
    """The stages of a design, with the paths evened out.

    Args:
        design: whose blocks are scheduled.
        cutoff: the longest path between registers in nanoseconds.
        steps: cycles that each block takes (`reuse.py`); 1 without it. A block of
            several holds its inputs for one stage, and leaves when all steps have left it.

    Raises:
        ValueError: the cutoff is not positive.
    """
    if cutoff <= 0:
        raise ValueError(f"a cutoff of {cutoff} ns")
    taken = dict.fromkeys((block.name for block in design.blocks), 1) | dict(steps or {})
    graphs = {block.name: _graph(block.circuit) for block in design.blocks}
    limit = _smallest(design, graphs, taken, round(cutoff * 1000))
    early = _try(design, graphs, taken, limit)
    blocks = {}
    for name, graph in graphs.items():
        entry = early.enter[name] + 1 if taken[name] > 1 else None
        blocks[name] = retime(graph, early.times[name], limit, entry)
    return _schedule(design, blocks, taken, limit)


@dataclass(frozen=True, eq=False)
class _Search:
    """One try: encoded times of each block's wires, its first stage, and the number of stages."""

    times: Mapping[str, list[int]]
    enter: Mapping[str, int]
    stages: int


def _smallest(
    design: Design, graphs: Mapping[str, Graph], steps: Mapping[str, int], cutoff: int
) -> int:
    """The smallest cutoff, in picoseconds, that needs no more stages than the given one.

    None below the slowest operation is tried: it would make no path shorter than that.
    """
    stages = _try(design, graphs, steps, cutoff).stages
    slowest = max((max(graph.delays, default=0) for graph in graphs.values()), default=0)
    low, high = slowest // CARRY - 1, -(-cutoff // CARRY)  # all delays are multiples of CARRY
    while high - low > 1:
        middle = (low + high) // 2
        if _try(design, graphs, steps, middle * CARRY).stages <= stages:
            high = middle
        else:
            low = middle
    return min(cutoff, high * CARRY)


def _try(
    design: Design, graphs: Mapping[str, Graph], steps: Mapping[str, int], cutoff: int
) -> _Search:
    elements: dict[str, Codes] = {p.name: np.zeros(p.size, np.int64) for p in design.inputs}
    found: dict[str, list[int]] = {}
    enter: dict[str, int] = {}
    for block in design.blocks:
        parts, count = [elements[name] for name in block.sources], steps[block.name]
        enter[block.name] = max(int(part.max(initial=0)) // SPAN for part in parts)
        numbers = len(block.constants) + 1  # and the fill
        base = (enter[block.name] + (count > 1)) * SPAN
        given = np.maximum(np.concatenate([*parts, [0] * numbers]), base)
        begin = given[block.index].max(axis=0) if count == 1 else base + selection(count)
        begin = np.broadcast_to(begin, block.index.shape[1])
        times = [max(t, base) for t in _asap(graphs[block.name], begin.tolist(), cutoff)]
        ends = np.array([times[wire] for wire in block.circuit.outputs], np.int64)
        last = int(ends.max(initial=base)) // SPAN
        ends = np.maximum(ends, last * SPAN) if count == 1 else ends * 0 + (last + count) * SPAN
        elements[block.name] = np.tile(ends, len(block.index))
        found[block.name] = times
    last = max((int(elements[name].max(initial=0)) // SPAN for name in design.outputs), default=0)
    return _Search(found, enter, last + 1)


def _asap(graph: Graph, inputs: list[int], cutoff: int) -> list[int]:
    """The earliest encoded time at which each wire is ready."""
    times: list[int] = []
    for sources, delay, index in zip(graph.sources, graph.delays, graph.inputs, strict=True):
        if index >= 0:
            times.append(inputs[index])
            continue
        time = 0
        for source in sources:
            if times[source] > time:
                time = times[source]
        if delay:
            arrival = time % SPAN
            if arrival and arrival + delay > cutoff:
                time += SPAN - arrival  # the operands are registered
            time += delay
        times.append(time)
    return times


def _graph(circuit: Circuit) -> Graph:
    fixed = {wire for wire, op in enumerate(circuit.ops) if isinstance(op, Constant)}
    return Graph(
        sources=[tuple(w for w in operands(op) if w not in fixed) for op in circuit.ops],
        delays=delays(circuit),
        inputs=[op.index if isinstance(op, Input) else -1 for op in circuit.ops],
        widths=[0 if wire in fixed else width_of(r) for wire, r in enumerate(circuit.ranges)],
        outputs=circuit.outputs,
    )


def _schedule(
    design: Design, blocks: Mapping[str, Timing], steps: Mapping[str, int], limit: int
) -> Schedule:
    enter = {name: timing.first - (steps[name] > 1) for name, timing in blocks.items()}
    leave = {
        name: timing.last + (steps[name] if steps[name] > 1 else 0)
        for name, timing in blocks.items()
    }
    latency = 1 + max((leave[name] for name in design.outputs), default=0)
    until = dict.fromkeys((port.name for port in design.inputs), 0)
    for block in design.blocks:
        until[block.name] = leave[block.name]
        for name in block.sources:
            until[name] = max(until[name], enter[block.name])
    until |= dict.fromkeys(design.outputs, latency)
    longest = max((timing.longest for timing in blocks.values()), default=0)
    interval = max(steps.values(), default=1)
    return Schedule(
        limit / 1000, longest / 1000, latency, interval, blocks, steps, enter, leave, until
    )
