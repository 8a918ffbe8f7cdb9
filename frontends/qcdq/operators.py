"""Operators that compute on integer codes (the QOperator format), as float operators on grids.

Linear operators work on whole numbers, so the real scales multiply their integer accumulators:
`QLinearConv` is a convolution of codes, a product with both scales, and a quantiser. That is the
exact meaning of the ONNX operator; an executor multiplies by one rounded float32 factor instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from hqc.diagnostics import reject
from hqc.frontends.onnx.grids import along, on_grid
from hqc.frontends.qcdq.codes import (
    Codes,
    Region,
    check_single,
    integer_limits,
    parameter,
    renamed,
    storage_type,
)
from hqc.ir import Array, location_of, make_node
from hqc.pipeline.node_builder import NodeBuilder

_ONE, _ZERO = np.ones((), np.float32), np.zeros((), np.int64)


def rewrite(region: Region, node: Node) -> None:
    """Replace one operator of `OPERATORS`.

    Raises:
        HqcError: HQC102/106/107/108 as the quantisers themselves.
    """
    if node.attributes.get_int("channels_last", 0):
        raise reject(
            "HQC102",
            f"{node.op_type} with its channels last",
            where=location_of(node),
            helps=("quantise the model without onnxruntime's layout optimisations",),
        )
    OPERATORS[node.op_type](region, node)


def matches(node: Node) -> bool:
    """Whether a node is one of `OPERATORS`, of ONNX or of onnxruntime."""
    return node.domain in ("", "com.microsoft") and node.op_type in OPERATORS


# --- operands -----------------------------------------------------------------------------------


def _whole(region: Region, node: Node, index: int, zero: int, axis: int | None = None) -> Value:
    """Codes of an operand less their zero point, as floats; `axis` is that of its channels."""
    zero_point = parameter(node, zero)
    shift = _ZERO if zero_point is None else zero_point.astype(np.int64)
    stored = region.stored(node, index)
    if stored is None:
        found = region.value(node, index, _ONE, _per_tensor(node, shift))
        assert found is not None
        return found
    shaped = shift.reshape(()) if axis is None and shift.size == 1 else None
    shaped = along(shift, axis, stored.ndim) if axis is not None else shaped
    if shaped is None:
        raise _shape_of(node, shift)
    return _constant(region, node, index, np.asarray(stored - shaped), _ONE)


def _real(region: Region, node: Node, index: int) -> Value:
    """An operand with scale and zero point after it, in real units."""
    scale, zero_point = _scale(node, index + 1), parameter(node, index + 2)
    shift = _ZERO if zero_point is None else zero_point.astype(np.int64)
    scale, shift = _per_tensor(node, scale), _per_tensor(node, shift)
    stored = region.stored(node, index)
    if stored is not None:
        return _constant(region, node, index, np.asarray(stored - shift), scale)
    found = region.value(node, index, scale, shift)
    assert found is not None
    return found


def _constant(region: Region, node: Node, index: int, codes: Array, scale: Array) -> Value:
    value = node.inputs[index]
    assert value is not None
    made = on_grid(region.model.graph, codes, scale, f"{node.outputs[0].name}_{value.name}")
    return region.insert(node, [made])


def _scale(node: Node, index: int) -> Array:
    scale = parameter(node, index)
    if scale is None:
        raise reject("HQC109", f"{node.op_type} lacks input {index}", where=location_of(node))
    check_single(node, scale)
    return scale


def _per_tensor(node: Node, found: Array) -> Array:
    if found.size != 1:
        raise _shape_of(node, found)
    return found.reshape(())


def _shape_of(node: Node, found: Array) -> Exception:
    return reject(
        "HQC102",
        f"{node.op_type} with a scale or zero point of shape {found.shape} here",
        where=location_of(node),
    )


# --- results ------------------------------------------------------------------------------------


def _float(region: Region, node: Node, op: str, inputs: list[Value], keep: tuple[str, ...]) -> Node:
    out = node.outputs[0]
    attributes = {k: v for k, v in node.attributes.items() if k in keep}
    made = make_node(op, inputs, like=out, name=f"{out.name}_{op}", attributes=attributes)
    made.outputs[0].type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    return made


#: Operators that onnxruntime rounds with the zero point in, so that ties go to even codes.
_SHIFTS_FIRST = frozenset({"QLinearAdd", "QLinearMul", "QLinearAveragePool"})


def _codes(region: Region, node: Node, x: Value, scale: int, zero: int) -> None:
    """Describe the output as codes of x, by the output scale and zero point of the node."""
    zero_point = parameter(node, zero)
    lo, hi = integer_limits(storage_type(node, zero) or onnx_ir.DataType.UINT8, node)
    shift = _ZERO if zero_point is None else _per_tensor(node, zero_point.astype(np.int64))
    step = _per_tensor(node, _scale(node, scale))
    first = node.op_type in _SHIFTS_FIRST
    region.codes[node.outputs[0]] = Codes(x, step, shift, lo, hi, shifts_first=first)


def _times(region: Region, node: Node, x: Value, factor: Array) -> Value:
    if np.all(factor == 1):
        return x
    new = NodeBuilder(region.model.graph, str(node.outputs[0].name), x)
    new.by("Mul", x, factor, "scaled")
    return region.insert(node, new.nodes)


def _in_units(region: Region, node: Node, acc: Value, weights: Array) -> Value:
    """Sums of products of codes, times the scale of the data and those of the weights."""
    acc = _times(region, node, acc, _per_tensor(node, _scale(node, 1)))
    return _times(region, node, acc, weights)


def _whole_result(region: Region, node: Node, x: Value) -> None:
    lo, hi = integer_limits(onnx_ir.DataType.INT32, node)
    region.codes[node.outputs[0]] = Codes(x, _ONE, _ZERO, lo, hi, is_settled=True)


# --- operators ----------------------------------------------------------------------------------

_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def _conv(region: Region, node: Node, x: int, w: int, zeros: tuple[int, int]) -> tuple[Value, int]:
    inputs = [_whole(region, node, x, zeros[0]), _whole(region, node, w, zeros[1], axis=0)]
    if node.op_type == "QLinearConv" and (bias := region.stored(node, 8)) is not None:
        inputs.append(_constant(region, node, 8, bias, _ONE))
    weights = region.stored(node, w)
    if weights is None:
        raise reject("HQC103", "a convolution with computed weights", where=location_of(node))
    made = _float(region, node, "Conv", inputs, _CONV)
    return region.insert(node, [made]), weights.ndim


def _qlinear_conv(region: Region, node: Node) -> None:
    acc, rank = _conv(region, node, 0, 3, (2, 5))
    scale = along(_scale(node, 4), 1, rank)
    if scale is None:
        raise _shape_of(node, _scale(node, 4))
    acc = _in_units(region, node, acc, scale)
    _codes(region, node, acc, 6, 7)


def _conv_integer(region: Region, node: Node) -> None:
    acc, _ = _conv(region, node, 0, 1, (2, 3))
    _whole_result(region, node, acc)


def _columns(region: Region, node: Node, index: int, zero: int) -> Value:
    """The right operand of a product of matrices; a zero point may be one per column."""
    stored = region.stored(node, index)
    return _whole(region, node, index, zero, axis=None if stored is None else stored.ndim - 1)


def _qlinear_matmul(region: Region, node: Node) -> None:
    inputs = [_whole(region, node, 0, 2), _columns(region, node, 3, 5)]
    acc = region.insert(node, [_float(region, node, "MatMul", inputs, ())])
    acc = _in_units(region, node, acc, _row(_scale(node, 4)))
    _codes(region, node, acc, 6, 7)


def _matmul_integer(region: Region, node: Node) -> None:
    inputs = [_whole(region, node, 0, 2), _columns(region, node, 1, 3)]
    _whole_result(region, node, region.insert(node, [_float(region, node, "MatMul", inputs, ())]))


def _qgemm(region: Region, node: Node) -> None:
    rows = node.attributes.get_int("transB", 0)
    inputs = [_whole(region, node, 0, 2), _whole(region, node, 3, 5, axis=0 if rows else 1)]
    if (bias := region.stored(node, 6)) is not None:
        inputs.append(_constant(region, node, 6, bias, _ONE))
    acc = region.insert(node, [_float(region, node, "Gemm", inputs, ("transA", "transB"))])
    acc = _in_units(region, node, acc, _row(_scale(node, 4)))
    alpha = np.asarray(node.attributes.get_float("alpha", 1.0), np.float32)
    acc = _times(region, node, acc, alpha)
    if len(node.inputs) > 7 and node.inputs[7] is not None:
        _codes(region, node, acc, 7, 8)
    else:
        region.put(node, [renamed(acc, str(node.outputs[0].name))])


def _row(scale: Array) -> Array:
    return scale.reshape(()) if scale.size == 1 else scale.ravel()


def _on_reals(
    op: str, operands: Iterable[int], scale: int, keep: tuple[str, ...], region: Region, node: Node
) -> None:
    """An operator on operands in real units; the codes of its result are by input `scale`."""
    inputs = [_real(region, node, i) for i in operands]
    made = _float(region, node, op, inputs, keep)
    _codes(region, node, region.insert(node, [made]), scale, scale + 1)


def _concat(region: Region, node: Node) -> None:
    _on_reals("Concat", range(2, len(node.inputs), 3), 0, ("axis",), region, node)


def _dynamic(region: Region, node: Node) -> None:
    raise reject(
        "HQC108",
        f"{node.op_type}: the scale is found from the data while the model runs",
        where=location_of(node),
        helps=("use static quantisation, so that scales are constants",),
    )


_POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")

#: By operator name; the `QLinear` ones that ONNX lacks are onnxruntime's.
OPERATORS: dict[str, Callable[[Region, Node], None]] = {
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "QGemm": _qgemm,
    "MatMulInteger": _matmul_integer,
    "ConvInteger": _conv_integer,
    "QLinearAdd": partial(_on_reals, "Add", (0, 3), 6, ()),
    "QLinearMul": partial(_on_reals, "Mul", (0, 3), 6, ()),
    "QLinearConcat": _concat,
    "QLinearGlobalAveragePool": partial(_on_reals, "GlobalAveragePool", (0,), 3, ()),
    "QLinearAveragePool": partial(_on_reals, "AveragePool", (0,), 3, _POOL),
    "QLinearLeakyRelu": partial(_on_reals, "LeakyRelu", (0,), 3, ("alpha",)),
    "QLinearSigmoid": partial(_on_reals, "Sigmoid", (0,), 3, ()),
    "DynamicQuantizeLinear": _dynamic,
}
