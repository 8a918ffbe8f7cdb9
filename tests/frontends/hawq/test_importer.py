"""HAWQ state dicts: the codes and outputs are those of the original, ties included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hawq_models import Truth, mlp
from torch import Tensor, nn

import hqc
from hqc.cli import main
from hqc.diagnostics import HqcError
from hqc.execution.reference import Reference
from hqc.frontends.hawq import load, parse
from hqc.frontends.hawq.evaluate import evaluate
from hqc.frontends.hawq.modules import QuantAct, QuantLinear

TOLD, UNTOLD = {"pass_weight_scale": True}, {"pass_weight_scale": False}

CASES: dict[str, tuple[dict[str, Any], dict[str, bool]]] = {
    "rounds twice": ({}, UNTOLD),
    "told the weights' scale": ({"tell_weight": True}, TOLD),
    "unsigned": ({"symmetric": False, "tell_weight": True, "seed": 3}, TOLD),
    "per channel": ({"per_channel": True, "tell_weight": True, "seed": 4}, TOLD),
    "per channel, rounds twice": ({"per_channel": True, "seed": 5}, UNTOLD),
    "wide": ({"input_bits": 12, "weight_bits": 8, "act_bits": 9, "bias_bits": 16}, UNTOLD),
}


def equal(truth: Truth, config: dict[str, bool], structure: Any = None) -> None:
    network = parse(truth.state, structure, config=config)
    found = evaluate(network, truth.x)
    model = load(truth.state, structure, config=config)
    reference = Reference(model)
    trace = reference.trace({"x": truth.x})
    exact = {str(value.name): tensor for value, tensor in trace.items()}
    for name, codes in truth.codes.items():
        np.testing.assert_array_equal(found.codes[name], codes)
        np.testing.assert_array_equal(exact[name].values(), codes)
    np.testing.assert_array_equal(found.output, truth.output)
    np.testing.assert_array_equal(reference.finish(trace)["output"], truth.output)


@pytest.mark.parametrize("case", CASES)
def test_codes_and_outputs_are_those_of_the_original(case: str) -> None:
    arguments, config = CASES[case]
    equal(mlp(**arguments), config)


def test_being_told_the_scale_makes_a_difference() -> None:
    truth = mlp()
    found = evaluate(parse(truth.state, config=TOLD), truth.x)
    assert np.any(found.codes["quant_act_1"] != truth.codes["quant_act_1"])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16), st.integers(2, 8), st.integers(3, 9), st.booleans(), st.booleans())
def test_any_small_network(seed: int, bits: int, act: int, symmetric: bool, told: bool) -> None:
    truth = mlp(
        (3, 4, 2),
        weight_bits=bits,
        act_bits=act,
        symmetric=symmetric,
        tell_weight=told,
        seed=seed,
        samples=30,
    )
    equal(truth, TOLD if told else UNTOLD)


def test_buffers_that_are_older_than_the_weights_do_no_harm() -> None:
    truth = mlp(bias_bits=16)
    stale = {k: v.clone() for k, v in truth.state.items()}
    stale["dense_1.fc_scaling_factor"] *= 1.01
    stale["dense_1.weight_integer"] += 1
    prefixed = {f"module.{k}": v for k, v in stale.items()}
    equal(Truth(prefixed, truth.x, truth.codes, truth.output), {**UNTOLD, "bias_bit": 16})


# --- arithmetic ----------------------------------------------------------------------------------


class HawqNet(nn.Module):
    """As a user of HAWQ has it: its layers, called with the scales of those before."""

    def __init__(self, tell: bool = False) -> None:
        super().__init__()
        self.tell = tell
        self.quant_input = QuantAct(8)
        for i, (n, m) in enumerate(((5, 7), (7, 6), (6, 3)), 1):
            layer = QuantLinear(weight_bit=5, bias_bit=6)
            layer.set_param(nn.Linear(n, m))
            setattr(self, f"dense_{i}", layer)
        self.quant_act_1, self.quant_act_2 = QuantAct(7), QuantAct(7)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x, scale = self.quant_input(x)
        x = self.act(self.dense_1(x, scale))
        if self.tell:
            x, scale = self.quant_act_1(x, scale, self.dense_1.fc_scaling_factor)
            x = torch.relu(self.dense_2(x, scale))
            x, scale = self.quant_act_2(x, scale, self.dense_2.fc_scaling_factor)
        else:
            x, scale = self.quant_act_1(x, scale)
            x = torch.relu(self.dense_2(x, prev_act_scaling_factor=scale))
            x, scale = self.quant_act_2(x, scale)
        return self.dense_3(x, scale)


class FloatNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 7), nn.Linear(7, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


@pytest.mark.parametrize("tell", [False, True])
def test_the_calls_of_a_hawq_module_say_which_scales_are_told(tell: bool) -> None:
    equal(mlp(tell_weight=tell), {}, HawqNet(tell))


def test_a_float_module_gives_the_order() -> None:
    truth = mlp()
    shuffled = dict(sorted(truth.state.items(), key=lambda item: "act" in item[0]))
    equal(Truth(shuffled, truth.x, truth.codes, truth.output), UNTOLD, FloatNet())
    with pytest.raises(HqcError, match=r"HQC601.*does not say whether"):
        load(truth.state, FloatNet())


class Residual(nn.Module):
    def __init__(self, relu_first: bool = False) -> None:
        super().__init__()
        self.relu_first = relu_first
        self.quant_input, self.quant_sum = QuantAct(8), QuantAct(7)
        self.fc = QuantLinear(weight_bit=5, bias_bit=16)
        self.head = QuantLinear(weight_bit=5, bias_bit=16)

    def forward(self, x: Tensor) -> Tensor:
        x, s = self.quant_input(x)
        y = self.fc(x, s)
        z = torch.relu(y + x) if self.relu_first else y + x
        z, t = self.quant_sum(z, s, self.fc.fc_scaling_factor, x, s)
        return self.head(torch.relu(z), t)


def residual_state() -> tuple[dict[str, torch.Tensor], np.ndarray[Any, Any]]:
    truth = mlp((4, 4, 2), bias_bits=16)
    renamed = {
        k.replace("dense_1", "fc").replace("dense_2", "head").replace("act_1", "sum"): v
        for k, v in truth.state.items()
    }
    return renamed, truth.x


@pytest.mark.parametrize("relu_first", [False, True])
def test_residual_sums_round_part_by_part(relu_first: bool) -> None:
    state, x = residual_state()
    network = parse(state, Residual(relu_first))
    want = evaluate(network, x)
    model = load(state, Residual(relu_first))
    np.testing.assert_array_equal(Reference(model).run({"x": x})["output"], want.output)
    codes = want.codes["quant_sum"]
    assert codes.min() < -64 or codes.max() > 63  # the sum is not clamped


class Mixed(Residual):
    def forward(self, x: Tensor) -> Tensor:
        x, s = self.quant_input(x)
        y = self.fc(x, s)
        z, t = self.quant_sum(y + x, s, self.fc.fc_scaling_factor)
        return self.head(torch.relu(z), t)


def test_a_residual_sum_without_its_identity_is_refused() -> None:
    with pytest.raises(HqcError, match=r"HQC602.*mixes its parts"):
        load(residual_state()[0], Mixed())


# --- refusals ------------------------------------------------------------------------------------


def broken(change: dict[str, Any]) -> dict[str, torch.Tensor]:
    state = dict(mlp().state)
    for key, value in change.items():
        if value is None:
            del state[key]
        else:
            state[key] = torch.tensor(value)
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quant_act_1.act_scaling_factor": [0.3]}, "HQC601.*quant_act_1"),
        ({"quant_act_1.x_max": [0.0]}, "HQC601.*seen no data"),
        ({"dense_2.weight": None}, "HQC601.*dense_2.weight"),
        ({"dense_1.weight": [[float("nan")]]}, "HQC105"),
        ({"dense_2.fc_scaling_factor": [0.0]}, "HQC601.*dense_2"),
        ({f"{n}.act_scaling_factor": [0.1] for n in "pq"}, r"HQC601.*plain MLP(.|\n)*--hawq-model"),
    ],
)
def test_state_dicts_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    with pytest.raises(HqcError, match=message):
        load(broken(change), config=UNTOLD)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "HQC601.*does not say whether"),
        ({**UNTOLD, "act_bit": [7]}, "HQC601.*act_bit has 1"),
        ({**UNTOLD, "weight_bit": 2.5}, "HQC107"),
        ({**UNTOLD, "quant_mode": "odd"}, "HQC601.*odd"),
    ],
)
def test_configurations_that_do_not_fit(config: dict[str, Any], message: str) -> None:
    with pytest.raises(HqcError, match=message):
        load(mlp().state, config=config)


# --- files and the command line ------------------------------------------------------------------

MODEL_FILE = """
import torch
from torch import nn
from hqc.frontends.hawq.modules import QuantAct, QuantLinear

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.quant_input, self.quant_act_1 = QuantAct(8), QuantAct(7)
        self.dense_1, self.dense_2 = QuantLinear(5, 6), QuantLinear(5, 6)

    def forward(self, x):
        x, s = self.quant_input(x)
        x, s = self.quant_act_1(torch.relu(self.dense_1(x, s)), s)
        return self.dense_2(x, s)

