"""Measure hqc's RTL against other ways to write the same integer network, in one Yosys.

Every style is synthesised whole (`--flat` in the words of `hqc estimate`), by the same script of
the same tool. hqc's figures are also given layer by layer, as `hqc estimate` finds them. Counts
carry over to other machines, seconds do not.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from bench_emulation import SIZES, SMALL, jet_tagger
from comparison import Comparison, Figure, versions

from hqc.analysis.partition import Partition, partition
from hqc.backends import layers as kinds
from hqc.backends.estimate.estimate import estimate_project
from hqc.backends.estimate.figures import Figures
from hqc.backends.estimate.measure import measure
from hqc.backends.estimate.yosys import find
from hqc.backends.layers.evaluate import run
from hqc.backends.layers.network import Network, read_network
from hqc.backends.rtl.affine import Sums
from hqc.backends.rtl.circuit import Add, Product
from hqc.backends.rtl.design import Design
from hqc.backends.rtl.design import run as run_design
from hqc.backends.rtl.emission.project import write
from hqc.backends.rtl.lowering import windows as lower_windows
from hqc.backends.rtl.lowering.csd import dot
from hqc.backends.rtl.lowering.lower import lower
from hqc.backends.rtl.lowering.scaled import Scaled, offset
from hqc.backends.rtl.options import RtlOptions
from hqc.diagnostics.events import Event
from hqc.driver import load, run_passes
from hqc.numerics.types import FixedType, Overflow, Rounding
from hqc.pipeline import DEFAULT
from hqc.pipeline.backend import BackendOptions

TIMEOUT = 3600.0
#: A cutoff in nanoseconds that no path reaches: registers at the outputs alone.
UNPIPELINED = 1e6
OURS = "hqc"


@dataclass(frozen=True)
class Row:
    """A line of the table: a style, its figures, and its clock cycles of latency."""

    style: str
    figures: Figures
    latency: int


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="default: a jet tagger of random weights")
    parser.add_argument("--seed", type=int, default=7, help="of those weights")
    parser.add_argument("--zeros", type=float, default=0.5, help="share of them that is 0")
    parser.add_argument("--name", help="what the table calls it")
    parser.add_argument("--clock", type=float, default=5.0, help="nanoseconds")
    parser.add_argument("--styles", default="layers,hqc,da4ml,alkaid,csd,multiply")
    parser.add_argument("--page", type=Path, help="write the table into this page")
    parser.add_argument("--small", action="store_true", help="a network of seconds")
    parser.add_argument("-f", "--format", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    name = arguments.name or (Path(arguments.model).stem if arguments.model else "jet tagger")
    sizes = SMALL if arguments.small else SIZES
    model = (
        run_passes(load(arguments.model), DEFAULT)
        if arguments.model
        else jet_tagger(arguments.seed, arguments.zeros, sizes)
    )
    parts = partition(model)
    network = read_network(model, parts)
    known: dict[str, Callable[[Path], Iterator[Row]]] = {
        "layers": lambda f: layered(network, parts, arguments.clock, f),
        "hqc": lambda f: whole(OURS, lower(network), network, parts, arguments.clock, f),
        "da4ml": lambda f: da4ml_flow(network, parts, arguments.clock, f),
        "alkaid": lambda f: alkaid_flow(network, parts, arguments.clock, f),
        "csd": lambda f: whole(
            "CSD shift-add trees", csd(network), network, parts, arguments.clock, f
        ),
        "multiply": lambda f: whole(
            "constant `*` and sum, not pipelined", products(network), network, parts, 0.0, f
        ),
    }
    rows: list[Row] = []
    for style in arguments.styles.split(","):
        # da4ml's pipeliner prints; stdout is for the result
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
            for row in known[style](Path(scratch)):
                rows.append(row)
                print(line(row), file=sys.stderr, flush=True)
    if arguments.format == "json":
        shape = "-".join(map(str, sizes))
        random = f"A jet tagger {shape}, random 6-bit weights, {arguments.zeros:.0%} of them 0"
        setting = name if arguments.model else random
        print(compared(rows, setting, arguments.clock).json())
        return
    text = table(rows, arguments.clock)
    print(f"\n{text}")
    if arguments.page:
        insert(arguments.page, name, text)


def progress(event: Event) -> None:
    if event.seconds is not None:
        print(f"  {event.name}: {event.seconds:.1f} s", file=sys.stderr, flush=True)


# --- styles ---------------------------------------------------------------------------------


def layered(network: Network, parts: Partition, clock: float, folder: Path) -> Iterator[Row]:
    """hqc's RTL, each layer by itself."""
    emit(lower(network), parts, clock, folder)
    found = estimate_project(folder, timeout=TIMEOUT, watch=progress)
    yield Row(f"{OURS}, sum of its layers", found.total, found.latency)


