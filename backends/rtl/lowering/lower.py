"""A network as logic: each layer one block, each wire as narrow as what is proven about it.

The bounds of every element go from block to block, so a circuit knows of its inputs what was
proven of the results in front of it. They are kept per element also where a block's own ranges
are joined (a rearrangement is one circuit for all of its elements).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hqc.backends import layers
from hqc.backends.layers import Layer, Network
from hqc.backends.rtl.design import Block, Design, Port
from hqc.backends.rtl.lowering import elementwise, windows
from hqc.backends.rtl.lowering.elements import Elements, Sources, Start
from hqc.diagnostics import HqcError, reject
from hqc.numerics.types import INT64_BITS, Codes, FixedType

_BLOCKS: dict[type[Layer], Callable[[Any, Sources], Block]] = {
    layers.Activation: elementwise.activation,
    layers.Conv: windows.conv,
    layers.Dense: windows.dense,
    layers.MaxPool: windows.max_pool,
    layers.Merge: elementwise.merge,
    layers.Requantise: elementwise.requantise,
    layers.Table: elementwise.table,
    layers.Threshold: elementwise.threshold,
}


def lower(network: Network) -> Design:
    """The blocks of a network: its layers by name, and casts in front of some rearrangements.

    Raises:
        HqcError: HQC401, the network is of streams; HQC404, da4ml is missing; HQC420, its result
            is wrong; HQC421, a wire is wider than 62 bits.
    """
    if network.stream:
        raise reject(
            "HQC401",
            "the network is of streams, logic is of arrays",
            helps=("use io_parallel",),
        )
    lowering = _Lowering()
    for layer in network.layers:
        lowering.add(layer)
    return Design(tuple(lowering.ports), tuple(lowering.blocks), network.outputs)


class _Lowering:
    """What is known so far, by name."""

    def __init__(self) -> None:
        self.ports: list[Port] = []
        self.blocks: list[Block] = []
        self.types: dict[str, FixedType] = {}
        self.elements: dict[str, Elements] = {}

    def add(self, layer: Layer) -> None:
        """The port or the blocks of a layer."""
        if isinstance(layer, layers.Input):
            port = Port(layer.name, layer.result, layer.size, layer.where)
            self.ports.append(port)
            self._know(layer.name, layer.result, Elements.of(port.ranges))
        elif isinstance(layer, layers.Rearrange):
            self._rearrange(layer)
        elif (make := _BLOCKS.get(type(layer))) is not None:
            self._append(_guarded(layer, lambda: make(layer, self.sources(layer.sources))))
        else:
            raise reject(
                "HQC401", f"a {type(layer).__name__} layer has no logic", where=layer.where
            )

    def sources(self, names: tuple[str, ...]) -> Sources:
        """Each source once."""
        once = tuple(dict.fromkeys(names))
        held = [self.elements[name] for name in once]
        lo, hi = (np.concatenate([getattr(e, end) for e in held]) for end in ("lo", "hi"))
        return Sources(once, tuple(self.types[name] for name in once), Elements(lo, hi))

    def _append(self, block: Block, elements: Elements | None = None) -> None:
        self.blocks.append(block)
        self._know(block.name, block.type, elements or Elements.of(block.ranges))

    def _know(self, name: str, type_: FixedType, elements: Elements) -> None:
        self.types[name], self.elements[name] = type_, elements

    # --- rearrangements ---------------------------------------------------------------------

    def _rearrange(self, layer: layers.Rearrange) -> None:
        names = tuple(self._cast(layer, number) for number in range(len(layer.sources)))
        sources = self.sources(names)
        index = _of_once(layer, names, sources.names).reshape(-1, 1)
        start = Start(sources, index, layer.fill)
        block = start.block(layer, "rearrange", start.builder.inputs)
        self._append(block, sources.elements.at(index[:, 0], layer.fill))

    def _cast(self, layer: layers.Rearrange, number: int) -> str:
        """The name of a source, or of a block that assigns it to the type of the result."""
        name, type_ = layer.sources[number], layer.result
        elements, fraction = self.elements[name], self.types[name].fraction
        within = type_.limits.lo <= elements.lo.min() and elements.hi.max() <= type_.limits.hi
        if fraction == type_.fraction and within:
            return name
        size = len(elements.lo)
        given = layers.Activation(
            f"{layer.name}_cast{number}", (name,), (size,), type_, layer.where, function="cast"
        )
        self.add(given)
        return given.name


def _of_once(layer: layers.Rearrange, names: tuple[str, ...], once: tuple[str, ...]) -> Codes:
    """The index of a rearrangement whose sources are there once each."""
    sizes = dict(zip(names, layer.sizes, strict=True))
    starts = dict(zip(once, np.cumsum([0, *(sizes[n] for n in once)]).tolist(), strict=False))
    places = [starts[name] + np.arange(size) for name, size in zip(names, layer.sizes, strict=True)]
    found: Codes = np.append(np.concatenate(places), -1)[layer.index]
    return found


def _guarded(layer: Layer, make: Callable[[], Block]) -> Block:
    """The block of a layer, all of whose wires fit.

    Raises:
        HqcError: HQC421.
    """
    try:
        block = make()
    except OverflowError as error:
        raise _wide(layer, "more than 62") from error
    widest = max(r.magnitude_bits for r in block.circuit.ranges)
    if widest > INT64_BITS:
        raise _wide(layer, str(widest))
    return block


def _wide(layer: Layer, bits: str) -> HqcError:
    return reject(
        "HQC421",
        f"the logic of {layer.name} has values of {bits} bits",
        where=layer.where,
        notes=(f"integers of logic have at most {INT64_BITS} bits",),
        helps=("use fewer bits for the weights or activations in front of it",),
    )