class Picky(nn.Module):
    def __init__(self, width):
        super().__init__()
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save({"state_dict": mlp((4, 5, 3)).state, "epoch": 3}, tmp_path / "net.pt")
    (tmp_path / "nets.py").write_text(MODEL_FILE)
    return tmp_path / "net.pt"


def test_a_checkpoint_by_its_class(checkpoint: Path) -> None:
    truth = mlp((4, 5, 3))
    model = hqc.load(checkpoint, hawq_model=f"{checkpoint.parent / 'nets.py'}:Net")
    np.testing.assert_array_equal(Reference(model).run({"x": truth.x})["output"], truth.output)


def test_the_command_line(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nets = checkpoint.parent / "nets.py"
    assert main(["show", str(checkpoint), "--hawq-model", f"{nets}:Net"]) == 0
    assert "quant_act_1" in capsys.readouterr().out
    assert main(["show", str(checkpoint)]) == 1
    assert "--hawq-model FILE.py:NAME" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["nets.py", "nets.py:", "nets.py:None", "no.py:Net", "nets.py:Picky"]
)
def test_names_of_no_module(checkpoint: Path, name: str) -> None:
    with pytest.raises(HqcError, match="HQC001"):
        hqc.load(checkpoint, hawq_model=str(checkpoint.parent / name))


