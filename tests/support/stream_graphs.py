"""Integer graphs that make streams awkward: many readers, odd packets, order that changes."""

from __future__ import annotations

import numpy as np
from onnx_ir import Model, Value

from hqc.analysis.partition import Partition
from hqc.numerics.types import Rounding
from support.backend_graphs import Builder, signed, unsigned


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def block(b: Builder, size: int = 4, channels: int = 2) -> list[Value]:
    """Residual block with padding and a depthwise layer inside, pool, dense."""
    rng = np.random.default_rng(6)
    x = b.input("bx", (channels, size, size), signed(4, 2))
    window = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    plain = b.conv(x, rng.integers(-4, 4, (channels, channels, 3, 3)), signed(3, 1), **window)
    inner = b.quant(b.relu(plain), unsigned(4, 3))
    weight = rng.integers(-4, 4, (channels, 1, 3, 3))
    deep = b.quant(b.conv(inner, weight, signed(3, 1), group=channels, **window), signed(4, 3))
    total = b.quant(b.merge(deep, x), signed(5, 4, Rounding.HALF_UP))
    flat = b.move("Flatten", b.max_pool(total, kernel_shape=[2, 2], strides=[2, 2]))
    return [b.matmul(flat, rng.integers(-4, 4, (int(flat.shape[1]), 3)), signed(3, 1))]


def upsampled(b: Builder) -> list[Value]:
    """What a transposed convolution becomes: zeros between the elements, then a convolution."""
    rng = np.random.default_rng(7)
    x = b.input("ux", (2, 5), signed(4, 2))
    column = b.move("Unsqueeze", x, ints(3))
    pairs = b.move("Pad", column, ints(0, 0, 0, 0, 0, 0, 0, 1))
    wide = b.move("Reshape", pairs, ints(0, 2, 10))
    weight = rng.integers(-4, 4, (3, 2, 3))
    found = b.conv(wide, weight, signed(3, 1), kernel_shape=[3], pads=[2, 1])
    return [b.quant(found, signed(6, 4))]


def packets(b: Builder) -> list[Value]:
    """Neighbours that see packets of different sizes, though all elements stay in place."""
    rng = np.random.default_rng(8)
    x = b.input("kx", (1, 4, 3), signed(4, 2))
    flat = b.move("Flatten", x)  # one channel: nothing moves, but packets are one element wide
    scaled = b.mul(flat, rng.integers(-8, 8, 12), signed(4, 1))
    wide = b.move("Reshape", b.quant(flat, signed(3, 2)), ints(0, 12, 1))
    per_channel = b.mul(wide, rng.integers(-8, 8, (12, 1)), signed(4, 1))
    weight = rng.integers(-4, 4, (2, 12, 1))
    mixed = b.conv(wide, weight, signed(3, 1), kernel_shape=[1])
    y = b.input("ky", 12, signed(4, 2))
    return [
        b.quant(scaled, signed(5, 3)),
        b.quant(per_channel, signed(5, 3)),
        b.quant(mixed, signed(7, 5)),
        b.merge(y, flat),
        b.merge(flat, y, "Mul"),
        b.move("Flatten", b.max_pool(x, kernel_shape=[2, 2])),
    ]


def readers(b: Builder, count: int = 9) -> list[Value]:
    """One value with more readers than a template copies for at once, some of them twice."""
    x = b.input("rx", (2, 3), signed(5, 3))
    found: list[Value] = [b.quant(x, signed(2 + n % 4, 2)) for n in range(count - 2)]
    return [*found, b.merge(x, x)]


def order(b: Builder) -> list[Value]:
    """Rearrangements that keep a sample, and some that let packets through."""
    x = b.input("ox", (2, 3, 4), signed(4, 2))
    y = b.input("oy", (3, 3, 4), signed(5, 2))
    return [
        b.move("Transpose", x, perm=[0, 3, 1, 2]),
        b.move("Concat", x, b.relu(x), axis=3),
        b.move("Concat", x, y, axis=1),
        b.move("Pad", x, ints(0, 0, 1, 0, 0, 0, 0, 2), np.array(0.5), mode="constant"),
        b.move("Slice", x, ints(1, 0), ints(3, 3), ints(2, 3), ints(1, 2)),
        b.move("Gather", x, ints(1, 0), axis=1),
    ]


def tables(b: Builder) -> list[Value]:
    """Thresholds that are cheaper as tables: shared, per channel, of a narrow range, coarse."""
    rng = np.random.default_rng(9)
    x = b.input("tx", (3, 4), signed(6, 2))
    curve = np.sort(rng.normal(0, 1, (1, 31)))
    each = np.sort(rng.normal(0, 1, (3, 15)))
    each[0, 0], each[1, -1] = -np.inf, np.inf
    coarse = b.quant(x, signed(5, 7))  # steps of four
    wide = b.quant(x, signed(9, 3))
    return [
        b.thresholds(x, curve),
        b.thresholds(x, each, bias=-8),
        b.thresholds(b.relu(x), curve, bias=-31),
        b.thresholds(coarse, np.linspace(-16, 15, 15)[None] * 4),
        b.thresholds(wide, np.linspace(-3, 3, 63)[None]),
    ]


def awkward() -> tuple[Model, Partition]:
    """All of them as one network."""
    b = Builder()
    parts = (block, upsampled, packets, readers, order, tables)
    return b.finish(*[value for part in parts for value in part(b)])
