"""The standard cells of sky130_fd_sc_hd that are characterised: pins, functions, timing arcs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LIBRARY = "sky130_fd_sc_hd"
#: Values of a cell's inputs.
State = Mapping[str, bool]


@dataclass(frozen=True)
class Cell:
    """A standard cell.

    Attributes:
        name: without the library's name, such as "nand2_1".
        inputs: pins; a flip-flop's are CLK and D.
        outputs: pins and their functions, in Liberty's words; of a flip-flop, of its state.
        load: the largest load of the tables, in picofarads.
        flip_flop: whether it is one, of the rising edge of CLK.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, str], ...]
    load: float = 0.16
    flip_flop: bool = False

    @property
    def base(self) -> str:
        """The name without the drive strength."""
        return self.name.rpartition("_")[0]

    @property
    def full_name(self) -> str:
        """As netlists call it."""
        return f"{LIBRARY}__{self.name}"

    @property
    def is_tie(self) -> bool:
        """Whether it has no inputs, and so no timing."""
        return not self.inputs


@dataclass(frozen=True)
class Arc:
    """A way from an input to an output, while the other inputs stand still.

    Attributes:
        source, target: pins.
        rising: whether a rising source makes the target rise.
        others: values of the other inputs.
    """

    source: str
    target: str
    rising: bool
    others: tuple[tuple[str, bool], ...]

    @property
    def sense(self) -> str:
        """Liberty's word."""
        return "positive_unate" if self.rising else "negative_unate"


def evaluate(function: str, state: State) -> bool:
    """The value of a function of `!`, `&`, `|`, `^`, brackets, 0 and 1.

    Raises:
        ValueError: it is not such a function.
    """
    tokens = re.findall(r"[A-Za-z]\w*|[!&|^()01]", function)
    if "".join(tokens) != function.replace(" ", ""):
        raise ValueError(f"not a function: {function!r}")
    value, rest = _either(tokens, state)
    if rest:
        raise ValueError(f"not a function: {function!r}")
    return value


def _either(tokens: list[str], state: State) -> tuple[bool, list[str]]:
    value, tokens = _both(tokens, state)
    while tokens and tokens[0] in "|^":
        symbol = tokens[0]
        right, tokens = _both(tokens[1:], state)
        value = value != right if symbol == "^" else value or right
    return value, tokens


def _both(tokens: list[str], state: State) -> tuple[bool, list[str]]:
    value, tokens = _one(tokens, state)
    while tokens and tokens[0] == "&":
        right, tokens = _one(tokens[1:], state)
        value = value and right
    return value, tokens


def _one(tokens: list[str], state: State) -> tuple[bool, list[str]]:
    if not tokens:
        raise ValueError("a function ends too early")
    first, rest = tokens[0], tokens[1:]
    if first == "!":
        value, rest = _one(rest, state)
        return not value, rest
    if first == "(":
        value, rest = _either(rest, state)
        if not rest or rest[0] != ")":
            raise ValueError("a bracket is not closed")
        return value, rest[1:]
    return (first == "1" if first in "01" else state[first]), rest


def arcs_of(cell: Cell) -> list[Arc]:
    """All arcs of a cell without state, one for each state of the other inputs."""
    found = []
    for (target, function), source in itertools.product(cell.outputs, cell.inputs):
        others = [pin for pin in cell.inputs if pin != source]
        for values in itertools.product((False, True), repeat=len(others)):
            still = tuple(zip(others, values, strict=True))
            low, high = (evaluate(function, {**dict(still), source: v}) for v in (False, True))
            if low != high:
                found.append(Arc(source, target, high, still))
    return found


def _gate(names: str, inputs: str, output: str, function: str, load: float = 0.16) -> list[Cell]:
    pins = tuple(inputs.split())
    cells = []
    for name in names.split():
        drive = max(1, int(name.rpartition("_")[2]))
        cells.append(Cell(name, pins, ((output, function),), round(load * drive, 6)))
    return cells


#: All that are known; the order is the one of the file.
CELLS: tuple[Cell, ...] = (
    *_gate("inv_1 inv_2 inv_4", "A", "Y", "!A"),
    *_gate("buf_1 buf_2 buf_4", "A", "X", "A"),
    *_gate("nand2_1 nand2_2", "A B", "Y", "!(A&B)"),
    *_gate("nand3_1", "A B C", "Y", "!(A&B&C)"),
    *_gate("nor2_1", "A B", "Y", "!(A|B)", 0.08),
    *_gate("nor3_1", "A B C", "Y", "!(A|B|C)", 0.08),
    *_gate("and2_1", "A B", "X", "A&B"),
    *_gate("or2_1", "A B", "X", "A|B"),
    *_gate("xor2_1", "A B", "X", "A^B", 0.08),
    *_gate("xnor2_1", "A B", "Y", "!(A^B)", 0.08),
    *_gate("a21oi_1", "A1 A2 B1", "Y", "!((A1&A2)|B1)", 0.08),
    *_gate("o21ai_1", "A1 A2 B1", "Y", "!((A1|A2)&B1)", 0.08),
    *_gate("a22oi_1", "A1 A2 B1 B2", "Y", "!((A1&A2)|(B1&B2))", 0.08),
    *_gate("mux2_1", "A0 A1 S", "X", "(A0&!S)|(A1&S)"),
    *_gate("maj3_1", "A B C", "X", "(A&B)|(A&C)|(B&C)"),
    Cell("ha_1", ("A", "B"), (("COUT", "A&B"), ("SUM", "A^B"))),
    Cell("fa_1", ("A", "B", "CIN"), (("COUT", "(A&B)|(A&CIN)|(B&CIN)"), ("SUM", "(A^B)^CIN"))),
    Cell("dfxtp_1", ("CLK", "D"), (("Q", "IQ"),), flip_flop=True),
    Cell("conb_1", (), (("HI", "1"), ("LO", "0"))),
)


def cells_named(names: Sequence[str]) -> tuple[Cell, ...]:
    """Cells by their names; all without names.

    Raises:
        KeyError: there is none of such a name.
    """
    known = {cell.name: cell for cell in CELLS}
    return tuple(known[name] for name in names) if names else CELLS
