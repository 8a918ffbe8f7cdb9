"""Estimates of compiled directories: of the RTL they hold, or of the RTL of the same model."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hqc.artifact import Artifact
from hqc.artifact.assemble import add_to_report
from hqc.artifact.report_file import read_report
from hqc.backends.estimate.estimate import Estimate, estimate_project
from hqc.backends.estimate.measure import TIMEOUT
from hqc.backends.estimate.parts import RECORD
from hqc.diagnostics.events import Watch, ignore, stage
from hqc.pipeline.backend import BackendOptions

#: Where estimates stand in `report.json`, by `Estimate.key`.
REPORT_KEY = "estimate"


def estimate(
    directory: str | Path,
    target: str = "fpga-xcup",
    clock_ns: float | None = None,
    *,
    flat: bool = False,
    timeout: float = TIMEOUT,
    watch: Watch = ignore,
) -> Estimate:
    """Area and delay of a compiled directory, synthesised with open tools.

    Its figures are added to `report.json`, under `estimate`.

    Args:
        directory: that hqc compiled, for any backend. One without RTL is lowered to RTL, with the
            clock it was compiled for, and that is what the figures are of.
        target: "fpga-xcup", "asic-osu018", or "asic-PATH.lib" with a Liberty file.
        clock_ns: the period in nanoseconds; default the one of the compile.
        flat: synthesise the design in one run instead of layer by layer.
        timeout: seconds that each run may take.
        watch: told of each run.

    Raises:
        HqcError: HQC006, not such a directory; HQC430, no Yosys; HQC431, its Verilog is not
            valid; HQC432, no usable Liberty file; HQC433, a run took too long; HQC434, unknown
            target; HQC401, HQC421, the model has no RTL.
    """
    artifact = Artifact.open(directory)
    return estimate_artifact(artifact, target, clock_ns, flat=flat, timeout=timeout, watch=watch)


def estimate_artifact(
    artifact: Artifact,
    target: str,
    clock_ns: float | None,
    *,
    flat: bool,
    timeout: float,
    watch: Watch,
) -> Estimate:
    """As `estimate`, of an open directory."""
    report = read_report(artifact.path)
    with tempfile.TemporaryDirectory(prefix="hqc-rtl-") as scratch:
        project = artifact.path / "project"
        if not (project / RECORD).is_file():
            project = Path(scratch)
            with stage("RTL of the same model", watch):
                _write_rtl(artifact, clock_ns, project)
        found = estimate_project(project, target, clock_ns, flat=flat, timeout=timeout, watch=watch)
    known = report.get(REPORT_KEY, {})
    add_to_report(artifact.path, REPORT_KEY, {**known, found.key: found.to_json()})
    return found


def _write_rtl(artifact: Artifact, clock_ns: float | None, directory: Path) -> None:
    from hqc.backends.layers.network import read_network
    from hqc.backends.rtl.emission.project import write
    from hqc.backends.rtl.lowering.lower import lower

    hardware = artifact.manifest.options.get("hardware", {})
    clock = clock_ns or hardware.get("clock_ns") or BackendOptions().clock_ns
    design = lower(read_network(artifact.model, artifact.partition))
    write(design, artifact.partition, BackendOptions(clock_ns=float(clock)), directory)
