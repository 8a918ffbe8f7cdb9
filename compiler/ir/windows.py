"""Windows of convolutions and poolings: sizes, padding, and which input each tap reads.

Formulas follow the ONNX operator specifications of Conv, MaxPool and AveragePool.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx_ir import Node

from hqc.diagnostics import reject
from hqc.ir.store import location_of
from hqc.numerics.types import Codes

_POOLS = frozenset({"MaxPool", "AveragePool", "LpPool"})


@dataclass(frozen=True)
class Window:
    """What slides over the spatial axes, one entry per axis.

    Attributes:
        kernel: taps along each axis.
        strides, dilations: steps between windows, and between the taps of one window.
        before, after: padding at the low and the high end.
        group: of a convolution: input and output channels fall into that many parts.
        ceil: of a pooling: a last window may hang over the end.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    group: int = 1
    ceil: bool = False

    @classmethod
    def of(cls, node: Node) -> Window:
        """The window of a Conv or pooling node, with `auto_pad` resolved.

        Raises:
            HqcError: HQC102, sizes are not known or make no sense.
        """
        spatial = spatial_shape(node)
        rank = len(spatial)
        kernel = _kernel(node, rank)
        strides = _ints(node, "strides", (1,) * rank)
        dilations = _ints(node, "dilations", (1,) * rank)
        pads = _ints(node, "pads", (0,) * (2 * rank))
        group, ceil = _int(node, "group", 1), bool(_int(node, "ceil_mode", 0))
        found = cls(kernel, strides, dilations, pads[:rank], pads[rank:], group, ceil)
        if {len(kernel), len(strides), len(dilations), len(pads) / 2} != {rank}:
            raise reject(
                "HQC102", f"{node.op_type} with attributes of another rank", where=location_of(node)
            )
        if min(*kernel, *strides, *dilations, group) < 1 or min(pads) < 0:
            raise reject(
                "HQC102",
                f"{node.op_type} with a kernel, stride or dilation below 1, or negative pads",
                where=location_of(node),
                helps=("crop with Slice instead of negative pads",),
            )
        return found._auto(node, spatial)

    def _auto(self, node: Node, spatial: tuple[int, ...]) -> Window:
        attribute = node.attributes.get("auto_pad")
        mode = attribute.as_string() if attribute is not None else "NOTSET"
        if mode in ("NOTSET", ""):
            return self
        none = (0,) * len(spatial)
        if mode == "VALID":
            return Window(self.kernel, self.strides, self.dilations, none, none, self.group)
        totals = [
            max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)
            for n, s, d, k in zip(spatial, self.strides, self.dilations, self.kernel, strict=True)
        ]
        small, large = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
        low, high = (small, large) if mode == "SAME_UPPER" else (large, small)
        return Window(self.kernel, self.strides, self.dilations, low, high, self.group)

    @property
    def pads(self) -> bool:
        """Whether any window can hang over an end."""
        return any(self.before) or any(self.after) or self.ceil

    def out_shape(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """Windows along each axis of an input of that size."""
        sizes = []
        for axis, n in enumerate(spatial):
            reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1
            room = n + self.before[axis] + self.after[axis] - reach
            steps = -(-room // self.strides[axis]) if self.ceil else room // self.strides[axis]
            if self.ceil and steps * self.strides[axis] >= n + self.before[axis]:
                steps -= 1  # the last window must begin inside the input or its leading padding
            sizes.append(steps + 1)
        return tuple(sizes)

    def closed(self, spatial: tuple[int, ...]) -> Window:
        """The same windows without `ceil`: what hangs over the end is padding."""
        if not self.ceil:
            return self
        after = tuple(
            max((windows - 1) * s + d * (k - 1) + 1 - n - b, 0)
            for n, windows, s, d, k, b in zip(
                spatial,
                self.out_shape(spatial),
                self.strides,
                self.dilations,
                self.kernel,
                self.before,
                strict=True,
            )
        )
        return replace(self, after=after, ceil=False)

    def taps(self, spatial: tuple[int, ...]) -> Codes:
        """Flat input positions (windows, kernel taps), row-major; -1 where a tap meets padding."""
        flat = np.zeros((1, 1), np.int64)
        inside = np.ones((1, 1), bool)
        for axis, (n, count) in enumerate(zip(spatial, self.out_shape(spatial), strict=True)):
            starts = np.arange(count) * self.strides[axis] - self.before[axis]
            at = starts[:, None] + np.arange(self.kernel[axis]) * self.dilations[axis]
            flat = _outer(flat * n, at, np.add)
            inside = _outer(inside, (at >= 0) & (at < n), np.logical_and)
        return np.where(inside, flat, -1)

    def view(self, x: npt.NDArray[Any], out: tuple[int, ...], fill: float = 0) -> npt.NDArray[Any]:
        """What the taps read of (N, C, *spatial): (N, C, *kernel, *out), no element twice."""
        margins = [(0, 0), (0, 0)]
        for axis, (size, count) in enumerate(zip(x.shape[2:], out, strict=True)):
            reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1
            end = (count - 1) * self.strides[axis] + reach - self.before[axis] - size
            margins.append((self.before[axis], max(0, end)))
        if any(map(any, margins)):
            x = np.pad(x, margins, constant_values=fill)
        along = x.strides[2:]
        steps = [
            *(n * step for n, step in zip(self.dilations, along, strict=True)),
            *(n * step for n, step in zip(self.strides, along, strict=True)),
        ]
        shape, strides = (*x.shape[:2], *self.kernel, *out), (*x.strides[:2], *steps)
        return np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)

    def attributes(self) -> dict[str, list[int] | int]:
        """As ONNX attributes of a Conv (without the group where it is 1)."""
        found: dict[str, list[int] | int] = {
            "kernel_shape": list(self.kernel),
            "strides": list(self.strides),
            "dilations": list(self.dilations),
            "pads": [*self.before, *self.after],
        }
        return found | ({"group": self.group} if self.group != 1 else {})


@dataclass(frozen=True)
class Taps:
    """Which inputs each output of a sliding operator reads.

    Attributes:
        shape: spatial shape of the output.
        index: (windows, kernel taps) flat spatial input positions, -1 for padding.
        window, spatial: what slides over an input of which size, where that is what the taps are.
    """

    shape: tuple[int, ...]
    index: Codes
    window: Window | None = None
    spatial: tuple[int, ...] = ()

    @property
    def pads(self) -> bool:
        """Whether some tap meets padding."""
        return bool(np.any(self.index < 0))

    def gather(self, x: npt.NDArray[Any], fill: float = 0) -> npt.NDArray[Any]:
        """What the taps read: (N, C, positions) to (N, C, taps, windows), `fill` for padding."""
        n, channels = x.shape[:2]
        return self._read(x, fill).reshape(n, channels, *self.index.shape[::-1])

    def columns(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """As `gather`, the windows of all samples side by side: (C, taps, N * windows)."""
        read, rank = self._read(x), len(self.spatial) or 1
        ahead = read.transpose(1, *range(2, 2 + rank), 0, *range(2 + rank, read.ndim))
        return ahead.reshape(x.shape[1], self.index.shape[1], -1)

    def _read(self, x: npt.NDArray[Any], fill: float = 0) -> npt.NDArray[Any]:
        """(N, C, *kernel, *windows), or (N, C, taps, windows)."""
        if self.window is not None:
            return self.window.view(x.reshape(*x.shape[:2], *self.spatial), self.shape, fill)
        end = np.full_like(x[:, :, :1], fill)
        return np.asarray(np.concatenate([x, end], axis=2)[:, :, self.index.T])

    @classmethod
    def of(cls, node: Node) -> Taps:
        """The taps of a Conv, ConvTranspose, MaxPool, AveragePool or global pooling.

        Raises:
            HqcError: HQC102, sizes are not known or make no sense.
        """
        if node.op_type in ("GlobalAveragePool", "GlobalMaxPool"):
            spatial = spatial_shape(node)
            return cls((1,) * len(spatial), np.arange(math.prod(spatial))[None])
        if node.op_type == "ConvTranspose":
            return _transposed(node)
        window, spatial = Window.of(node), spatial_shape(node)
        out = window.out_shape(spatial)
        if min(out) < 1:
            raise reject("HQC102", f"{node.op_type} with no output", where=location_of(node))
        return cls(out, window.taps(spatial), window, spatial)


def divisors(node: Node, taps: Taps) -> Codes:
    """By what an average pooling divides the sum of each window.

    The number of taps inside the input; with `count_include_pad`, inside the input and its stated
    padding, so that what hangs over the end in `ceil_mode` never counts (as in onnxruntime).
    """
    attribute = node.attributes.get("count_include_pad")
    if attribute is None or not attribute.as_int() or node.op_type != "AveragePool":
        return np.asarray((taps.index >= 0).sum(axis=1), np.int64)
    window, counts = Window.of(node), np.ones(1, np.int64)
    for axis, (n, windows) in enumerate(zip(spatial_shape(node), taps.shape, strict=True)):
        starts = np.arange(windows) * window.strides[axis] - window.before[axis]
        at = starts[:, None] + np.arange(window.kernel[axis]) * window.dilations[axis]
        inside = (at < n + window.after[axis]).sum(axis=1)
        counts = np.outer(counts, inside).ravel()
    return np.asarray(counts, np.int64)


def spatial_shape(node: Node) -> tuple[int, ...]:
    """Sizes of the spatial axes of a node's input.

    Raises:
        HqcError: HQC102, they are not known.
    """
    x = node.inputs[0]
    dims = tuple(x.shape)[2:] if x is not None and x.shape is not None else ()
    found = tuple(d for d in dims if isinstance(d, int))
    if len(found) != len(dims) or not found:
        raise reject("HQC102", f"{node.op_type} of unknown size", where=location_of(node))
    return found


def transposed_pads(node: Node, window: Window) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What a ConvTranspose cuts off at either end, from its output's inferred shape."""
    out = node.outputs[0].shape
    sizes = tuple(d for d in tuple(out or ())[2:] if isinstance(d, int))
    spatial = spatial_shape(node)
    if len(sizes) != len(spatial):
        raise reject("HQC102", "ConvTranspose of unknown size", where=location_of(node))
    auto = node.attributes.get("auto_pad")
    if auto is None or auto.as_string() in ("NOTSET", ""):
        return window.before, window.after
    full = [
        (n - 1) * s + d * (k - 1) + 1
        for n, s, d, k in zip(spatial, window.strides, window.dilations, window.kernel, strict=True)
    ]
    cut = [max(f - n, 0) for f, n in zip(full, sizes, strict=True)]
    small, large = tuple(c // 2 for c in cut), tuple(c - c // 2 for c in cut)
    return (small, large) if auto.as_string() == "SAME_UPPER" else (large, small)


def _transposed(node: Node) -> Taps:
    """Output p of a ConvTranspose reads input (p + pad - k * dilation) / stride, where whole."""
    window, spatial = Window.of(node), spatial_shape(node)
    before, _ = transposed_pads(node, window)
    shape = tuple(d for d in tuple(node.outputs[0].shape or ())[2:] if isinstance(d, int))
    flat = np.zeros((1, 1), np.int64)
    inside = np.ones((1, 1), bool)
    for axis, (n, count) in enumerate(zip(spatial, shape, strict=True)):
        stride = window.strides[axis]
        reach = np.arange(window.kernel[axis]) * window.dilations[axis]
        at = np.arange(count)[:, None] + before[axis] - reach
        hit = (at % stride == 0) & (at >= 0) & (at < n * stride)
        flat = _outer(flat * n, at // stride, np.add)
        inside = _outer(inside, hit, np.logical_and)
    return Taps(shape, np.where(inside, flat, -1))


def _outer(a: npt.NDArray[Any], b: npt.NDArray[Any], op: np.ufunc) -> npt.NDArray[Any]:
    """Combine (P, K) of the axes so far with (p, k) of the next into (P * p, K * k)."""
    both = op(a[:, None, :, None], b[None, :, None, :])
    return np.asarray(both.reshape(a.shape[0] * b.shape[0], -1))


def _kernel(node: Node, rank: int) -> tuple[int, ...]:
    if node.op_type in _POOLS or "kernel_shape" in node.attributes:
        return _ints(node, "kernel_shape", ())
    weight = node.inputs[1].shape if node.inputs[1] is not None else None
    dims = tuple(weight or ())[2:]
    found = tuple(d for d in dims if isinstance(d, int))
    return found if len(found) == rank else ()


def _ints(node: Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return tuple(attribute.as_ints()) if attribute is not None else default


def _int(node: Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return attribute.as_int() if attribute is not None else default
