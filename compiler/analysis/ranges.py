"""Exact ranges, channel by channel, of the values of an integer graph.

The range of a linear output is the sum over its own weights: each weight takes the end of its
input's range that its sign asks for. Nothing is estimated from widths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx_ir import Node, Value

from hqc.analysis.chain_steps import is_pass_through
from hqc.analysis.dependence import exact_values_known
from hqc.analysis.grid_constants import grid_constant
from hqc.analysis.partition import MAXIMA
from hqc.analysis.rearrangements import (
    Rearrangement,
    data_sources,
    is_rearrangement,
    rearrangement,
    sample_shape,
)
from hqc.diagnostics import reject
from hqc.ir import constant, location_of, type_of
from hqc.ir.operators import MultiThreshold, Quant
from hqc.ir.windows import Taps, Window
from hqc.numerics.types import INT64_BITS, Codes, FixedType, Range


@dataclass(frozen=True)
class ChannelRange:
    """Codes lo[c]..hi[c] on the step 2**exponent; one entry, or one per channel (axis 1)."""

    lo: Codes
    hi: Codes
    exponent: int

    @classmethod
    def of(cls, range_: Range) -> ChannelRange:
        """The same range for all channels."""
        return cls(np.array([range_.lo]), np.array([range_.hi]), range_.exponent)

    @property
    def joined(self) -> Range:
        """The range over all channels."""
        return Range(int(self.lo.min()), int(self.hi.max()), self.exponent)

    @property
    def constant(self) -> npt.NDArray[np.bool_]:
        """Which channels take a single value."""
        return np.asarray(self.lo == self.hi)

    def at(self, exponent: int) -> ChannelRange:
        """The same values on a finer step."""
        self.joined.at(exponent)
        shift = self.exponent - exponent
        if self.joined.magnitude_bits + shift > INT64_BITS:
            raise OverflowError("range beyond 62 bits")
        return ChannelRange(self.lo << shift, self.hi << shift, exponent)


def integers(value: Value) -> tuple[Codes, int]:
    """A typed constant as int64 codes and the exponent of their step."""
    array, type_ = constant(value), type_of(value)
    assert array is not None
    assert type_ is not None, f"{value.name} has no type"
    codes = np.asarray(array, np.float64) * 2.0**type_.fraction
    return codes.astype(np.int64), -type_.fraction


def fit(values: npt.NDArray[np.float64]) -> FixedType:
    """The narrowest type that holds all of these numbers exactly."""
    found = value_range(values)
    return found.fit()


def value_range(values: npt.NDArray[np.float64]) -> Range:
    """The range of these numbers on the coarsest power-of-two step that holds them all."""
    flat = np.unique(np.asarray(values, np.float64))
    nonzero = flat[flat != 0]
    if nonzero.size == 0:
        return Range(0, 0, 0)
    mantissa, exponent = np.frexp(nonzero)
    odd = (mantissa * 2.0**53).astype(np.int64)
    trailing = [(int(m) & -int(m)).bit_length() - 1 for m in odd]
    step = int(np.min(exponent - 53 + np.array(trailing)))
    return Range(int(np.ldexp(flat[0], -step)), int(np.ldexp(flat[-1], -step)), step)


def forward(node: Node, known: Mapping[Value, ChannelRange]) -> ChannelRange:
    """Range of a core node's output from the ranges of its inputs.

    Raises:
        HqcError: HQC204, beyond 62 bits; HQC205, not an operator of the integer state.
    """
    try:
        return _forward(node, known)
    except OverflowError as error:
        raise reject("HQC204", f"{node.op_type}: {error}", where=location_of(node)) from error


def _forward(node: Node, known: Mapping[Value, ChannelRange]) -> ChannelRange:
    data = [v for v in node.inputs if v is not None and v in known]
    if not data:
        return _port(node)
    x = known[data[0]]
    if is_pass_through(node):
        return x
    if is_rearrangement(node):
        return _moved(rearrangement(node), [known[v] for v in data_sources(node)])
    if node.op_type == "Relu":
        return ChannelRange(np.maximum(x.lo, 0), np.maximum(x.hi, 0), x.exponent)
    if Quant.matches(node):
        type_ = _saturating(node)
        ends = [type_.quantise(end, x.exponent) for end in (x.lo, x.hi)]
        return ChannelRange(ends[0], ends[1], -type_.fraction)
    if MultiThreshold.matches(node):
        return _count(node, x)
    if node.op_type in ("MatMul", "Conv"):
        return _weighted(node, x)
    if node.op_type in MAXIMA:
        return x  # a window holds at least one element of its channel
    if _operands(node, known) == 2 and node.op_type in ("Add", "Mul"):
        y = known[data[-1]]
        return _sum(x, y) if node.op_type == "Add" else _times(x, y)
    constants = (v for v in node.inputs if v is not None and v not in known)
    other = next((v for v in constants if exact_values_known(v)), None)
    if other is not None and node.op_type == "Add" and type_of(other) is not None:
        codes, exponent = integers(other)
        flat = codes.ravel()
        return _sum(x, ChannelRange(flat, flat, exponent))
    if other is not None and node.op_type == "Mul" and type_of(other) is not None:
        codes, exponent = integers(other)
        return _product(x, codes.ravel(), exponent)
    raise reject("HQC205", f"{node.op_type} in the integer core", where=location_of(node))


def _port(node: Node) -> ChannelRange:
    if Quant.matches(node):
        return ChannelRange.of(_saturating(node).limits)
    view = MultiThreshold.read(node)
    low = int(view.out_bias)
    return ChannelRange.of(Range(low, low + view.thresholds.shape[1], 0))


def _saturating(node: Node) -> FixedType:
    type_ = Quant.read(node).fixed_type
    if type_ is None:
        raise reject(
            "HQC205", "a quantiser without a hardware type in the core", where=location_of(node)
        )
    return type_


def _operands(node: Node, known: Mapping[Value, ChannelRange]) -> int:
    """How many inputs are computed; `x + x` has two."""
    return sum(v is not None and v in known for v in node.inputs)


def _moved(found: Rearrangement, sources: Sequence[ChannelRange]) -> ChannelRange:
    """What each output channel takes from the channels before, and from the padding."""
    fill = value_range(np.array([found.fill]))
    padded = bool(np.any(found.index < 0))
    exponent = min([x.exponent for x in sources] + [fill.exponent] * padded)
    aligned = [x.at(exponent) for x in sources]
    channels = found.channels()
    if channels is None or (len(sources) == 1 and len(sources[0].lo) == 1):
        lo, hi = min(x.joined.lo for x in aligned), max(x.joined.hi for x in aligned)
        if padded:
            code = fill.at(exponent)
            lo, hi = min(lo, code.lo), max(hi, code.hi)
        return ChannelRange(np.array([lo]), np.array([hi]), exponent)
    counts = [sample_shape(v)[0] for v in found.sources]
    ends = []
    for side in ("lo", "hi"):
        parts = [np.broadcast_to(getattr(x, side), n) for x, n in zip(aligned, counts, strict=True)]
        filled = fill.at(exponent).lo if padded else 0
        ends.append(np.append(np.concatenate(parts), np.int64(filled)))  # channel -1 is the padding
    low = np.array([ends[0][row].min() for row in channels])
    high = np.array([ends[1][row].max() for row in channels])
    return ChannelRange(low, high, exponent)


def _count(node: Node, x: ChannelRange) -> ChannelRange:
    view = MultiThreshold.read(node)
    bounds = view.thresholds * 2.0**-x.exponent
    channels = max(len(x.lo), len(bounds))
    lo, hi = (np.broadcast_to(end, channels) for end in (x.lo, x.hi))
    rows = np.broadcast_to(bounds, (channels, bounds.shape[1]))
    bias = int(view.out_bias)
    low = np.array([int(np.sum(n >= row)) for n, row in zip(lo, rows, strict=True)])
    high = np.array([int(np.sum(n >= row)) for n, row in zip(hi, rows, strict=True)])
    return ChannelRange(low + bias, high + bias, 0)


def _weighted(node: Node, x: ChannelRange) -> ChannelRange:
    weight = node.inputs[1]
    assert weight is not None
    assert grid_constant(weight) is not None
    codes, exponent = integers(weight)
    group, lo, hi = 1, x.lo, x.hi
    if node.op_type == "MatMul":
        codes = codes.T[:, :, None]
    else:
        window = Window.of(node)
        group = window.group
        codes = codes.reshape(*codes.shape[:2], -1)
        if Taps.of(node).pads:  # where the window meets padding, zeros take part
            lo, hi = np.minimum(lo, 0), np.maximum(hi, 0)
    largest = max(abs(int(lo.min())), abs(int(hi.max())), abs(int(lo.max())))
    if (largest * int(np.abs(codes).sum(axis=(1, 2)).max(initial=0))).bit_length() > INT64_BITS:
        raise OverflowError("sums beyond 62 bits")
    per_group = codes.shape[1]
    positive = np.maximum(codes, 0).sum(axis=2)
    negative = np.minimum(codes, 0).sum(axis=2)
    rows = codes.shape[0] // group
    low, high = (
        np.broadcast_to(end, group * per_group).reshape(group, 1, per_group).repeat(rows, axis=1)
        for end in (lo, hi)
    )
    low, high = (end.reshape(-1, per_group) for end in (low, high))
    return ChannelRange(
        (low * positive + high * negative).sum(axis=1),
        (high * positive + low * negative).sum(axis=1),
        x.exponent + exponent,
    )


def _sum(x: ChannelRange, y: ChannelRange) -> ChannelRange:
    exponent = min(x.exponent, y.exponent)
    a, b = x.at(exponent), y.at(exponent)
    return ChannelRange(a.lo + b.lo, a.hi + b.hi, exponent)


def _times(x: ChannelRange, y: ChannelRange) -> ChannelRange:
    if x.joined.magnitude_bits + y.joined.magnitude_bits > INT64_BITS:
        raise OverflowError("products beyond 62 bits")
    ends = np.stack(np.broadcast_arrays(*(a * b for a in (x.lo, x.hi) for b in (y.lo, y.hi))))
    return ChannelRange(ends.min(axis=0), ends.max(axis=0), x.exponent + y.exponent)


def _product(x: ChannelRange, codes: Codes, exponent: int) -> ChannelRange:
    top = x.joined.magnitude_bits + int(np.max(np.abs(codes))).bit_length()
    if top > INT64_BITS:
        raise OverflowError("products beyond 62 bits")
    ends = np.stack([x.lo * codes, x.hi * codes])
    return ChannelRange(ends.min(axis=0), ends.max(axis=0), x.exponent + exponent)
