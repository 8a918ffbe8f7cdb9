"""What the training commands stand on: programs as modules, folding, knobs, budgets, data."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hqc.codesign.allocation.budget import parse_assignment, parse_budgets, parse_candidates
from hqc.codesign.allocation.milp import _stdout_kept
from hqc.codesign.allocation.plan import Choice, Measuring, Planner, measure, network
from hqc.codesign.costs.providers import COSTS
from hqc.codesign.hessian.objective import Samples
from hqc.codesign.training.datasets import Dataset, load_dataset
from hqc.codesign.training.loop import Options
from hqc.codesign.training.models import digest, folded, load_model
from hqc.codesign.workflow import Settings, quantize
from hqc.diagnostics import HqcError
from hqc.frontends.torch import QuantIdentity


class Residual(nn.Module):
    """Two layers read the same value; their results are added."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        return self.out(torch.relu(self.left(x)) + torch.relu(self.right(x)))


class Shifted(Residual):
    """With a parameter that is of no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.shift


class Images(nn.Module):
    """Convolutions of several forms."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 4, 3, stride=2, groups=2, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Dropout(0.1),
        )
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.fc(x.view(x.shape[0], -1))


def trained_norms(model: nn.Module, *shape: int) -> nn.Module:
    """The model with batch norms that have seen data."""
    torch.manual_seed(0)
    for _ in range(3):
        model.train()(torch.randn(32, *shape) + 1)
    return model.eval()


def program(model: nn.Module, path: Path, *shape: int) -> str:
    batch = ({0: torch.export.Dim("batch")},)
    found = torch.export.export(model.eval(), (torch.zeros(2, *shape),), dynamic_shapes=batch)
    torch.export.save(found, path)
    return str(path)


@pytest.mark.parametrize(
    ("model", "shape"), [(Shifted, (5,)), (Images, (2, 8, 8))], ids=["linear", "images"]
)
def test_a_program_becomes_the_module_it_was(
    model: Any, shape: tuple[int, ...], tmp_path: Path
) -> None:
    net = trained_norms(model(), *shape)
    rebuilt = load_model(program(net, tmp_path / "net.pt2", *shape))
    x = torch.randn(7, *shape)
    assert torch.equal(rebuilt(x), net(x))
    layers = {n: type(m) for n, m in net.named_modules() if hasattr(m, "weight")}
    assert {n: type(m) for n, m in rebuilt.named_modules() if hasattr(m, "weight")} == layers
    assert any(p.requires_grad for p in rebuilt.train().parameters())
    assert digest(rebuilt) == digest(load_model(str(tmp_path / "net.pt2")))


def test_a_quantised_program_is_no_float_model(tmp_path: Path) -> None:
    net = nn.Sequential(QuantIdentity(8), nn.Linear(5, 3))
    net.train()(torch.randn(20, 5))
    path = program(net, tmp_path / "net.pt2", 5)
    with pytest.raises(HqcError, match=r"HQC603.*quantised already"):
        load_model(path)


def test_folding_changes_weights_and_not_outputs() -> None:
    for net, shape, layer in ((Residual(), (5,), "inner.0"), (Images(), (2, 8, 8), "body.0")):
        trained_norms(net, *shape)
        flat = folded(net, [layer])
        x = torch.randn(7, *shape)
        torch.testing.assert_close(flat(x), net(x))
        moved = flat.get_submodule(layer).weight - net.get_submodule(layer).weight
        assert moved.abs().max() > 1e-3
        assert not any("norm" in str(n.target) for n in flat.graph.nodes)


def samples(n: int = 64) -> Samples:
    torch.manual_seed(1)
    x = torch.randn(n, 5)
    return Samples((x,), x[:, :3].argmax(1))


def test_layers_that_read_one_value_share_its_width() -> None:
    net = Residual().eval()
    choice = Choice((4, 6), (4, 6, 8))
    found = network(net, samples(), choice)
    assert found.ties == (("left.input", "right.input"),)
    how = Measuring("exact")
    traces = [measure(net, samples(), how, kind) for kind in ("weights", "activations")]
    planner = Planner.of(net, samples(), traces, choice)
    for plan in planner.front("bops"):
        assert plan.bits["left"][1] == plan.bits["right"][1]
    given = dict.fromkeys(("inner.0", "left", "right", "out"), (4, 4)) | {"left": (4, 8)}
    plan = Planner.of(net, samples(), traces, choice, COSTS, given).solve({})
    assert plan.bits["right"] == (4, 8)


