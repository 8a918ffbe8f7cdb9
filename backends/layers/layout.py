"""The order of elements in hardware, and rearrangements that it makes unnecessary.

In hardware every value of rank 3 and more is channels-last: (N, C, H, W) lies in memory as
(H, W, C), (N, C, L) as (L, C). It is decided once, here: the model's own order is that of ports
in `Partition`, of samples and of vectors; everything in `hqc.backends.layers` is in this one.
Between the two stand `to_hardware` and `from_hardware`, which the emulator and the writer of
test-bench vectors call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from hqc.analysis.rearrangements import Rearrangement
from hqc.backends.layers.layers import Constant, Dense, Layer, Rearrange
from hqc.ir import Array
from hqc.numerics.types import Codes

#: Sources of one layer in hardware; more are joined two at a time.
_SOURCES = 2


def hardware_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a sample in hardware: channels, first in the model, come last."""
    return (*shape[1:], *shape[:1])


def to_hardware(batch: Array) -> Array:
    """Samples (N, C, ...) as the hardware holds them, (N, ..., C)."""
    return np.ascontiguousarray(np.moveaxis(batch, 1, -1)) if batch.ndim > 2 else batch


def from_hardware(batch: Array, shape: tuple[int, ...]) -> Array:
    """Samples (N, elements) of the hardware in the model's own shape."""
    held = batch.reshape(len(batch), *hardware_shape(shape))
    return np.ascontiguousarray(np.moveaxis(held, -1, 1)) if held.ndim > 2 else held


def spread(constant: Codes, shape: tuple[int, ...]) -> Codes:
    """A constant that broadcasts against (N, *shape), one entry per element in hardware order."""
    return to_hardware(np.broadcast_to(constant, (1, *shape))).reshape(-1)


def hardware_index(found: Rearrangement, shapes: Sequence[tuple[int, ...]]) -> Codes:
    """The index of a rearrangement, flat, with both sides in hardware order."""
    tables, first = [], 0
    for shape in shapes:
        size = math.prod(shape)
        held = np.arange(first, first + size).reshape(1, size)
        tables.append(from_hardware(held, shape).reshape(-1))
        first += size
    table = np.append(np.concatenate(tables), -1)  # index -1 reads the last entry
    return to_hardware(table[found.index][None]).reshape(-1).astype(np.int64)


def is_identity(index: Codes, size: int) -> bool:
    """Whether a flat index keeps all of `size` elements in place."""
    return index.size == size and np.array_equal(index, np.arange(size))


# --- simplification -------------------------------------------------------------------------


def simplify(layers: Sequence[Layer], outputs: Sequence[str]) -> tuple[list[Layer], dict[str, str]]:
    """Layers with no needless rearrangement, and which layer now gives the value of each old one.

    A rearrangement of rearrangements becomes one, one that changes nothing disappears, and the
    permutation of a vector that is multiplied by a matrix becomes one of the matrix's rows.
    """
    done: dict[str, Layer] = {}
    alias: dict[str, str] = {}
    for layer in layers:
        layer = replace(layer, sources=tuple(alias[s] for s in layer.sources))
        if isinstance(layer, Rearrange):
            layer = _compose(layer, done)
            if len(layer.sources) == 1 and is_identity(layer.index, layer.sizes[0]):
                alias[layer.name] = layer.sources[0]
                continue
        elif isinstance(layer, Dense):
            layer = _fold(layer, done)
        alias[layer.name] = layer.name
        done[layer.name] = layer
    read = [alias[name] for name in outputs]
    kept = alive(list(done.values()), read, lambda layer: not isinstance(layer, Rearrange))
    return [part for layer in kept for part in _in_pairs(layer)], alias


def alive(
    layers: Sequence[Layer], outputs: Sequence[str], always: Callable[[Layer], bool]
) -> list[Layer]:
    """Without layers that nothing reads, but for those that are always kept."""
    found: list[Layer] = []
    read = set(outputs)
    for layer in reversed(layers):
        if layer.name in read or always(layer):
            found.append(layer)
            read.update(layer.sources)
    return found[::-1]


