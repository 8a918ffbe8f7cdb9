"""The command line: every ending is one screen, an exit status, and valid JSON if asked for."""

from __future__ import annotations

import os
import pickle
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.small_model import Run, content, small_model

from hqc.cli.parser import parse
from hqc.diagnostics import CODES, Exit

# --- usage ----------------------------------------------------------------------------------


def test_help_and_version(hqc: Run) -> None:
    assert "exit status" in hqc("--help").out
    assert hqc("--version").out.startswith("hqc 0.")
    for command in [
        "compile",
        "run",
        "check",
        "opt",
        "show",
        "passes",
        "backends",
        "doctor",
        "explain",
    ]:
        ended = hqc(command, "--help")
        assert ended.status == Exit.OK
        assert "usage: hqc" in ended.out


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], ""),
        (["comple"], "did you mean compile"),
        (["compile", "m.onnx", "--quantzie", "8"], "did you mean --quantize"),
        (["compile"], "MODEL"),
        (["compile", "m.onnx", "--check", "many"], "off"),
        (["compile", "m.onnx", "--check", "0"], "from 1"),
        (["compile", "m.onnx", "--clock", "-1"], "positive"),
        (["compile", "m.onnx", "--strategy", "latencie"], "did you mean latency"),
        (["compile", "m.onnx", "--io", "io_streams"], "did you mean io_stream"),
        (["compile", "m.onnx", "--input-type", "x=float"], "fixed<16,6>"),
        (["compile", "m.onnx", "--input-type", "x=fixed<0,0>"], "width"),
        (["explain", "HQC2O1"], "did you mean HQC201"),
        (["check", "a", "--smaples", "5", "b"], "did you mean --samples"),
        (["check", "--samples", "5"], "DIR"),
        (["show", "a", "b"], "unrecognized arguments: b"),
    ],
)
def test_wrong_usage(hqc: Run, arguments: list[str], hint: str) -> None:
    ended = hqc(*arguments)
    assert ended.status == Exit.USAGE
    assert ended.codes == ["HQC001"]
    assert hint in ended.err
    assert len(ended.err.splitlines()) < 12
    document = hqc(*arguments, "-f", "json").document
    assert document["exit"] == 2
    assert document["diagnostics"][0]["code"] == "HQC001"


def test_several_of_one_kind_may_stand_anywhere() -> None:
    found = parse(["check", "a", "--samples", "5", "b", "c", "-q", "d"])
    assert isinstance(found, Namespace)
    assert (found.directories, found.samples) == (["a", "b", "c", "d"], "5")
    found = parse(["golden", "a.hqir", "--update-golden", "b.hqir"])
    assert isinstance(found, Namespace)
    assert found.files == ["a.hqir", "b.hqir"]


def test_explain(hqc: Run) -> None:
    assert CODES["HQC202"] in hqc("explain", "hqc202").out
    assert set(hqc("explain", "--format=json").document["result"]) == set(CODES)


def test_lists(hqc: Run) -> None:
    assert "default pipeline" in hqc("passes").out
    assert {p["name"] for p in hqc("passes", "-f", "json").document["result"]["passes"]}
    assert "vitis" in hqc("backends").out
    assert set(hqc("backends", "-f", "json").document["result"]) >= {"vitis", "catapult"}


