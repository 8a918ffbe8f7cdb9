"""The page of a compiled directory: what it says, what it must never hold, and when it is made."""

from __future__ import annotations

import re
import shutil
import webbrowser
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import onnx
import pytest
from support.small_model import Run, content, small_model

from hqc import cli
from hqc.artifact import Artifact, assemble, manifest
from hqc.artifact.page.command import compile_arguments, reproduction
from hqc.artifact.page.layers import layers_of
from hqc.artifact.page.page import render
from hqc.artifact.page.view import view_of
from hqc.artifact.report_file import read_report
from hqc.diagnostics import Exit

HOSTILE = "<script>alert(1)</script>\"'{{7*7}}&amp;"
#: Elements that end where they begin.
VOID = {"meta", "br", "rect", "line", "circle", "polyline"}


class Page(HTMLParser):
    """The tags, attributes and text of a page; raises where elements are not nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, (tag, self.getpos())

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def page(directory: Path) -> Page:
    return Page((directory / "report.html").read_text(encoding="utf-8"))


def hostile_model() -> onnx.ModelProto:
    """The small model with names that are markup wherever a name can be."""
    model = small_model()
    for number, node in enumerate(model.graph.node):
        node.name = f"{HOSTILE}{number}"
    for old in ("x", "y"):
        for node in model.graph.node:
            node.input[:] = [HOSTILE + old if n == old else n for n in node.input]
            node.output[:] = [HOSTILE + old if n == old else n for n in node.output]
    model.graph.input[0].name, model.graph.output[0].name = f"{HOSTILE}x", f"{HOSTILE}y"
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that is not checked; quick."""
    folder = tmp_path_factory.mktemp("page")
    onnx.save(small_model(), folder / "small.onnx")
    arguments = ["compile", folder / "small.onnx", "-o", folder / "out", "--check", "off", "-q"]
    assert cli.main([str(a) for a in arguments]) == Exit.OK
    return folder / "out"


@pytest.fixture
def directory(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def assert_harmless(found: Page) -> None:
    """Nothing is fetched and nothing runs."""
    assert not {"script", "link", "img", "iframe", "object", "embed", "a", "base"} & set(found.tags)
    names = {name for name, _ in found.attributes}
    assert not any(name.startswith("on") for name in names)
    assert not {"src", "href", "action", "srcset", "xlink:href"} & names
    policy = [v for n, v in found.attributes if n == "content" and "default-src" in v]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


# --- what it says -------------------------------------------------------------------------------


@pytest.mark.emulation
def test_a_checked_compile(compiled: Path) -> None:
    found = page(compiled)
    assert_harmless(found)
    assert "bit-exact on 200 samples, all outputs, proven free of overflow" in found.text
    assert "400 of 400 output codes equal" in found.text
    assert "Not known" not in found.text
    assert "banner ok" in (compiled / "report.html").read_text()


def test_an_unchecked_compile_says_so(directory: Path) -> None:
    found = page(directory)
    assert_harmless(found)
    assert "not checked, proven free of overflow" in found.text
    assert "The emulation of project/ was not run" in found.text
    assert "banner warning" in (directory / "report.html").read_text()
    assert "http" not in (directory / "report.html").read_text().replace("http-equiv", "")


def test_the_layers_and_their_bits(directory: Path) -> None:
    layers = read_report(directory)["layers"]
    text = page(directory).text
    for layer in layers:
        assert layer["name"] in text
        assert layer["types"]["result"] in text
    dense = [layer for layer in layers if layer["kind"] == "dense"]
    assert len(dense) == 2
    for layer in dense:
        assert f"{layer['accumulator_bits']} bits" in text
        assert layer["range"]["low"] <= 0 < layer["range"]["high"]


def test_what_is_not_exact_is_red(directory: Path) -> None:
    known = manifest.read(directory)
    wrong = replace(known.verdict, checked=True, samples=10, mismatches=3, total=20, first="y[0]")
    view = view_of(replace(known, verdict=wrong), read_report(directory))
    text = render(view)
    assert "banner bad" in text
    assert "NOT bit-exact: 3 of 20 output codes differ" in text


def test_layers_of_another_package_need_no_figures(directory: Path) -> None:
    report = read_report(directory)
    report["layers"] = [{"name": "a", "kind": "odd", "where": "n", "types": {}}]
    found = Page(render(view_of(manifest.read(directory), report)))
    assert "odd" in found.text
    assert "bit operations, zeros left out" not in found.text


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    onnx.save(hostile_model(), tmp_path / "m.onnx")
    out = tmp_path / "out"
    arguments = ["compile", tmp_path / "m.onnx", "-o", out, "--check", "off", "-q"]
    assert cli.main([str(a) for a in arguments]) == Exit.OK
    assemble.add_to_report(out, HOSTILE, {HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]})
    assemble.add_to_report(
        out, "estimate", {HOSTILE: {"total": {}, "layers": [{"name": HOSTILE}], "notes": [HOSTILE]}}
    )
    assemble.add_to_report(out, "proof", {"claim": HOSTILE, "proven": [{HOSTILE: HOSTILE}]})
    found = page(out)
    assert_harmless(found)
    assert found.text.count(HOSTILE) > 8
    assert "49" not in {word.strip() for word in found.words}


