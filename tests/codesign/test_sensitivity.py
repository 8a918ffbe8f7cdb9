"""Sensitivities: estimates against exact traces, spectra, Fisher matrices, records."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hqc.codesign.allocation.perturbation import (
    activation_perturbations,
    interaction_table,
    omega_table,
    weight_deltas,
    weight_perturbations,
)
from hqc.codesign.hessian.lanczos import HessianProduct, spectral_density, top_eigenvalue
from hqc.codesign.hessian.objective import Activations, Objective, Samples, Weights
from hqc.codesign.hessian.sensitivity import (
    Sensitivity,
    exact_traces,
    fisher_traces,
    hessian_traces,
)
from hqc.diagnostics import HqcError
from hqc.frontends.torch import QuantLinear, WeightQuant

CROSS_ENTROPY = nn.functional.cross_entropy
Loss = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Residual(nn.Module):
    """Smooth, with a branch, and a linear layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm(self.first(x)))
        x = x + torch.tanh(self.again(x))
        return self.last(x + torch.sigmoid(self.again(x)))


def rectified() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.GELU(), nn.Conv2d(3, 4, 2), nn.Flatten(), nn.Linear(16, 3)
    )


def case(name: str) -> tuple[nn.Module, Loss, Samples]:
    torch.manual_seed(3)
    if name == "rectified":
        return rectified(), CROSS_ENTROPY, samples(75, 6)
    if name == "residual":
        x, targets = torch.randn(60, 5), torch.randn(60, 3)
        return Residual().train(), nn.functional.mse_loss, Samples((x,), targets)
    return convolutional(), CROSS_ENTROPY, samples(41, 1, 5, 5)


def samples(count: int, *shape: int) -> Samples:
    return Samples((torch.randn(count, *shape),), torch.randint(0, 3, (count,)))


def error_ratios(found: Sensitivity, exact: Sensitivity) -> list[float]:
    return [(a.trace - b.trace) / a.error for a, b in zip(found.layers, exact.layers, strict=True)]


@pytest.mark.parametrize("name", ["rectified", "residual", "convolutional"])
def test_traces_are_within_two_standard_errors_of_exact_ones(name: str) -> None:
    model, loss, data = case(name)
    objective = Weights(model, loss)
    exact = exact_traces(objective, data)
    found = hessian_traces(objective, data, tolerance=0.05, max_probes=5000, group=5, seed=1)
    assert found.converged
    assert [x.elements for x in found.layers] == [x.elements for x in exact.layers]
    assert max(map(abs, error_ratios(found, exact))) < 2
    assert model.training == case(name)[0].training


@pytest.mark.parametrize("name", ["rectified", "convolutional"])
def test_traces_of_activations(name: str) -> None:
    model, loss, data = case(name)
    for side in ("input", "output"):
        objective = Activations(model, loss, side=side)
        exact = exact_traces(objective, data)
        found = hessian_traces(objective, data, tolerance=0.03, max_probes=2000, seed=2)
        assert found.kind == "activations"
        assert max(map(abs, error_ratios(found, exact))) < 2


def test_standard_errors_are_neither_too_small_nor_too_large() -> None:
    for name in ("rectified", "convolutional"):
        model, loss, data = case(name)
        objective = Weights(model, loss)
        exact = exact_traces(objective, data)
        ratios = [
            error_ratios(hessian_traces(objective, data, max_probes=4, tolerance=0, seed=s), exact)
            for s in range(40)
        ]
        assert 0.7 < np.square(ratios).mean() < 1.4


def test_probing_stops_at_the_tolerance_or_at_the_last_probe() -> None:
    model, loss, data = case("convolutional")
    objective = Weights(model, loss)
    found = hessian_traces(objective, data, tolerance=0.1)
    assert found.converged
    assert found.probes < 500
    few = hessian_traces(objective, data, tolerance=1e-9, max_probes=6)
    assert not few.converged
    assert few.probes == 6
    assert few == hessian_traces(objective, data, tolerance=1e-9, max_probes=6)
    assert few != hessian_traces(objective, data, tolerance=1e-9, max_probes=6, seed=9)


