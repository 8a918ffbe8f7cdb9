"""sensitivity, allocate and quantize on the command line, on nets of a few hundred weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support.cli_fixtures import hqc as hqc  # the fixture
from support.small_model import Run
from support.training_runs import BUDGET, DATA, MODELS, QUANTIZE, SHORT, document
from support.training_runs import files as files  # the fixture

import hqc.frontends.torch.quant_operator  # noqa: F401 - registers hqc::quant for torch.export.load
from hqc.codesign.hessian.sensitivity import Sensitivity
from hqc.codesign.training.loop import _Run
from hqc.diagnostics import Exit
from hqc.frontends.torch_export.program_files import load_program

# sensitivity


@pytest.mark.parametrize("method", ["hutchinson", "fisher", "exact"])
def test_traces_are_printed_and_saved(hqc: Run, method: str) -> None:
    command = ("sensitivity", "nets.py:Net", "--data", "sets.py:data", "--method", method)
    ended = hqc(*command, "--seed", "5", "--samples", "100", "-o", "t.json")
    assert ended.status == 0, ended.err
    saved = Sensitivity.load(Path("t.json"))
    assert [x.name for x in saved.layers] == ["fc1", "fc2", "out"]
    assert saved.samples == 100
    assert saved.method.startswith(method)
    for layer in saved.layers:
        assert f"{layer.trace:.5g}" in ended.out
    again = document(hqc(*command, "--seed", "5", "--samples", "100", "-f", "json"))
    assert [x["trace"] for x in again["layers"]] == [x.trace for x in saved.layers]
    other = document(hqc(*command, "--seed", "6", "--samples", "100", "-f", "json"))
    assert other["layers"] != again["layers"]


def test_hutchinson_agrees_with_the_exact_traces_of_the_folded_net(hqc: Run) -> None:
    found = {}
    for method in ("hutchinson", "exact"):
        command = ("sensitivity", "nets.py:Net", "--data", "sets.py:data", "-f", "json")
        found[method] = document(hqc(*command, "--method", method))["layers"]
    for estimate, exact in zip(found["hutchinson"], found["exact"], strict=True):
        assert abs(estimate["trace"] - exact["trace"]) < 5 * estimate["error"]


def test_a_saved_program_gives_the_same_traces_as_its_module(hqc: Run, tmp_path: Path) -> None:
    from hqc.codesign.training.models import load_model

    model = load_model(f"{tmp_path / 'nets.py'}:Net").eval()
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(model, (torch.zeros(2, 6),), dynamic_shapes=batch)
    torch.export.save(program, tmp_path / "net.pt2")
    found = [
        document(hqc("sensitivity", name, "--data", "sets.py:data", "-f", "json"))["layers"]
        for name in ("nets.py:Net", "net.pt2")
    ]
    assert found[0] == found[1]


# allocate


def test_the_answer_keeps_its_budgets(hqc: Run) -> None:
    command = ("allocate", "nets.py:Net", "--data", "sets.py:data", "-f", "json")
    found = document(hqc(*command, "--budget", "bops=12k", "--budget", "size=150B"))
    assert found["costs"]["bops"] <= 12_000
    assert found["costs"]["size"] <= 150 * 8
    assert {w["activations"] for w in found["bits"].values()} == {8}
    assert found["predicted_loss_increase"] == pytest.approx(sum(found["by_knob"].values()))


def test_the_front_holds_the_answer_and_saved_traces_give_it_too(hqc: Run) -> None:
    command = ("allocate", "nets.py:Net", "--data", "sets.py:data", "--budget", "bops=12k")
    hqc("sensitivity", "nets.py:Net", "--data", "sets.py:data", "-o", "t.json")
    ended = hqc(*command, "--traces", "t.json", "--front", "-f", "json")
    found = document(ended)
    assert "traces of weights" not in ended.err
    assert document(hqc(*command, "-f", "json"))["bits"] == found["bits"]
    costs = [point["costs"]["bops"] for point in found["front"]]
    losses = [point["predicted_loss_increase"] for point in found["front"]]
    assert costs == sorted(costs)
    assert losses == sorted(losses, reverse=True)
    assert found["bits"] in [point["bits"] for point in found["front"]]


def test_activation_widths_can_be_chosen_or_coupled_to_weights(hqc: Run) -> None:
    command = ("allocate", "nets.py:Net", "--data", "sets.py:data", "-f", "json")
    chosen = document(hqc(*command, "--budget", "bops=9k", "--activation-bits", "3..6"))
    assert {w["activations"] for w in chosen["bits"].values()} <= {3, 4, 5, 6}
    assert "fc2.input" in chosen["by_knob"]
    coupled = document(hqc(*command, "--budget", "bops=20k", "--uncoupled"))["bits"]
    assert coupled["fc1"]["activations"] == 16
    assert coupled["fc2"]["activations"] == coupled["fc2"]["weights"] + 3


def test_a_cost_table_is_a_budget_of_its_own(hqc: Run, tmp_path: Path) -> None:
    table = {"lut": {name: {"4": 100, "6": 170} for name in ("fc1", "fc2", "out")}}
    (tmp_path / "costs.json").write_text(json.dumps(table))
    command = ("allocate", "nets.py:Net", "--data", "sets.py:data", "--cost-table", "costs.json")
    found = document(hqc(*command, "--budget", "lut=400", "--bits", "4,6", "-f", "json"))
    assert found["costs"]["lut"] == 370
    ended = hqc(*command, "--budget", "lut=400", "--bits", "4,5,6")
    assert ended.status == Exit.REJECTED
    assert "fc1 at 5 bits is not in it" in ended.err


# quantize


def test_all_steps_end_in_a_program_that_torch_and_hqc_read(hqc: Run, tmp_path: Path) -> None:
    ended = hqc(*QUANTIZE, *BUDGET, *SHORT, "--plots", "figures", "-f", "json")
    assert ended.status == 0, ended.err
    found = document(ended)
    assert len(found["history"]["float"]) == len(found["history"]["quantised"]) == 3
    assert ended.err.count("epoch") == 6
    assert found["costs"]["bops"] <= 12_000
    assert found["accuracy"]["quantised"] > 0.6
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {
        *("traces-weights.png", "bits.png", "loss.png", "accuracy.png"),
        "accuracy-bops.png",
    }
    module = torch.export.load("out.pt").module()
    x = torch.randn(50, 6)
    torch.testing.assert_close(load_program(Path("out.pt")).module()(x), module(x))
    extra = {"hqc-training.json": ""}
    torch.export.load("out.pt", extra_files=extra)
    assert json.loads(extra["hqc-training.json"])["bits"] == found["bits"]
    shown = hqc("show", "out.pt")
    assert "trained on sets.py:data, seed 0" in shown.out
    assert "hqc.module" in shown.out
    assert document(hqc("show", "out.pt", "-f", "json"))["training"]["bits"] == found["bits"]


def test_given_widths_are_taken_as_they_are(hqc: Run) -> None:
    ended = hqc(*QUANTIZE, "--bits", "fc1=6/8,fc2=4/6,out=5", *SHORT, "-f", "json")
    assert document(ended)["bits"] == {
        "fc1": {"weights": 6, "activations": 8},
        "fc2": {"weights": 4, "activations": 6},
        "out": {"weights": 5, "activations": 8},
    }


@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_an_interrupted_run_goes_on_to_the_very_same_result(
    hqc: Run, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    assert hqc(*QUANTIZE[:-1], "whole.pt", *BUDGET, *SHORT).status == 0
    epoch, calls = _Run.epoch, 0

    def interrupted(self: _Run, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == stop:
            raise KeyboardInterrupt
        return epoch(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(_Run, "epoch", interrupted)
        ended = hqc(*QUANTIZE, *BUDGET, *SHORT)
    assert ended.status == 130
    assert not Path("out.pt").exists()
    assert "goes on from there" in ended.err
    assert "hqc quantize nets.py:Net" in ended.err
    ended = hqc(*QUANTIZE, *BUDGET, *SHORT)
    assert ended.status == 0
    assert ("resumed" in ended.err) == (stop > 1)
    assert Path("out.pt").read_bytes() == Path("whole.pt").read_bytes()


#: Jobs in the background ignore the signal, and their children inherit that.
START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from hqc.cli import main
sys.exit(main())
"""


