"""What the files of an emitted project say.

The types are read from `defines.h`, the layer parameters from `parameters.h`, the wiring from the
top function, the constants from `weights/*.h`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hqc.diagnostics import reject
from hqc.numerics.types import ROUNDING_OF_HARDWARE, FixedType, Overflow

_TYPEDEF = re.compile(r"typedef\s+(a[pc]_u?fixed<[^>]*>)\s+(\w+);")
_PACKET = re.compile(r"typedef\s+nnet::array<(a[pc]_u?fixed<[^>]*>), ([\d*]+)>\s+(\w+);")
_CALL = re.compile(r"nnet::(\w+)<([^>]*)>\(([^)]*)\);\s*//\s*(\w+)")
_STRUCT = re.compile(r"struct (\w+) : nnet::\w+ \{(.*?)\n\};", re.DOTALL)
_MEMBER_TYPE = re.compile(r"typedef (\w+) (\w+);")
_MEMBER_VALUE = re.compile(r"static const (?:unsigned|int) (\w+) = (-?\d+(?:\*\d+)*);")
_ARRAY = re.compile(r"^(\w+) (\w+)\[(\d+)\] = \{([^}]*)\};", re.MULTILINE)
_PROTOTYPE = re.compile(r"void (\w+)\(\s*(.*?)\)\s*;", re.DOTALL)
_VARIABLE = re.compile(r"^\s*(\w+) (\w+)\[(\d+)\](?: /\* \w+ \*/)?;", re.MULTILINE)
_PARAMETER = re.compile(r"(\w+) (\w+)\[(\d+)\]")
_STREAM_PARAMETER = re.compile(r"(?:hls::stream|ac_channel)<(\w+)> &(\w+)")
#: A stream between layers. hls4ml makes those of Catapult static.
_STREAM = re.compile(
    r"^    (?:static )?(hls::stream|ac_channel)<(\w+)> (\w+)(?:\(\"\w+\"\)|/\*.*?\*/)?;",
    re.MULTILINE,
)
_DEPTH = re.compile(r"#pragma HLS STREAM variable=(\w+) depth=(\d+)")
_DEPTH_TCL = re.compile(r"^set hqc_fifo_depths \{([^}]*)\}", re.MULTILINE)
_PRODUCT = re.compile(r"nnet::product::(\w+)<")
_STRATEGY = re.compile(r"strategy = nnet::(\w+);")


@dataclass(frozen=True)
class CArray:
    """An array in the sources: its type's name, its own name, its size, its literals.

    A stream is one of unknown size, 0.
    """

    type: str
    name: str
    size: int
    literals: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """A layer's configuration struct: its typedefs, its numbers, its product, its strategy."""

    types: dict[str, str]
    numbers: dict[str, int]
    product: str = ""
    strategy: str = ""


@dataclass(frozen=True)
class Call:
    """A layer's call in the top function."""

    function: str
    types: tuple[str, ...]
    config: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Sources:
    """What the files of a project say.

    Attributes:
        project: name of the top function.
        parameters: its arrays or streams, input ports first.
        variables: the arrays or streams between its layers.
        types: each named type; of a packet, that of an element.
        packets: elements of a packet, by the name of its type.
        depths: packets that the FIFO of a stream holds, by the stream's name.
        top: text of the top function's unit.
        configs: layer configurations by struct name.
        calls: layer calls by layer name.
        arrays: constants by name.
    """

    project: str
    parameters: tuple[CArray, ...]
    variables: tuple[CArray, ...]
    types: dict[str, FixedType]
    packets: dict[str, int]
    depths: dict[str, int]
    top: str
    configs: dict[str, Config]
    calls: dict[str, Call]
    arrays: dict[str, CArray]


def parse_cpp_type(text: str) -> FixedType:
    """Read `ap_fixed<8,3,AP_RND,AP_SAT>`, `ap_ufixed<...>` or `ac_fixed<8,3,true,AC_RND,AC_SAT>`.

    Raises:
        ValueError: another type, or a mode that `FixedType` does not have.
    """
    name, _, rest = text.partition("<")
    fields = [part.strip() for part in rest.rstrip(">").split(",")]
    if name == "ac_fixed":
        signed = {"true": True, "false": False}[fields.pop(2)]
    elif name in ("ap_fixed", "ap_ufixed"):
        signed = name == "ap_fixed"
    else:
        raise ValueError(f"{text} is not a fixed-point type")
    modes = [field.split("_", 1)[1] for field in fields[2:4]]
    rounding = ROUNDING_OF_HARDWARE[modes[0] if modes else "TRN"]
    overflow = Overflow(modes[1] if len(modes) > 1 else "WRAP")
    return FixedType(signed, int(fields[0]), int(fields[1]), rounding, overflow)


