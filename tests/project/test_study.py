"""The study of the jet example: equal budgets, paired statistics, predictions and their check."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hqc.codesign.allocation.perturbation import gradient_table, interaction_table, weight_deltas
from hqc.codesign.hessian.objective import Samples, Weights
from hqc.codesign.workflow.budget_check import check_budget
from hqc.diagnostics import HqcError
from hqc.frontends.hawq.layers import Scheme

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "jets"
SCRIPTS = ("model", "train", "tasks", "trials", "prediction", "gates", "study", "paper")
QUIET: Any = {"log": lambda _: None}


@pytest.fixture(scope="module")
def study() -> Iterator[Any]:
    """The modules of the example, as its scripts import them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in SCRIPTS})
        for name in SCRIPTS:
            del sys.modules[name]


@pytest.fixture(scope="module")
def task(study: Any) -> Any:
    """Three Gaussian blobs in six dimensions, a small network, short trainings."""
    random = np.random.default_rng(3)
    centres = random.normal(0, 1.2, (3, 6))
    y = random.integers(0, 3, 900)
    x = torch.from_numpy((centres[y] + random.normal(0, 1, (900, 6))).astype(np.float32))
    labels = torch.from_numpy(y)
    cut = [(x[a:b], labels[a:b]) for a, b in ((0, 600), (600, 700), (700, 900))]
    parts = study.tasks.Parts(*cut)
    schedule = study.tasks.Schedule(8, 2, 64, 1e-2)
    return study.tasks.Task(
        "blobs", lambda: study.tasks.mlp(6, 12, 8, 3), lambda _: parts, schedule
    )


@pytest.fixture(scope="module")
def trained(study: Any, task: Any) -> Any:
    """A float network of the task, and samples."""
    parts = task.parts(0)
    return study.tasks.float_start(task, parts, 0), Samples.of(parts.train)


# Expansion of the loss


def test_the_expansion_is_the_rise_of_the_loss_to_second_order(trained: Any) -> None:
    net, samples = trained
    objective = Weights(net, nn.functional.cross_entropy)
    deltas = weight_deltas(objective, dict.fromkeys(objective.names, (6, 10)))
    found = interaction_table(objective, samples, deltas)
    found = found + gradient_table(objective, samples, deltas)
    point = objective.point(samples)

    def rise(widths: dict[str, int]) -> float:
        moved = {name: (w + deltas[name][widths[name]]).double() for name, w in point.items()}
        at = {name: w.double() for name, w in point.items()}
        model = Weights(net.double(), nn.functional.cross_entropy)
        x = (samples.inputs[0].double(),)
        with torch.no_grad():
            difference = model.loss(moved, x, samples.targets) - model.loss(at, x, samples.targets)
        net.float()
        return float(difference)

    for bits, tolerance in ((6, 0.1), (10, 0.01)):
        widths = dict.fromkeys(objective.names, bits)
        assert found.value(widths) / 2 == pytest.approx(rise(widths), rel=tolerance, abs=1e-8)


def test_the_expansion_wants_errors_of_every_layer(trained: Any) -> None:
    net, samples = trained
    objective = Weights(net, nn.functional.cross_entropy)
    for table in (gradient_table, interaction_table):
        with pytest.raises(HqcError, match="HQC612"):
            table(objective, samples, {"fc1": {4: net.fc1.weight.detach()}})


def test_predictions_rank_as_measured(study: Any, trained: Any) -> None:
    net, samples = trained
    found = study.prediction.predict(net, samples, ("fc1", "fc2", "fc3"), count=30, seed=1)
    assert len(found.measured) == len(found.predicted["expansion"]) == 30
    assert found.rank_correlation("expansion") > 0.9
    assert found.noise < 1e-3 * max(found.measured)
    lines = study.study.told(found).splitlines()
    assert len(lines) == 4
    assert "30 random assignments" in lines[0]
    assert study.prediction.plot(found).axes[0].get_xscale() == "log"


# Budgets


def test_uniform_widths_leave_the_input_at_eight_bits(study: Any, trained: Any) -> None:
    problem = study.trials.planner_of(*trained).problem
    even = study.trials.uniform(problem, 3)
    assert study.trials.pairs_of(even) == {"fc1": (3, 8), "fc2": (3, 3), "fc3": (3, 3)}


def test_random_widths_come_close_to_the_budget(study: Any, trained: Any) -> None:
    problem = study.trials.planner_of(*trained).problem
    cost = problem.costs["bops"]
    budget = cost.value(study.trials.uniform(problem, 4))
    found = [study.trials.drawn(problem, budget, seed) for seed in range(20)]
    assert all(0.97 * budget <= cost.value(widths) <= budget for widths in found)
    assert len({tuple(widths.values()) for widths in found}) > 10
    assert found[0] == study.trials.drawn(problem, budget, 0)
    with pytest.raises(HqcError, match="HQC611"):
        study.trials.drawn(problem, 1.0, 0)


