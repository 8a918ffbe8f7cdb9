"""Windows and rearrangements on int64 codes, written again in the plainest way."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir
from onnx.reference import ReferenceEvaluator
from onnx_ir import Node

from hqc.ir import constant
from hqc.numerics.types import Codes

_MOVEMENT = (
    *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Pad", "Reshape", "Resize"),
    *("Slice", "SpaceToDepth", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
)
OPERATORS = ("Conv", "MaxPool", *_MOVEMENT)


def evaluate(node: Node, sources: Sequence[Codes], fraction: int) -> Codes:
    """What the node makes of codes (N, ...); `fraction` is that of Conv's weight, else theirs."""
    if node.op_type == "Conv":
        weight = np.asarray(constant(node.inputs[1]), np.float64)
        return _conv(node, sources[0].astype(np.int64), np.ldexp(weight, fraction).astype(np.int64))
    if node.op_type == "MaxPool":
        return _max_pool(node, sources[0].astype(np.int64))
    return _movement(node, sources, fraction)


def _ints(node: Node, name: str, default: Sequence[int]) -> list[int]:
    attribute = node.attributes.get(name)
    return list(attribute.as_ints()) if attribute is not None else list(default)


def _flag(node: Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return attribute.as_int() if attribute is not None else default


def _windows(node: Node, x: Codes, kernel: Sequence[int], fill: int) -> tuple[Codes, list[int]]:
    """Padded input, and how many windows there are along each axis."""
    rank = len(kernel)
    pads = _ints(node, "pads", [0] * 2 * rank)
    strides, dilations = (_ints(node, n, [1] * rank) for n in ("strides", "dilations"))
    counts, extra = [], []
    for axis in range(rank):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        size = x.shape[2 + axis] + pads[axis] + pads[rank + axis]
        count = (size - reach) // strides[axis] + 1
        if _flag(node, "ceil_mode", 0) and (size - reach) % strides[axis]:
            begins = count * strides[axis]
            count += begins < x.shape[2 + axis] + pads[axis]
        counts.append(count)
        extra.append(max(0, (count - 1) * strides[axis] + reach - size))
    widths = [(pads[a], pads[rank + a] + extra[a]) for a in range(rank)]
    return np.pad(x, [(0, 0), (0, 0), *widths], constant_values=fill), counts


def _taps(node: Node, at: Sequence[int], kernel: Sequence[int]) -> tuple[slice, ...]:
    """The taps of the window at a position, in the padded input."""
    rank = len(kernel)
    strides, dilations = (_ints(node, n, [1] * rank) for n in ("strides", "dilations"))
    steps = zip(at, strides, dilations, kernel, strict=True)
    return tuple(slice(p * s, p * s + d * (k - 1) + 1, d) for p, s, d, k in steps)


def _conv(node: Node, x: Codes, weight: Codes) -> Codes:
    group = _flag(node, "group", 1)
    n_out, n_in, *kernel = weight.shape
    padded, counts = _windows(node, x, kernel, 0)
    out = np.zeros((len(x), n_out, *counts), np.int64)
    for at in itertools.product(*map(range, counts)):
        taps = _taps(node, at, kernel)
        for f in range(n_out):
            first = f // (n_out // group) * n_in
            window = padded[(slice(None), slice(first, first + n_in), *taps)]
            out[(slice(None), f, *at)] = (window * weight[f]).reshape(len(x), -1).sum(axis=1)
    return out


def _max_pool(node: Node, x: Codes) -> Codes:
    kernel = _ints(node, "kernel_shape", ())
    padded, counts = _windows(node, x, kernel, -(2**62))
    out = np.zeros((*x.shape[:2], *counts), np.int64)
    for at in itertools.product(*map(range, counts)):
        window = padded[(slice(None), slice(None), *_taps(node, at, kernel))]
        out[(slice(None), slice(None), *at)] = window.reshape(*x.shape[:2], -1).max(axis=2)
    return out


def _movement(node: Node, sources: Sequence[Codes], fraction: int) -> Codes:
    """ONNX's own reference implementation on codes as float64, the fill of a Pad scaled."""
    graph = onnx.GraphProto(name="movement")
    graph.node.append(onnx_ir.serde.serialize_node(node))
    feeds = {}
    remaining = list(sources)
    for position, value in enumerate(node.inputs):
        if value is None:
            continue
        name, array = str(value.name), constant(value)
        if name in feeds:
            remaining.pop(0)
            continue
        if array is None:
            feeds[name] = remaining.pop(0).astype(np.float64)
            graph.input.append(onnx.helper.make_tensor_value_info(name, 11, None))
            continue
        if node.op_type == "Pad" and position == 2:
            array = np.ldexp(array.astype(np.float64), fraction)
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    graph.output.append(onnx.ValueInfoProto(name=node.outputs[0].name))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    found = ReferenceEvaluator(model).run(None, feeds)[0]
    return np.rint(found).astype(np.int64)
