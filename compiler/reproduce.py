"""Reproducers: everything that is needed to see a failing pass fail again."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path

from hqc.arrays import write_npz
from hqc.ir import Array


def write_reproducer(
    folder: Path, name: str, model: bytes, pipeline: str, samples: Mapping[str, Array]
) -> str:
    """Write the IR, a sample and the command under `folder`, and return the command.

    Args:
        folder: where reproducers are collected.
        name: of the failing pass.
        model: `.onnx` bytes of the IR before it.
        pipeline: the pass and what was to follow.
        samples: model inputs (n, ...) that show the failure.
    """
    digest = hashlib.sha256(model + pipeline.encode()).hexdigest()[:8]
    directory = folder / f"{name}-{digest}"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "before.onnx").write_bytes(model)
    write_npz(directory / "samples.npz", samples)
    command = (
        f"hqc opt {shlex.quote(str(directory / 'before.onnx'))} -p {shlex.quote(pipeline)} "
        f"--samples {shlex.quote(str(directory / 'samples.npz'))}"
    )
    (directory / "command.sh").write_text(f"#!/bin/sh\nexec {command}\n")
    return command
