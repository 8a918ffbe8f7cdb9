"""What the page of a compiled directory shows, made of its manifest and its report.

Everything here is taken from the two documents, counted or put in order; nothing is estimated.
What another part of hqc, or another package, adds to the report is shown by its own keys.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hqc.artifact.manifest import Manifest
from hqc.artifact.page.command import Reproduction, reproduction
from hqc.artifact.page.layers import Layers, layers_of
from hqc.artifact.page.timing import Timing, timing_of
from hqc.artifact.page.training import Training, training_of

#: Keys of `report.json` that have a place of their own on the page.
_KNOWN = frozenset({"passes", "layers", "warnings", "verdict", "training", "proof", "estimate"})
#: How `lower-scales` says that a multiplier was proven; see `hqc.passes.lowering.requantisers`.
_IDENTICAL = re.compile(r"identical on every reachable accumulator")
_IDENTITY = re.compile(r"(?P<text>.*?)  -->  ?(?P<where>.*)", re.DOTALL)

State = Literal["ok", "warning", "bad"]


@dataclass(frozen=True)
class Claim:
    """A statement, how it is known, and the rows behind it: (name, text) pairs."""

    text: str
    how: str = ""
    rows: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Remark:
    """What a pass did or declined, and where."""

    text: str
    where: str


@dataclass(frozen=True)
class Pass:
    """One line of the log."""

    name: str
    contract: str
    checked: int
    rewrites: int
    remarks: tuple[Remark, ...]


@dataclass(frozen=True)
class View:
    """All that the template draws.

    Attributes:
        title, backend: of the model, and who wrote the project.
        state, headline: the verdict.
        facts: (name, text) pairs below it.
        proof: of a backend that proves its project, as it reported it; empty otherwise.
        proven, tested, open: what is known and how, and what is not known.
        inputs, outputs, host: of the manifest.
        layers, timing, training: see their modules; None where nothing is known.
        estimates: flows of `hqc estimate`: see `hqc.artifact.page.layers`.
        passes, warnings: of the compile.
        extra: what else the report holds, by its key.
        reproduction: how to make it again.
        versions, digests: (name, text) pairs.
    """

    title: str
    backend: str
    state: State
    headline: str
    facts: tuple[tuple[str, str], ...]
    proof: Mapping[str, Any]
    proven: tuple[Claim, ...]
    tested: tuple[Claim, ...]
    open: tuple[Claim, ...]
    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]
    decoded: tuple[str, ...]
    layers: Layers
    timing: Timing | None
    training: Training | None
    passes: tuple[Pass, ...]
    warnings: tuple[str, ...]
    extra: Mapping[str, Any]
    reproduction: Reproduction
    versions: tuple[tuple[str, str], ...]
    digests: tuple[tuple[str, str], ...]


def view_of(manifest: Manifest, report: Mapping[str, Any]) -> View:
    """The page of a directory.

    Raises:
        KeyError, TypeError, ValueError: the report is not of the form that hqc writes.
    """
    passes = tuple(_pass(row) for row in report["passes"])
    training = report.get("training")
    proven, tested, unknown = _claims(manifest, passes)
    return View(
        title=str(manifest.model["name"]),
        backend=manifest.backend,
        state=_state(manifest),
        headline=manifest.verdict.text,
        facts=_facts(manifest),
        proof=dict(report.get("proof", {})),
        proven=proven,
        tested=tested,
        open=unknown,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        decoded=tuple(f"{row['op']} {row['node']}" for row in manifest.host["decode"]),
        layers=layers_of(report["layers"], report.get("estimate")),
        timing=timing_of(manifest.options.get("hardware", {}), report),
        training=training_of(training) if training else None,
        passes=passes,
        warnings=tuple(map(str, report["warnings"])),
        extra={key: value for key, value in report.items() if key not in _KNOWN},
        reproduction=reproduction(manifest),
        versions=tuple((name, str(version)) for name, version in manifest.versions.items()),
        digests=(
            (f"source {manifest.model['file']}", str(manifest.model["sha256"])),
            ("integer graph model.onnx", manifest.graph_sha256),
        ),
    )


def _state(manifest: Manifest) -> State:
    verdict = manifest.verdict
    if verdict.checked and not verdict.exact:
        return "bad"
    return "ok" if verdict.exact and verdict.overflow_free else "warning"


def _facts(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """The settings of the hardware, as far as they are set."""
    hardware = dict(manifest.options.get("hardware", {}))
    own = hardware.pop("own", None) or {}
    if hardware.get("technology") == "asic":
        hardware.pop("part", None)
    else:
        hardware.pop("libraries", None)
    named = {key.replace("_ns", " in ns").replace("_", " "): v for key, v in hardware.items()}
    named |= {key.replace("_", " "): value for key, value in own.items()}
    return tuple((key, _plain(value)) for key, value in named.items() if value is not None)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _pass(row: Mapping[str, Any]) -> Pass:
    remarks = tuple(_remark(str(text)) for text in row["remarks"])
    return Pass(
        str(row["pass"]), str(row["contract"]), int(row["checked"]), int(row["rewrites"]), remarks
    )


def _remark(text: str) -> Remark:
    found = _IDENTITY.fullmatch(text)
    return Remark(found["text"], found["where"]) if found else Remark(text, "")


def _claims(
    manifest: Manifest, passes: tuple[Pass, ...]
) -> tuple[tuple[Claim, ...], tuple[Claim, ...], tuple[Claim, ...]]:
    """What is proven, what is tested, and what is neither."""
    proven, tested, unknown = [], [], []
    verdict = manifest.verdict
    if verdict.overflow_free:
        how = "exact range arithmetic over all weights and all inputs; quantisers saturate as told"
        proven.append(Claim("No value of the hardware part overflows its type", how))
    else:
        unknown.append(Claim("Overflow is not excluded", "a range does not fit its type"))
    identical = [r for p in passes for r in p.remarks if _IDENTICAL.search(r.text)]
    if identical:
        subject = (
            "1 requantiser gives" if len(identical) == 1 else f"{len(identical)} requantisers give"
        )
        text = f"{subject} the code of the real scale on every accumulator"
        rows = tuple((r.where, r.text) for r in identical)
        proven.append(Claim(text, "each reachable threshold was compared", rows))
    proven.append(_arithmetic(manifest))
    if verdict.checked:
        agree = f"{verdict.total - verdict.mismatches:,} of {verdict.total:,} output codes equal"
        how = f"emulation of project/ against the exact executor, {verdict.samples:,} samples, =="
        tested.append(Claim(agree, how))
    else:
        how = "compiled with --check off; hqc check DIR compares it"
        unknown.append(Claim("The emulation of project/ was not run", how))
    if verdict.float_samples:
        text = f"The integer graph gives what the model gives on {verdict.float_samples:,} samples"
        tested.append(Claim(text, f"both evaluated exactly; {verdict.float_text}"))
    if passes and all(p.checked for p in passes):
        least = min(p.checked for p in passes)
        tested.append(Claim(f"{len(passes)} passes kept their promise", f"{least} samples or more"))
    return tuple(proven), tuple(tested), tuple(unknown)


def _arithmetic(manifest: Manifest) -> Claim:
    """Why the executor that everything is compared with is exact."""
    kinds = Counter(str(row["arithmetic"]) for row in manifest.certificate)
    counts = ", ".join(f"{count} in {kind}" for kind, count in kinds.items())
    rows = tuple(
        (str(row["node"]), f"{row['arithmetic']}: {row['reason']}") for row in manifest.certificate
    )
    total = sum(kinds.values())
    return Claim("The executor that is compared with is exact", f"{total} nodes: {counts}", rows)
