"""Hand-written projects of the RTL backend: small modules, right and wrong, with their rtl.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir

from hqc.analysis.partition import Partition, Port
from hqc.numerics.types import FixedType

PORTS = "input wire clk, input wire rst, input wire in_valid, "


def port(name: str, size: int, width: int, signed: bool = True) -> Port:
    return Port(name, (size,), FixedType(signed, width, width), name, "codes")


def partition_of(inputs: Sequence[Port], outputs: Sequence[Port]) -> Partition:
    """A partition with these ports and nothing between them."""
    empty = onnx_ir.Model(onnx_ir.Graph([], [], nodes=[]), ir_version=10)
    return Partition(empty, tuple(inputs), tuple(outputs), (), (), {})


def write_project(
    folder: Path, parts: Partition, verilog: str, *, top: str = "net", **changes: Any
) -> Path:
    """A project directory around one file of Verilog; `changes` are fields of rtl.json."""
    (folder / "rtl").mkdir(parents=True, exist_ok=True)
    (folder / "rtl" / f"{top}.v").write_text(verilog, encoding="utf-8")
    document: dict[str, Any] = {
        "version": 1,
        "top": top,
        "interface": "fixed",
        "clock_ns": 5.0,
        "ii": 1,
        "latency": 2,
        "ports": {
            "inputs": [_wires(p) for p in parts.inputs],
            "outputs": [_wires(p) for p in parts.outputs],
        },
        "blocks": [],
    }
    (folder / "rtl.json").write_text(json.dumps({**document, **changes}), encoding="utf-8")
    return folder


def _wires(found: Port) -> Mapping[str, Any]:
    return {
        "name": found.name,
        "verilog": found.name,
        "size": found.shape[0],
        "width": found.type.width,
        "signed": found.type.signed,
        "type": str(found.type),
        "shape": list(found.shape),
    }


def pipeline(stages: int, function: str = "a + b", extra: str = "", valid: str = "") -> str:
    """`y = function(a, b)` of two signed 5-bit elements of x, as 6 bits, `stages` registers deep.

    `extra` stands in the module; `valid` drives out_valid instead of the delayed in_valid.
    """
    lines = [
        "`default_nettype none",
        f"module net ({PORTS}input wire [9:0] x, output wire out_valid, output wire [5:0] y);",
        "  wire signed [4:0] a = x[4:0];",
        "  wire signed [4:0] b = x[9:5];",
        f"  wire signed [5:0] s0 = {function};",
        "  wire v0 = in_valid;",
    ]
    for stage in range(1, stages + 1):
        lines += [
            f"  reg signed [5:0] s{stage};",
            f"  always @(posedge clk) s{stage} <= s{stage - 1};",
            f"  reg v{stage};",
            f"  always @(posedge clk) v{stage} <= rst ? 1'b0 : v{stage - 1};",
        ]
    lines += [
        extra,
        f"  assign out_valid = {valid or f'v{stages}'};",
        f"  assign y = s{stages};",
        "endmodule",
    ]
    return "\n".join(lines) + "\n"


HANDSHAKE = f"""`default_nettype none
module net ({PORTS}output wire in_ready, input wire out_ready,
  input wire [9:0] x, output wire out_valid, output wire [5:0] y);
  wire ce = !v2 || out_ready;
  wire signed [4:0] a = x[4:0];
  wire signed [4:0] b = x[9:5];
  reg signed [5:0] s1, s2;
  reg v1, v2;
  always @(posedge clk) if (ce) begin
    s1 <= a + b;
    s2 <= s1;
  end
  always @(posedge clk)
    if (rst) begin
      v1 <= 1'b0;
      v2 <= 1'b0;
    end else if (ce) begin
      v1 <= in_valid;
      v2 <= v1;
    end
  assign in_ready = ce;
  assign out_valid = v2;
  assign y = s2;
endmodule
"""
