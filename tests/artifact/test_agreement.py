"""Several directories of one model: checked one by one and against each other."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.small_model import Run, small_model

import hqc as api
from hqc import cli
from hqc.analysis.partition import Port
from hqc.artifact import Artifact, CheckResult, agreement
from hqc.artifact.agreement import Agreement, Pair, Proof
from hqc.diagnostics import Exit, HqcError, reject
from hqc.equivalence.bit_exactness import CodeComparison
from hqc.numerics.types import FixedType

emulation = pytest.mark.emulation


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One model for both backends, made once; tests copy what they change."""
    folder = tmp_path_factory.mktemp("pair")
    onnx.save(small_model(), folder / "small.onnx")
    for backend in ("vitis", "catapult"):
        arguments = ["compile", folder / "small.onnx", "-b", backend, "-o", folder / backend]
        assert cli.main([*map(str, arguments), "--check", "150", "-q"]) == Exit.OK
    return folder / "vitis", folder / "catapult"


def other(tmp_path: Path, name: str, *arguments: str, extra: str | None = None) -> Path:
    """A directory that is not checked: only what it says of itself matters."""
    onnx.save(small_model(extra), tmp_path / f"{name}.onnx")
    command = ["compile", str(tmp_path / f"{name}.onnx"), "-o", str(tmp_path / name), "-q"]
    assert cli.main([*command, "--check", "off", *arguments]) == Exit.OK
    return tmp_path / name


def tamper(directory: Path) -> None:
    weights = next(p for p in sorted((directory / "project").rglob("w*.h")) if "{" in p.read_text())
    text = weights.read_text()
    number = re.search(r"\{\s*(-?[\d.]+)", text)
    assert number is not None
    changed = str(-float(number[1]) + 0.125)
    weights.write_text(text[: number.start(1)] + changed + text[number.end(1) :])


@emulation
def test_both_backends_agree(hqc: Run, pair: tuple[Path, Path]) -> None:
    ended = hqc("check", *pair, "--samples", "300", "-f", "json")
    assert ended.status == Exit.OK, ended.err
    assert "2 directories agree on 450 samples" in ended.err
    result = ended.document["result"]
    assert [d["backend"] for d in result["directories"]] == ["vitis", "catapult"]
    assert [d["samples"] for d in result["directories"]] == [450, 450]
    (found,) = result["pairs"]
    assert (found["samples"], found["total"], found["mismatches"]) == (450, 900, 0)
    assert found["compared"] == "codes"


