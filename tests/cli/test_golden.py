"""Golden tests: of the passes of hqc, of the tutorial, and of `hqc new`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.small_model import Run

from hqc.cli import golden
from hqc.diagnostics import Exit, HqcError
from hqc.pipeline.registry import Registry

HERE = Path(__file__).resolve().parents[1]
PAGE = HERE.parent / "docs" / "passes.md"


@pytest.mark.parametrize("path", sorted((HERE / "golden").glob("*.hqir")), ids=lambda p: p.stem)
def test_passes_of_hqc(path: Path, update_golden: bool) -> None:
    golden.check(path, update=update_golden)


def test_an_update_of_what_matches_changes_nothing() -> None:
    path = HERE / "golden" / "default.hqir"
    before = path.read_text()
    assert not golden.check(path, update=True)
    assert path.read_text() == before


@pytest.fixture
def spoiled(tmp_path: Path) -> Path:
    """A golden test whose pass now gives another shift."""
    text = (HERE / "golden" / "fuse_batchnorm.hqir").read_text()
    path = tmp_path / "spoiled.hqir"
    assert "0.125]]" in text
    path.write_text(text.replace("0.125]]", "0.25]]"))
    return path


def test_a_mismatch_is_shown_and_can_be_taken(spoiled: Path, hqc: Run) -> None:
    ended = hqc("golden", HERE / "golden" / "dce.hqir", spoiled)
    assert (ended.status, ended.codes) == (Exit.REJECTED, ["HQC310"])
    assert "dce.hqir matches" in ended.err
    assert "spoiled.hqir:" in ended.err
    assert "--update-golden" in ended.err
    assert hqc("golden", spoiled, "--update-golden").status == Exit.OK
    assert hqc("golden", spoiled).status == Exit.OK


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("// RUN: hqc opt %s -p dce", "", "HQC310"),
        ("hqc opt %s -p dce", "rm -rf %s", "HQC310"),
        ("-p dce", "-p dce -o out.onnx", "HQC310"),
        ("-p dce", "-p dcee", "HQC301"),
        ("-p dce", "-p dce,", "HQC306"),
        ("-p dce", "-p dce -P nowhere.py", "HQC001"),
        ("hqc.module", "module", "HQC306"),
        ("// CHECK-NEXT: }", "// CHECK-NEXT: [[", "HQC310"),
        ("// CHECK", "// CHUCK", "HQC310"),
    ],
)
def test_malformed_golden_tests(old: str, new: str, code: str, tmp_path: Path) -> None:
    path = tmp_path / "golden.hqir"
    text = (HERE / "golden" / "dce.hqir").read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(HqcError) as found:
        golden.check(path)
    assert found.value.diagnostics[0].code == code


def test_without_filecheck_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "filecheck.finput", None)
    with pytest.raises(HqcError, match="pip install filecheck"):
        golden.check(HERE / "golden" / "dce.hqir")


# --- hqc new ------------------------------------------------------------------------------------


def test_a_new_pass_works_at_once_and_is_not_overwritten(hqc: Run, tmp_path: Path) -> None:
    made = hqc("new", "pass", "by-one", "--dir", "mine", "-f", "json")
    names = ["mine/by_one.py", "mine/by_one.hqir", "mine/test_by_one.py"]
    assert made.document["result"]["files"] == names
    assert hqc("golden", "mine/by_one.hqir").status == Exit.OK
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "mine"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    before = (tmp_path / "mine" / "by_one.py").read_text()
    assert hqc("new", "pass", "by-one", "--dir", "mine").codes == ["HQC004"]
    assert (tmp_path / "mine" / "by_one.py").read_text() == before
    text = "by-one{factor=2.0}"
    stats = hqc("opt", "mine/by_one.hqir", "-P", "mine/by_one.py", "-p", text, "--stats")
    assert stats.status == Exit.OK, stats.err
    assert re.search(r"product +0 rewrites +0 remarks", stats.out) is None  # no rule has fitted


@pytest.mark.parametrize("name", ["By-One", "dce", "a_b", "-a", "op", "rewriter", "1st", "a--b"])
def test_names_that_do_not_do(name: str, hqc: Run, tmp_path: Path) -> None:
    ended = hqc("new", "pass", "--", name)
    assert ended.codes == ["HQC001"]
    assert not list(tmp_path.iterdir())


# --- the tutorial -------------------------------------------------------------------------------


def _blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    return [text for name, text in found if name == language]


@pytest.fixture
def tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the page, in the current directory."""
    monkeypatch.chdir(tmp_path)
    (code,) = _blocks("python")
    (tmp_path / "exact_leaky.py").write_text(code)
    (sed,) = [x[2:] for b in _blocks("") for x in b.splitlines() if x.startswith("$ sed")]
    subprocess.run(["sh", "-c", sed], cwd=tmp_path, timeout=60, check=True)
    assert "1 - slope" not in (tmp_path / "wrong_leaky.py").read_text()
    (golden_text,) = [b for b in _blocks("") if b.startswith("// RUN")]
    (tmp_path / "exact_leaky.hqir").write_text(golden_text)
    (model,) = [b for b in _blocks("") if b.startswith("hqc.module")]
    (tmp_path / "leaky.hqir").write_text(model)
    return tmp_path


