"""Integer graphs of windows and rearrangements, many branches in one network each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from onnx_ir import Model, Value

from hqc.analysis.partition import Partition
from hqc.numerics.types import FixedType, Overflow, Rounding
from support.backend_graphs import Builder, signed, unsigned

Window = dict[str, Any]


def conv_cases(rank: int) -> Iterator[Window]:
    """Attributes that together hold every pair of interest, some of them odd on purpose."""
    kernels = {1: [(1,), (2,), (3,)], 2: [(1, 1), (2, 3), (3, 3), (3, 1)]}[rank]
    pads = {1: [(0, 0), (1, 1), (0, 2)], 2: [(0, 0, 0, 0), (1, 1, 1, 1), (2, 0, 1, 3)]}[rank]
    strides = {1: [(1,), (2,)], 2: [(1, 1), (2, 2), (1, 2)]}[rank]
    dilations = {1: [(1,), (2,)], 2: [(1, 1), (2, 2), (2, 1)]}[rank]
    for kernel, pad, stride, dilation in itertools.product(kernels, pads, strides, dilations):
        yield {
            "kernel_shape": list(kernel),
            "pads": list(pad),
            "strides": list(stride),
            "dilations": list(dilation),
        }


def convolutions(rank: int, chosen: slice, seed: int = 3) -> tuple[Model, Partition]:
    """Convolutions of one input: plain, in groups, depthwise, depthwise with multiplier 2."""
    rng = np.random.default_rng(seed)
    b = Builder()
    size = (4, 7, 6)[: rank + 1]
    x = b.input("x", size, signed(5, 2))
    outputs = []
    for index, window in list(enumerate(conv_cases(rank)))[chosen]:
        group, n_out = ((1, 3), (2, 6), (4, 4), (4, 8))[(index + seed) % 4]
        weight = rng.integers(-4, 4, (n_out, 4 // group, *window["kernel_shape"]))
        found = b.conv(x, weight, signed(3, 1), group=group, **window)
        if index % 3:  # a bias, and the result rounded
            shape = (1, n_out, *[1] * rank)
            found = b.add(found, rng.integers(-9, 9, shape), FixedType(True, 5, 3))
        if index % 2:
            found = b.quant(found, signed(5, 4, Rounding.HALF_UP))
        outputs.append(found)
    return b.finish(*outputs)


def together(*parts: Callable[[Builder], list[Value]]) -> tuple[Model, Partition]:
    """Several sets of branches as one network."""
    b = Builder()
    return b.finish(*[output for part in parts for output in part(b)])


def pools(b: Builder) -> list[Value]:
    """Pools with and without pads, strides, dilation and a last window that hangs over."""
    x = b.input("px", (3, 7, 6), signed(5, 2))
    y = b.input("py", (2, 9), unsigned(4, 3))  # padding must not win over small unsigned codes
    z = b.input("pz", (2, 9), FixedType(True, 4, 3, Rounding.FLOOR, Overflow.SAT_SYM))
    return [
        b.max_pool(x, kernel_shape=[2, 2], strides=[2, 2]),
        b.max_pool(x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        b.max_pool(x, kernel_shape=[3, 3], strides=[2, 1], pads=[1, 0, 1, 2]),
        b.max_pool(x, kernel_shape=[2, 3], dilations=[2, 2], pads=[1, 1, 0, 0]),
        b.max_pool(x, kernel_shape=[7, 6]),
        b.quant(b.max_pool(x, kernel_shape=[1, 3]), signed(3, 2)),
        b.max_pool(y, kernel_shape=[3], strides=[2], pads=[1, 1]),
        b.max_pool(y, kernel_shape=[4], strides=[3], ceil_mode=1),
        b.max_pool(z, kernel_shape=[2], pads=[1, 0]),
        b.max_pool(b.max_pool(z, kernel_shape=[2], strides=[2], pads=[0, 1]), kernel_shape=[5]),
    ]


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def movements(b: Builder) -> list[Value]:
    """Every operator that rearranges, alone and one after another."""
    x = b.input("mx", (4, 2, 3), signed(4, 2))
    y = b.input("my", (4, 2, 3), signed(5, 1))  # another step
    v = b.input("mv", 6, unsigned(3, 1))
    s = b.input("ms", (2, 5), signed(4, 4))
    outputs = [
        b.move("Transpose", x, perm=[0, 3, 1, 2]),
        b.move("Transpose", b.move("Transpose", x, perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2]),
        b.move("Flatten", x),
        b.move("Reshape", x, _ints(0, 3, 8)),
        b.move("Reshape", v, _ints(0, 3, 2)),
        b.move("Slice", x, _ints(1, 0), _ints(4, 2), _ints(1, 3), _ints(2, 1)),
        b.move("Gather", x, _ints(2, 0, 0), axis=3),
        b.move("Gather", s, np.array(1), axis=1),
        b.move("Pad", x, _ints(0, 0, 1, 0, 0, 1, 0, 2), np.array(-1.25), mode="constant"),
        b.move("Pad", b.move("Pad", s, _ints(0, 0, 1, 0, 0, 0)), _ints(0, 1, 0, 0, 0, 1)),
        b.move(
            "Pad", b.move("Pad", s, _ints(0, 0, 1, 0, 0, 0)), _ints(0, 1, 0, 0, 0, 1), np.array(3.0)
        ),
        b.move("Pad", s, _ints(0, 0, 2, 0, 0, 1), mode="reflect"),
        b.move("Concat", x, y, axis=1),
        b.move("Concat", x, y, b.relu(x), axis=3),
        b.move("Concat", b.move("Pad", s, _ints(0, 0, 1, 0, 0, 0)), s, b.relu(s), axis=2),
        b.move("Resize", x, None, np.array([1, 1, 2, 2], np.float32), mode="nearest"),
        b.move("Expand", b.move("Unsqueeze", v, _ints(2)), _ints(1, 6, 3)),
        b.move("Tile", s, _ints(1, 2, 1)),
        b.move("DepthToSpace", x, blocksize=2),
        b.move("SpaceToDepth", b.move("DepthToSpace", x, blocksize=2), blocksize=2),
        b.move("Squeeze", b.move("Unsqueeze", s, _ints(1, 4)), _ints(1, 4)),
    ]
    return [*outputs, *_shared(b, x, y)]


def _shared(b: Builder, x: Value, y: Value) -> list[Value]:
    """A shuffle of channels through rank 5, a value with many uses, and its slices joined."""
    wide = b.move("Reshape", x, _ints(0, 2, 2, 2, 3))
    shuffled = b.move("Reshape", b.move("Transpose", wide, perm=[0, 2, 1, 3, 4]), _ints(0, 4, 2, 3))
    halves = [b.move("Slice", shuffled, _ints(i), _ints(i + 2), _ints(1)) for i in (0, 2)]
    return [shuffled, b.move("Concat", *halves, axis=1), b.merge(halves[1], halves[0]), wide]


def elementwise(b: Builder) -> list[Value]:
    """Requantisers, thresholds, sums and products on tensors with channels."""
    rng = np.random.default_rng(8)
    x = b.input("ex", (3, 2, 4), signed(6, 3))
    y = b.input("ey", (3, 2, 4), unsigned(5, 1))
    s = b.input("es", (3, 5), signed(5, 4))
    scaled = b.mul(x, np.array([37, -21, 3]).reshape(1, 3, 1, 1), FixedType(True, 7, 1))
    shifted = b.add(scaled, np.array([5, -120, 9]).reshape(3, 1, 1), FixedType(True, 8, 3))
    each = b.mul(s, rng.integers(-8, 8, (1, 3, 5)), signed(4, 1))
    rows = [[-3.0, -0.25, 1.3], [-np.inf, 2.0, np.inf], [-4, -1, 3]]
    gate = b.thresholds(x, [[0.0, 0.5]])
    return [
        b.quant(shifted, signed(6, 4, Rounding.HALF_UP)),
        b.quant(b.mul(x, np.array(11), FixedType(False, 4, -2)), signed(5, 2)),
        b.quant(b.add(each, np.array([1, 2, 3]).reshape(3, 1), signed(4, 2)), signed(5, 2)),
        b.thresholds(x, rows, bias=-2),
        b.thresholds(s, rows),
        b.merge(gate, y, "Mul"),
        b.quant(b.merge(x, y), signed(5, 3)),
        b.quant(b.merge(b.relu(x), x, "Mul"), unsigned(6, 3, Rounding.HALF_DOWN)),
        b.merge(s, s, "Mul"),
    ]


def residual(rng: np.random.Generator, size: int = 8, channels: int = 4) -> tuple[Model, Partition]:
    """A small network: strided stem, residual block, depthwise layer, join, pool, dense."""
    b = Builder()
    x = b.input("x", (2, size, size), signed(6, 2))

    def conv(v: Value, n_out: int, n_in: int, kernel: int, **attributes: Any) -> Value:
        weight = rng.integers(-4, 4, (n_out, n_in, kernel, kernel))
        found = b.conv(v, weight, signed(3, 1), **attributes)
        scale = rng.integers(1, 16, (1, n_out, 1, 1))
        offset = rng.integers(-9, 9, (1, n_out, 1, 1))
        scaled = b.add(b.mul(found, scale, unsigned(4, 0)), offset, signed(5, 3))
        return b.quant(b.relu(scaled), unsigned(5, 4))

    stem = conv(x, channels, 2, 3, strides=[2, 2], pads=[1, 1, 0, 0])
    inner = conv(conv(stem, channels, channels, 3, pads=[1, 1, 1, 1]), channels, channels, 1)
    block = b.quant(b.merge(stem, inner), unsigned(5, 5))
    deep = conv(block, channels, 1, 3, group=channels, pads=[1, 1, 1, 1])
    joined = b.move("Concat", block, deep, axis=1)
    pooled = b.max_pool(joined, kernel_shape=[2, 2], strides=[2, 2])
    flat = b.move("Flatten", pooled)
    return b.finish(b.matmul(flat, rng.integers(-4, 4, (int(flat.shape[1]), 3)), signed(3, 1)))


def large() -> tuple[Model, Partition]:
    """A network of the usual size for 28 by 28 images: tensors of 12,544 elements."""
    rng = np.random.default_rng(1)
    b = Builder()

    def conv(v: Value, n_out: int, n_in: int) -> Value:
        weight = rng.integers(-8, 8, (n_out, n_in, 3, 3))
        found = b.conv(v, weight, signed(4, 1), pads=[1, 1, 1, 1])
        scaled = b.mul(found, rng.integers(1, 200, (1, n_out, 1, 1)), unsigned(8, -4))
        return b.quant(b.relu(scaled), unsigned(6, 3))

    first = conv(b.input("x", (1, 28, 28), unsigned(8, 0)), 16, 1)
    block = b.quant(b.merge(first, conv(first, 16, 16)), unsigned(6, 4))
    pooled = b.max_pool(block, kernel_shape=[2, 2], strides=[2, 2])
    pooled = b.max_pool(conv(pooled, 32, 16), kernel_shape=[2, 2], strides=[2, 2])
    flat = b.move("Flatten", pooled)
    weight = rng.integers(-8, 8, (int(flat.shape[1]), 10))
    return b.finish(b.matmul(flat, weight, signed(4, 1)), block)
