"""QONNX `Trunc`, both versions: it drops low bits of codes, and is two quantisers of the IR.

With n = round_half_even(x / scale + zero_point), the whole codes that come in, and a factor
T = 2**k, qonnx's executor gives

    version 1:  (R(n / T) - zero_point) * scale,                          k = bits in - bits out
    version 2:  (R(clamp(n / T)) - zero_point / T) * output scale,        T = output scale / scale

with R the rounding mode, and clamp the limits of the output's bits. Version 1 does not clamp, so
the range of what comes in must be known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from onnx_ir import Model, Node, Value

from hqc.analysis.chain_steps import ARITHMETIC
from hqc.analysis.grid_constants import exact_values
from hqc.diagnostics import HqcError, reject
from hqc.frontends.onnx.grids import signed_bits
from hqc.ir import Array, location_of
from hqc.ir.edits import keep_source, swap
from hqc.ir.operators import (
    MAX_BITS,
    BipolarQuant,
    Quant,
    bit_width_of,
    check_scale,
    exact,
    parameter_of,
    rounding_of,
)
from hqc.numerics.types import Rounding
from hqc.pipeline.node_builder import NodeBuilder

_ONE, _NONE = np.ones((), np.float32), np.zeros((), np.int64)


@dataclass(frozen=True)
class Trunc:
    """A `Trunc` node.

    Attributes:
        scale, zero_point: of the codes that come in.
        factor: T, a power of two.
        output_scale: real value of one step of the codes that go out.
        output_zero_point: what is taken off them.
        limits: of the codes that go out, or None if they are not clamped.
        rounding: the mode R.
    """

    scale: Array
    zero_point: Array
    factor: Fraction
    output_scale: Array
    output_zero_point: tuple[Fraction, ...]
    limits: Quant | None
    rounding: Rounding

    @classmethod
    def read(cls, node: Node) -> Trunc:
        """View a node of either version, told apart by its inputs.

        Raises:
            HqcError: HQC102/106/107/108 for parameters that are computed or make no sense.
        """
        if len(node.inputs) not in (5, 6):
            raise _refuse(node, f"Trunc with {len(node.inputs)} inputs")
        scale, zero_point = parameter_of(node, 1), parameter_of(node, 2)
        check_scale(node, scale)
        if np.any(zero_point != np.round(zero_point)):
            raise _refuse(node, "the zero point is not an integer")
        zero_point = zero_point.astype(np.int64)
        zeros = tuple(Fraction(int(z)) for z in zero_point.ravel())
        rounding = rounding_of(node, "FLOOR")
        if len(node.inputs) == 5:
            widths = [bit_width_of(node, parameter_of(node, i)) for i in (3, 4)]
            factor = Fraction(2) ** (widths[0] - widths[1])
            return cls(scale, zero_point, factor, scale, zeros, None, rounding)
        output_scale, bits = parameter_of(node, 4), bit_width_of(node, parameter_of(node, 5))
        check_scale(node, output_scale)
        ratios = np.unique(np.round(np.log2(output_scale / scale)))
        if len(ratios) != 1:
            raise _refuse(node, "Trunc by a different number of bits in each channel")
        signed = bool(node.attributes.get_int("signed", 1))
        narrow = bool(node.attributes.get_int("narrow", 0))
        if bits == 1 and (signed or narrow):
            raise reject("HQC107", "Trunc to one signed bit", where=location_of(node))
        limits = Quant(_ONE, _NONE, bits, signed, narrow, rounding)
        factor = Fraction(2) ** int(ratios[0])
        zeros = tuple(z / factor for z in zeros)
        return cls(scale, zero_point, factor, output_scale, zeros, limits, rounding)


def rewrite_trunc(model: Model, node: Node) -> None:
    """Replace a `Trunc` node by quantisers.

    Raises:
        HqcError: HQC102 without clamping and on a value of unknown range; HQC107 too many bits;
            and as `Trunc.read`.
    """
    view = Trunc.read(node)
    x = node.inputs[0]
    assert x is not None
    lo, hi = _codes_that_matter(node, view, x)
    steps = _Steps(model, str(node.outputs[0].name), x)
    bits = signed_bits(math.floor(lo), math.ceil(hi))
    if max(bits, _outgoing(view, lo, hi).bits) > MAX_BITS:
        raise reject("HQC107", f"Trunc of codes of {bits} bits", where=location_of(node))
    if not _in_one_unit(view):
        _whole_codes(view, steps, bits, _outgoing(view, lo, hi))
    else:
        steps.quant(Quant(view.scale, view.zero_point, bits, True, False, Rounding.ROUND))
        zero = np.array([int(z) for z in view.output_zero_point]).reshape(view.zero_point.shape)
        out = _outgoing(view, lo, hi)
        scale = np.asarray(view.scale * np.float32(float(view.factor)), np.float32)
        steps.quant(Quant(scale, zero, out.bits, out.signed, out.narrow, view.rounding))
        steps.by("Mul", np.asarray(view.output_scale / scale, np.float32))
    keep_source(steps.nodes, node)
    swap(node, steps.nodes)


def _in_one_unit(view: Trunc) -> bool:
    """Whether the codes that go out are codes of the input's own grid, T times coarser."""
    if view.limits is None:
        return not np.any(view.zero_point)
    coarse = [s * view.factor for s in exact(view.scale)]
    return coarse == exact(np.broadcast_to(view.output_scale, view.scale.shape)) and all(
        z.denominator == 1 for z in view.output_zero_point
    )


