"""Estimates of area and delay: what is read, what is remembered, what the tools are told."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.rtl_texts import COPIES, layer, write_project

from hqc.backends.estimate import flows, liberty, yosys
from hqc.backends.estimate.cache import Cache, Module, key_of
from hqc.backends.estimate.figures import Figures, abc9_delay, abc_delay, read_stat
from hqc.backends.estimate.flows import Flow, flow_of
from hqc.backends.estimate.measure import Tools, measure_all
from hqc.backends.estimate.parts import read_project
from hqc.backends.estimate.yosys import Job, Yosys, run_all
from hqc.cli.doctor import examine
from hqc.diagnostics import Exit, HqcError

NO_TOOL = Yosys("none", "0", (sys.executable, "-c", "raise SystemExit(1)"))
FPGA = Flow("fpga-xcup", 5.0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HQC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "estimate"


def code_of(error: pytest.ExceptionInfo[HqcError]) -> str:
    return error.value.diagnostics[0].code


# --- what is read ---------------------------------------------------------------------------


def stat(cells: dict[str, int], **more: Any) -> str:
    return json.dumps({"modules": {}, "design": {"num_cells_by_type": cells, **more}})


def test_counts_of_an_fpga() -> None:
    cells = {"LUT2": 5, "LUT6": 2, "MUXF7": 1, "CARRY4": 3, "FDRE": 4, "FDSE_1": 1, "SRL16E": 2}
    text = stat({**cells, "INV": 6, "\\net_one": 7, "$scopeinfo": 8}, estimated_num_lc=5)
    found = read_stat(text, 1.5, boxes=frozenset({"net_one"}))
    assert found.luts == (0, 5, 0, 0, 0, 2)
    assert (found.lut, found.muxf, found.carry, found.flip_flops) == (7, 1, 3, 5)
    assert (found.shift_registers, found.inverters, found.dsp, found.packed) == (2, 6, 0, 5)
    assert (found.delay_ns, found.area_um2) == (1.5, 0.0)
    assert found.gates == sum(cells.values()) + 6


def test_area_of_an_asic() -> None:
    text = stat({"XOR2X1": 2, "DFF": 3}, area=160.5)
    found = read_stat(text, 0.2, frozenset({"DFF"}))
    assert (found.area_um2, found.flip_flops, found.gates) == (160.5, 3, 5)


@pytest.mark.parametrize("text", ["", "{}", "[1]", stat({}).replace("num_cells_by_type", "n")])
def test_no_statistics(text: str, tmp_path: Path) -> None:
    (tmp_path / yosys.LOG).write_text("")
    (tmp_path / "stat.json").write_text(text)
    with pytest.raises(HqcError) as error:
        FPGA.read(tmp_path)
    assert code_of(error) == "HQC405"


def test_sums_and_copies() -> None:
    one = Figures((("FDRE", 1), ("LUT2", 2)), 1.0, 1, 2, 3.0, 4.0)
    two = Figures((("LUT2", 1), ("LUT3", 1)), 2.5, 0, 1, 1.0, 1.0)
    both = one.times(3) + two
    assert both == Figures((("FDRE", 3), ("LUT2", 7), ("LUT3", 1)), 2.5, 3, 7, 10.0, 5.0)


def test_delays_in_logs() -> None:
    log = "ABC: P:  Del = 6395.00.  Ar = 2.0.\nABC: E:  Del = 6585.00.  Ar =   15404.0.\n"
    assert abc9_delay(log) == 6.585
    assert abc9_delay("nothing was mapped") == 0.0
    log = "ABC: Delay =  6134.17 ps  (  1.4 %)\nABC: Area = 4 Delay =  5994.07 ps  (  1.0 %)\n"
    assert abc_delay(log) == 5.99407


def test_parts_of_a_project(tmp_path: Path) -> None:
    project = read_project(write_project(tmp_path / "p"))
    assert [(p.name, p.count) for p in project.parts] == [
        ("one", 1),
        ("two", 1),
        ("many", COPIES),
        ("top", 1),
    ]
    assert project.parts[2].module.top == "net_many_one"
    assert project.parts[3].module.box_names == {"net_one", "net_two", "net_many"}
    assert (project.clock_ns, project.latency, project.interval) == (4.0, 3, 1)


def test_copies_that_work_step_by_step_are_one_part(tmp_path: Path) -> None:
    directory = write_project(tmp_path / "p")
    record = directory / "rtl.json"
    record.write_text(record.read_text().replace('"kind"', '"steps": 3, "kind"'))
    part = read_project(directory).parts[2]
    assert (part.count, part.module.top) == (1, "net_many")


@pytest.mark.parametrize(
    ("old", "new"), [("", "{"), ('"top"', '"tip"'), ("net_one.v", "none.v"), ('"net_many"', '"x"')]
)
def test_damaged_project(tmp_path: Path, old: str, new: str) -> None:
    directory = write_project(tmp_path / "p")
    record = directory / "rtl.json"
    record.write_text(record.read_text().replace(old, new) if old else new)
    with pytest.raises(HqcError) as error:
        read_project(directory)
    assert code_of(error) == "HQC006"


# --- targets --------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["fpga-xcupp", "asic", "asic-sky", "", "fpga-x.lib"])
def test_unknown_target(target: str) -> None:
    with pytest.raises(HqcError) as error:
        flow_of(target, 5.0)
    assert code_of(error) == "HQC434"
    assert error.value.exit == Exit.USAGE


def test_closest_target() -> None:
    with pytest.raises(HqcError, match="did you mean asic-osu018"):
        flow_of("asic-osu18", 5.0)


LIBERTY = """/* library (not) { cell (this) { ff (IQ) { } } */
library(tiny) {
  cell (INV) { area : 2; pin (Y) { direction : output; function : "(!A)"; } }
  cell (BUF) { area : 3; pin (Y) { direction : output; function : "A"; } }
  cell ("DFF") { area : 9; ff (IQ, IQN) { clocked_on : "CK"; next_state : "D"; } }
}
"""


def test_liberty_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.lib"
    path.write_text(LIBERTY)
    found = liberty.read(path)
    assert (found.library, found.cells, found.registers) == ("tiny", 3, {"DFF"})
    path.write_text(LIBERTY + " ")
    assert liberty.read(path).local != found.local  # abc remembers libraries by their names


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file"),
        ("module x; endmodule", "no library"),
        ("library (a) { }", "no cell"),
        ("library (a) { cell (INV) { area : 1; } }", "no flip-flop"),
        ('library (a) { cell (D) { ff (IQ, N) { } pin (Q) { function : "IQ"; } } }', "no buffer"),
    ],
)
def test_unusable_liberty_file(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "cells.lib"
    if text is not None:
        path.write_text(text)
    with pytest.raises(HqcError, match=reason) as error:
        flow_of(f"asic-{path}", 5.0)
    assert code_of(error) == "HQC432"


def test_osu018_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liberty, "OSU018", Path("/nowhere/osu018.lib"))
    with pytest.raises(HqcError, match="apt install qflow-tech-osu018"):
        flow_of("asic-osu018", 5.0)


def test_no_yosys() -> None:
    with pytest.raises(HqcError, match="pip install") as error:
        yosys.find("no-such-yosys")
    assert code_of(error) == "HQC430"
    assert error.value.exit == Exit.TOOL


def test_old_versions_are_asked_for_abc9() -> None:
    old = Yosys("yosys", "0.23", (), abc9_option=True)
    new = Yosys("pyosys", "0.70", ())
    assert "-abc9" in FPGA.script(old, ["a.v"], "t")
    assert "-abc9" not in FPGA.script(new, ["a.v"], "t")


# --- what is remembered ---------------------------------------------------------------------


def module(tmp_path: Path, text: str, top: str = "net_one") -> Module:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.v"
    path.write_text(text)
    return Module("a layer", top, (path,))


def test_the_key_is_of_the_logic(tmp_path: Path) -> None:
    one = module(tmp_path, layer("net_one", "x[7:4]"))
    same = module(tmp_path, layer("other", "x[7:4]", about="another layer"), "other")
    changed = module(tmp_path, layer("net_one", "x[6:3]"))
    assert key_of(one, FPGA, NO_TOOL) == key_of(same, FPGA, NO_TOOL)
    keys = {key_of(one, FPGA, NO_TOOL), key_of(changed, FPGA, NO_TOOL)}
    keys.add(key_of(one, FPGA, Yosys("none", "1", ())))
    assert len(keys) == 3


def test_the_clock_is_part_of_asic_keys_only(tmp_path: Path) -> None:
    (tmp_path / "tiny.lib").write_text(LIBERTY)
    one = module(tmp_path, layer("net_one", "x[7:4]"))

    def keys(target: str) -> set[str]:
        return {key_of(one, flow_of(target, clock), NO_TOOL) for clock in (2.0, 5.0)}

    assert len(keys("fpga-xcup")) == 1
    assert len(keys(f"asic-{tmp_path / 'tiny.lib'}")) == 2


def test_kept_figures(cache: Path) -> None:
    figures = Figures((("LUT2", 2),), 1.0, 1, 2, 0.0, 0.5)
    kept = Cache.of_user()
    assert kept.figures("k") is None
    kept.keep("k", {f: getattr(figures, f) for f in figures.__dataclass_fields__})
    assert kept.figures("k") == figures
    for damaged in ("", "[]", "{}"):
        (cache / "k.json").write_text(damaged)
        assert kept.figures("k") is None


def test_netlists_are_kept_without_names(tmp_path: Path) -> None:
    one = module(tmp_path, layer("net_one", "x[7:4]"))
    same = module(tmp_path, layer("other", "x[7:4]"), "other")
    plain = one.normalise("module net_one(x); XOR u1(.A(x)); endmodule")
    Cache.of_user().keep("k", {}, plain)
    assert Cache.of_user().netlist("k", same) == "module other(x); XOR u1(.A(x)); endmodule"


# --- runs that fail -------------------------------------------------------------------------


def job(folder: Path, code: str) -> tuple[Yosys, Job]:
    folder.mkdir()
    return Yosys("python", "0", (sys.executable, "-c", code)), Job("layer fc1", folder)


def test_time_out_ends_what_the_tool_started(tmp_path: Path) -> None:
    code = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "pathlib.Path('pid').write_text(str(child.pid))\n"
        "time.sleep(60)"
    )
    tool, late = job(tmp_path / "run", code)
    with pytest.raises(HqcError, match=r"layer fc1 took longer than 1 s") as error:
        list(run_all(tool, [late], 1.0))
    assert code_of(error) == "HQC433"
    assert "--timeout" in str(error.value)
    child = int((tmp_path / "run" / "pid").read_text())
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.is_file() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    os.kill(child, 9)
    pytest.fail("the tool's own child still runs")


def test_a_crash_shows_the_end_of_the_log(tmp_path: Path) -> None:
    tool, crashed = job(tmp_path / "run", "print('the last word'); raise SystemExit(7)")
    with pytest.raises(HqcError, match="the last word") as error:
        list(run_all(tool, [crashed], 60.0))
    assert code_of(error) == "HQC405"


def test_at_most_two_at_a_time(tmp_path: Path) -> None:
    jobs = [job(tmp_path / str(n), "pass") for n in range(5)]
    running = most = 0
    for _, seconds in run_all(jobs[0][0], [j for _, j in jobs], 60.0, parallel=2):
        running += 1 if seconds is None else -1
        most = max(most, running)
    assert (running, most) == (0, 2)


def test_no_time_at_all(tmp_path: Path) -> None:
    with pytest.raises(HqcError, match="more than 0") as error:
        measure_all([], Tools(NO_TOOL, FPGA, timeout=0.0))
    assert code_of(error) == "HQC001"


def test_the_scripts_name_no_place() -> None:
    for name in flows.TARGETS[:1]:
        assert "/" not in flow_of(name, 5.0).script(NO_TOOL, ["part0.v"], "net")


def test_the_doctor_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(yosys, "find_or_none", lambda: None)
    monkeypatch.setattr(liberty, "OSU018", Path("/nowhere/osu018.lib"))
    found = {finding.topic: finding for finding in examine()}
    for topic, remedy in {
        "yosys": "pip install 'hqc[estimate]'",
        "opensta": "apt install opensta",
        "osu018 cells": "apt install qflow-tech-osu018",
    }.items():
        assert found[topic].state == "absent"
        assert remedy in found[topic].detail
