"""`hqc check`: one directory against the exact executor, several also against each other."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hqc import arrays
from hqc.agreement import Agreement, agree
from hqc.artifact import Artifact, CheckResult
from hqc.cli_console import Console
from hqc.cli_result import Result
from hqc.diagnostics import HqcError
from hqc.guard import measured_by, proven_by
from hqc.options import usage


def check_command(options: Namespace, console: Console) -> Result:
    """`hqc check`."""
    first = Artifact.open(options.directories[0])
    samples = _samples(options.samples, first)
    if len(options.directories) > 1:
        return _several(options, samples, console)
    found = first.check(samples, options.seed)
    document = _document(found)
    wrong = [error] if (error := found.error()) else []
    try:
        document["proof"] = proof = _prove(first)
    except HqcError as error:
        wrong.append(error)
    if wrong:
        return _failed(document, wrong)
    console.line(console.style(f"bit-exact on {found.samples} samples, all outputs", "ok"))
    if proof:
        console.line(str(proof.get("claim", "")))
    if measured := measured_by(first.emulator):
        document["measured"] = measured
        console.line(measured.get("text", ""))
    return Result(document=document)


def _failed(document: dict[str, Any], wrong: Sequence[HqcError]) -> Result:
    faults = tuple(fault for error in wrong for fault in error.diagnostics)
    return Result(document=document, exit=wrong[0].exit, diagnostics=faults)


def _prove(artifact: Artifact) -> dict[str, Any]:
    """What its backend proves of a directory as it is now."""
    project = artifact.path / "project"
    return proven_by(artifact.backend, artifact.model, artifact.partition, project)


def _several(
    options: Namespace, samples: int | dict[str, arrays.Floats], console: Console
) -> Result:
    found = agree(options.directories, samples, options.seed, watch=console.watch)
    document = _agreement_document(found)
    wrong = [error] if (error := found.error()) else []
    claims = {}
    for directory in options.directories:
        try:
            claims[directory] = _prove(Artifact.open(directory)).get("claim")
        except HqcError as error:
            wrong.append(error)
    if wrong:
        return _failed(document, wrong)
    shared = found.pairs[0].found
    console.line()
    by_value = " (as exact values)" if any(p.compared == "values" for p in found.pairs) else ""
    backends = ", ".join(found.backends)
    text = f"{len(found.directories)} directories agree on {shared.samples} samples, all outputs"
    console.line(console.style(f"{text}{by_value}", "ok"))
    console.line(f"each is bit-exact by itself ({backends})")
    for directory, claim in claims.items():
        if claim:
            console.line(f"{directory}: {claim}")
    return Result(document=document)


def _samples(text: str, first: Artifact) -> int | dict[str, arrays.Floats]:
    """`--samples`: a number, or what a file holds."""
    if text.isdecimal():
        return int(text)
    if Path(text).suffix in (".npy", ".npz"):
        found = arrays.read_arrays(Path(text), first.inputs)
        return arrays.check_inputs(found, first.inputs)
    raise usage(f"--samples {text}: a number, or a .npy or .npz file")


def _document(found: CheckResult) -> dict[str, Any]:
    return {
        "exact": found.exact,
        "samples": found.samples,
        "first": found.first,
        "vectors": asdict(found.vectors),
        "fresh": asdict(found.fresh) if found.fresh else None,
        "stored": found.stored,
    }


def _agreement_document(found: Agreement) -> dict[str, Any]:
    rows = zip(found.directories, found.backends, found.checks, strict=True)
    return {
        "exact": found.exact,
        "first": found.first,
        "directories": [
            {"directory": directory, "backend": backend, **_document(check)}
            for directory, backend, check in rows
        ],
        "pairs": [
            {"one": p.one, "other": p.other, "compared": p.compared, **asdict(p.found)}
            for p in found.pairs
        ],
    }
