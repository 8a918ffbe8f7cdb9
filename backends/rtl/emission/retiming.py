"""Move operations of a block to later stages where that needs fewer register bits."""

from __future__ import annotations

from collections.abc import Sequence

from hqc.backends.rtl.emission.timing import SPAN, Graph, Timing


def retime(graph: Graph, early: Sequence[int], cutoff: int, entry: int | None = None) -> Timing:
    """The stages of a block.

    From the last operation to the first, each one takes the stage, between the earliest it can
    and the latest its readers leave it, where its own registers and those it makes its operands
    need are fewest. The result is at least as good as the earliest stages.

    Args:
        graph: of the block.
        early: the earliest encoded time of each wire.
        cutoff: the longest path between registers in picoseconds.
        entry: the stage in which the inputs enter; without it, the first in which one is read.
    """
    stages = [time // SPAN for time in early]
    last = max((stages[wire] for wire in graph.outputs), default=0)
    moved = _moved(graph, early, stages, last, cutoff)
    plain, better = (_timing(graph, early, found, last, entry) for found in (stages, moved))
    return better if better.registers < plain.registers else plain


def _moved(
    graph: Graph, early: Sequence[int], asap: Sequence[int], last: int, cutoff: int
) -> list[int]:
    needs = _latest_readers(graph, asap)
    stages = list(asap)
    start = [-1] * len(asap)  # the earliest encoded time at which a reader begins; -1: no reader
    read = list(asap)  # the last stage in which a wire is read, by readers that have their stage
    for wire in graph.outputs:
        start[wire] = max(early[wire], last * SPAN)
        read[wire] = last
    for wire in reversed(range(len(asap))):
        if start[wire] < 0 or graph.inputs[wire] >= 0 or not graph.widths[wire]:
            continue
        stage, rest, delay = start[wire] // SPAN, start[wire] % SPAN, graph.delays[wire]
        latest = stage if stage == asap[wire] or delay <= rest else stage - 1
        chosen = _cheapest(graph, wire, asap[wire], latest, needs, read)
        stages[wire] = chosen
        arrival = early[wire] % SPAN if chosen == asap[wire] else delay
        end = rest if chosen == stage else max(cutoff, arrival)  # above it if one operation is
        begin = chosen * SPAN + end - delay
        for source in graph.sources[wire]:
            start[source] = begin if start[source] < 0 else min(start[source], begin)
            read[source] = max(read[source], chosen)
    return stages


def _cheapest(
    graph: Graph,
    wire: int,
    first: int,
    latest: int,
    needs: Sequence[tuple[int, int, int]],
    read: Sequence[int],
) -> int:
    """The stage with the fewest register bits; the earliest of equals."""
    if latest <= first:
        return first
    held = {}  # up to which stage each operand is there without this operation
    for source in graph.sources[wire]:
        top, by, second = needs[source]
        held[source] = max(read[source], second if by == wire else top)

    def cost(stage: int) -> int:
        more = sum(graph.widths[u] * max(0, stage - have) for u, have in held.items())
        return more - graph.widths[wire] * stage

    corners = {first, latest, *(have for have in held.values() if first < have < latest)}
    return min(sorted(corners), key=cost)


def _latest_readers(graph: Graph, asap: Sequence[int]) -> list[tuple[int, int, int]]:
    """Per wire: the latest stage of a reader, that reader, and the latest stage of the others."""
    found = [(stage, -1, stage) for stage in asap]
    for wire, sources in enumerate(graph.sources):
        for source in set(sources):
            top, by, second = found[source]
            if asap[wire] > top:
                found[source] = (asap[wire], wire, top)
            else:
                found[source] = (top, by, max(second, asap[wire]))
    return found


def _timing(
    graph: Graph, early: Sequence[int], stages: Sequence[int], last: int, entry: int | None
) -> Timing:
    """Registers and arrivals that follow from the stages."""
    until = list(stages)
    for wire, sources in enumerate(graph.sources):
        for source in sources:
            until[source] = max(until[source], stages[wire])
    for wire in graph.outputs:
        until[wire] = last
    first = _entry(graph, stages, last) if entry is None else entry
    begins = [max(s, first) if i >= 0 else s for s, i in zip(stages, graph.inputs, strict=True)]
    arrivals: list[int] = []
    for wire, sources in enumerate(graph.sources):
        if graph.inputs[wire] >= 0:
            arrivals.append(early[wire] % SPAN if begins[wire] == stages[wire] else 0)
            continue
        same = [arrivals[u] for u in sources if begins[u] == begins[wire]]
        arrivals.append(max(same, default=0) + graph.delays[wire])
    until = [max(a, b) for a, b in zip(until, begins, strict=True)]
    bits = sum(w * (b - a) for w, a, b in zip(graph.widths, begins, until, strict=True))
    longest = max(arrivals, default=0)
    return Timing(first, last, tuple(begins), tuple(until), tuple(arrivals), bits, longest)


def _entry(graph: Graph, stages: Sequence[int], last: int) -> int:
    """The first stage in which an input is read: registers before it stand outside, shared."""
    isread = [
        stages[wire]
        for wire, sources in enumerate(graph.sources)
        if any(graph.inputs[source] >= 0 for source in sources)
    ]
    outputs = [last for wire in graph.outputs if graph.inputs[wire] >= 0]
    return min(isread + outputs, default=last)
