"""The top module of a project: its blocks, what they read, and how many registers lie between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hqc.backends.rtl.circuit import Circuit, Input, Wire, Wrap
from hqc.backends.rtl.design import Block, Port
from hqc.backends.rtl.reading.bits import Span, bits_of
from hqc.backends.rtl.reading.module import (
    Logic,
    instance_of,
    read_layout,
    read_logic,
    register_of,
    stage_of,
)
from hqc.backends.rtl.reading.parts import Parts, held
from hqc.backends.rtl.reading.terms import Malformed
from hqc.backends.rtl.reading.text import Module, Statement
from hqc.diagnostics import reject
from hqc.numerics.types import Codes, FixedType


@dataclass(frozen=True)
class Named:
    """A block as `rtl.json` names it: its module ("" for wires), its bus and its type."""

    name: str
    kind: str
    module: str
    bus: FixedType
    type: FixedType


@dataclass(frozen=True, eq=False)
class Top:
    """What the top module says: blocks, the block of each output, and where wires stand."""

    blocks: tuple[Block, ...]
    outputs: tuple[str, ...]
    places: Mapping[tuple[str, Wire], str]


def read_top(
    modules: Mapping[str, Module],
    name: str,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    blocks: Sequence[Named],
    latency: int,
    stalls: bool,
) -> Top:
    """Read the top module and the modules of its blocks.

    Args:
        modules: of the project, by name.
        name: of the top.
        inputs, outputs: its ports.
        blocks: in the order in which they stand in it.
        latency, stalls: of the interface.

    Raises:
        HqcError: HQC425, something is not as hqc writes it.
    """
    if name not in modules:
        raise reject("HQC425", f"rtl/{name}.v has no module {name}")
    reader = _Top(modules, modules[name], list(blocks), latency, stalls)
    return reader.run(inputs, outputs)


@dataclass(frozen=True)
class _Bus:
    """A vector of elements.

    Attributes:
        part: the port or block whose elements they are.
        span: its bits, of the numbering of all elements.
        stage: registers between the ports and it; None for constants.
    """

    part: str
    span: Span
    stage: int | None


@dataclass(frozen=True, eq=False)
class _Picked:
    """What an expression shows: its bits, and the stage of everything in it."""

    bits: Codes
    stage: int | None


@dataclass
class _Top:
    modules: Mapping[str, Module]
    module: Module
    waiting: list[Named]
    latency: int
    stalls: bool
    parts: Parts = field(default_factory=Parts)
    buses: dict[str, _Bus] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    picked: dict[str, _Picked] = field(default_factory=dict)
    declared: dict[str, int] = field(default_factory=dict)
    register: tuple[str, int] | None = None
    outputs: dict[str, str] = field(default_factory=dict)
    places: dict[tuple[str, Wire], str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)

    def run(self, inputs: Sequence[Port], outputs: Sequence[Port]) -> Top:
        self._check_ports(inputs, outputs)
        for port in inputs:
            self._part(port.name, port.size, port.type, port.name, 0)
        types = {port.name: port for port in outputs}
        for statement in self.module.statements[self._control() :]:
            try:
                self._statement(statement, types)
            except Malformed as reason:
                raise statement.reject(f"{reason}: {statement.text[:200]}") from None
        if self.waiting or self.declared or self.register or set(self.outputs) != set(types):
            raise self.module.reject("blocks or outputs are missing")
        unused = set(self.modules) - self.used - {self.module.name}
        if unused:
            raise self.module.reject(f"it has no instance of {', '.join(sorted(unused))}")
        shown = tuple(self.outputs[port.name] for port in outputs)
        return Top(tuple(self.blocks), shown, self.places)

    # --- the interface --------------------------------------------------------------------------

    def _check_ports(self, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
        ins = {"clk": 1, "rst": 1, "in_valid": 1}
        ins |= {port.name: port.size * port.type.width for port in inputs}
        outs = {"in_ready": 1} if self.stalls else {}
        outs |= {"out_valid": 1}
        outs |= {port.name: port.size * port.type.width for port in outputs}
        ins |= {"out_ready": 1} if self.stalls else {}
        if (self.module.inputs, self.module.outputs) != (ins, outs):
            raise self.module.reject("its ports are not those in rtl.json")
        self.names |= {*ins, *outs, "ce", "valid", *self.modules}

    def _control(self) -> int:
        """Check the statements that count validity; how many they are."""
        last = self.latency - 1
        shifted = f"{{valid[{last - 1}:0], in_valid}}" if last else "in_valid"
        stalls = ["wire ce = out_ready | ~out_valid", "assign in_ready = ce"]
        want = [
            f"reg [{last}:0] valid",
            f"assign out_valid = valid[{last}]",
            *(stalls if self.stalls else []),
            f"always @(posedge clk) if (rst) valid <= {last + 1}'d0",
            f"else {'if (ce) ' if self.stalls else ''}valid <= {shifted}",
        ]
        got = self.module.statements[: len(want)]
        for statement, text in zip(got, want, strict=False):
            if statement.text != text:
                raise statement.reject(f"{statement.text!r}, where {text!r} counts validity")
        if len(got) < len(want) or self.latency < 1:
            raise self.module.reject("nothing counts validity")
        return len(want)

    # --- statements -----------------------------------------------------------------------------

    def _statement(self, statement: Statement, outputs: Mapping[str, Port]) -> None:
        if self.register is not None and statement.kind != "always":
            raise Malformed(f"{self.register[0]} is never driven")
        match statement.kind:
            case "wire":
                self._wire(statement)
            case "declared":
                sign, high, low, name = statement.parts
                self._new(name)
                self.declared[name] = self._width(sign, high, low)
            case "instance":
                self._instance(statement)
            case "reg":
                sign, high, low, name = statement.parts
                self._new(name)
                self.register = name, self._width(sign, high, low)
            case "always":
                self._delay(statement)
            case "assign":
                self._assign(statement, outputs)
            case _:
                raise Malformed("no statement of a top module")

    def _new(self, name: str) -> None:
        if name in self.names:
            raise Malformed(f"{name} has two drivers")
        self.names.add(name)

    def _width(self, sign: tuple[Any, ...], high: int, low: int) -> int:
        if low or sign[1] is not None:
            raise Malformed("a bus that does not begin at bit 0, or has a sign")
        return int(high) + 1

    def _wire(self, statement: Statement) -> None:
        """The wire in front of a module, or a block that is only wires."""
        sign, high, low, name, tree = statement.parts
        self._new(name)
        found = self._pick(tree)
        if len(found.bits) != self._width(sign, high, low):
            raise Malformed(f"{len(found.bits)} bits drive {high + 1}")
        if self.waiting and not self.waiting[0].module:
            self._wires(self.waiting.pop(0), name, found, statement)
        else:
            self.picked[name] = found

    def _pick(self, tree: tuple[Any, ...]) -> _Picked:
        used = [self.buses[name] for name in _names(tree) if name in self.buses]
        spans = {name: bus.span for name, bus in self.buses.items()}
        return _Picked(bits_of(tree, spans), stage_of(bus.stage for bus in used))

    def _delay(self, statement: Statement) -> None:
        name, source = register_of(statement, self.register and self.register[0], self.stalls)
        before = self.buses.get(source)
        if before is None:
            raise Malformed("a register of nothing")
        if self.register != (name, before.span[1]):
            raise Malformed("a register of another width than what it holds")
        stage = None if before.stage is None else before.stage + 1
        self.buses[name] = _Bus(before.part, before.span, stage)
        self.register = None

    def _assign(self, statement: Statement, outputs: Mapping[str, Port]) -> None:
        name, tree = statement.parts
        if name not in outputs or name in self.outputs:
            raise Malformed(f"{name} is no output port, or driven twice")
        port, found = outputs[name], self._pick(tree)
        index, fills = self._fields(found.bits, port.size, port.type)
        source = self.parts.owner(int(index[0]))
        first, size = self.parts.firsts[source], self.parts.sizes[source]
        if fills or not np.array_equal(index, np.arange(first, first + size)):
            raise Malformed("an output port that is not the elements of one block, in order")
        if found.stage not in (None, self.latency):
            raise Malformed(
                f"an output of stage {found.stage}, where the latency is {self.latency}"
            )
        self.outputs[name] = source

    def _part(self, name: str, size: int, type_: FixedType, bus: str, stage: int | None) -> None:
        self.buses[bus] = _Bus(name, self.parts.add(name, size, type_), stage)

    def _fields(self, bits: Codes, size: int, type_: FixedType) -> tuple[Codes, set[int]]:
        return self.parts.picked(bits.reshape(size, type_.width), type_.signed)

    # --- blocks -------------------------------------------------------------------------------

    def _wires(self, named: Named, name: str, found: _Picked, statement: Statement) -> None:
        """A block without a module."""
        width = named.bus.width
        if len(found.bits) % width:
            raise Malformed(f"a bus that is not made of elements of {width} bits")
        index, fills = self._fields(found.bits, len(found.bits) // width, named.bus)
        circuit = Circuit(
            (Input(0), Wrap(0, width, named.bus.signed)),
            (self.parts.hull(index, fills), held(named.bus)),
            (1,),
        )
        self.places[named.name, 1] = statement.place
        self._block(named, name, circuit, index.reshape(-1, 1), fills, found.stage)

    def _instance(self, statement: Statement) -> None:
        module, name, pins = instance_of(statement)
        self._new(name)
        if not self.waiting or self.waiting[0].module != module or module not in self.modules:
            raise Malformed(f"an instance of {module}, where another block comes next")
        named = self.waiting.pop(0)
        inner, outer = self.modules[module], named.module
        y = pins.pop("y")
        clock = {pin: tree for pin, tree in pins.items() if pin != "x"}
        x = pins.get("x", ("name", ""))
        if x[0] != "name" or y[0] != "name" or y[1] not in self.declared:
            raise Malformed("pins that are no wires of this module")
        found = self.picked.pop(x[1], None) if "x" in pins else _Picked(np.zeros(0, int), None)
        if found is None or any(tree != ("name", pin) for pin, tree in clock.items()):
            raise Malformed("pins that are no wires of this module")
        self.used.add(outer)
        logic, bits, ports = self._logic(inner, named, found.bits)
        widths = inner.inputs.get("x", 0), inner.outputs["y"]
        if widths != (len(found.bits), self.declared.pop(y[1])) or set(clock) != set(ports):
            raise Malformed("pins of other widths than the module's, or other clocks")
        self._lay_out(named, y[1], logic, bits, found.stage)

    def _logic(
        self, module: Module, named: Named, bits: Codes
    ) -> tuple[Logic, Codes, tuple[str, ...]]:
        """A block's circuit, the bits that each instance reads, and the block's clock ports."""
        if not any(statement.kind == "instance" for statement in module.statements):
            logic = read_logic(module, named.bus, self.stalls)
            return logic, bits[None], logic.clock
        one = self.modules.get(f"{module.name}_one")
        if one is None:
            raise module.reject(f"there is no {module.name}_one")
        self.used.add(one.name)
        layout = read_layout(module, one.outputs.get("y", 0), self.stalls)
        logic = read_logic(one, named.bus, self.stalls)
        if layout.one != one.name or layout.clock != logic.clock:
            raise module.reject("its instances are of another module, or of another clock")
        if layout.pins.shape[1] != one.inputs.get("x", 0):
            raise module.reject("its instances read other widths than their module has")
        whole = np.append(bits, [-2, -1])  # literals are -1 and -2: they stay
        return logic, whole[layout.pins], layout.clock

    def _lay_out(
        self, named: Named, name: str, logic: Logic, bits: Codes, stage: int | None
    ) -> None:
        index, fills, inputs = [], set(), []
        for pin in logic.pins:
            shown = bits[:, pin.low : pin.low + pin.width]
            column, found = self.parts.picked(shown, pin.signed)
            index.append(column)
            fills |= found
            inputs.append(self.parts.hull(column, found))
        rows = np.stack(index, axis=1) if index else np.zeros((len(bits), 0), np.int64)
        for wire, place in logic.places.items():
            self.places[named.name, wire] = place
        after = None if logic.depth is None else (stage or 0) + logic.depth
        self._block(named, name, logic.of(inputs), rows, fills, after)

    def _block(
        self,
        named: Named,
        bus: str,
        circuit: Circuit,
        elements: Codes,
        fills: set[int],
        stage: int | None,
    ) -> None:
        if len(fills) > 1:
            raise Malformed(f"{named.name} has more than one fill: {sorted(fills)}")
        sources = self.parts.owners(elements)
        index = self.parts.index(elements, sources)
        fill = next(iter(fills), 0)
        block = Block(named.name, named.kind, sources, circuit, index, named.type, fill)
        self.blocks.append(block)
        self._part(named.name, block.size, named.bus, bus, stage)


def _names(tree: Any) -> set[str]:
    """Names of vectors in an expression."""
    if not isinstance(tree, tuple) or not tree:
        return set()
    own = {tree[1]} if tree[0] in ("name", "bit", "slice") else set()
    return own.union(*(_names(part) for part in tree[1:]))
