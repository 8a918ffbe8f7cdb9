"""What a benchmark found: figures of hqc beside those of named peers, as JSON and as text.

A ratio is above 1 where hqc is better than the best peer of the same run, whichever way the figure
is read. What is behind is called so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One thing that was measured on both sides.

    Attributes:
        what: is measured, with its unit, such as "samples per second".
        ours: hqc's figure.
        peers: theirs, by name.
        more_is_better: whether the larger figure is the better one.
    """

    what: str
    ours: float
    peers: Mapping[str, float]
    more_is_better: bool = False

    @property
    def best(self) -> str:
        """The name of the best peer."""
        choose = max if self.more_is_better else min
        return choose(self.peers, key=lambda name: self.peers[name])

    @property
    def ratio(self) -> float:
        """How many times better hqc is than the best peer; below 1, how much worse."""
        theirs = self.peers[self.best]
        over, under = (self.ours, theirs) if self.more_is_better else (theirs, self.ours)
        return over / under if under else float("inf")

    @property
    def verdict(self) -> str:
        """In a word, at the two digits that are printed."""
        rounded = round(self.ratio, 2)
        return "level" if rounded == 1 else "ahead" if rounded > 1 else "behind"


@dataclass(frozen=True)
class Comparison:
    """All figures of one run.

    Attributes:
        setting: what was measured, in a sentence.
        figures: each with its peers.
        tools: versions of what was run, by name.
        notes: what a reader of the figures has to know, one sentence each.
    """

    setting: str
    figures: Sequence[Figure]
    tools: Mapping[str, str]
    notes: Sequence[str] = ()

    def json(self) -> str:
        """One document."""
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def of(document: Mapping[str, Any]) -> Comparison:
        """What `json` wrote."""
        figures = tuple(Figure(**figure) for figure in document["figures"])
        return Comparison(document["setting"], figures, document["tools"], tuple(document["notes"]))

    def text(self) -> str:
        """For people: a line per figure, then the notes."""
        lines = [self.setting, ""]
        for figure in self.figures:
            lines.append(f"{figure.what}: hqc {number(figure.ours)}")
            for name, value in figure.peers.items():
                lines.append(f"    {name}: {number(value)}")
            lines.append(f"    {figure.ratio:.2f} times {figure.best}: {figure.verdict}")
        return "\n".join([*lines, "", *self.notes, versioned(self.tools)])


def number(value: float) -> str:
    """Three significant digits, thousands with commas."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def versions(*packages: str) -> dict[str, str]:
    """Versions of installed packages, by name."""
    return {name: metadata.version(name) for name in packages}


def versioned(tools: Mapping[str, str]) -> str:
    """Names and versions in one line."""
    return ", ".join(f"{name} {version}" for name, version in tools.items())
