"""The Python interface: modules and arrays in, artifacts and arrays out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx_ir import Model
from support.small_model import small_model
from torch import nn

import hqc
from hqc.analysis.partition import partition
from hqc.diagnostics.events import Event
from hqc.equivalence.bit_exactness import ExactCore
from hqc.equivalence.samples import generate
from hqc.frontends.torch import QuantIdentity, QuantLinear, QuantReLU
from hqc.ir import State, state_of

emulation = pytest.mark.emulation


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inp = QuantIdentity(bits=6)
        self.fc1 = QuantLinear(5, 4, weight_bits=4)
        self.act1 = QuantReLU(bits=4)
        self.fc2 = QuantLinear(4, 2, weight_bits=4)
        self.out = QuantIdentity(bits=8)

    def forward(self, x: Any) -> Any:
        return self.out(self.fc2(self.act1(self.fc1(self.inp(x)))))


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(3)
    found = Net().train()
    for _ in range(3):
        found(torch.randn(64, 5))
    return found.eval()


@emulation
def test_a_module_is_compiled_and_runs(net: Net, tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
    seen: list[Event] = []
    artifact = hqc.compile(
        net, "vitis", tmp_path / "net", example_inputs=torch.zeros(1, 5), samples=x,
        check=100, watch=seen.append,
    )  # fmt: skip
    assert artifact.manifest.verdict.exact
    assert artifact.manifest.verdict.samples == 140
    assert artifact.manifest.model["name"] == "Net"
    y = artifact.run(x)
    assert np.array_equal(y, artifact.run(x, engine="exact"))
    (name,) = (i.name for i in artifact.inputs)
    by_name = artifact.run({name: x})
    assert np.array_equal(y, next(iter(by_name.values())))
    torchs = net(torch.from_numpy(x)).detach().numpy()
    assert np.mean(y == torchs) > 0.9  # torch computes in float32, which decides ties either way
    assert hqc.Artifact.open(tmp_path / "net").check(samples=50).exact
    names = [e.name for e in seen if e.seconds is None]
    assert names[0] == "load"
    assert "lower-scales" in names


def test_an_exported_program_is_a_model_too(net: Net) -> None:
    from hqc.frontends.torch_export import export_module

    program = export_module(net, torch.zeros(2, 5))
    one, two = hqc.load(program), hqc.load(net, example_inputs=torch.zeros(1, 5))
    assert isinstance(one, Model)
    assert [n.op_type for n in one.graph] == [n.op_type for n in two.graph]


def test_a_float_model_is_quantised_after_training(tmp_path: Path) -> None:
    torch.manual_seed(5)
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    x = np.random.default_rng(2).normal(size=(256, 5)).astype(np.float32)
    artifact = hqc.compile(
        net, "catapult", tmp_path / "net", example_inputs=torch.zeros(1, 5), samples=x,
        quantise=8, check=None,
    )  # fmt: skip
    assert artifact.manifest.verdict.text.startswith("not checked")
    want = net(torch.from_numpy(x)).detach().numpy()
    error = np.abs(artifact.run(x, engine="exact") - want)
    assert error.mean() < 0.02 * np.abs(want).max()


def test_loading_and_passes() -> None:
    model = hqc.load(small_model())
    assert state_of(model) is State.QUANTISED
    lowered = hqc.run_passes(model, "fold-constants,normalize,fold-quantizers,lower-scales")
    assert state_of(lowered) is State.INTEGER
    assert state_of(model) is State.QUANTISED  # the argument is left alone


@pytest.mark.parametrize("what", [7, None, b"bytes", {"a": 1}])
def test_what_is_not_a_model(what: object) -> None:
    with pytest.raises(hqc.HqcError, match="HQC001"):
        hqc.load(what)


def test_a_module_without_example_inputs(net: Net) -> None:
    with pytest.raises(hqc.HqcError, match="HQC001"):
        hqc.load(net)


def test_an_unknown_engine_and_wrong_arrays(tmp_path: Path) -> None:
    onnx.save(small_model(), tmp_path / "small.onnx")
    artifact = hqc.compile(tmp_path / "small.onnx", output=tmp_path / "out", check=None)
    x = np.zeros((2, 4), np.float32)
    for bad, engine, code in (
        (x, "exat", "HQC001.: .*(.|\n)*did you mean exact.*(.|\n)*emulation, exact, vitis"),
        (x, "catapult", "HQC001.: .*is for vitis(.|\n)*compile the model with -b catapult"),
        (x[:, :3], "exact", "HQC005"),
        ({"z": x}, "exact", "HQC005"),
        (np.zeros((2, 4)) + 0.1, "exact", "HQC005"),
    ):
        with pytest.raises(hqc.HqcError, match=code):
            artifact.run(bad, engine=engine)


def test_the_reference_takes_over_from_the_fast_executor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hqc.diagnostics import reject
    from hqc.equivalence import bit_exactness

    onnx.save(small_model(), tmp_path / "small.onnx")
    artifact = hqc.compile(tmp_path / "small.onnx", output=tmp_path / "out", check=None)
    x = generate(artifact.model, 100, 5)
    want = ExactCore(artifact.partition).codes(x)

    def refuse(_: object) -> None:
        raise reject("HQC204", "too wide")

    monkeypatch.setattr(bit_exactness, "Fast", refuse)
    slow = ExactCore(partition(artifact.model))
    assert slow.certificate[0].reason == "too wide"
    got = slow.codes(x)
    assert got.keys() == want.keys()
    assert all(np.array_equal(got[name], want[name]) for name in want)
