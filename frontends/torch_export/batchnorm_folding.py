"""Fold batch norms of a *float* model into the weights beside them, before it is quantised.

After quantisation this would leave the grid of the weights, and belongs to the requantisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Graph, Model, Node, Value

from hqc.ir import Array, add_constant, bypass, constant, make_node, nodes, sole_consumer
from hqc.ir.edits import put_behind

_BY = "quantize"
_LINEAR = ("MatMul", "Gemm", "Conv", "ConvTranspose")


@dataclass(frozen=True)
class Linear:
    """A linear node with constant weights: `MatMul`, `Gemm`, `Conv`, or `ConvTranspose`.

    Attributes:
        node: the node; its first input is the data.
        weight: the weights as stored.
        out_axis: the axis of `weight` that is the output channel.
    """

    node: Node
    weight: Array
    out_axis: int

    @classmethod
    def of(cls, node: Node | None) -> Linear | None:
        """View a node, or None if it is something else."""
        if node is None or node.domain or node.op_type not in _LINEAR:
            return None
        if len(node.inputs) < 2 or constant(node.inputs[0]) is not None:
            return None
        weight = constant(node.inputs[1])
        if weight is None or weight.ndim < 2:
            return None
        if node.op_type == "Gemm" and (_flag(node, "alpha", 1.0) != 1 or _flag(node, "transA", 0)):
            return None
        if node.op_type == "ConvTranspose" and _flag(node, "group", 1) != 1:
            return None  # groups share the axis of the output channels
        axis = 1
        if node.op_type == "Conv" or (node.op_type == "Gemm" and _flag(node, "transB", 0)):
            axis = 0
        return cls(node, weight, weight.ndim - 1 if node.op_type == "MatMul" else axis)

    def along(self, vector: Array, axis: int | None = None) -> Array:
        """A vector shaped to broadcast along the output channels, or another axis."""
        shape = [1] * self.weight.ndim
        shape[self.out_axis if axis is None else axis] = vector.size
        return vector.reshape(shape)


def _flag(node: Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.value)


def fold_batch_norms(model: Model) -> int:
    """Fold each batch norm that follows, or directly precedes, a linear node; how many were."""
    done = 0
    for node in nodes(model.graph):
        if node.op_type == "BatchNormalization" and not node.domain:
            done += _into_previous(model.graph, node) or _into_next(model.graph, node)
    return done


def _affine(norm: Node) -> tuple[Array, Array] | None:
    """Factor and offset per channel, in float64."""
    parameters = [constant(value) for value in norm.inputs[1:5]]
    if any(p is None for p in parameters):
        return None
    gamma, beta, mean, var = (np.asarray(p, np.float64) for p in parameters)
    factor = gamma / np.sqrt(var + _flag(norm, "epsilon", 1e-5))
    return factor, beta - mean * factor


def _into_previous(graph: Graph, norm: Node) -> bool:
    source = norm.inputs[0]
    affine = _affine(norm)
    before = source.producer() if source is not None else None
    if source is None or affine is None or before is None or sole_consumer(source) is not norm:
        return False
    add, bias = None, np.zeros_like(affine[0])
    if before.op_type == "Add" and (found := _added_constant(before)) is not None:
        value, given = found
        if given.size not in (1, affine[0].size):
            return False
        add, bias = before, np.asarray(given, np.float64).reshape(-1) * np.ones_like(affine[0])
        before = value.producer() if sole_consumer(value) is add else None
    linear = Linear.of(before)
    if linear is None:
        return False
    own = constant(linear.node.inputs[2]) if len(linear.node.inputs) > 2 else None
    if own is not None:
        bias = bias + np.asarray(own, np.float64).reshape(-1) * _flag(linear.node, "beta", 1.0)
    factor, offset = affine
    _replace(graph, linear, linear.weight * linear.along(factor), bias * factor + offset, add)
    bypass(norm)
    return True


def _into_next(graph: Graph, norm: Node) -> bool:
    after = sole_consumer(norm.outputs[0])
    linear = Linear.of(after)
    affine = _affine(norm)
    if linear is None or affine is None or "Conv" in linear.node.op_type or linear.weight.ndim != 2:
        return False
    factor, offset = affine
    weight = np.asarray(linear.weight, np.float64)
    in_axis = 1 - linear.out_axis
    if weight.shape[in_axis] != factor.size:
        return False
    bias = (weight * linear.along(offset, in_axis)).sum(axis=in_axis)
    own = constant(linear.node.inputs[2]) if len(linear.node.inputs) > 2 else None
    if own is not None:
        bias = bias + np.asarray(own, np.float64).reshape(-1) * _flag(linear.node, "beta", 1.0)
    _replace(graph, linear, weight * linear.along(factor, in_axis), bias, None)
    bypass(norm)
    return True


def _added_constant(add: Node) -> tuple[Value, Array] | None:
    for i in (0, 1):
        value, array = add.inputs[1 - i], constant(add.inputs[i])
        if array is not None and value is not None:
            return value, array
    return None


def _replace(graph: Graph, linear: Linear, weight: Array, bias: Array, add: Node | None) -> None:
    """New weights and bias: in the node's own bias input, the `Add` after it, or a new one."""
    node = linear.node
    old = node.inputs[1]
    assert old is not None
    node.replace_input_with(1, add_constant(graph, f"{old.name}_folded", weight.astype(np.float32)))
    name = f"{node.name or node.outputs[0].name}_folded_bias"
    value = add_constant(graph, name, bias.astype(np.float32))
    if add is not None:
        data = next(v for v in add.inputs if v is not None and constant(v) is None)
        if node.op_type != "MatMul" and len(node.inputs) > 2:
            node.resize_inputs(2)
        add.replace_input_with(0, data)
        add.replace_input_with(1, value)
    elif node.op_type != "MatMul":
        node.resize_inputs(3)
        node.replace_input_with(2, value)
        node.attributes.pop("beta", None)
    else:
        out = node.outputs[0]
        made = make_node("Add", (out, value), like=out, name=f"{node.name or out.name}_add")
        put_behind(node, made, _BY)