def test_layers_can_be_chosen_and_loaders_are_read() -> None:
    model, loss, data = case("rectified")
    loader = [(part.inputs[0], part.targets) for part in data.batches(20)]
    chosen = hessian_traces(Weights(model, loss, ["2", "0.bias"]), loader, tolerance=0.05)
    assert [(x.name, x.elements) for x in chosen.layers] == [("2", 80), ("0.bias", 10)]
    exact = exact_traces(Weights(model, loss, ["2", "0.bias"]), data)
    assert max(map(abs, error_ratios(chosen, exact))) < 2
    with pytest.raises(HqcError, match="no layer 'fc9'"):
        hessian_traces(Weights(model, loss, ["fc9"]), data)
    with pytest.raises(HqcError, match="no batches"):
        hessian_traces(Weights(model, loss), [])


def test_a_weight_that_is_used_elsewhere_too_is_not_taken_for_a_plain_layer() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.tanh(self.fc(x)) @ self.fc.weight)

    data = samples(50, 6)
    objective = Weights(Tied(), CROSS_ENTROPY)
    found = hessian_traces(objective, data, tolerance=0.03, max_probes=2000)
    assert max(map(abs, error_ratios(found, exact_traces(objective, data)))) < 2


def test_the_fisher_trace_of_the_models_labels_is_exact_for_rectifiers() -> None:
    model, loss, data = case("rectified")
    for objective in (Weights(model, loss), Activations(model, loss)):
        exact = exact_traces(objective, data)
        found = fisher_traces(objective, data, labels="model")
        for one, other in zip(found.layers, exact.layers, strict=True):
            assert one.trace == pytest.approx(other.trace, rel=1e-4)


def test_the_fisher_trace_of_the_data_is_the_mean_squared_gradient() -> None:
    model, loss, data = case("convolutional")
    found = fisher_traces(Weights(model, loss), data)
    norms = []
    for one in data.batches(1):
        model.zero_grad()
        loss(model(*one.inputs), one.targets).backward()
        norms.append(float(model[0].weight.grad.square().sum()))
    assert found["0"].trace == pytest.approx(np.mean(norms), rel=1e-4)
    assert found["0"].error == pytest.approx(np.std(norms, ddof=1) / len(norms) ** 0.5, rel=1e-4)
    with pytest.raises(HqcError, match="unknown labels"):
        fisher_traces(Weights(model, loss), data, labels="both")


def dense_hessian(objective: Objective, data: Samples) -> np.ndarray:
    with torch.no_grad():
        product = HessianProduct(objective, data)
    return product(torch.eye(product.size, dtype=torch.float64)).numpy()


def test_the_largest_eigenvalue_and_the_density() -> None:
    model, loss, data = case("convolutional")
    objective = Weights(model, loss)
    values = np.linalg.eigvalsh(dense_hessian(objective, data))
    top = values[np.abs(values).argmax()]
    found = top_eigenvalue(objective, data, tolerance=1e-2, max_iterations=500)
    assert found.converged
    assert abs(found.value - top) <= max(found.residual, 1e-4)
    density = spectral_density(objective, data, steps=40, probes=6)
    assert density.nodes.max() == pytest.approx(values.max(), rel=1e-3)
    assert density.nodes.min() == pytest.approx(values.min(), rel=0.05)
    np.testing.assert_allclose(density.weights.sum(axis=1), 1)
    assert density.trace == pytest.approx(values.sum(), rel=0.25)
    x, y = density.curve()
    assert float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum()) == pytest.approx(1, rel=0.02)


def test_lanczos_ends_where_the_space_does() -> None:
    torch.manual_seed(0)
    objective = Weights(nn.Linear(3, 1), nn.functional.mse_loss)
    data = Samples((torch.randn(30, 3),), torch.randn(30, 1))
    density = spectral_density(objective, data, steps=50, probes=3)
    values = np.linalg.eigvalsh(dense_hessian(objective, data))
    np.testing.assert_allclose(density.nodes, [values] * 3, rtol=1e-5)
    with pytest.raises(HqcError, match="activations"):
        spectral_density(Activations(objective.model, CROSS_ENTROPY), data)


