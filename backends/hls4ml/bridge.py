"""Generate the emulation bridge of a project from what its own files declare.

The constants stay in `firmware/weights/*.h`, the one place they are written, but the top function
does not include them itself in the emulation: a compiler takes milliseconds per element of such an
array of class type. The top function sees declarations; the bridge includes the same headers with
the element types meaning `double`, which costs nothing, and converts on load.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from hqc.analysis.partition import Partition
from hqc.backends.hls4ml.source_files import CArray, Sources, edit_streams, read_sources
from hqc.diagnostics import reject
from hqc.numerics.types import FixedType

_TEMPLATE = "emulation_bridge.cpp"
#: Streams between layers: each packet that is left at the end of a call is an error.
_CHECKED = """
#include <stdint.h>
extern thread_local int64_t hqc_left;
template <class stream_T> struct hqc_checked : stream_T {
    ~hqc_checked() {
        for (; !this->empty(); hqc_left++)
            this->read();
    }
};
"""
_IMAGE = ("in_height", "in_width", "n_chan")
_CHECKED_STREAM = "    hqc_checked<{template}<{type}>> {name};"


@dataclass(frozen=True)
class Bridge:
    """Generated sources and what running them takes.

    Attributes:
        declarations: header that is force-included into the top function's unit.
        bridge: the bridge's own unit.
        top: the top function's unit; its streams, which hls4ml may make static, live as long as
            a call, and say what is left in them.
        defines: macros that keep the top function's unit from defining the constants.
        stack: bytes of stack a thread needs.
        sources: what was read from the project.
    """

    declarations: str
    bridge: str
    top: str
    defines: tuple[str, ...]
    stack: int
    sources: Sources


def generate(directory: Path, partition: Partition) -> Bridge:
    """The bridge of an emitted project whose parameters are the ports of `partition`.

    Raises:
        HqcError: HQC006, no project; HQC402, it has other ports.
    """
    sources = read_sources(directory)
    arrays = list(sources.arrays.values())
    uses_ac = (directory / "firmware" / "ac_types").is_dir()
    declarations = "".join(f"extern {a.type} {a.name}[{a.size}];\n" for a in arrays)
    header = f'#include "{sources.project}.h"\n{declarations}{_CHECKED}'
    check_ports(sources, partition)
    parts = {
        "top header": f'#define HQC_AC {int(uses_ac)}\n#include "{sources.project}.h"',
        "literals": "\n".join(_literal_lines(arrays)),
        "constants": "\n".join(f"{a.type} {a.name}[{a.size}];" for a in arrays),
        "convert": "\n".join(
            f"        convert({a.name}, hqc_literals::{a.name}, {a.size});" for a in arrays
        ),
        "sample": "\n".join(_sample_lines(sources, partition)),
    }
    text = Path(__file__).with_name(_TEMPLATE).read_text(encoding="utf-8")
    for mark, replacement in parts.items():
        line = next(x for x in text.splitlines() if x.strip() == f"// hqc: {mark}")
        text = text.replace(line, replacement)
    defines = tuple(f"{a.name.upper()}_H_" for a in arrays)
    top = edit_streams(sources.top, _CHECKED_STREAM)
    return Bridge(header, text, top, defines, _stack_bytes(sources, partition), sources)


def check_ports(sources: Sources, partition: Partition) -> None:
    """Compare the parameters of the top function with the ports.

    Raises:
        HqcError: HQC402, they differ.
    """
    got = [
        (_holds(sources, port, size), sources.types[port.type].fraction)
        for port, size in zip(sources.parameters, _port_sizes(partition), strict=False)
    ]
    want = [(True, p.type.fraction) for p in (*partition.inputs, *partition.outputs)]
    if got != want or len(sources.parameters) != len(want):
        raise reject(
            "HQC402",
            "the ports of the project are not those of the model",
            notes=(
                f"(right size, fraction bits) in the project: {got}",
                f"{len(sources.parameters)} ports; in the model {len(want)}: {want}",
            ),
        )


def _holds(sources: Sources, port: CArray, size: int) -> bool:
    """Whether a port takes `size` elements: an array of that many, or whole packets."""
    packet = sources.packets.get(port.type)
    return port.size == size if packet is None else size % packet == 0


def _literal_lines(arrays: list[CArray]) -> list[str]:
    types = dict.fromkeys(a.type for a in arrays)
    lines = [f"typedef double {name};" for name in types]
    return lines + [f'#include "weights/{a.name}.h"' for a in arrays]


def _sample_lines(sources: Sources, partition: Partition) -> list[str]:
    lines = []
    inputs, sizes = len(partition.inputs), _port_sizes(partition)
    for index, (port, size) in enumerate(zip(sources.parameters, sizes, strict=True)):
        stream = port.type in sources.packets
        one = f"hqc_stream<{port.type}> p{index};"
        lines.append(f"    {one if stream else f'{port.type} p{index}[{size}];'}")
        if index < inputs:
            function = "feed" if stream else "fill"
            width = sources.types[port.type].width
            lines.append(f"    {function}<{width}>(p{index}, in[{index}] + n * {size}, {size});")
    arguments = ", ".join(f"p{index}" for index in range(len(sources.parameters)))
    lines.append(f"    {sources.project}({arguments});")
    for index, (port, size) in enumerate(zip(sources.parameters, sizes, strict=True)):
        stream = port.type in sources.packets
        if index >= inputs:
            function = "drain" if stream else "take"
            type_ = sources.types[port.type]
            bits = f"{type_.width}, {str(type_.signed).lower()}"
            to = f"out[{index - inputs}] + n * {size}"
            lines.append(f"    {function}<{bits}>(p{index}, {to}, {size});")
        if stream:
            lines.append(f"    hqc_left += p{index}.empty() ? 0 : 1;")
    return lines


def _port_sizes(partition: Partition) -> list[int]:
    return [math.prod(port.shape) for port in (*partition.inputs, *partition.outputs)]


def _stack_bytes(sources: Sources, partition: Partition) -> int:
    """An upper bound: 16 MiB, and twice the arrays between the layers and those inside of each.

    The largest array inside of a layer holds one product per weight, the sources of a stream, or
    the lines of a window.
    """
    needed = sum(_port_sizes(partition)) * _bytes(None)
    for array in sources.variables:
        needed += array.size * _bytes(sources.types.get(array.type))
    for config in sources.configs.values():
        numbers = config.numbers
        elements = numbers.get("n_in", 0) * numbers.get("n_out", 1)
        elements += sum(numbers.get(name, 0) for name in ("n_in1", "n_in2"))
        elements += math.prod(numbers.get(name, 0) for name in _IMAGE) * 2
        needed += elements * _bytes(sources.types.get(config.types.get("accum_t", "")))
    return (16 << 20) + 2 * ((needed + 0xFFFF) & ~0xFFFF)


def _bytes(type_: FixedType | None) -> int:
    """At least what an element takes; both libraries store whole words and little else."""
    return 8 * ((type_.width if type_ is not None else 64) // 64 + 2)