def test_the_expanded_problem_keeps_activations_and_costs(study: Any, trained: Any) -> None:
    problem = study.trials.planner_of(*trained).problem
    found = study.trials.expansion(*trained, problem)
    for layer in ("fc1", "fc2", "fc3"):
        assert (
            found.objective.single[f"{layer}.input"] == problem.objective.single[f"{layer}.input"]
        )
    assert ("fc1", "fc3") in found.objective.joint
    assert found.costs is problem.costs


# Comparison


def test_every_arm_keeps_the_budget_and_repeats(study: Any, task: Any) -> None:
    options = {"seeds": [0, 1], "bits": [3], **QUIET}
    found = study.trials.compare(task, **options)
    assert found == study.trials.compare(task, **options)
    assert [(t.seed, t.arm) for t in found.trials] == [
        (seed, arm) for seed in (0, 1) for arm in study.trials.ARMS
    ]
    allowed = next(t.bops for t in found.trials if t.arm == "uniform")
    assert all(t.bops <= allowed for t in found.trials)
    assert all(t.widths["fc1.input"] == 8 for t in found.trials if t.arm == "input8")
    hessian = [t for t in found.trials if t.arm == "hessian"]
    assert all(set(study.trials.pairs_of(t.widths)) == {"fc1", "fc2", "fc3"} for t in hessian)
    shown = study.study.table(found, list(study.trials.ARMS), [3])
    assert len([line for line in shown.splitlines() if line.startswith("| 3 |")]) == 5


def test_training_with_quantisers_leaves_the_float_network_alone(
    study: Any, task: Any, trained: Any
) -> None:
    net, _ = trained
    before = {name: value.clone() for name, value in net.state_dict().items()}
    widths = {"fc1": 3, "fc2": 3, "fc3": 3, "fc1.input": 8, "fc2.input": 3, "fc3.input": 3}
    scores = [
        study.trials.quantised_score(task, net, task.parts(0), widths, seed) for seed in (0, 0, 1)
    ]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert scores[0] == scores[1] != scores[2]


def test_paired_statistics_by_hand(study: Any) -> None:
    found = study.trials.paired([0.7, 0.8, 0.6], [0.6, 0.8, 0.7])
    assert found.mean == pytest.approx(0.0, abs=1e-12)
    assert found.error == pytest.approx(0.1 / math.sqrt(3))
    assert found.negative == 1
    assert study.trials.paired([0.5], [0.4]).error == math.inf
    with pytest.raises(ValueError, match="zip"):
        study.trials.paired([0.5], [])


def test_a_budget_matters_where_uniform_widths_lose(study: Any) -> None:
    accuracies = {("uniform", 3): 0.89, ("hessian", 3): 0.91, ("uniform", 6): 0.9}
    trials = tuple(
        study.trials.Trial(seed, bits, arm, {}, 1.0, 0.0, accuracy + 0.01 * seed)
        for (arm, bits), accuracy in accuracies.items()
        for seed in (1, 0)
    )
    found = study.trials.Comparison("made up", {0: 0.9, 1: 0.91}, trials)
    assert found.lost(3) == pytest.approx(0.01)
    assert found.gain("hessian", 3).mean == pytest.approx(0.02)
    assert found.gain("hessian", 3).error == pytest.approx(0.0, abs=1e-9)
    assert found.measurable(3)
    assert not found.measurable(6)


# Equal look-up tables


def match(study: Any, seed: int, mine: tuple[int, float], *sides: tuple[int, float]) -> Any:
    """(LUTs, accuracy) of a network for LUTs, and of its two neighbours."""
    made = [
        study.gates.Trial(seed, arm, 100.0, Scheme(), {"fc1": (3, 8)}, 1e5, 90.0, luts, accuracy)
        for arm, (luts, accuracy) in zip(("lut", "bops", "bops"), (mine, *sides), strict=True)
    ]
    return study.gates.Match(*made)


def test_neighbours_say_what_equal_luts_would_give(study: Any) -> None:
    found = match(study, 0, (85, 0.7), (80, 0.6), (100, 0.68))
    assert found.at_equal == pytest.approx(0.62)
    assert match(study, 0, (80, 0.7), (80, 0.6), (80, 0.68)).at_equal == pytest.approx(0.64)


def test_gains_are_paired_by_seed_and_budget(study: Any) -> None:
    pairs = [
        match(study, 0, (80, 0.7), (80, 0.6), (100, 0.68)),
        match(study, 1, (90, 0.62), (80, 0.6), (100, 0.68)),
    ]
    found = study.gates.Gates("made up", {0: 0.7, 1: 0.71}, tuple(pairs))
    assert found.budgets == (100.0,)
    gain = found.gain([100.0])
    assert (gain.mean, gain.negative) == (pytest.approx(0.04), 1)
    shown = study.study.gates_table(found)
    assert "| 100 | 80 to 90 | 66.00 (62.00 to 70.00) | 62.00 (60.00 to 64.00) | +4.00" in shown


