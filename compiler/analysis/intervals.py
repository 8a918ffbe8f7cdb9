"""Interval arithmetic per channel over the integer datapath, derived anew from types and weights.

The verifier holds this against the ranges that passes annotate. It shares no code with the passes
and knows nothing of their proofs: exact Python integers, one operator at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from onnx_ir import Node, Value

from hqc.analysis.rearrangements import is_rearrangement, rearrangement, sample_shape
from hqc.ir import Array, constant, range_of, type_of
from hqc.ir.operators import MultiThreshold, Quant
from hqc.ir.windows import Taps
from hqc.numerics.types import DOUBLE_BITS, INT64_BITS, Range

Integers = npt.NDArray[np.object_]

#: Weights, or elements of a sample, up to which Python's integers are quick enough.
MAX_ELEMENTS = 1 << 19


@dataclass(frozen=True)
class Interval:
    """Bounds per channel: `lo[c] * 2**exponent <= x[:, c] <= hi[c] * 2**exponent`.

    Attributes:
        lo, hi: Python integers in object arrays of shape (C,), or (1,) for all channels.
        exponent: of the common step.
    """

    lo: Integers
    hi: Integers
    exponent: int

    @classmethod
    def of(cls, range_: Range) -> Interval:
        """The same bounds for all channels."""
        return cls(_integers([range_.lo]), _integers([range_.hi]), range_.exponent)

    def join(self) -> Range:
        """The range over all channels."""
        return Range(int(min(self.lo)), int(max(self.hi)), self.exponent)

    def at(self, exponent: int) -> Interval:
        """The same bounds on a finer step."""
        factor = 1 << (self.exponent - exponent)
        return Interval(self.lo * factor, self.hi * factor, exponent)

    @property
    def bits(self) -> int:
        """Bits of the largest magnitude."""
        return self.join().magnitude_bits


def derive(nodes: Iterable[Node], ports: Collection[Node]) -> dict[Value, Interval]:
    """Intervals of what integer nodes compute, given in order, from the annotations of the ports.

    What cannot be followed cheaply, and all that depends on it, is left out: bounds from its
    annotation would be looser than those of a pass that knows the operator.
    """
    known: dict[Value, Interval] = {}
    for node in nodes:
        out = node.outputs[0]
        rule = _moved if is_rearrangement(node) else _RULES.get(node.op_type)
        if node in ports:
            range_ = range_of(out)
            interval = Interval.of(range_) if range_ is not None else None
        else:
            interval = rule(node, known) if rule is not None else None
        if interval is not None:
            known[out] = interval
    return known


def constant_codes(value: Value | None) -> tuple[Integers, int] | None:
    """A typed constant as integers on its type's step, with the exponent of that step.

    None for anything computed, without a type, off its grid or beyond float64's integers.
    """
    array, type_ = constant(value), type_of(value) if value is not None else None
    if array is None or type_ is None:
        return None
    codes = np.asarray(np.ldexp(np.asarray(array, np.float64), type_.fraction))
    if not np.all(np.isfinite(codes)) or np.any(codes != np.rint(codes)):
        return None
    if np.max(np.abs(codes), initial=0) >= 2**DOUBLE_BITS:
        return None
    return codes.astype(np.int64).astype(object), -type_.fraction


# --- one function per operator ------------------------------------------------------------------

_Known = Mapping[Value, Interval]


def _integers(values: Iterable[int]) -> Integers:
    return np.array([int(v) for v in values], object)


def _input(node: Node, known: _Known, index: int = 0) -> Interval | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return known.get(value) if value is not None else None


def _operands(node: Node, known: _Known) -> tuple[Interval, Interval] | None:
    """The two sides of an elementwise node as intervals; a constant is a point."""
    sides = []
    for index in (0, 1):
        side = _input(node, known, index) or _point(node, node.inputs[index])
        if side is None:
            return None
        sides.append(side)
    if len({len(s.lo) for s in sides} - {1}) > 1:
        return None
    return sides[0], sides[1]


def _point(node: Node, value: Value | None) -> Interval | None:
    """A constant that varies along the channel axis only."""
    found = constant_codes(value)
    if found is None:
        return None
    codes, exponent = found
    rank = len(node.outputs[0].shape or ())
    shape = (1,) * (rank - codes.ndim) + codes.shape
    if codes.size != 1 and (rank < 2 or any(n != 1 for i, n in enumerate(shape) if i != 1)):
        return None
    return Interval(codes.ravel(), codes.ravel(), exponent)


def _matmul(node: Node, known: _Known) -> Interval | None:
    x, weights = _input(node, known), constant_codes(node.inputs[1])
    if x is None or weights is None or weights[0].ndim != 2:
        return None
    w, exponent = weights
    if len(x.lo) not in (1, w.shape[0]):
        return None
    lo, hi = (np.broadcast_to(side, w.shape[:1]) for side in (x.lo, x.hi))
    positive, negative = np.maximum(w, 0), np.minimum(w, 0)
    return Interval(
        lo @ positive + hi @ negative, hi @ positive + lo @ negative, x.exponent + exponent
    )


def _add(node: Node, known: _Known) -> Interval | None:
    sides = _operands(node, known)
    if sides is None:
        return None
    exponent = min(s.exponent for s in sides)
    a, b = (s.at(exponent) for s in sides)
    return Interval(a.lo + b.lo, a.hi + b.hi, exponent)


def _mul(node: Node, known: _Known) -> Interval | None:
    sides = _operands(node, known)
    if sides is None:
        return None
    a, b = sides
    ends = [p * q for p in (a.lo, a.hi) for q in (b.lo, b.hi)]
    lo, hi = np.minimum.reduce(ends), np.maximum.reduce(ends)
    return Interval(lo, hi, a.exponent + b.exponent)


def _relu(node: Node, known: _Known) -> Interval | None:
    x = _input(node, known)
    if x is None:
        return None
    return Interval(np.maximum(x.lo, 0), np.maximum(x.hi, 0), x.exponent)


def _moved(node: Node, known: _Known) -> Interval | None:
    """Element by element: what every element of the sources reaches, gathered and joined."""
    found = rearrangement(node)
    sides = [known.get(v) for v in found.sources]
    exponents = [s.exponent for s in sides if s is not None]
    mantissa, exponent = math.frexp(found.fill)
    padded = bool(np.any(found.index < 0))
    if len(exponents) != len(sides) or found.index.size > MAX_ELEMENTS:
        return None
    if padded and mantissa:
        exponents.append(exponent - DOUBLE_BITS)
    step = min(exponents)
    code = int(Fraction(found.fill) / Fraction(2) ** step) if padded else 0
    ends = []
    for side in ("lo", "hi"):
        elements = []
        for value, x in zip(found.sources, sides, strict=True):
            assert x is not None
            dims = sample_shape(value)
            bounds = getattr(x.at(step), side)
            if len(bounds) not in (1, dims[0] if dims else 1):
                return None
            rows = np.broadcast_to(bounds.reshape(-1, 1), (dims[0], math.prod(dims[1:])))
            elements.append(rows.ravel())
        ends.append(np.append(np.concatenate(elements), code)[found.index])
    dims = found.index.shape
    if not dims:
        return Interval(ends[0].reshape(1), ends[1].reshape(1), step)
    lo, hi = (e.reshape(dims[0], -1) for e in ends)
    return Interval(lo.min(axis=1), hi.max(axis=1), step)


def _conv(node: Node, known: _Known) -> Interval | None:
    """Each tap takes the worse end of its input channel, or 0 where it can meet padding."""
    x, weights = _input(node, known), constant_codes(node.inputs[1])
    if x is None or weights is None or weights[0].size > MAX_ELEMENTS:
        return None
    w, exponent = weights
    group = node.attributes.get_int("group", 1)
    taps = Taps.of(node).index
    outputs, per_group = w.shape[:2]
    w = w.reshape(outputs, per_group, -1)
    if len(x.lo) not in (1, group * per_group):
        return None
    lo, hi = (np.broadcast_to(s, (group * per_group,)) for s in (x.lo, x.hi))
    always = np.all(taps >= 0, axis=0)
    low, high = [], []
    for o in range(outputs):
        first = o // (outputs // group) * per_group
        a, b = (s[first : first + per_group, None] for s in (lo, hi))
        ends = np.stack([w[o] * a, w[o] * b])
        least, most = ends.min(axis=0), ends.max(axis=0)
        least = np.where(always, least, np.minimum(least, 0))
        most = np.where(always, most, np.maximum(most, 0))
        low.append(least.sum())
        high.append(most.sum())
    return Interval(_integers(low), _integers(high), x.exponent + exponent)


def _quant(node: Node, known: _Known) -> Interval | None:
    x = _input(node, known)
    type_ = Quant.read(node).fixed_type if Quant.matches(node) else None
    if x is None or type_ is None or x.bits + abs(x.exponent + type_.fraction) > INT64_BITS:
        return None
    lo, hi = (type_.quantise(side.astype(np.int64), x.exponent) for side in (x.lo, x.hi))
    return Interval(lo.astype(object), hi.astype(object), -type_.fraction)


def _multi_threshold(node: Node, known: _Known) -> Interval | None:
    x = _input(node, known)
    if x is None or not MultiThreshold.matches(node) or x.bits > DOUBLE_BITS:
        return None
    table = MultiThreshold.read(node)
    if table.out_scale != 1 or table.out_bias != int(table.out_bias):
        return None
    rows = np.asarray(table.thresholds, np.float64)
    if len({len(x.lo), len(rows)} - {1}) > 1:
        return None
    lo, hi = (_counts(side, x.exponent, rows) for side in (x.lo, x.hi))
    return Interval(lo + int(table.out_bias), hi + int(table.out_bias), 0)


def _counts(codes: Integers, exponent: int, rows: Array) -> Integers:
    values = np.ldexp(codes.astype(np.float64), exponent)[:, None]
    return _integers((values >= rows).sum(axis=1))


_RULES: Mapping[str, Callable[[Node, _Known], Interval | None]] = {
    "MatMul": _matmul,
    "Add": _add,
    "Mul": _mul,
    "Relu": _relu,
    "Conv": _conv,
    "Quant": _quant,
    "MultiThreshold": _multi_threshold,
    **dict.fromkeys(("Identity", "Cast", "MaxPool", "GlobalMaxPool"), _input),
}
