"""QONNX `FloatQuant`: small floating-point formats, whose values all lie on one fine fixed grid.

A value of e exponent bits, m mantissa bits and bias b, times the scale, is a whole multiple of
2**(1 - b - m), the step of the subnormal numbers; so quantised constants are codes like others.
Computed tensors are a sum of thresholds, one for each step between neighbouring values, counted as
often as the step is wide on the fine grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
from onnx_ir import Model, Node, Value

from hqc.analysis.grid_constants import round_float
from hqc.diagnostics import HqcError, reject
from hqc.frontends.onnx.grids import on_grid
from hqc.ir import Array, constant, location_of
from hqc.ir.edits import keep_source, swap
from hqc.ir.operators import MultiThreshold, check_scale, parameter_of, rounding_of
from hqc.numerics.types import Rounding
from hqc.pipeline.node_builder import NodeBuilder

#: Codes of constants; thresholds of computed tensors.
MAX_CODE, MAX_THRESHOLDS = 1 << 22, 1024


@dataclass(frozen=True)
class FloatQuant:
    """A `FloatQuant` node.

    Attributes:
        scale: real value of the format's 1.
        mantissa: explicit mantissa bits.
        lowest: exponent of the smallest normal numbers.
        top: the largest value, in multiples of the subnormal step.
        rounding: how mantissas round.
    """

    scale: Array
    mantissa: int
    lowest: int
    top: int
    rounding: Rounding

    @classmethod
    def read(cls, node: Node) -> FloatQuant:
        """View a node.

        Raises:
            HqcError: HQC102 a format that overflows to infinity or NaN, or of too many fine steps;
                HQC106/107/108 for its parameters.
        """
        scale = parameter_of(node, 1)
        check_scale(node, scale)
        exponent, mantissa, bias = (_whole(node, i) for i in (2, 3, 4))
        if not node.attributes.get_int("saturation", 1):
            raise _refuse(node, "FloatQuant that overflows to infinity or NaN: codes have neither")
        step = Fraction(2) ** (1 - bias - mantissa)
        top = (2 - Fraction(1, 2**mantissa)) * Fraction(2) ** ((1 << exponent) - 1 - bias)
        stated = parameter_of(node, 5) if len(node.inputs) > 5 and node.inputs[5] else None
        if stated is not None:
            top = min(top, Fraction(float(stated.ravel()[0])))
        steps = top / step
        if steps.denominator != 1 or steps < 1:
            raise _refuse(node, f"FloatQuant with the largest value {float(top):g} off its grid")
        if steps > MAX_CODE:
            raise _refuse(
                node,
                f"FloatQuant of {exponent} exponent and {mantissa} mantissa bits spans "
                f"{int(steps)} steps of its smallest value: too many for a fixed-point grid",
            )
        return cls(scale, mantissa, 1 - bias, int(steps), rounding_of(node, "ROUND"))

    @property
    def step(self) -> Fraction:
        """The subnormal step, in units of the scale."""
        return Fraction(2) ** (self.lowest - self.mantissa)

    def codes(self, data: Array) -> Array:
        """Codes on the fine grid of float32 data, by the arithmetic of the operator."""
        x = data / self.scale.astype(data.dtype)
        exponent = np.maximum(np.frexp(x)[1] - 1, self.lowest) - self.mantissa
        exponent = np.where(x == 0, self.lowest - self.mantissa, exponent)
        rounded = np.ldexp(round_float(np.ldexp(x, -exponent), self.rounding), exponent)
        codes = np.ldexp(rounded.astype(np.float64), self.mantissa - self.lowest)
        return np.clip(codes, -self.top, self.top).astype(np.int64)

    def values(self) -> list[int]:
        """All values that are not negative, as codes on the fine grid, ascending."""
        found, code, width = [0], 0, 1
        while code < self.top:
            code += width
            found.append(code)
            if code == 1 << (self.mantissa + width.bit_length()):
                width *= 2
        return found


def rewrite_float_quant(model: Model, node: Node) -> None:
    """Replace a `FloatQuant` node by a quantised constant, or by thresholds.

    Raises:
        HqcError: as `FloatQuant.read`; HQC102 more than 1024 thresholds.
    """
    view = FloatQuant.read(node)
    x, name = node.inputs[0], str(node.outputs[0].name)
    assert x is not None
    unit = np.asarray(view.scale * np.float32(float(view.step)), np.float32)
    if np.any(unit.astype(np.float64) != view.scale.astype(np.float64) * float(view.step)):
        raise _refuse(node, "FloatQuant with a scale that leaves float32")
    data = constant(x)
    if data is not None:
        made = [on_grid(model.graph, view.codes(data), unit, name)]
    else:
        made = _thresholds(model, node, view, x, unit)
    keep_source(made, node)
    swap(node, made)


def _thresholds(model: Model, node: Node, view: FloatQuant, x: Value, unit: Array) -> list[Node]:
    """Counts of boundaries that are reached, less those that -x reaches: those x does not pass."""
    if 2 * view.top > MAX_THRESHOLDS:
        raise _refuse(
            node,
            f"FloatQuant of a computed tensor with {2 * view.top} fine steps "
            f"(up to {MAX_THRESHOLDS} are possible)",
            "quantise activations to integers",
        )
    if view.values()[-1] != view.top:
        raise _refuse(node, "FloatQuant with a largest value between two of its format")
    new = NodeBuilder(model.graph, str(node.outputs[0].name), x)
    reached, passed = _boundaries(view)
    steps = x if np.all(view.scale == 1) else new.by("Div", x, view.scale, "unscaled")
    total = None
    if reached:
        bias = float(len(passed) - view.top)
        rows = np.array([reached], np.float32)
        total = new.apply(MultiThreshold(rows, 1.0, bias), steps, "reached")
    if passed:
        negative = new.by("Mul", steps, -1, "negative")
        rows = -np.array([passed[::-1]], np.float32)
        bias = 0.0 if reached else float(view.top - len(passed))
        missed = new.apply(MultiThreshold(rows, 1.0, bias), negative, "missed")
        missed = new.by("Mul", missed, -1, "not_missed")
        total = missed if total is None else new.add("Add", (total, missed), "codes")
    assert total is not None
    new.by("Mul", total, unit, "values")
    return new.nodes


def _boundaries(view: FloatQuant) -> tuple[list[float], list[float]]:
    """Where codes step up, in units of the scale: boundaries that count themselves, and others."""
    reached: list[float] = []
    passed: list[float] = []
    positive = view.values()
    values = [-v for v in positive[:0:-1]] + positive
    for a, b in pairwise(values):
        width = b - a
        place, inclusive = _boundary(view.rounding, a, b)
        side = reached if inclusive else passed
        side += [float(place * view.step)] * width
    return reached, passed


def _boundary(rounding: Rounding, a: int, b: int) -> tuple[Fraction, bool]:
    """Where neighbouring values part, and whether that place itself becomes the upper one."""
    positive = a >= 0
    middle = Fraction(a + b, 2)
    if rounding is Rounding.ROUND:
        return middle, b // (b - a) % 2 == 0
    if rounding is Rounding.HALF_UP:
        return middle, positive
    if rounding is Rounding.HALF_DOWN:
        return middle, not positive
    upwards = {Rounding.CEIL: True, Rounding.UP: positive, Rounding.DOWN: not positive}
    if upwards.get(rounding, False):
        return Fraction(a), False
    return Fraction(b), True


def _whole(node: Node, index: int) -> int:
    found = parameter_of(node, index)
    if found.size != 1 or found.ravel()[0] != np.round(found.ravel()[0]):
        raise reject("HQC107", f"FloatQuant with {found.tolist()} bits", where=location_of(node))
    return int(found.ravel()[0])


def _refuse(node: Node, message: str, *helps: str) -> HqcError:
    return reject("HQC102", message, where=location_of(node), helps=helps)
