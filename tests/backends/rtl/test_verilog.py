from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rtl_designs import (
    bench,
    chain,
    lint,
    needs_icarus,
    needs_verilator,
    random_circuit,
    samples,
    single,
    written,
)

from hqc.backends.rtl.builder import Builder
from hqc.backends.rtl.circuit import (
    Add,
    AtLeast,
    Clamp,
    Lookup,
    Op,
    Product,
    RoundShift,
    Select,
    Wrap,
)
from hqc.backends.rtl.design import Design, Port
from hqc.backends.rtl.emission.expressions import Operand, at_least, expression
from hqc.numerics.types import FixedType, Range, Rounding

#: Two ports and what their values are: the ranges of the circuit end where the values do.
PAIRS = {
    "signed and unsigned": (Range(-16, 15), Range(0, 7)),
    "tight": (Range(-5, 9), Range(1, 6)),
    "negative": (Range(-7, -1), Range(-8, 3)),
    "bits": (Range(0, 1), Range(-1, 0)),
}


def operations(x: int, y: int, ranges: tuple[Range, Range]) -> list[Op]:
    """Every kind of operation of two wires, in all modes."""
    lo, hi = ranges[0].lo, ranges[0].hi
    found: list[Op] = []
    for left, right, minus in itertools.product(range(4), range(4), (False, True)):
        found += [Add(a, b, left, right, minus) for a, b in ((x, y), (y, x), (x, x))]
    for shift, rounding in itertools.product((-2, -1, 1, 2, 3, 5, 6, 7, 70), Rounding):
        found += [RoundShift(wire, shift, rounding) for wire in (x, y)]
    ends = [None, *range(lo - 1, hi + 2)]
    found += [
        Clamp(x, a, b) for a, b in itertools.product(ends, ends) if a is None or b is None or a <= b
    ]
    found += [AtLeast(x, t) for t in range(lo - 1, hi + 3)]
    found += [Wrap(wire, w, s) for wire in (x, y) for w in range(1, 7) for s in (False, True)]
    found += [Product(x, y), Product(x, x), Product(y, y)]
    return found


