"""Figures by the content of what was synthesised, so that nothing is synthesised twice.

The key is the hash of the Verilog without comments and with its modules' names normalised, of the
flow's script, the Liberty file and the tool. Two layers of the same logic are one entry, whatever
their names; a layer whose bits change is a new one, and the others stay.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hqc.backends.estimate.figures import Figures
from hqc.backends.estimate.flows import Flow
from hqc.backends.estimate.yosys import Yosys
from hqc.backends.native import cache_folder, digest_of, write_whole
from hqc.diagnostics import reject

_COMMENTS = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_SPACE = re.compile(r"\s+")
_MODULE = re.compile(r"\bmodule\s+(\w+)")
_NAME = re.compile(r"[A-Za-z_]\w*")
#: What the n-th module is called where names are normalised.
_PLAIN = "hqc_module_{}_"


@dataclass(frozen=True)
class Module:
    """A module to synthesise by itself.

    Attributes:
        label: what it is, in words.
        top: its name.
        files: Verilog files that hold it and what it instantiates.
        boxes: Verilog of modules whose inside is left out.
    """

    label: str
    top: str
    files: tuple[Path, ...]
    boxes: str = ""

    @property
    def box_names(self) -> frozenset[str]:
        """Names of the modules in `boxes`."""
        return frozenset(_MODULE.findall(self.boxes))

    def text(self) -> str:
        """All Verilog without comments.

        Raises:
            HqcError: HQC006, a file is missing.
        """
        texts = [_read(path) for path in self.files]
        return _COMMENTS.sub(" ", "\n".join((*texts, self.boxes)))

    def normalise(self, text: str, back: bool = False) -> str:
        """A text with the modules' names replaced by numbers, or numbers by the names."""
        names = {name: _PLAIN.format(i) for i, name in enumerate(_MODULE.findall(self.text()))}
        if back:
            names = {plain: name for name, plain in names.items()}
        return _NAME.sub(lambda found: names.get(found[0], found[0]), text)


def key_of(module: Module, flow: Flow, tool: Yosys) -> str:
    """The hash of everything that the figures depend on.

    Raises:
        HqcError: HQC006, a file is missing.
    """
    code = module.normalise(f"{module.top} {_SPACE.sub(' ', module.text())}")
    library = flow.liberty.sha256 if flow.liberty else ""
    return digest_of((code, flow.script(tool, (), "TOP"), library, str(tool)))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise reject("HQC006", f"{path} cannot be read: {error}") from error


@dataclass(frozen=True)
class Cache:
    """A folder of records, and of netlists where the flow leaves them.

    Attributes:
        folder: made on first use.
    """

    folder: Path

    @classmethod
    def of_user(cls) -> Cache:
        """Beside the compiled emulations: $HQC_CACHE_DIR, else the user's cache folder."""
        return cls(cache_folder().parent / "estimate")

    def record(self, key: str) -> dict[str, Any] | None:
        """What was kept; None where nothing was, or where it cannot be read."""
        try:
            found = json.loads((self.folder / f"{key}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def figures(self, key: str) -> Figures | None:
        """Figures that were kept; None where none were, or where they are of another format."""
        record = self.record(key)
        if record is None or set(record) != {f.name for f in dataclasses.fields(Figures)}:
            return None
        return Figures(**{**record, "cells": tuple((name, n) for name, n in record["cells"])})

    def netlist(self, key: str, module: Module) -> str:
        """The mapped netlist that was kept, in the names of a module of that key."""
        return module.normalise(_read(self.folder / f"{key}.v"), back=True)

    def keep(self, key: str, record: Mapping[str, Any], netlist: str | None = None) -> None:
        """Keep a record, and a netlist in normalised names, each in one step.

        Raises:
            HqcError: HQC405, the folder cannot be written.
        """
        try:
            if netlist is not None:
                write_whole(self.folder / f"{key}.v", netlist)
            write_whole(self.folder / f"{key}.json", json.dumps(dict(record)))
        except OSError as error:
            raise reject(
                "HQC405",
                f"the cache folder {self.folder} cannot be written: {error.strerror}",
                helps=("set HQC_CACHE_DIR to a folder of your own",),
            ) from error
