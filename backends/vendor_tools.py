"""Run a vendor tool on a project and read its report."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hqc.diagnostics import Exit, reject

_LOG = "build.log"
_SHOWN_LINES = 15


def find_tool(names: Sequence[str], product: str) -> str:
    """Path of the first tool that is on the PATH.

    Raises:
        HqcError: HQC404, none is.
    """
    for name in names:
        if found := shutil.which(name):
            return found
    raise reject(
        "HQC404",
        f"{product} is not installed: {' or '.join(names)} is not on the PATH",
        notes=("the project is complete: building it needs nothing else",),
        helps=(f"put {product} on the PATH, or run it on the project on another machine",),
        exit_=Exit.TOOL,
    )


def run_tool(command: Sequence[str], directory: Path, timeout: float) -> None:
    """Run a tool inside a project; what it prints goes to `build.log` there.

    Raises:
        HqcError: HQC405, it failed or did not end within `timeout` seconds.
    """
    log = directory / _LOG
    with log.open("w", encoding="utf-8") as out:
        try:
            done = subprocess.run(
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            message = f"{Path(command[0]).name} took longer than {timeout:g} s"
            raise reject("HQC405", message, notes=(f"log: {log}",), exit_=Exit.TOOL) from error
    if done.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN_LINES:]
        raise reject(
            "HQC405",
            f"{Path(command[0]).name} ended with status {done.returncode}",
            notes=(f"log: {log}", *lines),
            exit_=Exit.TOOL,
        )


def read_report(parse: Callable[[str], Any], directory: Path) -> dict[str, Any]:
    """What one of hls4ml's report functions finds in a built project.

    Raises:
        HqcError: HQC405, the tool left no report.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        report = parse(str(directory))
    if not report:
        notes = tuple(printed.getvalue().strip().splitlines()[-3:])
        raise reject("HQC405", "the tool left no report", notes=notes, exit_=Exit.TOOL)
    return dict(report)
