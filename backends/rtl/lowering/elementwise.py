"""Blocks of layers that go element by element."""

from __future__ import annotations

import numpy as np

from hqc.backends.layers import Activation, Merge, Requantise, Table, Threshold
from hqc.backends.rtl.design import Block
from hqc.backends.rtl.lowering.assign import assign
from hqc.backends.rtl.lowering.chains import Chains
from hqc.backends.rtl.lowering.elements import Sources, Start, by_position
from hqc.backends.rtl.lowering.requantiser import requantiser
from hqc.backends.rtl.lowering.steps import Steps, count


def activation(layer: Activation, sources: Sources) -> Block:
    """ReLU, or the assignment to another type."""
    start = Start(sources, by_position(layer))
    b, relu = start.builder, layer.function == "relu"
    fraction, type_ = sources.type.fraction, layer.result
    made = [assign(b, wire, fraction, type_, relu) for wire in start.wires]
    return start.block(layer, layer.function, made)


def requantise(layer: Requantise, sources: Sources) -> Block:
    """`x * scale + bias`, one multiplier per channel."""
    scales, biases = layer.scale.codes, layer.bias.codes
    start = Start(sources, by_position(layer, max(scales.size, biases.size)))
    products = sources.type.fraction + layer.scale.type.fraction
    finest = max(products, layer.bias.type.fraction)
    made, chains = [], Chains()
    for number, wire in enumerate(start.wires):
        scale = int(scales[number % scales.size]) << (finest - products)
        bias = int(biases[number % biases.size]) << (finest - layer.bias.type.fraction)
        held = start.builder.ranges[wire]
        form = requantiser(held, scale, bias, finest, layer.result, chains)
        made.append(form(start.builder, wire))
    return start.block(layer, "requantise", made)


def merge(layer: Merge, sources: Sources) -> Block:
    """The sum or product of two values, element by element."""
    here = by_position(layer)
    twice = len(sources.names) == 1
    index = here if twice else np.concatenate([here, here + layer.size], axis=1)
    start = Start(sources, index)
    b, size = start.builder, here.shape[1]
    seconds = start.wires[:size] if twice else start.wires[size:]
    a, c = sources.types[0].fraction, sources.types[-1].fraction
    made = []
    for x, y in zip(start.wires, seconds, strict=False):
        if layer.function == "add":
            finest = max(a, c)
            total = b.plus(x, y, finest - a, finest - c)
            made.append(assign(b, total, finest, layer.result))
        else:
            made.append(assign(b, b.product(x, y), a + c, layer.result))
    return start.block(layer, layer.function, made)


def threshold(layer: Threshold, sources: Sources) -> Block:
    """How many thresholds of its row each element reaches."""
    codes = layer.thresholds.codes
    start = Start(sources, by_position(layer, len(codes)))
    b, coarser = start.builder, sources.type.fraction - layer.thresholds.type.fraction
    made = []
    for number, wire in enumerate(start.wires):
        row = [_least(int(t), -coarser) for t in codes[number % len(codes)]]
        steps = Steps.of(row, layer.bias, b.ranges[wire])
        made.append(b.assign(count(b, wire, steps), 0, layer.result))
    return start.block(layer, "threshold", made)


def _least(threshold: int, drops: int) -> int:
    """The least integer x with `x * 2**drops >= threshold`."""
    return threshold << -drops if drops <= 0 else -(-threshold >> drops)


def table(layer: Table, sources: Sources) -> Block:
    """Results looked up by the element's code, one table per row."""
    rows = layer.table.codes
    values = layer.result.quantise(rows, -layer.table.type.fraction)
    start = Start(sources, by_position(layer, len(rows)))
    b, factor = start.builder, int(layer.step.codes[0])
    drops = sources.type.fraction + layer.step.type.fraction
    made = []
    for number, wire in enumerate(start.wires):
        place = b.shift(b.shift(wire, 1 - factor.bit_length()), drops)
        lo, hi = b.ranges[place].lo, b.ranges[place].hi
        # Bounds known here may be wider than those the table was made for; what lies between
        # never comes.
        index = np.clip(np.arange(lo, hi + 1) - layer.first, 0, rows.shape[1] - 1)
        row = values[number % len(rows)][index]
        made.append(b.lookup(place, lo, [int(v) for v in row]))
    return start.block(layer, "table", made)
