"""Thresholds as look-up tables, where a table of all codes is smaller than the comparators."""

from __future__ import annotations

import numpy as np

from hqc.backends.layers.layers import Constant, Layer, Table, Threshold
from hqc.numerics.types import FixedType, Range

#: Codes of the largest table.
_CODES = 4096
#: A few comparators are never worth a memory.
_THRESHOLDS = 8
#: Bits of a truth table, and inputs, of one look-up table of an FPGA.
_LUT_BITS, _LUT_INPUTS = 64, 6


def cheaper(layer: Threshold, source: FixedType, range_: Range) -> Layer:
    """The layer itself, or a `Table` with the same results that takes fewer look-up tables.

    A comparator with a constant takes about a fifth of a 6-input look-up table per bit (a chain,
    each link has an input from the one before), the count of n bits about n adders; a table takes
    its bits over 64 for each bit of the result.

    Args:
        layer: thresholds on the grid of its source.
        source: type of the source.
        range_: proven bounds of the source; codes outside of them have no entry.
    """
    codes = range_.hi - range_.lo + 1
    count = layer.thresholds.codes.shape[1]
    if codes > _CODES or count <= _THRESHOLDS:
        return layer
    if -range_.exponent > source.fraction:  # a bound finer than what the type holds
        return layer
    comparators = count * (source.width / (_LUT_INPUTS - 1) + 1)
    if layer.result.width * -(-codes // _LUT_BITS) >= comparators:
        return layer
    return tabulate(layer, source, range_)


def tabulate(layer: Threshold, source: FixedType, range_: Range) -> Table:
    """The results for each code from `range_.lo` to `range_.hi`, in steps of the range."""
    fraction = -range_.exponent
    finest = np.arange(range_.lo, range_.hi + 1) << (source.fraction - fraction)
    reached = [np.searchsorted(row, finest, side="right") for row in layer.thresholds.codes]
    values = np.stack(reached).astype(np.int64) + layer.bias
    return Table(
        layer.name,
        layer.sources,
        layer.shape,
        layer.result,
        layer.where,
        table=Constant(values << layer.result.fraction, layer.result.exact()),
        step=Constant(np.ones(1, np.int64), FixedType(False, 1, fraction + 1)),
        first=range_.lo,
    )
