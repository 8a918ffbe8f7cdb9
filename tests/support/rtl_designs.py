"""Designs made by hand or at random, written as projects and run by their own test bench."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir
import pytest

from hqc.analysis.partition import Partition
from hqc.analysis.partition import Port as OuterPort
from hqc.backends.rtl.builder import Builder
from hqc.backends.rtl.circuit import AtLeast, Circuit, Constant, Lookup, Select, Wrap
from hqc.backends.rtl.design import Block, Design, Port, run
from hqc.backends.rtl.emission.project import RtlProject, write
from hqc.backends.rtl.options import RtlOptions
from hqc.numerics.types import Codes, FixedType, Range, Rounding
from hqc.pipeline.backend import BackendOptions

ICARUS, VERILATOR = shutil.which("iverilog"), shutil.which("verilator")
needs_icarus = pytest.mark.skipif(ICARUS is None, reason="iverilog is not installed")
needs_verilator = pytest.mark.skipif(VERILATOR is None, reason="verilator is not installed")
#: Unread bits of inputs are no mistake, and `_one` stands in the file of its layout.
LINT = ("-Wall", "-Wno-UNUSED", "-Wno-DECLFILENAME")
SIX = FixedType(True, 6, 6)


def single(circuit: Circuit, name: str = "logic", sources: Sequence[str] = ("x",)) -> Block:
    """A block of one instance that reads its sources as they come."""
    index = np.arange(len(circuit.inputs))[None]
    held = circuit.results[0]
    for bounds in circuit.results:
        held = held.join(bounds)
    return Block(name, "dense", tuple(sources), circuit, index, held.fit())


def partition_of(design: Design) -> Partition:
    """Ports of the design's own sizes; outputs two bits wider than they need."""
    inputs = tuple(
        OuterPort(p.name.upper(), (p.size,), p.type, p.name, "codes") for p in design.inputs
    )
    outputs = []
    for number, name in enumerate(design.outputs):
        block = design.of(name)
        assert isinstance(block, Block)
        type_ = FixedType(block.bus.signed, block.bus.width + 2, block.bus.integer + 2)
        outputs.append(OuterPort(f"y{number}", (block.size,), type_, f"y{number}", "codes"))
    empty = onnx_ir.Model(onnx_ir.Graph([], [], nodes=[]), ir_version=10)
    return Partition(empty, inputs, tuple(outputs), (), (), {})


def written(
    design: Design,
    inputs: dict[str, Codes],
    folder: Path,
    cutoff: float = 3.0,
    reuse_factor: int = 1,
    **own: str,
) -> RtlProject:
    """The project of a design, with the codes that its circuits compute as expected outputs."""
    parts = partition_of(design)
    computed = run(design, inputs)
    given = {name.upper(): codes for name, codes in inputs.items()}
    names = zip(parts.outputs, design.outputs, strict=True)
    expected = {port.name: computed[name] for port, name in names}
    options = BackendOptions(
        project="net",
        reuse_factor=reuse_factor,
        own=RtlOptions(latency_cutoff=cutoff, **own),  # type: ignore[arg-type]
    )
    return write(design, parts, options, folder, (given, expected))


def call(command: Sequence[str], folder: Path, timeout: float = 120) -> tuple[int, str, str]:
    """Exit status, output and complaints of a tool."""
    ran = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False
    )
    return ran.returncode, ran.stdout, ran.stderr


def bench(folder: Path) -> str:
    """What the project's test bench says in Icarus."""
    top = next((folder / "tb").glob("*_tb.v"))
    sources = [str(path) for path in sorted((folder / "rtl").glob("*.v"))]
    binary = folder / "bench"
    build = ["iverilog", "-g2005", "-o", str(binary), str(top), *sources]
    status, _, said = call(build, folder)
    assert status == 0, said
    return call(["vvp", "-n", str(binary)], folder)[1].strip()