@pytest.mark.parametrize("control", [False, True])
def test_luts_are_counted_on_both_sides_of_a_network(
    study: Any, task: Any, monkeypatch: pytest.MonkeyPatch, control: bool
) -> None:
    """Predictions stand in for the counts of Yosys."""

    def counted(*given: Any, measured: bool, **named: Any) -> dict[str, Any]:
        assert measured
        found = check_budget(*given, **named)
        return {**found, "measured": found["predicted"]}

    monkeypatch.setattr(study.gates, "check_budget", counted)
    found = study.gates.gates(task, seeds=[0], luts=[1500], control=control, **QUIET)
    (only,) = found.matches
    assert only.fewer.scheme == (only.lut.scheme if control else Scheme())
    assert only.lut.measured <= 1500
    assert only.fewer.measured <= only.lut.measured <= only.more.measured
    assert only.fewer.bops < only.more.bops
    lines = (only.fewer.accuracy, only.more.accuracy)
    assert min(lines) <= only.at_equal <= max(lines)


def test_budgets_without_neighbours_are_refused(study: Any, trained: Any, task: Any) -> None:
    net, samples = trained
    problems = study.gates.problems(net, samples, [8])
    seed = study.gates._Seed(task, task.parts(0), net, problems, 0, lambda _: None)
    least = problems[0].planner.sketch("bops")[0]
    mine = match(study, 0, (50, 0.7), (1, 0.1), (99, 0.9)).lut
    seed.known[Scheme(), tuple(least.bits.values())] = mine
    assert seed.trial("bops", 1.0, Scheme(), least).measured == 50
    with pytest.raises(HqcError, match=r"HQC611.*fewer"):
        seed.neighbour(mine, -1, Scheme(), [least])


# Data and commands


@pytest.mark.parametrize("name", ["digits", "digits-images"])
def test_five_seeds_test_every_digit_once(study: Any, name: str) -> None:
    pytest.importorskip("sklearn")
    task = study.tasks.task_of(name)
    parts = [task.parts(seed) for seed in range(5)]
    assert sum(len(p.test[1]) for p in parts) == 1797
    tested = torch.cat([p.test[0].flatten(1) for p in parts]).sort(dim=0).values
    first = parts[0]
    whole = torch.cat([x.flatten(1) for x, _ in (first.train, first.valid, first.test)])
    assert torch.equal(tested, whole.sort(dim=0).values)
    assert not torch.equal(task.parts(5).test[1], first.test[1])
    assert task.make()(first.test[0][:2]).shape == (2, 10)


def test_ranges_freeze_for_the_last_fifth(study: Any) -> None:
    schedule = study.tasks.Schedule(40, 20, 256)
    assert schedule.options(1, quantised=True).freeze_ranges == 17
    assert schedule.options(1, quantised=False).freeze_ranges is None
    assert schedule.options(1, quantised=False).epochs == 40
    short = study.tasks.Schedule(3, 3, 256).options(0, quantised=True)
    assert short.freeze_ranges == 4


@pytest.mark.parametrize("script", ["study", "paper"])
def test_the_scripts_report_refusals(
    study: Any, script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict"] if script == "study" else []
    assert getattr(study, script).main([*command, "--data", "cloud"]) == 2
    assert "HQC001" in capsys.readouterr().err


def test_the_study_writes_what_it_prints(
    study: Any,
    task: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(study.study, "task_of", lambda name, jets: task)
    options = ["compare", "--seeds", "2", "--bits", "2", "--arms", "hessian", "-o", str(tmp_path)]
    assert study.study.main(options) == 0
    assert study.study.main(["predict", "--count", "10", "-o", str(tmp_path)]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"compare-embedded.json", "predict-embedded.json", "predict-embedded.png"}
    printed = capsys.readouterr().out
    assert "| uniform |" in printed
    assert "| hessian |" in printed
    assert "rank correlation" in printed


@pytest.mark.emulation
@pytest.mark.long
def test_the_paper_ends_in_two_exact_projects(
    study: Any, task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(study.paper, "task_of", lambda name, jets: task)
    options = ["--epochs", "2", "--bits", "4", "--check", "100", "-o", str(tmp_path)]
    assert study.paper.main(options) == 0
    printed = capsys.readouterr().out
    assert printed.count("bit-exact on 200 samples") == 2  # test jets, and as many generated
    figures = {path.name for path in tmp_path.glob("*.png")}
    assert figures == {"traces.png", "front.png", "bits.png", "training.png"}
    assert len((tmp_path / "paper.json").read_text()) > 100