def every_operation(ranges: tuple[Range, Range]) -> Builder:
    b = Builder(ranges)
    x, y = b.inputs
    for op in operations(x, y, ranges):
        b.add(op)
    b.larger(x, y)
    b.larger(y, x)
    rng = np.random.default_rng(7)
    for wire, bounds in zip((x, y), ranges, strict=True):
        table = rng.integers(-30, 12, bounds.hi - bounds.lo + 6).tolist()
        b.add(Lookup(wire, bounds.lo - 2, tuple(table)))
    bit = b.at_least(x, (ranges[0].lo + ranges[0].hi) // 2 + 1)
    b.add(Select(bit, x, y))
    b.add(Select(bit, y, b.shift(x, 1)))
    return b


@pytest.mark.emulation
@needs_icarus
@pytest.mark.parametrize("name", PAIRS)
def test_every_operation_on_all_values(name: str, tmp_path: Path) -> None:
    ranges = PAIRS[name]
    builder = every_operation(ranges)
    wires = range(len(builder.ops))
    parts = [builder.finish(wires[first : first + 12]) for first in wires[::12]]
    blocks = tuple(single(part, f"p{i}", ("x", "z")) for i, part in enumerate(parts))
    ports = tuple(Port(n, r.fit(), 1) for n, r in zip("xz", ranges, strict=True))
    design = Design(ports, blocks, tuple(block.name for block in blocks))
    values = [np.arange(r.lo, r.hi + 1) for r in ranges]
    grid = np.stack(np.meshgrid(*values), -1).reshape(-1, 2)
    project = written(design, {"x": grid[:, :1], "z": grid[:, 1:]}, tmp_path)
    assert bench(tmp_path) == f"PASS: {2 * len(grid)} samples, latency 1 cycles"
    assert len(wires) > 150
    assert project.schedule.latency == 1


@pytest.mark.emulation
@needs_icarus
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), cutoff=st.sampled_from([0.5, 1.0, 1.7, 3.0, 9.0]))
def test_random_designs_in_pipelines(
    seed: int, cutoff: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(seed)
    design = chain(rng)
    folder = tmp_path_factory.mktemp("net")
    interface = ("fixed", "handshake")[seed % 2]
    written(design, samples(rng, design), folder, cutoff, interface=interface)
    assert bench(folder).startswith("PASS: 120 samples")


@pytest.mark.emulation
@needs_verilator
@pytest.mark.parametrize("interface", ["fixed", "handshake"])
def test_verilator_has_nothing_to_say(interface: str, tmp_path: Path) -> None:
    builder = every_operation(PAIRS["tight"])
    ports = tuple(Port(n, r.fit(), 1) for n, r in zip("xz", PAIRS["tight"], strict=True))
    circuit = builder.finish(range(len(builder.ops)))
    values = {name: np.ones((1, 1), np.int64) for name in "xz"}
    every = Design(ports, (single(circuit, "logic", ("x", "z")),), ("logic",))
    assert lint(written(every, values, tmp_path / "every", interface=interface)) == ""
    design = chain(np.random.default_rng(5))
    inputs = samples(np.random.default_rng(5), design)
    assert lint(written(design, inputs, tmp_path / "chain", 1.0, interface=interface)) == ""


def printed(op: Op, *ranges: Range) -> str:
    builder = Builder(ranges)
    wire = builder.add(op)
    return expression(op, builder.ranges, builder.ranges[wire], "v{}".format, lambda *_: "t0")


@pytest.mark.parametrize(
    ("op", "ranges", "text"),
    [
        (Add(0, 1), (Range(0, 7), Range(0, 7)), "{1'd0, v0} + {1'd0, v1}"),
        (Add(0, 1, 0, 2), (Range(-8, 3), Range(0, 3)), "{{v0[3], v0[3:2]} + {1'd0, v1}, v0[1:0]}"),
        (Add(0, 1, 0, 3), (Range(0, 7), Range(0, 3)), "{v1, v0}"),
        (
            Add(0, 1, 3, 1, True),
            (Range(0, 1), Range(0, 1)),
            "{{{1'd0, v0}, 2'd0} - {3'd0, v1}, 1'd0}",
        ),
        (Clamp(0, 0, None), (Range(-8, 7),), "v0[2:0] & {3{~v0[3]}}"),
        (
            Clamp(0, -8, 7),
            (Range(-32, 31),),
            "(~v0[5] & (v0[4] | v0[3])) ? 4'd7 : (~v0[5] | (&v0[4:3])) ? v0[3:0] : 4'd8",
        ),
        (RoundShift(0, 2), (Range(-8, 7),), "v0[3:2]"),
        (RoundShift(0, -1), (Range(-8, 7),), "{v0, 1'd0}"),
        (
            RoundShift(0, 2, Rounding.ROUND),
            (Range(-8, 7),),
            "{v0[3], v0[3:2]} + {2'd0, v0[1] & (v0[0] | v0[2])}",
        ),
        (AtLeast(0, 0), (Range(-8, 7),), "~v0[3]"),
        (AtLeast(0, 24), (Range(0, 63),), "v0[5] | (&v0[4:3])"),
        (Product(0, 1), (Range(-2, 1), Range(0, 1)), "$signed(v0) * $signed({1'd0, v1})"),
    ],
)
def test_the_short_forms(op: Op, ranges: tuple[Range, ...], text: str) -> None:
    assert printed(op, *ranges) == text


@pytest.mark.parametrize("bounds", [Range(-16, 15), Range(0, 31), Range(-3, 9), Range(5, 12)])
def test_a_comparison_reads_each_bit_at_most_once(bounds: Range) -> None:
    """Read as Python, where `&`, `|` and brackets mean the same for bits."""
    x = Operand("v0", bounds)
    for threshold in range(bounds.lo - 1, bounds.hi + 2):
        text = at_least(x, threshold)
        for value in range(bounds.lo, bounds.hi + 1):
            bits = {f"v0[{i}]": value >> i & 1 for i in range(x.width)}
            assert _evaluated(text, bits) == (value >= threshold), (text, value)


def _evaluated(text: str, bits: dict[str, int]) -> bool:
    for high, low in itertools.product(range(8), range(8)):
        parts = [f"v0[{i}]" for i in range(low, high + 1)]
        whole = f"v0[{high}:{low}]" if high - low + 1 < len(bits) else "v0"
        for sign in "&|":
            text = text.replace(f"({sign}{whole})", f"({f' {sign} '.join(parts)})")
    for name, value in bits.items():
        text = text.replace(f"~{name}", str(1 - value)).replace(name, str(value))
    return bool(eval(text.replace("1'd", "")))  # noqa: S307


@pytest.mark.emulation
@needs_icarus
def test_values_of_60_bits(tmp_path: Path) -> None:
    wide = FixedType(True, 58, 58)
    b = Builder((Range(-(1 << 57), (1 << 57) - 1),) * 2)
    x, y = b.inputs
    total = b.plus(x, y, 1, 0, True)
    outputs = [total, b.shift(total, 30, Rounding.HALF_DOWN), b.clamp(total, -(1 << 40), 1 << 41)]
    circuit = b.finish([*outputs, b.at_least(total, 1 << 33), b.larger(x, y)])
    design = Design((Port("x", wide, 2),), (single(circuit),), ("logic",))
    rng = np.random.default_rng(1)
    values = rng.integers(-(1 << 57), 1 << 57, (50, 2)) >> rng.integers(0, 50, (50, 2))
    written(design, {"x": values}, tmp_path)
    assert bench(tmp_path).startswith("PASS")


@pytest.mark.emulation
@needs_icarus
def test_the_bench_sees_a_wrong_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    circuit = random_circuit(rng, (Range(-8, 7),) * 3, 30)
    design = Design((Port("x", FixedType(True, 4, 4), 3),), (single(circuit),), ("logic",))
    project = written(design, samples(rng, design, 200), tmp_path)
    assert bench(tmp_path).startswith("PASS")
    path = tmp_path / "rtl" / "net_logic.v"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("  assign y = ", "  assign y = 1'b1 ^ "), encoding="utf-8")
    assert bench(tmp_path).startswith("FAIL: 400 of 400 samples came out, 400 wrong")
    assert project.record["blocks"][0]["file"] == "rtl/net_logic.v"
