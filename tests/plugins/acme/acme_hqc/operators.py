"""What our operators mean, in operators that hqc knows."""

from __future__ import annotations

from onnx_ir import Node, Value

from hqc.diagnostics import reject
from hqc.ir import location_of
from hqc.pipeline import Builder


def ternary(node: Node, new: Builder) -> Value:
    """`scale * clip(round(x / scale), -1, 1)`, ties to even: a narrow quantiser of two bits."""
    scale = node.attributes["scale"].as_float()
    if scale <= 0:
        raise reject("HQC106", f"Ternary of scale {scale:g}", where=location_of(node))
    parameters = scale, 0.0, 2.0
    mode = "ROUND"
    x = node.inputs[0]
    return new.op("qonnx.Quant", x, *parameters, signed=1, narrow=1, rounding_mode=mode)


def ternary_dense(node: Node, new: Builder) -> Value:
    """`x @ Ternary(w)`; what it is written in may be of our own domain again."""
    x, weight = node.inputs
    scale = node.attributes["scale"].as_float()
    return new.op("MatMul", x, new.op("acme.Ternary", weight, scale=scale))