# --- what others add ----------------------------------------------------------------------------


def test_estimates_per_layer(directory: Path) -> None:
    names = [layer["name"] for layer in read_report(directory)["layers"]]
    rows = [{"name": n, "lut": 10 * (i + 1), "delay_ns": 0.25} for i, n in enumerate(names)]
    flow = {
        "tool": "yosys 1",
        "flow": "fast",
        "notes": ["no wires"],
        "latency": 3,
        "total": {"lut": 1234567, "dsp": 0, "cells": {"LUT6": 3}},
        "timing": {"slack_ns": 0.5},
        "layers": rows,
    }
    assemble.add_to_report(directory, "estimate", {"fpga-xcup": flow})
    found = page(directory)
    assert "LUT delay, ns" in found.text
    for said in ("yosys 1, fast", "1.23 M", "no wires", "slack, ns 0.5", "latency, cycles 3"):
        assert said in found.text
    assert "DSP" not in found.text
    shown = layers_of(read_report(directory)["layers"], {"fpga-xcup": flow})
    bars = [column.cells for column in shown.estimates[0].columns]
    share = 100 / len(rows)
    assert bars[0][0] == ("10", share)
    assert bars[0][-1] == (str(10 * len(rows)), 100.0)
    assert set(bars[1]) == {("0.25", 100.0)}
    assert ("style", f"width:{share:.1f}%") in found.attributes


@pytest.mark.parametrize(
    "estimate", [{"cells": {"lut": 7}}, {"x": {"total": {}, "layers": [3]}}, [1, 2], "words"]
)
def test_estimates_of_another_form_are_shown_as_they_are(directory: Path, estimate: Any) -> None:
    report = read_report(directory) | {"estimate": estimate}
    found = Page(render(view_of(manifest.read(directory), report)))
    assert "Estimate" in found.text


@pytest.mark.parametrize(("complete", "style"), [(True, "proof proven"), (False, "proof open")])
def test_a_proof_is_listed(directory: Path, complete: bool, style: str) -> None:
    proof = {
        "claim": "equal for every input",
        "complete": complete,
        "cases": 4096,
        "proven": [{"layer": "l1", "method": "affine"}, {"layer": "l2", "open": "nothing"}],
        "open": [],
        "tested": ["latency of 6 cycles"],
    }
    assemble.add_to_report(directory, "proof", proof)
    found = page(directory)
    for said in ("equal for every input", "affine", "Only tested", "latency of 6", "4,096"):
        assert said in found.text
    assert "Left open" not in found.text
    assert ("class", f"verdict {style}") in found.attributes


@pytest.mark.parametrize(
    ("key", "found", "said"),
    [
        ("project", {"latency": 6, "ii": 1, "clock_ns": 2.5}, "6 cycles = 15 ns"),
        ("project", {"latency": 3, "ii": 11, "clock_ns": 2.5}, "too slow"),
        ("build", {"CSynthesisReport": {"WorstLatency": "9", "IntervalMax": "2"}}, "9 cycles = 45"),
        ("build", {"CSynthesisReport": {"WorstLatency": "9", "IntervalMax": "2"}}, "keeps up"),
    ],
)
def test_latency_where_it_is_known(directory: Path, key: str, found: Any, said: str) -> None:
    assert "Latency and rate" not in page(directory).text
    assemble.add_to_report(directory, key, found)
    assert said in page(directory).text


