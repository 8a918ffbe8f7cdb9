"""The record of a training in an exported program's archive: read as data, by whoever loads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hqc.diagnostics import reject
from hqc.frontends.torch_export.program_files import read_extra

MAGIC, FORMAT = "hqc training", 1
MEMBER = "hqc-training.json"


def training_record(model: object) -> dict[str, Any] | None:
    """How a program came about, where `hqc quantize` made it: the part that readers ask for.

    Raises:
        HqcError: HQC002, the record in the file is damaged.
    """
    record = whole_record(model)
    hidden = ("magic", "format", "settings")
    return None if record is None else {k: v for k, v in record.items() if k not in hidden}


def whole_record(model: object) -> dict[str, Any] | None:
    """The same with the settings of the training; raises likewise."""
    if not isinstance(model, str | Path) or Path(model).suffix not in (".pt", ".pt2"):
        return None
    return read_record(Path(model))


def read_record(path: Path) -> dict[str, Any] | None:
    """The record of an archive, or None where the file has none; nothing in it is executed.

    Raises:
        HqcError: HQC002, the record is damaged.
    """
    data = read_extra(path, MEMBER)
    if data is None:
        return None
    try:
        found = json.loads(data)
        if found["magic"] != MAGIC or found["format"] != FORMAT:
            raise ValueError(f"not of format {FORMAT}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = str(error)[:200]
        raise reject("HQC002", f"{path}: its {MEMBER} is damaged", notes=(reason,)) from error
    return dict(found)
