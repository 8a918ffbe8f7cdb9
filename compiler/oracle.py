"""The float32 oracle: qonnx's own executor on a saved state, independent of hqc's arithmetic."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir
from onnx_ir import Model

from hqc.ir import Array


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
    proto = with_batch(onnx_ir.serde.serialize_model(model), batch)
    feeds = {name: np.asarray(x, np.float32) for name, x in inputs.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context = execute_onnx(ModelWrapper(proto), feeds, return_full_exec_context=intermediates)
    return dict(context)


def with_batch(proto: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The same model with the symbolic batch replaced by a number, as qonnx's executor wants it."""
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].HasField("dim_param"):
            dims[0].dim_value = batch
    return proto