# --- when it is made ----------------------------------------------------------------------------


def test_the_command_makes_the_same_page_again(hqc: Run, directory: Path) -> None:
    before = (directory / "report.html").read_bytes()
    (directory / "report.html").unlink()
    ended = hqc("report", directory, "-f", "json")
    assert ended.status == Exit.OK, ended.err
    assert ended.document["result"]["page"] == str(directory / "report.html")
    assert (directory / "report.html").read_bytes() == before
    assert hqc("report", directory).out.strip() == str(directory / "report.html")


def test_the_page_belongs_to_the_directory(hqc: Run, made: Path, directory: Path) -> None:
    """A directory with its page can be compiled again."""
    model = made.parent / "small.onnx"
    assert hqc("compile", model, "-o", directory, "--check", "off").status == Exit.OK


@pytest.mark.parametrize("shown", [True, False])
def test_open(hqc: Run, directory: Path, monkeypatch: pytest.MonkeyPatch, shown: bool) -> None:
    asked: list[str] = []

    def show(url: str) -> bool:
        asked.append(url)
        return shown

    monkeypatch.setattr(webbrowser, "open", show)
    ended = hqc("report", directory, "--open")
    assert asked == [(directory / "report.html").as_uri()]
    assert ended.status == (Exit.OK if shown else Exit.TOOL)
    assert ended.codes == ([] if shown else ["HQC404"])


@pytest.mark.parametrize(
    "damage",
    [
        None,
        b"",
        b"[]",
        b'{"passes": 3}',
        b'{"passes": [], "layers": [{"name": "a"}], "warnings": []}',
        b'{"passes": [], "layers": [{"name": 1, "kind": 1, "where": 1, "types": {"result": "x"}}]}',
        b'{"passes": [], "layers": [], "warnings": [], "training": {"accuracy": 1}}',
    ],
)
def test_a_damaged_report(hqc: Run, directory: Path, damage: bytes | None) -> None:
    path = directory / "report.json"
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    ended = hqc("report", directory)
    assert (ended.status, ended.codes) == (Exit.REJECTED, ["HQC006"])
    assert "report.json is missing or damaged" in ended.err


def test_a_build_refuses_a_damaged_report(
    hqc: Run, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hqc.backends.hls4ml.vitis import Vitis

    monkeypatch.setattr(Vitis, "build", lambda self, folder, timeout: {"lut": 3})
    assert hqc("build", directory).status == Exit.OK
    assert "Vendor's report" in page(directory).text
    (directory / "report.json").write_text("{")
    monkeypatch.setattr(Vitis, "build", lambda *_: pytest.fail("the tool ran first"))
    assert hqc("build", directory).codes == ["HQC006"]


# --- how to make it again -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-b", "catapult", "--technology", "asic", "--clock", "2.5", "--reuse-factor", "2"),
        ("--input-type", "fixed<6,2>", "--io", "io_stream", "--seed", "3", "--save-ir"),
    ],
)
def test_the_command_of_the_page_gives_the_same_bytes(
    hqc: Run, tmp_path: Path, options: tuple[str, ...]
) -> None:
    onnx.save(small_model(), tmp_path / "small.onnx")
    ended = hqc("compile", "small.onnx", "-o", "one", "--check", "off", *options)
    assert ended.status == Exit.OK, ended.err
    arguments = compile_arguments(Artifact.open("one").manifest, "two")
    ended = hqc(*arguments)
    assert ended.status == Exit.OK, ended.err
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_what_a_command_cannot_say_is_noted(directory: Path) -> None:
    known = manifest.read(directory)
    options = {
        **known.options,
        "quantise": 6,
        "hardware": {"own": {"latency_cutoff": 0.5, "on": True}},
    }
    model = {**known.model, "file": "Net (in memory)"}
    found = reproduction(replace(known, options=options, model=model))
    assert "--backend-option latency-cutoff=0.5" in found.commands[0]
    assert "--backend-option on=true" in found.commands[0]
    assert "--samples SAMPLES.npz" in found.commands[0]
    assert "'Net (in memory)'" in found.commands[0]
    assert len(found.notes) == 3
