"""A block whose circuit goes through its places step by step.

    module NAME (clk, ce, start, x, y);             ce only in designs that can stall
      held       x, taken when start is high, kept for all steps
      step       0 in the cycle behind start, then up to STEPS - 1, where it stays
      x<c>       what copy c reads: the inputs of place step * COPIES + c, the last place's beyond
      NAME_one at<c>                                the circuit, p stages deep
      step_d<k>  step, k cycles later
      y          results, one step's places at a time, taken p cycles behind their step

All of y stands STEPS + 1 + p cycles behind start, and until the first results of the next sample
arrive, at least in one cycle. What runs on behind the last step writes the same results again.
"""

from __future__ import annotations

from collections.abc import Sequence

from hqc.backends.rtl.circuit import width_of
from hqc.backends.rtl.design import Block
from hqc.backends.rtl.emission.expressions import concatenate, literal
from hqc.backends.rtl.emission.timing import Timing
from hqc.backends.rtl.emission.verilog import clock_of, module, numbers_of, stacked, vector
from hqc.backends.rtl.emission.wiring import Bus, concatenation, gather


def register_bits(block: Block, timing: Timing, sources: Sequence[Bus], steps: int) -> int:
    """Bits of all registers of the block."""
    copies = -(-len(block.index) // steps)
    held = sum(bus.width for bus in sources)
    counters = _bits(steps) * (1 + timing.last - timing.first)
    return held + counters + copies * timing.registers + block.size * block.bus.width


def sequenced_module(
    name: str, block: Block, timing: Timing, sources: Sequence[Bus], steps: int, stalls: bool
) -> str:
    """The module that runs `<name>_one` step by step.

    Args:
        name: of the module.
        block: with several instances.
        timing: stages of the circuit, the inputs of step 0 standing in the first one.
        sources: the buses it reads.
        steps: cycles it takes, 2 or more.
        stalls: whether registers have a clock enable.
    """
    enable = "if (ce) " if stalls else ""
    held, size = sum(bus.width for bus in sources), block.size * block.bus.width
    count = vector(_bits(steps))
    ports = ["input  wire clk", *(["input  wire ce"] if stalls else []), "input  wire start"]
    ports += [f"input  wire {vector(held)} x", f"output wire {vector(size)} y"]
    last, none, one = (literal(_bits(steps), value) for value in (steps - 1, 0, 1))
    lines = [
        f"  reg {vector(held)} held; always @(posedge clk) {enable}if (start) held <= x;",
        f"  reg {count} step; always @(posedge clk) {enable}if (start) step <= {none};",
        f"    else if (step != {last}) step <= step + {one};",
    ]
    done = "step"
    for depth in range(1, 1 + timing.last - timing.first):
        before, done = done, f"step_d{depth}"
        lines.append(f"  reg {count} {done}; always @(posedge clk) {enable}{done} <= {before};")
    pins = "".join(f".{port}({port}), " for port in clock_of(timing, stalls))
    elements = [(Bus("held", bus.size, bus.type), low) for bus, low in stacked(sources)]
    for copy in range(-(-len(block.index) // steps)):
        lines += _copy(name, block, elements, steps, copy, pins)
    lines += _results(block, steps, done, enable)
    return module(name, ports, lines)


def _bits(steps: int) -> int:
    return (steps - 1).bit_length()


def _copy(
    name: str, block: Block, elements: list[tuple[Bus, int]], steps: int, copy: int, pins: str
) -> list[str]:
    """What one copy reads in each step, and the copy."""
    copies, places = -(-len(block.index) // steps), len(block.index)
    widths = [width_of(bounds) for bounds in block.circuit.inputs]
    rows = []
    for step in range(steps):
        row = block.index[min(step * copies + copy, places - 1)]
        picked = concatenation(gather(elements, row, numbers_of(block), widths), "        ")
        label = "default" if step == steps - 1 else literal(_bits(steps), step)
        rows.append(f"      {label}: x{copy} = {picked};")
    bits = len(block.circuit.outputs) * block.bus.width
    return [
        f"  reg {vector(sum(widths))} x{copy};",
        "  always @*",
        "    case (step)",
        *rows,
        "    endcase",
        f"  wire {vector(bits)} y{copy};",
        f"  {name}_one at{copy} ({pins}.x(x{copy}), .y(y{copy}));",
    ]


def _results(block: Block, steps: int, done: str, enable: str) -> list[str]:
    """The registers of the results."""
    copies, places = -(-len(block.index) // steps), len(block.index)
    width = len(block.circuit.outputs) * block.bus.width
    rows = []
    for step in range(steps):
        first, end = step * copies, min((step + 1) * copies, places)
        made = concatenate([f"y{copy}" for copy in reversed(range(end - first))])
        label = "default" if step == steps - 1 else literal(_bits(steps), step)
        rows.append(f"      {label}: results[{end * width - 1}:{first * width}] <= {made};")
    return [
        f"  reg {vector(places * width)} results;",
        f"  always @(posedge clk) {enable}".rstrip(),
        f"    case ({done})",
        *rows,
        "    endcase",
        "  assign y = results;",
    ]
