"""Constant tables of the source, and constants brought to the step that a computation has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hqc.backends.layers import Constant
from hqc.numerics import Codes
from hqc_c99.words import Bounds, Target

_COLUMNS = 92


@dataclass(frozen=True, eq=False)
class Table:
    """An array in flash: what it is called, what it holds, and the C type of its elements."""

    name: str
    codes: Codes
    ctype: str

    @classmethod
    def of(cls, name: str, codes: Codes, target: Target) -> Table:
        """A table of the smallest type that holds the codes."""
        return cls(name, codes, target.storage(bounds(codes)))

    @property
    def bytes(self) -> int:
        """What it takes of the flash."""
        return int(self.codes.size) * width(self.ctype) // 8

    @property
    def definition(self) -> str:
        """The C text."""
        lines, line = [], "   "
        for code in self.codes.ravel().tolist():
            word = f" {number(code, self.ctype)},"
            if len(line) + len(word) > _COLUMNS:
                lines.append(line)
                line = "   "
            line += word
        body = "\n".join([*lines, line.rstrip(",")])
        return f"static const {self.ctype} {self.name}[{self.codes.size}] = {{\n{body}\n}};\n"


def width(ctype: str) -> int:
    """Bits of an exact-width C type."""
    return int(ctype.removeprefix("u").removeprefix("int").removesuffix("_t"))


def number(code: int, ctype: str) -> str:
    """An element of a table: INT64_C where a plain literal could be of another type."""
    bits = width(ctype)
    if bits < 32:
        return str(code)
    if code == -(1 << (bits - 1)):
        return f"(-INT{bits}_C({-(code + 1)}) - 1)"
    return f"INT{bits}_C({code})" if code >= 0 else f"-INT{bits}_C({-code})"


def bounds(codes: Codes, fraction: int = 0) -> Bounds:
    """The ends of an array of codes."""
    return Bounds(int(codes.min()), int(codes.max()), fraction)


def reduced(constant: Constant) -> tuple[Codes, int]:
    """Codes and fraction of a constant on the coarsest step that holds it."""
    codes, fraction = constant.codes, constant.type.fraction
    together = int(np.bitwise_or.reduce(codes, axis=None))
    if together == 0:
        return codes, 0
    zeros = (together & -together).bit_length() - 1
    return codes >> zeros, fraction - zeros
