"""The public Python API as text: what docs/api names, one line for each signature."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "api"
_IDENTIFIER = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
HEAD = "# The public API. Written by: pytest tests/project/test_public_api.py --update-golden"
#: Members that every class of a kind has, and that say nothing.
_DULL = {"__init__", "__new__", "__post_init__", "__repr__", "__eq__", "__hash__", "__reduce__"}


def public_names() -> list[str]:
    """Every name that the pages of docs/api document, sorted."""
    found = [
        n for page in sorted(PAGES.glob("*.md")) for n in _IDENTIFIER.findall(page.read_text())
    ]
    assert len(found) == len(set(found)), "a name is documented twice"
    return sorted(found)


def resolve(name: str) -> Any:
    """The object of a dotted name.

    Raises:
        AttributeError: there is none.
    """
    module, rest = _module_of(name)
    found: Any = module
    for part in rest:
        found = getattr(found, part)
    return found


def snapshot() -> str:
    """All public signatures, one a line."""
    lines = [line for name in public_names() for line in _lines(name, resolve(name))]
    promised = ", ".join(sorted(import_module("hqc").__all__))
    return "\n".join([HEAD, f"hqc.__all__: {promised}", *lines]) + "\n"


def _module_of(name: str) -> tuple[ModuleType, list[str]]:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = ".".join(parts[:length])
        try:
            return import_module(path), parts[length:]
        except ModuleNotFoundError as error:
            if error.name is None or not path.startswith(error.name):
                raise  # a library that is missing, not a name that is no module
    raise AttributeError(name)


def _lines(name: str, found: Any) -> Iterator[str]:
    if inspect.isclass(found):
        yield from _class(name, found)
    elif inspect.isfunction(found):
        yield f"{name}{_signature(found)}"
    elif isinstance(found, str | int | tuple):
        yield f"{name} = {found!r}"
    elif isinstance(found, dict):
        yield f"{name}: dict"
    else:
        yield f"{name} = {_plain(str(found))}"


def _class(name: str, found: type) -> Iterator[str]:
    bases = ", ".join(b.__name__ for b in found.__bases__ if b not in (object, enum.Enum))
    if issubclass(found, enum.Enum):
        yield f"{name}: enum of {', '.join(f'{m.name} = {m.value!r}' for m in found)}"
        return
    constructor = "" if getattr(found, "_is_protocol", False) else _signature(found)
    yield f"class {name}{constructor}{f' of {bases}' if bases else ''}"
    fields = {f.name for f in dataclasses.fields(found)} if _has_fields(found) else set()
    for key, member in sorted(_members(found).items()):
        if key in _DULL or key in fields or key.startswith("_"):
            continue
        raw = member.__func__ if isinstance(member, staticmethod | classmethod) else member
        if isinstance(raw, property) or not callable(raw):
            given = getattr(raw, "fget", None) or getattr(raw, "func", None)
            result = inspect.signature(given).return_annotation if given is not None else None
            shown = "" if result in (None, inspect.Signature.empty) else f": {_plain(str(result))}"
            yield f"  {name}.{key}{shown}"
        else:
            kind = type(member).__name__ + " " if member is not raw else ""
            yield f"  {kind}{name}.{key}{_signature(raw)}"


def _members(found: type) -> dict[str, Any]:
    """What a class and its bases within hqc define."""
    own = [base for base in reversed(found.__mro__) if base.__module__.startswith("hqc.")]
    return {key: value for base in own for key, value in vars(base).items()}


def _has_fields(found: type) -> bool:
    return dataclasses.is_dataclass(found)


def _signature(found: Any) -> str:
    try:
        signature = inspect.signature(found)
    except (ValueError, TypeError):
        return "(...)"
    parts: list[str] = []
    starred = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        starred = starred or parameter.kind is parameter.VAR_POSITIONAL
        parts.append(_parameter(parameter))
    result = signature.return_annotation
    arrow = (
        "" if result in (inspect.Signature.empty, "None", None) else f" -> {_annotation(result)}"
    )
    return f"({', '.join(parts)}){arrow}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = f"{stars}{parameter.name}"
    if parameter.annotation is not parameter.empty:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        text += f" = {_default(parameter.default)}"
    return text


def _annotation(found: Any) -> str:
    return found if isinstance(found, str) else _plain(inspect.formatannotation(found))


def _default(found: Any) -> str:
    if inspect.isfunction(found) or inspect.isclass(found):
        return str(found.__name__)
    if isinstance(found, enum.Enum):
        return str(found)
    return _plain(repr(found))


def _plain(text: str) -> str:
    """Without addresses and the module names of annotations."""
    text = re.sub(r"<factory>|<object object at 0x[0-9a-f]+>", "...", text)
    text = re.sub(r"<function ([\w.<>]+) at 0x[0-9a-f]+>", r"\1", text)
    return re.sub(r"<(?:class )?'?([\w.]+)'?>", r"\1", text).replace("typing.", "")
