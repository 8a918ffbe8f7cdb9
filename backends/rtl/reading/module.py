"""A circuit's module, and one that lays a circuit out, from their text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hqc.backends.rtl.circuit import Circuit, Input, Op, Wire, Wrap, bounds_of, held_by
from hqc.backends.rtl.reading import terms
from hqc.backends.rtl.reading.bits import bits_of
from hqc.backends.rtl.reading.ops import operation
from hqc.backends.rtl.reading.terms import Malformed, Term, as_slice, cat
from hqc.backends.rtl.reading.text import Module, Statement
from hqc.numerics.types import Codes, FixedType, Range

#: Ports that carry no data.
_CLOCK = ("clk", "ce")


@dataclass(frozen=True)
class Pin:
    """An input of a circuit as bits of its module's x."""

    low: int
    width: int
    signed: bool


@dataclass(frozen=True, eq=False)
class Logic:
    """A circuit's module.

    Attributes:
        circuit: input i is the element that pin i shows, whose range the one who lays it out
            knows (`of`); outputs are of the bus's type.
        pins: where the inputs stand in x.
        depth: registers between x and y; None if y is constant.
        places: file and line of each wire.
        clock: the clock ports it has.
    """

    circuit: Circuit
    pins: tuple[Pin, ...]
    depth: int | None
    places: Mapping[Wire, str]
    clock: tuple[str, ...]

    def of(self, inputs: Sequence[Range]) -> Circuit:
        """The circuit, with what its inputs can be."""
        ranges = [
            inputs[op.index] if isinstance(op, Input) else bounds
            for op, bounds in zip(self.circuit.ops, self.circuit.ranges, strict=True)
        ]
        return Circuit(self.circuit.ops, tuple(ranges), self.circuit.outputs)


def read_logic(module: Module, bus: FixedType, stalls: bool) -> Logic:
    """Read a circuit's module.

    Args:
        module: as `verilog.circuit_module` writes it.
        bus: the type of an element of y.
        stalls: whether every register must have the clock enable.

    Raises:
        HqcError: HQC425, it is not as hqc writes it.
    """
    return _Reader(module, bus, stalls).run()


def clocked(module: Module, registers: bool, stalls: bool) -> tuple[str, ...]:
    """The clock ports of a module, which has those it needs and no others but x and y.

    Raises:
        HqcError: HQC425, it has others.
    """
    want = ("clk", "ce") if stalls else ("clk",)
    found = tuple(name for name in module.inputs if name != "x")
    if found != (want if registers else ()) or list(module.outputs) != ["y"]:
        raise module.reject(f"its ports are {', '.join([*module.inputs, *module.outputs])}")
    if any(module.inputs[name] != 1 for name in found):
        raise module.reject("a clock of more than one bit")
    return found


