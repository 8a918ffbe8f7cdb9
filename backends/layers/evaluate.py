"""What the layers of `hqc.backends.layers` mean: their executable definition, exactly, in numpy.

Slow and obvious: integers of any size where int64 could be too small. A backend's own emulation
can be compared with it layer by layer; a backend whose form is data can use it as its emulator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import Any

import numpy as np

from hqc.analysis.partition import Partition
from hqc.backends import layers
from hqc.backends.layers.layers import Layer, Network, Sliding
from hqc.backends.layers.layout import from_hardware, to_hardware
from hqc.ir import Array
from hqc.numerics.types import INT64_BITS, Codes, FixedType, Overflow, round_shift
from hqc.pipeline.backend import Batch


def run_ports(network: Network, partition: Partition, batch: Batch) -> dict[str, Codes]:
    """Codes of the output ports for codes of the input ports, both in the model's own layout.

    Args:
        network: read from the partition, or from what a backend wrote.
        partition: whose ports they are.
        batch: int64 codes (N, *shape) by port name.
    """
    given = zip(network.inputs, partition.inputs, strict=True)
    values = run(network, {name: to_hardware(batch[port.name]) for name, port in given})
    made = zip(network.outputs, partition.outputs, strict=True)
    return {p.name: from_hardware(values[n].reshape(len(values[n]), -1), p.shape) for n, p in made}


def run(network: Network, inputs: Mapping[str, Codes]) -> dict[str, Codes]:
    """Codes (N, *layer.shape) of every layer, by its name.

    Args:
        network: arrays, not streams.
        inputs: codes (N, *shape) of the input layers, channels last.
    """
    known = dict(inputs)
    types = {layer.name: layer.result for layer in network.layers}
    for layer in network.layers:
        if layer.name not in known:
            sources = [known[name] for name in layer.sources]
            flat = evaluate(layer, sources, [types[name] for name in layer.sources])
            known[layer.name] = flat.reshape(len(flat), *layer.shape)
    return known


@singledispatch
def evaluate(layer: Layer, sources: Sequence[Codes], types: Sequence[FixedType]) -> Codes:
    """Codes (N, elements) of a layer for the codes (N, ...) of its sources.

    Args:
        layer: one of `hqc.backends.layers`.
        sources: in the layer's order.
        types: of the sources.

    Raises:
        TypeError: there is no definition for a layer of this kind.
    """
    raise TypeError(f"{type(layer).__name__} has no definition")


def _assign(codes: Array, fraction: int, type_: FixedType) -> Codes:
    """Codes of a type after assignment of `codes * 2**-fraction`."""
    shift, limits = fraction - type_.fraction, type_.limits
    rounded = _finer(codes, -shift) if shift <= 0 else round_shift(codes, shift, type_.rounding)
    kind = _kind(max(_top(rounded), -limits.lo, 2 * limits.hi))
    held = rounded.astype(kind)
    if type_.overflow is not Overflow.WRAP:
        held = np.clip(held, limits.lo, limits.hi)
    elif held.size and (held.min() < limits.lo or held.max() > limits.hi):
        held = (held - limits.lo) % (1 << type_.width) + limits.lo
    return held.astype(_kind(_top(held)))


def _top(codes: Array) -> int:
    """The largest magnitude."""
    return int(np.abs(codes).max(initial=0))


def _kind(top: int) -> Any:
    """An element type that holds integers of that magnitude."""
    return np.int64 if top.bit_length() <= INT64_BITS else object


def _finer(codes: Array, shift: int) -> Array:
    """Codes on a step finer by 2**shift."""
    return codes.astype(_kind(_top(codes) << shift)) << shift


def _product(x: Array, y: Array) -> Array:
    kind = _kind(_top(x) * _top(y))
    return np.asarray(x.astype(kind) * y.astype(kind))


def _matrix(x: Array, weight: Codes) -> Array:
    kind = _kind(_top(x) * _top(weight) * len(weight))
    return np.asarray(x.astype(kind) @ weight.astype(kind))


def _sum(x: Array, a: int, y: Array, b: int) -> tuple[Array, int]:
    """The sum of codes of fractions a and b, and its fraction."""
    finest = max(a, b)
    left, right = _finer(x, finest - a), _finer(y, finest - b)
    kind = _kind(_top(left) + _top(right))
    return left.astype(kind) + right.astype(kind), finest


@evaluate.register
def _dense(layer: layers.Dense, sources: Sequence[Codes], types: Sequence[FixedType]) -> Codes:
    x = sources[0].reshape(len(sources[0]), -1)
    products = _matrix(x, layer.weight.codes)
    fraction = types[0].fraction + layer.weight.type.fraction
    total = _sum(products, fraction, layer.bias.codes, layer.bias.type.fraction)
    return _assign(*total, layer.result)


@evaluate.register
def _conv(layer: layers.Conv, sources: Sequence[Codes], types: Sequence[FixedType]) -> Codes:
    x = sources[0].reshape(len(sources[0]), *layer.sliding.size, -1)
    *_, n_in, n_out = layer.weight.codes.shape
    windows = _windows(x, layer.sliding, 0)  # (N, positions, taps, channels)
    found = []
    for group in range(layer.group):
        own = windows[..., group * n_in : (group + 1) * n_in]
        outputs = slice(group * n_out // layer.group, (group + 1) * n_out // layer.group)
        weight = layer.weight.codes[..., outputs].reshape(-1, n_out // layer.group)
        found.append(_matrix(own.reshape(*own.shape[:2], -1), weight))
    products = np.concatenate(found, axis=-1)
    fraction = types[0].fraction + layer.weight.type.fraction
    total = _sum(products, fraction, layer.bias.codes, layer.bias.type.fraction)
    return _assign(*total, layer.result).reshape(len(x), -1)


@evaluate.register
def _max_pool(layer: layers.MaxPool, sources: Sequence[Codes], types: Sequence[FixedType]) -> Codes:
    x = sources[0].reshape(len(sources[0]), *layer.sliding.size, -1)
    windows = _windows(x, layer.sliding, np.iinfo(np.int64).min)
    return _assign(windows.max(axis=2), types[0].fraction, layer.result).reshape(len(x), -1)


def _windows(x: Codes, sliding: Sliding, padding: int) -> Codes:
    """The taps of each window: (N, positions, taps, channels)."""
    (top, left), (bottom, right) = sliding.before, sliding.after
    padded = np.pad(
        x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=np.int64(padding)
    )
    taps = []
    for row in range(sliding.kernel[0]):
        for column in range(sliding.kernel[1]):
            at = row * sliding.dilations[0], column * sliding.dilations[1]
            rows, columns = (
                slice(first, first + step * (count - 1) + 1, step)
                for first, step, count in zip(at, sliding.strides, sliding.windows, strict=True)
            )
            taps.append(padded[:, rows, columns].reshape(len(x), -1, x.shape[-1]))
    return np.stack(taps, axis=2)


@evaluate.register
def _requantise(
    layer: layers.Requantise, sources: Sequence[Codes], types: Sequence[FixedType]
) -> Codes:
    x = sources[0].reshape(len(sources[0]), -1)
    # element i has the constants at i modulo their number
    scale, bias = (np.resize(c.codes, x.shape[1]) for c in (layer.scale, layer.bias))
    fraction = types[0].fraction + layer.scale.type.fraction
    return _assign(
        *_sum(_product(x, scale), fraction, bias, layer.bias.type.fraction), layer.result
    )


@evaluate.register
def _activation(
    layer: layers.Activation, sources: Sequence[Codes], types: Sequence[FixedType]
) -> Codes:
    x = sources[0].reshape(len(sources[0]), -1)
    x = np.maximum(x, 0) if layer.function == "relu" else x
    return _assign(x, types[0].fraction, layer.result)


@evaluate.register
def _threshold(
    layer: layers.Threshold, sources: Sequence[Codes], types: Sequence[FixedType]
) -> Codes:
    rows = len(layer.thresholds.codes)
    x = sources[0].reshape(len(sources[0]), -1, rows)
    finest = max(types[0].fraction, layer.thresholds.type.fraction)
    limits = _finer(layer.thresholds.codes, finest - layer.thresholds.type.fraction)
    x = _finer(x, finest - types[0].fraction)
    reached = (x[..., None] >= limits).sum(axis=-1) + layer.bias
    return _assign(reached.reshape(len(x), -1), 0, layer.result)


@evaluate.register
def _table(layer: layers.Table, sources: Sequence[Codes], types: Sequence[FixedType]) -> Codes:
    rows = len(layer.table.codes)
    step = layer.step.type.fraction
    codes = sources[0].reshape(len(sources[0]), -1, rows) * int(layer.step.codes[0])
    places = FixedType(True, INT64_BITS, INT64_BITS).quantise(codes, -types[0].fraction - step)
    found = layer.table.codes[np.arange(rows), places - layer.first]
    return _assign(found.reshape(len(codes), -1), layer.table.type.fraction, layer.result)


@evaluate.register
def _merge(layer: layers.Merge, sources: Sequence[Codes], types: Sequence[FixedType]) -> Codes:
    x, y = (source.reshape(len(source), -1) for source in sources)
    a, b = (type_.fraction for type_ in types)
    if layer.function == "add":
        return _assign(*_sum(x, a, y, b), layer.result)
    return _assign(_product(x, y), a + b, layer.result)


@evaluate.register
def _rearrange(
    layer: layers.Rearrange, sources: Sequence[Codes], types: Sequence[FixedType]
) -> Codes:
    parts = [
        _assign(source.reshape(len(source), -1), type_.fraction, layer.result)
        for source, type_ in zip(sources, types, strict=True)
    ]
    fill = np.full((len(parts[0]), 1), layer.fill, np.int64)
    return np.concatenate([*parts, fill], axis=1)[:, layer.index]  # -1 is the last: the fill
