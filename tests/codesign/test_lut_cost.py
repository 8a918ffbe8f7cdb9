"""LUTs and area as budgets: values of the tables, what they follow from, what becomes of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.training_runs import mlp
from torch import Tensor, nn

from hqc.backends.estimate import yosys
from hqc.backends.estimate.features import matrix_features
from hqc.backends.estimate.liberty import OSU018
from hqc.backends.estimate.quick import AREA, coefficients
from hqc.backends.rtl.emission.delays import cutoff_of
from hqc.codesign.allocation.plan import Choice, network
from hqc.codesign.allocation.problem import Problem, solve
from hqc.codesign.costs.lut_cost import MARGIN, PREDICTED, AreaCost, LutCost, PredictedCost
from hqc.codesign.costs.providers import COSTS, Network
from hqc.codesign.costs.tables import Table
from hqc.codesign.hessian.objective import Samples
from hqc.codesign.workflow.budget_check import check_budget
from hqc.diagnostics import HqcError
from hqc.frontends.hawq.layers import Scheme
from hqc.frontends.hawq.wrap import quantize_model


class Images(nn.Module):
    """A residual sum of convolutions, a maximum and a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.pool = nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(2)
        self.left, self.right = nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.Conv2d(4, 4, 1)
        self.mean, self.out = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.first(x)))
        x = torch.relu(self.left(x) + self.right(x))
        return self.out(self.mean(x).flatten(1))


def problem(model: nn.Module, shape: tuple[int, ...], choice: Choice) -> Network:
    samples = Samples((torch.rand(16, *shape),), torch.zeros(16, dtype=torch.int64))
    return network(model.eval(), samples, choice)


def uniform(table: Table, weights: int, entering: int) -> float:
    return table.value({k: entering if k.endswith(".input") else weights for k in table.knobs})


BOTH = pytest.mark.parametrize("cost", [LutCost, AreaCost])


@BOTH
def test_wider_weights_and_activations_cost_more(cost: type[PredictedCost]) -> None:
    table = cost()(problem(mlp(), (10,), Choice((2, 4, 6, 8), (3, 5, 8))))
    assert set(table.knobs) == {f"{n}{end}" for n in (0, 3, 5) for end in ("", ".input")}
    by_weights = [uniform(table, w, 5) for w in (2, 4, 6, 8)]
    by_inputs = [uniform(table, 4, a) for a in (3, 5, 8)]
    assert by_weights == sorted(by_weights)
    assert by_inputs == sorted(by_inputs)


def test_one_width_of_activations_is_no_knob() -> None:
    one = LutCost()(problem(mlp(), (10,), Choice((2, 4, 6), (5,))))
    several = LutCost()(problem(mlp(), (10,), Choice((2, 4, 6), (5, 5))))
    assert set(one.knobs) == {"0", "3", "5"}
    assert not one.joint
    for weights in (2, 4, 6):
        assert uniform(one, weights, 5) == pytest.approx(uniform(several, weights, 5))


@BOTH
def test_every_combination_of_knobs_is_its_own_prediction(cost: type[PredictedCost]) -> None:
    net = problem(mlp(), (10,), Choice((2, 5), (3, 4, 8)))
    table = cost(margin=0.0)(net)
    for weights in (2, 5):
        for entering in (3, 4, 8):
            given = replace(net, widths={k: (w,) for k, w in _widths(net, weights, entering)})
            alone = cost(margin=0.0)(given)
            wanted = uniform(alone, weights, entering)
            assert uniform(table, weights, entering) == pytest.approx(wanted)


def _widths(net: Network, weights: int, entering: int) -> list[tuple[str, int]]:
    return [(k, entering if k.endswith(".input") else weights) for k in net.widths]


def test_a_matrix_is_what_its_features_predict() -> None:
    model = nn.Sequential(nn.Linear(12, 6))
    net = problem(model, (12,), Choice((4,), (8,)))
    found = LutCost(margin=0.0)(net)
    weight = model[0].weight.detach()
    codes = torch.round(weight / (weight.abs().max() / 7)).to(torch.int64).numpy().T
    low, high = (torch.full((12,), end, dtype=torch.int64).numpy() for end in (-128, 127))
    wanted = coefficients().matrix(matrix_features(codes, low, high))
    assert found.value({"0": 4}) == pytest.approx(wanted)


def test_areas_have_the_flip_flops_of_stages_in_them() -> None:
    model = nn.Sequential(nn.Linear(12, 6))
    found = AreaCost(margin=0.0)(problem(model, (12,), Choice((4,), (8,))))
    weight = model[0].weight.detach()
    codes = torch.round(weight / (weight.abs().max() / 7)).to(torch.int64).numpy().T
    low, high = (torch.full((12,), end, dtype=torch.int64).numpy() for end in (-128, 127))
    table, held = coefficients(AREA), matrix_features(codes, low, high)
    stages = table.path(held) / (1000 * cutoff_of(5.0))
    results = float((abs(codes).sum(axis=0) * 128).sum())  # that is more than any width
    logic = table.matrix(held)
    least = table.register * stages * table.registers["in"] * 12 * 8
    assert logic + least < found.value({"0": 4}) < logic + least + table.register * results


