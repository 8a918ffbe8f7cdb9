"""The parts of an RTL project that are synthesised separately: its layers, and what joins them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqc.backends.estimate.cache import Module
from hqc.diagnostics import HqcError, reject

RECORD = "rtl.json"
#: From more instances than this on, one is synthesised and counted so many times.
MANY = 8
_HEADER = re.compile(r"\bmodule\s+(\w+)\s*\((.*?)\)\s*;", re.DOTALL)


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        name: of the layer; "top" is the wiring between layers, with its registers.
        kind: of the layer; "wiring" for the top.
        module: what is synthesised for it.
        count: how often that stands in the design.
        where: the node of the model that it comes from.
    """

    name: str
    kind: str
    module: Module
    count: int = 1
    where: str = ""


@dataclass(frozen=True)
class Project:
    """What `rtl.json` says, as far as estimates need it.

    Attributes:
        directory: of the project.
        top: name of the top module.
        clock_ns: the period it was written for.
        latency, interval: clock cycles from input to output, and between two inputs.
        files: all Verilog files, the top's first.
        parts: layers in the order they run, then the top.
    """

    directory: Path
    top: str
    clock_ns: float
    latency: int
    interval: int
    files: tuple[Path, ...]
    parts: tuple[Part, ...]

    @property
    def whole(self) -> Part:
        """The design as one part."""
        return Part("design", "flat", Module("the whole design", self.top, self.files))


def read_project(directory: Path) -> Project:
    """Read an RTL project.

    Raises:
        HqcError: HQC006, the directory holds none, or a damaged one.
    """
    try:
        record = json.loads((directory / RECORD).read_bytes())
        return _project(directory, record)
    except OSError as error:
        raise _unusable(directory, f"{RECORD}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{RECORD} is damaged: {type(error).__name__}: {error}"
        raise _unusable(directory, reason) from error


def _project(directory: Path, record: dict[str, Any]) -> Project:
    top = str(record["top"])
    blocks = [block for block in record["blocks"] if block["file"]]
    files = [directory / block["file"] for block in blocks]
    own = directory / "rtl" / f"{top}.v"
    layers = tuple(_layer(directory, block) for block in blocks)
    boxes = "\n".join(_box(directory / block["file"], block["module"]) for block in blocks)
    rest = Part("top", "wiring", Module("the wiring between layers", top, (own,), boxes))
    return Project(
        directory,
        top,
        float(record["clock_ns"]),
        int(record["latency"]),
        int(record["ii"]),
        (own, *files),
        (*layers, rest),
    )


def _layer(directory: Path, block: dict[str, Any]) -> Part:
    path, name = directory / block["file"], str(block["module"])
    alone = int(block.get("steps", 1)) == 1  # else copies work step by step, under one control
    count = int(block["instances"]) if alone and int(block["instances"]) > MANY else 1
    one = f"{name}_one"
    if count > 1 and one not in dict(_headers(path)):
        raise ValueError(f"{path.name} has no module {one}")
    module = Module(f"layer {block['name']}", one if count > 1 else name, (path,))
    return Part(str(block["name"]), str(block["kind"]), module, count, str(block["where"]))


def _box(path: Path, module: str) -> str:
    """A module's header alone, so that its inside is left out of what instantiates it."""
    header = dict(_headers(path)).get(module)
    if header is None:
        raise ValueError(f"{path.name} has no module {module}")
    return f"(* blackbox *) module {module} ({header}); endmodule"


def _headers(path: Path) -> Iterator[tuple[str, str]]:
    text = path.read_text(encoding="utf-8")
    yield from ((found[1], found[2]) for found in _HEADER.finditer(text))


def _unusable(directory: Path, reason: str) -> HqcError:
    return reject(
        "HQC006",
        f"{directory} is not an RTL project that hqc wrote: {reason}",
        helps=("compile the model again: hqc compile MODEL -b rtl -o NEW_DIRECTORY",),
    )
