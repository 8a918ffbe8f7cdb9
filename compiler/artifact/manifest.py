"""`hqc.json`: what a compiled directory says about itself, validated when it is read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from hqc.artifact.verdict import Verdict
from hqc.diagnostics import formats, reject
from hqc.diagnostics.formats import MANIFEST

MAGIC = "hqc artifact"
FILE = "hqc.json"

#: Everything hqc writes at the top of a compiled directory.
ENTRIES = frozenset({FILE, "project", "vectors", "ir", "report.json", "report.html", "model.onnx"})

#: Libraries whose version can change what is written.
LIBRARIES = ("hqc", "numpy", "onnx", "onnx-ir", "onnxruntime", "qonnx", "hls4ml", "torch")

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """The content of `hqc.json`.

    Attributes:
        model: the source: `name`, and `sha256` of its bytes (of the exported graph for modules).
        graph_sha256: of the integer graph, `model.onnx`.
        backend: name of the backend that wrote `project/`.
        pipeline: the resolved pipeline string; it reproduces the compile.
        options: every option of the compile with its resolved value.
        seed: of the generated samples.
        inputs, outputs: the ports: `name`, `external`, `shape`, `type`, `scale`, `kind`.
        host: what the host does around the hardware, per input and output.
        certificate: per core node, the arithmetic that is exact for it and why.
        verdict: what was compared, and the result.
        versions: of hqc, Python and the libraries.
    """

    model: Json
    graph_sha256: str
    backend: str
    pipeline: str
    options: Json
    seed: int
    inputs: tuple[Json, ...]
    outputs: tuple[Json, ...]
    host: Json
    certificate: tuple[Json, ...]
    verdict: Verdict
    versions: Json

    def to_json(self) -> dict[str, Any]:
        """The JSON document, magic and format version first."""
        return {"magic": MAGIC, "format": MANIFEST.current, **asdict(self)}

    def write(self, directory: Path) -> None:
        """Write `hqc.json`; the same manifest gives the same bytes."""
        (directory / FILE).write_text(dump(self.to_json()), encoding="utf-8")


def dump(document: object) -> str:
    """JSON as hqc writes it to files: indented, NaN refused, with a final newline."""
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def versions(backend: str) -> dict[str, str]:
    """Installed versions of what can change the bytes written; a plug-in backend is among it."""
    points = metadata.entry_points(group="hqc.backends", name=backend)
    plugins = {p.dist.name: p.dist.version for p in points if p.dist is not None}
    return {name: metadata.version(name) for name in LIBRARIES} | plugins


def read(directory: Path) -> Manifest:
    """Read and validate `directory/hqc.json`.

    Raises:
        HqcError: HQC006, there is none, it is not ours, or damaged; HQC008, it is of a version
            that this hqc does not read.
    """
    document = _document(directory)
    if document.get("magic") != MAGIC:
        raise _unusable(directory, f"{FILE} is not one that hqc wrote")
    formats.check(MANIFEST, document.get("format"), str(directory))
    _check_fields(directory, document)
    try:
        verdict = Verdict.from_json(document["verdict"])
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(directory, f"{FILE} is damaged: verdict: {error}") from error
    known = {f.name: document[f.name] for f in fields(Manifest)}
    lists = {key: tuple(known[key]) for key in ("inputs", "outputs", "certificate")}
    return Manifest(**{**known, **lists, "verdict": verdict})


def objection(directory: Path) -> str | None:
    """Why a directory is not hqc's to replace, or None when hqc made all of its entries."""
    try:
        document = json.loads((directory / FILE).read_bytes())
    except (OSError, ValueError):
        return f"hqc did not make it (no readable {FILE})"
    if not isinstance(document, dict) or document.get("magic") != MAGIC:
        return f"hqc did not make it (its {FILE} is something else)"
    foreign = sorted(e.name for e in directory.iterdir() if e.name not in ENTRIES)
    if foreign:
        return f"it holds {foreign[0]!r}, which hqc did not write"
    return None


def _document(directory: Path) -> dict[str, Any]:
    path = directory / FILE
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise _unusable(directory, f"{FILE}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _unusable(directory, f"{FILE} is damaged: {error}") from error
    if not isinstance(document, dict):
        raise _unusable(directory, f"{FILE} is not a JSON object")
    return document


_SHAPES: dict[str, type] = {
    "model": dict,
    "graph_sha256": str,
    "backend": str,
    "pipeline": str,
    "options": dict,
    "seed": int,
    "inputs": list,
    "outputs": list,
    "host": dict,
    "certificate": list,
    "verdict": dict,
    "versions": dict,
}


def _check_fields(directory: Path, document: Mapping[str, Any]) -> None:
    for name, shape in _SHAPES.items():
        if not isinstance(document.get(name), shape):
            raise _unusable(directory, f"{FILE} is damaged: {name!r} is missing or not a {shape}")


def _unusable(directory: Path, reason: str) -> Exception:
    return reject(
        "HQC006",
        f"{directory} is not a directory this hqc can use: {reason}",
        helps=("compile the model again: hqc compile MODEL -o NEW_DIRECTORY",),
    )