def test_what_cannot_be_measured_is_refused() -> None:
    data = samples(20, 6)
    quantised = nn.Sequential(QuantLinear(6, 4), nn.ReLU(), QuantLinear(4, 3))
    with pytest.raises(HqcError, match=r"HQC610.*twice"):
        hessian_traces(Weights(quantised, CROSS_ENTROPY), data)
    with pytest.raises(HqcError, match="fails on the first samples"):
        hessian_traces(Weights(nn.Linear(9, 3), CROSS_ENTROPY), data)
    summed = partial(CROSS_ENTROPY, reduction="sum")
    with pytest.raises(HqcError, match="not a mean"):
        hessian_traces(Weights(rectified(), summed), data)
    broken = Samples(data.inputs, data.targets)
    broken.inputs[0][0, 0] = float("nan")
    with pytest.raises(HqcError, match="the loss is nan"):
        hessian_traces(Weights(rectified(), CROSS_ENTROPY), broken)
    with pytest.raises(HqcError, match="runs 2 times"):
        exact_traces(Activations(Residual(), nn.functional.mse_loss), case("residual")[2])
    with pytest.raises(HqcError, match="samples"):
        Samples.of((torch.zeros(3, 2), torch.zeros(4)))


def test_records_come_back(tmp_path: Path) -> None:
    model, loss, data = case("rectified")
    found = hessian_traces(Weights(model, loss), data, tolerance=0.1, seed=5)
    file = tmp_path / "traces.json"
    found.save(file)
    assert Sensitivity.load(file) == found
    assert json.loads(file.read_text())["seed"] == 5
    assert found["2"].mean == found["2"].trace / 80
    for text in ("", "[]", '{"format": 9}', '{"format": 1, "layers": [{"name": "x"}]}'):
        file.write_text(text)
        with pytest.raises(HqcError, match="HQC613"):
            Sensitivity.load(file)


def test_perturbations_are_those_of_the_quantisers() -> None:
    model, loss, data = case("rectified")
    objective = Weights(model, loss)
    widths = dict.fromkeys(objective.names, (3, 4, 8))
    found = weight_perturbations(objective, widths)
    weight = model[0].weight.detach()
    step = float(weight.abs().max()) / 7
    moved = (torch.round(weight / step) * step - weight).square().sum()
    assert found["0"][4] == pytest.approx(float(moved), rel=1e-4)
    finer = weight_perturbations(objective, widths, partial(WeightQuant, per_channel=True))
    assert finer["0"][4] < found["0"][4]
    with pytest.raises(HqcError, match="no candidate widths"):
        weight_perturbations(objective, {"0": (4,)})
    inner = activation_perturbations(Activations(model, loss), data, widths)
    values = torch.relu(model[0](data.inputs[0])).detach()
    step = float(values.max()) / 15
    moved = (torch.round(values / step) * step - values).square().sum() / len(data)
    assert inner["2"][4] == pytest.approx(float(moved), rel=1e-4)


def test_the_quadratic_form_predicts_the_rise_of_the_loss() -> None:
    """With the gradient's part added, small errors raise the loss as the second order says."""
    model, loss, data = case("residual")
    objective = Weights(model, loss)
    widths = dict.fromkeys(objective.names, (9, 10))
    deltas = weight_deltas(objective, widths)
    table = interaction_table(objective, data, deltas)
    chosen = dict(zip(objective.names, (9, 10, 9), strict=True))
    model.double().eval()
    exact = replace(objective, model=model)
    data = Samples((data.inputs[0].double(),), data.targets.double())
    point = exact.point(data)
    moved = {n: w + deltas[n][chosen[n]].double() for n, w in point.items()}
    slope = torch.func.grad(exact.loss)(point, data.inputs, data.targets)
    first = sum(float((slope[n] * (moved[n] - point[n])).sum()) for n in point)
    rise = float(exact.loss(moved, data.inputs, data.targets)) - float(
        exact.loss(point, data.inputs, data.targets)
    )
    assert rise - first == pytest.approx(table.value(chosen) / 2, rel=0.05)


def test_omega_is_the_mean_trace_times_the_perturbation() -> None:
    model, loss, data = case("rectified")
    objective = Weights(model, loss)
    traces = exact_traces(objective, data)
    perturbations = weight_perturbations(objective, dict.fromkeys(objective.names, (4, 6)))
    table = omega_table(traces, perturbations, suffix=".weight")
    wanted = traces["2"].trace / 80 * perturbations["2"][6]
    assert table.single["2.weight"][6] == pytest.approx(wanted)
    with pytest.raises(HqcError, match="no perturbations"):
        omega_table(traces, {"0": {4: 1.0}})
