"""Constants on grids, exactly: their codes and their scale.

The meaning of a model is its quantised graph over the rationals. Constants are the exception that
is none: the codes of a quantised constant are what the float32 QONNX executor makes of it, once,
because that is the number the model was trained and validated with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import onnx_ir as onnx_ir
from onnx_ir import Node, Value

from hqc.analysis.rearrangements import RESHAPES
from hqc.diagnostics import reject
from hqc.ir import Array, constant, location_of, type_of
from hqc.ir.operators import BipolarQuant, Quant, exact
from hqc.numerics.types import Codes, Rounding


@dataclass(frozen=True)
class GridConstant:
    """A constant on a grid: value = codes * scale, elementwise.

    Attributes:
        codes: int64 array, zero points already subtracted.
        scale: object array of Fractions, broadcastable against codes.
    """

    codes: Codes
    scale: npt.NDArray[np.object_]

    def values(self) -> list[Fraction]:
        """All elements as rationals, flattened."""
        scale = np.broadcast_to(self.scale, self.codes.shape)
        return [int(c) * s for c, s in zip(self.codes.ravel(), scale.ravel(), strict=True)]


def fractions(array: Array) -> npt.NDArray[np.object_]:
    """A float array as an object array of exact rationals, same shape."""
    out = np.empty(array.shape, object)
    out.ravel()[:] = exact(array)
    return out.reshape(array.shape)


def grid_constant(value: Value | None) -> GridConstant | None:
    """The exact grid form of a constant expression; None if it is computed or on no grid."""
    behind: list[Node] = []  # what is done to the constant, the last first
    while value is not None and (array := constant(value)) is None:
        node = value.producer()
        if node is None or not (_quantises(node) or node.op_type in _GRID_RULES):
            return None
        behind.append(node)
        value = node.inputs[0]
    if value is None:
        return None
    grid: GridConstant | None = None
    if behind and _quantises(behind[-1]):  # its data need be on no grid
        grid = quantise_constant(behind.pop(), np.asarray(array))
    elif (type_ := type_of(value)) is not None:
        codes = np.asarray(array, np.float64) * 2.0**type_.fraction
        grid = GridConstant(codes.astype(np.int64), _scalar(Fraction(2) ** -type_.fraction))
    while grid is not None and behind:
        node = behind.pop()
        grid = (
            _requantised(node, grid) if _quantises(node) else _GRID_RULES[node.op_type](node, grid)
        )
    return grid


def _quantises(node: Node) -> bool:
    return Quant.matches(node) or BipolarQuant.matches(node)


def _requantised(node: Node, inner: GridConstant) -> GridConstant:
    """A quantiser of what is on a grid already."""
    return quantise_constant(node, inner.codes.astype(np.float32) * inner.scale.astype(np.float32))


def _scaled(node: Node, inner: GridConstant) -> GridConstant | None:
    scale = constant(node.inputs[1])
    if scale is None:
        return None
    product = np.asarray(inner.scale * fractions(scale), object)  # a product of scalars is none
    return GridConstant(inner.codes, product)


def _transposed(node: Node, inner: GridConstant) -> GridConstant:
    perm = node.attributes.get_ints("perm")
    scale = inner.scale
    scale = scale.reshape((1,) * (inner.codes.ndim - scale.ndim) + scale.shape)
    return GridConstant(inner.codes.transpose(perm), scale.transpose(perm))


def _reshaped(node: Node, inner: GridConstant) -> GridConstant | None:
    shape = node.outputs[0].shape
    if shape is None:
        return None
    dims = tuple(d for d in shape if isinstance(d, int))
    scale = inner.scale
    if scale.size > 1:
        scale = np.broadcast_to(scale, inner.codes.shape).reshape(dims)
    return GridConstant(inner.codes.reshape(dims), scale)


#: Operators that keep a constant on a grid: the node, and what its first input is, to the result.
_GRID_RULES: Mapping[str, Callable[[Node, GridConstant], GridConstant | None]] = {
    "Mul": _scaled,
    "Transpose": _transposed,
    **dict.fromkeys(RESHAPES, _reshaped),
}


def quantise_constant(node: Node, data: Array) -> GridConstant:
    """Codes and scale of a quantised constant, with the float32 arithmetic of qonnx's executor."""
    if not np.all(np.isfinite(data)):
        raise reject(
            "HQC105",
            f"the constant quantised by {node.name} holds NaN or infinity",
            where=location_of(node),
            helps=("check the training run that produced these weights",),
        )
    if BipolarQuant.matches(node):
        bipolar = BipolarQuant.read(node)
        return GridConstant(np.where(data >= 0, 1, -1), fractions(bipolar.scale))
    quant = Quant.read(node)
    scaled = data / quant.scale.astype(data.dtype) + quant.zero_point.astype(data.dtype)
    if quant.is_bipolar:
        signs = np.where(scaled >= 0, 1, -1) - quant.zero_point
        return GridConstant(signs, fractions(quant.scale))
    lo, hi = quant.code_limits
    codes = round_float(np.clip(scaled, lo, hi), quant.rounding)
    return GridConstant(codes.astype(np.int64) - quant.zero_point, fractions(quant.scale))


_PLAIN_ROUNDING: Mapping[Rounding, Callable[[Array], Array]] = {
    Rounding.ROUND: np.rint,
    Rounding.FLOOR: np.floor,
    Rounding.CEIL: np.ceil,
    Rounding.DOWN: np.trunc,
}


def round_float(x: Array, rounding: Rounding) -> Array:
    """Round floats to integers; exact for float64 arrays below 2**52."""
    if (plain := _PLAIN_ROUNDING.get(rounding)) is not None:
        return plain(x)
    away = np.abs(x)
    if rounding is Rounding.UP:
        return np.copysign(np.ceil(away), x)
    rest = away - np.floor(away)
    up = rest >= 0.5 if rounding is Rounding.HALF_UP else rest > 0.5
    return np.asarray(np.copysign(np.floor(away) + up, x))


def exact_values(value: Value | None) -> npt.NDArray[np.object_] | None:
    """A constant operand as exact rationals, on a grid or raw float; None if computed."""
    grid = grid_constant(value)
    if grid is not None:
        out = np.empty(grid.codes.shape, object)
        out.ravel()[:] = grid.values()
        return out.reshape(grid.codes.shape)
    array = constant(value)
    if array is None:
        return None
    if not np.all(np.isfinite(array)):
        raise reject("HQC105", f"constant {value.name if value else ''} holds NaN or infinity")
    return fractions(array)


def _scalar(x: Fraction) -> npt.NDArray[np.object_]:
    out = np.empty((), object)
    out[()] = x
    return out
