"""Estimate an RTL project: layer by layer and summed, or the whole design in one synthesis."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hqc.backends.estimate import opensta, yosys
from hqc.backends.estimate.figures import Figures
from hqc.backends.estimate.flows import Flow, flow_of
from hqc.backends.estimate.measure import TIMEOUT, Measured, Tools, measure_all
from hqc.backends.estimate.opensta import Timing
from hqc.backends.estimate.parts import MANY, Part, Project, read_project
from hqc.backends.estimate.yosys import SCRIPT, Job
from hqc.backends.native import digest_of
from hqc.diagnostics import reject
from hqc.diagnostics.events import Watch, ignore, stage
from hqc.pipeline.options import usage

_WITHIN = "the longest path is that of any one layer; --flat follows paths through several"
_TIMED = "slack: OpenSTA on the joined netlists, paths through several layers included"


@dataclass(frozen=True)
class Row:
    """Figures of a part, all its copies together.

    Attributes:
        part: which.
        figures: of it.
        cached: whether they were known before.
    """

    part: Part
    figures: Figures
    cached: bool

    def size(self, asic: bool) -> float:
        """What shares are of: area of ASICs, LUTs of FPGAs."""
        return self.figures.area_um2 if asic else self.figures.lut


@dataclass(frozen=True)
class Estimate:
    """What an open synthesis makes of a design.

    Attributes:
        flow: for which target, and how.
        tool: that synthesised, with its version.
        clock_ns: the period that the figures are for.
        latency, interval: clock cycles from input to output, and between two inputs.
        flat: whether the design was synthesised as one.
        rows: layers in the order they run, then the wiring between them; one if flat.
        timing: of the mapped netlist, for ASIC targets where OpenSTA is installed.
    """

    flow: Flow
    tool: str
    clock_ns: float
    latency: int
    interval: int
    flat: bool
    rows: tuple[Row, ...]
    timing: Timing | None

    @property
    def total(self) -> Figures:
        """The sum."""
        return sum((row.figures for row in self.rows), Figures())

    @property
    def key(self) -> str:
        """What it is called in `report.json`."""
        return f"{self.flow.target}, flat" if self.flat else self.flow.target

    @property
    def notes(self) -> tuple[str, ...]:
        """What the figures are and are not, one sentence each."""
        notes = list(self.flow.words)
        if self.timing:
            notes.append(_TIMED)
        elif not self.flat:
            notes.append(_WITHIN)
        delay = self.total.delay_ns
        if not self.flow.is_asic and delay > self.clock_ns:
            notes.append(
                f"{delay:.1f} ns are more than the clock of {self.clock_ns:g} ns, which the "
                "schedule keeps by faster cells than these: a smaller latency_cutoff makes "
                "shorter stages"
            )
        if any(row.part.count > 1 for row in self.rows):
            notes.append(f"of layers with more than {MANY} instances one is synthesised, times n")
        return tuple(notes)

    def to_json(self) -> dict[str, Any]:
        """Plain data for `report.json`: figures, tool, version, flow and what they are not."""
        return {
            "target": self.flow.target,
            "tool": self.tool,
            "flow": self.flow.name,
            "notes": list(self.notes),
            "clock_ns": self.clock_ns,
            "latency": self.latency,
            "ii": self.interval,
            "flat": self.flat,
            "total": self.total.to_json(),
            "timing": asdict(self.timing) if self.timing else None,
            "layers": [self._row(row) for row in self.rows],
        }

    def _row(self, row: Row) -> dict[str, Any]:
        part, whole = row.part, sum(r.size(self.flow.is_asic) for r in self.rows)
        named = {"name": part.name, "kind": part.kind, "where": part.where, "count": part.count}
        share = row.size(self.flow.is_asic) / whole if whole else 0.0
        return {**named, "share": round(share, 4), **row.figures.to_json()}


def estimate_project(
    directory: Path,
    target: str = "fpga-xcup",
    clock_ns: float | None = None,
    *,
    flat: bool = False,
    timeout: float = TIMEOUT,
    watch: Watch = ignore,
) -> Estimate:
    """Synthesise an RTL project with open tools.

    Args:
        directory: that holds `rtl.json`.
        target: "fpga-xcup", "asic-osu018" or "asic-PATH.lib".
        clock_ns: the period in nanoseconds; default the project's.
        flat: the design in one run, instead of each layer by itself.
        timeout: seconds that each run may take.
        watch: told of each run.

    Raises:
        HqcError: HQC006, no such project; HQC430, no Yosys; HQC431, the Verilog is not valid;
            HQC432, no usable Liberty file; HQC433, a run took too long; HQC434, unknown target.
    """
    project = read_project(directory)
    clock = project.clock_ns if clock_ns is None else clock_ns
    if clock <= 0:
        raise usage(f"--clock {clock:g}: nanoseconds, more than 0")
    flow = flow_of(target, clock)
    tools = Tools(yosys.find(), flow, timeout, watch=watch)
    parts = (project.whole,) if flat else project.parts
    measured = measure_all([part.module for part in parts], tools)
    rows = tuple(
        Row(part, found.figures.times(part.count), found.cached)
        for part, found in zip(parts, measured, strict=True)
    )
    timing = _timing(project, parts, measured, tools)
    name, latency, interval = str(tools.yosys), project.latency, project.interval
    return Estimate(flow, name, clock, latency, interval, flat, rows, timing)


def _timing(
    project: Project, parts: Sequence[Part], measured: Sequence[Measured], tools: Tools
) -> Timing | None:
    """OpenSTA's word on the joined netlists; None for FPGAs, or where it is not installed."""
    library, program = tools.flow.liberty, opensta.find_sta()
    if library is None or program is None:
        return None
    keys = [f"{part.module.top} {found.key}" for part, found in zip(parts, measured, strict=True)]
    clock = tools.flow.clock_ns
    key = digest_of([opensta.version_of(program), f"{clock:g}", library.sha256, *keys])
    if (known := tools.cache.record(key)) is not None:
        return Timing(**known)
    with (
        stage("timing of the joined netlists", tools.watch) as note,
        tempfile.TemporaryDirectory(prefix="hqc-sta-") as scratch,
    ):
        folder = Path(scratch)
        _join(project, parts, measured, tools, folder)
        found = opensta.time_netlist(program, folder, project.top, library, clock, tools.timeout)
        note.detail = f"slack {found.slack_ns:.2f} ns"
    tools.cache.keep(key, asdict(found))
    return found