def test_the_pass_of_the_tutorial_is_short(tutorial: Path) -> None:
    code = (tutorial / "exact_leaky.py").read_text().splitlines()
    assert len([line for line in code if line.strip()]) <= 22


def test_the_tutorial(tutorial: Path, hqc: Run) -> None:
    ended = hqc("opt", "leaky.hqir")
    assert ended.codes == ["HQC205"]
    assert "\n".join(ended.err.strip().splitlines()[-3:]) in PAGE.read_text()
    given = ["opt", "leaky.hqir", "-P", "exact_leaky.py"]
    seen = hqc(*given, "-p", "exact-leaky", "--print-diff", "all", "--stats", "-q")
    shown = [
        line
        for block in _blocks("")
        if "--print-diff all" in block
        for line in block.splitlines()[1:]
        if line != "..." and not line.startswith("$") and not line.startswith("bit-exact")
    ]
    assert len(shown) > 5
    assert [line for line in shown if line and line not in seen.out.splitlines()] == []
    assert hqc(*given, "-p", "exact-leaky,default", "--verify-each").status == Exit.OK
    small = hqc(*given, "-p", "exact-leaky{smallest=0.25},default", "-q")
    assert small.codes == ["HQC205"]
    matched = hqc("golden", "exact_leaky.hqir")
    assert (matched.status, matched.out) == (Exit.OK, "")
    assert "slope" in hqc(*given, "-p", "exact-leaky{smallest=0.25}", "-f", "json").out


@pytest.mark.emulation
def test_the_model_of_the_tutorial_compiles(tutorial: Path, hqc: Run) -> None:
    pipeline = ["-P", "exact_leaky.py", "-p", "exact-leaky,default"]
    ended = hqc("compile", "leaky.hqir", *pipeline, "-o", "out", "--check", "100")
    assert ended.status == Exit.OK, ended.err
    assert "bit-exact on 100 samples, all outputs, proven free of overflow" in ended.err
    assert "exact_leaky.py is run: exact-leaky" in ended.err
    manifest = (tutorial / "out" / "hqc.json").read_text()
    digests = Registry.builtin().with_files(["exact_leaky.py"]).digests()
    assert digests["exact_leaky.py"] in manifest
    (tutorial / "exact_leaky.py").unlink()
    assert hqc("check", "out").status == Exit.OK


def test_the_wrong_pass_of_the_tutorial(tutorial: Path, hqc: Run) -> None:
    given = ["leaky.hqir", "-P", "wrong_leaky.py", "-p", "wrong-leaky,default"]
    ended = hqc("opt", *given)
    assert ended.codes == ["HQC303"]
    first = re.search(r"first tensor that differs: .*", ended.err)
    assert first is not None
    assert first[0] in PAGE.read_text()
    found = hqc("bisect", *given, "-f", "json").document["result"]
    assert (found["pass"], found["rewrite"], found["node"]) == (
        "wrong-leaky",
        1,
        "LeakyRelu -> bent",
    )
    small = hqc("reduce", *given, "-o", "small.onnx", "-f", "json").document["result"]
    assert small["nodes_after"] == 2
    (folder,) = (tutorial / "build" / "reproducers").iterdir()
    moved = folder.rename(tutorial.parent / f"{tutorial.name}-moved")
    for name in ("wrong_leaky.py", "leaky.hqir"):
        (tutorial / name).unlink()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        ["sh", str(moved / "command.sh")],
        cwd="/",
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == Exit.REJECTED, done.stderr
    assert "wrong-leaky changed the model" in done.stderr
