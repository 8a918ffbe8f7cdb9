"""The cocotb test of a project: it learns everything from `rtl.json` and the vectors."""

from __future__ import annotations

COCOTB = '''"""Streams the samples of tb/vectors through the design and compares every output.

Run by itself (`python tb/test_TOP.py [SIMULATOR]`), it builds and runs the simulation with
cocotb 2's runner, in Icarus by default.
"""

import json
import random
import sys
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge

PROJECT = Path(__file__).resolve().parent.parent
RECORD = json.loads((PROJECT / "rtl.json").read_text(encoding="utf-8"))
STALLS = RECORD["interface"] == "handshake"


def vectors(side):
    """Words of each port of a side, by its Verilog name."""
    found = {}
    for port in RECORD["ports"][side]:
        path = PROJECT / "tb" / "vectors" / f"{port['verilog']}.hex"
        found[port["verilog"]] = [int(line, 16) for line in path.read_text().split()]
    return found


async def reset(dut):
    dut.in_valid.value = 0
    if STALLS:
        dut.out_ready.value = 1
    dut.rst.value = 1
    for _ in range(2):
        await FallingEdge(dut.clk)
    dut.rst.value = 0


async def send(dut, words, gaps):
    """Hand in every sample, each on a falling edge, and hold it until it is taken."""
    for sample in range(len(next(iter(words.values())))):
        while gaps and random.random() < 0.4:
            await FallingEdge(dut.clk)
        for name, values in words.items():
            getattr(dut, name).value = values[sample]
        dut.in_valid.value = 1
        while True:
            await RisingEdge(dut.clk)
            taken = not hasattr(dut, "in_ready") or int(dut.in_ready.value)
            await FallingEdge(dut.clk)
            if taken:
                break
        dut.in_valid.value = 0


async def receive(dut, words, stalls):
    """Every sample that comes out is the next one expected."""
    for sample in range(len(next(iter(words.values())))):
        while True:
            await RisingEdge(dut.clk)
            left = int(dut.out_valid.value) and (not STALLS or int(dut.out_ready.value))
            if left:
                found = {name: int(getattr(dut, name).value) for name in words}
            await FallingEdge(dut.clk)
            if STALLS:
                dut.out_ready.value = int(not (stalls and random.random() < 0.4))
            if left:
                break
        for name, values in words.items():
            assert found[name] == values[sample], f"sample {sample}, port {name}"


async def stream(dut, gaps):
    random.seed(1)
    Clock(dut.clk, 10, unit="ns").start()
    await reset(dut)
    receiver = cocotb.start_soon(receive(dut, vectors("outputs"), gaps))
    await send(dut, vectors("inputs"), gaps)
    await receiver


@cocotb.test(timeout_time=100, timeout_unit="ms")
async def streams_without_a_pause(dut):
    await stream(dut, gaps=False)


@cocotb.test(timeout_time=100, timeout_unit="ms")
async def streams_with_gaps(dut):
    await stream(dut, gaps=True)


def main():
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import get_runner

    runner = get_runner(sys.argv[1] if len(sys.argv) > 1 else "icarus")
    folder = PROJECT / "build_cocotb"
    sources = sorted((PROJECT / "rtl").glob("*.v"))
    runner.build(
        sources=sources, hdl_toplevel=RECORD["top"], build_dir=folder, timescale=("1ns", "1ps")
    )
    results = runner.test(
        hdl_toplevel=RECORD["top"],
        test_module=Path(__file__).stem,
        test_dir=Path(__file__).resolve().parent,
        build_dir=folder,
        results_xml=str(folder / "results.xml"),
    )
    _, failed = get_results(results)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
'''
