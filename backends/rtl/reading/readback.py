"""Read an RTL project back from its text: the design that the Verilog says, and nothing else.

`rtl.json` says which module is which block and of which type the elements of buses are; every
wire, number, index and register comes from the Verilog. Comments are ignored. What is read has
the schedule's promise in it: all paths into an operation pass as many registers, in a block and
between blocks, so a design that is proven computes its outputs from one sample, each cycle, after
the latency in `rtl.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqc.backends.rtl.circuit import Wire
from hqc.backends.rtl.design import Block, Design, Port
from hqc.backends.rtl.reading.text import Module, read_source
from hqc.backends.rtl.reading.top import Named, read_top
from hqc.diagnostics import HqcError, reject
from hqc.numerics.types import FixedType
from hqc.text import parse_type


@dataclass(frozen=True, eq=False)
class Project:
    """What an RTL project says.

    Attributes:
        design: of its Verilog; input ports carry their Verilog names.
        outputs: the model's names of its output ports, and the types of their elements.
        latency: cycles.
        stalls: whether the interface is a handshake.
        places: file and line of every wire, by block and wire.
    """

    design: Design
    outputs: tuple[tuple[str, FixedType], ...]
    latency: int
    stalls: bool
    places: Mapping[tuple[str, Wire], str]


def read_project(directory: Path) -> Project:
    """Read `rtl.json` and every file in `rtl/`.

    Raises:
        HqcError: HQC425, something is not as hqc writes it; the message names file and line.
    """
    record = _record(directory)
    try:
        return _project(directory, record)
    except (KeyError, TypeError, ValueError, IndexError) as reason:
        raise _damaged(f"{type(reason).__name__}: {reason}") from None


def _record(directory: Path) -> dict[str, Any]:
    try:
        found = json.loads((directory / "rtl.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        raise _damaged(str(reason)) from None
    if not isinstance(found, dict) or found.get("version") != 1:
        raise _damaged("it is of another version")
    return found


def _damaged(what: str) -> HqcError:
    return reject("HQC425", f"rtl.json is not as hqc writes it: {what}")


def _project(directory: Path, record: Mapping[str, Any]) -> Project:
    stalls = {"fixed": False, "handshake": True}[record["interface"]]
    modules = _modules(directory, record)
    inputs = [_port(held) for held in record["ports"]["inputs"]]
    outputs = [_port(held) for held in record["ports"]["outputs"]]
    named = [_named(held) for held in record["blocks"]]
    top = read_top(modules, record["top"], inputs, outputs, named, record["latency"], stalls)
    design = Design(tuple(inputs), top.blocks, top.outputs)
    _check_promises(record, top.blocks)
    names = [held["name"] for held in record["ports"]["outputs"]]
    types = tuple(zip(names, (port.type for port in outputs), strict=True))
    return Project(design, types, record["latency"], stalls, top.places)


def _named(held: Mapping[str, Any]) -> Named:
    types = _type(held["bus"]), _type(held["type"])
    return Named(held["name"], held["kind"], held["module"], *types)


def _type(text: str) -> FixedType:
    try:
        return parse_type(text)
    except HqcError:
        raise _damaged(f"{text!r} is no type") from None


def _port(held: Mapping[str, Any]) -> Port:
    type_ = _type(held["type"])
    if (type_.width, type_.signed) != (held["width"], held["signed"]):
        raise _damaged(f"port {held['name']} has two types")
    return Port(held["verilog"], type_, held["size"])


def _check_promises(record: Mapping[str, Any], blocks: tuple[Block, ...]) -> None:
    """What others read from `rtl.json` is what was found in the text."""
    for held, block in zip(record["blocks"], blocks, strict=True):
        given = (sorted(held["sources"]), held["instances"] * held["outputs"])
        if given != (sorted(block.sources), block.size):
            raise _damaged(f"block {block.name} has other sources or elements in the text")


def _modules(directory: Path, record: Mapping[str, Any]) -> dict[str, Module]:
    """Every module of the project, by name; no other file is in the folder."""
    top = record["top"]
    files = {f"rtl/{top}.v"} | {held["file"] for held in record["blocks"] if held["file"]}
    there = {f"rtl/{file.name}" for file in (directory / "rtl").iterdir()}
    if there != files:
        names = ", ".join(sorted(there ^ files))
        raise reject("HQC425", f"rtl/ and rtl.json differ in their files: {names}")
    found: dict[str, Module] = {}
    for file in sorted(files):
        for module in read_source(directory / file, file):
            if module.name in found:
                raise module.reject("it stands twice")
            found[module.name] = module
    return found
