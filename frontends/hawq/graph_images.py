"""Convolutions and pooling of a HAWQ network as nodes on integer codes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hqc.frontends.hawq import fixed_point as fp
from hqc.frontends.hawq.graph_nodes import Flow, Nodes
from hqc.frontends.hawq.network import Layer, Step
from hqc.numerics.types import Codes, Rounding

#: Sums under an average pooling that are compared one by one are no more than this.
_MAX_SUMS = 1 << 22


def convolution(
    nodes: Nodes, step: Step, layer: Layer, x: Flow, pre: fp.Single, shape: tuple[int, ...]
) -> Flow:
    """`Conv` of integer weights, and `Add` of the integer bias.

    Args:
        nodes: where they are appended.
        step: window and groups.
        layer: the weights.
        x: codes (N, C, rows, columns).
        pre: scale of x.
        shape: of the result: channels, rows, columns.
    """
    name, weight, bias = step.name, layer.weight_codes, layer.bias_codes(pre)
    w = nodes.constant(f"{name}.weight_integer", weight, layer.bits)
    attributes = {**_window(step), "group": step.groups}
    sums = nodes.node("Conv", (x.value, w), f"{name}/Conv", name, shape, attributes)
    b = nodes.constant(f"{name}.bias_integer", bias.reshape(-1, 1, 1), layer.bias_bits)
    total = nodes.node("Add", (sums, b), f"{name}/Add", name)
    lo, hi = bounds(weight, x, step)
    return Flow(total, lo + bias, hi + bias, layer.sum_scale(pre))


def bounds(weight: Codes, x: Flow, step: Step) -> tuple[Codes, Codes]:
    """Least and largest sum of each output channel (out,); padding counts as codes 0."""
    lo, hi = _padded(x, step)
    each, out = weight.shape[1], len(weight) // step.groups
    up, down = (f(weight, 0).sum(axis=(2, 3)) for f in (np.maximum, np.minimum))
    inputs = np.arange(len(weight))[:, None] // out * each + np.arange(each)
    least = (up * lo[inputs] + down * hi[inputs]).sum(axis=1)
    return least, (up * hi[inputs] + down * lo[inputs]).sum(axis=1)


def max_pool(nodes: Nodes, step: Step, x: Flow, name: str, shape: tuple[int, ...]) -> Flow:
    """`MaxPool`, on the grid of its input."""
    value = nodes.node("MaxPool", (x.value,), name, name, shape, _window(step))
    return Flow(value, x.lo, x.hi, x.unit)


def average_pool(
    nodes: Nodes,
    step: Step,
    x: Flow,
    name: str,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
) -> Flow | None:
    """`AveragePool`, a small offset, and a quantiser that drops the fraction; None: no such form.

    HAWQ adds 0.01 to an average before it truncates. An average of n codes is a multiple of 1/n,
    so that a power of two below 1/n does the same, away from all ties, as long as n is below 100;
    which of the two it is, is decided by comparing all sums that n codes can have.

    Args:
        nodes: where they are appended.
        step: the window.
        x: codes (N, C, rows, columns).
        name: of the last node.
        shapes: of the codes and of the result: channels, rows, columns.
    """
    count = math.prod(step.window["kernel"]) if step.window else math.prod(shapes[0][1:])
    lo, hi = _padded(x, step)
    least, most = int(lo.min()) * count, int(hi.max()) * count
    if most - least > _MAX_SUMS:
        return None
    offset = _offset(np.arange(least, most + 1), count)
    if offset is None:
        return None
    op, attributes = "GlobalAveragePool", None
    if step.window:
        op, attributes = "AveragePool", {**_window(step), "count_include_pad": 1}
        attributes.pop("dilations")
    mean = nodes.node(op, (x.value,), f"{name}/{op}", name, shapes[1], attributes)
    moved = nodes.offset(mean, np.float32(offset), f"{name}/Add")
    lo, hi = (fp.average(end.astype(np.float64)) for end in (lo, hi))
    signed = bool(np.any(lo < 0))
    bits = max(1, int(max(hi.max(), -1 - lo.min())).bit_length()) + signed
    mode = Rounding.DOWN if signed else Rounding.FLOOR
    return Flow(nodes.quant(moved, name, bits, signed, mode), lo, hi, x.unit)


def _offset(sums: Codes, count: int) -> float | None:
    """What to add to averages before truncation, so that all sums give HAWQ's codes."""
    want = fp.average(sums / count)
    power = 2.0 ** -math.ceil(math.log2(2 * count))
    for offset in (power, float(fp.AVERAGE_EPSILON)):
        top, bottom = offset.as_integer_ratio()
        scaled = sums * bottom + top * count  # over count * bottom, exactly
        whole = np.sign(scaled) * (np.abs(scaled) // (count * bottom))
        if np.array_equal(whole, want):
            return offset
    return None


def _padded(x: Flow, step: Step) -> tuple[Codes, Codes]:
    if not step.window or not any(step.window["padding"]):
        return x.lo, x.hi
    return np.minimum(x.lo, 0), np.maximum(x.hi, 0)


def _window(step: Step) -> dict[str, Any]:
    pads = list(step.window["padding"])
    return {
        "kernel_shape": list(step.window["kernel"]),
        "strides": list(step.window["stride"]),
        "pads": pads + pads,
        "dilations": list(step.window["dilation"]),
    }
