"""The top module: it lays out the blocks, delays what bypasses some of them, and counts validity.

Interfaces (`clk`, `rst` synchronous and active high, it clears the valid bits and nothing else):

- "fixed": inputs that stand with `in_valid` leave as outputs with `out_valid`, `latency` cycles
  later, one sample each cycle;
- with an initiation interval above 1, a sample enters when `in_valid && in_ready`;
- "handshake": a sample enters when `in_valid && in_ready`, leaves when `out_valid && out_ready`;
  while `out_valid && !out_ready` every register holds.

What bypasses blocks goes through ranks of registers, one per stage; with an initiation interval
of R one rank holds a sample for R stages, loaded when the sample stands in front of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hqc.backends.rtl.circuit import Input, width_of
from hqc.backends.rtl.design import Block, Design
from hqc.backends.rtl.emission.expressions import literal
from hqc.backends.rtl.emission.names import Names, comment
from hqc.backends.rtl.emission.schedule import Schedule
from hqc.backends.rtl.emission.verilog import has_logic, numbers_of, vector
from hqc.backends.rtl.emission.wiring import Bus, concatenation, elements_of, gather
from hqc.numerics.types import FixedType

_RESERVED = (
    *("clk", "rst", "ce", "valid", "rest", "taken"),
    *("in_valid", "in_ready", "out_valid", "out_ready"),
)


@dataclass(frozen=True)
class Output:
    """An output port: the block it shows, its wanted name and the type of its elements."""

    block: str
    name: str
    type: FixedType


@dataclass(frozen=True, eq=False)
class TopNames:
    """Names that other files also speak of.

    Attributes:
        top: the top module.
        modules: by block; blocks that are only wires have none.
        inputs, outputs: Verilog names of the ports, in order.
    """

    top: str
    modules: dict[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def top_names(design: Design, project: str, outputs: Sequence[Output]) -> TopNames:
    """Legal and unique names for a project."""
    modules = Names()
    top = modules.new(project)
    found = {}
    for block in design.blocks:
        if has_logic(block):
            found[block.name] = modules.new(f"{top}_{block.name}")
            if len(block.index) > 1:
                modules.new(f"{found[block.name]}_one")
    ports = Names(_RESERVED)
    ins = tuple(ports.new(port.name) for port in design.inputs)
    return TopNames(top, found, ins, tuple(ports.new(output.name) for output in outputs))


def top_module(
    design: Design, schedule: Schedule, names: TopNames, outputs: Sequence[Output], stalls: bool
) -> str:
    """The top module's text; `stalls` chooses the handshake."""
    return _Top(design, schedule, names, outputs, stalls).text()


