"""What the training commands refuse, and how they say it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_fixtures import hqc as hqc  # the fixture
from support.small_model import Run
from support.training_runs import BUDGET, QUANTIZE, SHORT
from support.training_runs import files as files  # the fixture

import hqc.frontends.torch.quant_operator  # noqa: F401 - registers hqc::quant for torch.export.load
from hqc.cli.console import Console
from hqc.diagnostics import Exit


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        ("nets.py:broken", "sets.py:data", r'HQC001.*\n.*nets.py:\d+  return missing\["layer"\]'),
        ("nets.py:number", "sets.py:data", "HQC001.*gives a int, not an nn.Module"),
        ("nets.py:nett", "sets.py:data", "HQC001.*defines no nett"),
        ("nowhere.py:Net", "sets.py:data", "HQC001.*cannot read nowhere.py"),
        ("nets.py", "sets.py:data", "HQC001.*unknown form"),
        ("nowhere.pt2", "sets.py:data", "HQC002.*cannot read nowhere.pt2"),
        ("nets.py:Hidden", "sets.py:data", "HQC605|HQC603"),
        ("nets.py:nan", "sets.py:data", "HQC604.*NaN"),
        ("nets.py:Net", "sets.py:empty", "HQC605.*the loader is empty"),
        ("nets.py:Net", "sets.py:fails", r"HQC001.*OSError(.|\n)*disk on fire"),
        ("nets.py:Net", "nowhere.npz", "HQC005.*cannot read nowhere.npz"),
        ("nets.py:Net", "cloud", "HQC001.*no such data"),
        ("nets.py:Net", "pickled.npz", "HQC003.*pickled"),
        ("nets.py:Net", "text.npz", "HQC005"),
        ("nets.py:Net", "names.npz", "HQC005.*no array y(.|\n)*labels instead"),
        ("nets.py:Net", "nan.npz", "HQC605.*1 of 9 samples hold NaN"),
        ("nets.py:Net", "wide.npz", r"HQC605.*fails on samples \(2, 7\)"),
        ("nets.py:Net", "classes.npz", "HQC605.*labels up to 8, the model 3 classes"),
        ("nets.py:Net", "float.npz", r"HQC605.*labels \(9,\) of float64"),
        ("nets.py:Net", "lengths.npz", "HQC605.*inputs"),
    ],
)
def test_bad_models_and_data_have_a_code(
    hqc: Run, tmp_path: Path, model: str, data: str, said: str
) -> None:
    x, y = np.zeros((9, 6)), np.zeros(9, int)
    np.savez(tmp_path / "pickled.npz", x=np.array([{}, 1], dtype=object), y=y)
    (tmp_path / "text.npz").write_text("x,y\n1,2\n")
    np.savez(tmp_path / "names.npz", x=x, labels=y)
    nan = x.copy()
    nan[3, 3] = np.nan
    np.savez(tmp_path / "nan.npz", x=nan, y=y)
    np.savez(tmp_path / "wide.npz", x=np.zeros((9, 7)), y=y)
    np.savez(tmp_path / "classes.npz", x=x, y=np.arange(9))
    np.savez(tmp_path / "float.npz", x=x, y=y / 2)
    np.savez(tmp_path / "lengths.npz", x=x, y=y[:5])
    ended = hqc("sensitivity", model, "--data", data)
    assert ended.status in (Exit.REJECTED, Exit.USAGE)
    assert re.search(said, ended.err), ended.err
    assert len(ended.err.splitlines()) < 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--budget", "bops=1k"), "HQC611(.|\n)*nearest feasible budget for bops is 7,384$"),
        (("--budget", "size=1B"), "HQC611(.|\n)*8 bits asked for(.|\n)*504 bits"),
        (("--budget", "bops"), "HQC001.*no NAME=NUMBER"),
        (("--budget", "bops=-5"), "HQC001.*no NAME=NUMBER"),
        (("--budget", "bops=0"), "HQC001.*nothing fits"),
        (("--budget", "bops=2kB"), "HQC001.*B is a unit of sizes"),
        (("--budget", "size=2000"), "HQC001.*bytes or bits"),
        (("--budget", "lut=2mm2"), "HQC001.*mm2 is a unit of areas: lut is a plain number"),
        (("--budget", "area=2kB"), "HQC001.*B is a unit of sizes: area is in mm2 or um2"),
        (
            ("--budget", "area=2um2"),
            r"HQC611(.|\n)*2 um2 asked for, ([\d,]+) um2 is the(.|\n)* is \2 um2$",
        ),
        (("--budget", "bops=1", "--budget", "bops=2"), "HQC001.*one for bops already"),
        (("--budget", "dsp=5"), "HQC612.*costs are: bops, size"),
        ((), "HQC001.*needs a --budget"),
        (("--budget", "bops=9k", "--bits", "8..2"), "HQC001.*not of a known form"),
        (("--budget", "bops=9k", "--bits", "1..4"), "HQC107.*from 2 to 16"),
        (("--budget", "bops=9k", "--bits", "2..999999999"), "HQC107.*from 2 to 16"),
        (("--budget", "bops=9k", "--uncoupled", "--activation-bits", "8"), "HQC001.*--uncoupled"),
        (("--budget", "bops=9k", "--traces", "nowhere.json"), "HQC613.*cannot read"),
        (("--budget", "bops=9k", "--cost-table", "sets.py"), "HQC612.*no cost table"),
        (("--budget", "bops=9k", "--method", "magic"), "HQC001.*hutchinson"),
    ],
)
def test_bad_choices_have_a_code(hqc: Run, arguments: tuple[str, ...], said: str) -> None:
    ended = hqc("allocate", "nets.py:Net", "--data", "sets.py:data", *arguments)
    assert ended.status in (Exit.REJECTED, Exit.USAGE)
    assert re.search(said, ended.err, re.MULTILINE), ended.err


def test_the_nearest_budget_of_area_is_taken_as_it_is_printed(hqc: Run) -> None:
    allocate = ("allocate", "nets.py:Net", "--data", "sets.py:data", "--bits", "2,3", "--budget")
    found = re.search(r"feasible budget for area is (.*)", hqc(*allocate, "area=2um2").err)
    assert found
    assert re.fullmatch(r"[\d,]+ um2", found[1])
    ended = hqc(*allocate, f"area={found[1]}")
    assert ended.status == Exit.OK, ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "HQC001.*needs a --budget"),
        (("--bits", "2..8"), "HQC001.*not of a known form"),
        (("--bits", "fc1=4"), "HQC107.*fc2: its width is missing"),
        (("--bits", "fc1=4,fc2=4,out=4,fc9=4"), "HQC107.*fc9: no such layer"),
        (("--bits", "6", "--lr", "1e30"), "HQC604.*the loss is"),
        (("--bits", "6", "--lr", "nan"), "HQC001"),
        (("--bits", "6", "--epochs", "0"), "HQC001"),
        (("--bits", "6", "--batch", "0"), "HQC001"),
        (("--bits", "6", "--freeze-ranges", "1"), "HQC001.*freeze them from the second"),
        (("--bits", "6", "--mode", "odd"), "HQC102"),
        (("--bits", "6", "--device", "tpu"), "HQC001.*no device tpu"),
    ],
)
def test_bad_trainings_have_a_code(hqc: Run, arguments: tuple[str, ...], said: str) -> None:
    ended = hqc(*QUANTIZE, *arguments)
    assert ended.status in (Exit.REJECTED, Exit.USAGE)
    assert re.search(said, ended.err), ended.err
    assert not Path("out.pt").exists()


def test_missing_libraries_are_named(hqc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from hqc.codesign.training import datasets
    from hqc.codesign.workflow import plots

    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None)
    ended = hqc(*QUANTIZE, *BUDGET, "--plots", "figures")
    assert ended.status == Exit.TOOL
    assert "pip install 'hqc[plots]'" in ended.err
    monkeypatch.setattr(datasets.importlib.util, "find_spec", lambda name: None)
    ended = hqc("sensitivity", "nets.py:Net", "--data", "digits")
    assert ended.status == Exit.TOOL
    assert "pip install 'hqc[datasets]'" in ended.err


def test_terminals_see_each_epoch_begin(hqc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Console.on_stderr

    def live(*arguments: Any) -> Console:
        console = made(*arguments)
        console.live = True
        return console

    monkeypatch.setattr(Console, "on_stderr", live)
    ended = hqc(*QUANTIZE, *BUDGET, *SHORT)
    assert "  quantised, epoch 3 ..." in ended.err
    assert "\r\x1b[K  quantised, epoch 3 " in ended.err


def test_a_budget_that_no_width_keeps_is_refused_before_training(hqc: Run) -> None:
    ended = hqc(*QUANTIZE, *SHORT, "--budget", "bops=10")
    assert "HQC611" in ended.err
    assert "epoch" not in ended.err
