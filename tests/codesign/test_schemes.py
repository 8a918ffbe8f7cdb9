"""Scales that a budget of logic chooses, and budgets of the rest that leave them alone."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.cli_fixtures import hqc as hqc  # the fixture
from support.small_model import Run
from support.training_runs import QUANTIZE, SHORT, document, mlp
from support.training_runs import files as files  # the fixture
from torch import nn

from hqc.codesign.allocation.plan import Choice, Measuring, measure
from hqc.codesign.allocation.problem import solve
from hqc.codesign.allocation.schemes import (
    Alternative,
    Candidate,
    alternatives,
    planned,
    scales_record,
    schemes_of,
)
from hqc.codesign.costs.lut_cost import AreaCost, LutCost
from hqc.codesign.costs.providers import COSTS, cost_at
from hqc.codesign.hessian.objective import Samples
from hqc.codesign.training.datasets import Dataset
from hqc.codesign.workflow.run import Run as Steps
from hqc.codesign.workflow.settings import Settings
from hqc.diagnostics import HqcError, reject
from hqc.frontends.hawq.layers import Scheme

KINDS = {(False, False), (False, True), (True, False), (True, True)}


@pytest.fixture(scope="module")
def found() -> tuple[Alternative, ...]:
    """A small network with all kinds of scales, activations chosen as well."""
    model = mlp().eval()
    torch.manual_seed(1)
    samples = Samples((torch.rand(128, 10),), torch.randint(0, 3, (128,)))
    traces = [measure(model, samples, Measuring("exact"), k) for k in ("weights", "activations")]
    choice = Choice((2, 3, 4, 6), (3, 4, 6, 8))
    costs = {**COSTS, "lut": LutCost()}
    return alternatives(model, samples, traces, choice, schemes_of(Scheme()), costs)


def kind(scheme: Scheme) -> tuple[bool, bool]:
    return scheme.per_channel, scheme.power_of_two


def test_what_is_given_is_left_alone() -> None:
    base = Scheme(mode="symmetric", bias_bits=16)
    assert {kind(s) for s in schemes_of(base)} == KINDS
    assert {replace(s, per_channel=False, power_of_two=False) for s in schemes_of(base)} == {base}
    assert [kind(s) for s in schemes_of(base, True)] == [(True, False), (True, True)]
    assert [kind(s) for s in schemes_of(base, False, True)] == [(False, True)]


def test_each_problem_is_about_its_own_scales(found: tuple[Alternative, ...]) -> None:
    """Coarser scales move the weights further, and cost less."""
    widths = dict.fromkeys(found[0].planner.problem.widths, 4)
    problems = {kind(one.scheme): one.planner.problem for one in found}
    moved = {k: p.objective.value(widths) for k, p in problems.items()}
    luts = {k: p.costs["lut"].value(widths) for k, p in problems.items()}
    bops = {p.costs["bops"].value(widths) for p in problems.values()}
    assert moved[False, True] > moved[False, False] > moved[True, False]
    assert moved[True, True] > moved[True, False]
    assert luts[False, True] < 0.8 * luts[False, False]
    assert luts[True, True] < 0.8 * luts[True, False]
    assert len(bops) == 1


def test_the_scales_with_the_least_loss_are_taken(found: tuple[Alternative, ...]) -> None:
    least = min(_least(one) for one in found)
    for budget in (1.2 * least, 2 * least, 1e6):
        plans = planned(found, {"lut": budget})
        assert all(one.plan.costs["lut"] <= budget for one in plans)
        losses = [one.plan.loss_increase for one in plans]
        assert losses == sorted(losses)
    assert kind(plans[0].scheme) == (True, False)  # nothing is scarce
    assert {kind(one.scheme) for one in planned(found, {"lut": 1.2 * least})} <= {
        (False, True),
        (True, True),
    }


def _least(one: Alternative) -> float:
    problem = one.planner.problem
    return solve(replace(problem, objective=problem.costs["lut"])).objective


def test_no_scales_keep_the_budget(found: tuple[Alternative, ...]) -> None:
    with pytest.raises(HqcError, match="HQC611") as caught:
        planned(found, {"lut": 1})
    (said,) = caught.value.diagnostics[0].helps
    nearest = float(said.rpartition(" ")[2].replace(",", ""))
    assert planned(found, {"lut": nearest})
    with pytest.raises(HqcError, match="HQC611"):
        planned(found, {"lut": nearest - 1})
    with pytest.raises(HqcError, match="HQC612"):
        planned(found, {"watts": 1})


def test_costs_of_widths_alone_do_not_know_scales() -> None:
    scheme = Scheme(power_of_two=True)
    assert cost_at(COSTS["bops"], scheme) is COSTS["bops"]
    assert cost_at(AreaCost(margin=0.3), scheme) == AreaCost(scheme, 0.3)


def test_schemes_are_not_for_given_widths() -> None:
    with pytest.raises(HqcError, match="HQC001"):
        Settings(bits={"fc1": (4, 8)}, schemes=schemes_of(Scheme()))


def test_a_kind_that_diverges_is_passed_over(
    found: tuple[Alternative, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    x = torch.rand(200, 10)
    data = Dataset("made up", x, (x @ torch.arange(30.0).sin().reshape(10, 3)).argmax(1), None)
    tried = planned(found, {"lut": 1e6})
    sick = {id(tried[0])}
    plain = Steps._short

    def short(self: Steps, model: nn.Module, one: Candidate, epochs: int) -> float:
        if id(one) in sick:
            raise reject("HQC604", "the loss is nan")
        return plain(self, model, one, epochs)

    monkeypatch.setattr(Steps, "_short", short)
    run = Steps(data, Settings(budgets={"lut": 1e6}, batch=50), None, lambda _: None)
    losses = run.try_out(mlp(), tried)
    assert not capsys.readouterr().out
    assert losses[0] == math.inf
    assert all(math.isfinite(loss) for loss in losses[1:])
    rows = scales_record(tried[1], tried, losses)["considered"]
    assert [row["loss"] for row in rows] == [None, *losses[1:]]
    sick |= {id(one) for one in tried}
    with pytest.raises(HqcError, match="HQC604"):
        run.try_out(mlp(), tried)


# The commands


def test_a_budget_of_luts_chooses_scales(hqc: Run) -> None:
    command = (*QUANTIZE, *SHORT, "-f", "json")
    free = document(hqc(*command, "--budget", "bops=12k", "-o", "a.pt"))
    assert free["scales"] == {"per_channel": False, "power_of_two": False}
    open_ = document(hqc(*command, "--budget", "lut=3k", "-o", "b.pt"))
    tried = {(s["per_channel"], s["power_of_two"]) for s in open_["scales"]["considered"]}
    assert tried <= KINDS
    assert len(tried) > 1
    (taken,) = (s for s in open_["scales"]["considered"] if s["bits"] == open_["bits"])
    assert taken["loss"] == min(s["loss"] for s in open_["scales"]["considered"])
    assert {k: taken[k] for k in ("per_channel", "power_of_two")}.items() <= open_["scales"].items()
    assert "the least loss in a short training" in hqc("show", "b.pt").out
    quick = document(hqc(*command, "--budget", "lut=3k", "--trial-epochs", "0", "-o", "q.pt"))
    losses = [s["loss_increase"] for s in quick["scales"]["considered"]]
    assert quick["loss_increase"]["predicted"] == min(losses)
    assert "least predicted loss" in hqc("show", "q.pt").out
    held = hqc(*command, "--budget", "lut=9k", "--no-power-of-two", "--per-channel", "-o", "c.pt")
    assert document(held)["scales"] == {"per_channel": True, "power_of_two": False}


def test_a_table_of_ones_own_leaves_scales_alone(hqc: Run) -> None:
    table = {"lut": {name: {"4": 100} for name in ("fc1", "fc2", "out")}}
    Path("costs.json").write_text(json.dumps(table))
    command = ("allocate", "nets.py:Net", "--data", "sets.py:data", "--cost-table", "costs.json")
    found = document(hqc(*command, "--budget", "lut=400", "--bits", "4", "-f", "json"))
    assert found["scales"] == {"per_channel": False, "power_of_two": False}
