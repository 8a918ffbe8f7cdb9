"""`report.json` of a compiled directory: read, written, and added to by whoever learns more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hqc.artifact.manifest import dump
from hqc.diagnostics import HqcError, reject
from hqc.ir.array_files import cannot_write

REPORT = "report.json"


def read_report(directory: Path) -> dict[str, Any]:
    """What `report.json` of a compiled directory says.

    Raises:
        HqcError: HQC006, it is missing, or no JSON object.
    """
    try:
        document = json.loads((directory / REPORT).read_bytes())
    except OSError as error:
        raise damaged(directory, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise damaged(directory, str(error)) from error
    if not isinstance(document, dict):
        raise damaged(directory, "it is not a JSON object")
    return document


def write_report_file(directory: Path, document: Mapping[str, Any]) -> None:
    """Write `report.json` in one step.

    Raises:
        HqcError: HQC007, it cannot be written.
    """
    fresh = directory / f"{REPORT}.new"
    try:
        fresh.write_text(dump(document), encoding="utf-8")
        fresh.replace(directory / REPORT)
    except OSError as error:
        raise cannot_write(directory / REPORT, error) from error


def damaged(directory: Path, reason: str) -> HqcError:
    """HQC006 for a report that cannot be used."""
    return reject(
        "HQC006",
        f"{directory / REPORT} is missing or damaged: {reason}",
        helps=("compile the model again: hqc compile MODEL -o NEW_DIRECTORY",),
    )
