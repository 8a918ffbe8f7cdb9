"""`hqc check`: one directory against the exact executor, several also against each other."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hqc.artifact import Artifact, CheckResult
from hqc.artifact.agreement import Agreement, Proof, agree
from hqc.cli.console import Console
from hqc.cli.result import Result
from hqc.diagnostics import joined
from hqc.pipeline.options import usage
from hqc.pipeline.plugin_guard import measured_by


def check_command(options: Namespace, console: Console) -> Result:
    """`hqc check`."""
    samples = _samples(options.samples)
    if len(options.directories) > 1:
        return _several(
            agree(options.directories, samples, options.seed, watch=console.watch), console
        )
    artifact = Artifact.open(options.directories[0])
    found = artifact.check(samples, options.seed)
    proof = Proof.of(artifact)
    document = {**_document(found), **_proof(proof)}
    wrong = joined([error for error in (found.error(), proof.error) if error is not None])
    if wrong is not None:
        return Result(document=document, exit=wrong.exit, diagnostics=wrong.diagnostics)
    console.line(console.style(f"bit-exact on {found.samples} samples, all outputs", "ok"))
    if proof.found:
        console.line(proof.claim)
    if measured := measured_by(artifact.emulator):
        document["measured"] = measured
        console.line(measured.get("text", ""))
    return Result(document=document)


def _several(found: Agreement, console: Console) -> Result:
    document = _agreement_document(found)
    if (wrong := found.error()) is not None:
        return Result(document=document, exit=wrong.exit, diagnostics=wrong.diagnostics)
    shared = found.pairs[0].found
    console.line()
    by_value = " (as exact values)" if any(p.compared == "values" for p in found.pairs) else ""
    backends = ", ".join(found.backends)
    text = f"{len(found.directories)} directories agree on {shared.samples} samples, all outputs"
    console.line(console.style(f"{text}{by_value}", "ok"))
    console.line(f"each is bit-exact by itself ({backends})")
    for directory, proof in zip(found.directories, found.proofs, strict=True):
        if proof.claim:
            console.line(f"{directory}: {proof.claim}")
    return Result(document=document)


def _samples(text: str) -> int | Path:
    """`--samples`: a number, or a file."""
    if text.isdecimal():
        return int(text)
    if (path := Path(text)).suffix in (".npy", ".npz"):
        return path
    raise usage(f"--samples {text}: a number, or a .npy or .npz file")


def _proof(proof: Proof) -> dict[str, Any]:
    """What is proven, with its key; nothing where it does not hold."""
    return {} if proof.error is not None else {"proof": dict(proof.found)}


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
    rows = zip(found.directories, found.backends, found.checks, found.proofs, strict=True)
    return {
        "exact": found.exact,
        "first": found.first,
        "directories": [
            {"directory": directory, "backend": backend, **_document(check), **_proof(proof)}
            for directory, backend, check, proof in rows
        ],
        "pairs": [
            {"one": p.one, "other": p.other, "compared": p.compared, **asdict(p.found)}
            for p in found.pairs
        ],
    }