def lint(project: RtlProject) -> str:
    """What Verilator complains about."""
    sources = [str(path) for path in sorted((project.directory / "rtl").glob("*.v"))]
    command = ["verilator", "--lint-only", *LINT, "--top-module", project.record["top"], *sources]
    return call(command, project.directory)[2]


def random_circuit(rng: np.random.Generator, inputs: Sequence[Range], ops: int) -> Circuit:
    """Operations of every kind on random wires; values stay below 2**24."""
    b = Builder(inputs)
    wires = list(b.inputs)
    bits = [b.at_least(wires[0], (inputs[0].lo + inputs[0].hi) // 2 + 1)]
    wires += bits
    for _ in range(ops):
        x, y = (wires[int(i)] for i in rng.integers(max(0, len(wires) - 12), len(wires), 2))
        made = _random_op(rng, b, x, y, bits)
        if b.ranges[made].magnitude_bits > 24:
            made = b.wrap(made, 8, bool(rng.integers(2)))
        if not isinstance(b.ops[made], Constant):
            wires.append(made)
        if isinstance(b.ops[made], AtLeast):
            bits.append(made)
    return b.finish(wires[-6:])


def _random_op(rng: np.random.Generator, b: Builder, x: int, y: int, bits: list[int]) -> int:
    lo, hi = b.ranges[x].lo, b.ranges[x].hi
    some, other = sorted(int(v) for v in rng.integers(lo, hi + 1, 2))
    match int(rng.integers(9)):
        case 0:
            rounding = list(Rounding)[int(rng.integers(7))]
            return b.shift(x, int(rng.integers(-2, 9)), rounding)
        case 1:
            limits = [(some, other), (None, other), (some, None), (min(max(lo, 0), hi), None)]
            return b.clamp(x, *limits[int(rng.integers(4))])
        case 2:
            return b.add(Wrap(x, int(rng.integers(1, 9)), bool(rng.integers(2))))
        case 3:
            return b.product(x, y)
        case 4:
            return b.larger(x, y)
        case 5:
            return b.at_least(x, some)
        case 6 if hi - lo < 64:
            return b.add(Lookup(x, lo, tuple(rng.integers(-20, 21, hi - lo + 1).tolist())))
        case 7:
            return b.add(Select(bits[int(rng.integers(len(bits)))], x, y))
    left, right = (int(v) for v in rng.integers(0, 4, 2))
    return b.plus(x, y, left, right, bool(rng.integers(2)))


def chain(rng: np.random.Generator, ops: int = 40) -> Design:
    """Two blocks, a skip past the second, one laid out four times, wires with a fill, two ports."""
    x = Port("x", FixedType(True, 5, 3), 3)
    other = Port("z", FixedType(False, 3, 3), 2)
    first = single(random_circuit(rng, (*x.ranges, *other.ranges), ops), "first", ("x", "z"))
    second = single(random_circuit(rng, first.ranges, ops), "second", ("first",))
    joined = _joined((*first.ranges, *second.ranges))
    index = np.array([[0, 6], [3, 7], [5, 11], [1, 1]])
    circuit = random_circuit(rng, (joined, joined), 6)
    third = Block(
        "third", "add", ("first", "second"), circuit, index, _joined(circuit.results).fit()
    )
    wire = Builder((_joined(third.ranges),))
    back = np.array([[third.size - 1 - i] for i in range(third.size)] + [[-1]])
    held = third.circuit.results[0].lo
    last = Block(
        "last", "rearrange", ("third",), wire.finish(wire.inputs), back, third.type, fill=held
    )
    return Design((x, other), (first, second, third, last), ("last", "second"))


def _joined(ranges: Sequence[Range]) -> Range:
    held = ranges[0]
    for bounds in ranges[1:]:
        held = held.join(bounds)
    return held


def samples(rng: np.random.Generator, design: Design, number: int = 60) -> dict[str, Codes]:
    """Random codes of every port."""
    found = {}
    for port in design.inputs:
        limits = port.type.limits
        found[port.name] = rng.integers(limits.lo, limits.hi + 1, (number, port.size))
    return found
