"""Writing the parts of a compiled directory, so that the same compile gives the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnx_ir import Model

from hqc import ir
from hqc.analysis.partition import Partition, Port
from hqc.artifact.manifest import Manifest, versions
from hqc.artifact.page.page import write_page
from hqc.artifact.report_file import read_report, write_report_file
from hqc.artifact.verdict import Verdict
from hqc.diagnostics.events import Event, Watch
from hqc.execution.fast import NodeCertificate
from hqc.ir import Array
from hqc.ir.array_files import write_npz
from hqc.pipeline import PassEvent, Record
from hqc.pipeline.backend import Emission
from hqc.pipeline.options import CompileOptions


def write_graph(directory: Path, model: Model) -> str:
    """Write the integer graph; its digest."""
    data = ir.to_bytes(model)
    (directory / "model.onnx").write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def write_vectors(
    directory: Path, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> None:
    """Write inputs and expected outputs, in the model's own units."""
    folder = directory / "vectors"
    folder.mkdir()
    write_npz(folder / "inputs.npz", inputs)
    write_npz(folder / "outputs.npz", outputs)


def write_states(directory: Path, states: Sequence[tuple[str, bytes]]) -> None:
    """Write the graph after each pass as `ir/NN-pass.onnx`; nothing if none were kept."""
    if not states:
        return
    folder = directory / "ir"
    folder.mkdir()
    for index, (name, data) in enumerate(states):
        (folder / f"{index:02d}-{name}.onnx").write_bytes(data)


def write_report(
    directory: Path,
    records: Sequence[Record],
    emission: Emission,
    verdict: Verdict,
    figures: Mapping[str, Mapping[str, Any]],
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write `report.json`: passes, hardware layers, verdict. It holds no times of this machine.

    Args:
        directory: that is being filled.
        records: of the passes.
        emission: of the backend.
        verdict: of the compile.
        figures: what is known of layers, by name: see `hqc.backends.layers.figures`.
        training: how the model came about, where `hqc quantize` made it.
    """
    passes = [
        {
            "pass": r.step,
            "contract": str(r.contract),
            "checked": r.checked,
            "rewrites": r.rewrites,
            "remarks": [str(m) for m in r.remarks],
        }
        for r in records
    ]
    document = {
        "passes": passes,
        "layers": [
            {**layer.describe(), **figures.get(layer.name, {})} for layer in emission.layers
        ],
        "warnings": [warning.message for warning in emission.warnings],
        **({"project": dict(emission.report)} if emission.report else {}),
        **({"training": dict(training)} if training else {}),
        "verdict": {**asdict(verdict), "text": verdict.text},
    }
    write_report_file(directory, document)


def add_to_report(directory: Path, key: str, found: Mapping[str, Any]) -> None:
    """Add what a tool reported of a compiled directory, and write its page anew.

    Raises:
        HqcError: HQC006, `report.json` is missing or damaged; HQC007, it cannot be written.
    """
    write_report_file(directory, {**read_report(directory), key: dict(found)})
    write_page(directory)


class Tracer:
    """Listens to a pipeline: passes its events on, and keeps the states it went through."""

    def __init__(self, watch: Watch, keep: bool):
        """`keep` the graph after each pass, as bytes, for `ir/` or for printing."""
        self._watch = watch
        self._keep = keep
        self.states: list[tuple[str, bytes]] = []

    def event(self, event: PassEvent) -> None:
        """What the pipeline calls at the beginning and the end of each pass."""
        record = event.record
        if record is None:
            self._watch(Event(event.name))
            return
        detail = f"{record.rewrites} rewrites" if record.rewrites else ""
        remarks = tuple(str(remark) for remark in record.remarks)
        self._watch(Event(event.name, record.seconds, detail, remarks))
        if self._keep:
            self.states.append((event.name, ir.to_bytes(event.model)))


@dataclass(frozen=True)
class Outcome:
    """What a compile found out, beyond what it was told.

    Attributes:
        graph_sha256: digest of `model.onnx`.
        pipeline: the resolved pipeline string.
        certificate: rows of the exact executor's certificate.
        verdict: what was compared.
    """

    graph_sha256: str
    pipeline: str
    certificate: Sequence[NodeCertificate]
    verdict: Verdict


def manifest_of(
    model: Mapping[str, str],
    cut: Partition,
    options: CompileOptions,
    hardware: Mapping[str, Any],
    outcome: Outcome,
) -> Manifest:
    """The manifest of a compile; `model` is its name, its file and the file's digest."""
    return Manifest(
        model=model,
        graph_sha256=outcome.graph_sha256,
        backend=options.backend,
        pipeline=outcome.pipeline,
        options={**options.to_json(), "hardware": dict(hardware)},
        seed=options.seed,
        inputs=tuple(_port(port) for port in cut.inputs),
        outputs=tuple(_port(port) for port in cut.outputs),
        host=cut.host_steps(),
        certificate=tuple(
            {"node": row.node, "arithmetic": row.arithmetic, "reason": row.reason}
            for row in outcome.certificate
        ),
        verdict=outcome.verdict,
        versions=versions(options.backend),
    )


def _port(port: Port) -> dict[str, Any]:
    return {
        "name": port.name,
        "external": port.external,
        "shape": list(port.shape),
        "layout": "channels-last",  # of the wires; the shape is the model's
        "type": str(port.type),
        "scale": 2.0**-port.type.fraction,
        "kind": port.kind,
    }
