"""What the sources themselves say: docstrings, the attributes they read, what they refuse."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from types import ModuleType

#: What stands for an expression in a message.
HOLE = "..."
_CODE = re.compile(r"HQC\d{3}")
_SECTION = re.compile(r"^(Args|Raises|Returns|Yields|Attributes):$", re.MULTILINE)


def prose(found: object) -> str:
    """A docstring as Markdown: its text, and its attributes as a list."""
    text = inspect.cleandoc(inspect.getdoc(found) or "")
    head, *sections = _SECTION.split(text)
    parts = ["\n".join(map(_escaped, head.strip().splitlines()))]
    for name, body in zip(sections[::2], sections[1::2], strict=True):
        if name == "Attributes":
            parts.append(_entries(body))
    return "\n\n".join(part for part in parts if part)


def first_paragraph(found: object) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(found) or "").split("\n\n")[0].split())


def constants(module: ModuleType) -> set[str]:
    """Every string in a module's code; docstrings are among them, and match no name."""
    tree = ast.parse(inspect.getsource(module))
    return {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and _is_text(n.value)}


def refusals(found: object) -> Iterator[tuple[str, str, str]]:
    """(code, message, first help) of each refusal in a module, class or function.

    Where a function passes a message of its caller's on, the callers' messages are taken.
    """
    tree = ast.parse(inspect.getsource(found))  # type: ignore[arg-type]
    passed = dict(_passing_on(tree))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id == "reject":
            tuples = [k.value for k in node.keywords if k.arg == "helps"]
            given = tuples[0].elts if tuples and isinstance(tuples[0], ast.Tuple) else []
            entry = _shown(node.args[0]), _shown(node.args[1]), _shown(given[0]) if given else ""
        elif node.func.id in passed:
            code, index = passed[node.func.id]
            helps = node.args[index + 1] if len(node.args) > index + 1 else None
            entry = code, _shown(node.args[index]), _shown(helps) if helps else ""
        else:
            continue
        if _CODE.fullmatch(entry[0]) and len(entry[1].replace(HOLE, "")) > 6:
            yield entry


def _passing_on(tree: ast.Module) -> Iterator[tuple[str, tuple[str, int]]]:
    """Functions that refuse with a message they are given: name, code, position of the message."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        names = [a.arg for a in function.args.args]
        for node in ast.walk(function):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "reject":
                continue
            code, message = node.args[:2]
            if isinstance(message, ast.Name) and message.id in names:
                yield function.name, (_shown(code), names.index(message.id))


def _escaped(line: str) -> str:
    """A line whose stars are stars; code, indented or within backquotes, has its own."""
    if line.startswith("    "):
        return line
    parts = line.split("`")
    return "`".join(p if i % 2 else p.replace("*", r"\*") for i, p in enumerate(parts))


def _is_text(found: object) -> bool:
    return isinstance(found, str)


def _shown(node: ast.expr) -> str:
    """A text as far as it is known without running the code."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = (str(p.value) if isinstance(p, ast.Constant) else HOLE for p in node.values)
        return "".join(parts)
    if isinstance(node, ast.BinOp):
        return _shown(node.left) + _shown(node.right)
    if isinstance(node, ast.IfExp):
        one, other = _shown(node.body), _shown(node.orelse)
        return f"{one} / {other}" if other else f"[{one}]"
    return HOLE if isinstance(node, ast.Name | ast.Attribute | ast.Call) else ""


def _entries(body: str) -> str:
    """The entries of a section as a list."""
    lines: list[str] = []
    for line in inspect.cleandoc("\n" + body).splitlines():
        if not line.startswith(" ") and ":" in line:
            name, _, text = line.partition(":")
            lines.append(f"- `{name}`: {text.strip()}")
        elif line.strip():
            lines[-1] += f" {line.strip()}"
    return "\n".join(lines)
