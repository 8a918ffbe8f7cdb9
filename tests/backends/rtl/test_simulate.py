"""Simulated Verilog: what comes out, when it comes out, and what is noticed when it lies."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.emulation_runs import shared_cache  # noqa: F401 - a fixture
from support.rtl_projects import HANDSHAKE, partition_of, pipeline, port, write_project

from hqc.backends.rtl.simulation import icarus, simulate, verilator
from hqc.backends.rtl.simulation.simulate import RtlEmulator, emulator
from hqc.diagnostics import Exit, HqcError
from hqc.numerics.types import Codes

pytestmark = pytest.mark.emulation

HERE = {"verilator": verilator.find() is not None, "icarus": icarus.find() is not None}
PARTS = partition_of([port("x", 2, 5)], [port("y", 1, 6)])


@pytest.fixture(params=sorted(HERE))
def tool(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if not HERE[name]:
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture(params=["icarus", pytest.param("verilator", marks=pytest.mark.long)])
def quick(request: pytest.FixtureRequest) -> str:
    """Where one tool shows as much as two: the one that needs no compiler by default."""
    name = str(request.param)
    if not HERE[name]:
        pytest.skip(f"{name} is not installed")
    return name


def vectors(count: int, seed: int = 0) -> Codes:
    found = np.random.default_rng(seed).integers(-16, 16, (count, 2))
    found[:4] = [[-16, -16], [15, 15], [-16, 15], [0, 0]][:count]
    return found


def made(folder: Path, verilog: str, tool: str, **changes: object) -> RtlEmulator:
    return emulator(write_project(folder, PARTS, verilog, simulator=tool, **changes), PARTS)


def fault(folder: Path, verilog: str, tool: str, **changes: object) -> HqcError:
    with pytest.raises(HqcError) as caught:
        made(folder, verilog, tool, **changes).run({"x": vectors(700)})
    return caught.value


def code_of(error: HqcError) -> str:
    return error.diagnostics[0].code


@pytest.mark.parametrize("stages", [1, 4])
def test_a_pipeline_is_exact_and_its_timing_measured(
    tmp_path: Path, tool: str, stages: int
) -> None:
    run = made(tmp_path, pipeline(stages), tool, latency=stages, clock_ns=2.5)
    assert run.measured == {}
    x = vectors(3000)
    for count in (3000, 1, 0):
        got = run.run({"x": x[:count]})["y"]
        assert got.dtype == np.int64
        assert got.tolist() == x[:count].sum(axis=1, keepdims=True).tolist()
    assert (run.measured["latency"], run.measured["ii"]) == (stages, 1)
    assert run.measured["latency_ns"] == 2.5 * stages
    text = f"latency {stages} cycles ({2.5 * stages:g} ns at 2.5 ns), II = 1, measured under"
    assert run.measured["text"].startswith(text)


def test_a_handshake_survives_stalls_and_pauses(tmp_path: Path, tool: str) -> None:
    run = made(tmp_path, HANDSHAKE, tool, interface="handshake")
    x = vectors(1500)
    assert run.run({"x": x})["y"][:, 0].tolist() == x.sum(axis=1).tolist()
    assert (run.measured["latency"], run.measured["ii"]) == (2, 1)


def wide_module(widths: list[int]) -> str:
    ports = "".join(
        f"input wire [{3 * w - 1}:0] a{w}, output wire [{3 * w - 1}:0] y{w}, " for w in widths
    )
    regs = "".join(
        f"  reg [{3 * w - 1}:0] r{w};\n  always @(posedge clk) r{w} <= ~a{w};\n"
        f"  assign y{w} = r{w};\n"
        for w in widths
    )
    return (
        "`default_nettype none\nmodule net (input wire clk, input wire rst, input wire in_valid, "
        f"{ports}output wire out_valid);\n{regs}  reg v;\n"
        "  always @(posedge clk) v <= in_valid && !rst;\n  assign out_valid = v;\nendmodule\n"
    )


def test_ports_of_every_width_and_sign(tmp_path: Path, tool: str) -> None:
    widths = [1, 2, 7, 8, 11, 16, 21, 31, 32, 33, 62]
    ins = [port(f"a{w}", 3, w, signed=w % 2 == 0) for w in widths]
    outs = [port(f"y{w}", 3, w, signed=w % 3 == 0) for w in widths]
    parts = partition_of(ins, outs)
    project = write_project(tmp_path, parts, wide_module(widths), latency=1, simulator=tool)
    random, codes = np.random.default_rng(4), {}
    for found in ins:
        limits = found.type.limits
        codes[found.name] = random.integers(limits.lo, limits.hi, (40, 3), np.int64, endpoint=True)
        codes[found.name][0], codes[found.name][1] = limits.lo, limits.hi
    got = emulator(project, parts).run(codes)
    for found in outs:
        bits = ~codes["a" + found.name[1:]] & ((1 << found.type.width) - 1)
        sign = (1 << found.type.width - 1) if found.type.signed else 0
        assert np.array_equal(got[found.name], (bits ^ sign) - sign), found.type


@pytest.mark.parametrize("promised", [1, 3])
def test_a_lie_about_latency_is_named_with_both_figures(
    tmp_path: Path, quick: str, promised: int
) -> None:
    error = fault(tmp_path, pipeline(2), quick, latency=promised)
    assert (code_of(error), error.exit) == ("HQC423", Exit.NOT_EXACT)
    assert f"latency 2 cycles measured, {promised} promised" in str(error)


def test_a_design_that_takes_every_other_sample_only(tmp_path: Path, quick: str) -> None:
    every_other = "  reg t;\n  always @(posedge clk) t <= rst ? 1'b0 : !t;\n"
    verilog = pipeline(2, extra=every_other, valid="v2 && t")
    error = fault(tmp_path, verilog, quick, latency=2)
    assert code_of(error) == "HQC423"
    assert re.search(r"\d+ cycles measured, 2 promised|results measured for", str(error))


def taking_turns(every: int) -> str:
    """A pipeline of two stages that takes a sample every so many cycles, and says so."""
    turns = (
        "  reg [3:0] rest;\n"
        f"  always @(posedge clk) rest <= rst ? 4'd0 : taken ? 4'd{every - 1} :\n"
        "    rest == 4'd0 ? 4'd0 : rest - 4'd1;\n  assign in_ready = rest == 4'd0;\n"
        "  wire taken = in_valid && in_ready;\n  wire v0 = taken;"
    )
    verilog = pipeline(2).replace("  wire v0 = in_valid;", turns)
    return verilog.replace("input wire in_valid,", "input wire in_valid, output wire in_ready,")


def test_an_interval_of_two_cycles_is_measured(tmp_path: Path, tool: str) -> None:
    run = made(tmp_path, taking_turns(2), tool, ii=2)
    x = vectors(300)
    assert run.run({"x": x})["y"][:, 0].tolist() == x.sum(axis=1).tolist()
    assert run.measured["ii"] == 2


def test_a_lie_about_the_interval_is_named_with_both_figures(tmp_path: Path, quick: str) -> None:
    for promised in (2, 4):
        error = fault(tmp_path / str(promised), taking_turns(3), quick, ii=promised)
        assert code_of(error) == "HQC423"
        assert f"II = 3 measured, {promised} promised" in str(error)


def test_a_handshake_slower_than_promised(tmp_path: Path, quick: str) -> None:
    slow = HANDSHAKE.replace("assign in_ready = ce", "assign in_ready = ce && t").replace(
        "v1 <= in_valid;", "v1 <= in_valid && t;"
    )
    slow = slow.replace(
        "  reg v1, v2;", "  reg v1, v2;\n  reg t;\n  always @(posedge clk) t <= rst || !t;"
    )
    error = fault(tmp_path, slow, quick, interface="handshake")
    assert code_of(error) == "HQC423"
    assert "II = 2 measured, 1 promised" in str(error)


def test_a_handshake_that_ignores_stalls(tmp_path: Path, quick: str) -> None:
    deaf = HANDSHAKE.replace("!v2 || out_ready", "1'b1")
    assert code_of(fault(tmp_path, deaf, quick, interface="handshake")) == "HQC426"


def test_a_handshake_that_hangs(tmp_path: Path, quick: str) -> None:
    hangs = HANDSHAKE.replace("assign in_ready = ce", "assign in_ready = 1'b0")
    error = fault(tmp_path, hangs, quick, interface="handshake")
    assert code_of(error) == "HQC423"
    assert "0 of 700 samples were accepted" in str(error)


@pytest.mark.parametrize("valid", ["1'b0", "1'b1"])
def test_a_valid_bit_that_is_stuck(tmp_path: Path, quick: str, valid: str) -> None:
    assert code_of(fault(tmp_path, pipeline(2, valid=valid), quick)) == "HQC423"


def test_valid_bits_that_the_reset_forgets(tmp_path: Path, quick: str) -> None:
    verilog = pipeline(3).replace("v2 <= rst ? 1'b0 : v1", "v2 <= v1")
    assert code_of(fault(tmp_path, verilog, quick, latency=3)) == "HQC423"


def test_results_that_depend_on_what_was_before(tmp_path: Path, quick: str) -> None:
    """Samples that come in pairs change places; a state that no reset clears adds to a sum."""
    pairs = "  reg signed [5:0] last;\n  always @(posedge clk) last <= s2;\n"
    verilog = pipeline(3, extra=pairs).replace("s3 <= s2", "s3 <= in_valid ? s2 : last")
    assert code_of(fault(tmp_path, verilog, quick, latency=3)) == "HQC426"


def test_a_register_that_is_never_written_cannot_hide(tmp_path: Path, tool: str) -> None:
    ghost = "  reg ghost;\n  always @(posedge clk) ghost <= ghost;\n  wire v0"
    verilog = pipeline(2, "a + b").replace("  wire v0", ghost).replace("y = s2", "y = s2 ^ ghost")
    assert code_of(fault(tmp_path, verilog, tool)) == "HQC426"


def test_a_result_that_comes_with_the_valid_bit_of_another(tmp_path: Path, quick: str) -> None:
    wrong = pipeline(3).replace("assign y = s3", "assign y = s2")
    assert code_of(fault(tmp_path, wrong, quick, latency=3)) == "HQC426"


def test_ports_are_checked_against_the_model_and_the_module(tmp_path: Path, tool: str) -> None:
    other = partition_of([port("x", 2, 6)], [port("y", 1, 6)])
    project = write_project(tmp_path / "one", PARTS, pipeline(2), simulator=tool)
    with pytest.raises(HqcError, match="HQC402") as caught:
        emulator(project, other)
    assert "the model says x: 2 elements of 6 bits, signed" in str(caught.value)
    narrow = pipeline(2).replace("[9:0] x", "[8:0] x").replace("x[9:5]", "x[8:5]")
    assert code_of(fault(tmp_path / "two", narrow, tool)) == "HQC402"


def test_broken_projects(tmp_path: Path, quick: str) -> None:
    broken = pipeline(2).replace("assign y = s2;", "assign y = = s2;")
    error = fault(tmp_path / "syntax", broken, quick)
    assert (code_of(error), error.exit) == ("HQC405", Exit.TOOL)
    assert "net.v" in str(error)
    for text in ("", "{}", "[1]", json.dumps({"version": 1}), json.dumps({"version": 2})):
        project = write_project(tmp_path / "json", PARTS, pipeline(2))
        (project / "rtl.json").write_text(text)
        with pytest.raises(HqcError, match="HQC006"):
            emulator(project, PARTS)
    project = write_project(tmp_path / "empty", PARTS, pipeline(2))
    shutil.rmtree(project / "rtl")
    with pytest.raises(HqcError, match="HQC006"):
        emulator(project, PARTS)


def test_codes_that_do_not_fit(tmp_path: Path, quick: str) -> None:
    run = made(tmp_path, pipeline(2), quick)
    for codes in ({}, {"x": vectors(4)[:, :1]}, {"x": vectors(4) + 30}):
        with pytest.raises(HqcError, match="HQC005"):
            run.run(codes)


def test_without_a_simulator_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verilator, "_packaged", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    for wanted, names in (("auto", ("verilator", "icarus")), ("icarus", ("icarus",))):
        with pytest.raises(HqcError) as caught:
            emulator(write_project(tmp_path, PARTS, pipeline(2), simulator=wanted), PARTS)
        assert (code_of(caught.value), caught.value.exit) == ("HQC404", Exit.TOOL)
        helps = caught.value.diagnostics[0].helps
        assert helps == tuple(f"{name}: {simulate.INSTALL[name]}" for name in names)


def test_the_library_is_cached_by_content(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not HERE["verilator"]:
        pytest.skip("verilator is not installed")
    monkeypatch.setenv("HQC_CACHE_DIR", str(cache / "own"))
    verilog = pipeline(2, "a - b")
    first = made(tmp_path / "one", verilog, "verilator")
    built = sorted((cache / "own").rglob("rtl-*.so"))
    again = made(tmp_path / "two", verilog, "verilator")
    assert again.simulator.library == first.simulator.library
    assert sorted((cache / "own").rglob("rtl-*.so")) == built
    assert not list((cache / "own").rglob("building-*"))
    (tmp_path / "one" / "rtl" / "net.v").write_text(pipeline(2, "b - a"))
    x = {"x": vectors(50)}
    changed = emulator(tmp_path / "one", PARTS)
    assert changed.simulator.library != first.simulator.library
    assert changed.run(x)["y"].tolist() == (-first.run(x)["y"]).tolist()


def test_the_verilator_of_the_system_does_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verilator, "_packaged", lambda: None)
    if verilator.find() is None:
        pytest.skip("there is no verilator_bin on the PATH")
    x = vectors(2000)
    run = made(tmp_path, HANDSHAKE, "verilator", interface="handshake")
    assert run.run({"x": x})["y"][:, 0].tolist() == x.sum(axis=1).tolist()


def test_two_instances_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not HERE["verilator"]:
        pytest.skip("verilator is not installed")
    monkeypatch.setattr(simulate, "cores", lambda: 3)
    run = made(tmp_path, pipeline(2), "verilator")
    x = vectors(5000)
    assert run.run({"x": x})["y"][:, 0].tolist() == x.sum(axis=1).tolist()
    assert run.vectors == 5000