@emulation
def test_a_tampered_third_is_named(hqc: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
    bad = Path(shutil.copytree(pair[1], tmp_path / "bad"))
    tamper(bad)
    ended = hqc("check", *pair, bad, "-f", "json")
    assert ended.status == Exit.NOT_EXACT, ended.err
    assert ended.codes == ["HQC403", "HQC403"]
    result = ended.document["result"]
    assert [p["mismatches"] > 0 for p in result["pairs"]] == [False, True, True]
    assert [d["exact"] for d in result["directories"]] == [True, True, False]
    assert result["first"].startswith(f"{bad}: output y[")
    assert f"error[HQC403]: {bad} is not bit-exact" in ended.err
    text = rf"directories disagree: output y\[\d+, \d+\] \(sample \d+\): {pair[0]} gives code"
    assert re.search(text, ended.err)
    assert "1 of 3 pairs agree" in ended.err
    assert len(ended.err.splitlines()) < 25


@emulation
def test_from_python_on_samples_of_ones_own(pair: tuple[Path, Path], tmp_path: Path) -> None:
    x = np.random.default_rng(5).normal(size=(40, 4)).astype(np.float32)
    found = api.agree(pair, x)
    assert found.exact
    assert found.error() is None
    assert found.pairs[0].found.samples == 190
    assert found.proofs == (Proof(), Proof())  # C++ is emulated, not proven
    np.save(tmp_path / "x.npy", x)
    assert api.agree(pair, tmp_path / "x.npy") == found


def test_a_file_of_samples_is_read_before_anything_is_compiled(
    hqc: Run, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Artifact, "emulator", property(lambda _: pytest.fail("it is compiled")))
    np.save(tmp_path / "wide.npy", np.zeros((3, 5), np.float32))
    for directories in (pair[:1], pair):
        for name, code in (("none.npz", "HQC005"), ("wide.npy", "HQC005"), ("x.csv", "HQC001")):
            ended = hqc("check", *directories, "--samples", tmp_path / name)
            assert (ended.status, ended.codes) == (Exit.USAGE, [code])


@pytest.mark.parametrize(
    ("arguments", "extra", "said"),
    [
        ((), "Relu", "sources: "),
        (("--input-type", "fixed<6,2>"), None, "input_types: "),
    ],
)
def test_another_model_is_refused(
    hqc: Run,
    compiled: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    extra: str | None,
    said: str,
) -> None:
    second = other(tmp_path, "second", *arguments, extra=extra)
    ended = hqc("check", compiled, second)
    assert (ended.status, ended.codes) == (Exit.USAGE, ["HQC001"])
    assert "were not compiled from one model" in ended.err
    assert said in ended.err


def test_other_ports_are_refused(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = Artifact.open(pair[1])
    (port,) = artifact.manifest.outputs
    changed = replace(artifact.manifest, outputs=({**port, "shape": [3]},))
    found = agreement._differences(artifact, replace(artifact, manifest=changed))
    assert found == ("outputs: y[2] and y[3]",)


def test_usage(hqc: Run, compiled: Path, tmp_path: Path) -> None:
    twice = hqc("check", compiled, compiled)
    assert (twice.status, twice.codes) == (Exit.USAGE, ["HQC001"])
    assert "given twice" in twice.err
    assert hqc("check", compiled, tmp_path).codes == ["HQC006"]
    with pytest.raises(HqcError, match="two or more"):
        api.agree([compiled])


@pytest.mark.parametrize("width", [8, 60])
def test_ports_of_different_steps_compare_as_values(width: int) -> None:
    """Codes on 1/2 and on 2**-10: equal where the values are, however wide."""
    coarse = Port("y", (2,), FixedType(True, width, width - 1), "y", "fixed")
    fine = Port("y", (2,), FixedType(True, width + 9, width - 1), "y", "fixed")
    big = (1 << (width - 2)) - 1
    codes = np.array([[1, big], [-2, 3]]), np.array([[512, 0], [-1024, 1537]])
    sides = [agreement._on_one_step((coarse, fine), codes, side) for side in (0, 1)]
    assert sides[0].tolist() == [[512, big << 9], [-1024, 1536]]
    assert (sides[0] == sides[1]).tolist() == [[True, False], [True, False]]


def test_errors_of_directories_and_pairs_come_together() -> None:
    good = CheckResult(CodeComparison(3, 6, 0, None), None, True)
    pair = Pair("a", "b", "values", CodeComparison(3, 6, 2, "output y[1, 0] (sample 1): ..."))
    proofs = Proof({"claim": "all of it"}), Proof(error=reject("HQC424", "b is something else"))
    found = Agreement(("a", "b"), ("vitis", "rtl"), (good, good), proofs, (pair,))
    assert not found.exact
    error = found.error()
    assert error is not None
    assert error.exit == Exit.NOT_EXACT
    assert [d.code for d in error.diagnostics] == ["HQC403", "HQC424"]
    assert error.diagnostics[0].notes[0] == "a and b: 2 of 6 output values differ"
    assert [proof.claim for proof in found.proofs] == ["all of it", ""]
    same = replace(found, pairs=(replace(pair, found=CodeComparison(3, 6, 0, None)),))
    assert same.exact  # on the samples
    assert "HQC424" in str(same.error())
    assert replace(same, proofs=(Proof(), Proof())).error() is None
