"""What qonnx's executor makes of a model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir

from hqc import ir

Array = np.ndarray[Any, Any]


def qonnx_values(model: onnx_ir.Model, x: Array, names: Sequence[str]) -> dict[str, Array]:
    """Named tensors of a model with one input, run node by node on the saved file."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx

    proto = onnx.load_from_string(ir.to_bytes(model))
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = len(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = {str(model.graph.inputs[0].name): x}
        found = execute_onnx(ModelWrapper(proto), inputs, return_full_exec_context=True)
    return {name: found[name] for name in names}


def qonnx_run(model: onnx_ir.Model, x: Array) -> Array:
    """The first output."""
    name = str(model.graph.outputs[0].name)
    return qonnx_values(model, x, [name])[name]