def _join(
    project: Project,
    parts: Sequence[Part],
    measured: Sequence[Measured],
    tools: Tools,
    folder: Path,
) -> None:
    """One netlist of single-bit ports from the layers' netlists, as they were mapped."""
    lines = []
    for index, (part, found) in enumerate(zip(parts, measured, strict=True)):
        name = f"part{index}.v"
        if part.count > 1:  # the module that lays out the copies is wires, and read as it is
            layout = part.module.files[0].read_text(encoding="utf-8")
            (folder / f"layout{index}.v").write_text(layout, encoding="utf-8")
            lines += [f"read_verilog -sv layout{index}.v", f"delete {part.module.top}"]
        (folder / name).write_text(tools.cache.netlist(found.key, part.module), encoding="utf-8")
        lines.append(f"read_verilog {name}")
    lines += [
        f"hierarchy -top {project.top}",
        "flatten",
        "opt_clean -purge",
        "splitnets -ports",
        "opt_clean -purge",
        f"write_verilog -noattr -noexpr -nohex -nodec {opensta.JOINED}",
    ]
    (folder / SCRIPT).write_text("\n".join(lines) + "\n", encoding="utf-8")
    job = Job("the joined netlists", folder)
    for _ in yosys.run_all(tools.yosys, [job], tools.timeout, 1):
        pass
    if not (folder / opensta.JOINED).is_file():
        raise reject("HQC405", "Yosys left no joined netlist")