def test_the_option_is_for_hawq_only(tmp_path: Path, checkpoint: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "plain.pt")
    with pytest.raises(HqcError, match=r"HQC601.*no state dict of HAWQ"):
        hqc.load(tmp_path / "plain.pt", hawq_model=f"{tmp_path / 'nets.py'}:Net")
    with pytest.raises(HqcError, match="HQC003"):
        hqc.load(tmp_path / "plain.pt")
    (tmp_path / "net.onnx").write_bytes(b"onnx")
    with pytest.raises(HqcError, match=r"HQC001.*--hawq-model"):
        hqc.load(tmp_path / "net.onnx", hawq_model="nets.py:Net")
    data = checkpoint.read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(HqcError, match=r"HQC00[23]"):
        hqc.load(tmp_path / "cut.pt")


@pytest.mark.emulation
@pytest.mark.parametrize("backend", ["vitis", "catapult"])
def test_the_hardware_is_the_original(backend: str, tmp_path: Path) -> None:
    truth = mlp((4, 5, 3))
    model = load(truth.state, config=UNTOLD)
    artifact = hqc.compile(model, backend, tmp_path / "out", samples={"x": truth.x}, check=50)
    assert artifact.manifest.verdict.exact
    assert artifact.manifest.verdict.overflow_free
    np.testing.assert_array_equal(np.asarray(artifact.run(truth.x)), truth.output)


# --- the original's own numbers ------------------------------------------------------------------


def original(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any], Any]:
    path = folder / f"hawq_{name}.pt"
    if not path.is_file():
        pytest.skip("the HAWQ checkpoints are not present")
    found = torch.load(path, weights_only=True)
    return found["state_dict"], found["config"], np.load(folder / f"hawq_{name}_io.npz")


@pytest.mark.parametrize("name", ["jets_w6a8", "jets_mixed_8555"])
def test_the_jet_taggers_of_the_original(name: str, shared_models: Path) -> None:
    state, config, io = original(shared_models, name)
    codes = {key[5:]: io[key] for key in io if key.startswith("code.")}
    assert len(codes) == 4
    equal(Truth(state, io["x"], codes, io["y"]), config)
