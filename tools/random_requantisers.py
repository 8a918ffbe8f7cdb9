"""Requantisers as trainings leave them: the smallest multiplier that is exact, or thresholds."""

from __future__ import annotations

import numpy as np

from hqc.analysis.dyadic_requantiser import Dyadic, smallest_dyadic, thresholds_are_cheaper
from hqc.analysis.step_functions import StepFunction
from hqc.backends.estimate.operation_counts import operation_counts
from hqc.backends.estimate.quick import Coefficients
from hqc.backends.layers import Constant, Input, Layer, Network, Requantise, Threshold
from hqc.numerics.types import Codes, FixedType, Overflow, Range, Rounding

#: Least width of the accumulator, and of the result, in the table.
FIRST = (4, 2)
_WIDTHS, _BITS = range(FIRST[0], 25), range(FIRST[1], 11)
#: Requantisers of which a size in the table is the mean.
TRIES = 10


def requantiser_table(fit: Coefficients, tries: int = TRIES) -> list[list[float]]:
    """Sizes of a requantiser by the widths of its accumulator and its result, means of so many."""
    rng = np.random.default_rng(5)
    table = []
    for width in _WIDTHS:
        row = []
        for bits in _BITS:
            tried = [random_requantiser(rng, width, bits) for _ in range(tries)]
            row.append(
                round(float(np.mean([fit.whole(operation_counts(n)["y"]) for n in tried])), 2)
            )
        table.append(row)
    return table


def random_requantiser(rng: np.random.Generator, width: int, bits: int) -> Network:
    """One requantiser from so many bits, signed, to so many, unsigned.

    The highest code stands for a half to an eighth of what the accumulator could hold, as trained
    networks have it; the bias is anything in between.
    """
    limits = FixedType(True, width, width).limits
    highest = limits.hi * 2.0 ** -rng.uniform(1, 3)
    step = max(highest / ((1 << bits) - 1), 2.0**-8)
    bias = rng.normal(0, highest / 4)
    bounds = np.ceil((np.arange(1, 1 << bits) - 0.5) * step + bias).astype(np.int64)
    f = StepFunction(0, np.ones(1, np.int64), bounds.reshape(1, -1))
    lo, hi = (np.array([end], np.int64) for end in (limits.lo, limits.hi))
    found = smallest_dyadic(f, lo, hi, Rounding.ROUND)
    layer: Layer
    if found is None or thresholds_are_cheaper(f, found, lo, hi):
        layer = _thresholds(f.thresholds, bits)
    else:
        layer = _requantise(found, bits)
    x = Input("x", (), (1,), FixedType(True, width, width))
    return Network((x, layer), ("x",), ("y",))


def _thresholds(codes: Codes, bits: int) -> Layer:
    held = Constant(codes, Range(int(codes.min()), int(codes.max())).fit())
    type_ = FixedType(False, bits, bits)
    return Threshold("y", ("x",), (1,), type_, thresholds=held, bias=0)


def _requantise(found: Dyadic, bits: int) -> Layer:
    type_ = FixedType(False, bits, bits, found.rounding, Overflow.SAT)
    scale, bias = int(found.multiplier[0]), int(found.offset[0])
    scales, biases = (Range(code, code, -found.shift).fit() for code in (scale, bias))
    held = Constant(found.multiplier, scales), Constant(found.offset, biases)
    return Requantise("y", ("x",), (1,), type_, scale=held[0], bias=held[1])