def _whole_codes(view: Trunc, steps: _Steps, bits: int, out: Quant) -> None:
    """The general form: codes as whole numbers, so that each step is exact."""
    zero = view.zero_point.astype(np.float32)
    factor = np.asarray(float(view.factor), np.float32)
    steps.by("Div", view.scale)
    steps.quant(Quant(_ONE, view.zero_point, bits, True, False, Rounding.ROUND))
    steps.by("Add", zero)
    steps.quant(Quant(factor, _NONE, out.bits, out.signed, out.narrow, view.rounding))
    if view.limits is None:
        steps.by("Mul", 1 / factor)
        steps.by("Add", -zero)
        steps.by("Mul", view.output_scale)
    else:
        steps.by("Add", -zero)
        steps.by("Mul", np.asarray(view.output_scale / factor, np.float32))


def _outgoing(view: Trunc, lo: Fraction, hi: Fraction) -> Quant:
    """Limits of the codes that go out."""
    if view.limits is not None:
        return view.limits
    bits = signed_bits(math.floor(lo / view.factor), math.ceil(hi / view.factor))
    return Quant(_ONE, _NONE, bits, True, False, view.rounding)


def _codes_that_matter(node: Node, view: Trunc, x: Value) -> tuple[Fraction, Fraction]:
    """Between which codes that come in the result changes, or lies at all."""
    if view.limits is not None:
        lo, hi = view.limits.code_limits
        return lo * view.factor, hi * view.factor
    found = bounds(x)
    if found is None:
        raise _refuse(
            node,
            "Trunc of version 1 does not clamp, and the range of its input is not known here",
            "export with qonnx 1.0 or later, whose Trunc clamps, or quantise the input",
        )
    zeros = [int(z) for z in view.zero_point.ravel()]
    ends = [v / s for v in found for s in exact(view.scale)]
    return min(ends) + min(zeros) - 1, max(ends) + max(zeros) + 1


class _Steps:
    """Numbered nodes one after another."""

    def __init__(self, model: Model, name: str, x: Value):
        self._new, self._x = NodeBuilder(model.graph, name, x), x
        self.nodes = self._new.nodes

    def quant(self, quant: Quant) -> None:
        self._x = self._new.apply(quant, self._x, str(len(self.nodes)))

    def by(self, op: str, operand: Array) -> None:
        if not np.all(operand == (op != "Add")):  # what changes nothing is left out
            self._x = self._new.by(op, self._x, operand, str(len(self.nodes)))


def bounds(value: Value) -> tuple[Fraction, Fraction] | None:
    """Between which reals a value lies, from the quantisers before it; None where none tells."""
    node = value.producer()
    if node is None:
        return None
    if Quant.matches(node):
        return _of_quant(Quant.read(node))
    if BipolarQuant.matches(node):
        top = max(exact(BipolarQuant.read(node).scale))
        return -top, top
    if node.domain == "" and node.op_type in ARITHMETIC and len(node.inputs) == 2:
        return _of_pair(node)
    rule = _UNARY.get(node.op_type) if node.domain == "" else None
    inner = bounds(node.inputs[0]) if rule is not None and node.inputs[0] is not None else None
    return None if rule is None or inner is None else rule(*inner)


_Ends = tuple[Fraction, Fraction]
_ZERO = Fraction(0)
_SAME_RANGE = (
    *("MaxPool", "GlobalMaxPool", "Flatten", "Reshape", "Transpose", "Identity", "Slice"),
    *("Squeeze", "Unsqueeze", "Dropout", "ReduceMax", "ReduceMean", "GlobalAveragePool"),
)
#: From the ends of the input's range to those of the output's.
_UNARY: Mapping[str, Callable[[Fraction, Fraction], _Ends]] = {
    **dict.fromkeys(_SAME_RANGE, lambda lo, hi: (lo, hi)),
    "AveragePool": lambda lo, hi: (min(lo, _ZERO), max(hi, _ZERO)),  # padding is zero
    "Relu": lambda lo, hi: (max(lo, _ZERO), max(hi, _ZERO)),
}


def _of_quant(quant: Quant) -> tuple[Fraction, Fraction]:
    lo, hi = (-1, 1) if quant.is_bipolar else quant.code_limits
    zeros = [int(z) for z in quant.zero_point.ravel()]
    ends = [s * (k - z) for s in exact(quant.scale) for z in zeros for k in (lo, hi)]
    return min(ends), max(ends)


def _of_pair(node: Node) -> tuple[Fraction, Fraction] | None:
    sides = []
    for value in node.inputs:
        known = exact_values(value)
        if known is not None:
            sides.append((min(known.ravel()), max(known.ravel())))
        elif value is None or (found := bounds(value)) is None:
            return None
        else:
            sides.append(found)
    (a, b), (c, d) = sides
    if node.op_type == "Add":
        return a + c, b + d
    if node.op_type == "Sub":
        return a - d, b - c
    if node.op_type == "Div":
        if c <= 0 <= d:
            return None
        c, d = 1 / d, 1 / c
    ends = [x * y for x in (a, b) for y in (c, d)]
    return min(ends), max(ends)


def _refuse(node: Node, message: str, *helps: str) -> HqcError:
    return reject("HQC102", message, where=location_of(node), helps=helps)
