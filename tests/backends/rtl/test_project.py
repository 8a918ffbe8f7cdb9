from __future__ import annotations

import ast
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from support.rtl_designs import (
    SIX,
    bench,
    call,
    chain,
    lint,
    needs_icarus,
    needs_verilator,
    partition_of,
    random_circuit,
    samples,
    single,
    written,
)

from hqc.backends.rtl.design import Block, Design, Port
from hqc.backends.rtl.emission.names import KEYWORDS, Names, comment
from hqc.backends.rtl.emission.project import write
from hqc.backends.rtl.emission.testbench import packed
from hqc.diagnostics import Location
from hqc.numerics.types import Range
from hqc.pipeline.backend import BackendOptions


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_the_same_bytes_each_time_and_nothing_left_of_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    design = chain(rng)
    inputs = samples(rng, design)
    first = written(design, inputs, tmp_path / "a")
    one = single(random_circuit(rng, (Range(-32, 31),) * 2, 9), "other")
    other = Design((Port("x", SIX, 2),), (one,), ("other",))
    written(other, samples(rng, other), tmp_path / "b")
    second = written(design, inputs, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert sorted(contents(tmp_path / "a")) == list(first.files) == list(second.files)
    assert str(tmp_path) not in "".join(t.decode() for t in contents(tmp_path / "a").values())


def test_the_record_says_what_the_files_hold(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    design = chain(rng)
    project = written(design, samples(rng, design), tmp_path, 1.0, interface="handshake")
    record = json.loads((tmp_path / "rtl.json").read_text(encoding="utf-8"))
    assert record == project.record
    assert (record["interface"], record["ii"]) == ("handshake", 1)
    assert record["latency"] == project.schedule.latency
    blocks = {block["name"]: block for block in record["blocks"]}
    assert blocks["last"]["file"] == blocks["last"]["module"] == ""
    assert blocks["third"]["instances"] == 4
    assert blocks["second"]["sources"] == ["first"]
    for block in record["blocks"]:
        if block["file"]:
            text = (tmp_path / block["file"]).read_text(encoding="utf-8")
            assert f"module {block['module']} (" in text
    ports = record["ports"]["outputs"]
    assert [port["verilog"] for port in ports] == ["out0_y0", "out1_y1"]
    assert all(len(p["shape"]) == 1 and p["shape"][0] == p["size"] for p in ports)
    text = (tmp_path / "constraints.sdc").read_text(encoding="utf-8")
    assert "create_clock -name clk -period 5.000 [get_ports clk]" in text
    assert "out_ready" in text


def awkward() -> Design:
    """Names that clash with keywords, with each other and with signals of the top."""
    circuit = random_circuit(np.random.default_rng(1), (Range(-32, 31),) * 2, 8)
    where = Location(node="a\n`define x \\")
    first = single(circuit, "begin", ("valid",))
    first = Block("begin", "dense", ("valid",), circuit, first.index, first.type, where=where)
    circuit = random_circuit(np.random.default_rng(2), first.ranges, 8)
    second = single(circuit, "begin_y", ("begin",))
    third = single(random_circuit(np.random.default_rng(2), first.ranges, 8), "BEGIN", ("begin",))
    return Design((Port("valid", SIX, 2),), (first, second, third), ("begin_y", "BEGIN"))


@pytest.mark.emulation
@needs_icarus
def test_names_of_users_are_made_legal(tmp_path: Path) -> None:
    design = awkward()
    inputs = samples(np.random.default_rng(1), design)
    project = written(design, inputs, tmp_path, 0.6)
    assert bench(tmp_path).startswith("PASS")
    assert project.record["ports"]["inputs"][0]["verilog"] == "valid_2"
    files = [name.lower() for name in project.files]
    assert len(set(files)) == len(files)


def test_a_project_may_be_called_like_a_keyword(tmp_path: Path) -> None:
    design = chain(np.random.default_rng(1))
    project = write(design, partition_of(design), BackendOptions(project="module"), tmp_path)
    assert project.record["top"] == "module_2"
    assert not any(name.startswith("tb/") for name in project.files)  # no vectors were given


def test_names() -> None:
    names = Names(("clk",))
    wanted = ["clk", "CLK", "wire", "3x", "a-b", "a_b", "x"]
    assert [names.new(name) for name in wanted] == [
        "clk_2", "CLK_3", "wire_2", "n3x", "a_b", "a_b_2", "x",
    ]  # fmt: skip
    assert {"module", "logic", "always_ff", "endmodule"} <= KEYWORDS
    assert comment("é\n`x\\ y") == "???x? y"


def test_words_of_vectors() -> None:
    codes = np.array([[-1, 0, 3], [1, -4, 2]])
    assert packed(codes, 3) == ["0c7", "0" + f"{0b010100001:02x}"]


@pytest.mark.emulation
@needs_verilator
def test_the_bench_runs_in_verilator(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    design = chain(rng, 12)
    project = written(design, samples(rng, design, 20), tmp_path, 1.0, interface="handshake")
    assert lint(project) == ""
    sources = [str(path) for path in sorted((tmp_path / "rtl").glob("*.v"))]
    build = ["verilator", "--binary", "--timing", "-Wno-fatal", "-CFLAGS", "-O0", "--top-module"]
    build += ["net_tb", "tb/net_tb.v", *sources]
    status, _, said = call(build, tmp_path, 300)
    assert status == 0, said
    latency = project.schedule.latency
    assert call(["obj_dir/Vnet_tb"], tmp_path)[1].startswith(
        f"PASS: 40 samples, latency {latency} cycles"
    )


@pytest.mark.emulation
@needs_icarus
@pytest.mark.parametrize("interface", ["fixed", "handshake"])
def test_the_cocotb_test_runs(interface: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("cocotb") is None:
        pytest.skip("cocotb is not installed")
    rng = np.random.default_rng(6)
    design = chain(rng, 12)
    written(design, samples(rng, design, 20), tmp_path, 1.0, interface=interface)
    command = [sys.executable, "tb/test_net.py"]
    status, *said = call(command, tmp_path)
    assert status == 0, said
    vectors = tmp_path / "tb" / "vectors" / "out0_y0.hex"
    words = vectors.read_text(encoding="utf-8").split()
    words[7] = f"{int(words[7], 16) ^ 1:x}"
    vectors.write_text("\n".join(words), encoding="utf-8")
    status, *said = call(command, tmp_path)
    assert status == 1
    assert "sample 7, port out0_y0" in "".join(said)


def test_the_cocotb_test_is_python(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    design = chain(rng, 12)
    written(design, samples(rng, design, 2), tmp_path)
    ast.parse((tmp_path / "tb" / "test_net.py").read_text(encoding="utf-8"))
