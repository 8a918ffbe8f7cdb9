"""Random graphs over the whole space of operators and quantisers, and what they have found."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from support.differential import Checks, check

from fuzzing import regression
from fuzzing.choices import Choices, sources
from fuzzing.emulate import Graph, emulate, lowered
from fuzzing.maker import FEATURES
from fuzzing.metamorphic import CHANGES, Change
from fuzzing.networks import network
from fuzzing.rows import rows
from fuzzing.shrink import shrink
from fuzzing.worker import agreed, examine, signature_of
from hqc.diagnostics import HqcError
from hqc.equivalence.samples import generate
from hqc.equivalence.translation_validation import compare
from hqc.execution.fast import Fast
from hqc.execution.reference import Reference
from hqc.pipeline.backend import BackendOptions
from hqc.pipeline.registry import Registry

CHUNK = 8
#: Graphs with little in them but one kind of operator, so that each is met in a few graphs.
KINDS = {
    "everything": FEATURES,
    "windows": frozenset({"convolution", "images", "bias", "free_scale", "channel_scales"}),
    "poolings": frozenset({"pooling", "reduction", "images", "zero_point", "transposed"}),
    "moves": frozenset({"movement", "images", "sequences", "channel_activations", "opsets"}),
    "arithmetic": frozenset({"bends", "merge", "constants", "batch_norm", "rounding", "narrow"}),
}
REGRESSIONS = sorted(regression.FOLDER.glob("*.hqir"))


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda p: p.stem)
def test_graphs_that_went_wrong_once(path: Path, tmp_path: Path) -> None:
    check(regression.read(path), tmp_path, Checks(samples=32, backends=False))


@pytest.mark.parametrize("section", dict.fromkeys(section for section, _, _ in rows()))
def test_every_operator_agrees_everywhere(section: str, tmp_path: Path) -> None:
    """The rows of the coverage table, without their emulation."""
    for found, title, proto in rows():
        if found == section:
            result = check(proto, tmp_path, Checks(samples=16, contracts=False, backends=False))
            assert result.compared or result.refused, title


@pytest.mark.parametrize("kind", KINDS)
def test_a_fixed_sample_agrees_everywhere(kind: str) -> None:
    found = [agreed(network(Choices.seeded(s), KINDS[kind]), s) for s in range(CHUNK)]
    compiled = [f for f in found if not f.refused]
    assert len(compiled) >= CHUNK // 2
    assert all(f.compared for f in compiled)


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(sources())
def test_what_hypothesis_makes_agrees(choose: Choices) -> None:
    agreed(network(choose), 1)


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_changes_that_mean_nothing_change_nothing(change: Change) -> None:
    compared = 0
    for seed in range(40, 52):
        compared += _unchanged(change, seed)
    assert compared >= 2


def _unchanged(change: Change, seed: int) -> bool:
    """Whether the change applies; the changed graph, as read and compiled, gives the same."""
    proto = network(Choices.seeded(seed), FEATURES - {"truncation"})
    changed = change(proto, np.random.default_rng(seed))
    if changed is None:
        return False
    try:
        source, _, _ = lowered(proto)
    except HqcError:
        return False
    inputs = dict(generate(source, 24, seed))
    want = Reference(source).run(inputs)
    after, _, parts = lowered(changed)
    for got in (Reference(after).run(inputs), Fast(parts).run(inputs)):
        result = compare(got, want)
        assert result.equal, f"seed {seed}: {result.first}"
    return True


@pytest.mark.emulation
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
@pytest.mark.parametrize("name", ["vitis", "catapult"])
def test_the_emulation_of_a_fixed_sample_is_exact(name: str) -> None:
    _emulated(name, range(60, 68))


def _emulated(name: str, seeds: range) -> None:
    features = FEATURES - {"opsets"}
    graphs = [Graph(s, network(Choices.seeded(s), features)) for s in seeds]
    accepted = [g for g in graphs if _lowers(g)]
    found = emulate(accepted, Registry.builtin().backends[name], BackendOptions())
    assert not found.failed
    assert found.figures["exact"] >= len(seeds) // 2


def _lowers(graph: Graph) -> bool:
    try:
        lowered(graph.proto)
    except HqcError:
        return False
    return True


@pytest.mark.long
@pytest.mark.parametrize("chunk", range(20))
def test_many_graphs_agree(chunk: int, tmp_path: Path) -> None:
    for seed in range(10_000 + 50 * chunk, 10_050 + 50 * chunk):
        record = examine(seed, tmp_path)
        assert "failure" not in record, record


@pytest.mark.long
@pytest.mark.emulation
@pytest.mark.parametrize("name", ["vitis", "catapult"])
def test_many_graphs_are_emulated_exactly(name: str) -> None:
    for start in range(20_000, 20_096, 24):
        _emulated(name, range(start, start + 24))


# The fuzzer itself


def test_any_list_of_decisions_is_a_graph() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        decisions = [int(d) for d in rng.integers(0, 100, int(rng.integers(0, 90)))]
        choose = Choices.replay(decisions)
        proto = network(choose)
        again = network(Choices.replay(choose.made))
        assert again.SerializeToString() == proto.SerializeToString()


def test_a_failure_shrinks_to_what_it_needs() -> None:
    """Here a graph "fails" if it has a convolution; nothing else needs to be in it."""

    def fails(decisions: object) -> list[int] | None:
        choose = Choices.replay(decisions)  # type: ignore[arg-type]
        operators = [n.op_type for n in network(choose).graph.node]
        return choose.made if "Conv" in operators else None

    seed = next(s for s in range(99) if fails(_decisions(s)))
    small = network(Choices.replay(shrink(_decisions(seed), fails, 20.0)))
    operators = [n.op_type for n in small.graph.node]
    assert "Conv" in operators
    assert len(operators) <= 6


def _decisions(seed: int) -> list[int]:
    choose = Choices.seeded(seed)
    network(choose)
    return choose.made


def test_a_failing_graph_is_written_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("first difference at value_17")

    monkeypatch.setattr("fuzzing.worker.check", broken)
    record = examine(4, tmp_path, shrinks=False)
    assert record["failure"] == "ValueError: first difference at #"
    written = regression.read(Path(record["file"]))
    assert [n.op_type for n in written.graph.node] == [
        n.op_type for n in network(Choices.seeded(4)).graph.node
    ]


def test_a_signature_leaves_out_names_and_numbers() -> None:
    one, two = ValueError("x3[0, 1]: got 4.5, want 4"), ValueError("x7[2, 0]: got 1.5, want 9")
    assert signature_of(one) == signature_of(two)


def test_the_table_of_mutations_fits_the_sources() -> None:
    tool = Path(__file__).resolve().parents[2] / "tools" / "mutate.py"
    command = [sys.executable, str(tool), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
