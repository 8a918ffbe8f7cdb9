"""Compare an emitted project with the layers it was made from, bit for bit."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from hqc.backends import layers
from hqc.backends.hls4ml.model_graph import Flavour
from hqc.backends.hls4ml.source_files import Call, CArray, Config, Sources, read_sources
from hqc.backends.hls4ml.streams import depths
from hqc.backends.layers import Layer, Network
from hqc.backends.layers import template_parameters as template
from hqc.backends.layers.layers import kind_of
from hqc.backends.layers.layout import packet
from hqc.diagnostics import Diagnostic, Exit, HqcError
from hqc.numerics.types import FixedType
from hqc.pipeline.backend import EmittedLayer


def compare(
    directory: Path, network: Network, flavour: Flavour, strategy: str
) -> tuple[EmittedLayer, ...]:
    """The emitted layers, if the project is the network.

    Raises:
        HqcError: HQC402 with one diagnostic per difference in a type, a size, a constant, the
            wiring or the depth of a stream. It means that hls4ml changed something, and is never
            the user's fault.
    """
    comparison = _Comparison(read_sources(directory), network, flavour, strategy)
    emitted = comparison.run()
    if comparison.found:
        raise HqcError(comparison.found, Exit.INTERNAL)
    return emitted


class _Comparison:
    def __init__(self, sources: Sources, network: Network, flavour: Flavour, strategy: str) -> None:
        self.sources = sources
        self.network = network
        self.flavour = flavour
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
            self._size(layer, port)
        emitted = [self._layer(layer) for layer in self.network.layers]
        for name in self.network.outputs:
            layer, port = self.network.layer(name), ports[name]
            self._size(layer, port)
            self._same(layer, "output port", self.variables.get(name), (port.name, port.type))
        if self.network.stream:
            want = {self.variables[n][0]: d for n, d in depths(self.network).items()}
            self._same(self.network.layers[0], "FIFO depths", self.sources.depths, want)
        return tuple(emitted)

    def _size(self, layer: Layer, port: CArray) -> None:
        """Elements of an array, or of a packet of a stream."""
        if self.network.stream:
            self._same(layer, "packet", self.sources.packets.get(port.type), packet(layer))
        self._same(layer, "size", port.size, 0 if self.network.stream else layer.size)

    def _layer(self, layer: Layer) -> EmittedLayer:
        kind = kind_of(layer)
        where = layer.where.node or layer.name
        types = tuple(template.layer_types(layer).items())
        if isinstance(layer, layers.Input):
            return EmittedLayer(layer.name, kind, where, types)
        call = self.sources.calls.get(layer.name)
        if call is None or call.config not in self.sources.configs | {call.config: 0}:
            self._differs(layer, "call", "nothing", "a layer")
            return EmittedLayer(layer.name, kind, where, types)
        self._wiring(layer, call)
        if self.network.stream:
            self._same(layer, "packet", self.sources.packets.get(call.types[-1]), packet(layer))
        if isinstance(layer, layers.Fork):
            self._same(layer, "elements", call.config, str(layer.size))
        config = self.sources.configs.get(call.config, Config({}, {}))
        self._numbers(layer, config)
        for role, type_ in types:
            name = call.types[-1] if role == "result" else config.types.get(f"{role}_t", "")
            self._type(layer, role, name, type_)
        for index, (role, constant) in enumerate(template.layer_constants(layer).items()):
            offset = len(layer.sources) + 1 + index
            array = self.sources.arrays.get(call.arguments[offset])
            self._constant(layer, role, array, constant, config.types.get(f"{role}_t", ""))
        return EmittedLayer(layer.name, kind, where, types, config.numbers.get("reuse_factor", 0))

    def _wiring(self, layer: Layer, call: Call) -> None:
        function = template.function_of(layer, self.flavour.spelling, self.network.stream)
        count = len(layer.sources)
        self._same(layer, "function", call.function, function)
        want = tuple(self.variables.get(source, ("", "")) for source in layer.sources)
        got = tuple(zip(call.arguments[:count], call.types[:count], strict=False))
        self._same(layer, "inputs", got, want)
        results = layer.copies if isinstance(layer, layers.Fork) else (layer.name,)
        for name, variable in zip(results, call.arguments[count:], strict=False):
            self.variables[name] = (variable, call.types[-1])

    def _numbers(self, layer: Layer, config: Config) -> None:
        for name, value in template.numbers(layer).items():
            self._same(layer, name, config.numbers.get(name), int(value))
        if isinstance(layer, layers.Dense | layers.Requantise):
            self._same(layer, "product", config.product, "mult")
        if isinstance(layer, layers.Dense | layers.Conv):
            self._same(layer, "strategy", config.strategy, self.strategy)
        if isinstance(layer, layers.Conv) and self.strategy == "resource" and layer.group == 1:
            reuse = config.numbers.get("reuse_factor", 1)
            fits = reuse > 0 and layer.products % reuse == 0
            self._same(layer, "reuse factor that divides the products", fits, True)

    def _type(self, layer: Layer, role: str, name: str, want: FixedType) -> None:
        self._same(layer, f"{role} type", str(self.sources.types.get(name)), str(want))

    def _constant(
        self, layer: Layer, role: str, array: CArray | None, want: layers.Constant, type_: str
    ) -> None:
        if array is None:
            self._differs(layer, role, "nothing", "constants")
            return
        if role == "weight" and isinstance(layer, layers.Dense | layers.Conv):
            want = template.written_weight(layer, self.strategy)
        flat = np.ascontiguousarray(want.codes).ravel()
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
