"""What a command gives back to the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hqc.diagnostics import Diagnostic, Exit


@dataclass(frozen=True)
class Result:
    """Text for people, the same as a document for programs, and the exit status.

    Attributes:
        text: printed on stdout, unless `-f json` asks for the document.
        document: the `result` of the JSON document.
        exit: exit status.
        diagnostics: printed on stderr after the progress.
    """

    text: str = ""
    document: Mapping[str, Any] | None = None
    exit: Exit = Exit.OK
    diagnostics: tuple[Diagnostic, ...] = ()


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns as wide as their widest cell; the last one as it comes."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)] if rows else []
    return "\n".join(
        "  ".join((*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1])).rstrip()
        for row in rows
    )
