"""ATen operators on images and lines: convolutions, pooling, padding, upsampling."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from onnx_ir import Value
from torch import fx

from hqc.frontends.torch_export.translation import (
    Args,
    Builder,
    QuantisedConst,
    Translator,
    along_channels,
    node_value,
    refuse,
)
from hqc.ir import add_constant

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


def _sides(arg: Any) -> list[int]:
    """Sizes behind batch and channels; those are never dynamic."""
    return [int(n) for n in node_value(arg).shape[2:]]


def _each(given: Any, rank: int) -> list[int]:
    values = [int(v) for v in (given if isinstance(given, list | tuple) else [given])]
    return values * rank if len(values) == 1 else values


# --- convolutions ---


def _conv(b: Builder, node: fx.Node, a: Args) -> Value:
    kernel = _sides(a["weight"])
    rank = len(kernel)
    dilation = _each(a["dilation"], rank)
    before, after = _padding(a["padding"], kernel, dilation)
    attributes = {
        "kernel_shape": kernel,
        "strides": _each(a["stride"], rank),
        "pads": [*before, *after],
        "dilations": dilation,
        "group": int(a["groups"]),
    }
    op = "Conv"
    if a.get("transposed", "transposed" in str(node.target)):
        op, attributes["output_padding"] = "ConvTranspose", _each(a["output_padding"], rank)
    inputs = [b.value(a["input"]), b.value(a["weight"])]
    bias = b.find(a["bias"])
    if isinstance(bias, QuantisedConst):  # an operand of its own, as behind a linear layer
        sums = b.add(op, inputs, node, attributes=attributes)
        return b.add("Add", [sums, b.value_of(along_channels(bias, rank + 2))], node)
    if bias is not None:
        inputs.append(b.value(a["bias"]))
    return b.add(op, inputs, node, attributes=attributes)


def _conv_transpose(b: Builder, node: fx.Node, a: Args) -> Value:
    return _conv(b, node, {**a, "transposed": True})


def _padding(given: Any, kernel: list[int], dilation: list[int]) -> tuple[list[int], list[int]]:
    if given == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [t // 2 for t in total], [t - t // 2 for t in total]
    pads = [0] * len(kernel) if given == "valid" else _each(given, len(kernel))
    return pads, pads


# --- pooling ---


def _pool(op: str, rank: int, b: Builder, node: fx.Node, a: Args) -> Value:
    if a.get("divisor_override") is not None:
        raise refuse("HQC102", "pooling with a divisor of its own", node)
    kernel, pads = _each(a["kernel_size"], rank), _each(a["padding"], rank)
    strides = _each(a["stride"], rank) if a["stride"] else kernel
    dilation = _each(a.get("dilation", 1), rank)
    more = _beyond(node, a["self"], kernel, strides, pads, dilation)
    attributes: Args = {"kernel_shape": kernel, "strides": strides, "pads": [*pads, *more]}
    if op == "MaxPool":
        attributes["dilations"] = dilation
        return b.add(op, [b.value(a["self"])], node, attributes=attributes)
    if more != pads and a["count_include_pad"]:
        raise refuse(
            "HQC102",
            "an average pool with ceil_mode, in which only some padding counts",
            node,
            "set count_include_pad=False, or leave out ceil_mode",
        )
    attributes["count_include_pad"] = int(a["count_include_pad"])
    return b.add(op, [b.value(a["self"])], node, attributes=attributes)


def _beyond(node: fx.Node, source: Any, *window: list[int]) -> list[int]:
    """Padding at the ends: more than at the beginning where ceil_mode adds a window."""
    outputs = _sides(node)
    return [
        max(pad, (out - 1) * stride + dilation * (kernel - 1) + 1 - n - pad)
        for n, out, kernel, stride, pad, dilation in zip(
            _sides(source), outputs, *window, strict=True
        )
    ]


def _adaptive(op: str, b: Builder, node: fx.Node, a: Args) -> Any:
    """A pool whose windows divide the image evenly; the global one for a single window."""
    made = node_value(node)
    several = isinstance(made, tuple | list)
    outputs = [int(n) for n in (made[0] if several else made).shape[2:]]
    sizes = _sides(a["self"])
    if any(n % out for n, out in zip(sizes, outputs, strict=True)):
        raise refuse(
            "HQC102",
            f"adaptive pooling of {sizes} to {outputs}: windows of several sizes",
            node,
            "give output sizes that divide the input's",
        )
    shape = b.shape_like(made[0] if several else made, node)
    x = b.value(a["self"])
    if all(out == 1 for out in outputs):
        found = b.add(f"Global{op}", [x], node, shape=shape)
    else:
        kernel = [n // out for n, out in zip(sizes, outputs, strict=True)]
        attributes = {"kernel_shape": kernel, "strides": kernel}
        found = b.add(op, [x], node, attributes=attributes, shape=shape)
    return (found, None) if several else found


# --- sizes ---


def _pad(b: Builder, node: fx.Node, a: Args) -> Value:
    given = [int(p) for p in a["pad"]]
    rank, mode = len(node_value(node).shape), a.get("mode", "constant")
    if mode not in _PAD_MODES or len(given) // 2 >= rank:
        raise refuse("HQC102", f"padding with mode {mode}, or of the batch", node)
    pairs = list(zip(given[::2], given[1::2], strict=True))[::-1]
    pads = [(0, 0)] * (rank - len(pairs)) + pairs
    ends = np.array([*(p[0] for p in pads), *(p[1] for p in pads)], np.int64)
    inputs = [b.value(a["self"]), add_constant(b.graph, b.unique("pads"), ends)]
    if mode == "constant":
        fill = np.array(a.get("value") or 0.0, np.float32)
        inputs.append(add_constant(b.graph, b.unique("constant"), fill))
    return b.add("Pad", inputs, node, attributes={"mode": _PAD_MODES[mode]})


def _upsample(b: Builder, node: fx.Node, a: Args) -> Value:
    """Nearest neighbours: whole factors only, where every executor picks the same ones."""
    sizes, outputs = _sides(a.get("input", a.get("self"))), _sides(node)
    if any(out % n for n, out in zip(sizes, outputs, strict=True)):
        raise refuse("HQC102", f"upsampling of {sizes} to {outputs}", node, "use whole factors")
    factors = [1, 1, *(out // n for n, out in zip(sizes, outputs, strict=True))]
    scales = add_constant(b.graph, b.unique("scales"), np.array(factors, np.float32))
    attributes = {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    x = b.value(a.get("input", a.get("self")))
    return b.add("Resize", [x, None, scales], node, attributes=attributes)


def _pixel_shuffle(b: Builder, node: fx.Node, a: Args) -> Value:
    attributes = {"blocksize": int(a["upscale_factor"]), "mode": "CRD"}
    return b.add("DepthToSpace", [b.value(a["self"])], node, attributes=attributes)


_POOLS = {"max": "MaxPool", "avg": "AveragePool"}
#: What translates which ATen operators, by schema name, whatever the overload.
IMAGES: dict[Translator, str] = {
    _conv: "conv1d conv2d convolution",
    _conv_transpose: "conv_transpose1d conv_transpose2d",
    **{partial(_pool, op, n): f"{kind}_pool{n}d" for kind, op in _POOLS.items() for n in (1, 2)},
    **{
        partial(_adaptive, op): f"adaptive_{kind}_pool1d adaptive_{kind}_pool2d"
        for kind, op in _POOLS.items()
    },
    _pad: "pad constant_pad_nd",
    _upsample: "upsample_nearest1d upsample_nearest2d",
    _pixel_shuffle: "pixel_shuffle",
}
