"""A small RTL project, written by hand in the form of the backend's own."""

from __future__ import annotations

import json
from pathlib import Path

#: Instances of the layer that stands often.
COPIES = 9

_MODULE = """// {about}
`default_nettype none
module {name} (
  input  wire clk,
  input  wire [7:0] x,
  output wire [3:0] y
);
  wire [3:0] v0 = {expression}; // {about}
  reg [3:0] v0_s1; always @(posedge clk) v0_s1 <= v0;
  assign y = v0_s1;
endmodule
`default_nettype wire
"""
_MANY = """`default_nettype none
module net_many_one (
  input  wire [3:0] x,
  output wire [0:0] y
);
  assign y = &x;
endmodule

module net_many (
  input  wire [{high}:0] x,
  output wire [{last}:0] y
);
{instances}
endmodule
`default_nettype wire
"""
_TOP = """`default_nettype none
module net (
  input  wire clk,
  input  wire rst,
  input  wire in_valid,
  input  wire [7:0] a,
  output wire out_valid,
  output wire [{last}:0] b
);
  reg [1:0] valid;
  assign out_valid = valid[1];
  always @(posedge clk) if (rst) valid <= 2'd0;
    else valid <= {{valid[0:0], in_valid}};
  wire [3:0] one_y;
  net_one u_one (.clk(clk), .x(a), .y(one_y));
  wire [3:0] two_y;
  net_two u_two (.clk(clk), .x({{4'd5, one_y}}), .y(two_y));
  wire [{last}:0] many_y;
  net_many u_many (.x({{{copies}{{two_y}}}}), .y(many_y));
  reg [{last}:0] many_s3; always @(posedge clk) many_s3 <= many_y;
  assign b = many_s3;
endmodule
`default_nettype wire
"""


def layer(name: str, expression: str, about: str = "a layer") -> str:
    """A module of 8 bits in, 4 bits out, with a register behind its logic."""
    return _MODULE.format(name=name, expression=expression, about=about)


def write_project(
    directory: Path, one: str = "x[7:4] ^ x[3:0]", two: str = "x[7:4] & x[3:0]"
) -> Path:
    """A project of two layers, and one that stands `COPIES` times."""
    rtl = directory / "rtl"
    rtl.mkdir(parents=True)
    instances = "\n".join(
        f"  net_many_one at{i} (.x(x[{4 * i + 3}:{4 * i}]), .y(y[{i}:{i}]));" for i in range(COPIES)
    )
    sizes = {"high": 4 * COPIES - 1, "last": COPIES - 1, "copies": COPIES}
    (rtl / "net_one.v").write_text(layer("net_one", one))
    (rtl / "net_two.v").write_text(layer("net_two", two))
    (rtl / "net_many.v").write_text(_MANY.format(instances=instances, **sizes))
    (rtl / "net.v").write_text(_TOP.format(**sizes))
    counts = {"one": 1, "two": 1, "many": COPIES}
    blocks = [
        {
            "name": name,
            "kind": "dense",
            "module": f"net_{name}",
            "file": f"rtl/net_{name}.v",
            "instances": count,
            "where": f"node {name}",
        }
        for name, count in counts.items()
    ]
    wires = {"name": "flat", "kind": "rearrange", "module": "", "file": "", "instances": 1}
    record = {"top": "net", "clock_ns": 4.0, "ii": 1, "latency": 3, "blocks": [*blocks, wires]}
    (directory / "rtl.json").write_text(json.dumps(record))
    return directory