def _compose(layer: Rearrange, known: Mapping[str, Layer]) -> Rearrange:
    """The same result, read past the rearrangements before it, each source once."""
    fill = _fill(layer)
    sizes: dict[str, int] = {}
    places: list[Codes] = []
    for name, size in zip(layer.sources, layer.sizes, strict=True):
        before = known[name]
        if isinstance(before, Rearrange) and _fits(fill, _fill(before)):
            fill = _fill(before) if fill is None else fill
            parts, index = dict(zip(before.sources, before.sizes, strict=True)), before.index
        else:
            parts, index = {name: size}, np.arange(size)
        sizes |= parts
        places.append(_places(parts, sizes)[index])
    index = np.append(np.concatenate(places), -1)[layer.index]
    code = 0 if fill is None else int(fill * Fraction(2) ** layer.result.fraction)
    names, lengths = tuple(sizes), tuple(sizes.values())
    return _without_unused(replace(layer, sources=names, sizes=lengths, index=index, fill=code))


def _places(parts: Mapping[str, int], sizes: Mapping[str, int]) -> Codes:
    """Where the elements of some sources are among those of all, and -1 for the fill."""
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    return np.concatenate([*(starts[n] + np.arange(size) for n, size in parts.items()), [-1]])


def _fill(layer: Rearrange) -> Fraction | None:
    """The real value of the fill, None where no element has it."""
    if np.all(layer.index >= 0):
        return None
    return layer.fill / Fraction(2) ** layer.result.fraction


def _fits(fill: Fraction | None, inner: Fraction | None) -> bool:
    return fill is None or inner is None or fill == inner


def _without_unused(layer: Rearrange) -> Rearrange:
    """Sources that no element comes from are not read (one stays, for a constant result)."""
    owner = np.repeat(np.arange(len(layer.sizes)), layer.sizes)
    used = np.unique(owner[layer.index[layer.index >= 0]]).tolist() or [0]
    kept = np.isin(owner, used)
    places = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)
    return replace(
        layer,
        sources=tuple(layer.sources[i] for i in used),
        sizes=tuple(layer.sizes[i] for i in used),
        index=places[layer.index],
    )


def _fold(layer: Dense, known: Mapping[str, Layer]) -> Dense:
    """A permutation before a matrix, done to the rows of the matrix."""
    x = known[layer.sources[0]]
    if not isinstance(x, Rearrange) or len(x.sources) != 1:
        return layer
    size = x.sizes[0]
    if x.index.size != size or not is_identity(np.sort(x.index), size):
        return layer
    rows = np.empty_like(layer.weight.codes)
    rows[x.index] = layer.weight.codes
    return replace(layer, sources=x.sources, weight=Constant(rows, layer.weight.type))


def _in_pairs(layer: Layer) -> list[Layer]:
    """A rearrangement of many sources as a chain of joins of two."""
    if not isinstance(layer, Rearrange) or len(layer.sources) <= _SOURCES:
        return [layer]
    found: list[Layer] = []
    left, sizes = layer.sources[0], layer.sizes[:2]
    for number, right in enumerate(layer.sources[1:-1]):
        total = sum(sizes)
        join = replace(
            layer,
            name=f"{layer.name}_join{number}",
            sources=(left, right),
            sizes=sizes,
            shape=(total,),
            index=np.arange(total),
        )
        found.append(join)
        left, sizes = join.name, (total, layer.sizes[number + 2])
    return [*found, replace(layer, sources=(left, layer.sources[-1]), sizes=sizes)]


def packet(layer: Layer) -> int:
    """Elements of one packet of a layer's result."""
    return layer.shape[-1] if layer.shape else 1


def flows(layer: Rearrange) -> bool:
    """Whether a rearrangement of streams needs no more than the last packet of each source.

    So it is where the elements of each packet come from one packet of a source at most, and those
    come in the order of the stream: padding, zero insertion, slices, channels chosen or joined.
    All others keep the whole of their sources.
    """
    rows = layer.index.reshape(-1, packet(layer))
    first = 0
    for size, width in zip(layer.sizes, layer.widths, strict=True):
        mine = (rows >= first) & (rows < first + size)
        at = (rows - first) // width
        high = np.where(mine, at, -1).max(axis=1)
        low = np.where(mine, at, size).min(axis=1)
        used = high[high >= 0]
        if np.any((low != high) & (high >= 0)) or np.any(np.diff(used) < 0):
            return False
        first += size
    return True
