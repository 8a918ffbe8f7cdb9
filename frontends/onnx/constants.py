"""Constant expressions in files: parameters that are computed, and quantised constants that move.

Exporters compute scales, zero points and bit widths from constants, and transpose or reshape
quantised weights. The first become constants; the second move the data and the scale instead.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx_ir import Model, Node, Value

from hqc.analysis.dependence import exact_values_known
from hqc.diagnostics import reject
from hqc.frontends.onnx.shapes import is_known
from hqc.ir import QONNX, Array, add_constant, constant, location_of, nodes, set_source
from hqc.ir.edits import swap
from hqc.ir.onnxruntime_session import session
from hqc.ir.operators import BipolarQuant, Quant

#: Rearrangements of elements that a quantised constant may go through.
_MOVES = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
#: By operator: from which input on there are parameters.
_PARAMETERS = {
    **dict.fromkeys(("Quant", "BipolarQuant", "MultiThreshold", "Trunc", "FloatQuant"), 1),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), 1),
}


def evaluate(model: Model, value: Value | None) -> Array | None:
    """The array of an expression of constants, as onnxruntime computes it; None for any other.

    Raises:
        HqcError: HQC102, onnxruntime cannot compute it.
    """
    if value is None or (array := constant(value)) is not None:
        return None if value is None else array
    found: list[Node] = []
    pending = [value]
    while pending:
        node = pending.pop().producer()
        if node is None or not is_known(node, model) or node.domain or len(node.outputs) != 1:
            return None
        if node in found:
            found.remove(node)
        found.append(node)
        pending += [v for v in node.inputs if v is not None and constant(v) is None]
    return _run(model, found[::-1], value)


def _run(model: Model, cone: list[Node], value: Value) -> Array:
    graph = onnx.GraphProto(name="constants")
    leaves: dict[str, Value] = {}
    for node in cone:
        graph.node.append(onnx_ir.serde.serialize_node(node))
        for leaf in node.inputs:
            if leaf is not None and leaf.producer() is None:
                leaves[str(leaf.name)] = leaf
    for leaf in leaves.values():
        assert leaf.const_value is not None
        graph.initializer.append(onnx_ir.serde.serialize_tensor(leaf.const_value))
        graph.initializer[-1].name = str(leaf.name)
    graph.output.append(onnx.ValueInfoProto(name=str(value.name)))
    try:
        opset = model.opset_imports.get("", 18)
        if "int4" in session(graph, opset).get_outputs()[0].type:  # numpy has no such type
            widened = onnx.helper.make_node(
                "Cast", [graph.output[0].name], ["widened"], to=onnx.TensorProto.INT8
            )
            graph.node.append(widened)
            graph.output[0].name = "widened"
        return np.asarray(session(graph, opset).run(None, {})[0])
    except Exception as error:  # onnxruntime's errors have no common base
        raise reject(
            "HQC102",
            f"onnxruntime cannot compute the constant {value.name}",
            where=location_of(cone[-1]),
            notes=(str(error).strip()[:300],),
        ) from error


def fold_parameters(model: Model) -> None:
    """Make constants of the scales, zero points and widths that quantisers compute from some."""
    for node in nodes(model.graph):
        first = _PARAMETERS.get(node.op_type)
        if first is None or node.domain not in ("", QONNX, "com.microsoft"):
            continue
        for index in range(first, len(node.inputs)):
            value = node.inputs[index]
            if value is None or value.is_initializer() or not exact_values_known(value):
                continue
            array = evaluate(model, value)
            if array is not None:
                folded = add_constant(model.graph, f"{value.name}__folded", array)
                node.replace_input_with(index, folded)


def move_constants(model: Model) -> None:
    """Rearrange the data and the scales of quantised constants instead of their values."""
    for node in nodes(model.graph):
        if node.op_type not in _MOVES or node.domain or node.outputs[0].is_graph_output():
            continue
        source = node.inputs[0]
        maker = source.producer() if source is not None else None
        if maker is None or not (Quant.matches(maker) or BipolarQuant.matches(maker)):
            continue
        data = constant(maker.inputs[0])
        if data is not None and all(constant(v) is not None for v in node.inputs[1:] if v):
            _move(model, node, maker, data)


def _move(model: Model, node: Node, maker: Node, data: Array) -> None:
    graph, name = model.graph, str(node.outputs[0].name)
    values = add_constant(graph, f"{name}_values", _moved(model, node, data, data.shape))
    view = Quant.read(maker) if Quant.matches(maker) else BipolarQuant.read(maker)
    parameters = {"scale": _moved(model, node, view.scale, data.shape)}
    if isinstance(view, Quant):
        parameters["zero_point"] = _moved(model, node, view.zero_point, data.shape)
    out = node.outputs[0]
    made = replace(view, **parameters).build(graph, values, name)
    set_source(made, str(location_of(maker).source or maker.name))
    made.outputs[0].shape = onnx_ir.Shape(values.shape or ())
    swap(node, [made])
    made.outputs[0].name = name
    assert out.producer() is None or not out.uses()


def _moved(model: Model, node: Node, parameter: Array, shape: tuple[int, ...]) -> Any:
    """A parameter of a tensor after the node, as small as broadcasting allows."""
    if parameter.size == 1 and parameter.shape != shape:
        return parameter.reshape(())
    graph = onnx.GraphProto(name="move")
    graph.node.append(onnx_ir.serde.serialize_node(node))
    names = [str(v.name) if v is not None else "" for v in node.inputs]
    full = np.ascontiguousarray(np.broadcast_to(parameter, shape))
    arrays = {names[0]: full}
    for key, value in zip(names[1:], node.inputs[1:], strict=True):
        if value is not None:
            arrays[key] = np.asarray(constant(value))
    for key, array in arrays.items():
        graph.initializer.append(onnx.numpy_helper.from_array(array, key))
    graph.output.append(onnx.ValueInfoProto(name=str(node.outputs[0].name)))
    moved = np.asarray(session(graph, model.opset_imports.get("", 18)).run(None, {})[0])
    if parameter.shape == shape and math.prod(shape) == parameter.size:
        return moved
    for axis in range(moved.ndim):
        first = moved.take([0], axis)
        if np.array_equal(np.broadcast_to(first, moved.shape), moved):
            moved = first
    return moved
