"""What synthesis made of a design: cells by kind, area, delay."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Flip-flops of the Xilinx families: FDRE, FDSE, FDCE, FDPE and those with inverted clocks.
_FDRE = re.compile(r"FD[RSCP]E(_1)?$")
#: Figures that only FPGAs have, in reports by the same names.
_OF_FPGAS = ("lut", "packed", "carry", "muxf", "dsp", "shift_registers", "inverters")


@dataclass(frozen=True)
class Figures:
    """Cells of a mapped design; designs of several parts are sums.

    Attributes:
        cells: how many of each kind, by name; blocks that are left as boxes are not among them.
        delay_ns: the longest path between registers, inputs and outputs, by the mapper's own
            timing; of a sum, the longest of any part.
        flip_flops: one per bit.
        packed: LUTs after pairing small ones into one site, as Yosys estimates it; 0 if unknown.
        area_um2: of the cells, without wires; 0 where the target has none.
        seconds: of processor time that the synthesis took; not a figure of the design.
    """

    cells: tuple[tuple[str, int], ...] = ()
    delay_ns: float = 0.0
    flip_flops: int = 0
    packed: int = 0
    area_um2: float = 0.0
    seconds: float = 0.0

    @property
    def luts(self) -> tuple[int, ...]:
        """LUT1, LUT2, ... LUT6."""
        known = dict(self.cells)
        return tuple(known.get(f"LUT{size}", 0) for size in range(1, 7))

    @property
    def lut(self) -> int:
        """LUT1 to LUT6 together, each counted as one; nothing is packed."""
        return sum(self.luts)

    @property
    def carry(self) -> int:
        """CARRY4 and CARRY8 primitives."""
        return self._named("CARRY")

    @property
    def muxf(self) -> int:
        """Wide multiplexers MUXF7 to MUXF9."""
        return self._named("MUXF")

    @property
    def dsp(self) -> int:
        """DSP blocks; the flows allow none."""
        return self._named("DSP")

    @property
    def shift_registers(self) -> int:
        """LUTs that serve as shift registers (SRL16, SRL32); not among `lut`."""
        return self._named("SRL")

    @property
    def inverters(self) -> int:
        """INV primitives, which a vendor's tool mostly absorbs; not among `lut`."""
        return dict(self.cells).get("INV", 0)

    @property
    def gates(self) -> int:
        """Cells, flip-flops included."""
        return sum(count for _, count in self.cells)

    def _named(self, prefix: str) -> int:
        return sum(count for name, count in self.cells if name.startswith(prefix))

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            _sorted(Counter(dict(self.cells)) + Counter(dict(other.cells))),
            max(self.delay_ns, other.delay_ns),
            self.flip_flops + other.flip_flops,
            self.packed + other.packed,
            self.area_um2 + other.area_um2,
            self.seconds + other.seconds,
        )

    def times(self, count: int) -> Figures:
        """`count` copies side by side, of one synthesis."""
        return Figures(
            tuple((name, number * count) for name, number in self.cells),
            self.delay_ns,
            self.flip_flops * count,
            self.packed * count,
            self.area_um2 * count,
            self.seconds,
        )

    def to_json(self) -> dict[str, Any]:
        """A record for reports: counts by their names, `area_um2` where there is one."""
        record: dict[str, Any] = {"flip_flops": self.flip_flops, "delay_ns": self.delay_ns}
        if self.area_um2:
            record |= {"area_um2": round(self.area_um2, 3), "gates": self.gates}
        else:
            record |= {name: getattr(self, name) for name in _OF_FPGAS}
        return {**record, "cells": dict(self.cells)}


def _sorted(counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((name, count) for name, count in counts.items() if count))


def read_stat(
    text: str,
    delay_ns: float,
    registers: frozenset[str] = frozenset(),
    boxes: frozenset[str] = frozenset(),
) -> Figures:
    """Read what `stat -json` printed, with `-tech xilinx` or `-liberty FILE`.

    Args:
        text: the JSON document; the one design in it is flat.
        delay_ns: from the mapper.
        registers: names of the library's flip-flops; those of FPGAs are known.
        boxes: modules that were left as boxes, and do not count.

    Raises:
        ValueError, KeyError, TypeError: it is not such a document.
    """
    design = json.loads(text)["design"]
    named = ((name.removeprefix("\\"), n) for name, n in design["num_cells_by_type"].items())
    # Yosys' own kinds ($scopeinfo) are remarks, no hardware
    counts = {name: int(n) for name, n in named if name not in boxes and name[0] != "$"}
    flip_flops = sum(n for name, n in counts.items() if name in registers or _FDRE.match(name))
    return Figures(
        _sorted(counts),
        delay_ns,
        flip_flops,
        int(design.get("estimated_num_lc", 0)),
        float(design.get("area", 0.0)),
    )


def abc9_delay(log: str) -> float:
    """Nanoseconds of the longest path, from the last line `Del = ... ps` of abc9's mapper.

    It counts the cells' own delays of the 7 series and 300 ps for the wire behind each LUT.
    """
    found = re.findall(r"\bDel =\s*([\d.]+)\.\s", log)
    return float(found[-1]) / 1000 if found else 0.0


def abc_delay(log: str) -> float:
    """Nanoseconds of the longest path, from abc's `stime` (cells alone, no wires)."""
    found = re.findall(r"\bDelay =\s*([\d.]+) ps", log)
    return float(found[-1]) / 1000 if found else 0.0
