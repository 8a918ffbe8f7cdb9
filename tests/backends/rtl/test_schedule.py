from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rtl_designs import chain, random_circuit, samples, single, written

from hqc.backends.rtl.builder import Builder
from hqc.backends.rtl.circuit import Circuit, Constant, Input, operands
from hqc.backends.rtl.design import Design, Port
from hqc.backends.rtl.emission.delays import cutoff_of, delays
from hqc.backends.rtl.emission.retiming import retime
from hqc.backends.rtl.emission.schedule import Schedule, schedule
from hqc.backends.rtl.emission.timing import SPAN, Graph
from hqc.numerics.types import FixedType, Range


def longest_path(circuit: Circuit, stages: tuple[int, ...]) -> tuple[int, int]:
    """Picoseconds of the longest path between registers, inputs at 0, and of the longest op."""
    ends: list[int] = []
    own = delays(circuit)
    for wire, op in enumerate(circuit.ops):
        same = [ends[u] for u in operands(op) if stages[u] == stages[wire]]
        ends.append(max(same, default=0) + own[wire])
    return max(ends), max(own)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), cutoff=st.floats(0.4, 12.0))
def test_stages_follow_the_data_and_keep_the_cutoff(seed: int, cutoff: float) -> None:
    design = chain(np.random.default_rng(seed))
    found = schedule(design, cutoff)
    assert found.cutoff <= cutoff + 0.0005
    slowest = max(max(delays(block.circuit)) for block in design.blocks)
    for block in design.blocks:
        timing = found.blocks[block.name]
        for wire, op in enumerate(block.circuit.ops):
            assert timing.first <= timing.stages[wire] <= timing.until[wire] <= timing.last
            for source in operands(op):
                if not isinstance(block.circuit.ops[source], Constant):
                    assert timing.stages[source] <= timing.stages[wire] <= timing.until[source]
        longest, one = longest_path(block.circuit, timing.stages)
        assert longest <= max(one, round(found.cutoff * 1000))
        assert timing.longest <= max(slowest, round(found.cutoff * 1000))
        for name in block.sources:
            last = found.blocks[name].last if name in found.blocks else 0
            assert last <= timing.first <= found.until[name]
    assert found.latency == 1 + max(found.blocks[name].last for name in design.outputs)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), cutoff=st.floats(0.5, 6.0))
def test_the_cutoff_is_the_smallest_with_these_stages(seed: int, cutoff: float) -> None:
    design = chain(np.random.default_rng(seed), 20)
    found = schedule(design, cutoff)
    again = schedule(design, found.cutoff)
    assert (again.latency, again.cutoff) == (found.latency, found.cutoff)
    slowest = max(max(delays(block.circuit)) for block in design.blocks)
    if found.cutoff * 1000 > slowest + 1:
        assert schedule(design, found.cutoff - 0.015).latency > found.latency
    assert schedule(design, cutoff * 2).latency <= found.latency


def _same(a: Schedule, b: Schedule) -> bool:
    return all(a.blocks[n].stages == b.blocks[n].stages for n in a.blocks) and a.until == b.until


def test_two_runs_agree() -> None:
    design = chain(np.random.default_rng(11))
    assert _same(schedule(design, 1.3), schedule(design, 1.3))


@pytest.mark.parametrize("cutoff", [0.6, 1.0, 2.0])
def test_registers_are_those_of_the_verilog(cutoff: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    design = chain(rng)
    project = written(design, samples(rng, design), tmp_path, cutoff)
    top = (tmp_path / "rtl" / "net.v").read_text(encoding="utf-8")
    assert _register_bits(top) == project.record["registers_between"]
    for block in project.record["blocks"]:
        if block["file"]:
            text = (tmp_path / block["file"]).read_text(encoding="utf-8")
            assert _register_bits(text) * block["instances"] == block["registers"]
        else:
            assert block["registers"] == 0


def _register_bits(text: str) -> int:
    found = re.findall(r"^ *reg (?:signed )?\[(\d+):0\]", text, re.M)
    return sum(int(top) + 1 for top in found)


def test_a_sum_of_many_terms_is_cut_in_even_parts() -> None:
    b = Builder((Range(-128, 127),) * 16)
    wires = list(b.inputs)
    while len(wires) > 1:
        wires = [b.plus(x, y) for x, y in zip(wires[::2], wires[1::2], strict=True)]
    circuit = b.finish(wires)
    design = Design((Port("x", FixedType(True, 8, 8), 16),), (single(circuit),), ("logic",))
    found = schedule(design, 1.4)  # two additions, but not three
    assert found.latency == 2
    assert found.cutoff < 1.3
    stages = found.blocks["logic"].stages
    assert [stages[w] for w in range(len(circuit.ops)) if w >= 16] == [0] * 12 + [1] * 3
    assert found.registers(design.blocks[0]) == 4 * 10


def test_wide_results_wait_in_narrow_operands() -> None:
    """x * 16 + x and the like are read late: x is kept, not they."""
    b = Builder((Range(0, 15), Range(0, 15)))
    x, y = b.inputs
    late = y
    for _ in range(6):
        late = b.plus(late, y, 0, 1)
    wide = [b.plus(x, x, 0, shift) for shift in (1, 2, 3)]
    circuit = b.finish([b.plus(w, late) for w in wide])
    design = Design((Port("x", FixedType(False, 4, 4), 2),), (single(circuit),), ("logic",))
    timing = schedule(design, 0.7).blocks["logic"]
    sums = [i for i, op in enumerate(circuit.ops) if operands(op) == (0, 0)]
    assert len(sums) == 3
    assert all(timing.stages[wire] >= timing.last - 1 for wire in sums)


def test_sinking_is_never_worse() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        circuit = random_circuit(rng, (Range(-8, 7),) * 4, 60)
        graph, early = _early(circuit, 700)
        found = retime(graph, early, 700)
        last = found.last
        until = [time // SPAN for time in early]
        for wire, sources in enumerate(graph.sources):
            for source in sources:
                until[source] = max(until[source], early[wire] // SPAN)
        for wire in graph.outputs:
            until[wire] = last
        pairs = zip(graph.widths, until, early, strict=True)
        plain = sum(w * (u - e // SPAN) for w, u, e in pairs)
        assert found.registers <= plain


def _early(circuit: Circuit, cutoff: int) -> tuple[Graph, list[int]]:
    own, early = delays(circuit), []
    fixed = [isinstance(op, Constant) for op in circuit.ops]
    sources = [tuple(w for w in operands(op) if not fixed[w]) for op in circuit.ops]
    for wire, read in enumerate(sources):
        time = max((early[u] for u in read), default=0)
        if own[wire] and time % SPAN and time % SPAN + own[wire] > cutoff:
            time += SPAN - time % SPAN
        early.append(time + own[wire])
    inputs = [op.index if isinstance(op, Input) else -1 for op in circuit.ops]
    pairs = zip(circuit.ranges, fixed, strict=True)
    widths = [0 if constant else r.fit().width for r, constant in pairs]
    return Graph(sources, own, inputs, widths, circuit.outputs), early


def test_a_cutoff_leaves_room_for_registers() -> None:
    assert cutoff_of(5.0) == pytest.approx(4.3)
    assert cutoff_of(0.1) == pytest.approx(0.45)
    with pytest.raises(ValueError, match=r"0 ns"):
        schedule(chain(np.random.default_rng(0)), 0)