def test_ctrl_c_in_a_process_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-c", START, *QUANTIZE, *BUDGET, "--epochs", "100000"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        state = tmp_path / "out.pt.work" / "quantised.pt"
        for _ in range(600):
            if state.exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "interrupted; the state is in out.pt.work" in err
    assert "Traceback" not in err
    assert state.exists()
    assert [p.name for p in state.parent.iterdir() if p.name.startswith(".")] == []


def test_other_settings_do_not_resume(hqc: Run) -> None:
    assert hqc(*QUANTIZE, *BUDGET, *SHORT).status == 0
    before = Path("out.pt").read_bytes()
    for change in (("--epochs", "4"), ("--budget", "size=1kB"), ("--seed", "1")):
        ended = hqc(*QUANTIZE, *BUDGET, *SHORT, *change)
        assert ended.status == Exit.REJECTED
        assert "HQC607" in ended.err
        assert "--restart" in ended.err
    assert Path("out.pt").read_bytes() == before
    ended = hqc(*QUANTIZE, *BUDGET, *SHORT, "--seed", "1", "--restart")
    assert ended.status == 0, ended.err
    assert Path("out.pt").read_bytes() != before


def test_another_model_or_other_data_do_not_resume(hqc: Run, tmp_path: Path) -> None:
    assert hqc(*QUANTIZE, *BUDGET, *SHORT).status == 0
    (tmp_path / "sets.py").write_text(DATA.replace("make(600, 1)", "make(600, 3)"))
    ended = hqc(*QUANTIZE, *BUDGET, *SHORT)
    assert "HQC607" in ended.err
    assert "note: data: " in ended.err
    (tmp_path / "sets.py").write_text(DATA)
    (tmp_path / "nets.py").write_text(MODELS.replace("torch.relu(self.fc2(x))", "self.fc2(x)"))
    ended = hqc(*QUANTIZE, *BUDGET, *SHORT)
    assert "HQC607" in ended.err
    assert "note: model: " in ended.err