@BOTH
def test_the_margin_is_on_top(cost: type[PredictedCost]) -> None:
    net = problem(mlp(), (10,), Choice((2, 4), (5,)))
    plain, safe = (uniform(cost(margin=m)(net), 4, 5) for m in (0.0, MARGIN))
    assert safe == pytest.approx(plain * (1 + MARGIN))


@BOTH
def test_powers_of_two_spare_the_multipliers(cost: type[PredictedCost]) -> None:
    net = problem(mlp(), (10,), Choice((2, 4, 6), (5,)))
    free, powers = cost()(net), cost(Scheme(power_of_two=True))(net)
    assert uniform(powers, 4, 5) < uniform(free, 4, 5)


@BOTH
def test_without_weights_shapes_give_an_expectation(cost: type[PredictedCost]) -> None:
    net = problem(mlp(), (10,), Choice((2, 4, 6), (5,)))
    known, blind = cost()(net), cost()(replace(net, logic=None))
    assert set(blind.knobs) == set(known.knobs)
    for weights in (4, 6):
        assert uniform(blind, weights, 5) == pytest.approx(uniform(known, weights, 5), rel=0.5)


@BOTH
def test_a_convolution_counts_once_per_position(cost: type[PredictedCost]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False))
    small, large = (
        cost()(problem(model, (1, size, size), Choice((4,), (6,)))).value({"0": 4})
        for size in (3, 6)
    )
    assert large == pytest.approx(16 * small)


@BOTH
def test_images_sums_and_pools(cost: type[PredictedCost]) -> None:
    net = problem(Images(), (2, 8, 8), Choice((2, 4), (4, 8)))
    assert net.logic is not None
    logic = net.logic()
    assert set(logic.matrices) == {"first", "left", "right", "out"}
    assert logic.matrices["left"].groups == 2
    rows = {row.sources: row for row in logic.requantisers}
    assert rows["first",].readers == ("left", "right")
    assert {pool.average for pool in logic.pools} == {True, False}
    table = cost()(net)
    assert uniform(table, 4, 8) > uniform(table, 2, 8) > 0
    assert uniform(table, 4, 8) > uniform(table, 4, 4)


@pytest.mark.parametrize("part", [0.3, 0.6])
@pytest.mark.parametrize("cost", ["lut", "area"])
def test_budgets_are_kept_by_the_plan(part: float, cost: str) -> None:
    net = problem(mlp(), (10,), Choice((2, 3, 4, 6), (5,)))
    tables = {name: make(net) for name, make in COSTS.items()} | {cost: PREDICTED[cost]()(net)}
    least, most = (uniform(tables[cost], w, 5) for w in (2, 6))
    loss = Table({k: {w: math.exp(-w) for w in net.widths[k]} for k in tables[cost].knobs})
    budget = least + part * (most - least)
    found = solve(Problem(net.widths, loss, tables), {cost: budget})
    assert least <= found.costs[cost] <= budget
    with pytest.raises(HqcError, match="HQC611"):
        solve(Problem(net.widths, loss, tables), {cost: least / 2})


@pytest.mark.parametrize(("name", "target"), [("lut", "fpga-xcup"), ("area", "asic-osu018")])
def test_what_was_trained_is_predicted_beside_the_budget(name: str, target: str) -> None:
    torch.manual_seed(0)
    net = quantize_model(mlp(), 4).train()
    x = torch.rand(32, 10)
    net(x)
    found = check_budget(name, net.eval(), x[:2], 1e8, planned=123.0)
    assert (found["target"], found["kept"]) == (target, True)
    assert 0 < found["predicted"] < found["most"] < 1e8
    assert (found["planned"], found["measured"]) == (123.0, None)
    assert not check_budget(name, net, x[:2], 1.0, planned=1.0)["kept"]


@pytest.mark.emulation
@pytest.mark.parametrize("name", ["lut", "area"])
def test_what_was_trained_is_measured_on_request(name: str) -> None:
    if yosys.find_or_none() is None or not OSU018.is_file():
        pytest.skip("no Yosys, or no osu018 cells")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    net = quantize_model(model, 3).train()
    x = torch.rand(32, 4)
    net(x)
    found = check_budget(name, net.eval(), x[:2], 1e8, planned=1.0, measured=True)
    assert "Yosys" in found["tool"]
    assert found["predicted"] == pytest.approx(found["measured"], rel=0.6)
    least = found["measured"] - 1.0
    assert not check_budget(name, net, x[:2], least, planned=1.0, measured=True)["kept"]
