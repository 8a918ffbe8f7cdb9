"""The tally of each layer of a network, its values' bounds carried from layer to layer.

Bounds are those of `hqc.backends.rtl.lowering.lower`, but for windows over rows and
columns: there they are of the channels. Everything is arithmetic on whole arrays, so a network
takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hqc.backends import layers
from hqc.backends.estimate.counts import Bounds, OperationCounts
from hqc.backends.estimate.features import matrix_features
from hqc.backends.layers import Layer, Network
from hqc.backends.rtl.lowering.elements import by_position
from hqc.diagnostics import reject
from hqc.numerics.types import Codes, Overflow, Rounding


def operation_counts(network: Network) -> dict[str, OperationCounts]:
    """What each layer's logic consists of, by name, in the order they run.

    Raises:
        HqcError: HQC401, the network is of streams, or has a layer that logic does not do.
    """
    if network.stream:
        raise reject("HQC401", "the network is of streams, logic is of arrays")
    known: dict[str, Bounds] = {}
    found: dict[str, OperationCounts] = {}
    for layer in network.layers:
        tally = OperationCounts()
        if isinstance(layer, layers.Input):
            limits = layer.result.limits
            lo, hi = (np.full(layer.size, end, np.int64) for end in (limits.lo, limits.hi))
            known[layer.name] = Bounds(lo, hi, layer.result.fraction)
            continue
        known[layer.name] = _count(layer, known, tally)
        tally.bits_in = sum(int(known[name].bits.sum()) for name in layer.sources)
        tally.bits_out = int(known[layer.name].bits.sum())
        found[layer.name] = tally
    return found


def _count(layer: Layer, known: Mapping[str, Bounds], tally: OperationCounts) -> Bounds:
    make = _KINDS.get(type(layer))
    if make is None:
        kind = type(layer).__name__
        raise reject("HQC401", f"a {kind} layer has no logic", where=layer.where)
    return make(layer, [known[name] for name in layer.sources], tally)


def _by_channel(x: Bounds, channels: int, padded: bool = False) -> Bounds:
    """Bounds of each channel, over all positions."""
    lo, hi = x.lo.reshape(-1, channels).min(axis=0), x.hi.reshape(-1, channels).max(axis=0)
    if padded:
        lo, hi = np.minimum(lo, 0), np.maximum(hi, 0)
    return Bounds(lo, hi, x.fraction)


def _laid_out(layer: Layer, x: Bounds, tally: OperationCounts, rows: int = 1) -> Bounds:
    """The elements of one instance, wide enough for all of them; the tally counts the copies."""
    index = by_position(layer, rows)
    tally.copies = len(index)
    return Bounds(x.lo[index].min(axis=0), x.hi[index].max(axis=0), x.fraction)


def _everywhere(layer: Layer, x: Bounds) -> Bounds:
    """The elements of one instance, in all instances."""
    times = layer.size // len(x.lo)
    return Bounds(np.tile(x.lo, times), np.tile(x.hi, times), x.fraction)


# --- sums of products, and maxima -----------------------------------------------------------


def _dense(layer: layers.Dense, sources: list[Bounds], tally: OperationCounts) -> Bounds:
    return _sums(layer, sources[0], layer.weight.codes, layer.bias.codes, tally)


def _conv(layer: layers.Conv, sources: list[Bounds], tally: OperationCounts) -> Bounds:
    *kernel, n_in, n_out = layer.weight.codes.shape
    sliding = layer.sliding
    padded = any((*sliding.before, *sliding.after))
    x = _by_channel(sources[0], n_in * layer.group, padded)
    tally.copies = sliding.windows[0] * sliding.windows[1]
    taps, parts = kernel[0] * kernel[1], []
    for group in range(layer.group):
        inside = slice(group * n_in, (group + 1) * n_in)
        outputs = slice(group * n_out // layer.group, (group + 1) * n_out // layer.group)
        given = Bounds(np.tile(x.lo[inside], taps), np.tile(x.hi[inside], taps), x.fraction)
        weight = layer.weight.codes[..., outputs].reshape(taps * n_in, -1)
        parts.append(_sums(layer, given, weight, layer.bias.codes[outputs], tally))
    lo, hi = (np.concatenate([getattr(part, end) for part in parts]) for end in ("lo", "hi"))
    return _everywhere(layer, Bounds(lo, hi, layer.result.fraction))


def _sums(
    layer: layers.Dense | layers.Conv, x: Bounds, weight: Codes, bias: Codes, tally: OperationCounts
) -> Bounds:
    """`result(bias + x @ weight)`."""
    products = x.fraction + layer.weight.type.fraction
    finest = max(products, layer.bias.type.fraction)
    tally.matrices.append((matrix_features(weight, x.lo, x.hi, bias), tally.copies))
    up, down = np.maximum(weight, 0), np.minimum(weight, 0)
    sums = Bounds(x.lo @ up + x.hi @ down, x.hi @ up + x.lo @ down, products).at(finest)
    zeros = np.full(len(bias), finest - products)
    sums = tally.add_constant(sums, bias << (finest - layer.bias.type.fraction), zeros)
    return tally.assign(sums, layer.result)


def _max_pool(layer: layers.MaxPool, sources: list[Bounds], tally: OperationCounts) -> Bounds:
    x, sliding = _by_channel(sources[0], layer.channels), layer.sliding
    tally.copies = sliding.windows[0] * sliding.windows[1]
    taps = sliding.kernel[0] * sliding.kernel[1]
    bits = x.bits[x.lo < x.hi]
    tally.count("larger", float((taps - 1) * bits.sum()))
    tally.count("longer", float((taps - 1) * np.maximum(0, bits - 2).sum()))
    levels = (taps - 1).bit_length()
    tally.chain(x.bits, levels)
    tally.gates(levels)
    return _everywhere(layer, tally.assign(x, layer.result))


# --- element by element ---------------------------------------------------------------------


def _activation(layer: layers.Activation, sources: list[Bounds], tally: OperationCounts) -> Bounds:
    x, type_ = _laid_out(layer, sources[0], tally), layer.result
    if layer.function == "cast":
        return _everywhere(layer, tally.assign(x, type_))
    drops = x.fraction - type_.fraction
    if type_.overflow is Overflow.WRAP or (drops > 0 and type_.rounding is not Rounding.FLOOR):
        rectified = OperationCounts().clamp(x, 0, None)
        kept = np.minimum(rectified.bits, type_.width)[x.lo < 0]  # others are rounded away
        tally.count("clamp", float(kept.sum()))
        return _everywhere(layer, tally.assign(rectified, type_))
    lo, hi = ((end >> drops if drops > 0 else end << -drops) for end in (x.lo, x.hi))
    shifted = Bounds(lo, hi, type_.fraction)
    return _everywhere(layer, tally.clamp(shifted, 0, type_.limits.hi))


def _requantise(layer: layers.Requantise, sources: list[Bounds], tally: OperationCounts) -> Bounds:
    scales, biases = layer.scale.codes, layer.bias.codes
    x = _laid_out(layer, sources[0], tally, max(scales.size, biases.size))
    products = x.fraction + layer.scale.type.fraction
    finest = max(products, layer.bias.type.fraction)
    scale = np.resize(scales, len(x.lo)) << (finest - products)
    bias = np.resize(biases, len(x.lo)) << (finest - layer.bias.type.fraction)
    ends = np.sort(np.stack([x.lo * scale, x.hi * scale]), axis=0)
    total = Bounds(ends[0] + bias, ends[1] + bias, finest)
    found = OperationCounts().assign(total, layer.result)
    tally.requantise(x, scale, total, found)
    single = (scale & (scale - 1)) == 0  # shifts, or no product at all
    if single.any():
        shifted = Bounds(ends[0][single], ends[1][single], finest)
        # what is dropped rounds down, with a bias that ends above it
        drops = np.full(int(single.sum()), max(0, finest - layer.result.fraction))
        total = tally.add_constant(shifted, bias[single], drops, "moved")
        tally.assign(total, replace(layer.result, rounding=Rounding.FLOOR))
    return _everywhere(layer, found)


def _threshold(layer: layers.Threshold, sources: list[Bounds], tally: OperationCounts) -> Bounds:
    rows = layer.thresholds.codes
    x = _laid_out(layer, sources[0], tally, len(rows))
    coarser = x.fraction - layer.thresholds.type.fraction
    codes = rows << coarser if coarser >= 0 else -(-rows >> -coarser)
    each = np.resize(codes, (len(x.lo), rows.shape[1]))
    tally.compare(x, each, layer.result.width)
    lo, hi = ((each <= end[:, None]).sum(axis=1) + layer.bias for end in (x.lo, x.hi))
    return _everywhere(layer, tally.assign(Bounds(lo, hi, 0), layer.result))


def _table(layer: layers.Table, sources: list[Bounds], tally: OperationCounts) -> Bounds:
    rows = layer.table.codes
    x = _laid_out(layer, sources[0], tally, len(rows))
    values = layer.result.quantise(rows, -layer.table.type.fraction)
    up = int(layer.step.codes[0]).bit_length() - 1 - x.fraction - layer.step.type.fraction
    lo, hi = (end << up if up >= 0 else end >> -up for end in (x.lo, x.hi))
    place = Bounds(lo, hi, 0)
    each = np.resize(values, (len(x.lo), rows.shape[1]))
    tally.look_up(place, each, layer.first)
    return _everywhere(layer, Bounds(each.min(axis=1), each.max(axis=1), layer.result.fraction))


def _merge(layer: layers.Merge, sources: list[Bounds], tally: OperationCounts) -> Bounds:
    x, y = (_laid_out(layer, source, tally) for source in (sources[0], sources[-1]))
    if layer.function == "add":
        finest = max(x.fraction, y.fraction)
        x, y = x.at(finest), y.at(finest)
        total = Bounds(x.lo + y.lo, x.hi + y.hi, finest)
        tally.count("adder", float(total.bits.sum()))
        tally.chain(total.bits)
        return _everywhere(layer, tally.assign(total, layer.result))
    ends = np.stack([a * b for a in (x.lo, x.hi) for b in (y.lo, y.hi)])
    product = Bounds(ends.min(axis=0), ends.max(axis=0), x.fraction + y.fraction)
    tally.count("product", float((x.bits * y.bits).sum()))
    tally.chain(product.bits, int(np.minimum(x.bits, y.bits).max()).bit_length())
    return _everywhere(layer, tally.assign(product, layer.result))


def _rearrange(layer: layers.Rearrange, sources: list[Bounds], tally: OperationCounts) -> Bounds:
    parts = [
        x
        if x.fraction == layer.result.fraction and not _leaves(x, layer)
        else tally.assign(x, layer.result)
        for x in sources
    ]
    lo, hi = (
        np.append(np.concatenate([getattr(p, end) for p in parts]), np.int64(layer.fill))
        for end in ("lo", "hi")
    )
    return Bounds(lo[layer.index], hi[layer.index], layer.result.fraction)


def _leaves(x: Bounds, layer: Layer) -> bool:
    limits = layer.result.limits
    return bool((x.lo < limits.lo).any() or (x.hi > limits.hi).any())


_KINDS: dict[type[Layer], Callable[[Any, list[Bounds], OperationCounts], Bounds]] = {
    layers.Activation: _activation,
    layers.Conv: _conv,
    layers.Dense: _dense,
    layers.MaxPool: _max_pool,
    layers.Merge: _merge,
    layers.Rearrange: _rearrange,
    layers.Requantise: _requantise,
    layers.Table: _table,
    layers.Threshold: _threshold,
}
