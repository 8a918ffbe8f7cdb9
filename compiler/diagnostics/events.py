"""What the driver tells whoever watches a compile; the command line draws it, others may log it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """A stage or a pass has begun (`seconds` is None) or ended.

    Attributes:
        name: of the stage or pass.
        seconds: it took, or None at its beginning.
        detail: what came of it, in a few words.
        remarks: what a pass did or declined, one sentence each.
    """

    name: str
    seconds: float | None = None
    detail: str = ""
    remarks: tuple[str, ...] = ()


Watch = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Watch nothing."""


@dataclass
class Note:
    """Filled in by a stage while it runs: what its ending event says."""

    detail: str = ""
    remarks: list[str] = field(default_factory=list)


@contextmanager
def stage(name: str, watch: Watch) -> Iterator[Note]:
    """Announce a stage, time it, and announce its end unless it raises."""
    watch(Event(name))
    note, begun = Note(), time.perf_counter()
    yield note
    watch(Event(name, time.perf_counter() - begun, note.detail, tuple(note.remarks)))