def test_doctor(hqc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    document = hqc("doctor", "-f", "json").document
    topics = {f["topic"]: f["state"] for f in document["result"]["findings"]}
    assert topics["hls4ml"] == "ok"
    monkeypatch.setenv("PATH", "/nonexistent")
    ended = hqc("doctor")
    assert ended.status == Exit.TOOL
    assert "missing: c++ compiler" in ended.out


# --- files that are not models --------------------------------------------------------------


def hostile(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files by name, each with the code that refuses it."""
    whole = small_model().SerializeToString()
    unknown = small_model("Sin")
    unknown.graph.node[-1].op_type = "Nonsense"
    nan = small_model()
    nan.graph.initializer[3].CopyFrom(
        numpy_helper.from_array(np.full((4, 3), np.nan, np.float32), nan.graph.initializer[3].name)
    )
    contents = {
        "empty.onnx": (b"", "HQC002"),
        "noise.onnx": (bytes(range(256)) * 8, "HQC002"),
        "cut.onnx": (whole[: len(whole) // 2], "HQC002"),
        "text.onnx": (b"this is not a model", "HQC002"),
        "model.xyz": (whole, "HQC002"),
        "pickle.pt": (pickle.dumps({"a": 1}), "HQC003"),
        "pickle.pt2": (pickle.dumps({"a": 1}), "HQC003"),
        "noise.pt2": (b"PK\x03\x04" + bytes(100), "HQC002"),
        "empty.pt": (b"", "HQC002"),
        "bad.hqir": (b"\xff\xfe", "HQC002"),
        "words.hqir": (b"once upon a time", "HQC306"),
        "unknown.onnx": (unknown.SerializeToString(), "HQC101"),
    }
    found = {}
    for name, (data, code) in contents.items():
        (folder / name).write_bytes(data)
        found[name] = (folder / name, code)
    found["absent.onnx"] = (folder / "absent.onnx", "HQC002")
    (folder / "folder.onnx").mkdir()
    found["folder.onnx"] = (folder / "folder.onnx", "HQC002")
    return found


@pytest.mark.parametrize(
    "name",
    [
        *("empty.onnx", "noise.onnx", "cut.onnx", "text.onnx", "model.xyz", "absent.onnx"),
        *("pickle.pt", "pickle.pt2", "noise.pt2", "empty.pt", "bad.hqir", "words.hqir"),
        *("unknown.onnx", "folder.onnx"),
    ],
)
def test_files_that_are_not_models(hqc: Run, tmp_path: Path, name: str) -> None:
    path, code = hostile(tmp_path)[name]
    ended = hqc("compile", path, "-o", tmp_path / "out", "-f", "json")
    assert ended.status == Exit.REJECTED
    assert [d["code"] for d in ended.document["diagnostics"]] == [code]
    assert not (tmp_path / "out").exists()
    if name != "folder.onnx":
        assert hqc("show", path).status == Exit.REJECTED


def test_a_pickle_is_not_executed(hqc: Run, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "owned"),)

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
    assert hqc("compile", tmp_path / "evil.pt").codes == ["HQC003"]
    assert not (tmp_path / "owned").exists()


def test_diagnostics_name_the_operator(hqc: Run, tmp_path: Path) -> None:
    path, _ = hostile(tmp_path)["unknown.onnx"]
    ended = hqc("compile", path)
    assert "Nonsense" in ended.err
    assert "extra" in ended.err


def test_a_float_model_is_told_what_to_do(hqc: Run, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], name="relu")],
        "float",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "f.onnx")
    ended = hqc("compile", tmp_path / "f.onnx")
    assert ended.status == Exit.REJECTED
    assert ended.codes == ["HQC103"]
    assert "--quantize" in ended.err


# --- names and places -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "code", "hint"),
    [
        (["-b", "vits"], 2, "HQC301", "did you mean vitis"),
        (["-p", "no-such-pass"], 2, "HQC301", "no-such-pass"),
        (["-p", "dce,("], 2, "HQC306", ""),
        (["-p", ""], 1, "HQC205", "default pipeline"),
        (["--samples", "absent.npy"], 2, "HQC005", "absent.npy"),
        (["--input-type", "z=fixed<8,2>"], 2, "HQC001", "x"),
    ],
)
def test_unknown_names(
    hqc: Run, model: Path, arguments: list[str], status: int, code: str, hint: str
) -> None:
    ended = hqc("compile", model, *arguments)
    assert ended.codes == [code], ended.err
    assert ended.status == status
    assert hint in ended.err


def test_foreign_directories_are_left_alone(hqc: Run, model: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("work of years")
    ended = hqc("compile", model, "-o", foreign)
    assert (ended.status, ended.codes) == (Exit.USAGE, ["HQC004"])
    assert content(foreign) == {"thesis.tex": b"work of years"}


def test_an_unwritable_place(hqc: Run, model: Path) -> None:
    ended = hqc("compile", model, "-o", model / "inside-a-file", "--check", "off")
    assert ended.status == Exit.USAGE
    assert ended.codes == ["HQC007"]


def test_without_a_compiler(
    hqc: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("HQC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    ended = hqc("compile", model, "-o", tmp_path / "out")
    assert (ended.status, ended.codes) == (Exit.TOOL, ["HQC404"])
    assert not (tmp_path / "out").exists()
    ended = hqc("compile", model, "-o", tmp_path / "out", "--check", "off")
    assert ended.status == Exit.OK
    assert "not checked" in ended.err
    assert hqc("check", tmp_path / "out").status == Exit.TOOL


def test_without_the_vendor_tool(
    hqc: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    ended = hqc("compile", model, "-o", tmp_path / "out", "--check", "off", "--build")
    assert (ended.status, ended.codes) == (Exit.TOOL, ["HQC404"])
    assert (tmp_path / "out" / "hqc.json").is_file()


# --- opt and show ---------------------------------------------------------------------------


def test_opt_prints_and_writes(hqc: Run, model: Path, tmp_path: Path) -> None:
    ended = hqc("opt", model, "--timing", "-o", tmp_path / "low.onnx")
    assert ended.status == Exit.OK, ended.err
    assert "total" in ended.out
    assert (tmp_path / "low.onnx").is_file()
    again = hqc("opt", model, "-o", tmp_path / "low.hqir")
    assert again.status == Exit.OK
    one, two = hqc("show", tmp_path / "low.onnx"), hqc("show", tmp_path / "low.hqir")
    assert one.out == two.out
    everything = hqc("opt", model, "--print-after", "all")
    assert everything.out.count("// after ") >= 3
    assert hqc("opt", model, "--print-after", "dcee").codes == ["HQC001"]


def test_opt_does_not_write_elsewhere(hqc: Run, model: Path, tmp_path: Path) -> None:
    assert hqc("opt", model, "-o", tmp_path / "low.txt").codes == ["HQC001"]
    assert hqc("opt", model, "-o", tmp_path / "no" / "low.onnx").codes == ["HQC007"]


def test_show_a_model(hqc: Run, model: Path) -> None:
    assert "MatMul" in hqc("show", model).out
    assert "MatMul" in hqc("show", model, "-f", "json").document["result"]["text"]
