"""How much work a model is, and so how many samples of it are run where exactness is checked."""

from __future__ import annotations

import math

from onnx_ir import Model, Node, Value

from hqc.analysis.partition import is_linear

#: Multiplications that one exact run of all samples may take: some ten seconds.
WORK = 1 << 33
#: Numbers that one exact run may hold, all intermediate results together: a gigabyte.
HELD = 1 << 27
#: So many samples are run even of the largest models.
FEWEST = 4


def affordable(model: Model, wanted: int) -> int:
    """How many samples of a model to run exactly, where `wanted` would be nice to have."""
    numbers = sum(_elements(node.outputs[0]) for node in model.graph)
    most = min(WORK // max(1, multiplications(model)), HELD // max(1, numbers))
    return min(wanted, max(FEWEST, most))


def multiplications(model: Model) -> int:
    """Products per sample in linear layers."""
    return sum(_products(node) for node in model.graph if is_linear(node))


def _products(node: Node) -> int:
    weight, out = node.inputs[1], node.outputs[0]
    dims = [d for d in (weight.shape or ()) if isinstance(d, int)] if weight is not None else []
    if node.op_type == "MatMul":
        return _elements(out) * (dims[0] if dims else 1)
    over = node.inputs[0] if node.op_type == "ConvTranspose" else out
    return _elements(over) * math.prod(dims[1:])


def _elements(value: Value | None) -> int:
    """Numbers per sample, as far as the shape is known."""
    shape = value.shape if value is not None else None
    return math.prod(d for d in tuple(shape or ())[1:] if isinstance(d, int))
