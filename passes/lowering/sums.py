"""Lowering of sums of two tensors whose scales have no simple ratio.

Such a sum is kept open until it is known what reads it: a quantiser that follows gets both
operands with small integer factors (`hqc.passes.lowering.sum_requantiser`); anything else the
exact sum.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from onnx_ir import Node

from hqc.analysis.dyadic_requantiser import dyadic_through
from hqc.analysis.partition import code_boundaries
from hqc.analysis.step_functions import ALWAYS, NEVER, Quantiser, StepFunction
from hqc.numerics.monotone_chain import Affine, Chain, Step
from hqc.numerics.types import Codes
from hqc.passes.lowering.integer_builder import Form, IntegerBuilder
from hqc.passes.lowering.merge import broadcast, lower_merge, on_common_units, one_kind
from hqc.passes.lowering.rectifiers import straighten
from hqc.passes.lowering.requantisers import emit_step, saturates
from hqc.passes.lowering.sum_requantiser import Factors, Operand, smallest_factors

#: Factors up to this are simple: the sum is made at once.
SIMPLE = 16


@dataclass(frozen=True)
class OpenSum:
    """`chain(x + y)`, or x - y if the node subtracts; x and y on different scales."""

    node: Node
    x: Form
    y: Form
    chain: Chain = field(default_factory=Chain)

    def then(self, step: Step) -> OpenSum:
        """With one more step behind it."""
        return OpenSum(self.node, self.x, self.y, self.chain.then(step))

    def close(self, emitter: IntegerBuilder) -> Form:
        """The exact sum as nodes; raises HqcError HQC205 where no 53 bits hold it."""
        form = lower_merge(emitter, self.node, self.x, self.y)
        return Form(form.value, form.chain.extended(self.chain.steps))


def open_sum(emitter: IntegerBuilder, node: Node, x: Form, y: Form) -> OpenSum | None:
    """The sum, left open, where its operands have no simple common scale."""
    if node.op_type == "Mul":
        return None
    x, y = (broadcast(emitter, node, straighten(emitter, node, form)) for form in (x, y))
    first, second = x.affine, y.affine
    lefts, rights, _ = on_common_units(first.a, second.a)
    if all(abs(f) <= SIMPLE or f.denominator > 1 for f in (*lefts, *rights)):
        return None
    return OpenSum(node, x, y)


def lower_quantised_sum(
    emitter: IntegerBuilder, node: Node, found: OpenSum, max_bits: int
) -> tuple[Form, str] | None:
    """A quantiser behind an open sum, or None where no small factors are exact."""
    coder = code_boundaries(node)
    first, second = found.x.affine, found.y.affine
    if found.node.op_type == "Sub":
        second = second.then(Affine.of(-1))
    chain = Chain().then(Affine((Fraction(1),), first.add_offsets(second)))
    chain = chain.extended(found.chain.steps)
    channels = max(len(first.a), len(second.a), chain.channels, coder.channels)
    parts = []
    for channel in range(channels):
        x = _operand(emitter, found.x, first, channel, channels)
        y = _operand(emitter, found.y, second, channel, channels)
        swap = x.hi - x.lo < y.hi - y.lo
        factors = smallest_factors(*((y, x) if swap else (x, y)), chain, coder, channel)
        if factors is None:
            return None
        parts.append((factors.n, factors.m, factors) if swap else (factors.m, factors.n, factors))
    values = [
        emitter.scaled(form.value, _integers_of(emitter, form, numbers), suffix)
        for form, numbers, suffix in (
            (found.x, [m for m, _, _ in parts], "_left"),
            (found.y, [n for _, n, _ in parts], "_right"),
        )
    ]
    bits = sum((emitter.ranges[v].joined for v in values[1:]), emitter.ranges[values[0]].joined)
    values = one_kind(emitter, [emitter.widen(v, bits.magnitude_bits) for v in values])
    total = emitter.add(emitter.node("Add", values, node.inputs[0] or values[0], "_sum"))
    exponent = emitter.ranges[total].exponent
    cuts = [_in_steps(factors, exponent) for _, _, factors in parts]
    f = _step_function(cuts, coder.lo, coder.hi)
    dyadic = None
    if isinstance(coder, Quantiser) and saturates(f):
        corners = [(cut.sign, cut.corners) for cut in cuts]
        dyadic = dyadic_through(corners, (coder.lo, coder.hi), coder.rounding)
    form, remark = emit_step(emitter, node, total, f, dyadic, coder, max_bits)
    widest = max(max(abs(m), abs(n)).bit_length() for m, n, _ in parts)
    return form, f"two scales joined by {widest}-bit factors; {remark}"


def _operand(
    emitter: IntegerBuilder, form: Form, affine: Affine, channel: int, channels: int
) -> Operand:
    known = emitter.ranges[form.value]
    factor = affine.at(channel)[0] * Fraction(2) ** known.exponent
    if channels == 1 or len(known.lo) == 1:
        return Operand(factor, int(known.lo.min()), int(known.hi.max()))
    return Operand(factor, int(known.lo[channel]), int(known.hi[channel]))


def _integers_of(emitter: IntegerBuilder, form: Form, numbers: list[int]) -> tuple[Fraction, ...]:
    """Factors that make a value's codes times these integers, on the step 1."""
    step = Fraction(2) ** emitter.ranges[form.value].exponent
    return tuple(n / step for n in numbers)


def _in_steps(cut: Factors, exponent: int) -> Factors:
    """Corners in codes of the sum, whose step is 2**exponent where all factors are even."""

    def codes(sums: Codes) -> Codes:
        return sums >> exponent if exponent >= 0 else sums << -exponent

    corners = replace(cut.corners, above=codes(cut.corners.above), below=codes(cut.corners.below))
    return replace(cut, corners=corners)


def _step_function(cuts: list[Factors], lo: int, hi: int) -> StepFunction:
    """Thresholds at the smallest sum of each code that is reached."""
    rows = []
    for cut in cuts:
        row: Codes = np.full(hi - lo, NEVER, np.int64)
        for at, code in zip(cut.corners.above, cut.corners.codes, strict=True):
            row[code - lo - 1 : code - lo] = at
        least = int(cut.corners.codes[0]) if _starts_above(cut, lo) else lo
        row[: least - lo] = ALWAYS
        rows.append(row)
    return StepFunction(lo, np.array([cut.sign for cut in cuts], np.int64), np.array(rows))


def _starts_above(cut: Factors, lo: int) -> bool:
    """Whether the first corner stands for the lowest sum: its code is reached by all."""
    corners = cut.corners
    if not len(corners.codes):
        return False
    below = [int(k) for k in corners.codes_below]
    return int(corners.codes[0]) > lo and int(corners.codes[0]) not in below
