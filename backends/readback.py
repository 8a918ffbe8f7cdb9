"""Read an emitted project and compare it with the layers it was made from, bit for bit.

Everything is taken from the files themselves: the types from `defines.h`, the layer parameters
from `parameters.h`, the wiring from the top function, the constants from `weights/*.h`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from hqc.backends.base import EmittedLayer
from hqc.backends.hls4ml_graph import layer_constants, layer_types
from hqc.backends.layers import (
    Activation,
    Constant,
    Dense,
    Input,
    Layer,
    Merge,
    Network,
    Requantise,
    Threshold,
)
from hqc.diagnostics import Diagnostic, Exit, HqcError, reject
from hqc.types import ROUNDING_OF_HARDWARE, FixedType, Overflow

_TYPEDEF = re.compile(r"typedef\s+(a[pc]_u?fixed<[^>]*>)\s+(\w+);")
_CALL = re.compile(r"nnet::(\w+)<([^>]*)>\(([^)]*)\);\s*//\s*(\w+)")
_STRUCT = re.compile(r"struct (\w+) : nnet::\w+ \{(.*?)\n\};", re.DOTALL)
_MEMBER_TYPE = re.compile(r"typedef (\w+) (\w+);")
_MEMBER_VALUE = re.compile(r"static const (?:unsigned|int) (\w+) = (-?\d+);")
_ARRAY = re.compile(r"^(\w+) (\w+)\[(\d+)\] = \{([^}]*)\};", re.MULTILINE)
_PROTOTYPE = re.compile(r"void (\w+)\(\s*(.*?)\)\s*;", re.DOTALL)
_PARAMETER = re.compile(r"(\w+) (\w+)\[(\d+)\]")
_FUNCTION = {
    Dense: "dense",
    Requantise: "normalize",
    Threshold: "hqc_threshold",
    Merge: "add",
}


@dataclass(frozen=True)
class CArray:
    """An array in the sources: its type's name, its own name, its size, its literals."""

    type: str
    name: str
    size: int
    literals: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """A layer's configuration struct: its typedefs and its numbers."""

    types: dict[str, str]
    numbers: dict[str, int]
    product: str


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
        parameters: its arrays, input ports first.
        types: each named type.
        configs: layer configurations by struct name.
        calls: layer calls by layer name.
        arrays: constants by name.
    """

    project: str
    parameters: tuple[CArray, ...]
    types: dict[str, FixedType]
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
    return Sources(
        project,
        _ports(firmware / f"{project}.h"),
        {name: parse_cpp_type(text) for text, name in _TYPEDEF.findall(defines)},
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
    return tuple(CArray(t, n, int(s)) for t, n, s in _PARAMETER.findall(match.group(2)))


def _config(body: str) -> Config:
    product = re.search(r"nnet::product::(\w+)<", body)
    return Config(
        {role: type_ for type_, role in _MEMBER_TYPE.findall(body)},
        {name: int(value) for name, value in _MEMBER_VALUE.findall(body)},
        product.group(1) if product else "",
    )


def _calls(top: str) -> Iterator[tuple[str, Call]]:
    for function, types, arguments, name in _CALL.findall(top):
        *data, config = (part.strip() for part in types.split(","))
        yield (
            name,
            Call(function, tuple(data), config, tuple(a.strip() for a in arguments.split(","))),
        )


# --- comparison -----------------------------------------------------------------------------


def compare(directory: Path, network: Network, strategy: str) -> tuple[EmittedLayer, ...]:
    """The emitted layers, if the project is the network.

    Raises:
        HqcError: HQC402 with one diagnostic per difference in a type, a size, a constant or the
            wiring. It means that hls4ml changed something, and is never the user's fault.
    """
    comparison = _Comparison(read_sources(directory), network, strategy)
    emitted = comparison.run()
    if comparison.found:
        raise HqcError(comparison.found, Exit.INTERNAL)
    return emitted


class _Comparison:
    def __init__(self, sources: Sources, network: Network, strategy: str) -> None:
        self.sources = sources
        self.network = network
        self.strategy = strategy
        self.found: list[Diagnostic] = []
        self.variables: dict[str, tuple[str, str]] = {}

    def run(self) -> tuple[EmittedLayer, ...]:
        names = (*self.network.inputs, *self.network.outputs)
        self._same(self.network.layers[0], "ports", len(self.sources.parameters), len(names))
        ports = dict(zip(names, self.sources.parameters, strict=False))
        for name in self.network.inputs:
            layer, port = self.network.layer(name), ports[name]
            self.variables[name] = (port.name, port.type)
            self._type(layer, "result", port.type, layer.result)
            self._same(layer, "size", port.size, layer.size)
        emitted = [self._layer(layer) for layer in self.network.layers]
        for name in self.network.outputs:
            layer, port = self.network.layer(name), ports[name]
            self._same(layer, "size", port.size, layer.size)
            self._same(layer, "output port", self.variables.get(name), (port.name, port.type))
        return tuple(emitted)

    def _layer(self, layer: Layer) -> EmittedLayer:
        kind = kind_of(layer)
        where = layer.where.node or layer.name
        types = tuple(layer_types(layer).items())
        if isinstance(layer, Input):
            return EmittedLayer(layer.name, kind, where, types)
        call = self.sources.calls.get(layer.name)
        if call is None or call.config not in self.sources.configs | {call.config: 0}:
            self._differs(layer, "call", "nothing", "a layer")
            return EmittedLayer(layer.name, kind, where, types)
        config = self.sources.configs.get(call.config, Config({}, {}, ""))
        self._wiring(layer, call)
        self._numbers(layer, config)
        for role, type_ in types:
            name = call.types[-1] if role == "result" else config.types.get(f"{role}_t", "")
            self._type(layer, role, name, type_)
        for index, (role, constant) in enumerate(layer_constants(layer).items()):
            offset = len(layer.sources) + 1 + index
            array = self.sources.arrays.get(call.arguments[offset])
            self._constant(layer, role, array, constant, config.types.get(f"{role}_t", ""))
        return EmittedLayer(layer.name, kind, where, types, config.numbers.get("reuse_factor", 0))

    def _wiring(self, layer: Layer, call: Call) -> None:
        function = _FUNCTION.get(type(layer), "")
        if isinstance(layer, Activation):
            function = {"relu": "relu", "cast": "linear"}[layer.function]
        count = len(layer.sources)
        self._same(layer, "function", call.function, function)
        want = tuple(self.variables.get(source, ("", "")) for source in layer.sources)
        got = tuple(zip(call.arguments[:count], call.types[:count], strict=False))
        self._same(layer, "inputs", got, want)
        self.variables[layer.name] = (call.arguments[count], call.types[-1])

    def _numbers(self, layer: Layer, config: Config) -> None:
        want: dict[str, int] = {}
        if isinstance(layer, Dense):
            want = {"n_in": layer.weight.codes.shape[0], "n_out": layer.weight.codes.shape[1]}
            self._same(layer, "product", config.product, "mult")
        elif isinstance(layer, Requantise):
            want = {"n_in": layer.size, "n_filt": -1 if layer.scale.codes.size != 1 else 1}
            self._same(layer, "product", config.product, "mult")
        elif isinstance(layer, Threshold):
            rows, count = layer.thresholds.codes.shape
            want = {"n_in": layer.size, "n_rows": rows, "n_thresholds": count}
            want["first"] = layer.bias
        elif isinstance(layer, Activation):
            want = {"n_in": layer.size}
        for name, value in want.items():
            self._same(layer, name, config.numbers.get(name), int(value))

    def _type(self, layer: Layer, role: str, name: str, want: FixedType) -> None:
        self._same(layer, f"{role} type", str(self.sources.types.get(name)), str(want))

    def _constant(
        self, layer: Layer, role: str, array: CArray | None, want: Constant, type_: str
    ) -> None:
        if array is None:
            self._differs(layer, role, "nothing", "constants")
            return
        codes = want.codes
        if role == "weight" and self.strategy == "resource":
            codes = codes.T
        flat = np.ascontiguousarray(codes).ravel()
        self._same(layer, f"{role} array", (array.type, array.size), (type_, flat.size))
        step = Fraction(2) ** -want.type.fraction
        cache: dict[str, Fraction] = {}
        for index, literal in enumerate(array.literals[: flat.size]):
            value = cache.setdefault(literal, Fraction(literal) / step)
            if value != int(flat[index]):
                self._differs(layer, f"{role}[{index}]", literal, str(int(flat[index]) * step))
                return

    def _same(self, layer: Layer, what: str, got: object, want: object) -> None:
        if got != want:
            self._differs(layer, what, got, want)

    def _differs(self, layer: Layer, what: str, got: object, want: object) -> None:
        message = f"layer {layer.name}: {what} is {got} in the project, {want} in the IR"
        self.found.append(Diagnostic("HQC402", message, layer.where))


def kind_of(layer: Layer) -> str:
    """The word for a layer in reports."""
    if isinstance(layer, Activation):
        return layer.function
    return type(layer).__name__.lower()
