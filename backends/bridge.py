"""Generate the emulation bridge of a project from what its own files declare.

The constants stay in `firmware/weights/*.h`, the one place they are written, but the top function
does not include them itself in the emulation: a compiler takes milliseconds per element of such an
array of class type. The top function sees declarations; the bridge includes the same headers with
the element types meaning `double`, which costs nothing, and converts on load.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hqc.backends.sources import CArray, Sources, read_sources
from hqc.types import FixedType

_TEMPLATE = "emulation_bridge.cpp"


@dataclass(frozen=True)
class Bridge:
    """Generated sources and what running them takes.

    Attributes:
        declarations: header that is force-included into the top function's unit.
        bridge: the bridge's own unit.
        defines: macros that keep the top function's unit from defining the constants.
        stack: bytes of stack a thread needs.
        sources: what was read from the project.
    """

    declarations: str
    bridge: str
    defines: tuple[str, ...]
    stack: int
    sources: Sources


def generate(directory: Path, inputs: int) -> Bridge:
    """The bridge of an emitted project whose first `inputs` parameters are input ports."""
    sources = read_sources(directory)
    arrays = list(sources.arrays.values())
    uses_ac = (directory / "firmware" / "ac_types").is_dir()
    declarations = "".join(f"extern {a.type} {a.name}[{a.size}];\n" for a in arrays)
    header = f'#include "{sources.project}.h"\n{declarations}'
    parts = {
        "top header": f'#define HQC_AC {int(uses_ac)}\n#include "{sources.project}.h"',
        "literals": "\n".join(_literal_lines(arrays)),
        "constants": "\n".join(f"{a.type} {a.name}[{a.size}];" for a in arrays),
        "convert": "\n".join(
            f"        convert({a.name}, hqc_literals::{a.name}, {a.size});" for a in arrays
        ),
        "sample": "\n".join(_sample_lines(sources, inputs)),
    }
    text = Path(__file__).with_name(_TEMPLATE).read_text(encoding="utf-8")
    for mark, replacement in parts.items():
        line = next(x for x in text.splitlines() if x.strip() == f"// hqc: {mark}")
        text = text.replace(line, replacement)
    defines = tuple(f"{a.name.upper()}_H_" for a in arrays)
    return Bridge(header, text, defines, _stack_bytes(sources), sources)


def _literal_lines(arrays: list[CArray]) -> list[str]:
    types = dict.fromkeys(a.type for a in arrays)
    lines = [f"typedef double {name};" for name in types]
    return lines + [f'#include "weights/{a.name}.h"' for a in arrays]


def _sample_lines(sources: Sources, inputs: int) -> list[str]:
    lines = []
    for index, port in enumerate(sources.parameters):
        lines.append(f"    {port.type} p{index}[{port.size}];")
        if index < inputs:
            lines += [
                f"    for (int64_t k = 0; k < {port.size}; k++)",
                f"        put<{sources.types[port.type].width}>"
                f"(p{index}[k], in[{index}][n * {port.size} + k]);",
            ]
    arguments = ", ".join(f"p{index}" for index in range(len(sources.parameters)))
    lines.append(f"    {sources.project}({arguments});")
    for index, port in enumerate(sources.parameters[inputs:]):
        type_ = sources.types[port.type]
        bits = f"{type_.width}, {str(type_.signed).lower()}"
        lines += [
            f"    for (int64_t k = 0; k < {port.size}; k++)",
            f"        out[{index}][n * {port.size} + k] = get_bits<{bits}>(p{index + inputs}[k]);",
        ]
    return lines


def _stack_bytes(sources: Sources) -> int:
    """An upper bound: 16 MiB, and twice the arrays between the layers and those inside of each.

    The largest array inside of a layer holds one product per weight.
    """
    needed = 0
    for array in (*sources.parameters, *sources.variables):
        needed += array.size * _bytes(sources.types.get(array.type))
    for config in sources.configs.values():
        elements = config.numbers.get("n_in", 0) * config.numbers.get("n_out", 1)
        needed += elements * _bytes(sources.types.get(config.types.get("accum_t", "")))
    return (16 << 20) + 2 * ((needed + 0xFFFF) & ~0xFFFF)


def _bytes(type_: FixedType | None) -> int:
    """At least what an element takes; both libraries store whole words and little else."""
    return 8 * ((type_.width if type_ is not None else 64) // 64 + 2)
