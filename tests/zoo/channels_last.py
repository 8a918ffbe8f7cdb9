"""Graphs as converters from Keras write them: channels last outside, Transpose around layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from support.qonnx_graphs import Net

from zoo.source import Source

SHAPE = (8, 8, 3)


class _Keras(Net):
    """Layers of QKeras, in the spelling of its ONNX converters."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = np.random.default_rng(seed)

    def to_channels_first(self, x: str) -> str:
        return self.op("Transpose", x, perm=[0, 3, 1, 2])

    def to_channels_last(self, x: str) -> str:
        return self.op("Transpose", x, perm=[0, 2, 3, 1])

    def conv(self, x: str, n_in: int, n_out: int, **attributes: Any) -> str:
        """Kernel (rows, columns, in, out), quantised there, with a float bias."""
        raw = self.const(self.rng.normal(0, 0.4, (3, 3, n_in, n_out)))
        kernel = self.quant(raw, self.rng.uniform(0.05, 0.1, n_out), 5, narrow=1)
        kernel = self.op("Transpose", kernel, perm=[3, 2, 0, 1])
        bias = self.const(self.rng.normal(0, 0.2, n_out))
        return self.op("Conv", x, kernel, bias, kernel_shape=[3, 3], **attributes)

    def act(self, x: str, scale: float, bits: int) -> str:
        return self.quant(self.op("Relu", x), scale, bits, signed=0)


def classifier() -> Source:
    """Two convolutions, batch norm and pooling; flattened in channels-last order."""
    net = _Keras(1)
    x = net.quant(net.input("x", *SHAPE), 2.0**-5, 8)
    x = net.to_channels_first(x)
    x = net.conv(x, 3, 8, auto_pad="SAME_UPPER", strides=[1, 1])
    x = net.act(x, 0.11, 5)
    x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.to_channels_last(x)
    x = net.to_channels_first(x)
    x = net.conv(x, 8, 6, auto_pad="SAME_UPPER", strides=[2, 2])
    statistics = [net.rng.uniform(0.5, 1.5, 6) for _ in range(4)]
    x = net.op("BatchNormalization", x, *map(net.const, statistics), epsilon=1e-3)
    x = net.to_channels_last(net.act(x, 0.2, 4))
    x = net.op("Reshape", x, net.const([-1, 24], np.int64))
    weights = net.quant(net.const(net.rng.normal(0, 0.4, (24, 4))), 0.07, 6)
    x = net.op("Add", net.op("MatMul", x, weights), net.const(net.rng.normal(0, 0.2, 4)))
    return Source(net.proto(net.op("Softmax", x, axis=-1)))


def segmentation() -> Source:
    """Down, up by nearest neighbours, a skip connection, and an image out, channels last."""
    net = _Keras(2)
    x = net.quant(net.input("x", *SHAPE), 2.0**-5, 8)
    x = net.to_channels_first(x)
    skip = net.act(net.conv(x, 3, 4, auto_pad="SAME_UPPER", strides=[1, 1]), 0.1, 5)
    x = net.op("MaxPool", skip, kernel_shape=[2, 2], strides=[2, 2])
    x = net.act(net.conv(x, 4, 4, auto_pad="SAME_UPPER", strides=[1, 1]), 0.13, 5)
    sizes = net.const(np.float32([1, 1, 2, 2]))
    x = net.op(
        "Resize", x, "", sizes, mode="nearest", nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )  # fmt: skip
    x = net.op("Concat", x, skip, axis=1)
    x = net.conv(x, 8, 2, auto_pad="SAME_UPPER", strides=[1, 1])
    return Source(net.proto(net.quant(net.to_channels_last(x), 0.15, 6)))


def dense_on_images() -> Source:
    """Dense layers on the last axis of an image, a bias there, and a mean over its pixels."""
    net = _Keras(3)
    x = net.quant(net.input("x", *SHAPE), 2.0**-5, 8)
    for n_in, n_out, scale in ((3, 6, 0.1), (6, 5, 0.2)):
        raw = net.const(net.rng.normal(0, 0.4, (n_in, n_out)))
        weights = net.quant(raw, net.rng.uniform(0.05, 0.1, n_out), 5)
        bias = net.quant(net.const(net.rng.normal(0, 0.4, n_out)), 2.0**-6, 8)
        x = net.act(net.op("Add", net.op("MatMul", x, weights), bias), scale, 5)
    x = net.quant(net.op("ReduceMean", x, axes=[1, 2], keepdims=0), 0.05, 8)
    weights = net.quant(net.const(net.rng.normal(0, 0.4, (5, 2))), 0.07, 6)
    return Source(net.proto(net.op("MatMul", x, weights)))
