"""The text forms of pipelines and types: `fold-constants,repeat(dce){...}`, `fixed<8,3,...>`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lark import Token, Tree

from hqc.numerics.types import FixedType
from hqc.text.grammar import Node, fixed_type, leaf, malformed, quote, read, tokens, unquote

Option = str | int | float | bool

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_NUMBER_LIKE = re.compile(r"(inf|nan|true|false)$")


@dataclass(frozen=True)
class Step:
    """One pass of a pipeline with its options, as `name{option=value}` writes it.

    Raises:
        ValueError: a name that no pipeline string can spell, or an option given twice.
    """

    name: str
    options: tuple[tuple[str, Option], ...] = ()

    def __post_init__(self) -> None:
        for name in (self.name, *(key for key, _ in self.options)):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a name")
        if self.name == "repeat":
            raise ValueError("repeat(...) is part of the syntax, not a pass")
        if len({key for key, _ in self.options}) != len(self.options):
            raise ValueError(f"an option of {self.name} is given twice")

    def __str__(self) -> str:
        options = ",".join(f"{key}={_print_option(value)}" for key, value in self.options)
        return f"{self.name}{{{options}}}" if options else self.name


@dataclass(frozen=True)
class Repeat:
    """Steps to run again and again until none of them changes anything: `repeat(a,b)`."""

    steps: tuple[Step | Repeat, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("repeat() of nothing")

    def __str__(self) -> str:
        return f"repeat({print_pipeline(self.steps)})"


def parse_pipeline(text: str) -> tuple[Step | Repeat, ...]:
    """Read a pipeline string such as `a,b{x=1,y=foo},repeat(c,d)`; the empty one has no steps.

    Raises:
        HqcError: HQC306, with the place and what was expected there.
    """
    return tuple(_steps(read("pipeline", text), text))


def print_pipeline(steps: Iterable[Step | Repeat]) -> str:
    """The pipeline string that `parse_pipeline` reads back as the same steps."""
    return ",".join(str(step) for step in steps)


def parse_type(text: str) -> FixedType:
    """Read a type string such as `fixed<16,6,RND_CONV,SAT>`.

    Raises:
        HqcError: HQC306, with the place and what was expected there.
    """
    return fixed_type(read("fixed_type", text), text)


def _steps(tree: Node, text: str) -> Iterator[Step | Repeat]:
    for child in tree.children:
        if not isinstance(child, Tree):
            continue
        if child.data == "repeat":
            yield Repeat(tuple(_steps(child, text)))
        else:
            yield _step(child, text)


def _step(tree: Node, text: str) -> Step:
    name = leaf(tree.children[0])
    found = [_option(c, text) for c in tree.children[1:] if isinstance(c, Tree)]
    try:
        return Step(str(name), tuple(found))
    except ValueError as error:
        raise malformed("pipeline", text, str(error), name) from None


def _option(tree: Node, text: str) -> tuple[str, Option]:
    key, value = tokens(tree)
    try:
        return str(key), _option_value(value)
    except ValueError as error:
        raise malformed("pipeline", text, str(error), value) from None


def _option_value(token: Token) -> Option:
    if token.type == "BOOL":
        return str(token) == "true"
    if token.type == "STRING":
        return unquote(token)
    if token.type == "NUMBER":
        return int(token) if re.fullmatch(r"[+-]?[0-9]+", token) else float(token)
    return str(token)


def _print_option(value: Option) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value if _NAME.fullmatch(value) and not _NUMBER_LIKE.match(value) else quote(value)
    return repr(value)