def whole(
    style: str, design: Design, network: Network, parts: Partition, clock: float, folder: Path
) -> Iterator[Row]:
    """A design in one synthesis; `clock` 0 has registers at the outputs alone."""
    check(design, network)
    latency = emit(design, parts, clock, folder)
    found = estimate_project(folder, flat=True, timeout=TIMEOUT, watch=progress)
    yield Row(style, found.total, latency)


def emit(design: Design, parts: Partition, clock: float, folder: Path) -> int:
    own = RtlOptions(latency_cutoff=0.0 if clock else UNPIPELINED)
    options = BackendOptions(clock_ns=clock or 5.0, own=own)
    return int(write(design, parts, options, folder).record["latency"])


def check(design: Design, network: Network) -> None:
    """The circuits compute what the layers mean, on random codes."""
    rng = np.random.default_rng(0)
    given = {
        port.name: rng.integers(port.type.limits.lo, port.type.limits.hi + 1, (500, port.size))
        for port in design.inputs
    }
    shapes = {layer.name: layer.shape for layer in network.layers}
    want = run(network, {name: x.reshape(-1, *shapes[name]) for name, x in given.items()})
    got = run_design(design, given)
    for name in design.outputs:
        fraction = design.of(name).type.fraction
        layer = next(x for x in network.layers if x.name == name)
        scaled = got[name] << max(0, layer.result.fraction - fraction)
        assert np.array_equal(scaled, want[name].reshape(len(scaled), -1)), f"{name} differs"


def csd(network: Network) -> Design:
    """Canonical signed digits and balanced trees, each output by itself."""

    def by_digits(
        sums: Sums, inputs: Sequence[int], weight: Any, bias: Sequence[int], where: Any = None
    ) -> list[Scaled]:
        found = []
        for column, start in zip(weight.T, bias, strict=True):
            used = [(Scaled(w), int(c)) for w, c in zip(inputs, column, strict=True) if c]
            product = dot(sums, *zip(*used, strict=True)) if used else None
            found.append(offset(sums, product, int(start)))
        return found

    with mock.patch.object(lower_windows, "multiply", by_digits):
        return lower(network)


def products(network: Network) -> Design:
    """Constant multiplications, summed one after the other: Yosys is left to find the rest."""

    def plain(
        sums: Sums, inputs: Sequence[int], weight: Any, bias: Sequence[int], where: Any = None
    ) -> list[Scaled]:
        builder, found = sums.builder, []
        for column, start in zip(weight.T, bias, strict=True):
            total = builder.constant(int(start))
            for wire, number in zip(inputs, column, strict=True):
                if number:
                    product = builder.add(Product(wire, builder.constant(int(number))))
                    total = builder.add(Add(total, product))
            found.append(Scaled(total))
        return found

    with mock.patch.object(lower_windows, "multiply", plain):
        return lower(network)


# --- flows of others ------------------------------------------------------------------------


def da4ml_flow(network: Network, parts: Partition, clock: float, folder: Path) -> Iterator[Row]:
    """da4ml's tracer, solver, pipeliner and Verilog, with as many stages as hqc's."""
    stages = emit(lower(network), parts, clock, folder / "hqc")
    found, held = da4ml_figures(solved_by_da4ml(network), stages, folder / "da4ml")
    yield Row("da4ml's own Verilog", found, held + 1)


def solved_by_da4ml(network: Network) -> Any:
    """The network as da4ml's logic, not yet pipelined."""
    from da4ml.trace import FixedVariableArrayInput, HWConfig, comb_trace

    config = HWConfig(1, -1, -1)
    return comb_trace(*traced(network, lambda size: FixedVariableArrayInput(size, config)))


def da4ml_figures(logic: Any, stages: int, folder: Path) -> tuple[Figures, int]:
    """What Yosys makes of da4ml's Verilog, and how many solutions its pipeline has."""
    from da4ml.codegen import VerilogModel
    from da4ml.trace import to_pipeline

    cutoff = math.ceil(logic.latency[1] / stages)
    while len(to_pipeline(logic, cutoff).solutions) >= stages:  # its latency is one more
        cutoff += 1
    while len(to_pipeline(logic, cutoff).solutions) < stages - 1:
        cutoff -= 1
    with contextlib.redirect_stdout(io.StringIO()):
        model = VerilogModel(logic, "net", folder, latency_cutoff=cutoff)
        model.write()
    files = sorted(folder.rglob("*.v"))
    texts = {file: file.read_text() for file in files}
    used = [
        file
        for file in files
        if file.stem == "net" or any(file.stem in t for f, t in texts.items() if f != file)
    ]
    used = [f for f in used if "lookup" not in f.stem and "wrapper" not in f.stem]
    found = measure(used, "net", timeout=TIMEOUT, watch=progress)
    return found, len(to_pipeline(logic, cutoff).solutions)


