"""Verilog files as modules and statements, each statement a tree of tuples.

Statements of one shape are parsed once: their names, numbers and literals are taken out first, so
a file of ten thousand additions costs ten thousand look-ups and one run of the parser.
"""

from __future__ import annotations

import re
from bisect import bisect
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, Transformer
from lark.exceptions import LarkError

from hqc.diagnostics import HqcError, reject

#: A name, a number, or (width, value) of a literal.
Atom = str | int | tuple[int, int]

_ATOM = re.compile(r"(\d+)'d(\d+)|\$?[A-Za-z_]\w*|\d+")
_KEYWORDS = frozenset(("wire", "reg", "signed", "always", "posedge", "if", "else", "assign"))
#: Characters of other meanings than the grammar gives their parts.
_OTHER = re.compile(
    r"[^\x09\x0a\x20-\x7e]|[\"\\#!]|/\*|&&|\|\||~[&|~^]|\^\s*[~&|^]|\*\*|[&|]\s*[&|]"
)
_MODULE = re.compile(r"\bmodule\s+(\w+)\s*\(([^()]*)\)\s*;(.*?)\bendmodule\b", re.DOTALL)
#: Bits of the widest code of a table that is read: every code is looked at.
_WIDEST_CODE = 24
_PORT = re.compile(r"\s*(input|output)\s+wire\s+(?:\[(\d+):0\]\s+)?(\w+)\s*")
_FUNCTION = re.compile(
    r"\bfunction\s+\[(\d+):0\]\s+(\w+)\s*;\s*input\s+\[(\d+):0\]\s+code\s*;"
    r"\s*case\s*\(code\)(.*?)\bendcase\s+endfunction\b",
    re.DOTALL,
)
_CASE = re.compile(r"\s*(?:(\d+)'d(\d+)|(default))\s*:\s*(\w+)\s*=\s*(\d+)'d(\d+)\s*")


@dataclass(frozen=True)
class Source:
    """A file: its path for messages and its text without comments."""

    path: str
    text: str

    def reject(self, offset: int, message: str) -> HqcError:
        """The error of something that is not as hqc writes it."""
        return reject("HQC425", f"{self.path}:{self.line(offset)}: {message}")

    def line(self, offset: int) -> int:
        """The line of a character."""
        return bisect(_newlines(self.text), offset - 1) + 1


@cache
def _newlines(text: str) -> list[int]:
    return [found.start() for found in re.finditer("\n", text)]


@dataclass(frozen=True)
class Statement:
    """One statement.

    Attributes:
        kind: the rule of the grammar, or "" for a text outside of it.
        parts: of the tree: atoms, strings, and nested (rule, ...) tuples.
        text: as written, white space joined.
        source, offset: where it stands.
    """

    kind: str
    parts: tuple[Any, ...]
    text: str
    source: Source
    offset: int

    def reject(self, message: str) -> HqcError:
        """The error of a statement that is not as hqc writes it."""
        return self.source.reject(self.offset, message)

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self.source.path}:{self.source.line(self.offset)}"


@dataclass(frozen=True)
class Table:
    """A function: the result for every code, as bits.

    Attributes:
        codes, width: bits of the operand and of the result.
        values: of each code, from code 0.
    """

    codes: int
    width: int
    values: tuple[int, ...]


@dataclass(frozen=True)
class Module:
    """One module.

    Attributes:
        name: its name.
        inputs, outputs: widths of ports by name, in order.
        tables: functions by name.
        statements: in order.
        source, offset: where it stands.
    """

    name: str
    inputs: dict[str, int]
    outputs: dict[str, int]
    tables: dict[str, Table]
    statements: tuple[Statement, ...]
    source: Source
    offset: int

    def reject(self, message: str) -> HqcError:
        """The error of a module that is not as hqc writes it."""
        return self.source.reject(self.offset, f"module {self.name}: {message}")


def read_source(file: Path, path: str) -> list[Module]:
    """The modules of a file.

    Args:
        file: to read.
        path: its name in messages.

    Raises:
        HqcError: HQC425, it is not as hqc writes it.
    """
    try:
        given = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as reason:
        raise reject("HQC425", f"{path} cannot be read: {reason}") from None
    # Comments become white space of the same length, so that offsets stay.
    text = re.sub(r"//[^\n]*", lambda found: " " * len(found[0]), given)
    source = Source(path, text)
    text = _without_directives(source)
    source = Source(path, text)
    if wrong := _OTHER.search(text):
        raise source.reject(wrong.start(), f"{wrong[0]!r} is not in what hqc writes")
    modules, end = [], 0
    for found in _MODULE.finditer(text):
        _check_blank(source, end, found.start())
        modules.append(_module(source, found))
        end = found.end()
    _check_blank(source, end, len(text))
    return modules


def _without_directives(source: Source) -> str:
    """The text without the directives around its modules."""
    text = source.text
    for directive, first in (("`default_nettype none\n", True), ("`default_nettype wire\n", False)):
        at = text.find(directive)
        outside = text[:at] if first else text[at + len(directive) :]
        if at < 0 or outside.strip():
            raise source.reject(0, f"{directive.strip()} does not stand around the modules")
        text = text[:at] + " " * (len(directive) - 1) + "\n" + text[at + len(directive) :]
    if "`" in text:
        raise source.reject(text.index("`"), "a directive that hqc does not write")
    return text


