"""What grows with a model's size grows in proportion: calls are counted, no clock is read.

Two networks of one shape differ only in their length. A step that goes through the graph once for
every node makes more calls per node on the longer one, whatever machine it runs on.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from types import FrameType, ModuleType

import pytest
from onnx_ir import Graph, Value

from hqc.analysis.dependence import computed_values, exact_values_known
from hqc.analysis.grid_constants import grid_constant
from hqc.driver.loading import read
from hqc.ir import add_constant, fresh_name, make_node, nodes, replace_output, set_type
from hqc.ir.names import kept_names, note_names
from hqc.numerics.types import FixedType

TOOL = Path(__file__).resolve().parents[2] / "tools" / "bench_passes.py"
#: Nodes of the networks that are compared, and of one on which imports and caches settle.
SHORT, LONG, FIRST = 81, 641, 21
#: Calls per node on the long network, by those on the short one.
MOST = 1.5


def _bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location(TOOL.stem, TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[TOOL.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


bench = _bench()
STEPS = ("load", "passes", "passes, verified", "print", "parse", "partition", "fast session")


@cache
def steps(network: str, size: int) -> Mapping[str, Callable[[], object]]:
    """What the benchmark times on a network of that size."""
    found: Mapping[str, Callable[[], object]] = bench.steps(bench.NETWORKS[network](size), True)
    return found


def calls(step: Callable[[], object]) -> int:
    """How many calls a step makes: of Python's functions and of C's, and turns of generators."""
    found = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal found
        found += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        step()
    finally:
        sys.setprofile(before)
    return found


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("network", bench.NETWORKS)
def test_calls_per_node_stay(network: str, step: str) -> None:
    assert tuple(steps(network, FIRST)) == STEPS
    steps(network, FIRST)[step]()
    few, many = (calls(steps(network, size)[step]) / size for size in (SHORT, LONG))
    assert many <= MOST * few, f"{few:.0f} calls per node of {SHORT}, {many:.0f} of {LONG}"


def _ask_for_each(graph: Graph) -> set[Value]:
    return {v for node in graph for v in node.outputs if not exact_values_known(v)}


def test_a_walk_for_every_node_is_seen() -> None:
    """The measure tells a quadratic step from a linear one."""
    graphs = [read(bench.chain(size)).model.graph for size in (SHORT, LONG)]
    sweeps = [calls(partial(computed_values, graph)) / len(graph) for graph in graphs]
    walks = [calls(partial(_ask_for_each, graph)) / len(graph) for graph in graphs]
    assert sweeps[1] <= MOST * sweeps[0]
    assert walks[1] > MOST * walks[0]


@pytest.mark.parametrize("network", bench.NETWORKS)
def test_no_layer_is_lost(network: str) -> None:
    """What is measured is a whole network: no pass folds it away."""
    lowered = bench.lower(bench.NETWORKS[network](SHORT))
    before = bench.NETWORKS[network](SHORT).graph.node
    for op in ("MatMul", "Conv", "Relu"):
        assert sum(n.op_type == op for n in lowered.graph) == sum(n.op_type == op for n in before)


@pytest.mark.parametrize("network", bench.NETWORKS)
def test_one_sweep_finds_what_walks_find(network: str) -> None:
    graph = read(bench.NETWORKS[network](SHORT)).model.graph
    values = [*graph.inputs, *graph.initializers.values(), *(v for n in graph for v in n.outputs)]
    assert computed_values(graph) == {v for v in values if not exact_values_known(v)}


def test_names_follow_what_becomes_of_nodes() -> None:
    graph = read(bench.chain(SHORT)).model.graph
    first, second = (n for n in nodes(graph) if n.op_type == "Relu" and n.name in ("r0", "r1"))
    asked = ("r0", "r1", "new", "moved", "x", "y", "q3")
    with kept_names(graph):
        assert fresh_name(graph, "r0") == "r0_2"
        assert fresh_name(graph, "new") == "new"
        new = make_node("Abs", first.inputs, like=first.outputs[0], name="new")
        replace_output(first, [new], "a-test")
        assert fresh_name(graph, "new") == "new_2"  # the node's; its output is r0
        assert fresh_name(graph, "r0") == "r0_2"
        second.name = second.outputs[0].name = "moved"
        note_names([second])
        assert fresh_name(graph, "r1") == "r1"
        assert fresh_name(graph, "moved") == "moved_2"
        assert add_constant(graph, "moved", bench.np.ones(1)).name == "moved_2"
        assert fresh_name(graph, "moved") == "moved_3"
        kept = [fresh_name(graph, name) for name in asked]
    assert kept == [fresh_name(graph, name) for name in asked]


def test_no_depth_is_too_deep() -> None:
    """Nothing walks a graph by recursion: Python allows a thousand calls within each other."""
    deep = 4 * sys.getrecursionlimit()
    graph = read(bench.chain(FIRST)).model.graph
    data = add_constant(graph, "data", bench.np.ones(2))
    set_type(data, FixedType(True, 4, 4))
    factor = add_constant(graph, "factor", bench.np.array(-1.0))
    for value, constant in ((data, True), (graph.outputs[0], False)):
        for index in range(deep):
            node = make_node("Mul", (value, factor), like=data, name=f"{value.name}_{index}")
            graph.append(node)
            value = node.outputs[0]
        assert exact_values_known(value) is constant
        assert (value in computed_values(graph)) is not constant
        grid = grid_constant(value)
        assert (grid is not None) is constant
        assert grid is None or grid.values() == [1, 1]


def test_the_benchmark_prints_its_rows() -> None:
    command = [sys.executable, str(TOOL), "21", "41", "-n", "chain", "--each", "-f", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)
    assert {row["nodes"] for row in rows} == {21, 41}
    assert set(STEPS) <= {row["step"] for row in rows}
    assert any(row["step"].endswith("lower-scales") for row in rows)
    assert all(row["seconds"] > 0 for row in rows)
