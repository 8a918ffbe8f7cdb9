"""The command that estimates area and delay with open tools: estimate."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from hqc.artifact import Artifact
from hqc.artifact.report_file import read_report
from hqc.cli.console import Console
from hqc.cli.estimate_quick import predict
from hqc.cli.result import Result, table

if TYPE_CHECKING:
    from hqc.backends.estimate.estimate import Estimate
    from hqc.backends.estimate.figures import Figures

#: Values of a vendor's report that are printed beside the estimate.
_PLAIN = (str, int, float)


def estimate_command(options: Namespace, console: Console) -> Result:
    """`hqc estimate`."""
    if options.quick:
        return predict(options, console)
    from hqc.backends.estimate.artifact import estimate_artifact

    artifact = Artifact.open(options.directory)
    found = estimate_artifact(
        artifact,
        options.target,
        options.clock,
        flat=options.flat,
        timeout=options.timeout,
        watch=console.watch,
    )
    built = read_report(artifact.path).get("build")
    lines = [*_head(found), "", table(_rows(found)), "", *_ending(found)]
    if built:
        vendor = [(k, str(v)) for k, v in built.items() if isinstance(v, _PLAIN)]
        lines += ["", f"beside it, {artifact.manifest.backend}'s own report:", table(vendor)]
    document = {
        "directory": str(artifact.path),
        "estimate": found.to_json(),
        "cached": sum(row.cached for row in found.rows),
        "build": built,
    }
    return Result("\n".join(lines), document)


def _head(found: Estimate) -> list[str]:
    cycles = f"{found.latency} cycles, one sample every {found.interval}"
    return [
        f"{found.flow.target}: {found.tool}, {found.flow.name}",
        f"  clock {found.clock_ns:g} ns, latency {cycles}",
    ]


def _rows(found: Estimate) -> list[tuple[str, ...]]:
    asic = found.flow.is_asic
    figures = ("area um2", "gates", "FF") if asic else ("LUT", "packed", "FF", "CARRY")
    whole = sum(row.size(asic) for row in found.rows) or 1.0
    heads = (f"{name:>9}" for name in (*figures, "delay ns", "share"))
    rows = [("layer", "kind", "n", *heads, "")]
    for row in found.rows:
        named = (row.part.name, row.part.kind, str(row.part.count))
        share, known = row.size(asic) / whole, "known before" if row.cached else ""
        rows.append((*named, *_counts(row.figures, asic), f"{share:9.1%}", known))
    return [*rows, ("sum", "", "", *_counts(found.total, asic), "", "")]


def _counts(f: Figures, asic: bool) -> tuple[str, ...]:
    fpga = (f.lut, f.packed, f.flip_flops, f.carry)
    counts = (f.area_um2, f.gates, f.flip_flops) if asic else fpga
    return (*(f"{count:9,.0f}" for count in counts), f"{f.delay_ns:9.2f}")


def _ending(found: Estimate) -> list[str]:
    lines = []
    if timing := found.timing:
        state = "met" if timing.slack_ns >= 0 else "missed"
        lines.append(
            f"{timing.tool}: clock of {timing.clock_ns:g} ns {state}, slack {timing.slack_ns:.2f} "
            f"ns; longest path {timing.path_ns:.2f} ns"
        )
        lines.append(f"  from {timing.start} to {timing.end}")
    return [*lines, *(f"  {note}" for note in found.notes)]
