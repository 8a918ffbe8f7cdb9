"""Versions of what hqc writes to files: which of them this hqc reads, and what it says of others.

Whoever changes a format so that older readers would misread it raises `current`, keeps the old
number in `readable` as long as it can be read, and leaves the frozen file of the old version in
`tests/data` where it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from hqc.diagnostics.messages import Location, reject
from hqc.version import __version__


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        name: what users call it.
        current: the version that this hqc writes.
        readable: the versions that it reads; the current one is among them.
        remedy: how such a file is made again.
        unmarked: the version of files that state none; None where each must state its own.
    """

    name: str
    current: int
    readable: frozenset[int]
    remedy: str
    unmarked: int | None = None


#: The textual IR, `.hqir`; the header states the version.
TEXT = Format("textual IR", 1, frozenset({1}), "print the model again: hqc opt MODEL -o FILE.hqir")
#: `hqc.json` of a compiled directory, under "format".
MANIFEST = Format(
    "compiled directory",
    1,
    frozenset({1}),
    "compile the model again: hqc compile MODEL -o NEW_DIRECTORY",
)
#: Types, ranges and provenance in an `.onnx` file, under the metadata key "hqc.format". The first
#: files had no such key.
GRAPH = Format(
    "annotated .onnx file", 1, frozenset({1}), "write it again from its source", unmarked=1
)
#: `reproducer.json`, under "format".
REPRODUCER = Format(
    "reproducer", 1, frozenset({1}), "run the failing pipeline again: it leaves a new one"
)
FORMATS = (TEXT, MANIFEST, GRAPH, REPRODUCER)


def check(format_: Format, found: object, what: str, where: Location | None = None) -> int:
    """The version that a file states, if this hqc reads it.

    Args:
        format_: the kind of file.
        found: what it states, or None where it states nothing.
        what: the file, for the message.
        where: the place in it.

    Raises:
        HqcError: HQC008, the version is newer, too old, missing, or no number.
    """
    if found is None and format_.unmarked is not None:
        return format_.unmarked
    version = _number(found)
    if version in format_.readable:
        return version
    readable = ", ".join(map(str, sorted(format_.readable)))
    helps: tuple[str, ...]
    if version is None:
        stated = "states no version" if found is None else f"states the version {found!r}"
        message, helps = f"{what} {stated}", (format_.remedy,)
    elif version > format_.current:
        message = f"{what} is a {format_.name} of version {version}, made by a newer hqc"
        helps = ("install a newer hqc", f"or, with this one, {format_.remedy}")
    else:
        message = f"{what} is a {format_.name} of version {version}, too old for this hqc"
        helps = (format_.remedy, "or use the hqc that made it")
    notes = (f"hqc {__version__} reads {format_.name} version {readable}",)
    raise reject("HQC008", message, where=where, notes=notes, helps=helps)


def _number(found: object) -> int | None:
    """A version as JSON, metadata and text spell it."""
    if isinstance(found, int) and not isinstance(found, bool):
        return found
    return int(found) if isinstance(found, str) and found.isascii() and found.isdigit() else None
