"""Blocks of layers that read many elements for each result: sums of products, and maxima."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hqc.backends.layers import Conv, Dense, MaxPool, Sliding
from hqc.backends.rtl.affine import Sums
from hqc.backends.rtl.builder import Builder
from hqc.backends.rtl.circuit import Wire
from hqc.backends.rtl.design import Block
from hqc.backends.rtl.lowering.cmvm import multiply
from hqc.backends.rtl.lowering.elements import Sources, Start
from hqc.numerics.types import Codes


def dense(layer: Dense, sources: Sources) -> Block:
    """A matrix product: one circuit."""
    start = Start(sources, np.arange(len(layer.weight.codes)).reshape(1, -1))
    made = _products(layer, start, start.wires, layer.weight.codes, layer.bias.codes)
    return start.block(layer, "dense", made)


def conv(layer: Conv, sources: Sources) -> Block:
    """A convolution: one circuit for a window, which stands at every position."""
    *_, n_in, n_out = layer.weight.codes.shape
    taps = _taps(layer.sliding, n_in * layer.group)
    start = Start(sources, taps.reshape(len(taps), -1))
    wires = np.array(start.wires).reshape(taps.shape[1:])
    made: list[Wire] = []
    for group in range(layer.group):
        inputs = wires[:, group * n_in : (group + 1) * n_in].reshape(-1)
        outputs = slice(group * n_out // layer.group, (group + 1) * n_out // layer.group)
        weight = layer.weight.codes[..., outputs].reshape(-1, n_out // layer.group)
        made += _products(layer, start, inputs.tolist(), weight, layer.bias.codes[outputs])
    return start.block(layer, "conv", made)


def _products(
    layer: Dense | Conv, start: Start, inputs: Sequence[Wire], weight: Codes, bias: Codes
) -> list[Wire]:
    """`result(bias + inputs @ weight)`."""
    products = start.sources.type.fraction + layer.weight.type.fraction
    finest = max(products, layer.bias.type.fraction)
    factor = 1 << (finest - products)
    offsets = [int(b) << (finest - layer.bias.type.fraction) for b in bias]
    table = weight.astype(object) * factor
    found = multiply(Sums(start.builder), inputs, table, offsets, layer.where)
    return [start.builder.assign(x.wire, finest - x.exponent, layer.result) for x in found]


def max_pool(layer: MaxPool, sources: Sources) -> Block:
    """Maxima: one circuit for all channels of a window, which stands at every position.

    A tap in the padding reads another tap of its window instead, which changes no maximum.
    """
    taps = _taps(layer.sliding, layer.channels)
    inside = taps[..., 0] >= 0
    first = np.take_along_axis(taps, inside.argmax(axis=1)[:, None, None], axis=1)
    taps = np.where(taps < 0, first, taps)
    start = Start(sources, taps.reshape(len(taps), -1))
    b, fraction = start.builder, sources.type.fraction
    columns = np.array(start.wires).reshape(taps.shape[1:]).T.tolist()
    made = [b.assign(_largest(b, column), fraction, layer.result) for column in columns]
    return start.block(layer, "maxpool", made)


def _largest(b: Builder, wires: Sequence[Wire]) -> Wire:
    """The maximum, in as few levels as there can be."""
    while len(wires) > 1:
        pairs = [b.larger(x, y) for x, y in zip(wires[::2], wires[1::2], strict=False)]
        wires = [*pairs, *wires[len(wires) - len(wires) % 2 :]]
    return wires[0]


def _taps(sliding: Sliding, channels: int) -> Codes:
    """(positions, taps, channels): the element each tap of a window reads, -1 in the padding."""
    axes = []
    for axis in (0, 1):
        starts = np.arange(sliding.windows[axis]) * sliding.strides[axis] - sliding.before[axis]
        reach = np.arange(sliding.kernel[axis]) * sliding.dilations[axis]
        places = starts[:, None] + reach
        outside = (places < 0) | (places >= sliding.size[axis])
        axes.append(np.where(outside, -1, places))
    rows, columns = axes[0][:, None, :, None], axes[1][None, :, None, :]
    pixels = np.where((rows < 0) | (columns < 0), -1, rows * sliding.size[1] + columns)
    pixels = pixels.reshape(pixels.shape[0] * pixels.shape[1], -1, 1)
    return np.where(pixels < 0, -1, pixels * channels + np.arange(channels)).astype(np.int64)
