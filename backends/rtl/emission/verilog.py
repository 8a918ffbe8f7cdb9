"""A block of a design as Verilog: one module per circuit, and one that lays it out if many stand.

The circuit's module, in this order (`expressions.py` has EXPRESSION):

    module NAME (
      input  wire clk,                            only with registers
      input  wire ce,                             only with registers, in designs that can stall
      input  wire [..:0] x,                       input 0 in the lowest bits, then input 1, ...
      output wire [..:0] y
    );
      function [w-1:0] t<k>;                      one per table, k from 0
        input [c-1:0] code;
        case (code)
          c'd<code>: t<k> = w'd<value>;           every code x can have, in two's complement
          default: t<k> = w'd<value>;             the most frequent value; no valid x gets here
        endcase
      endfunction
      wire [signed] [w-1:0] v<i> = EXPRESSION;    // the operation in words: lo..hi
      reg [signed] [w-1:0] v<i>_s<k>; always @(posedge clk) [if (ce)] v<i>_s<k> <= v<i>[_s<k-1>];
      assign y = EXPRESSION;                      output 0 in the lowest bits
    endmodule

Wire v<i> is operation i of the circuit; w is the width of its range, signed if that goes below 0.
An input of x is as wide as its range needs, an element of y as wide as the block's bus.
v<i>_s<k> is the wire's value in stage k, k counted from the ports of the design; every operation
reads the values of its own stage. Constants have no registers.

A block with several instances has two modules in its file: NAME_one is the circuit, and NAME

    module NAME (clk, ce, x, y);                  x: the elements of all sources, each as wide as
      NAME_one at<i> (                            the bus of its source
        .clk(clk), .ce(ce), .x({...}), .y(y[..:..]));

An unreachable code of a table gives the most frequent value, not x: simulators agree on it, and
synthesis leaves out the codes that have it anyway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from hqc.backends.rtl.circuit import Circuit, Constant, Input, Lookup, Op, Wire, operands, width_of
from hqc.backends.rtl.design import Block
from hqc.backends.rtl.emission.expressions import Operand, concatenate, expression, literal, words
from hqc.backends.rtl.emission.timing import Timing
from hqc.backends.rtl.emission.wiring import Bus, concatenation, elements_of, gather
from hqc.numerics.types import FixedType, Range


def has_logic(block: Block) -> bool:
    """Whether a block computes anything; wires are the top's affair."""
    return not all(isinstance(op, Input) for op in block.circuit.ops)


def vector(width: int) -> str:
    """The range of a declaration."""
    return f"[{width - 1}:0]"


def circuit_module(
    name: str, circuit: Circuit, timing: Timing, bus: FixedType, stalls: bool
) -> str:
    """The module of a circuit.

    Args:
        name: of the module.
        circuit: what it computes.
        timing: its stages.
        bus: the type of an element of y.
        stalls: whether registers have a clock enable.
    """
    return _Printer(circuit, timing, stalls).text(name, bus)


