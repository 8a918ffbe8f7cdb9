"""What nodes mean as steps of a monotone chain: arithmetic with constants, and activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import onnx_ir as onnx_ir
from onnx_ir import Node, Shape, Value

from hqc.analysis.dependence import data_input, exact_values_known
from hqc.analysis.grid_constants import exact_values
from hqc.diagnostics import reject
from hqc.ir import constant, location_of
from hqc.numerics.activations import Clip, Curve, Leaky, Rectifier, Single
from hqc.numerics.monotone_chain import Affine, Chain, Step

#: Bits kept of an irrational square root (batch norm): no decision of ours is this close to a tie.
SQRT_BITS = 192

PASS_THROUGH = frozenset({"Identity", "Cast", "Dropout"})
#: With a constant on one side: one step of a chain.
ARITHMETIC = ("Add", "Sub", "Mul", "Div")
#: Of two computed tensors.
MERGES = ("Add", "Sub", "Mul")

#: Casts to other types round or truncate.
_STORAGE = {onnx_ir.DataType.FLOAT.value, onnx_ir.DataType.DOUBLE.value}


def is_pass_through(node: Node) -> bool:
    """Whether a node only renames its first input, or casts it to float32 or float64."""
    if node.domain != "" or node.op_type not in PASS_THROUGH:
        return False
    return node.op_type != "Cast" or node.attributes.get_int("to") in _STORAGE


def after_cast(node: Node, chain: Chain) -> Chain:
    """The chain of a real input behind a node that passes it through.

    A cast from float64 to float32 rounds real numbers; behind a quantiser it changes storage only.
    """
    if node.op_type != "Cast" or not chain.steps:
        return chain
    source, target = node.inputs[0], node.attributes["to"].as_int()
    wide = source is not None and source.dtype == onnx_ir.DataType.DOUBLE
    to_single = target == onnx_ir.DataType.FLOAT.value
    return chain.then(Single()) if to_single and wide else chain


def chain_step(node: Node, computed: Container[Value] = frozenset()) -> Step | None:
    """A node as a step on its one computed input, or None where it is no such thing.

    Covers BatchNormalization (y = gamma * (x - mean) / sqrt(var + epsilon) + beta, ONNX operator
    specification), Add, Sub, Mul, Div with a constant, and monotone activations.

    Args:
        node: of the quantised graph.
        computed: values that are known to be no constant expressions.
    """
    if node.domain == "" and node.op_type in ARITHMETIC:
        return _with_constant(node, computed)
    rule = _STEPS.get(node.op_type) if node.domain == "" else None
    return rule(node) if rule is not None else None


def _clip(node: Node) -> Clip | None:
    """Clip, with its limits as inputs, or as attributes up to opset 10."""
    limits: list[Fraction | None] = []
    for index, name in ((1, "min"), (2, "max")):
        given = node.inputs[index] if index < len(node.inputs) else None
        attribute = node.attributes.get(name)
        if given is not None:
            array = constant(given)
            if array is None:
                return None
            limit = float(np.asarray(array).ravel()[0])
        elif attribute is not None:
            limit = attribute.as_float()
        else:
            limit = math.inf
        limits.append(Fraction(limit) if math.isfinite(limit) else None)
    lo, hi = limits
    if lo is not None and hi is not None and lo > hi:
        raise reject("HQC105", f"{node.name} clips to [{lo}, {hi}]", where=location_of(node))
    return Clip(lo, hi)


def _leaky(node: Node) -> Step:
    slope = np.float32(node.attributes.get_float("alpha", 0.01))
    return _bent(node, (Fraction(float(slope)),))


def _prelu(node: Node) -> Step | None:
    slopes = exact_values(node.inputs[1])
    return None if slopes is None else _bent(node, _per_channel(node, slopes))


def _bent(node: Node, slopes: tuple[Fraction, ...]) -> Step:
    if not any(slopes):
        return Rectifier()
    if min(slopes) <= 0:
        raise reject(
            "HQC205",
            f"{node.op_type} with a slope of {float(min(slopes)):g}",
            where=location_of(node),
            notes=("a function that falls, or is flat in some channels only, has no thresholds",),
            helps=("use positive slopes",),
        )
    return Leaky(slopes)


#: Monotone functions of one number, as steps of a chain.
ACTIVATIONS: Mapping[str, Callable[[Node], Step | None]] = {
    "Relu": lambda node: Rectifier(),
    "Clip": _clip,
    "LeakyRelu": _leaky,
    "PRelu": _prelu,
    "Sigmoid": lambda node: Curve("Sigmoid"),
    "Tanh": lambda node: Curve("Tanh"),
}


def _batch_norm(node: Node) -> Affine:
    parameters = [exact_values(v) for v in node.inputs[1:5]]
    if any(p is None for p in parameters) or node.attributes.get_int("training_mode", 0) != 0:
        raise reject(
            "HQC102",
            "batch norm with computed statistics",
            where=location_of(node),
            helps=("export the model in eval mode",),
        )
    gamma, beta, mean, var = (list(p.ravel()) for p in parameters if p is not None)
    epsilon = Fraction(node.attributes.get_float("epsilon", 1e-5))
    a, b = [], []
    for g, shift, m, v in zip(gamma, beta, mean, var, strict=True):
        if v + epsilon <= 0:
            raise reject("HQC105", "batch norm with variance <= 0", where=location_of(node))
        factor = g / square_root(v + epsilon)
        a.append(factor)
        b.append(shift - factor * m)
    return Affine(tuple(a), tuple(b))


_ONE, _ZERO = Fraction(1), Fraction(0)
_Line = Callable[[Fraction], tuple[Fraction, Fraction]]
#: x and a constant c behind it as a line a * x + b: from c to (a, b).
_LINES: Mapping[str, _Line | None] = {
    "Add": lambda c: (_ONE, c),
    "Sub": lambda c: (_ONE, -c),
    "Mul": lambda c: (c, _ZERO),
    "Div": lambda c: (1 / c, _ZERO),
}
#: The same with the constant in front; c / x is no line.
_FLIPPED: Mapping[str, _Line | None] = {**_LINES, "Sub": lambda c: (-_ONE, c), "Div": None}


def _with_constant(node: Node, computed: Container[Value]) -> Affine | None:
    if len(node.inputs) != 2:
        return None
    left, right = (None if v in computed else exact_values(v) for v in node.inputs)
    other = left if right is None else right
    if other is None or (left is not None and right is not None):
        return None
    constants = _per_channel(node, other)
    line = (_LINES if left is None else _FLIPPED)[node.op_type]
    if line is None:
        return None
    if node.op_type == "Div" and 0 in constants:
        raise reject("HQC105", f"{node.name} divides by zero", where=location_of(node))
    lines = [line(c) for c in constants]
    return Affine(tuple(a for a, _ in lines), tuple(b for _, b in lines))


_STEPS: Mapping[str, Callable[[Node], Step | None]] = {
    **ACTIVATIONS,
    "BatchNormalization": _batch_norm,
}


def square_root(x: Fraction) -> Fraction:
    """The square root, exact for squares of rationals, else to `SQRT_BITS` bits."""
    n, d = math.isqrt(x.numerator), math.isqrt(x.denominator)
    if n * n == x.numerator and d * d == x.denominator:
        return Fraction(n, d)
    shift = 2 * SQRT_BITS + 2 * x.denominator.bit_length()
    root = math.isqrt((x.numerator << shift) // x.denominator)
    return Fraction(root, 1 << (shift // 2))


def _per_channel(node: Node, values: npt.NDArray[np.object_]) -> tuple[Fraction, ...]:
    """A constant operand along the channel axis (axis 1), or a scalar."""
    check_per_channel(node, values.shape)
    return tuple(values.ravel())


def check_per_channel(node: Node, shape: tuple[int, ...]) -> None:
    """Refuse a constant operand of this shape unless it is one number, or one per channel.

    Raises:
        HqcError: HQC102, it varies along another axis than axis 1, or it widens the data.
    """
    if math.prod(shape) == 1:
        return
    known = _data_shape(node)
    rank = len(known) if known is not None else 2
    full = (1,) * (rank - len(shape)) + shape
    channels = known[1] if known is not None and rank > 1 else None
    fits = not isinstance(channels, int) or channels == math.prod(shape)
    if rank < 2 or not fits or any(n != 1 for axis, n in enumerate(full) if axis != 1):
        raise reject(
            "HQC102",
            f"{node.op_type} with a constant of shape {shape}",
            where=location_of(node),
            notes=("a constant may vary along the channel axis (axis 1) only",),
        )


def _data_shape(node: Node) -> Shape | None:
    """The shape of a node's one computed input where that is known, else of its output."""
    out = node.outputs[0].shape
    others = [v for v in node.inputs if v is not None and v.shape != out]
    if out is not None and all(exact_values_known(v) for v in others):
        return out  # what is computed has this shape too: no need to find it
    source = data_input(node)
    return (source.shape if source is not None else None) or out
