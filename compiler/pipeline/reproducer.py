"""Reproducers: everything that is needed to see a failing pass fail again.

Passes of files are copied into one. Passes of installed packages are recorded, in
`reproducer.json`, by the name and version of their package, and so is hqc; a replay says by name
what is missing or of another version.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hqc.diagnostics import Diagnostic, HqcError, formats, reject
from hqc.ir import Array
from hqc.ir.array_files import write_npz
from hqc.pipeline.registry import Registry
from hqc.pipeline.user_code import siblings
from hqc.text import Repeat, Step, print_pipeline
from hqc.version import __version__

MAGIC = "hqc reproducer"
RECORD = "reproducer.json"


def write_reproducer(
    folder: Path,
    name: str,
    model: bytes,
    steps: Sequence[Step | Repeat],
    samples: Mapping[str, Array],
    registry: Registry | None = None,
) -> str:
    """Write the IR, a sample and the command under `folder`, and return the command.

    The directory is complete but for installed packages: it can be moved elsewhere, and
    `command.sh` run from anywhere.

    Args:
        folder: where reproducers are collected.
        name: of the failing pass.
        model: `.onnx` bytes of the IR before it.
        steps: the pass and what was to follow.
        samples: model inputs (n, ...) that show the failure.
        registry: of the passes. The user's files are copied, with what they import from beside
            them; packages are recorded.
    """
    pipeline = print_pipeline(steps)
    digest = hashlib.sha256(model + pipeline.encode()).hexdigest()[:8]
    directory = folder / f"{name}-{digest}"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "before.onnx").write_bytes(model)
    write_npz(directory / "samples.npz", samples)
    record = _record(name, steps, registry)
    (directory / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    files = registry.files if registry is not None else ()
    copies = [_copy(file, directory / f"passes{i or ''}") for i, file in enumerate(files)]
    inside = _command(Path(), pipeline, [copy.relative_to(directory) for copy in copies])
    script = f'#!/bin/sh\ncd "$(dirname "$0")" && exec {inside}\n'
    (directory / "command.sh").write_text(script)
    return _command(directory, pipeline, copies)


def check_packages(path: Path, registry: Registry) -> tuple[Diagnostic, ...]:
    """Compare what is installed with what a reproducer was written with.

    Args:
        path: a `reproducer.json`.
        registry: what is installed here.

    Returns:
        A warning for each package of another version.

    Raises:
        HqcError: HQC311 for the packages that are missing; HQC002, the file is not a record of a
            reproducer; HQC008, it is of a version that this hqc does not read.
    """
    document = _read(path)
    missing, other = [], []
    if document["hqc"] != __version__:
        other.append(_other("this is hqc", __version__, f"hqc {document['hqc']}"))
    for name, package in document["passes"].items():
        wanted = f"{package['distribution']} {package['version']}"
        here = registry.providers.get(name, ())
        if name not in registry.passes:
            missing.append(_missing(name, package["distribution"], package["version"]))
        elif wanted not in {p.package for p in here}:
            found = " and ".join(p.package for p in here) or "a file, or hqc itself"
            other.append(_other(f"pass {name} comes from", found, wanted))
    if missing:
        raise HqcError((*missing, *other))
    return tuple(other)


def _missing(name: str, distribution: str, version: str) -> Diagnostic:
    return Diagnostic(
        "HQC311",
        f"pass {name} is not here: the reproducer needs the package {distribution} {version}",
        helps=(f"pip install {distribution}=={version}",),
    )


def _other(what: str, found: str, wanted: str) -> Diagnostic:
    return Diagnostic(
        "HQC311",
        f"{what} {found}; the reproducer was written with {wanted}",
        notes=("it may fail in another way here, or not at all",),
        severity="warning",
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise reject("HQC002", f"cannot read {path} as a reproducer's record: {error}") from error
    if not isinstance(document, dict) or document.get("magic") != MAGIC:
        raise reject("HQC002", f"{path} is no record of a reproducer")
    formats.check(formats.REPRODUCER, document.get("format"), str(path))
    passes = document.get("passes")
    whole = isinstance(document.get("hqc"), str) and isinstance(passes, dict)
    if not whole or not all(map(_is_package, (passes or {}).values())):
        raise reject("HQC002", f"{path} is damaged: hqc or passes is missing, or no such thing")
    return document


def _is_package(found: object) -> bool:
    keys = ("distribution", "version")
    return isinstance(found, dict) and all(isinstance(found.get(key), str) for key in keys)


def _record(
    name: str, steps: Sequence[Step | Repeat], registry: Registry | None
) -> dict[str, object]:
    """What `check_packages` compares: of each pass that a package provides, that package."""
    known = registry.providers if registry is not None else {}
    packages = {step: known[step][-1] for step in sorted(set(_names(steps))) if step in known}
    return {
        "magic": MAGIC,
        "format": formats.REPRODUCER.current,
        "hqc": __version__,
        "pass": name,
        "pipeline": print_pipeline(steps),
        "passes": {
            step: {"distribution": package.distribution, "version": package.version}
            for step, package in packages.items()
        },
    }


def _names(steps: Sequence[Step | Repeat]) -> Iterator[str]:
    for step in steps:
        if isinstance(step, Repeat):
            yield from _names(step.steps)
        else:
            yield step.name


def _command(directory: Path, pipeline: str, files: Sequence[Path]) -> str:
    words = ["hqc", "opt", str(directory / "before.onnx"), "-p", pipeline]
    words += ["--samples", str(directory / "samples.npz")]
    words += ["--reproducer", str(directory / RECORD)]
    return shlex.join([*words, *(word for file in files for word in ("-P", str(file)))])


def _copy(file: Path, folder: Path) -> Path:
    """Copy a file of the user's and what it imports from its folder; the copy's place."""
    for source in siblings(file):
        target = folder / source.relative_to(file.resolve().parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return folder / file.name