@pytest.mark.parametrize("name", ["run.json", "weights.json", "float.pt", "quantised.pt"])
def test_a_damaged_state_is_refused_until_it_is_thrown_away(hqc: Run, name: str) -> None:
    assert hqc(*QUANTIZE, *BUDGET, *SHORT).status == 0
    before = Path("out.pt").read_bytes()
    file = Path("out.pt.work") / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    ended = hqc(*QUANTIZE, *BUDGET, *SHORT)
    assert ended.status == Exit.REJECTED
    assert "HQC606" in ended.err
    assert hqc(*QUANTIZE, *BUDGET, *SHORT, "--restart").status == 0
    assert Path("out.pt").read_bytes() == before


def test_nothing_of_others_is_removed_or_overwritten(hqc: Run, tmp_path: Path) -> None:
    (tmp_path / "out.pt").write_bytes(b"mine")
    assert "HQC004" in hqc(*QUANTIZE, *BUDGET, *SHORT).err
    (tmp_path / "out.pt").unlink()
    folder = tmp_path / "out.pt.work"
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    for extra in ((), ("--restart",)):
        assert "HQC004" in hqc(*QUANTIZE, *BUDGET, *SHORT, *extra).err
    assert (folder / "thesis.tex").read_text() == "mine"


@pytest.mark.emulation
def test_what_it_makes_compiles_bit_for_bit(hqc: Run) -> None:
    assert hqc(*QUANTIZE, *BUDGET, *SHORT, "--per-channel").status == 0
    ended = hqc("compile", "out.pt", "-b", "vitis", "-o", "project", "--check", "200")
    assert ended.status == 0, ended.err
    assert "bit-exact on 200 samples" in ended.err


# what is refused
