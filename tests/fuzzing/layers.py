"""Linear layers and poolings of random graphs; each takes a value on a grid."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from fuzzing.maker import Maker, Tensor


def linear(m: Maker, x: Tensor) -> Tensor:
    """A layer with weights that suits the shape, perhaps with a bias."""
    if len(x.shape) == 1:
        return _dense(m, x)
    if "transposed" in m.features and m.choose.chance(0.2):
        return _transposed(m, x)
    if len(x.shape) == 2 and m.choose.chance(0.3):
        return _steps(m, x)
    return _convolution(m, x) if "convolution" in m.features else pool(m, x)


def _grown(m: Maker, name: str, shape: tuple[int, ...], x: Tensor, fan_in: int) -> Tensor:
    return Tensor(name, shape, x.size * 0.5 * math.sqrt(max(1, fan_in)))


def _dense(m: Maker, x: Tensor) -> Tensor:
    n, out = x.channels, m.choose.between(1, 5)
    gemm = m.choose.chance(0.4)
    turned = m.choose.chance(0.4)
    shape = (out, n) if turned else (n, out)
    w = m.weight(m.choose.rng().normal(0, 0.5, shape), 0 if turned else 1)
    bias = [m.net.const(_bias(m, x, out))] if m.has("bias", 0.5) else []
    if gemm:
        more: dict[str, Any] = {"transB": int(turned)}
        if m.choose.chance(0.2):
            more["alpha"] = m.choose.pick(2.0, 0.75)
        if bias and m.choose.chance(0.2):
            more["beta"] = m.choose.pick(0.5, 3.0)
        return _grown(m, m.net.op("Gemm", x.name, w, *bias, **more), (out,), x, n)
    if turned:
        w = m.net.op("Transpose", w, perm=[1, 0])
    name = m.net.op("MatMul", x.name, w)
    if bias:
        name = m.net.op("Add", *(name, *bias)[:: m.choose.pick(1, -1)])
    return _grown(m, name, (out,), x, n)


def _steps(m: Maker, x: Tensor) -> Tensor:
    """(N, T, C) times (C, O)."""
    steps, n = x.shape
    out = m.choose.between(1, 4)
    w = m.weight(m.choose.rng().normal(0, 0.5, (n, out)), 1)
    return _grown(m, m.net.op("MatMul", x.name, w), (steps, out), x, n)


def _bias(m: Maker, x: Tensor, n: int) -> Any:
    values = m.choose.rng().normal(0, x.size, n)
    return np.round(values * 32) / 32 if m.choose.chance(0.5) else values


def _groups(m: Maker, channels: int, *, per_group: bool) -> tuple[int, int]:
    """A number of groups, and of output channels (of each group, where asked for that)."""
    group = m.choose.pick(1, 1, channels, 2 if channels % 2 == 0 else 1)
    each = m.choose.between(1, 2) if group > 1 else m.choose.between(1, 4)
    return group, each if per_group else each * group


def _kernel(m: Maker, spatial: tuple[int, ...]) -> list[int]:
    return [m.choose.between(1, min(3, n)) for n in spatial]


def _pads(m: Maker, kernel: list[int], probability: float = 0.5) -> list[int]:
    if not m.choose.chance(probability):
        return [0] * (2 * len(kernel))
    return [m.choose.between(0, k - 1) for k in (*kernel, *kernel)]


def _convolution(m: Maker, x: Tensor) -> Tensor:
    channels, *spatial = x.shape
    rank = len(spatial)
    group, out = _groups(m, channels, per_group=False)
    kernel = _kernel(m, tuple(spatial))
    strides = [m.choose.pick(1, 2) for _ in spatial]
    dilations = [1] * rank
    if m.choose.chance(0.2):
        dilations = [
            m.choose.pick(1, 2) if (k - 1) * 2 < n else 1
            for k, n in zip(kernel, spatial, strict=True)
        ]
    more: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "dilations": dilations}
    auto = m.choose.pick("VALID", "SAME_UPPER", "SAME_LOWER") if m.choose.chance(0.15) else ""
    if max(dilations) > 1 and auto:
        auto = "VALID"  # onnxruntime has no other with dilations
    pads = [0] * (2 * rank)
    if auto:
        more["auto_pad"] = auto
    else:
        pads = more["pads"] = _pads(m, kernel)
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    if auto.startswith("SAME"):
        sizes = [-(-n // s) for n, s in zip(spatial, strides, strict=True)]
    else:
        sizes = [
            (n + pads[i] + pads[rank + i] - reach[i]) // strides[i] + 1
            for i, n in enumerate(spatial)
        ]
    w = m.weight(m.choose.rng().normal(0, 0.5, (out, channels // group, *kernel)), 0)
    args = [x.name, w]
    if m.has("bias", 0.4):
        args.append(m.net.const(_bias(m, x, out)))
    if group > 1:
        more["group"] = group
    name = m.net.op("Conv", *args, **more)
    return _grown(m, name, (out, *sizes), x, channels // group * math.prod(kernel))


def _transposed(m: Maker, x: Tensor) -> Tensor:
    channels, *spatial = x.shape
    rank = len(spatial)
    group, per_group = _groups(m, channels, per_group=True)
    kernel = [m.choose.between(1, 3) for _ in spatial]
    strides = [m.choose.pick(1, 2) for _ in spatial]
    dilations = [m.choose.pick(1, 2) if m.choose.chance(0.15) else 1 for _ in spatial]
    extra = [m.choose.integer(s) if s > 1 else 0 for s in strides]
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    full = [(n - 1) * s + e + r for n, s, e, r in zip(spatial, strides, extra, reach, strict=True)]
    pads = [0] * (2 * rank)
    if m.choose.chance(0.4):
        pads = [min(1, (full[i % rank] - 1) // 2) * m.choose.integer(2) for i in range(2 * rank)]
    more: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    if any(extra):
        more["output_padding"] = extra
    if max(dilations) > 1:
        more["dilations"] = dilations
    if group > 1:
        more["group"] = group
    out = group * per_group
    w = m.weight(
        m.choose.rng().normal(0, 0.5, (channels, per_group, *kernel)),
        0 if group == channels > 1 and per_group == 1 else 1,
    )
    args = [x.name, w]
    if m.has("bias", 0.4):
        args.append(m.net.const(_bias(m, x, out)))
    sizes = [f - pads[i] - pads[rank + i] for i, f in enumerate(full)]
    name = m.net.op("ConvTranspose", *args, **more)
    return _grown(m, name, (out, *sizes), x, channels // group * math.prod(kernel))


def pool(m: Maker, x: Tensor) -> Tensor:
    """A pooling over windows, or over everything; averages leave the grid."""
    if m.choose.chance(0.3):
        op = m.choose.pick("GlobalMaxPool", "GlobalAveragePool")
        shape = (x.channels, *(1,) * (len(x.shape) - 1))
        keep = m.kept if op == "GlobalMaxPool" else m.op
        return keep(op, x, shape=shape)
    channels, *spatial = x.shape
    rank = len(spatial)
    op = m.choose.pick("MaxPool", "AveragePool")
    kernel = _kernel(m, tuple(spatial))
    strides = [m.choose.pick(1, 2) for _ in spatial]
    more: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    pads = more["pads"] = _pads(m, kernel, 0.4)
    ceil = m.choose.chance(0.25)
    if ceil:
        more["ceil_mode"] = 1
    if op == "AveragePool" and m.choose.chance(0.4):
        more["count_include_pad"] = 1
    sizes = []
    for i, n in enumerate(spatial):
        room = n + pads[i] + pads[rank + i] - kernel[i]
        steps = -(-room // strides[i]) if ceil else room // strides[i]
        if ceil and steps * strides[i] >= n + pads[i]:
            steps -= 1
        sizes.append(steps + 1)
    keep = m.kept if op == "MaxPool" else m.op
    return keep(op, x, shape=(channels, *sizes), **more)


def reduce(m: Maker, x: Tensor) -> Tensor:
    """ReduceMean, ReduceMax or ReduceSum over some axes."""
    op = m.choose.pick("ReduceMean", "ReduceMax", "ReduceSum")
    rank = len(x.shape)
    axes = [a for a in range(1, rank + 1) if m.choose.chance(0.4)] or [rank]
    keep = m.choose.chance(0.5) or len(axes) == rank
    kept = [n for a, n in enumerate(x.shape, 1) if a not in axes or keep]
    shape = [1 if a in axes else n for a, n in enumerate(x.shape, 1)] if keep else kept
    stated = [a - rank - 1 for a in axes] if m.choose.chance(0.3) else axes
    as_input = m.opset >= (13 if op == "ReduceSum" else 18)
    others = [m.integers(stated)] if as_input else []
    more: dict[str, Any] = {} if as_input else {"axes": stated}
    made = m.kept if op == "ReduceMax" and x.scale else m.op
    out = made(op, x, *others, shape=shape, keepdims=int(keep), **more)
    count = math.prod(x.shape[a - 1] for a in axes)
    return replace(out, size=x.size * math.sqrt(count)) if op == "ReduceSum" else out
