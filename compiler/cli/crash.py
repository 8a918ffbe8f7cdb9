"""Internal errors: the traceback and what is needed to repeat it go to a file, not to the user."""

from __future__ import annotations

import hashlib
import platform
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from hqc.diagnostics import Diagnostic


def reproducer(error: BaseException, argv: Sequence[str]) -> Diagnostic:
    """Write `hqc-crash-DIGEST.txt` and say where it is."""
    where = "".join(traceback.format_exception(error))
    digest = hashlib.sha256(where.encode()).hexdigest()[:12]
    path = _write(f"hqc-crash-{digest}.txt", _document(where, argv))
    return Diagnostic(
        "HQC500",
        f"{type(error).__name__}: {_first_line(error)}",
        notes=("this is a defect of hqc, not of the model", f"details are in {path}"),
        helps=("please report it with that file and the model",),
    )


def _document(where: str, argv: Sequence[str]) -> str:
    lines = [
        f"command: {shlex.join(['hqc', *argv])}",
        f"python: {platform.python_version()} on {platform.platform()}",
        *(f"{d.name}: {d.version}" for d in _distributions()),
        "",
        *_files(argv),
        "",
        where,
    ]
    return "\n".join(lines)


def _distributions() -> list[metadata.Distribution]:
    found = metadata.distributions()
    wanted = {"hqc", "numpy", "onnx", "onnx-ir", "onnxruntime", "qonnx", "hls4ml", "torch"}
    return sorted(
        (d for d in found if d.name.lower().replace("_", "-") in wanted), key=lambda d: d.name
    )


def _files(argv: Sequence[str]) -> list[str]:
    """Name, size and digest of each argument that is a file, so that the input can be told."""
    lines = []
    for argument in argv:
        path = Path(argument)
        try:
            if path.is_file():
                data = path.read_bytes()
                digest = hashlib.sha256(data).hexdigest()
                lines.append(f"file {path.name}: {len(data)} bytes, sha256 {digest}")
        except OSError as problem:
            lines.append(f"file {path.name}: {problem.strerror}")
    return lines


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else "no message"


def _write(name: str, text: str) -> Path:
    """In the current directory, else in the system's temporary one."""
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        try:
            path = folder / name
            path.write_text(text, encoding="utf-8")
        except OSError:
            continue
        return path
    print(text, file=sys.stderr)  # nowhere to write: better a long screen than nothing
    return Path("standard error")
