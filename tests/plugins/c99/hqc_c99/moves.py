"""Rearrangements: loops where elements lie behind one another, an index table elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hqc.backends.layers import Rearrange
from hqc.numerics import Codes
from hqc_c99.tables import Table

#: More runs than this are shorter as a table.
_RUNS = 8


def rearrange(
    layer: Rearrange, values: Sequence[str], table: Callable[[str, Codes], Table]
) -> tuple[str, tuple[Table, ...], bool]:
    """Statements, tables, and whether any element is the fill.

    Args:
        layer: what is rearranged.
        values: for each source, C text of its element `j` as one of the result.
        table: makes a table of the layer.
    """
    filled = bool(np.any(layer.index < 0))
    starts = np.flatnonzero(_breaks(layer))
    if len(starts) <= _RUNS:
        ends = [*starts[1:].tolist(), layer.index.size]
        pairs = zip(starts.tolist(), ends, strict=True)
        return "".join(_run(layer, values, a, b) for a, b in pairs), (), filled
    index = table("i", layer.index)
    return _by_table(layer, values, index, filled), (index,), filled


def _owner(layer: Rearrange) -> Codes:
    """The source of each element, -1 for the fill."""
    ends = np.cumsum(layer.sizes)
    found = np.searchsorted(ends, layer.index, side="right")
    return np.where(layer.index < 0, -1, found).astype(np.int64)


def _breaks(layer: Rearrange) -> Codes:
    """Where an element does not lie behind the one before it."""
    owner = _owner(layer)
    goes_on = (np.diff(layer.index) == 1) & (np.diff(owner) == 0)
    goes_on |= (owner[1:] == -1) & (owner[:-1] == -1)
    return np.concatenate([[1], (~goes_on).astype(np.int64)])


def _run(layer: Rearrange, values: Sequence[str], first: int, end: int) -> str:
    owner = int(_owner(layer)[first])
    loop = f"    for (int32_t i = {first}; i < {end}; i++)"
    if owner < 0:
        return f"{loop}\n        y[i] = {layer.fill};\n"
    start = int(layer.index[first]) - sum(layer.sizes[:owner]) - first
    place = f"i + {start}" if start > 0 else f"i - {-start}" if start else "i"
    return (
        f"{loop} {{\n        const int32_t j = {place};\n        y[i] = {values[owner]};\n    }}\n"
    )


def _by_table(layer: Rearrange, values: Sequence[str], index: Table, filled: bool) -> str:
    lines = [
        f"    for (int32_t i = 0; i < {layer.index.size}; i++) {{",
        f"        {'' if len(values) > 1 else 'const '}int32_t j = {index.name}[i];",
    ]
    if filled:
        lines += ["        if (j < 0) {", f"            y[i] = {layer.fill};"]
        lines += ["            continue;", "        }"]
    for number, (size, value) in enumerate(zip(layer.sizes, values, strict=True)):
        if number + 1 < len(values):
            lines += [f"        if (j < {size}) {{", f"            y[i] = {value};"]
            lines += ["            continue;", "        }", f"        j -= {size};"]
        else:
            lines += [f"        y[i] = {value};"]
    return "\n".join([*lines, "    }", ""])
