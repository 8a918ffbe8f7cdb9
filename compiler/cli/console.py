"""What the command line draws on stderr: progress lines and diagnostics, in colour on terminals."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from hqc.diagnostics import Diagnostic
from hqc.diagnostics.events import Event

_STYLES = {
    "error": "1;31",
    "warning": "1;33",
    "ok": "1;32",
    "where": "1;34",
    "help": "1;36",
    "dim": "2",
    "bold": "1",
}
#: Remarks of one pass that are shown; a screen is small.
REMARKS = 4
COLOURS = ("auto", "always", "never")
#: Messages from foreign tools may carry control characters; none of them reach the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def wants_colour(choice: str, stream: IO[str], environment: Mapping[str, str]) -> bool:
    """Whether to colour: the choice first, then NO_COLOR, then whether a terminal looks on."""
    if choice != "auto":
        return choice == "always"
    if environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return False
    return stream.isatty()


@dataclass
class Console:
    """Draws on one stream; `live` redraws the running line in place, as terminals can."""

    stream: IO[str] = field(default_factory=lambda: sys.stderr)
    colour: bool = False
    live: bool = False
    quiet: bool = False
    _open: bool = False

    @classmethod
    def on_stderr(cls, colour: str = "auto", quiet: bool = False) -> Console:
        """The console of this process."""
        live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        return cls(sys.stderr, wants_colour(colour, sys.stderr, os.environ), live, quiet)

    def style(self, text: str, style: str) -> str:
        """The text, coloured where colours are drawn."""
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.colour else text

    def line(self, text: str = "") -> None:
        """Print a line that `quiet` keeps back."""
        if not self.quiet:
            self._print(text)

    def watch(self, event: Event) -> None:
        """Draw the beginning or the end of a stage or pass."""
        if self.quiet:
            return
        if event.seconds is None:
            if self.live:
                self._clear()
                width = shutil.get_terminal_size().columns - 1
                self.stream.write(self.style(f"  {event.name} ..."[:width], "dim"))
                self.stream.flush()
                self._open = True
            return
        took = self.style(f"{event.seconds:7.2f} s", "dim")
        self._print(f"  {event.name:<32} {took}  {event.detail}".rstrip())
        for remark in event.remarks[:REMARKS]:
            self._print(self.style(f"      {_plain(remark)}", "dim"))
        if (more := len(event.remarks) - REMARKS) > 0:
            self._print(self.style(f"      and {more} more; report.json has all", "dim"))

    def diagnostics(self, found: Sequence[Diagnostic]) -> None:
        """Print diagnostics, also when quiet."""
        for index, diagnostic in enumerate(found):
            if index:
                self._print("")
            self._print(self.render(diagnostic))

    def error_line(self, text: str) -> None:
        """Print a line also when quiet."""
        self._print(self.style(text, "error"))

    def render(self, diagnostic: Diagnostic) -> str:
        """A diagnostic in the layout of `str(diagnostic)`, coloured."""
        severity = "warning" if diagnostic.severity == "warning" else "error"
        head = self.style(f"{diagnostic.severity}[{diagnostic.code}]", severity)
        lines = [f"{head}{self.style(f': {_plain(diagnostic.message)}', 'bold')}"]
        if str(diagnostic.where):
            lines.append(f"  {self.style('-->', 'where')} {_plain(str(diagnostic.where))}")
        for word, texts, style in (
            ("note", diagnostic.notes, "where"),
            ("help", diagnostic.helps, "help"),
        ):
            for text in texts:
                body = _plain(text).replace("\n", "\n           ")
                lines.append(f"   {self.style('=', 'where')} {self.style(word, style)}: {body}")
        return "\n".join(lines)

    def close(self) -> None:
        """Remove a running line that nothing followed."""
        self._clear()

    def _print(self, text: str) -> None:
        self._clear()
        self.stream.write(f"{text}\n")
        self.stream.flush()

    def _clear(self) -> None:
        if self._open:
            self.stream.write("\r\x1b[K")
            self._open = False


def _plain(text: str) -> str:
    return _CONTROL.sub("", text)


def as_json(diagnostic: Diagnostic) -> dict[str, object]:
    """A diagnostic as programs read it."""
    return {
        "severity": diagnostic.severity,
        "code": diagnostic.code,
        "message": diagnostic.message,
        "where": {
            "source": diagnostic.where.source,
            "node": diagnostic.where.node,
            "passes": list(diagnostic.where.passes),
        },
        "notes": list(diagnostic.notes),
        "helps": list(diagnostic.helps),
    }
