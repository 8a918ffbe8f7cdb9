"""What a simulator needs to know of an emitted project, and a module that hides its ports."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqc.analysis import partition as cut
from hqc.analysis.partition import Partition
from hqc.diagnostics import HqcError, reject

DESCRIPTION = "rtl.json"


@dataclass(frozen=True)
class Wires:
    """A port of the top module: `size` elements of `width` bits, element 0 lowest."""

    name: str
    verilog: str
    size: int
    width: int
    signed: bool

    @property
    def bits(self) -> int:
        """Bits of the port."""
        return self.size * self.width


@dataclass(frozen=True)
class Interface:
    """A project as a simulator sees it.

    Attributes:
        directory: the project.
        sources: its Verilog files.
        top: name of the top module.
        handshake: whether both sides have ready; else results leave a constant time later, and
            only a design that takes no sample in some cycles has `in_ready`.
        latency: promised cycles from a sample to its result.
        ii: promised cycles between samples.
        clock_ns: the clock period the project is made for.
        simulator: which one the user wants: "auto", "verilator" or "icarus".
        inputs, outputs: ports, in the order of the partition's.
    """

    directory: Path
    sources: tuple[Path, ...]
    top: str
    handshake: bool
    latency: int
    ii: int
    clock_ns: float
    simulator: str
    inputs: tuple[Wires, ...]
    outputs: tuple[Wires, ...]

    @property
    def answers(self) -> bool:
        """Whether the design says when it takes a sample, with `in_ready`."""
        return self.handshake or self.ii > 1

    @property
    def wrapper(self) -> str:
        """Name of the module of `wrapper_text`."""
        return f"{self.top}_hqc_bench"


def read_interface(directory: Path, partition: Partition) -> Interface:
    """Read `rtl.json` of a project.

    Raises:
        HqcError: HQC006, there is no project or it is damaged; HQC402, its ports are not those
            of the partition.
    """
    document = _document(directory)
    try:
        found = _interface(directory, document)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(directory, f"{type(error).__name__}: {error}") from error
    if not found.sources:
        raise _damaged(directory, "there is no Verilog in rtl/")
    for side, ports, wires in (
        ("inputs", partition.inputs, found.inputs),
        ("outputs", partition.outputs, found.outputs),
    ):
        _compare(side, ports, wires)
    return found


def _document(directory: Path) -> Mapping[str, Any]:
    try:
        document = json.loads((directory / DESCRIPTION).read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(directory, f"{DESCRIPTION}: {error}") from error
    if not isinstance(document, dict) or document.get("version") != 1:
        raise _damaged(directory, f"{DESCRIPTION} is of another version")
    return document


def _interface(directory: Path, document: Mapping[str, Any]) -> Interface:
    kind = document["interface"]
    if kind not in ("fixed", "handshake"):
        raise ValueError(f"interface {kind!r}")
    return Interface(
        directory=directory,
        sources=tuple(sorted((directory / "rtl").glob("*.v"))),
        top=_word(document["top"]),
        handshake=kind == "handshake",
        latency=_natural(document["latency"], 0),
        ii=_natural(document["ii"], 1),
        clock_ns=float(document["clock_ns"]),
        simulator=str(document.get("simulator", "auto")),
        inputs=tuple(_wires(port) for port in document["ports"]["inputs"]),
        outputs=tuple(_wires(port) for port in document["ports"]["outputs"]),
    )


def _wires(port: Mapping[str, Any]) -> Wires:
    size, width = _natural(port["size"], 1), _natural(port["width"], 1)
    signed = port["signed"]
    if type(signed) is not bool:
        raise TypeError(f"signed {signed!r}")
    return Wires(str(port["name"]), _word(port["verilog"]), size, width, signed)


def _word(text: Any) -> str:
    if not (isinstance(text, str) and text.isidentifier() and text.isascii()):
        raise ValueError(f"{text!r} is no identifier")
    return text


def _natural(value: Any, lowest: int) -> int:
    if type(value) is not int or value < lowest:
        raise ValueError(f"{value!r} is no number from {lowest}")
    return value


def _compare(side: str, ports: Sequence[cut.Port], wires: Sequence[Wires]) -> None:
    wanted = [(p.name, math.prod(p.shape), p.type.width, p.type.signed) for p in ports]
    found = [(w.name, w.size, w.width, w.signed) for w in wires]
    if wanted != found:
        first = next((pair for pair in zip(wanted, found, strict=False) if pair[0] != pair[1]), ())
        raise reject(
            "HQC402",
            f"the {side} of the project are not those of the model",
            notes=tuple(
                f"the {who} says {name}: {size} elements of {width} bits, "
                f"{'signed' if signed else 'unsigned'}"
                for who, (name, size, width, signed) in zip(
                    ("model", "project"), first, strict=False
                )
            )
            or (f"the model has {len(wanted)}, the project {len(found)}",),
        )


def _damaged(directory: Path, reason: str) -> HqcError:
    return reject(
        "HQC006",
        f"{directory} is no project of the rtl backend, or a damaged one",
        notes=(reason,),
        helps=("compile the model again",),
    )


def wrapper_text(interface: Interface) -> str:
    """A module around the top: all inputs on one bus x, all outputs on one bus y."""
    x, y = (sum(w.bits for w in side) for side in (interface.inputs, interface.outputs))
    pins = [".clk(clk)", ".rst(rst)", ".in_valid(in_valid)", ".out_valid(out_valid)"]
    if interface.answers:
        pins.append(".in_ready(in_ready)")
    if interface.handshake:
        pins.append(".out_ready(out_ready)")
    pins += [*_slices("x", interface.inputs), *_slices("y", interface.outputs)]
    ready = "" if interface.answers else "  assign in_ready = 1'b1;\n"
    return (
        "`default_nettype none\n"
        f"module {interface.wrapper} (input wire clk, input wire rst, input wire in_valid,\n"
        f"  input wire out_ready, input wire [{x - 1}:0] x,\n"
        f"  output wire in_ready, output wire out_valid, output wire [{y - 1}:0] y);\n"
        f"{ready}"
        f"  {interface.top} dut (\n    " + ",\n    ".join(pins) + ");\nendmodule\n"
    )


def _slices(bus: str, ports: Sequence[Wires]) -> list[str]:
    pins, first = [], 0
    for port in ports:
        pins.append(f".{port.verilog}({bus}[{first + port.bits - 1}:{first}])")
        first += port.bits
    return pins
