"""The command line for those who write passes: -P, what opt shows, dumps and resuming."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.small_model import Run
from support.wrong_passes import BUILTIN

from hqc import ir, pipeline
from hqc.diagnostics import Exit, HqcError
from hqc.text import parse_module

PLUGIN = '''
from dataclasses import dataclass
from typing import ClassVar
import beside
from hqc.pipeline.passes import Pass, Outcome
from hqc.pipeline.rewriter import Const, Decline, Match, Op, Rewriter, Var, rule

@dataclass(frozen=True)
class Gone(Rewriter):
    """Double rectifiers, which is wrong."""

    name: ClassVar[str] = "gone"

    @rule(Op("Relu", (Var("x"),)))
    def relu(self, match, new):
        return beside.answer(match, new)

@dataclass(frozen=True)
class Sorry(Rewriter):
    """Decline everything."""

    name: ClassVar[str] = "sorry"

    @rule(Op("Relu", (Var("x"),)))
    def relu(self, match, new):
        return Decline("not today")

@dataclass(frozen=True)
class Divides(Rewriter):
    """Divide by zero."""

    name: ClassVar[str] = "divides"

    @rule(Op("Relu", (Var("x"),)))
    def relu(self, match, new):
        return 1 / 0

@dataclass(frozen=True)
class Endless(Pass):
    """Go on for ever."""

    name: ClassVar[str] = "endless"

    def rewrite(self, model):
        while True:
            pass
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text(
        'def answer(match, new):\n    return new.op("Mul", new.op("Relu", match["x"]), 2.0)\n'
    )
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return path


# --- files with passes --------------------------------------------------------------------------


def test_a_file_is_run_and_says_so(hqc: Run, model: Path, plugin: Path) -> None:
    ended = hqc("opt", model, "-P", plugin, "-p", "sorry,dce", "--stats")
    assert ended.status == Exit.OK
    assert f"{plugin} is run: gone, sorry, divides, endless" in ended.err
    assert "relu: not today" in ended.err
    rows = [line.split() for line in ended.out.splitlines()]
    assert ["sorry", "0", "rewrites", "1", "remarks"] in rows
    assert ["relu", "0", "rewrites", "1", "remarks"] in rows
    plugin.write_text("print('loud')\n" + plugin.read_text())
    assert "gone" in hqc("passes", "-P", plugin).out
    loud = hqc("passes", "-P", plugin, "-f", "json")
    assert "loud" in loud.err
    assert loud.document["exit"] == 0
    assert "gone" not in hqc("passes").out


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("x = 1\nimport no_such_module", "HQC001", ":2  import no_such_module"),
        ("x = 1\ny = x / 0", "HQC001", ":2  y = x / 0"),
        ("def f(:", "HQC001", ":1  def f(:"),
        ("import sys\nsys.exit(3)", "HQC001", "status 3"),
        ("x = 1", "HQC305", "defines no subclass"),
        (None, "HQC001", "cannot read"),
    ],
)
def test_broken_files(
    text: str | None, code: str, words: str, hqc: Run, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "broken.py"
    if text is not None:
        path.write_text(text)
    for command in ("opt", "bisect"):
        ended = hqc(command, model, "-P", path)
        assert (ended.status, ended.codes) == (Exit.USAGE, [code])
        assert words in ended.err
        assert len(ended.err.splitlines()) < 12


@pytest.mark.parametrize("name", ["dce", "gone", "default", "repeat"])
def test_names_that_are_taken(
    name: str, hqc: Run, model: Path, plugin: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.py"
    other.write_text(PLUGIN.replace('"gone"', f'"{name}"'))
    ended = hqc("opt", model, "-P", plugin, "-P", other)
    assert (ended.status, ended.codes) == (Exit.USAGE, ["HQC305"])
    assert str(other) in ended.err


def test_registries_read_files_too(plugin: Path) -> None:
    registry = BUILTIN.with_files([plugin])
    assert "gone" in registry.passes
    assert list(registry.digests()) == ["mine.py"]
    with pytest.raises(HqcError, match="HQC305"):
        registry.with_files([plugin])


def test_an_exception_is_shown_with_the_users_line(hqc: Run, model: Path, plugin: Path) -> None:
    ended = hqc("opt", model, "-P", plugin, "-p", "divides", "-q")
    assert (ended.status, ended.codes) == (Exit.INTERNAL, ["HQC307"])
    line = PLUGIN.splitlines().index("        return 1 / 0") + 1
    assert f"--> {plugin}:{line}  return 1 / 0" in ended.err
    assert "rule relu on relu" in ended.err
    assert len(ended.err.splitlines()) < 12


def test_a_pass_has_a_time_limit(hqc: Run, model: Path, plugin: Path) -> None:
    ended = hqc("opt", model, "-P", plugin, "-p", "endless", "--pass-timeout", "0.3")
    assert (ended.status, ended.codes) == (Exit.INTERNAL, ["HQC308"])
    assert "--pass-timeout" in ended.err


def test_a_reproducer_holds_the_pass_and_what_it_imports(
    hqc: Run, model: Path, plugin: Path, tmp_path: Path
) -> None:
    assert hqc("opt", model, "-P", plugin, "-p", "gone").codes == ["HQC303"]
    (folder,) = (tmp_path / "build" / "reproducers").iterdir()
    copies = {p.name: p.read_text() for p in (folder / "passes").iterdir() if p.is_file()}
    assert copies == {p.name: p.read_text() for p in (plugin, tmp_path / "beside.py")}
    assert "-P passes/mine.py" in (folder / "command.sh").read_text()


# --- what opt shows -----------------------------------------------------------------------------


def test_the_graph_before_and_after_and_the_difference(hqc: Run, model: Path) -> None:
    given = ["opt", model, "-p", "fold-quantizers,dce", "-q"]
    before = hqc(*given, "--print-before", "dce").out
    after = hqc(*given, "--print-after", "fold-quantizers").out
    assert before.partition("\n")[2].strip() == after.partition("\n")[2].strip()
    parse_module(after)  # what is printed can be read again
    diff = hqc(*given, "--print-diff", "all").out
    assert "--- before fold-quantizers\n+++ after fold-quantizers\n" in diff
    assert any(line.startswith("+  const %") for line in diff.splitlines())
    assert hqc(*given, "--print-diff", "dcee").codes == ["HQC001"]
    assert json.loads(hqc(*given, "--print-diff", "all", "-f", "json").out)["exit"] == 0


def test_what_a_failing_pass_got_is_printed(hqc: Run, model: Path, plugin: Path) -> None:
    ended = hqc("opt", model, "-P", plugin, "-p", "dce,divides", "--print-before", "divides")
    assert ended.codes == ["HQC307"]
    assert "// before divides" in ended.out


def test_each_state_agrees_with_qonnx(
    hqc: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hqc("opt", model, "--verify-each", "-q").status == Exit.OK
    assert hqc("opt", model, "--verify-each", "--no-verify").codes == ["HQC001"]
    from hqc.equivalence import translation_validation

    real = translation_validation.run_qonnx
    calls: list[int] = []

    def wrong(*args: object, **kwargs: object) -> object:
        found = real(*args, **kwargs)  # type: ignore[arg-type]
        calls.append(1)
        return found if len(calls) < 3 else {**found, "y": found["y"] + 1}

    monkeypatch.setattr(translation_validation, "run_qonnx", wrong)
    ended = hqc("opt", model, "--verify-each", "-q")
    assert ended.codes == ["HQC303"]
    assert "after fold-quantizers, qonnx" in ended.err


# --- dumps --------------------------------------------------------------------------------------


def test_dumps_hold_every_state_and_go_on_from_each(hqc: Run, model: Path, tmp_path: Path) -> None:
    whole = hqc("opt", model, "-o", tmp_path / "whole.hqir", "-q")
    assert whole.status == Exit.OK
    given = ["opt", model, "--dump-dir", tmp_path / "d", "-o", tmp_path / "again.hqir", "-q"]
    assert hqc(*given).status == Exit.OK
    files = sorted(p.name for p in (tmp_path / "d").glob("*.onnx"))
    names = ["input", *pipeline.DEFAULT.split(",")]
    assert files == [f"{n:02d}-{name}.onnx" for n, name in enumerate(names)]
    last = parse_module((tmp_path / "d" / files[-1]).with_suffix(".hqir").read_text())
    assert last.graph.name == ir.load(tmp_path / "d" / files[-1]).graph.name
    want = (tmp_path / "whole.hqir").read_text()
    for start in (0, 4, 7, len(names) - 1):
        (tmp_path / "again.hqir").unlink()
        ended = hqc(*given, "--start-after", start, "-f", "json")
        assert ended.status == Exit.OK, ended.err
        assert len(ended.document["result"]["passes"]) == len(names) - 1 - start
        assert (tmp_path / "again.hqir").read_text() == want
        assert sorted(p.name for p in (tmp_path / "d").glob("*.onnx")) == files


def test_a_repetition_is_gone_on_with_as_a_whole(hqc: Run, model: Path, tmp_path: Path) -> None:
    text = "repeat(fold-constants,dce),fold-quantizers"
    given = ["opt", model, "-p", text, "--dump-dir", tmp_path / "d", "-q"]
    assert hqc(*given).status == Exit.OK
    dump = json.loads((tmp_path / "d" / "dump.json").read_text())
    assert [s["rest"] for s in dump["states"]][:2] == [text, text]
    assert dump["states"][-2]["rest"] == text
    assert dump["states"][-1] == {
        "file": f"{len(dump['states']) - 1:02d}-fold-quantizers",
        "rest": "",
    }
    assert hqc(*given, "--start-after", 1).status == Exit.OK


def test_dumps_that_do_not_fit(hqc: Run, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    given = ["opt", model, "--dump-dir", folder, "-q"]
    assert hqc("opt", model, "--start-after", 1).codes == ["HQC001"]
    assert hqc(*given, "--start-after", 1).codes == ["HQC006"]
    assert hqc(*given, "-p", "dce").status == Exit.OK
    assert hqc(*given, "-p", "dce", "--start-after", 2).codes == ["HQC001"]
    assert hqc(*given, "-p", "fold-constants", "--start-after", 1).codes == ["HQC001"]
    assert hqc(*given, "-p", "dce", "--input-type", "x=fixed<8,4>").status in (0, 1)
    (folder / "dump.json").write_text("[]")
    assert hqc(*given, "-p", "dce", "--start-after", 1).codes == ["HQC006"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file.txt").write_text("kept")
    assert hqc("opt", model, "--dump-dir", mine).codes == ["HQC004"]
    assert (mine / "file.txt").read_text() == "kept"


# --- bisect and reduce --------------------------------------------------------------------------


def test_bisect_and_reduce(hqc: Run, model: Path, plugin: Path, tmp_path: Path) -> None:
    given = [model, "-P", plugin, "-p", "fold-constants,gone,dce"]
    text = hqc("bisect", *given, "-q").out
    for words in (
        "pass      gone, run 2",
        "rewrite   1 of 1, by rule relu",
        "differs   ",
        "--- be",
    ):
        assert words in text
    small = tmp_path / "small.onnx"
    ended = hqc("reduce", *given, "-o", small)
    assert ended.status == Exit.OK
    command = ended.err.split("see it with: hqc ")[1].split()
    assert hqc(*command).codes == ["HQC303"]
    assert len(ir.load(small).graph) <= 2
    assert hqc("reduce", *given, "-o", tmp_path / "small.txt").codes == ["HQC001"]
    assert hqc("reduce", *given, "-o", tmp_path / "no" / "s.hqir").codes == ["HQC007"]
    assert hqc("reduce", *given, "-o", small, "--check", "crash").codes == ["HQC309"]
    assert hqc("bisect", model, "-p", "dce").codes == ["HQC309"]
