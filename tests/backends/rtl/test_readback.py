"""The text of RTL projects, read back: what it says, and that nothing else is taken for it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rtl_designs import random_circuit, samples, single, written

from hqc.backends.rtl.circuit import Circuit, Input, Op, evaluate
from hqc.backends.rtl.design import Design, Port, run
from hqc.backends.rtl.emission.expressions import Operand, expression
from hqc.backends.rtl.reading.ops import operation
from hqc.backends.rtl.reading.readback import read_project
from hqc.backends.rtl.reading.terms import (
    Binary,
    Cat,
    Choice,
    Malformed,
    Not,
    Number,
    Reduce,
    Repeat,
    Signal,
    Signed,
    Slice,
    Term,
    typed,
)
from hqc.backends.rtl.reading.text import Source, parse
from hqc.diagnostics import Exit, HqcError
from hqc.numerics.types import Codes, FixedType, Range

SIX = FixedType(True, 6, 6)


# --- whole projects ---------------------------------------------------------------------------


def random_design(seed: int) -> Design:
    """Two blocks of random logic, the second laid out four times, then a plain wiring block."""
    rng = np.random.default_rng(seed)
    first = single(random_circuit(rng, Port("x", SIX, 4).ranges, 20), "first")
    held = [Range(r.lo, r.hi) for r in first.ranges]
    index = rng.integers(0, len(held), (4, 3))
    joined = [held[int(i)] for i in index.reshape(-1)]
    low, high = min(r.lo for r in joined), max(r.hi for r in joined)
    circuit = random_circuit(rng, [Range(low, high)] * 3, 8)
    again = single(circuit, "again", ("first",))
    again = replace(again, index=index)
    bounds = again.ranges[0]
    for other in again.ranges[1:]:
        bounds = bounds.join(other)
    wires = Circuit((Input(0),), (bounds,), (0,))
    moved = single(wires, "moved", ("again",))
    order = rng.permutation(again.size).reshape(-1, 1)
    moved = replace(moved, index=order, kind="rearrange", type=again.type)
    return Design((Port("x", SIX, 4),), (first, again, moved), ("moved", "first"))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), cutoff=st.sampled_from([0.5, 2.0]))
def test_a_design_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, seed: int, cutoff: float
) -> None:
    folder = tmp_path_factory.mktemp("project")
    design = random_design(seed)
    inputs = samples(np.random.default_rng(seed), design)
    interface = ("fixed", "handshake")[seed % 2]
    project = written(design, inputs, folder, cutoff, interface=interface)
    found = read_project(folder)
    assert found.latency == project.record["latency"]
    assert found.stalls == (interface == "handshake")
    assert found.design.outputs == design.outputs
    want, got = run(design, inputs), run(found.design, inputs)
    for block in design.blocks:
        np.testing.assert_array_equal(got[block.name], want[block.name])
        assert read_project(folder).design.of(block.name).size == block.size


def lines_of(project: Path) -> Iterator[tuple[Path, int, str]]:
    """Every line of the Verilog with code in it."""
    for file in sorted((project / "rtl").iterdir()):
        for number, line in enumerate(file.read_text().split("\n")):
            if line.split("//")[0].strip():
                yield file, number, line


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    design = random_design(3)
    written(design, samples(np.random.default_rng(1), design), folder, 0.6, interface="handshake")
    return folder


def changed(project: Path, folder: Path, pattern: str, by: str | Callable[..., str]) -> HqcError:
    """The refusal of a project whose first match of a pattern is replaced."""
    for file, number, line in lines_of(project):
        if re.search(pattern, line.split("//")[0]):
            for source in (project / "rtl").iterdir():
                text = source.read_text()
                if source == file:
                    parts = text.split("\n")
                    parts[number] = re.sub(pattern, by, line, count=1)
                    text = "\n".join(parts)
                (folder / "rtl").mkdir(exist_ok=True)
                (folder / "rtl" / source.name).write_text(text)
            (folder / "rtl.json").write_text((project / "rtl.json").read_text())
            with pytest.raises(HqcError) as caught:
                read_project(folder)
            (found,) = caught.value.diagnostics
            assert found.code == "HQC425"
            assert caught.value.exit == Exit.NOT_EXACT
            assert f"rtl/{file.name}:" in found.message
            return caught.value
    raise AssertionError(f"no line has {pattern}")


@pytest.mark.parametrize(
    ("pattern", "by", "says"),
    [
        (r"(v\d+_s\d+) <= v\d+_s\d+", r"\1 <= clk", "is not known"),
        (r"always @\(posedge clk\) if \(ce\)", "always @(posedge clk)", "clock enable"),
        (r"always @\(posedge clk\) if \(ce\)", "always @(negedge clk) if (ce)", ""),
        (r"always @\(posedge clk\) if \(ce\) (v\d+)_s\d+ <= v\d+_s\d+", r"assign \1 = \1", ""),
        (r"= (v\d+)_s\d+(\D.*_s\d)", r"= \1\2", "mixes the stages"),
        (r"wire signed \[(\d+):0\] (v\d+) = v", r"wire signed [1\1:0] \2 = v", "bits drive"),
        (r"\[(\d+):0\] y$", r"[1\1:0] y", ""),
        (r"valid <= \{valid", "valid <= {~valid", "counts validity"),
        (r"out_ready \| ~out_valid", "out_ready | out_valid", "counts validity"),
        (r"_one at1", "_one at0", "two instances of one name"),
        (r"\.y\(y\[", ".y(x[", "is not known"),
        (r"^endmodule", "endmodules", ""),
        (r"default_nettype none", "default_nettype wire", "does not stand around"),
        (r"\{", "{{", ""),
        (r" & ", " && ", "is not in what hqc writes"),
        (r"(wire .* = .*);", r'\1; initial $display("x");', "is not in what hqc writes"),
        (r"^endmodule", "endmodule module more (output wire [0:0] y); endmodule", ""),
    ],
)
def test_what_is_not_as_written_is_refused(
    project: Path, tmp_path: Path, pattern: str, by: str, says: str
) -> None:
    assert says in str(changed(project, tmp_path, pattern, by))


def test_a_file_too_many_is_refused(project: Path, tmp_path: Path) -> None:
    (tmp_path / "rtl").mkdir()
    for file in (project / "rtl").iterdir():
        (tmp_path / "rtl" / file.name).write_text(file.read_text())
    (tmp_path / "rtl.json").write_text((project / "rtl.json").read_text())
    read_project(tmp_path)
    (tmp_path / "rtl" / "more.v").write_text("module net_first (output wire [0:0] y);\n")
    with pytest.raises(HqcError, match=r"rtl/more\.v"):
        read_project(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}', '{"version": 1}'])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "rtl.json").write_text(text)
    with pytest.raises(HqcError, match=r"HQC425.*rtl\.json"):
        read_project(tmp_path)


# --- expressions --------------------------------------------------------------------------------


class Lines:
    """Collects operations that stand within an expression."""

    def __init__(self, ranges: list[Range]) -> None:
        self.ops: list[Op] = [Input(i) for i in range(len(ranges))]
        self.ranges = list(ranges)

    def emit(self, op: Op) -> int:
        self.ops.append(op)
        self.ranges.append(Range(-(1 << 61), 1 << 61))
        return len(self.ops) - 1


def bits(term: Term, codes: list[int]) -> int:
    """What a term is in Verilog, for the codes of its wires; in the reader's words, no others."""

    def of(part: Term) -> int:
        return bits(part, codes)

    mask = (1 << term.width) - 1
    match term:
        case Slice(signal, low, _, _):
            return codes[signal.wire] >> low & mask
        case Number(_, value):
            return value
        case Cat(parts, _):
            found = 0
            for part in parts:
                found = found << part.width | of(part)
            return found
        case Repeat(bit, _):
            return mask * of(bit)
        case Not(x, _):
            return ~of(x) & mask
        case Reduce(kind, x, _):
            return int(of(x) == (1 << x.width) - 1 if kind == "all" else of(x) != 0)
        case Choice(condition, x, y, _):
            return of(x) if of(condition) else of(y)
        case Signed(x, _):
            return of(x)
        case Binary("at_least", x, y, _):
            both = all(isinstance(s, Signed) or (isinstance(s, Slice) and s.signed) for s in (x, y))
            half = 1 << (x.width - 1) if both else 0
            return int((of(x) ^ half) >= (of(y) ^ half))
        case Binary(kind, x, y, _):
            a, b = of(x), of(y)
            found = {"plus": a + b, "minus": a - b, "times": a * b, "and_": a & b, "or_": a | b}
            return found.get(kind, a ^ b) & mask
    raise TypeError(term)