@dataclass
class _Top:
    design: Design
    schedule: Schedule
    names: TopNames
    outputs: Sequence[Output]
    stalls: bool

    def __post_init__(self) -> None:
        self.shared = self.schedule.interval > 1
        self.enable = "if (ce) " if self.stalls else ""
        self.signals = Names((*_RESERVED, *self.names.inputs, *self.names.outputs))
        self.buses: dict[tuple[str, int], Bus] = {}  # by name and stage

    def text(self) -> str:
        """The module."""
        lines = self._control()
        for port, name in zip(self.design.inputs, self.names.inputs, strict=True):
            lines += self._delayed(port.name, Bus(name, port.size, port.type), name, 0)
        for block in self.design.blocks:
            lines += self._block(block)
        for output, name in zip(self.outputs, self.names.outputs, strict=True):
            bus = self.buses[output.block, self.schedule.latency]
            lines.append(f"  assign {name} = {_resized(bus, output.type.width)};")
        ports = ",\n".join(f"  {port}" for port in self._ports())
        return "\n".join([f"module {self.names.top} (", ports, ");", *lines, "endmodule", ""])

    def _ports(self) -> list[str]:
        ports = ["input  wire clk", "input  wire rst", "input  wire in_valid"]
        ports += ["output wire in_ready"] if self.stalls or self.shared else []
        for port, name in zip(self.design.inputs, self.names.inputs, strict=True):
            ports.append(f"input  wire {vector(port.size * port.type.width)} {name}")
        ports += ["output wire out_valid"]
        ports += ["input  wire out_ready"] if self.stalls else []
        for output, name in zip(self.outputs, self.names.outputs, strict=True):
            size = self.design.of(output.block).size
            ports.append(f"output wire {vector(size * output.type.width)} {name}")
        return ports

    def _control(self) -> list[str]:
        stages = self.schedule.latency
        taken = self._valid(0)
        shifted = f"{{valid[{stages - 2}:0], {taken}}}" if stages > 1 else taken
        lines = [
            f"  reg {vector(stages)} valid; // bit k: what stands in stage k + 1 is a sample",
            f"  assign out_valid = valid[{stages - 1}];",
        ]
        lines += ["  wire ce = out_ready | ~out_valid;"] if self.stalls else []
        if self.shared:
            lines += self._interval()
        elif self.stalls:
            lines.append("  assign in_ready = ce;")
        return [
            *lines,
            f"  always @(posedge clk) if (rst) valid <= {stages}'d0;",
            f"    else {self.enable}valid <= {shifted};",
        ]

    def _interval(self) -> list[str]:
        """Count the cycles until the next sample may enter."""
        cycles = self.schedule.interval
        bits = (cycles - 1).bit_length()
        none, most, one = (literal(bits, value) for value in (0, cycles - 1, 1))
        return [
            f"  reg {vector(bits)} rest; // cycles until the next sample may enter",
            f"  assign in_ready = {'ce & ' if self.stalls else ''}(rest == {none});",
            "  wire taken = in_valid & in_ready;",
            f"  always @(posedge clk) if (rst) rest <= {none};",
            f"    else if (taken) rest <= {most};",
            f"    else if ({'ce & ' if self.stalls else ''}(rest != {none})) rest <= rest - {one};",
        ]

    def _valid(self, stage: int) -> str:
        """Whether a sample stands in a stage."""
        if stage > 0:
            return f"valid[{stage - 1}]"
        return "taken" if self.shared else "in_valid"

    def _block(self, block: Block) -> list[str]:
        bus = block.bus
        enter, leave = self.schedule.enter[block.name], self.schedule.leave[block.name]
        sources = [self.buses[name, enter] for name in block.sources]
        result = Bus(self.signals.new(f"{block.name}_y"), block.size, bus)
        node = f" {comment(str(block.where.node))}" if block.where.node else ""
        lines = [f"  // {block.name}: {block.kind}{node}, stages {enter} to {leave}"]
        declared = f"  wire {vector(result.width)} {result.name}"
        if has_logic(block):
            x = self.signals.new(f"{block.name}_x")
            lines += [*self._inputs(block, x, sources), f"{declared};"]
            lines.append(self._instance(block, x, result))
        else:
            widths = [bus.width] * block.size
            ops = [block.circuit.ops[wire] for wire in block.circuit.outputs]
            index = block.index[:, [op.index for op in ops if isinstance(op, Input)]]
            picked = gather(elements_of(sources), index.reshape(-1), numbers_of(block), widths)
            lines.append(f"{declared} = {concatenation(picked, '    ')};")
        return lines + self._delayed(block.name, result, block.name, leave)

    def _inputs(self, block: Block, x: str, sources: Sequence[Bus]) -> list[str]:
        """The wire in front of a block's module."""
        ranges = block.circuit.inputs
        if not ranges:
            return []
        if len(block.index) > 1:
            width = sum(source.width for source in sources)
            names = ", ".join(source.name for source in reversed(sources))
            text = f"{{{names}}}" if len(sources) > 1 else names
        else:
            widths = [width_of(bounds) for bounds in ranges]
            width = sum(widths)
            picked = gather(elements_of(sources), block.index[0], numbers_of(block), widths)
            text = concatenation(picked, "    ")
        return [f"  wire {vector(width)} {x} = {text};"]

    def _instance(self, block: Block, x: str, result: Bus) -> str:
        module, name = self.names.modules[block.name], self.signals.new(f"u_{block.name}")
        pins = []
        steps = self.schedule.steps[block.name]
        if steps > 1 or self.schedule.blocks[block.name].registers:
            pins += [".clk(clk)", ".ce(ce)"] if self.stalls else [".clk(clk)"]
        if steps > 1:
            pins.append(f".start({self._valid(self.schedule.enter[block.name])})")
        pins += [f".x({x})"] if block.circuit.inputs else []
        return f"  {module} {name} ({', '.join([*pins, f'.y({result.name})'])});"

    def _delayed(self, part: str, bus: Bus, base: str, stage: int) -> list[str]:
        """Registers that carry a bus from its stage to the last one in which it is read."""
        self.buses[part, stage] = bus
        lines = []
        until = self.schedule.until[part]
        for later in range(stage + 1, until + 1, self.schedule.interval):
            before, name = bus.name, self.signals.new(f"{base}_s{later}")
            bus = Bus(name, bus.size, bus.type)
            for held in range(later, min(later + self.schedule.interval, until + 1)):
                self.buses[part, held] = bus
            change = f"always @(posedge clk) {self._load(later - 1)}{name} <= {before};"
            lines.append(f"  reg {vector(bus.width)} {name}; {change}")
        return lines

    def _load(self, stage: int) -> str:
        """When a register takes what stands in a stage."""
        if not self.shared:
            return self.enable
        return f"if ({'ce & ' if self.stalls else ''}{self._valid(stage)}) "


def _resized(bus: Bus, width: int) -> str:
    """The elements of a bus at another width."""
    if width == bus.type.width:
        return bus.name
    picked = gather(elements_of([bus]), np.arange(bus.size), [], [width] * bus.size)
    return concatenation(picked, "    ")
