"""Changes of a graph that must change nothing: the compiled results are equal bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

Change = Callable[[onnx.ModelProto, np.random.Generator], onnx.ModelProto | None]


def quantised_twice(proto: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Every Quant of a computed value is followed by itself: what lies on its grid stays."""
    changed = copy.deepcopy(proto)
    constants = {i.name for i in changed.graph.initializer}
    for node in tuple(changed.graph.node):
        if node.op_type in ("Quant", "BipolarQuant") and node.input[0] not in constants:
            again = copy.deepcopy(node)
            again.name += "_again"
            again.input[0] = node.output[0] = f"{node.output[0]}_once"
            _insert(changed.graph, again, node)
    return changed


def scaled_back_and_forth(
    proto: onnx.ModelProto, rng: np.random.Generator
) -> onnx.ModelProto | None:
    """A value times 2**k, then times 2**-k."""
    changed = copy.deepcopy(proto)
    node = _some_quantised(changed, rng)
    if node is None:
        return None
    factor = 2.0 ** int(rng.integers(-3, 4))
    name = node.output[0]
    node.output[0] = f"{name}_plain"
    steps = [(f"{name}_plain", f"{name}_far", factor), (f"{name}_far", name, 1 / factor)]
    for source, target, number in reversed(steps):
        constant = _constant(changed.graph, np.float32(number), f"{target}_factor")
        _insert(changed.graph, helper.make_node("Mul", [source, constant], [target]), node)
    return changed


def weights_rescaled(proto: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto | None:
    """Weights and their scale times 2**k, and the layer's result times 2**-k."""
    changed = copy.deepcopy(proto)
    constants = {i.name: i for i in changed.graph.initializer}
    producers = {n.output[0]: n for n in changed.graph.node}
    layers = [
        (layer, quant)
        for layer in changed.graph.node
        if layer.op_type in ("MatMul", "Conv", "ConvTranspose") and len(layer.input) == 2
        if (quant := producers.get(layer.input[1])) is not None
        if quant.op_type == "Quant" and quant.input[0] in constants
    ]
    if not layers:
        return None
    layer, quant = layers[int(rng.integers(len(layers)))]
    factor = np.float32(2.0 ** int(rng.integers(-3, 4)))
    quant = _own_copy(changed.graph, layer, quant)
    for position in (0, 1):
        value = numpy_helper.to_array(constants[quant.input[position]]) * factor
        quant.input[position] = _constant(changed.graph, value, f"{quant.name}_{position}")
    name = layer.output[0]
    layer.output[0] = f"{name}_large"
    back = _constant(changed.graph, 1 / factor, f"{name}_back")
    _insert(changed.graph, helper.make_node("Mul", [f"{name}_large", back], [name]), layer)
    return changed


def channels_permuted_and_back(
    proto: onnx.ModelProto, rng: np.random.Generator
) -> onnx.ModelProto | None:
    """Channels of a quantised value in another order, and in the old one again."""
    changed = copy.deepcopy(proto)
    node = _some_quantised(changed, rng)
    channels = _channels(changed, node.output[0]) if node is not None else None
    if node is None or channels is None:
        return None
    order = rng.permutation(channels)
    name = node.output[0]
    node.output[0] = f"{name}_plain"
    moves = [
        (f"{name}_plain", f"{name}_mixed", order),
        (f"{name}_mixed", name, np.argsort(order)),
    ]
    for source, target, index in reversed(moves):
        constant = _constant(changed.graph, np.int64(index), f"{target}_order")
        gather = helper.make_node("Gather", [source, constant], [target], axis=1)
        _insert(changed.graph, gather, node)
    return changed


def layer_permuted(proto: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto | None:
    """Output channels of a layer in another order, brought back by a gather behind it."""
    changed = copy.deepcopy(proto)
    constants = {i.name: i for i in changed.graph.initializer}
    producers = {n.output[0]: n for n in changed.graph.node}
    layers = []
    for layer in changed.graph.node:
        grouped = any(a.name == "group" and a.i > 1 for a in layer.attribute)
        quant = producers.get(layer.input[1]) if len(layer.input) == 2 else None
        direct = quant is not None and quant.input[0] in constants
        if layer.op_type in ("Conv", "MatMul") and direct and not grouped:
            layers.append((layer, quant))
    if not layers:
        return None
    layer, quant = layers[int(rng.integers(len(layers)))]
    axis = 0 if layer.op_type == "Conv" else 1
    weights = numpy_helper.to_array(constants[quant.input[0]])
    order = rng.permutation(weights.shape[axis])
    quant = _own_copy(changed.graph, layer, quant)
    for position, old in enumerate(tuple(quant.input)):
        value = numpy_helper.to_array(constants[old])
        varies = value.ndim == weights.ndim and value.shape[axis] > 1
        if position == 0 or varies:
            value = np.take(value, order, axis=axis)
            quant.input[position] = _constant(changed.graph, value, f"{quant.name}_{position}")
    name = layer.output[0]
    rank_last = layer.op_type == "MatMul"  # features are the last axis there
    layer.output[0] = f"{name}_mixed"
    constant = _constant(changed.graph, np.argsort(order), f"{name}_order")
    gather = helper.make_node(
        "Gather", [f"{name}_mixed", constant], [name], axis=-1 if rank_last else 1
    )
    _insert(changed.graph, gather, layer)
    return changed


CHANGES: tuple[Change, ...] = (
    quantised_twice,
    scaled_back_and_forth,
    weights_rescaled,
    channels_permuted_and_back,
    layer_permuted,
)


def _some_quantised(proto: onnx.ModelProto, rng: np.random.Generator) -> onnx.NodeProto | None:
    """A quantiser of a computed value that is no output of the graph."""
    constants = {i.name for i in proto.graph.initializer}
    outputs = {o.name for o in proto.graph.output}
    found = [
        n
        for n in proto.graph.node
        if n.op_type in ("Quant", "BipolarQuant", "MultiThreshold")
        if n.input[0] not in constants and n.output[0] not in outputs
    ]
    return found[int(rng.integers(len(found)))] if found else None


def _channels(proto: onnx.ModelProto, name: str) -> int | None:
    """Elements along axis 1 of a value, as ONNX infers them past quantisers."""
    plain = copy.deepcopy(proto)
    for node in plain.graph.node:
        if node.domain:
            node.op_type, node.domain = "Identity", ""
            del node.input[1:], node.attribute[:]
    inferred = onnx.shape_inference.infer_shapes(plain)
    for value in inferred.graph.value_info:
        if value.name == name and len(value.type.tensor_type.shape.dim) > 1:
            return int(value.type.tensor_type.shape.dim[1].dim_value) or None
    return None


def _own_copy(
    graph: onnx.GraphProto, layer: onnx.NodeProto, quant: onnx.NodeProto
) -> onnx.NodeProto:
    """A copy of the weights' quantiser that only this layer reads."""
    own = copy.deepcopy(quant)
    own.name, own.output[0] = f"{quant.name}_own", f"{quant.output[0]}_own"
    graph.node.insert(list(graph.node).index(layer), own)
    layer.input[1] = own.output[0]
    return next(n for n in graph.node if n.output[0] == own.output[0])


def _constant(graph: onnx.GraphProto, value: np.ndarray, name: str) -> str:  # type: ignore[type-arg]
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def _insert(graph: onnx.GraphProto, new: onnx.NodeProto, after: onnx.NodeProto) -> None:
    position = next(i for i, n in enumerate(graph.node) if n.output == after.output)
    graph.node.insert(position + 1, new)