def check_reading(text: str, ranges: tuple[Range, Range], type_: FixedType) -> bool:
    """Whether a text has an operation; if so, it computes what the text does, modulo its width."""
    types = [bounds.fit() for bounds in ranges]
    signals = {f"v{i}": Signal(i, t.width, t.signed, 0) for i, t in enumerate(types)}
    statement = parse(Source("text", text), 0, f"wire [0:0] r = {text}")
    if statement.kind != "wire":
        return False

    def signal(name: str) -> Signal:
        if name not in signals:
            raise Malformed(name)
        return signals[name]

    lines = Lines([Range(t.limits.lo, t.limits.hi) for t in types])
    try:
        term = typed(statement.parts[-1], signal, {})
        if term.width != type_.width:
            return False
        result = lines.emit(operation(term, type_.signed, lines.emit))
    except Malformed:
        return False
    every = np.array(
        [(a, b) for a in range(lines.ranges[0].lo, lines.ranges[0].hi + 1)
         for b in range(lines.ranges[1].lo, lines.ranges[1].hi + 1)]
    )  # fmt: skip
    circuit = Circuit(tuple(lines.ops), tuple(lines.ranges), (result,))
    got: Codes = evaluate(circuit, every)[:, result] & ((1 << term.width) - 1)
    want = [bits(term, row) for row in every.tolist()]
    assert got.tolist() == want, text
    return True


