"""Reading text with the grammar `hqc.lark`; what is malformed is shown with its line and column."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from hqc.diagnostics import HqcError, Location, reject
from hqc.ir import parse_type
from hqc.numerics.types import FixedType

Node = Tree[Token]

#: What the tokens without a fixed spelling are called in messages.
_WORDS = {
    "KIND": "fixed or ufixed",
    "ROUNDING": "a rounding mode",
    "OVERFLOW": "an overflow mode",
    "STATE": "quantised or integer",
    "EMPTY": "an empty list such as ints[]",
    "DTYPE": "an element type such as float32",
    "HASH": "sha256: and 16 hexadecimal digits",
    "INT": "an integer",
    "NUMBER": "a number",
    "BOOL": "true or false",
    "VALUE": "a value such as %x",
    "GLOBAL": "a name such as @net",
    "STRING": 'a string in "quotes"',
    "ID": "a name",
    "$END": "the end",
}


@cache
def _lark() -> Lark:
    text = Path(__file__).with_name("hqc.lark").read_text(encoding="utf-8")
    return Lark(
        text, start=["fixed_type", "pipeline", "module"], parser="lalr", maybe_placeholders=True
    )


def read(start: str, text: str) -> Node:
    """Parse text with one of the grammar's start rules (`fixed_type`, `pipeline`, `module`).

    Raises:
        HqcError: HQC306 with line, column, the line itself and what was expected.
    """
    try:
        return _lark().parse(text, start=start)
    except UnexpectedInput as error:
        raise _malformed(start, text, error) from None


def malformed(
    what: str, text: str, message: str, at: Token | None = None, *, helps: tuple[str, ...] = ()
) -> HqcError:
    """The HQC306 error of a text that parses but means nothing, pointing at one token."""
    line, column = (at.line, at.column) if at is not None else (None, None)
    return _error(what, text, message, line or 1, column or 1, (), helps)


def leaf(child: object) -> Token:
    """A child that the grammar makes a token."""
    assert isinstance(child, Token)
    return child


def branch(child: object) -> Node:
    """A child that the grammar makes a tree."""
    assert isinstance(child, Tree)
    return child


def tokens(tree: Node) -> tuple[Token, ...]:
    """The tokens directly below a tree, without the places of absent ones."""
    return tuple(child for child in tree.children if isinstance(child, Token))


def trees(tree: object) -> tuple[Node, ...]:
    """The trees directly below a tree, without the places of absent ones."""
    return tuple(child for child in branch(tree).children if isinstance(child, Tree))


def fixed_type(tree: Node, text: str) -> FixedType:
    """The type that a `fixed_type` tree spells; width and modes must make sense together.

    Raises:
        HqcError: HQC306, they do not.
    """
    kind, *fields = tokens(tree)
    try:
        return parse_type(f"{kind}<{','.join(fields)}>")
    except ValueError as error:
        raise malformed("fixed_type", text, str(error), kind) from None


def unquote(text: str) -> str:
    """The string that a STRING token spells.

    Raises:
        ValueError: an escape that JSON does not know.
    """
    found = json.loads(text, strict=False)
    if not isinstance(found, str):
        raise ValueError(f"{text} is not a string")
    return found


def quote(text: str) -> str:
    """Spell a string as a STRING token, on one line and printable whatever it holds."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{"".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in escaped)}"'


def _malformed(what: str, text: str, error: UnexpectedInput) -> HqcError:
    line, column = error.line, error.column
    if isinstance(error, UnexpectedToken) and error.token.type != "$END":
        found, expected = f"unexpected {str(error.token)!r}", error.accepts or error.expected
    elif isinstance(error, UnexpectedCharacters):
        found, expected = f"unexpected {error.char!r}", error.allowed or set()
    else:
        found = "the text ends too early"
        expected = set(error.expected) if isinstance(error, UnexpectedEOF) else set()
        if isinstance(error, UnexpectedToken):
            expected = error.accepts or error.expected
        line, column = _end(text)
    wanted = sorted({_word(name) for name in expected})
    notes = (f"expected {', '.join(wanted)}",) if wanted else ()
    return _error(what, text, found, line, column, notes, ())


def _end(text: str) -> tuple[int, int]:
    lines = text.rstrip().split("\n")
    return len(lines), len(lines[-1]) + 1


def _word(terminal: str) -> str:
    if terminal in _WORDS:
        return _WORDS[terminal]
    return f"'{_lark().get_terminal(terminal).pattern.value}'"


def _error(
    what: str,
    text: str,
    message: str,
    line: int,
    column: int,
    notes: tuple[str, ...],
    helps: tuple[str, ...],
) -> HqcError:
    lines = text.split("\n")
    shown = lines[line - 1] if line <= len(lines) else ""
    first = max(0, column - 60)  # a module line can be thousands of columns wide
    window = shown[first : first + 90]
    return reject(
        "HQC306",
        f"malformed {what.replace('_', ' ')}: {message}",
        where=Location(source=f"line {line}, column {column}"),
        notes=(window, " " * (column - 1 - first) + "^", *notes),
        helps=helps,
    )
