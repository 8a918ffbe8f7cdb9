"""What a command gives back to the command line."""

from __future__ import annotations

from collections.abc import Mapping
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
