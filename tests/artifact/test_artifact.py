"""Directories: replaced in one step or not at all, and the files that describe them."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import numpy as np
import pytest

from hqc.artifact import atomic_directory, manifest
from hqc.artifact.verdict import Verdict, not_checked
from hqc.diagnostics import HqcError
from hqc.ir import Boundary
from hqc.ir.array_files import check_inputs, read_arrays, write_npz, write_outputs

X = [Boundary("x", (3,))]


def code_of(error: pytest.ExceptionInfo[HqcError]) -> str:
    return error.value.diagnostics[0].code


def make(directory: Path, text: str = "first", error: type[BaseException] | None = None) -> None:
    with atomic_directory.replacing(directory, manifest.objection) as fresh:
        (fresh / "hqc.json").write_text(json.dumps({"magic": manifest.MAGIC, "is": text}))
        if error is not None:
            raise error
        (fresh / "project").mkdir()
        (fresh / "project" / "a.cpp").write_text(text)


def content(directory: Path) -> dict[str, bytes]:
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    return {str(p.relative_to(directory)): p.read_bytes() for p in files}


def litter(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.parent.iterdir() if p != directory)


def test_a_directory_is_made_and_replaced(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    make(target)
    assert content(target)["project/a.cpp"] == b"first"
    make(target, "second")
    assert content(target)["project/a.cpp"] == b"second"
    assert litter(target) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_directory_byte_for_byte(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "out"
    make(target)
    before = content(target)
    with pytest.raises(error):
        make(target, "half", error)
    assert content(target) == before
    assert litter(target) == []


def test_a_failing_rename_puts_the_old_directory_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    make(target)
    before = content(target)
    rename = Path.rename

    def failing(self: Path, to: Path) -> Path:
        if self.name.endswith("hqc-new"):
            raise KeyboardInterrupt
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(KeyboardInterrupt):
        make(target, "second")
    assert content(target) == before
    assert litter(target) == []


def test_killed_between_the_two_renames(tmp_path: Path) -> None:
    target = tmp_path / "out"
    make(target)
    before = content(target)
    target.rename(tmp_path / ".out.hqc-old")
    (tmp_path / ".out.hqc-new").mkdir()
    atomic_directory.recover(target, manifest.objection)
    assert content(target) == before
    make(target, "second")
    assert litter(target) == []


def test_killed_before_the_old_one_was_deleted(tmp_path: Path) -> None:
    target = tmp_path / "out"
    make(tmp_path / ".out.hqc-old", "old")
    make(target, "new")
    make(target, "newer")
    assert content(target)["project/a.cpp"] == b"newer"
    assert litter(target) == []


def test_two_compiles_of_one_directory(tmp_path: Path) -> None:
    target = tmp_path / "out"
    make(target)
    new = tmp_path / ".out.hqc-new"
    new.mkdir()
    handle = os.open(new, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(HqcError) as error:
            make(target, "second")
        assert code_of(error) == "HQC007"
        assert "another hqc" in str(error.value)
        assert content(target)["project/a.cpp"] == b"first"
    finally:
        os.close(handle)
    make(target, "second")
    assert content(target)["project/a.cpp"] == b"second"


def foreign_cases(folder: Path) -> dict[str, Path]:
    real = folder / "real"
    real.mkdir()
    (real / "thesis.tex").write_text("work of years")
    link = folder / "link"
    link.symlink_to(real)
    file = folder / "file"
    file.write_text("x")
    damaged = folder / "damaged"
    damaged.mkdir()
    (damaged / "hqc.json").write_text("{")
    mixed = folder / "mixed"
    make(mixed)
    (mixed / "notes.txt").write_text("mine")
    return {"real": real, "link": link, "file": file, "damaged": damaged, "mixed": mixed}


@pytest.mark.parametrize("case", ["real", "link", "file", "damaged", "mixed"])
def test_what_hqc_did_not_make_is_not_overwritten(tmp_path: Path, case: str) -> None:
    target = foreign_cases(tmp_path)[case]
    before = content(tmp_path)
    with pytest.raises(HqcError) as error:
        make(target)
    assert code_of(error) == "HQC004"
    assert content(tmp_path) == before


def test_the_current_directory_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out" / "project")
    for target in (Path(), Path("..")):
        with pytest.raises(HqcError) as error:
            make(target)
        assert code_of(error) == "HQC004"


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    make(tmp_path / "out")
    assert litter(tmp_path / "out") == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(HqcError) as error:
        make(tmp_path / "file" / "out")
    assert code_of(error) == "HQC007"


# --- the manifest ---------------------------------------------------------------------------


def example(**changes: object) -> manifest.Manifest:
    fields = {
        "model": {"name": "m", "file": "m.onnx", "sha256": "0"},
        "graph_sha256": "0",
        "backend": "vitis",
        "pipeline": "a,b",
        "options": {},
        "seed": 0,
        "inputs": (),
        "outputs": (),
        "host": {},
        "certificate": (),
        "verdict": not_checked(True),
        "versions": {},
        **changes,
    }
    return manifest.Manifest(**fields)  # type: ignore[arg-type]


def test_a_manifest_reads_back(tmp_path: Path) -> None:
    whole = Verdict(True, False, 10, 1, 20, "output y[0, 0]", False, 20, 2, 1)
    for found in (example(), example(verdict=whole)):
        found.write(tmp_path)
        assert manifest.read(tmp_path) == found


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[1]",
        lambda text: text.replace(manifest.MAGIC, "cake"),
        lambda text: text.replace('"pipeline": "a,b"', '"pipeline": 5'),
        lambda text: text.replace('"checked": false', '"checked": 7'),
        lambda text: text.replace('"verdict"', '"verdikt"'),
        lambda text: "[" * 100_000,
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, damage: object) -> None:
    example().write(tmp_path)
    path = tmp_path / "hqc.json"
    path.write_text(damage(path.read_text()))  # type: ignore[operator]
    with pytest.raises(HqcError) as error:
        manifest.read(tmp_path)
    assert code_of(error) == "HQC006"


def test_the_verdict_in_words() -> None:
    good = Verdict(True, True, 1000, 0, 5000, None, True, 500, 3, 0)
    assert good.text == "bit-exact on 1000 samples, all outputs, proven free of overflow"
    assert "497 of 500" in str(good.float_text)
    assert not_checked(False).text == "not checked, overflow not excluded"
    assert "NOT" in Verdict(True, False, 10, 1, 20, "y", True, 0, 0, 0).text


# --- arrays ---------------------------------------------------------------------------------


def test_npz_bytes_depend_on_the_arrays_alone(tmp_path: Path) -> None:
    first = {"a": np.arange(5), "b": np.ones((2, 3), np.float32)}
    write_npz(tmp_path / "1.npz", first)
    write_npz(tmp_path / "2.npz", dict(reversed(first.items())))
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()
    with np.load(tmp_path / "1.npz") as back:
        assert np.array_equal(back["b"], first["b"])


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 2), np.float32),
        np.zeros(3, np.float32),
        np.zeros((0, 3), np.float32),
        np.array([[0, np.nan, 0]], np.float32),
        np.array([[0, np.inf, 0]], np.float32),
        np.array([[0.1, 0, 0]], np.float64),
        np.array([[1e300, 0, 0]], np.float64),
        np.array([[2**24 + 1, 0, 0]]),
        np.zeros((4, 3), complex),
        np.array([["a", "b", "c"]]),
        np.float32(3),
    ],
)
def test_samples_that_do_not_fit(array: np.ndarray) -> None:
    with pytest.raises(HqcError) as error:
        check_inputs({"x": np.asarray(array)}, X)
    assert code_of(error) == "HQC005"


def test_samples_that_float32_holds_exactly() -> None:
    for array in (np.eye(3), np.eye(3, dtype=np.int8), np.eye(3, dtype=bool)):
        assert check_inputs({"x": array}, X)["x"].dtype == np.float32


def test_names_and_counts_of_samples() -> None:
    two = [Boundary("x", (3,)), Boundary("y", (1,))]
    x, y = np.zeros((2, 3)), np.zeros((2, 1))
    assert set(check_inputs({"x": x, "y": y}, two)) == {"x", "y"}
    for given in ({"x": x}, {"x": x, "z": y}, {"x": x, "y": y[:1]}):
        with pytest.raises(HqcError) as error:
            check_inputs(given, two)
        assert code_of(error) == "HQC005"


def test_unreadable_sample_files(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "pickle.npy").write_bytes(b"\x80\x04]\x94.")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and then nothing")
    np.save(tmp_path / "whole.npy", np.zeros((2, 3)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-5])
    expected = {
        "objects.npy": "HQC003",
        "pickle.npy": "HQC003",
        "cut.npz": "HQC005",
        "cut.npy": "HQC005",
        "absent.npy": "HQC005",
    }
    for name, code in expected.items():
        with pytest.raises(HqcError) as error:
            read_arrays(tmp_path / name, X)
        assert code_of(error) == code, name


def test_outputs_go_to_a_fitting_file(tmp_path: Path) -> None:
    one = {"y": np.ones((2, 1), np.float32)}
    write_outputs(tmp_path / "y.npy", one)
    assert np.load(tmp_path / "y.npy").shape == (2, 1)
    for path, outputs, code in (
        (tmp_path / "y.txt", one, "HQC001"),
        (tmp_path / "y.npy", {**one, "z": one["y"]}, "HQC001"),
        (tmp_path / "no" / "y.npy", one, "HQC007"),
    ):
        with pytest.raises(HqcError) as error:
            write_outputs(path, outputs)
        assert code_of(error) == code
