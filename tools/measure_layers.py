"""Measure random layers with Yosys, one line of JSON each; what is measured is kept.

    python tools/measure_layers.py -n 300 -o build/layers.jsonl

With `--solve`, matrices and requantisers are only lowered, and their logic is counted. A run that
was interrupted goes on where it ended.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from random_layers import KINDS, random_matrix, random_network
from random_requantisers import random_requantiser

from hqc.backends.estimate import yosys
from hqc.backends.estimate.cache import Module
from hqc.backends.estimate.flows import flow_of
from hqc.backends.estimate.measure import Tools, measure_all
from hqc.backends.layers import Network
from hqc.backends.rtl.cost import adder_bits, luts
from hqc.backends.rtl.design import Block
from hqc.backends.rtl.emission.delays import cutoff_of
from hqc.backends.rtl.emission.schedule import schedule
from hqc.backends.rtl.emission.verilog import circuit_module, has_logic
from hqc.backends.rtl.lowering.lower import lower

CLOCK_NS = 5.0
SOLVED = ("matrix", "requantise")
Sample = dict[str, Any]


def main() -> int:
    """Measure; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("-n", "--layers", type=int, default=300, help="of all kinds")
    p.add_argument("-o", "--output", type=Path, required=True, help="JSON lines")
    p.add_argument("--solve", action="store_true", help="no synthesis; n matrices and requantisers")
    p.add_argument("--target", default="fpga-xcup")
    p.add_argument("--timeout", type=float, default=1800.0)
    options = p.parse_args()
    known = {(s["kind"], s["seed"]) for s in read(options.output)}
    if options.solve:
        keys = [(kind, n) for n in range(options.layers) for kind in SOLVED]
        _keep((solved(*key) for key in keys if key not in known), options.output)
        return 0
    tools = Tools(yosys.find(), flow_of(options.target, CLOCK_NS), options.timeout)
    print(f"{tools.yosys}; {len(known)} known", flush=True)
    wanted = [key for key in order(options.layers) if key not in known]
    for start in range(0, len(wanted), 4):
        _keep(measured(wanted[start : start + 4], tools), options.output)
    return 0


def _keep(samples: Iterable[Sample], output: Path) -> None:
    for sample in samples:
        with output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(sample) + "\n")
        print(sample, flush=True)


def solved(kind: str, seed: int) -> Sample:
    """Counts of the logic of a matrix or a requantiser."""
    design = lower(solved_network(kind, seed))
    circuit = design.blocks[-1].circuit
    path = round(1000 * schedule(design, 1000.0).longest)
    counted = {"adder_bits": adder_bits(circuit), "counted": luts(circuit), "path": path}
    return {"kind": kind, "seed": seed, **counted}


def solved_network(kind: str, seed: int) -> Network:
    """The layer of such a sample; half of the requantisers are as trainings leave them."""
    if kind == "matrix":
        return random_matrix(seed)
    if seed % 2:
        return random_network("requantise", 1000 + seed)
    rng = np.random.default_rng([9, seed])
    width = int(rng.integers(5, 22))
    return random_requantiser(rng, width, int(rng.integers(2, min(width, 10), endpoint=True)))


def order(layers: int) -> list[tuple[str, int]]:
    """Kinds and seeds, mixed, so that each beginning of the list has all kinds."""
    kinds = np.random.default_rng(0).permutation(np.repeat(list(KINDS), list(KINDS.values())))
    seeds = dict.fromkeys(KINDS, 0)
    found = []
    for number in range(layers):
        kind = str(kinds[number % len(kinds)])
        found.append((kind, seeds[kind]))
        seeds[kind] += 1
    return found


def read(path: Path) -> list[Sample]:
    """Samples that were measured."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def measured(keys: list[tuple[str, int]], tools: Tools) -> Iterator[Sample]:
    """Figures of some layers."""
    with tempfile.TemporaryDirectory(prefix="hqc-layers-") as folder:
        modules, counts = [], []
        for kind, seed in keys:
            design = lower(random_network(kind, seed))
            block = design.blocks[-1]
            stages = schedule(design, cutoff_of(CLOCK_NS))
            path = Path(folder) / f"{kind}_{seed}.v"
            if not has_logic(block):
                continue
            timing = stages.blocks[block.name]
            path.write_text(circuit_module("layer", block.circuit, timing, block.bus, False))
            modules.append(Module(f"{kind} {seed}", "layer", (path,)))
            counts.append({"kind": kind, "seed": seed, **_counted(block, timing.registers)})
            counts[-1]["stages"] = timing.last - timing.first
        for sample, found in zip(counts, measure_all(modules, tools), strict=True):
            f = found.figures
            cells = {"lut": f.lut, "packed": f.packed, "ff": f.flip_flops, "carry": f.carry}
            more = {"srl": f.shift_registers, "delay": f.delay_ns, "area": f.area_um2}
            yield {**sample, **cells, **more, "seconds": f.seconds, "tool": str(tools.yosys)}


def _counted(block: Block, registers: int) -> Sample:
    bits, estimate = adder_bits(block.circuit), luts(block.circuit)
    return {"adder_bits": bits, "counted": estimate, "registers": registers}


if __name__ == "__main__":
    sys.exit(main())
