"""Compiled directories through the command line: verdicts, checks, and failures in the middle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_model import Run, content

from hqc.diagnostics import Exit

emulation = pytest.mark.emulation


# --- compile, run, check --------------------------------------------------------------------


@emulation
def test_a_verdict_and_a_document(hqc: Run, model: Path, tmp_path: Path) -> None:
    ended = hqc("compile", model, "-o", tmp_path / "out", "--check", "100", "-f", "json")
    assert ended.status == Exit.OK, ended.err
    result = ended.document["result"]
    assert result["verdict"] == "bit-exact on 100 samples, all outputs, proven free of overflow"
    assert result["manifest"]["inputs"][0]["external"] == "x"
    assert "emit for vitis" in ended.err
    assert hqc("show", tmp_path / "out").out.count("\n") > 5


@emulation
def test_the_same_bytes_twice(hqc: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    one, two = tmp_path / "one", tmp_path / "elsewhere" / "two"
    for place in (one, two):
        ended = hqc("compile", model, "-o", place, "--check", "100", "--save-ir")
        assert ended.status == Exit.OK, ended.err
    first, second = content(one), content(two)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert any(name.startswith("ir/") for name in first)
    here = str(tmp_path).encode()
    assert [name for name, data in first.items() if here in data] == []


@emulation
def test_run_gives_the_models_units(hqc: Run, compiled: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(3).normal(size=(50, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    for given, written, engine in (
        ("x.npy", "a.npy", "emulation"),
        ("x.npz", "b.npy", "exact"),
        ("x.npy", "c.npz", "emulation"),
        ("x.npy", "d.npy", "vitis"),  # its own backend
    ):
        ended = hqc("run", compiled, "--input", given, "-o", written, "--engine", engine)
        assert ended.status == Exit.OK, ended.err
    a, b = np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy")
    assert a.dtype == np.float32
    assert a.shape == (50, 2)
    assert np.array_equal(a, b)
    assert np.array_equal(a, np.load(tmp_path / "d.npy"))
    assert np.array_equal(a, np.load(tmp_path / "c.npz")["y"])
    assert np.array_equal(a, np.round(a / 0.25) * 0.25)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--input", "wide.npy", "-o", "y.npy"], "HQC005"),
        (["--input", "nan.npy", "-o", "y.npy"], "HQC005"),
        (["--input", "absent.npy", "-o", "y.npy"], "HQC005"),
        (["--input", "good.npy", "-o", "y.csv"], "HQC001"),
        (["--input", "good.npy", "-o", "y.npy", "--engine", "exactt"], "HQC001"),
        (["--input", "good.npy", "-o", "none/y.npy", "--engine", "exact"], "HQC007"),
    ],
)
def test_run_refuses(
    hqc: Run, compiled: Path, tmp_path: Path, arguments: list[str], code: str
) -> None:
    np.save(tmp_path / "good.npy", np.zeros((3, 4), np.float32))
    np.save(tmp_path / "wide.npy", np.zeros((3, 5), np.float32))
    np.save(tmp_path / "nan.npy", np.full((3, 4), np.nan, np.float32))
    ended = hqc("run", compiled, *arguments)
    assert (ended.status, ended.codes) == (Exit.USAGE, [code])


@emulation
def test_check_passes_on_what_was_compiled(hqc: Run, compiled: Path) -> None:
    ended = hqc("check", compiled, "--samples", "500", "-f", "json")
    assert ended.status == Exit.OK, ended.err
    assert ended.document["result"]["samples"] == 700


@emulation
def test_options_may_stand_between_directories(hqc: Run, compiled: Path, copy: Path) -> None:
    ended = hqc("check", compiled, "--samples", "50", copy, "-f", "json")
    assert ended.status == Exit.OK, ended.err
    found = ended.document["result"]["directories"]
    assert [(d["directory"], d["samples"]) for d in found] == [
        (str(compiled), 250),
        (str(copy), 250),
    ]
    assert all(d["proof"] == {} for d in found)


@emulation
def test_check_finds_an_edited_project(hqc: Run, copy: Path) -> None:
    weights = next(p for p in sorted((copy / "project").rglob("w*.h")) if "{" in p.read_text())
    text = weights.read_text()
    number = re.search(r"\{\s*(-?[\d.]+)", text)
    assert number is not None
    changed = str(-float(number[1]) + 0.125)
    weights.write_text(text[: number.start(1)] + changed + text[number.end(1) :])
    ended = hqc("check", copy, "-f", "json")
    assert ended.status == Exit.NOT_EXACT, ended.err
    assert ended.codes == ["HQC403"]
    assert re.search(r"output \w+\[\d+, \d+\] \(sample \d+\): got code -?\d+", ended.err)
    assert "want code" in ended.document["result"]["first"]


@emulation
def test_check_finds_edited_vectors(hqc: Run, copy: Path) -> None:
    from hqc.ir.array_files import write_npz

    path = copy / "vectors" / "outputs.npz"
    with np.load(path) as found:
        outputs = {name: found[name] + 1 for name in found.files}
    write_npz(path, outputs)
    assert hqc("check", copy).codes == ["HQC403"]


@pytest.mark.parametrize("victim", ["hqc.json", "model.onnx"])
def test_damaged_directories(hqc: Run, copy: Path, victim: str) -> None:
    path = copy / victim
    path.write_bytes(path.read_bytes()[:-40])
    for arguments in (["check", copy], ["run", copy, "--input", "x.npy", "-o", "y.npy"]):
        ended = hqc(*arguments)
        assert ended.codes == ["HQC006"]
        assert ended.status == Exit.REJECTED


def test_not_a_directory_of_ours(hqc: Run, tmp_path: Path) -> None:
    for place in (tmp_path / "absent", tmp_path):
        assert hqc("check", place).codes == ["HQC006"]


# --- failures in the middle -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyboardInterrupt(), 130), (RuntimeError("boom"), 70), (OSError(28, "disk full"), 2)],
)
def test_a_failure_in_the_middle_changes_nothing(
    hqc: Run,
    model: Path,
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
) -> None:
    from hqc.artifact import assemble

    def fail(*_: object) -> None:
        raise error

    before = content(copy)
    monkeypatch.setattr(assemble, "write_vectors", fail)
    ended = hqc("compile", model, "-o", copy, "--check", "off")
    assert ended.status == status
    assert content(copy) == before
    assert [p.name for p in copy.parent.iterdir() if "hqc-new" in p.name] == []
    reports = list(Path.cwd().glob("hqc-crash-*.txt"))
    assert len(reports) == (1 if status == 70 else 0)
    if reports:
        text = reports[0].read_text()
        assert "Traceback" in text
        assert "sha256" in text
        assert reports[0].name in ended.err


@emulation
def test_a_backend_that_lies_is_found_out(
    hqc: Run, model: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hqc.backends.hls4ml.emulation import CompiledEmulator

    honest = CompiledEmulator.run

    def lie(self: Any, codes: Any) -> Any:
        found = honest(self, codes)
        name = next(iter(found))
        found[name][17, 1] += 1
        return found

    before = content(copy)
    monkeypatch.setattr(CompiledEmulator, "run", lie)
    ended = hqc("compile", model, "-o", copy, "--check", "100")
    assert (ended.status, ended.codes) == (Exit.NOT_EXACT, ["HQC403"])
    assert "sample 17" in ended.err
    assert "1 of 200 output codes" in ended.err
    assert content(copy) == before


def test_ctrl_c_of_a_real_process(model: Path, tmp_path: Path) -> None:
    # A test run in the background of a shell ignores Ctrl-C, and children inherit that.
    listening = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('hqc.cli', run_name='__main__')"
    )
    command = [sys.executable, "-c", listening, "compile", str(model), "-o", str(tmp_path / "o")]
    environment = {**os.environ, "HQC_CACHE_DIR": str(tmp_path / "cache")}
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "emit for" in line:  # the C++ compiler runs now
            break
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130, "".join(lines) + rest
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert {p.name for p in tmp_path.iterdir()} <= {"cache", "small.onnx"}