@dataclass
class _Reader:
    module: Module
    bus: FixedType
    stalls: bool
    ops: list[Op] = field(default_factory=list)
    ranges: list[Range] = field(default_factory=list)
    signals: dict[str, terms.Signal] = field(default_factory=dict)
    pins: list[Pin] = field(default_factory=list)
    places: dict[Wire, str] = field(default_factory=dict)
    waiting: tuple[str, int, bool] | None = None
    result: tuple[tuple[Wire, ...], int | None] | None = None
    registers: int = 0
    used: list[terms.Signal] = field(default_factory=list)

    def run(self) -> Logic:
        for statement in self.module.statements:
            try:
                self._statement(statement)
            except Malformed as reason:
                raise statement.reject(f"{reason}: {statement.text}") from None
        if self.result is None or self.waiting is not None:
            raise self.module.reject("it has no result")
        outputs, depth = self.result
        clock = clocked(self.module, self.registers > 0, self.stalls)
        circuit = Circuit(tuple(self.ops), tuple(self.ranges), outputs)
        return Logic(circuit, tuple(self.pins), depth, self.places, clock)

    def _statement(self, statement: Statement) -> None:
        if self.waiting is not None and statement.kind != "always":
            raise Malformed(f"{self.waiting[0]} is never driven")
        match statement.kind:
            case "wire":
                self._wire(statement)
            case "reg":
                self._register(statement)
            case "always":
                self._delay(statement)
            case "assign":
                self._assign(statement)
            case _:
                raise Malformed("no statement of a circuit")

    # --- wires --------------------------------------------------------------------------------

    def _wire(self, statement: Statement) -> None:
        sign, high, low, name, tree = statement.parts
        signed, width = _declared(sign, high, low)
        if tree[0] in ("slice", "bit", "name") and tree[1] == "x":
            wire, stage = self._input(tree, width, signed), 0
        else:
            term, stage_ = self._term(tree)
            _check_width(term, width)
            wire = self._add(operation(term, signed, self._emit), held_by(width, signed))
            stage = stage_ if stage_ is not None else -1
        self.places[wire] = statement.place
        self._name(name, terms.Signal(wire, width, signed, stage if stage >= 0 else None))

    def _input(self, tree: tuple[Any, ...], width: int, signed: bool) -> Wire:
        """An element of x, as many bits of it as are there, read as the wire says."""
        low, bits = terms.span_of(*tree[1:], width=self.module.inputs.get("x", 0))
        if bits != width:
            raise Malformed(f"{bits} bits drive {width}")
        self.pins.append(Pin(low, width, signed))
        whole = self._add(Input(len(self.pins) - 1), held_by(width, signed))
        return self._add(Wrap(whole, width, signed), held_by(width, signed))

    def _term(self, tree: tuple[Any, ...]) -> tuple[Term, int | None]:
        """An expression and the stage of everything it reads; None if that is constant."""
        self.used = []
        term = terms.typed(tree, self._signal, self.module.tables)
        return term, stage_of(signal.stage for signal in self.used)

    def _signal(self, name: str) -> terms.Signal:
        if name not in self.signals:
            raise Malformed(f"{name} is not known here")
        self.used.append(self.signals[name])
        return self.signals[name]

    def _name(self, name: str, signal: terms.Signal) -> None:
        taken = self.signals | self.module.inputs | self.module.outputs | self.module.tables
        if name in taken:
            raise Malformed(f"{name} has two drivers")
        self.signals[name] = signal

    def _add(self, op: Op, bounds: Range) -> Wire:
        self.ops.append(op)
        self.ranges.append(bounds)
        return len(self.ops) - 1

    def _emit(self, op: Op) -> Wire:
        return self._add(op, bounds_of(op, self.ranges))

    # --- registers ----------------------------------------------------------------------------

    def _register(self, statement: Statement) -> None:
        sign, high, low, name = statement.parts
        signed, width = _declared(sign, high, low)
        self.waiting = (name, width, signed)

    def _delay(self, statement: Statement) -> None:
        name, source = register_of(statement, self.waiting and self.waiting[0], self.stalls)
        before = self._signal(source)
        if self.waiting != (name, before.width, before.signed):
            raise Malformed("a register of another type than what it holds")
        stage = None if before.stage is None else before.stage + 1
        self._name(name, replace(before, stage=stage))
        self.waiting = None
        self.registers += 1

    # --- the result ---------------------------------------------------------------------------

    def _assign(self, statement: Statement) -> None:
        name, tree = statement.parts
        if name != "y" or self.result is not None:
            raise Malformed("an assignment to something else than y, or the second one")
        term, stage = self._term(tree)
        _check_width(term, self.module.outputs.get("y", 0))
        bounds = held_by(self.bus.width, self.bus.signed)
        outputs = []
        for part in _elements(term, self.bus.width):
            op = Wrap(part.signal.wire, self.bus.width, self.bus.signed)
            outputs.append(self._add(op, bounds))
            self.places[outputs[-1]] = statement.place
        self.result = tuple(outputs), stage


def _declared(sign: tuple[Any, ...], high: int, low: int) -> tuple[bool, int]:
    """Whether a vector is signed, and its width."""
    if low or high >= terms.WIDEST:
        raise Malformed("a vector that does not begin at bit 0, or is too wide")
    return sign[1] is not None, int(high) + 1


def _check_width(term: Term, width: int) -> None:
    if term.width != width:
        raise Malformed(f"{term.width} bits drive {width}")