def test_the_prediction_is_half_the_trace_weighted_perturbation() -> None:
    net = nn.Sequential(nn.Linear(5, 3))
    traces = measure(net, samples(), Measuring("exact"))
    plan = Planner.of(net, samples(), [traces], Choice((3,))).solve({})
    weight = net[0].weight.detach()
    step = weight.abs().max() / 3
    moved = ((weight / step).round() * step - weight).square().sum()
    assert plan.loss_increase == pytest.approx(float(traces["0"].mean * moved / 2), rel=1e-5)


def test_accuracy_and_cost_of_a_run_are_in_its_record() -> None:
    torch.manual_seed(2)
    x = torch.randn(200, 5)
    data = Dataset("mine", x, x[:, :3].argmax(1))
    settings = Settings(budgets={"size": 700.0}, float_epochs=4, options=Options(epochs=2))
    model = Residual()
    before = digest(model)
    found = quantize(model, data, settings)
    assert digest(model) == before
    assert found.record["costs"]["size"] <= 700
    assert found.record["accuracy"]["on"] == "training"
    right = (found.net(data.x).argmax(1) == data.y).float().mean()
    assert found.record["accuracy"]["quantised"] == pytest.approx(float(right))
    again = quantize(model, data, replace(settings))
    assert again.record == found.record


def test_a_model_that_quantisers_break_is_refused_before_training() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.out = nn.Linear(5, 3), nn.Linear(3, 3)
            self.shift = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.fc(x) + self.shift)

    x = torch.randn(20, 5)
    settings = Settings(budgets={"size": 700.0}, options=Options(epochs=1))
    with pytest.raises(HqcError, match="HQC603"):
        quantize(Odd(), Dataset("mine", x, x[:, :3].argmax(1)), settings)


@given(st.integers(1, 10**6), st.sampled_from(["", "k", "M"]))
def test_budgets_are_what_they_say(number: int, factor: str) -> None:
    times = {"": 1, "k": 1000, "M": 10**6}[factor]
    found = parse_budgets([f"bops={number}{factor}", f"size={number}{factor}B"])
    assert found == {"bops": number * times, "size": 8 * number * times}
    assert parse_budgets([f"size={number}{factor}bit"]) == {"size": number * times}
    found = parse_budgets([f"area={number}{factor}um2"])
    assert found == parse_budgets([f"area={number}{factor}"]) == {"area": number * times}
    assert parse_budgets([f"area={number}{factor}mm2"]) == {"area": 1e6 * number * times}
    assert parse_budgets([f"area={number:,}{factor} um2"]) == found


def test_widths_are_what_they_say() -> None:
    assert parse_candidates("2..4,8") == (2, 3, 4, 8)
    assert parse_assignment("6", ["a", "b"], 8) == {"a": (6, 8), "b": (6, 8)}
    assert parse_assignment("b=4/5, a=3", ["a", "b"], 8) == {"a": (3, 8), "b": (4, 5)}
    for text in ("", "a", "3..2", "2-4"):
        with pytest.raises(HqcError, match="HQC001"):
            parse_candidates(text)


def test_the_digits_are_split_once_and_for_all() -> None:
    pytest.importorskip("sklearn")
    flat, images = load_dataset("digits"), load_dataset("digits-images")
    assert flat.x.shape == (1438, 64)
    assert flat.valid is not None
    assert flat.valid[0].shape == (359, 64)
    assert torch.equal(images.x.flatten(1), flat.x)
    assert flat.digest == load_dataset("digits").digest != images.digest
    assert sorted(set(flat.y.tolist())) == list(range(10))


def test_what_c_code_prints_does_not_reach_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    libc = ctypes.CDLL(None)
    print("before")
    with _stdout_kept():
        libc.puts(b"a stray line")
    print("after")
    assert capfd.readouterr().out == "before\nafter\n"
