"""Write an RTL project: Verilog of every block, the top, its record, test benches, constraints.

The same design and options give the same bytes, wherever and whenever they are written.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqc.analysis.partition import Partition
from hqc.backends.rtl.design import Block, Design, Port
from hqc.backends.rtl.emission.delays import cutoff_of
from hqc.backends.rtl.emission.names import comment
from hqc.backends.rtl.emission.reuse import copies_of, steps_of
from hqc.backends.rtl.emission.schedule import Schedule, schedule
from hqc.backends.rtl.emission.sequenced import register_bits, sequenced_module
from hqc.backends.rtl.emission.testbench import bench_files
from hqc.backends.rtl.emission.top import Output, TopNames, top_module, top_names
from hqc.backends.rtl.emission.verilog import circuit_module, has_logic, layout_module
from hqc.backends.rtl.emission.wiring import Bus
from hqc.backends.rtl.options import RtlOptions
from hqc.numerics.types import FixedType
from hqc.pipeline.backend import BackendOptions, Batch

_FIRST = "`default_nettype none\n"
_LAST = "`default_nettype wire\n"


@dataclass(frozen=True, eq=False)
class RtlProject:
    """What was written.

    Attributes:
        directory, files: where, and the files relative to it, sorted.
        record: what `rtl.json` holds.
        schedule: the stages.
    """

    directory: Path
    files: tuple[str, ...]
    record: dict[str, Any]
    schedule: Schedule


def write(
    design: Design,
    partition: Partition,
    options: BackendOptions,
    directory: Path,
    vectors: tuple[Batch, Batch] | None = None,
) -> RtlProject:
    """Write the project of a design; files of an earlier project in the directory go.

    Args:
        design: lowered from the partition's core.
        partition: whose ports the top module has.
        options: of the user, `own` an `RtlOptions`.
        directory: made if it is not there.
        vectors: input and expected output codes for the test benches, which need them.
    """
    own = options.own_as(RtlOptions)
    stalls = own.interface == "handshake"
    steps = steps_of(design, options.reuse_factor)
    stages = schedule(design, own.latency_cutoff or cutoff_of(options.clock_ns), steps)
    outputs = _outputs(design, partition)
    names = top_names(design, options.project, outputs)
    texts = _modules(design, stages, names, stalls)
    texts[f"rtl/{names.top}.v"] = _source(
        f"{names.top}: latency {stages.latency}, initiation interval {stages.interval}",
        top_module(design, stages, names, outputs, stalls),
    )
    record = _record(design, partition, options, own, stages, names)
    texts["rtl.json"] = json.dumps(record, indent=1) + "\n"
    texts |= _constraints(record)
    if vectors is not None:
        texts |= bench_files(record, partition, vectors)
    _clear(directory)
    for name, text in texts.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text, encoding="utf-8", newline="\n")
    return RtlProject(directory, tuple(sorted(texts)), record, stages)


def _clear(directory: Path) -> None:
    if (directory / "rtl.json").is_file():
        for folder in ("rtl", "tb"):
            shutil.rmtree(directory / folder, ignore_errors=True)


def _source(about: str, *modules: str) -> str:
    return f"// {comment(about)}\n{_FIRST}\n" + "\n".join(modules) + f"\n{_LAST}"


def _outputs(design: Design, partition: Partition) -> list[Output]:
    pairs = zip(design.outputs, partition.outputs, strict=True)
    return [
        Output(block, f"out{number}_{port.name}", port.type)
        for number, (block, port) in enumerate(pairs)
    ]


def _modules(design: Design, stages: Schedule, names: TopNames, stalls: bool) -> dict[str, str]:
    """One file per block that has logic."""
    texts = {}
    for block in design.blocks:
        if not has_logic(block):
            continue
        module, timing = names.modules[block.name], stages.blocks[block.name]
        one = module if len(block.index) == 1 else f"{module}_one"
        parts = [circuit_module(one, block.circuit, timing, block.bus, stalls)]
        steps, sources = stages.steps[block.name], _sources(design, block)
        if steps > 1:
            parts.append(sequenced_module(module, block, timing, sources, steps, stalls))
        elif len(block.index) > 1:
            parts.append(layout_module(module, block, timing, sources, stalls))
        about = f"{block.name}: {block.kind}, {block.where.node or 'of no node'}"
        texts[f"rtl/{module}.v"] = _source(about, *parts)
    return texts


def _sources(design: Design, block: Block) -> list[Bus]:
    """What a block reads, named by its owner."""
    found = [design.of(name) for name in block.sources]
    return [Bus(s.name, s.size, s.type if isinstance(s, Port) else s.bus) for s in found]


def _record(
    design: Design,
    partition: Partition,
    options: BackendOptions,
    own: RtlOptions,
    stages: Schedule,
    names: TopNames,
) -> dict[str, Any]:
    inputs = zip(partition.inputs, names.inputs, design.inputs, strict=True)
    outputs = zip(partition.outputs, names.outputs, design.outputs, strict=True)
    control = stages.latency + (stages.interval - 1).bit_length()  # valid bits, and the counter
    return {
        "version": 1,
        "top": names.top,
        "interface": own.interface,
        "simulator": own.simulator,
        "clock_ns": options.clock_ns,
        "cutoff_ns": stages.cutoff,
        "longest_ns": stages.longest,
        "ii": stages.interval,
        "latency": stages.latency,
        "registers_between": stages.between(design) + control,
        "ports": {
            "inputs": [_port(p.name, v, q.size, q.type, p.shape) for p, v, q in inputs],
            "outputs": [
                _port(p.name, v, design.of(name).size, p.type, p.shape) for p, v, name in outputs
            ],
        },
        "blocks": [_block(design, block, stages, names) for block in design.blocks],
    }


def _port(
    name: str, verilog: str, size: int, type_: FixedType, shape: tuple[int, ...]
) -> dict[str, Any]:
    held = {"name": name, "verilog": verilog, "size": size, "width": type_.width}
    return held | {"signed": type_.signed, "type": str(type_), "shape": list(shape)}


def _block(design: Design, block: Block, stages: Schedule, names: TopNames) -> dict[str, Any]:
    steps = stages.steps[block.name]
    registers = stages.registers(block)
    if steps > 1:
        sources = _sources(design, block)
        registers = register_bits(block, stages.blocks[block.name], sources, steps)
    kinds = Counter(type(op).__name__ for op in block.circuit.ops)
    return {
        "name": block.name,
        "kind": block.kind,
        "module": names.modules.get(block.name, ""),
        "file": f"rtl/{names.modules[block.name]}.v" if block.name in names.modules else "",
        "sources": list(block.sources),
        "instances": len(block.index),
        "inputs": len(block.circuit.inputs),
        "outputs": len(block.circuit.outputs),
        "bus": str(block.bus),
        "type": str(block.type),
        "steps": steps,
        "copies": copies_of(block, stages.steps),
        "first_stage": stages.enter[block.name],
        "last_stage": stages.leave[block.name],
        "registers": registers,
        "operations": dict(sorted(kinds.items())),
        "where": str(block.where),
    }


def _constraints(record: dict[str, Any]) -> dict[str, str]:
    """The clock, and no time lost outside the ports, for tools that read SDC and for Vivado."""
    clock = record["clock_ns"]
    stalls = record["interface"] == "handshake"
    ins = ["rst", "in_valid"] + (["out_ready"] if stalls else [])
    outs = ["out_valid"] + (["in_ready"] if stalls else [])
    ins += [f"{port['verilog']}[*]" for port in record["ports"]["inputs"]]
    outs += [f"{port['verilog']}[*]" for port in record["ports"]["outputs"]]
    text = (
        f"create_clock -name clk -period {clock:.3f} [get_ports clk]\n"
        f"set_input_delay 0.000 -clock clk [get_ports {{{' '.join(ins)}}}]\n"
        f"set_output_delay 0.000 -clock clk [get_ports {{{' '.join(outs)}}}]\n"
    )
    return {"constraints.sdc": text, "constraints.xdc": text}