def alkaid_flow(network: Network, parts: Partition, clock: float, folder: Path) -> Iterator[Row]:
    """The same of alkaid, da4ml's successor."""
    stages = emit(lower(network), parts, clock, folder / "hqc")
    found = alkaid_figures(solved_by_alkaid(network), stages, folder / "alkaid")
    yield Row("alkaid's own Verilog", found, stages)


def solved_by_alkaid(network: Network) -> Any:
    """The network as alkaid's logic, not yet pipelined."""
    from alkaid.trace import FVArrayInput, HWConfig, trace

    config = HWConfig(1, -1, -1)
    return trace(*traced(network, lambda size: FVArrayInput(size, config)))


def alkaid_figures(logic: Any, stages: int, folder: Path) -> Figures:
    """What Yosys makes of alkaid's Verilog; its ternary adders, which are larger there, are off."""
    from alkaid.codegen import RTLModel

    # inputs are registered, too: one stage of logic less than there are registers
    RTLModel(
        logic, folder, "net", n_stages=stages - 1, print_latency=False, ternary_fuse=False
    ).write()
    used = [file for file in sorted(folder.rglob("*.v")) if "wrapper" not in file.stem]
    return measure(used, "net", timeout=TIMEOUT, watch=progress)


def traced(network: Network, given_of: Callable[[int], Any]) -> tuple[Any, Any]:
    """The network in such a tracer; it rounds ties up where the model rounds them to even."""
    values: dict[str, Any] = {}
    for layer in network.layers:
        if isinstance(layer, kinds.Input):
            first = given_of(layer.size)
            values[layer.name] = quantised(first, layer.result, "WRAP", "TRN")
        elif isinstance(layer, kinds.Dense):
            x = values[layer.sources[0]]
            values[layer.name] = assigned(x @ layer.weight.values + layer.bias.values, layer.result)
        elif isinstance(layer, kinds.Activation):
            x = values[layer.sources[0]]
            x = x.relu() if layer.function == "relu" else x
            values[layer.name] = assigned(x, layer.result)
        else:
            raise SystemExit(f"the tracers' rows have no form of {type(layer).__name__}")
    return first, values[network.outputs[0]]


def assigned(x: Any, type_: FixedType) -> Any:
    rounding = "TRN" if type_.rounding is Rounding.FLOOR else "RND"
    return quantised(x, type_, "WRAP" if type_.overflow is Overflow.WRAP else "SAT", rounding)


def quantised(x: Any, type_: FixedType, overflow: str, rounding: str) -> Any:
    integer = type_.width - type_.fraction - int(type_.signed)
    return x.quantize(type_.signed, integer, type_.fraction, overflow, rounding)


# --- the table ------------------------------------------------------------------------------


def line(row: Row) -> str:
    f = row.figures
    return (
        f"| {row.style} | {f.lut:,} | {f.packed:,} | {f.flip_flops:,} | {f.carry:,} | "
        f"{f.delay_ns:.1f} | {row.latency} | {f.seconds:.0f} |"
    )


def table(rows: Sequence[Row], clock: float) -> str:
    heads = ("RTL", "LUT", "packed", "FF", "CARRY4", "delay ns", "latency", "CPU s")
    head = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    return "\n".join((*head, *map(line, rows), "", f"{find()}, clock {clock:g} ns."))


def compared(rows: Sequence[Row], name: str, clock: float) -> Comparison:
    """hqc's whole design beside the others; what has no pipeline is compared in LUTs alone."""
    ours = next(row for row in rows if row.style == OURS)
    others = [row for row in rows if not row.style.startswith(OURS)]
    kinds_of: dict[str, Callable[[Row], float]] = {
        "LUT1 to LUT6": lambda row: row.figures.lut,
        "LUTs after pairing, Yosys' estimate": lambda row: row.figures.packed,
        "flip-flops": lambda row: row.figures.flip_flops,
        "longest path, ns": lambda row: row.figures.delay_ns,
    }
    figures = []
    for what, read in kinds_of.items():
        rivals = [row for row in others if row.latency > 1 or "LUT" in what]
        figures.append(Figure(what, read(ours), {row.style: read(row) for row in rivals}))
    stages = ", ".join(f"{row.style} {row.latency}" for row in (ours, *others))
    return Comparison(
        f"{name}, synthesised whole for fpga-xcup, clock {clock:g} ns.",
        figures,
        {"synthesis": str(find()), **versions("da4ml", "alkaid")},
        (f"Latency in cycles: {stages}.",),
    )


def insert(page: Path, name: str, text: str) -> None:
    """Put a table between the marks of its name."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    if not found or end not in rest:
        raise SystemExit(f"{page} has no marks {begin} and {end}")
    after = rest.partition(end)[2]
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"{time.perf_counter() - start:.0f} s in all", file=sys.stderr)