def texts(seed: int) -> tuple[str, tuple[Range, Range], Range, Op]:
    """A random operation of two wires of a few bits, as it is printed."""
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.integers(-12, 20, (2, 2)), axis=1)
    ranges = [Range(int(lo), int(hi) + 1) for lo, hi in ends]
    while True:
        circuit = random_circuit(rng, ranges, 1)
        op, result = circuit.ops[-1], circuit.ranges[-1]
        wires = getattr(op, "x", None), getattr(op, "y", 0), getattr(op, "bit", 0)
        if wires[0] is None or max(w for w in wires if w is not None) > 1 or hasattr(op, "table"):
            continue
        text = expression(op, circuit.ranges, result, lambda w: f"v{w}", lambda *_: "t0")
        return text, (circuit.ranges[0], circuit.ranges[1]), result, op


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_every_printed_expression_is_read_as_what_it_does(seed: int) -> None:
    text, ranges, result, op = texts(seed)
    assert Operand("v0", ranges[0]).width == ranges[0].fit().width
    assert check_reading(text, ranges, result.fit()), (text, op)


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 10**6), change=st.randoms(use_true_random=False))
def test_a_changed_expression_is_refused_or_read_as_what_it_does(
    seed: int, change: random.Random
) -> None:
    text, ranges, result, _ = texts(seed)
    for _ in range(5):
        at = change.randrange(len(text))
        letter = change.choice("0123456789+-*&|^~?:v[]{}()$signed >=, ")
        cut = at + change.randrange(2)
        check_reading(text[:at] + letter + text[cut:], ranges, result.fit())
