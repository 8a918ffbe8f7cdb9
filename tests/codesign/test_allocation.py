"""Bit allocation against exhaustive enumeration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.published_costs import COUPLED, NAMES, SHAPES, UNCOUPLED, WIDTHS, at

from hqc.codesign.allocation.budget import parse_budgets
from hqc.codesign.allocation.problem import Allocation, Problem, front, solve
from hqc.codesign.costs.tables import Table, bops_table, measured_table, size_table
from hqc.codesign.hessian.lanczos import Density
from hqc.codesign.hessian.sensitivity import Layer, Sensitivity
from hqc.codesign.workflow.plots import (
    plot_bits,
    plot_density,
    plot_front,
    plot_traces,
    plot_training,
)
from hqc.diagnostics import HqcError
from hqc.frontends.torch import WeightQuant

TRACES = (6.451, 0.898, 0.184, 0.0855)
COSTS = {
    "uncoupled": bops_table(SHAPES, WIDTHS, UNCOUPLED, headroom=3),
    "coupled": bops_table(SHAPES, WIDTHS, COUPLED, headroom=3),
    "size": size_table(SHAPES, WIDTHS),
}


def omega(perturbations: Mapping[str, Mapping[int, float]]) -> Table:
    """The published traces, per element, times perturbations."""
    return Table(
        {
            shape.name: {w: trace / shape.weights * p for w, p in perturbations[shape.name].items()}
            for shape, trace in zip(SHAPES, TRACES, strict=True)
        }
    )


#: Uniform weights in -1..1: the step is 2 / (2**w - 1), and its square over 12 the mean error.
EQUAL = omega({s.name: {w: s.weights / 3 / (2**w - 1) ** 2 for w in range(4, 9)} for s in SHAPES})
PROBLEM = Problem(WIDTHS, EQUAL, COSTS)


def everything(problem: Problem) -> Iterable[dict[str, int]]:
    for widths in itertools.product(*problem.widths.values()):
        found = dict(zip(problem.widths, widths, strict=True))
        if all(len({found[knob] for knob in group}) == 1 for group in problem.ties):
            yield found


def enumerated_front(problem: Problem, cost: str) -> list[tuple[float, float]]:
    table = problem.costs[cost]
    found: list[tuple[float, float]] = []
    for point in sorted((table.value(w), problem.objective.value(w)) for w in everything(problem)):
        if not found or point[1] < found[-1][1]:
            found.append(point)
    return found


def as_pairs(points: Iterable[Allocation], cost: str) -> list[tuple[float, float]]:
    return [(p.costs[cost], p.objective) for p in points]


def test_the_published_answer() -> None:
    found = solve(PROBLEM, {"uncoupled": 350_000})
    assert found.widths == at(8, 5, 5, 5)
    assert found.costs["uncoupled"] == 349_248
    assert solve(PROBLEM, {"uncoupled": 351_807}).widths == at(8, 5, 5, 5)
    assert solve(PROBLEM, {"uncoupled": 351_808}).widths != at(8, 5, 5, 5)
    assert solve(PROBLEM, {"uncoupled": 349_247}).widths != at(8, 5, 5, 5)


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_published_answer_on_trained_weights(shared_models: Path, per_channel: bool) -> None:
    state = torch.load(shared_models / "hawq_jets_w6a8.pt", weights_only=True)["state_dict"]
    weights = [v for k, v in state.items() if k.endswith(".weight")]
    perturbations = {
        name: {
            bits: float((WeightQuant(bits, per_channel=per_channel)(w) - w).square().sum())
            for bits in WIDTHS[name]
        }
        for name, w in zip(NAMES, weights, strict=True)
    }
    by_element = solve(Problem(WIDTHS, omega(perturbations), COSTS), {"uncoupled": 350_000})
    as_printed = Table(
        {
            name: {w: trace * p for w, p in perturbations[name].items()}
            for name, trace in zip(NAMES, TRACES, strict=True)
        }
    )
    whole = solve(Problem(WIDTHS, as_printed, COSTS), {"uncoupled": 350_000})
    assert by_element.widths == whole.widths == at(8, 5, 5, 5)


@pytest.mark.parametrize("cost", list(COSTS))
def test_the_front_is_the_enumerated_one(cost: str) -> None:
    """Which is the same as: the answer is optimal for each budget there is."""
    assert as_pairs(front(PROBLEM, cost), cost) == enumerated_front(PROBLEM, cost)


@pytest.mark.parametrize("cost", ["uncoupled", "coupled"])
def test_answers_are_optimal_under_budgets(cost: str) -> None:
    points = enumerated_front(PROBLEM, cost)
    for budget, least in points[::7]:
        for slack in (0, 0.25, 1):
            found = solve(PROBLEM, {cost: budget + slack})
            assert found.objective == pytest.approx(least, rel=1e-12)
            assert found.costs[cost] <= budget + slack
            assert found.objective == EQUAL.value(found.widths)


def test_several_budgets_at_once() -> None:
    budgets = {"coupled": 380_000.0, "size": 24_000.0}
    found = solve(PROBLEM, budgets)
    allowed = [
        w for w in everything(PROBLEM) if all(COSTS[n].value(w) <= b for n, b in budgets.items())
    ]
    assert found.objective == min(EQUAL.value(w) for w in allowed)
    swapped = Problem(WIDTHS, COSTS["coupled"], {"omega": EQUAL})
    cheapest = solve(swapped, {"omega": found.objective})
    assert cheapest.objective <= found.costs["coupled"]
    assert cheapest.costs["omega"] <= found.objective


def test_infeasible_budgets_say_what_would_do() -> None:
    with pytest.raises(HqcError) as caught:
        solve(PROBLEM, {"uncoupled": 100_000, "size": 17_500})
    text = str(caught.value)
    assert "HQC611" in text
    assert "nearest feasible budget for uncoupled is 234,368" in text
    assert solve(PROBLEM, {"uncoupled": 234_368}).widths == at(4, 4, 4, 4)
    with pytest.raises(HqcError, match="raise several"):
        solve(PROBLEM, {"uncoupled": 1, "size": 1})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(1.0, 1e3), min_size=4, max_size=4), st.integers(-3, 9))
def test_the_nearest_budget_does_when_it_is_typed(costs: list[float], exponent: int) -> None:
    """Figures of any size are short in messages, and rounded up."""
    columns = {
        knob: {w: cost * w * 10.0**exponent for w in (2, 3)}
        for knob, cost in zip("abcd", costs, strict=True)
    }
    problem = Problem(dict.fromkeys("abcd", (2, 3)), Table(columns), {"area": Table(columns)})
    least = problem.costs["area"].value(dict.fromkeys("abcd", 2))
    with pytest.raises(HqcError) as caught:
        solve(problem, {"area": least * 0.99})
    (diagnostic,) = caught.value.diagnostics
    (said,) = diagnostic.helps
    typed = said.removeprefix("the nearest feasible budget for area is ")
    assert f"{typed} is the least" in diagnostic.notes[0]
    budgets = parse_budgets([f"area={typed}"])
    assert least <= budgets["area"] <= max(least * 1.001, math.ceil(least))
    assert solve(problem, budgets).costs["area"] <= budgets["area"]


def test_ties_give_one_width() -> None:
    problem = Problem(WIDTHS, EQUAL, COSTS, ties=(("fc2", "fc3"), ("fc4", "fc3")))
    for cost in ("uncoupled", "coupled"):
        points = front(problem, cost)
        assert as_pairs(points, cost) == enumerated_front(problem, cost)
        assert all(len({p.widths[n] for n in NAMES[1:]}) == 1 for p in points)
    apart = Problem({**WIDTHS, "fc2": (4, 5), "fc3": (6,)}, EQUAL, COSTS, ties=(("fc2", "fc3"),))
    with pytest.raises(HqcError, match="share no width"):
        solve(apart)


def test_activations_have_knobs_of_their_own() -> None:
    widths = {"fc3": (3, 5, 8), "fc4": (3, 4, 8), "fc3.input": (4, 6, 8), "fc4.input": (3, 6, 7)}
    objective = Table(
        {k: {w: c / (2**w - 1) ** 2 for w in widths[k]} for k, c in zip(widths, (5, 3, 9, 7))}  # noqa: B905
    )
    inputs = {"fc3": "fc3.input", "fc4": "fc4.input"}
    problem = Problem(widths, objective, {"bops": bops_table(SHAPES[2:], widths, inputs)})
    assert as_pairs(front(problem, "bops"), "bops") == enumerated_front(problem, "bops")


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_interactions_of_either_sign(data: st.DataObject) -> None:
    knobs = ("a", "b", "c", "d")
    widths = dict.fromkeys(knobs, (2, 3, 4))
    number = st.floats(-5, 5, allow_nan=False).map(lambda x: round(x, 3))
    single = {k: {w: data.draw(number) for w in widths[k]} for k in knobs}
    joint = {
        group: {key: data.draw(number) for key in itertools.product((2, 3, 4), repeat=len(group))}
        for group in (("a", "b"), ("b", "c"), ("d", "a"), ("d", "b", "c"))
    }
    ties = data.draw(st.sampled_from([(), (("a", "b"),), (("c", "b", "d"),), (("d", "c"),)]))
    exact = st.integers(0, 3 << 20).map(lambda n: n / (1 << 20))  # sums are, in any order
    luts = {k: {w: data.draw(exact) for w in widths[k]} for k in knobs}
    problem = Problem(widths, Table(single, joint, 1.5), {"luts": measured_table(luts)}, ties)
    found = solve(problem)
    best = min(problem.objective.value(w) for w in everything(problem))
    assert found.objective == pytest.approx(best, abs=1e-9)
    budget = sorted(problem.costs["luts"].value(w) for w in everything(problem))[2]
    limited = solve(problem, {"luts": budget})
    allowed = [w for w in everything(problem) if problem.costs["luts"].value(w) <= budget]
    assert limited.objective == pytest.approx(
        min(problem.objective.value(w) for w in allowed), abs=1e-9
    )


def test_equal_objectives_take_the_cheaper_one() -> None:
    flat = Table({name: dict.fromkeys(range(4, 9), 0.0) for name in NAMES})
    found = solve(Problem(WIDTHS, flat, COSTS), {"coupled": 1e6})
    assert found.widths == at(4, 4, 4, 4)
    assert len(front(Problem(WIDTHS, flat, COSTS), "coupled")) == 1


def test_problems_that_are_not_well_formed() -> None:
    with pytest.raises(HqcError, match=r"HQC612.*costs are: uncoupled"):
        solve(PROBLEM, {"luts": 1})
    with pytest.raises(HqcError, match="at 9 bits is None"):
        solve(Problem({**WIDTHS, "fc1": (9,)}, EQUAL, COSTS))
    with pytest.raises(HqcError, match="no candidate widths"):
        solve(Problem({"fc1": (4,)}, EQUAL))
    with pytest.raises(HqcError, match="is tied"):
        solve(Problem(WIDTHS, EQUAL, ties=(("fc1", "fc9"),)))


def test_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    points = front(PROBLEM, "size")
    layers = tuple(Layer(n, 10, t, t / 20) for n, t in zip(NAMES, TRACES, strict=True))
    traces = Sensitivity("hutchinson", "weights", layers, 100)
    figures = (
        plot_front(points, "size", points[3], "bits of weights"),
        plot_bits({"small": points[0], "large": points[-1]}),
        plot_traces(traces, traces, mean=True),
        plot_training({"train": [1.0, 0.7, 0.6], "test": [1.1, 0.8, 0.75]}),
        plot_density(Density(np.array([[0.0, 1.0, 5.0]]), np.array([[0.7, 0.2, 0.1]]), 3)),
    )
    for i, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{i}.png")
        assert (tmp_path / f"{i}.png").stat().st_size > 5000
    labels = [t.get_text() for t in figures[0].axes[0].texts]
    assert labels == ["(" + ", ".join(map(str, points[3].widths.values())) + ")"]
    with pytest.raises(HqcError, match="no points"):
        plot_front([], "size")
