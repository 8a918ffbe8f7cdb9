"""Convolutions in float64 as matrix products: onnxruntime's CPU provider has no float64 Conv."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx_ir import Node

from hqc.ir import Array
from hqc.ir.windows import Taps, spatial_shape


def unfold(
    node: Node, name: str, x: str, weights: Array, group: int
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """ONNX nodes and constants that compute a Conv from the tensor `x`; the last is called `name`.

    Args:
        node: the Conv, for its shapes and attributes.
        name: of the output; other names begin with it.
        x: name of the input, float64 (N, C, ...).
        weights: (n_out, C / group, *kernel).
        group: of the convolution.
    """
    taps = Taps.of(node)
    windows, kernel = taps.index.shape
    n_out, per_group = weights.shape[:2]
    channels = group * per_group
    last = math.prod(spatial_shape(node))
    matrix = weights.reshape(group, n_out // group, per_group * kernel).swapaxes(1, 2)
    constants: list[onnx.TensorProto] = []

    def constant(suffix: str, array: Array) -> str:
        found = numpy_helper.from_array(np.ascontiguousarray(array), f"{name}__{suffix}")
        constants.append(found)
        return str(found.name)

    def shape(suffix: str, *dims: int) -> str:
        return constant(suffix, np.array(dims, np.int64))

    index = np.where(taps.index < 0, last, taps.index)
    steps: tuple[tuple[str, str, tuple[str, ...], dict[str, Any]], ...] = (
        ("Reshape", "r", (x, shape("r0", 0, channels, -1)), {}),
        ("Pad", "p", (f"{name}__r", shape("p0", 0, 0, 0, 0, 0, 1)), {}),
        ("Gather", "g", (f"{name}__p", constant("g0", index)), {"axis": 2}),
        (
            "Reshape",
            "s",
            (f"{name}__g", shape("s0", -1, group, per_group, windows, kernel)),
            {},
        ),
        ("Transpose", "t", (f"{name}__s",), {"perm": [0, 1, 3, 2, 4]}),
        (
            "Reshape",
            "u",
            (f"{name}__t", shape("u0", -1, group, windows, per_group * kernel)),
            {},
        ),
        ("MatMul", "m", (f"{name}__u", constant("w", np.asarray(matrix, np.float64))), {}),
        ("Transpose", "b", (f"{name}__m",), {"perm": [0, 1, 3, 2]}),
        ("Reshape", "", (f"{name}__b", shape("v0", -1, n_out, *taps.shape)), {}),
    )
    nodes = [
        helper.make_node(op, inputs, [f"{name}__{suffix}" if suffix else name], **attributes)
        for op, suffix, inputs, attributes in steps
    ]
    return nodes, constants
