"""Test benches of a project: one in plain Verilog, one for cocotb, and the vectors of both.

Both stream all samples twice, first without a pause, then with gaps between samples and, where
the interface has a handshake, with a receiver that stalls. They run from the project's folder:

    iverilog -g2005 -o build_tb tb/TOP_tb.v rtl/*.v && vvp build_tb
    verilator --binary --timing --top-module TOP_tb tb/TOP_tb.v rtl/*.v && obj_dir/VTOP_tb
    python tb/test_TOP.py
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hqc.analysis.partition import Partition
from hqc.backends.layers.layout import to_hardware
from hqc.backends.rtl.emission.bench_cocotb import COCOTB
from hqc.backends.rtl.emission.verilog import vector
from hqc.numerics.types import Codes
from hqc.pipeline.backend import Batch


def bench_files(
    record: dict[str, Any], partition: Partition, vectors: tuple[Batch, Batch]
) -> dict[str, str]:
    """The files below `tb/` of a project.

    Args:
        record: what `rtl.json` holds.
        partition: whose ports they are.
        vectors: codes (N, *shape) of the input ports and those expected of the outputs.
    """
    texts: dict[str, str] = {}
    samples = 0
    sides = zip(("inputs", "outputs"), (partition.inputs, partition.outputs), vectors, strict=True)
    for side, ports, batch in sides:
        for port, about in zip(ports, record["ports"][side], strict=True):
            codes = to_hardware(np.asarray(batch[port.name], np.int64))
            samples = len(codes)
            lines = packed(codes.reshape(samples, -1), about["width"])
            texts[f"tb/vectors/{about['verilog']}.hex"] = "".join(f"{x}\n" for x in lines)
    top = record["top"]
    texts[f"tb/{top}_tb.v"] = _bench(record, samples)
    texts[f"tb/test_{top}.py"] = COCOTB
    return texts


def packed(codes: Codes, width: int) -> list[str]:
    """Rows of codes as hexadecimal words, element 0 in the lowest `width` bits."""
    mask = (1 << width) - 1
    digits = -(-codes.shape[1] * width // 4)
    rows = ("".join(f"{code & mask:0{width}b}" for code in row[::-1]) for row in codes.tolist())
    return [f"{int(row, 2):0{digits}x}" for row in rows]


def _bench(record: dict[str, Any], samples: int) -> str:
    stalls = record["interface"] == "handshake"
    ins, outs = record["ports"]["inputs"], record["ports"]["outputs"]
    ready = stalls or record["ii"] > 1
    pins = [".clk(clk)", ".rst(rst)", ".in_valid(in_valid)", ".out_valid(out_valid)"]
    pins += [".in_ready(in_ready)"] if ready else []
    pins += [".out_ready(out_ready)"] if stalls else []
    pins += [f".{port['verilog']}({_drive(port)})" for port in ins]
    pins += [f".{port['verilog']}({_read(port)})" for port in outs]
    declared = [f"  reg  {_vector(p)} {_drive(p)};" for p in ins]
    declared += [f"  wire {_vector(p)} {_read(p)};" for p in outs]
    declared += [f"  reg  {_vector(p)} {_memory(p)} [0:SAMPLES-1];" for p in (*ins, *outs)]
    loads = [
        f'    $readmemh("tb/vectors/{p["verilog"]}.hex", {_memory(p)});' for p in (*ins, *outs)
    ]
    undefined = [f"{_drive(p)} = {{{p['size'] * p['width']}{{1'bx}}}};" for p in ins]
    given = [f"        {_drive(p)} = {_memory(p)}[sent % SAMPLES];" for p in ins]
    differ = [f"{_read(p)} !== {_memory(p)}[received % SAMPLES]" for p in outs]
    return _BENCH.format(
        top=record["top"],
        samples=samples,
        latency=record["latency"],
        ii=record["ii"],
        half=f"{record['clock_ns'] / 2:.3f}",
        declared="\n".join(declared),
        ready="  wire in_ready;" if ready else "  wire in_ready = 1'b1;",
        stall="pass > 0 && random[3]" if stalls else "1'b0",
        dut=record["top"],
        pins=",\n    ".join(pins),
        loads="\n".join(loads),
        undefined=" ".join(undefined),
        given="\n".join(given),
        differ=" ||\n          ".join(differ),
    )


def _vector(port: dict[str, Any]) -> str:
    return vector(port["size"] * port["width"])


def _drive(port: dict[str, Any]) -> str:
    return f"drive_{port['verilog']}"


def _read(port: dict[str, Any]) -> str:
    return f"read_{port['verilog']}"


def _memory(port: dict[str, Any]) -> str:
    return f"vector_{port['verilog']}"


_BENCH = """\
// Streams the samples of tb/vectors through {top} and compares; run it from the project's folder.
`timescale 1ns / 1ps
`default_nettype none

module {top}_tb;
  localparam SAMPLES = {samples};
  localparam LATENCY = {latency};
  localparam INTERVAL = {ii};
  localparam LIMIT = 2 * (LATENCY + 16 + 40 * INTERVAL * SAMPLES);

  reg  clk = 1'b0;
  reg  rst = 1'b1;
  reg  in_valid = 1'b0;
  reg  out_ready = 1'b1;
  wire out_valid;
{ready}
{declared}

  integer pass = 0;     // 0: without a pause, 1: with gaps
  integer sent = 0;     // samples taken, of both passes
  integer received = 0;
  integer wrong = 0;
  integer cycle = 0;
  integer first = -1;   // cycles of the first sample, in and out
  integer latency = -1;
  integer rest = 0;     // cycles until the next sample may stand
  integer waiting = 0;  // samples that stand but were not taken: 0 or 1
  reg [15:0] random = 16'hace1;

  always #{half} clk = ~clk;

  {dut} dut (
    {pins});

  initial begin
{loads}
    {undefined}
    repeat (4) @(negedge clk);
    rst = 1'b0;
  end

  always @(negedge clk) if (!rst) begin  // what stands at the next rising edge
    random = {{random[14:0], random[15] ^ random[13] ^ random[12] ^ random[10]}};
    pass = (received < SAMPLES) ? 0 : 1;
    out_ready = !({stall});
    if (rest > 0) rest = rest - 1;
    if (waiting == 0) begin
      in_valid = 1'b0;
      {undefined}
      if (rest == 0 && sent < SAMPLES * (pass + 1) && (pass == 0 || random[0])) begin
        in_valid = 1'b1;
{given}
        waiting = 1;
      end
    end
  end

  always @(posedge clk) if (!rst) begin
    cycle = cycle + 1;
    if (in_valid && in_ready) begin
      if (first < 0) first = cycle;
      sent = sent + 1;
      waiting = 0;
      rest = INTERVAL;
    end
    if (out_valid === 1'b1 && out_ready) begin
      if (latency < 0) latency = cycle - first;
      if ({differ})
        wrong = wrong + 1;
      received = received + 1;
    end
    if (out_valid !== 1'b0 && out_valid !== 1'b1) wrong = wrong + 1;
    if (received == 2 * SAMPLES || cycle == LIMIT) begin
      if (received == 2 * SAMPLES && wrong == 0 && latency == LATENCY)
        $display("PASS: %0d samples, latency %0d cycles", received, latency);
      else
        $display("FAIL: %0d of %0d samples came out, %0d wrong, latency %0d cycles, not %0d",
          received, 2 * SAMPLES, wrong, latency, LATENCY);
      $finish;
    end
  end
endmodule

`default_nettype wire
"""
