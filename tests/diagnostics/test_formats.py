"""Files of every format version: read, or refused by name; never guessed at.

`tests/data/v1` was written by the first versions of the formats and is never written again. Who
raises a version adds a folder for the new one beside it, and keeps these tests: they say that the
old files still load, or turn into tests that they are refused by name.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.cli_fixtures import Run

from hqc import Artifact, ir
from hqc.artifact import manifest
from hqc.diagnostics import HqcError, formats
from hqc.diagnostics.formats import FORMATS, GRAPH, MANIFEST, REPRODUCER, TEXT, Format
from hqc.ir.structural_equality import difference
from hqc.pipeline.registry import Registry
from hqc.pipeline.reproducer import check_packages
from hqc.text import parse_module, print_module

V1 = Path(__file__).resolve().parents[1] / "data" / "v1"


def refusal(found: pytest.ExceptionInfo[HqcError]) -> str:
    (diagnostic,) = found.value.diagnostics
    assert diagnostic.code == "HQC008"
    assert diagnostic.helps
    return diagnostic.message


# --- the table ----------------------------------------------------------------------------------


def test_each_format_reads_what_it_writes() -> None:
    for found in FORMATS:
        assert found.current in found.readable
        assert max(found.readable) == found.current
        assert found.unmarked is None or found.unmarked in found.readable
        kept = {int(p.name[1:]) for p in V1.parent.iterdir()}
        assert found.readable <= kept, f"keep a frozen file of each version of {found.name}"


OLD = Format("toy", 3, frozenset({2, 3}), "make it again")


@pytest.mark.parametrize("found", [2, 3, "2", "3"])
def test_readable_versions(found: object) -> None:
    assert formats.check(OLD, found, "toy.txt") == int(str(found))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (4, "made by a newer hqc"),
        ("40", "made by a newer hqc"),
        (1, "too old for this hqc"),
        (0, "too old for this hqc"),
        (None, "states no version"),
        (True, "states the version True"),
        (2.0, "states the version 2.0"),
        ("two", "states the version 'two'"),
        ("-1", "states the version '-1'"),
        ([3], "states the version [3]"),
    ],
)
def test_other_versions_are_refused_by_name(found: object, words: str) -> None:
    with pytest.raises(HqcError) as error:
        formats.check(OLD, found, "toy.txt")
    assert words in refusal(error)
    assert "toy.txt" in refusal(error)
    assert "reads toy version 2, 3" in error.value.diagnostics[0].notes[0]
    assert any("make it again" in text for text in error.value.diagnostics[0].helps)


def test_files_before_the_first_mark() -> None:
    assert formats.check(replace(OLD, unmarked=2), None, "toy.txt") == 2


# --- the textual IR -----------------------------------------------------------------------------


def test_the_first_text_is_read() -> None:
    model = parse_module((V1 / "net.hqir").read_text())
    assert difference(model, ir.load(V1 / "compiled" / "model.onnx")) is None
    assert print_module(model).startswith(f"hqc.module @net version {TEXT.current} ")


@pytest.mark.parametrize("name", ["", " @net", ' @"a version 1 net"'])
@pytest.mark.parametrize("rest", ["state integer ir 8 { }", "in a grammar of its own: <<<"])
def test_text_of_another_version(name: str, rest: str) -> None:
    """The rest may be of a grammar that this hqc does not know."""
    with pytest.raises(HqcError) as error:
        parse_module(f"// a comment\n  hqc.module{name} version 7 {rest}")
    assert "textual IR of version 7" in refusal(error)
    column = len(f"  hqc.module{name} version ") + 1
    assert str(error.value.diagnostics[0].where) == f"line 2, column {column}"
    with pytest.raises(HqcError) as error:
        parse_module(f"hqc.module{name} version 0 {rest}")
    assert "too old" in refusal(error)


def test_text_of_no_version() -> None:
    with pytest.raises(HqcError, match="HQC306") as error:
        parse_module("hqc.module @net state integer ir 8 { }")
    assert "'version'" in str(error.value)


# --- annotated .onnx files ----------------------------------------------------------------------


def test_the_first_graphs_are_read() -> None:
    """The very first carried no mark, and mean the same."""
    marked, unmarked = ir.load(V1 / "compiled" / "model.onnx"), ir.load(V1 / "unmarked.onnx")
    assert difference(marked, unmarked) is None
    assert ir.state_of(unmarked) is ir.State.INTEGER
    types = [ir.type_of(v) for n in unmarked.graph for v in n.outputs]
    assert sum(t is not None for t in types) == 4
    assert not any("hqc.format" in line for line in print_module(marked).splitlines())


def test_the_mark_stands_in_files_only() -> None:
    proto = onnx.ModelProto.FromString(ir.to_bytes(ir.load(V1 / "unmarked.onnx")))
    found = {p.key: p.value for p in proto.metadata_props}
    assert found == {"hqc.format": str(GRAPH.current), "hqc.state": "integer"}


@pytest.mark.parametrize("version", ["2", "0", "new"])
def test_a_graph_of_another_version(version: str) -> None:
    proto = onnx.load(V1 / "compiled" / "model.onnx")
    (mark,) = [p for p in proto.metadata_props if p.key == "hqc.format"]
    mark.value = version
    with pytest.raises(HqcError) as error:
        ir.from_bytes(proto.SerializeToString(), "net.onnx")
    assert refusal(error).startswith("net.onnx ")


@pytest.mark.parametrize(
    ("key", "text"), [("hqc.type", "fixed<1"), ("hqc.range", "[0]"), ("hqc.range", "{")]
)
def test_damaged_annotations(key: str, text: str) -> None:
    proto = onnx.load(V1 / "compiled" / "model.onnx")
    entries = [*proto.graph.value_info, *proto.graph.input, *proto.graph.output]
    marks = [p for e in entries for p in e.metadata_props if p.key == key]
    assert marks
    marks[0].value = text
    with pytest.raises(HqcError, match="HQC002") as error:
        ir.from_bytes(proto.SerializeToString(), "net.onnx")
    assert "annotations of hqc in net.onnx are damaged" in str(error.value)


# --- compiled directories -----------------------------------------------------------------------


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    return Path(shutil.copytree(V1 / "compiled", tmp_path / "out"))


def stated(path: Path, version: object) -> None:
    document = json.loads(path.read_text())
    if version is None:
        del document["format"]
    else:
        document["format"] = version
    path.write_text(json.dumps(document))


def test_the_first_directories_are_read(compiled: Path) -> None:
    artifact = Artifact.open(compiled)
    assert artifact.manifest.verdict.exact
    inputs = dict(np.load(compiled / "vectors" / "inputs.npz"))
    outputs = artifact.run(inputs, engine="exact")
    want = dict(np.load(compiled / "vectors" / "outputs.npz"))
    assert outputs.keys() == want.keys()
    assert all(np.array_equal(outputs[name], want[name]) for name in want)


@pytest.mark.parametrize("version", [MANIFEST.current + 1, 0, None, "1.0"])
def test_a_directory_of_another_version(compiled: Path, version: object) -> None:
    stated(compiled / "hqc.json", version)
    with pytest.raises(HqcError) as error:
        manifest.read(compiled)
    assert str(compiled) in refusal(error)
    assert manifest.objection(compiled) is None  # it is still hqc's, to be replaced


def test_the_command_line_says_so(compiled: Path, hqc: Run) -> None:
    stated(compiled / "hqc.json", 9)
    for words in (["check", compiled], ["show", compiled], ["build", compiled]):
        ended = hqc(*words)
        assert (ended.status, ended.codes) == (1, ["HQC008"])
        assert "install a newer hqc" in ended.err
        assert "hqc compile MODEL -o NEW_DIRECTORY" in ended.err


# --- reproducers --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [REPRODUCER.current + 1, 0, None])
def test_a_reproducer_of_another_version(tmp_path: Path, version: object) -> None:
    path = tmp_path / "reproducer.json"
    shutil.copy(V1 / "reproducer" / "reproducer.json", path)
    stated(path, version)
    with pytest.raises(HqcError) as error:
        check_packages(path, Registry.builtin())
    assert str(path) in refusal(error)


def test_the_first_reproducers_are_read() -> None:
    with pytest.raises(HqcError, match="HQC311") as error:
        check_packages(V1 / "reproducer" / "reproducer.json", Registry.builtin())
    assert "needs the package wrong-pass 1.0" in str(error.value)