def read_sources(directory: Path) -> Sources:
    """Parse an emitted project.

    Raises:
        HqcError: HQC006, the directory holds no project of this form.
    """
    firmware = directory / "firmware"
    project = project_name(directory)
    parameters_h = (firmware / "parameters.h").read_text(encoding="utf-8")
    top = (firmware / f"{project}.cpp").read_text(encoding="utf-8")
    defines = (firmware / "defines.h").read_text(encoding="utf-8")
    of_packets = _PACKET.findall(defines)
    types = [*_TYPEDEF.findall(defines), *((text, name) for text, _, name in of_packets)]
    arrays = [CArray(t, n, int(s)) for t, n, s in _VARIABLE.findall(top)]
    return Sources(
        project,
        _ports(firmware / f"{project}.h"),
        (*arrays, *(CArray(t, n, 0) for _, t, n in _STREAM.findall(top))),
        {name: parse_cpp_type(text) for text, name in types},
        {name: _product(count) for _, count, name in of_packets},
        _depths(top, directory / "build_prj.tcl"),
        top,
        {name: _config(body) for name, body in _STRUCT.findall(parameters_h)},
        dict(_calls(top)),
        {array.name: array for array in read_arrays(directory)},
    )


def project_name(directory: Path) -> str:
    """The name of the top function of an emitted project.

    Raises:
        HqcError: HQC006, the directory holds no project.
    """
    firmware = directory / "firmware"
    found = sorted(path.stem for path in firmware.glob("*.cpp") if path.with_suffix(".h").is_file())
    if len(found) != 1 or not (firmware / "parameters.h").is_file():
        raise reject(
            "HQC006",
            f"{directory} holds no emitted project",
            helps=("compile the model into it first",),
        )
    return found[0]


def read_arrays(directory: Path) -> list[CArray]:
    """The constants of a project, from `firmware/weights/*.h`, in order of file name."""
    found = []
    for path in sorted((directory / "firmware" / "weights").glob("*.h")):
        match = _ARRAY.search(path.read_text(encoding="utf-8"))
        if match is None:
            raise reject("HQC006", f"{path} holds no array of constants")
        type_, name, size, body = match.groups()
        literals = tuple(part.strip() for part in body.split(","))
        found.append(CArray(type_, name, int(size), literals))
    return found


def _ports(header: Path) -> tuple[CArray, ...]:
    match = _PROTOTYPE.search(header.read_text(encoding="utf-8"))
    if match is None:
        raise reject("HQC006", f"{header} declares no top function")
    streams = _STREAM_PARAMETER.findall(match.group(2))
    if streams:
        return tuple(CArray(type_, name, 0) for type_, name in streams)
    return tuple(CArray(t, n, int(s)) for t, n, s in _PARAMETER.findall(match.group(2)))


def _depths(top: str, script: Path) -> dict[str, int]:
    """From the pragmas of the top function, else from the build script."""
    found = _DEPTH.findall(top)
    if not found and script.is_file():
        match = _DEPTH_TCL.search(script.read_text(encoding="utf-8"))
        words = match.group(1).split() if match else []
        found = list(zip(words[::2], words[1::2], strict=True))
    return {name: int(depth) for name, depth in found}


def edit_streams(top: str, declaration: str) -> str:
    """The top function's unit with other declarations of its streams.

    Args:
        top: text of the unit.
        declaration: format with `{template}`, `{type}` and `{name}`.
    """

    def edited(match: re.Match[str]) -> str:
        template, type_, name = match.groups()
        return declaration.format(template=template, type=type_, name=name)

    return _STREAM.sub(edited, top)


def _product(text: str) -> int:
    """The value of `a*b*c`: hls4ml writes sizes as their factors."""
    return math.prod(int(factor) for factor in text.split("*"))


def _config(body: str) -> Config:
    product = _PRODUCT.search(body)
    strategy = _STRATEGY.search(body)
    return Config(
        {role: type_ for type_, role in _MEMBER_TYPE.findall(body)},
        {name: _product(value) for name, value in _MEMBER_VALUE.findall(body)},
        product.group(1) if product else "",
        strategy.group(1) if strategy else "",
    )


def _calls(top: str) -> Iterator[tuple[str, Call]]:
    for function, types, arguments, name in _CALL.findall(top):
        *data, config = (part.strip() for part in types.split(","))
        yield (
            name,
            Call(function, tuple(data), config, tuple(a.strip() for a in arguments.split(","))),
        )
