"""`hqc estimate --quick`: figures that are predicted, not synthesised."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from hqc.artifact import Artifact
from hqc.cli.console import Console
from hqc.cli.result import Result, table
from hqc.diagnostics.events import stage
from hqc.pipeline.options import usage

if TYPE_CHECKING:
    from hqc.backends.estimate.quick import Prediction

#: Of the column of sizes, by their unit.
_HEADS = {"lut": "LUT", "area_um2": "area um2"}


def predict(options: Namespace, console: Console) -> Result:
    """Predict what the synthesis of a compiled directory's RTL will count.

    Raises:
        HqcError: HQC001, together with --flat, or of logic that is shared in time; HQC434, a
            target that nothing predicts.
    """
    from hqc.backends.estimate.quick import quick_estimate
    from hqc.backends.layers.network import read_network
    from hqc.pipeline.backend import BackendOptions

    if options.flat:
        raise usage("--quick predicts layer by layer: leave --flat out")
    artifact = Artifact.open(options.directory)
    hardware = artifact.manifest.options.get("hardware", {})
    if artifact.manifest.backend == "rtl" and (hardware.get("reuse_factor") or 1) > 1:
        raise usage("--quick knows unrolled logic: this directory has a reuse factor above 1")
    clock = options.clock or hardware.get("clock_ns") or BackendOptions().clock_ns
    network = read_network(artifact.model, artifact.partition)
    with stage("prediction", console.watch):
        found = quick_estimate(network, options.target, float(clock))
    document = {"directory": str(artifact.path), "estimate": found.to_json()}
    return Result(prediction_text(found), document)


def prediction_text(found: Prediction) -> str:
    """A table of layers, and how sure it is."""
    head = _HEADS[found.unit]
    rows = [("layer", "kind", f"{head:>9}", f"{'within':>8}", f"{'FF':>9}", f"{'share':>7}")]
    for row in found.rows:
        share = row.size / found.size if found.size else 0.0
        counts = f"{row.size:9,.0f}", f"{100 * row.bar:6.0f} %", f"{row.flip_flops:9,.0f}"
        rows.append((row.name, row.kind, *counts, f"{share:7.1%}"))
    whole = f"{found.size:9,.0f}", f"{100 * found.bar:6.0f} %", f"{found.flip_flops:9,.0f}"
    rows.append(("sum", "", *whole, ""))
    title = (
        f"{found.target}: predicted, fitted on {found.fitted['tool']}\n"
        f"  clock {found.clock_ns:g} ns, latency about {found.latency} cycles"
    )
    notes = "\n".join(f"  {note}" for note in found.notes)
    return f"{title}\n\n{table(rows)}\n\n{notes}"
