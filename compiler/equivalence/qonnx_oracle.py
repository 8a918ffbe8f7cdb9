"""The float32 oracle: qonnx's own executor on a saved state, independent of hqc's arithmetic."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir
from onnx_ir import Model, Node

from hqc.execution.im2col import unfold
from hqc.ir import Array, constant
from hqc.ir.windows import Window

#: What `hqc.operators` reads where a node says nothing. qonnx does not look at the out_dtype.
_DEFAULTS: Mapping[str, Mapping[str, int | str]] = {
    "Quant": {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"},
    "MultiThreshold": {"out_dtype": "FLOAT32"},
}


def run_qonnx(
    model: Model, inputs: Mapping[str, Array], *, intermediates: bool = False
) -> dict[str, Array]:
    """Outputs of qonnx's executor, in float32, for a whole batch at once.

    Args:
        model: any state of the IR; the batch axis is free.
        inputs: float arrays (N, ...) by input name.
        intermediates: return every tensor of the graph, not only the outputs.
    """
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx

    batch = len(next(iter(inputs.values())))
    proto = with_batch(_spelt_out(_without_wide_convolutions(model)), batch)
    feeds = {name: np.asarray(x, np.float32) for name, x in inputs.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context = execute_onnx(ModelWrapper(proto), feeds, return_full_exec_context=intermediates)
    return dict(context)


def _without_wide_convolutions(model: Model) -> onnx.ModelProto:
    """The model, its float64 convolutions as the matrix products that they are."""
    proto = onnx_ir.serde.serialize_model(model)
    wide = {n.outputs[0].name: n for n in model.graph if n.op_type == "Conv" and _is_wide(n)}
    if not wide:
        return proto
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    for node in nodes:
        original = wide.get(node.output[0])
        weights = constant(original.inputs[1]) if original is not None else None
        if original is None or weights is None:
            proto.graph.node.append(node)
            continue
        group = Window.of(original).group
        made, constants = unfold(original, node.output[0], node.input[0], weights, group)
        proto.graph.node.extend(made)
        proto.graph.initializer.extend(constants)
    return onnx.shape_inference.infer_shapes(proto)


def _spelt_out(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the defaults of quantisers as attributes: qonnx's executor wants them all."""
    for node in proto.graph.node:
        given = {attribute.name for attribute in node.attribute}
        for name, default in _DEFAULTS.get(node.op_type, {}).items() if node.domain else ():
            if name not in given:
                node.attribute.append(onnx.helper.make_attribute(name, default))
    return proto


def _is_wide(node: Node) -> bool:
    return node.outputs[0].dtype == onnx_ir.DataType.DOUBLE


def with_batch(proto: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The same model with the symbolic batch replaced by a number, as qonnx's executor wants it."""
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].HasField("dim_param"):
            dims[0].dim_value = batch
    return proto