class _Printer:
    def __init__(self, circuit: Circuit, timing: Timing, stalls: bool) -> None:
        self.circuit = circuit
        self.timing = timing
        self.enable = "if (ce) " if stalls else ""
        self.clock = clock_of(timing, stalls)
        self.tables: dict[tuple[int, int, tuple[int, ...], int], str] = {}
        self.functions: list[str] = []

    def text(self, name: str, bus: FixedType) -> str:
        widths = [width_of(bounds) for bounds in self.circuit.inputs]
        ports = [f"input  wire {port}" for port in self.clock]
        ports += [f"input  wire {vector(sum(widths))} x"] if widths else []
        ports += [f"output wire {vector(len(self.circuit.outputs) * bus.width)} y"]
        starts = list(accumulate(widths, initial=0))
        body = [line for wire in range(len(self.circuit.ops)) for line in self._wire(wire, starts)]
        last = self.timing.last
        results = [self._operand(wire, last).bits(0, bus.width) for wire in self.circuit.outputs]
        result = concatenate(results[::-1])
        lines = [*self.functions, *body, f"  assign y = {result};"]
        return module(name, ports, lines)

    def _wire(self, wire: Wire, starts: Sequence[int]) -> list[str]:
        op, bounds = self.circuit.ops[wire], self.circuit.ranges[wire]
        stage, name = self.timing.stages[wire], f"v{wire}"
        if isinstance(op, Input):
            low = starts[op.index]
            text = f"x[{low + width_of(bounds) - 1}:{low}]"
        else:
            text = self._expression(op, bounds, stage)
        kind = f"{'signed ' if bounds.lo < 0 else ''}{vector(width_of(bounds))}"
        lines = [f"  wire {kind} {name} = {text}; // {words(op)}: {bounds.lo}..{bounds.hi}"]
        if isinstance(op, Constant):
            return lines
        for later in range(stage + 1, self.timing.until[wire] + 1):
            delayed = f"v{wire}_s{later}"
            change = f"always @(posedge clk) {self.enable}{delayed} <= {name};"
            lines.append(f"  reg {kind} {delayed}; {change}")
            name = delayed
        return lines

    def _expression(self, op: Op, bounds: Range, stage: int) -> str:
        names = {wire: self._operand(wire, stage).name for wire in operands(op)}
        return expression(op, self.circuit.ranges, bounds, names.__getitem__, self._table)

    def _operand(self, wire: Wire, stage: int) -> Operand:
        """A wire as it is read in a stage."""
        late = stage > self.timing.stages[wire]
        late = late and not isinstance(self.circuit.ops[wire], Constant)
        return Operand(f"v{wire}_s{stage}" if late else f"v{wire}", self.circuit.ranges[wire])

    def _table(self, op: Lookup, result: Range) -> str:
        codes, width = width_of(self.circuit.ranges[op.x]), width_of(result)
        bounds = self.circuit.ranges[op.x]
        values = op.table[bounds.lo - op.first : bounds.hi - op.first + 1]
        key = (codes, bounds.lo, values, width)
        if key not in self.tables:
            self.tables[key] = f"t{len(self.tables)}"
            self.functions.append(_function(self.tables[key], codes, bounds.lo, values, width))
        return self.tables[key]


def _function(name: str, codes: int, first: int, values: Sequence[int], width: int) -> str:
    rows = ((code % (1 << codes), value) for code, value in enumerate(values, first))
    counts = Counter(values)
    common = min(counts, key=lambda value: (-counts[value], value))
    cases = [f"      {codes}'d{code}: {name} = {literal(width, v)};" for code, v in sorted(rows)]
    return "\n".join(
        [
            f"  function {vector(width)} {name};",
            f"    input {vector(codes)} code;",
            "    case (code)",
            *cases,
            f"      default: {name} = {literal(width, common)};",
            "    endcase",
            "  endfunction",
        ]
    )


def layout_module(
    name: str, block: Block, timing: Timing, sources: Sequence[Bus], stalls: bool
) -> str:
    """The module that lays out `<name>_one` for every instance of a block.

    Args:
        name: of the module.
        block: with several instances.
        timing: the stages of an instance.
        sources: the buses it reads.
        stalls: whether registers have a clock enable.
    """
    bits = sum(bus.width for bus in sources)
    held = [(Bus("x", bus.size, bus.type), low) for bus, low in stacked(sources)]
    widths = [width_of(bounds) for bounds in block.circuit.inputs]
    step = len(block.circuit.outputs) * block.bus.width
    clock = clock_of(timing, stalls)
    ports = [f"input  wire {port}" for port in clock]
    ports += [
        f"input  wire {vector(bits)} x",
        f"output wire {vector(block.size * block.bus.width)} y",
    ]
    pins = "".join(f".{port}({port}), " for port in clock)
    lines = []
    for place, row in enumerate(block.index):
        x = concatenation(gather(held, row, numbers_of(block), widths), "    ")
        y = f"y[{(place + 1) * step - 1}:{place * step}]"
        lines.append(f"  {name}_one at{place} ({pins}.x({x}), .y({y}));")
    return module(name, ports, lines)


def numbers_of(block: Block) -> tuple[int, ...]:
    """What a block's index may pick behind the elements of its sources."""
    return (*block.constants, block.fill)


def stacked(sources: Sequence[Bus]) -> list[tuple[Bus, int]]:
    """Elements of buses that lie one behind the other in one vector."""
    found, start = [], 0
    for bus in sources:
        found += [(bus, start + low) for _, low in elements_of([bus])]
        start += bus.width
    return found


def clock_of(timing: Timing, stalls: bool) -> list[str]:
    """The ports that a circuit's registers need."""
    if not timing.registers:
        return []
    return ["clk", "ce"] if stalls else ["clk"]


def module(name: str, ports: Sequence[str], lines: Sequence[str]) -> str:
    """A module of port declarations and other lines."""
    head = ",\n".join(f"  {port}" for port in ports)
    return "\n".join([f"module {name} (", head, ");", *lines, "endmodule", ""])
