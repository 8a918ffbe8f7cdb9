"""A network of arrays as a network of streams.

A stream carries one packet per pixel: all elements of the last axis (`Layer.shape`), channels. It
is read once, so a value with several readers is forked. Templates that work packet by packet give
packets as wide as those they read; where a rearrangement vanished in between, shapes follow here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from hqc.backends import layers
from hqc.backends.layers import Layer, Network
from hqc.backends.layers.constants import Illegal
from hqc.backends.layers.layout import alive, packet
from hqc.diagnostics import Diagnostic, Location

#: Copies that hls4ml's template makes at once.
_COPIES = 7
#: Packets of a stream that nothing can wait for in a circle; two keep both of its ends busy.
_SLACK = 2
_PACKETWISE = (layers.Activation, layers.Requantise, layers.Threshold, layers.Table)


def packets(layer: Layer) -> int:
    """Packets of one sample."""
    return layer.size // packet(layer)


def unread_ports(network: Network) -> list[Diagnostic]:
    """Input ports that nothing reads: their streams would fill, and the sender would wait."""
    read = {name for layer in network.layers for name in layer.sources}
    reason = Illegal(
        "nothing reads this input port, and a stream that is not read stops its sender",
        helps=("remove the input from the model, or use io_parallel",),
    )
    names = [name for name in network.inputs if name not in read]
    return [reason.diagnostic(network.layer(name).where or Location(node=name)) for name in names]


def streamed(network: Network) -> Network:
    """The same network, each value read once and packets as wide as their readers expect."""
    done: dict[str, Layer] = {}
    read = alive(network.layers, network.outputs, lambda layer: isinstance(layer, layers.Input))
    for layer in read:
        for made in _shaped(layer, done):
            done[made.name] = made
    return replace(network, layers=tuple(_forked(list(done.values()))), stream=True)


# --- packets --------------------------------------------------------------------------------


def _shaped(layer: Layer, done: dict[str, Layer]) -> list[Layer]:
    """A layer with the shape that its template gives, after packets of other widths are cut."""
    sources = [done[name] for name in layer.sources]
    shape: tuple[int, ...]
    if isinstance(layer, layers.Dense):
        return [replace(layer, shape=(layer.weight.codes.shape[1],))]
    if isinstance(layer, layers.Conv):
        shape = (*layer.sliding.windows, layer.weight.codes.shape[-1])
        before = _repacked(layer, sources[0], layer.weight.codes.shape[2] * layer.group)
    elif isinstance(layer, layers.MaxPool):
        shape = (*layer.sliding.windows, layer.channels)
        before = _repacked(layer, sources[0], layer.channels)
    elif isinstance(layer, layers.Merge):
        shape = sources[0].shape
        before = _repacked(layer, sources[1], packet(sources[0]))
    elif isinstance(layer, _PACKETWISE):
        shape, before = sources[0].shape, []
    elif isinstance(layer, layers.Rearrange):
        return [replace(layer, widths=tuple(packet(source) for source in sources))]
    else:
        return [layer]
    if before:
        names = [*layer.sources[:-1], before[0].name]
        layer = replace(layer, sources=tuple(names))
    layer = replace(layer, shape=shape)
    return [*before, _spread(layer) if isinstance(layer, layers.Requantise) else layer]


def _repacked(layer: Layer, source: Layer, size: int) -> list[layers.Rearrange]:
    """A rearrangement of a source into packets of a size, in the same order, if it has others."""
    if packet(source) == size:
        return []
    return [
        layers.Rearrange(
            f"{layer.name}_packets",
            (source.name,),
            (source.size // size, size),
            source.result.exact(),
            layer.where,
            sizes=(source.size,),
            index=np.arange(source.size),
            widths=(packet(source),),
        )
    ]


def _spread(layer: layers.Requantise) -> layers.Requantise:
    """Constants for each element where those for each channel do not fit a packet.

    hls4ml's template counts them from the start of each packet.
    """
    count = layer.scale.codes.size
    if packet(layer) % count == 0 or count == layer.size:
        return layer

    def tiled(constant: layers.Constant) -> layers.Constant:
        return replace(constant, codes=np.tile(constant.codes, layer.size // count))

    return replace(layer, scale=tiled(layer.scale), bias=tiled(layer.bias))


# --- readers --------------------------------------------------------------------------------


def _forked(layers: list[Layer]) -> list[Layer]:
    """A fork behind each value with several readers; many copies take a chain of forks."""
    readers = Counter(name for layer in layers for name in layer.sources)
    waiting: dict[str, list[str]] = {}
    found: list[Layer] = []
    for layer in layers:
        names = [waiting[n].pop(0) if n in waiting else n for n in layer.sources]
        found.append(replace(layer, sources=tuple(names)))
        if readers[layer.name] > 1:
            forks = _forks(layer, readers[layer.name])
            inner = {fork.sources[0] for fork in forks}
            waiting[layer.name] = [c for fork in forks for c in fork.copies if c not in inner]
            found += forks
    return found


def _forks(layer: Layer, readers: int) -> list[layers.Fork]:
    found: list[layers.Fork] = []
    source, left = layer.name, readers
    while left > 1:
        count = min(left, _COPIES)
        name = f"{layer.name}_fork{len(found)}"
        copies = tuple(f"{name}_{number}" for number in range(count))
        shape, result = layer.shape, layer.result.exact()
        found.append(layers.Fork(name, (source,), shape, result, layer.where, copies=copies))
        left -= count - 1  # the last copy goes on to the next fork
        source = copies[-1]
    return found


# --- depths ---------------------------------------------------------------------------------


def depths(network: Network) -> dict[str, int]:
    """Packets that the FIFO of each value must hold, by the value's name; ports have no entry.

    Layers that wait for each other in a circle wait along a circle of streams, directions aside:
    each stream that is passed in its direction is full, each other one empty. Going round, every
    circle passes a fork and leaves it by a full copy. If copies hold a whole sample, a fork that
    finds one full is a sample ahead of the copy's reader, so of the join that this reader keeps
    waiting, so of the next fork, which that join waits for; round the circle it would be ahead of
    itself. So copies on a circle hold a sample, and a few packets do for all other streams.

    C simulation has FIFOs without limit and shows none of this.
    """
    copies = {c for layer in network.layers if isinstance(layer, layers.Fork) for c in layer.copies}
    producers = _producers(network)
    ports = {*network.inputs, *network.outputs}
    ends = {
        name: (producers[name].name, layer.name)
        for layer in network.layers
        for name in layer.sources
        if name not in ports
    }
    found = {}
    for name in ends:
        whole = packets(producers[name])
        found[name] = whole if name in copies and _circular(name, ends) else min(_SLACK, whole)
    return found


def _producers(network: Network) -> dict[str, Layer]:
    """The layer that gives each value."""
    found = {layer.name: layer for layer in network.layers}
    forks = [layer for layer in network.layers if isinstance(layer, layers.Fork)]
    found |= {copy: fork for fork in forks for copy in fork.copies}
    return found


def _circular(stream: str, ends: dict[str, tuple[str, str]]) -> bool:
    """Whether the ends of a stream are connected without it."""
    next_to: dict[str, list[str]] = {}
    for name, (one, other) in ends.items():
        if name != stream:
            next_to.setdefault(one, []).append(other)
            next_to.setdefault(other, []).append(one)
    start, goal = ends[stream]
    seen, left = {start}, [start]
    while left:
        for layer in next_to.get(left.pop(), []):
            if layer == goal:
                return True
            if layer not in seen:
                seen.add(layer)
                left.append(layer)
    return False
