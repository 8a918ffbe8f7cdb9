"""Reproducers: everything that is needed to see a failing pass fail again."""

from __future__ import annotations

import hashlib
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from hqc.arrays import write_npz
from hqc.ir import Array
from hqc.user_code import siblings


def write_reproducer(
    folder: Path,
    name: str,
    model: bytes,
    pipeline: str,
    samples: Mapping[str, Array],
    files: Sequence[Path] = (),
) -> str:
    """Write the IR, a sample and the command under `folder`, and return the command.

    The directory is complete: it can be moved elsewhere, and `command.sh` run from anywhere.

    Args:
        folder: where reproducers are collected.
        name: of the failing pass.
        model: `.onnx` bytes of the IR before it.
        pipeline: the pass and what was to follow.
        samples: model inputs (n, ...) that show the failure.
        files: of the user's passes; they are copied, with what they import from beside them.
    """
    digest = hashlib.sha256(model + pipeline.encode()).hexdigest()[:8]
    directory = folder / f"{name}-{digest}"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "before.onnx").write_bytes(model)
    write_npz(directory / "samples.npz", samples)
    copies = [_copy(file, directory / f"passes{i or ''}") for i, file in enumerate(files)]
    inside = _command(Path(), pipeline, [copy.relative_to(directory) for copy in copies])
    script = f'#!/bin/sh\ncd "$(dirname "$0")" && exec {inside}\n'
    (directory / "command.sh").write_text(script)
    return _command(directory, pipeline, copies)


def _command(directory: Path, pipeline: str, files: Sequence[Path]) -> str:
    words = ["hqc", "opt", str(directory / "before.onnx"), "-p", pipeline]
    words += ["--samples", str(directory / "samples.npz")]
    return shlex.join([*words, *(word for file in files for word in ("-P", str(file)))])


def _copy(file: Path, folder: Path) -> Path:
    """Copy a file of the user's and what it imports from its folder; the copy's place."""
    for source in siblings(file):
        target = folder / source.relative_to(file.resolve().parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return folder / file.name
