"""What the sources say under each diagnostic code, read from their syntax trees."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("compiler", "passes", "frontends", "backends")
CODE = re.compile(r"HQC\d{3}")
#: What stands for an expression in an f-string.
HOLE = "\x00"


@cache
def sources() -> tuple[tuple[str, ast.Module], ...]:
    """(path, tree) of every source file that may raise; the table of codes itself is none."""
    return tuple(
        (str(path.relative_to(ROOT)), ast.parse(path.read_text()))
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.name != "diagnostics.py"
    )


@cache
def used() -> dict[str, set[str]]:
    """The codes that stand in the sources as strings, and the files that they stand in."""
    found: dict[str, set[str]] = defaultdict(set)
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and CODE.fullmatch(str(node.value)):
                found[str(node.value)].add(path)
    return found


@cache
def messages() -> dict[str, set[str]]:
    """By code, every text in the functions and tables that name it, with holes for expressions.

    Under "" stand all texts of the sources that are long enough to be told apart: messages that a
    helper makes, or another module.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for _, tree in sources():
        for scope in _scopes(tree):
            texts = set(_texts(scope))
            for code in {t for t in texts if CODE.fullmatch(t)}:
                found[code] |= {t for t in texts if not CODE.fullmatch(t)}
            found[""] |= {t for t in texts if len(t.replace(HOLE, "")) >= 12}
    return found


def matches(template: str, text: str) -> bool:
    """Whether a text can be what an f-string gives."""
    parts = (re.escape(part) for part in template.split(HOLE))
    return len(template.replace(HOLE, "")) >= 2 and bool(re.fullmatch(".*".join(parts), text))


def _scopes(tree: ast.Module) -> Iterator[ast.AST]:
    """Functions, and statements outside of them."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.ClassDef):
            pending += node.body
        else:
            yield node
            inner = (n for n in ast.walk(node) if n is not node and isinstance(n, functions))
            pending += inner


def _texts(scope: ast.AST) -> Iterator[str]:
    inside = {
        id(part)
        for node in ast.walk(scope)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    for node in ast.walk(scope):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values
            )
        elif isinstance(node, ast.Constant) and id(node) not in inside:
            yield from (node.value,) if isinstance(node.value, str) else ()