def _elements(term: Term, width: int) -> list[terms.Slice]:
    """The elements of a result, the first one lowest, each the low bits of a wire."""
    parts = list(term.parts) if isinstance(term, terms.Cat) else [term]
    found: list[terms.Slice] = []
    while parts:
        taken = [parts.pop()]
        while sum(part.width for part in taken) < width and parts:
            taken.insert(0, parts.pop())
        total = sum(part.width for part in taken)
        held = as_slice(cat(taken))
        if total != width or held is None or held.low:
            raise Malformed(f"results that are not wires of {width} bits")
        found.append(held)
    return found


# --- layouts ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Layout:
    """A module that lays out another one.

    Attributes:
        one: the name of that module.
        pins: (instances, bits of its x): which bits of x stand there.
        clock: the clock ports it has.
    """

    one: str
    pins: Codes
    clock: tuple[str, ...]


def read_layout(module: Module, step: int, stalls: bool) -> Layout:
    """Read a module of instances.

    Args:
        module: as `verilog.layout_module` writes it.
        step: bits of the result of one instance.
        stalls: whether registers have the clock enable.

    Raises:
        HqcError: HQC425, it is not as hqc writes it.
    """
    vectors = {"x": (0, module.inputs["x"])} if "x" in module.inputs else {}
    rows: list[Codes] = []
    ones, names, clocks = set(), set(), set()
    for statement in module.statements:
        try:
            one, name, pins = instance_of(statement)
            clock = tuple(pin for pin in _CLOCK if pin in pins)
            y = as_slice(terms.typed(pins["y"], _vectors(module.outputs), {}))
            place = len(rows) * step
            if y is None or (y.low, y.width) != (place, step) or set(pins) - {"x", "y", *clock}:
                raise Malformed("the result does not go to the next place of y")
            if any(pins[pin] != ("name", pin) for pin in clock) or name in names:
                raise Malformed("a pin of another clock, or two instances of one name")
            rows.append(bits_of(pins["x"], vectors) if "x" in pins else np.zeros(0, int))
        except Malformed as reason:
            raise statement.reject(f"{reason}: {statement.text}") from None
        ones.add(one)
        names.add(name)
        clocks.add(clock)
    if len(ones) != 1 or len(clocks) != 1 or len({len(row) for row in rows}) != 1:
        raise module.reject("its instances are not all alike")
    if module.outputs.get("y") != len(rows) * step:
        raise module.reject("its instances do not fill y")
    (clock,) = clocks
    return Layout(ones.pop(), np.stack(rows), clocked(module, bool(clock), stalls))


def register_of(statement: Statement, declared: str | None, stalls: bool) -> tuple[str, str]:
    """The name of a register, and of what it holds.

    Raises:
        Malformed: it is not the declared one, or has another clock; enabled where it `stalls`.
    """
    clock, (_, enable), name, source = statement.parts
    if declared != name:
        raise Malformed("a register that is not declared in front of it")
    if clock != "clk" or enable != ("ce" if stalls else None):
        raise Malformed("a register of another clock or clock enable")
    return name, source


def stage_of(stages: Iterable[int | None]) -> int | None:
    """The one stage of all that an expression reads; None if that is constant; else Malformed."""
    found = sorted({stage for stage in stages if stage is not None})
    if len(found) > 1:
        raise Malformed(f"it mixes the stages {found}")
    return found[0] if found else None


def instance_of(statement: Statement) -> tuple[str, str, dict[str, Any]]:
    """Module, name and pins of an instance.

    Raises:
        Malformed: it is none.
    """
    if statement.kind != "instance":
        raise Malformed("no instance")
    one, name, *pins = statement.parts
    found = {pin: tree for _, pin, tree in pins}
    if len(found) != len(pins) or "y" not in found:
        raise Malformed("pins that are connected twice, or no y")
    return one, name, found


def _vectors(widths: Mapping[str, int]) -> Any:
    """Ports as signals."""

    def signal(name: str) -> terms.Signal:
        if name not in widths:
            raise Malformed(f"{name} is not known here")
        return terms.Signal(-1, widths[name], False, None)

    return signal