def _check_blank(source: Source, start: int, end: int) -> None:
    if rest := source.text[start:end].strip():
        at = source.text.index(rest[0], start)
        raise source.reject(at, f"{rest.split()[0]!r} is in no module")


def _module(source: Source, found: re.Match[str]) -> Module:
    inputs: dict[str, int] = {}
    outputs: dict[str, int] = {}
    for part in found[2].split(","):
        port = _PORT.fullmatch(part)
        if port is None or port[3] in inputs | outputs:
            raise source.reject(found.start(2), f"{part.strip()!r} is no port as hqc writes them")
        held = inputs if port[1] == "input" else outputs
        held[port[3]] = int(port[2] or 0) + 1
    tables, start = _tables(source, found.start(3), found.end(3))
    statements = _statements(source, start, found.end(3))
    name = found[1]
    return Module(name, inputs, outputs, tables, statements, source, found.start())


# --- functions --------------------------------------------------------------------------------


def _tables(source: Source, start: int, end: int) -> tuple[dict[str, Table], int]:
    """The functions at the beginning of a module, and where they end."""
    tables: dict[str, Table] = {}
    while (found := _FUNCTION.search(source.text, start, end)) is not None:
        if source.text[start : found.start()].strip():
            break
        if found[2] in tables:
            raise source.reject(found.start(), f"{found[2]} stands twice")
        tables[found[2]] = _table(source, found)
        start = found.end()
    return tables, start


def _table(source: Source, found: re.Match[str]) -> Table:
    width, name, codes = int(found[1]) + 1, found[2], int(found[3]) + 1
    values: dict[int, int] = {}
    default: int | None = None
    if codes > _WIDEST_CODE:
        raise source.reject(found.start(), f"{name} has too many codes")
    *cases, rest = found[4].split(";")
    offset = found.start(4)
    for text in cases:
        case = _CASE.fullmatch(text)
        if case is None or case[4] != name or int(case[5]) != width or default is not None:
            raise source.reject(offset, f"{text.strip()!r} is no case of {name}")
        value = int(case[6])
        if value >> width or (case[1] and (int(case[1]) != codes or int(case[2]) >> codes)):
            raise source.reject(offset, f"{text.strip()!r} has a number of another width")
        if case[3]:
            default = value
        elif values.setdefault(int(case[2]), value) != value:
            raise source.reject(offset, f"case {case[2]} of {name} stands twice")
        offset += len(text) + 1
    if rest.strip() or default is None:
        raise source.reject(found.start(), f"{name} has no default")
    filled = [values.get(code, default) for code in range(1 << codes)]
    return Table(codes, width, tuple(filled))


# --- statements -------------------------------------------------------------------------------


def _statements(source: Source, start: int, end: int) -> tuple[Statement, ...]:
    *texts, rest = source.text[start:end].split(";")
    found = []
    for text in texts:
        offset = start + len(text) - len(text.lstrip())
        found.append(parse(source, offset, text.strip()))
        start += len(text) + 1
    if rest.strip():
        raise source.reject(start, f"{rest.split()[0]!r} begins no statement as hqc writes them")
    return tuple(found)


def parse(source: Source, offset: int, text: str) -> Statement:
    """A statement; of kind "" if the grammar does not have it."""
    atoms: list[Atom] = []

    def placeholder(found: re.Match[str]) -> str:
        word = found[0]
        if found[1]:
            atoms.append((int(found[1]), int(found[2])))
            return "λ"
        if word in _KEYWORDS or word.startswith("$"):
            return word
        atoms.append(int(word) if word.isdigit() else word)
        return "ι" if word.isdigit() else "ν"

    shape = _ATOM.sub(placeholder, text)
    tree = _shape(shape)
    joined = " ".join(text.split())
    if tree is None:
        return Statement("", (), joined, source, offset)
    kind, *parts = _filled(tree, atoms)
    return Statement(kind, tuple(parts), joined, source, offset)


class _Slots(Transformer[Token, Any]):
    """Trees as tuples (rule, ...), atoms as the number of their slot."""

    def __init__(self, shape: str) -> None:
        super().__init__()
        places = [at for at, letter in enumerate(shape) if letter in "νιλ"]
        self.slots = {at: slot for slot, at in enumerate(places)}

    def __default__(self, data: Any, children: list[Any], meta: Any) -> tuple[Any, ...]:
        return (str(data), *children)

    def __default_token__(self, token: Token) -> Any:
        return self.slots.get(token.start_pos or 0, str(token))


@cache
def _shape(shape: str) -> Any:
    """The tree of a shape; None if it has none."""
    try:
        return _Slots(shape).transform(_lark().parse(shape))
    except LarkError:
        return None


@cache
def _lark() -> Lark:
    text = Path(__file__).with_name("readback.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", start="statement", maybe_placeholders=True)


def _filled(tree: Any, atoms: list[Atom]) -> Any:
    if isinstance(tree, tuple):
        return tuple(_filled(part, atoms) for part in tree)
    return atoms[tree] if isinstance(tree, int) else tree
