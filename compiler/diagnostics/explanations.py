"""What each diagnostic code means, at length: the data of `hqc explain` and of the reference.

The texts are in `explanations.toml`; the titles are those of `hqc.diagnostics.CODES`.
"""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from hqc.diagnostics.messages import CODES, exit_of

#: Characters in a line of `hqc explain`.
WIDTH = 88


@dataclass(frozen=True)
class Explanation:
    """One code at length.

    Attributes:
        code: such as HQC205; `title` is its line in `hqc.diagnostics.CODES`.
        meaning: what is wrong, in a paragraph.
        when: at which point of the work it is raised.
        causes, remedies: what usually leads to it, and what helps.
        example: a message as the command line shows it.
    """

    code: str
    title: str
    meaning: str
    when: str
    causes: tuple[str, ...]
    remedies: tuple[str, ...]
    example: str

    def __str__(self) -> str:
        """Plain text that is Markdown, too."""
        parts = [
            f"{self.code}: {self.title}",
            _wrapped(self.meaning),
            _wrapped(f"When: {self.when}. Exit status {int(exit_of(self.code))}."),
            "Usual causes:",
            _list(self.causes),
            "What to do:",
            _list(self.remedies),
            "Example:",
            textwrap.indent(self.example, "    "),
        ]
        return "\n\n".join(parts)


@cache
def explanations() -> dict[str, Explanation]:
    """All codes that are explained, in the order of `CODES`.

    Raises:
        KeyError: an explanation lacks an entry.
    """
    text = (
        resources.files("hqc.diagnostics").joinpath("explanations.toml").read_text(encoding="utf-8")
    )
    document = tomllib.loads(text)
    return {
        code: Explanation(
            code=code,
            title=CODES[code],
            meaning=document[code]["meaning"],
            when=document[code]["when"],
            causes=tuple(document[code]["causes"]),
            remedies=tuple(document[code]["remedies"]),
            example=document[code]["example"].strip("\n"),
        )
        for code in CODES
        if code in document
    }


def explained(code: str) -> Explanation:
    """The explanation of one code; KeyError where there is none."""
    return explanations()[code]


def _wrapped(text: str, first: str = "", rest: str = "") -> str:
    wrapper = textwrap.TextWrapper(WIDTH, initial_indent=first, subsequent_indent=rest)
    wrapper.break_long_words = wrapper.break_on_hyphens = False
    return wrapper.fill(text)


def _list(items: Sequence[str]) -> str:
    return "\n".join(_wrapped(item, "- ", "  ") for item in items)
