"""Elementwise operators in front of rearrangements that mix channels.

Behind a transpose to channels-last, each index of axis 1 holds elements of every channel, so scales
and offsets per channel have no place there. What works element by element gives the same numbers
on either side, and in front of the transpose it meets one channel at a time.
"""

from __future__ import annotations

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from hqc.analysis.rearrangements import is_movement, movement
from hqc.analysis.semantics import data_input
from hqc.ir import add_constant, bypass, constant, derive, make_node, nodes, sole_consumer
from hqc.ir.operators import BipolarQuant, Quant

_UNARY = frozenset({"Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh"})
_BINARY = frozenset({"Add", "Sub", "Mul", "Div"})
_BY = "normalize"


def hoist_elementwise(model: Model) -> int:
    """Move elementwise operators across rearrangements that mix channels; how many moved."""
    moved = 0
    for node in nodes(model.graph):
        while (before := _crossed(node)) is not None:
            node = _hoist(model, node, before)
            moved += 1
    if moved:
        model.graph.sort()  # constant operands may have stood behind the rearrangement
    return moved


def _crossed(node: Node) -> Node | None:
    """The rearrangement in front of an elementwise node, where the node may go in front of it."""
    source = data_input(node) if _is_elementwise(node) else None
    before = source.producer() if source is not None else None
    if source is None or before is None or not is_movement(before):
        return None
    if sole_consumer(source) is not node:
        return None
    found = movement(before)
    if len(found.sources) != 1 or found.sources[0].producer() is None or np.any(found.index < 0):
        return None
    channels = found.channels()
    mixes = channels is not None and any(len(row) > 1 for row in channels)
    operands = [v for v in node.inputs if v is not None and v is not source]
    movable = all(_is_single(v) for v in operands) or (
        before.op_type == "Transpose" and node.op_type in _BINARY
    )
    return before if mixes and movable else None


def _is_elementwise(node: Node) -> bool:
    if Quant.matches(node):
        quant = Quant.read(node)
        return quant.scale.size == quant.zero_point.size == 1
    if BipolarQuant.matches(node):
        return bool(BipolarQuant.read(node).scale.size == 1)
    return node.domain == "" and node.op_type in _UNARY | _BINARY


def _is_single(value: Value) -> bool:
    return value.shape is not None and all(d == 1 for d in value.shape)


def _hoist(model: Model, node: Node, before: Node) -> Node:
    """Put the node in front; the new one."""
    (source,) = movement(before).sources
    moving = data_input(node)
    graph = model.graph
    new: list[Node] = []
    inputs: list[Value | None] = []
    for value in node.inputs:
        if value is None or value is moving or _is_single(value):
            inputs.append(source if value is moving else _number(model, value))
        else:
            new += _transposed(model, value, before)
            inputs.append(new[-1].outputs[0])
    new.append(
        make_node(
            node.op_type,
            inputs,
            like=source,
            name=f"{node.name}_hoisted",
            attributes=dict(node.attributes),
            domain=node.domain,
        )
    )
    derive(new, node, _BY)
    graph.insert_before(before, new)
    index = next(i for i, v in enumerate(before.inputs) if v is source)
    before.replace_input_with(index, new[-1].outputs[0])
    node.replace_input_with(0, moving)  # what passes through stands second in `2 * x`
    bypass(node)
    return new[-1]


def _number(model: Model, value: Value | None) -> Value | None:
    """A constant of one element without its axes: in front there may be fewer."""
    array = constant(value)
    if value is None or array is None or array.ndim == 0:
        return value
    return add_constant(model.graph, f"{value.name}_number", array.reshape(()))


def _transposed(model: Model, value: Value, transpose: Node) -> tuple[Node, Node]:
    """A constant operand, turned back to how elements lie in front of a Transpose."""
    order = transpose.attributes["perm"].as_ints()
    dims = tuple(d for d in value.shape or () if isinstance(d, int))
    full = (1,) * (len(order) - len(dims)) + dims
    shape = add_constant(model.graph, f"{value.name}_full", np.array(full, np.int64))
    reshape = make_node("Reshape", (value, shape), like=value, name=f"{value.name}_reshaped")
    reshape.outputs[0].shape = onnx_ir.Shape(full)
    back = [int(i) for i in np.argsort(order)]
    turned = make_node(
        "Transpose",
        (reshape.outputs[0],),
        like=value,
        name=f"{value.name}_turned",
        attributes={"perm": back},
    )
    turned.outputs[0].shape = onnx_ir.Shape([full[i] for i in back])
    return reshape, turned
