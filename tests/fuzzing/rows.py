"""What the coverage table covers: one small graph for each operator and each form of quantiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from support.qonnx_graphs import Net

Row = tuple[str, str, onnx.ModelProto]
#: A power of two, and a scale that is none.
P2, FREE = 0.25, 0.21


def rows() -> list[Row]:
    """(section, title, graph) for each row, in the order of the table."""
    return [*_quantisers(), *_linear(), *_pools(), *_elementwise(), *_movement(), *_networks()]


def _graph(build: Callable[[Net], str], *, opset: int = 17) -> onnx.ModelProto:
    net = Net(opset=opset)
    out = net.op("Identity", build(net), name="y")
    proto = net.proto(out)
    whole = {o for n in net.nodes if n.op_type == "ArgMax" for o in n.output}
    if any(n.op_type == "Identity" and n.input[0] in whole for n in net.nodes):
        proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    return proto


def _values(*shape: int, seed: int = 1) -> Any:
    return np.float32(np.random.default_rng(seed).normal(0, 0.5, shape))


def _input(n: Net, *shape: int, scale: Any = P2, bits: int = 5, **more: Any) -> str:
    return n.quant(n.input("x", *shape), scale, bits, **more)


def _dense(n: Net, x: str, rows_: int, columns: int, scale: Any = P2, **more: Any) -> str:
    w = n.quant(n.const(_values(rows_, columns)), np.float32(scale), 4, **more)
    return n.op("MatMul", x, w)


def _conv(n: Net, x: str, *shape: int, scale: Any = P2, op: str = "Conv", **more: Any) -> str:
    return n.op(op, x, n.quant(n.const(_values(*shape)), np.float32(scale), 4), **more)


def _quantisers() -> list[Row]:
    def activation(*parameters: Any, **more: Any) -> onnx.ModelProto:
        return _graph(lambda n: n.quant(_dense(n, _input(n, 4), 4, 3), *parameters, **more))

    def weights(**more: Any) -> onnx.ModelProto:
        return _graph(lambda n: n.quant(_dense(n, _input(n, 4), 4, 3, **more), 0.5, 5))

    each = np.float32([[0.5, 0.21, 0.37]])
    powers = np.float32([[0.5, 0.25, 1.0]])
    modes = ("ROUND", "HALF_UP", "HALF_DOWN", "FLOOR", "DOWN", "CEIL", "UP")
    found = [(f"Quant, rounding {mode}", activation(0.5, 4, rounding=mode)) for mode in modes]
    found += [
        ("Quant, free scale", activation(FREE, 5)),
        ("Quant, free scale, 8 bits unsigned with zero point", activation(FREE, 8, 0, zero=7.0)),
        ("Quant, power-of-two scale with zero point", activation(0.5, 5, zero=3.0)),
        ("Quant, narrow", activation(0.5, 4, narrow=1)),
        ("Quant, unsigned narrow", activation(0.5, 4, 0, 1)),
        ("Quant, one bit signed", activation(0.5, 1)),
        ("Quant, one bit unsigned", activation(0.5, 1, 0)),
        ("Quant, 16 bits", activation(2.0**-10, 16)),
        ("Quant, scale per channel, powers of two", activation(powers, 5)),
        ("Quant, free scale per channel", activation(each, 5)),
        ("Quant, fractional bit width", activation(0.5, 3.5)),
        (
            "BipolarQuant, scale 0.5",
            _graph(lambda n: n.bipolar(_dense(n, _input(n, 4), 4, 3), 0.5)),
        ),
        ("MultiThreshold", _graph(_thresholds)),
        ("IntQuant", activation(FREE, 5, op="IntQuant")),
        ("Trunc", _graph(_trunc)),
        ("FloatQuant of weights", _graph(_minifloat)),
        ("QuantizeLinear, DequantizeLinear", _graph(_pair)),
        ("input: free scale", _graph(lambda n: _dense(n, _input(n, 4, scale=FREE), 4, 3))),
        ("input: zero point", _graph(lambda n: _dense(n, _input(n, 4, zero=3.0), 4, 3))),
        ("input: rounding CEIL", _graph(lambda n: _dense(n, _input(n, 4, rounding="CEIL"), 4, 3))),
        ("weights: free scale", weights(scale=FREE)),
        ("weights: scale per channel", weights(scale=each)),
        ("weights: zero point", weights(zero=1.0)),
        ("weights: bipolar, activations of 8 bits", _graph(_bipolar_weights)),
    ]
    return [("Quantisers", title, proto) for title, proto in found]


def _thresholds(n: Net) -> str:
    table = np.sort(_values(3, 5), axis=1)
    return n.thresholds(_dense(n, _input(n, 4), 4, 3), table, out_scale=0.5, out_bias=-1.0)


def _trunc(n: Net) -> str:
    x = n.quant(_dense(n, _input(n, 4), 4, 3), 0.25, 6)
    parameters = [n.const(v) for v in (0.25, 0.0, 6.0, 4.0)]
    return n.op("Trunc", x, *parameters, domain=n.domain, rounding_mode="FLOOR", signed=1, narrow=0)


def _minifloat(n: Net) -> str:
    parameters = [n.const(v) for v in (0.25, 2.0, 1.0, 1.0, 6.0)]
    flags = {"has_inf": 0, "has_nan": 0, "has_subnormal": 1, "saturation": 1}
    w = n.op("FloatQuant", n.const(_values(4, 3)), *parameters, domain=n.domain, **flags)
    return n.quant(n.op("MatMul", _input(n, 4), w), 0.5, 5)


def _pair(n: Net) -> str:
    x = _dense(n, _input(n, 4), 4, 3)
    parameters = n.const(np.float32(FREE)), n.const(np.int8(3), np.int8)
    return n.op("DequantizeLinear", n.op("QuantizeLinear", x, *parameters), *parameters)


def _bipolar_weights(n: Net) -> str:
    w = n.bipolar(n.const(_values(4, 3)), np.float32(1.0))
    return n.quant(n.op("MatMul", _input(n, 4, bits=8), w), 2.0, 6)


def _linear() -> list[Row]:
    def conv(*shape: int, image: tuple[int, ...] = (2, 5, 5), **more: Any) -> onnx.ModelProto:
        more = {"kernel_shape": list(shape[2:]), **more}
        return _graph(lambda n: n.quant(_conv(n, _input(n, *image), *shape, **more), FREE, 5))

    flat = [
        ("MatMul", _graph(lambda n: n.quant(_dense(n, _input(n, 4), 4, 3), FREE, 5))),
        ("MatMul, no quantiser behind", _graph(lambda n: _dense(n, _input(n, 4), 4, 3, FREE))),
        ("MatMul of (N, T, C)",
         _graph(lambda n: n.quant(_dense(n, _input(n, 5, 4), 4, 3), FREE, 5))),
        ("Gemm, transposed, alpha, beta, bias", _graph(_gemm)),
        ("Conv1d", conv(3, 2, 3, image=(2, 8))),
        ("Conv1d, stride, dilation, asymmetric padding",
         conv(3, 2, 3, image=(2, 9), strides=[2], dilations=[2], pads=[2, 1])),
        ("Conv1d, padding beside values above zero", _graph(_padded_above_zero)),
        ("Conv2d", conv(3, 2, 3, 3)),
        ("Conv2d, scale per channel and bias", _graph(_conv_bias)),
        ("Conv2d, stride and asymmetric padding",
         conv(3, 2, 3, 2, strides=[2, 1], pads=[1, 0, 0, 1])),
        ("Conv2d, dilation", conv(3, 2, 2, 2, dilations=[2, 2])),
        ("Conv2d, auto_pad SAME_UPPER", conv(3, 2, 2, 3, auto_pad="SAME_UPPER")),
        ("Conv2d, two groups", conv(4, 1, 3, 3, group=2)),
        ("Conv2d, depthwise", conv(2, 1, 3, 3, group=2)),
        ("Conv2d, depthwise, stride, padding, multiplier 2",
         conv(4, 1, 3, 3, group=2, strides=[2, 2], pads=[1, 1, 1, 1])),
        ("ConvTranspose1d", conv(2, 3, 3, image=(2, 5), op="ConvTranspose", strides=[2])),
        ("ConvTranspose2d, stride, padding, output padding",
         conv(2, 3, 3, 3, image=(2, 4, 4), op="ConvTranspose", strides=[2, 2], pads=[1, 1, 1, 1],
              output_padding=[1, 1])),
        ("ConvTranspose2d, groups",
         conv(2, 2, 2, 2, image=(2, 4, 4), op="ConvTranspose", strides=[2, 2], group=2)),
    ]  # fmt: skip
    return [("Linear operators", title, proto) for title, proto in flat]


def _padded_above_zero(n: Net) -> str:
    """The lowest value of the input is 2, and the padding 0 is below it."""
    x = _input(n, 1, 4, scale=1.0, bits=2, signed=0, zero=-2.0)
    w = n.quant(n.const(np.float32([[[-1.0, 1.0, 1.0]]])), 0.5, 4)
    return n.op("Conv", x, w, kernel_shape=[3], pads=[1, 1])


def _gemm(n: Net) -> str:
    w = n.quant(n.const(_values(3, 4)), FREE, 4)
    x = n.op("Gemm", _input(n, 4), w, n.const(_values(3)), transB=1, alpha=0.75, beta=2.0)
    return n.quant(x, FREE, 5)


def _conv_bias(n: Net) -> str:
    scale = np.float32([0.2, 0.3, 0.1]).reshape(-1, 1, 1, 1)
    w = n.quant(n.const(_values(3, 2, 3, 3)), scale, 4)
    x = n.op("Conv", _input(n, 2, 5, 5), w, n.const(_values(3)), kernel_shape=[3, 3])
    return n.quant(x, FREE, 5)


def _pools() -> list[Row]:
    def pool(op: str, image: tuple[int, ...] = (2, 5, 5), **more: Any) -> onnx.ModelProto:
        return _graph(lambda n: n.quant(n.op(op, _input(n, *image), **more), FREE, 5))

    two: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    found = [
        ("MaxPool1d", pool("MaxPool", (2, 6), kernel_shape=[2], strides=[2])),
        ("MaxPool2d", pool("MaxPool", **two)),
        ("MaxPool2d of what falls in one channel", _graph(_falling)),
        ("MaxPool2d, padding", pool("MaxPool", **two, pads=[1, 0, 0, 1])),
        ("MaxPool2d, ceil_mode", pool("MaxPool", **two, ceil_mode=1)),
        ("AveragePool1d", pool("AveragePool", (2, 6), kernel_shape=[3])),
        ("AveragePool2d", pool("AveragePool", **two)),
        ("AveragePool2d, padding counted",
         pool("AveragePool", **two, pads=[1, 0, 1, 0], count_include_pad=1)),
        ("AveragePool2d, padding not counted", pool("AveragePool", **two, pads=[1, 0, 1, 0])),
        ("GlobalAveragePool", pool("GlobalAveragePool")),
        ("GlobalMaxPool", pool("GlobalMaxPool")),
        ("ReduceMean", pool("ReduceMean", axes=[2, 3], keepdims=0)),
        ("ReduceMean over channels", pool("ReduceMean", axes=[1])),
        ("ReduceSum", _graph(_sum_over_axes)),
        ("ReduceMax", pool("ReduceMax", axes=[3])),
    ]  # fmt: skip
    return [("Pooling and reductions", title, proto) for title, proto in found]


def _falling(n: Net) -> str:
    x = n.op("Mul", _input(n, 2, 5, 5), n.const(np.float32([-0.7, 0.4]).reshape(1, 2, 1, 1)))
    return n.quant(n.op("MaxPool", x, kernel_shape=[2, 2]), FREE, 5)


def _sum_over_axes(n: Net) -> str:
    return n.quant(n.op("ReduceSum", _input(n, 2, 5, 5), n.const([2, 3], np.int64)), FREE, 6)


def _elementwise() -> list[Row]:
    def behind(op: str, *constants: Any, **more: Any) -> onnx.ModelProto:
        def build(n: Net) -> str:
            x = _conv(n, _input(n, 2, 4, 4), 3, 2, 2, 2, kernel_shape=[2, 2])
            names = ["" if c is None else n.const(np.float32(c)) for c in constants]
            return n.quant(n.op(op, x, *names, **more), FREE, 5)

        return _graph(build)

    def two(op: str, first: float, second: float) -> onnx.ModelProto:
        def build(n: Net) -> str:
            x = _input(n, 3)
            parts = [
                n.quant(_dense(n, x, 3, 3, zero=z), s, 5) for z, s in ((0, first), (1, second))
            ]
            return n.quant(n.op(op, *parts), 0.5, 6)

        return _graph(build)

    channel = np.float32([0.5, -1.3, 0.7]).reshape(1, 3, 1, 1)
    norm = [np.float32(v) for v in ([0.5, 1.1, -0.7], [0.1, 0.2, 0.3], [0, 0.1, 0.2], [1, 2, 0.5])]
    found = [
        ("Relu", behind("Relu")),
        ("LeakyRelu", behind("LeakyRelu", alpha=0.1)),
        ("PRelu, slope per channel", behind("PRelu", np.abs(channel[0]))),
        ("Clip", behind("Clip", -0.5, 1.0)),
        ("HardSigmoid", behind("HardSigmoid")),
        ("Sigmoid", behind("Sigmoid")),
        ("Tanh", behind("Tanh")),
        ("Neg", behind("Neg")),
        ("Max with a number", behind("Max", 0.1)),
        ("Min with a number", behind("Min", 0.4)),
        ("BatchNormalization", behind("BatchNormalization", *norm)),
        ("Add constant per channel", behind("Add", channel)),
        ("Mul by a constant per channel", behind("Mul", channel)),
        ("Sub, Div by a number", behind("Div", 0.7)),
        ("Add of two tensors, one scale", two("Add", 0.5, 0.5)),
        ("Add of two tensors, two scales", two("Add", 0.5, 0.21)),
        ("Sub of two tensors, one scale", two("Sub", 0.5, 0.5)),
        ("Sub of two tensors, two scales", two("Sub", 0.25, 0.21)),
        ("Mul of two tensors", two("Mul", 0.5, 0.21)),
    ]
    return [("Elementwise", title, proto) for title, proto in found]


def _movement() -> list[Row]:
    def moved(op: str, *others: Any, opset: int = 17, **more: Any) -> onnx.ModelProto:
        def build(n: Net) -> str:
            x = _input(n, 4, 4, 4)
            names = [
                ""
                if v is None
                else n.const(v, np.int64 if np.array(v).dtype.kind == "i" else np.float32)
                for v in others
            ]
            return n.quant(n.op(op, x, *names, **more), 0.5, 4)

        return _graph(build, opset=opset)

    def joined(n: Net) -> str:
        x = _input(n, 4, 4, 4)
        return n.op("Concat", n.quant(x, 0.5, 4), n.quant(x, 0.25, 4), axis=1)

    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric",
               "nearest_mode": "floor"}  # fmt: skip
    found = [
        ("Flatten", moved("Flatten", axis=1)),
        ("Reshape", moved("Reshape", [-1, 8, 8])),
        ("Transpose", moved("Transpose", perm=[0, 2, 3, 1])),
        ("Squeeze, Unsqueeze", moved("Unsqueeze", [1])),
        ("Slice", moved("Slice", [1], [4], [2], [2])),
        ("Split", _graph(_split)),
        ("Gather", moved("Gather", [2, 0], axis=1)),
        ("Concat", _graph(joined)),
        ("Pad, constant", moved("Pad", [0, 0, 1, 1, 0, 0, 0, 1], 0.5, mode="constant")),
        ("Pad in front of the input's quantiser", _graph(_padded_input)),
        ("Pad, reflect", moved("Pad", [0, 0, 1, 1, 0, 0, 0, 1], mode="reflect")),
        ("Pad, edge", moved("Pad", [0, 0, 1, 1, 0, 0, 0, 1], mode="edge")),
        ("Resize, nearest", moved("Resize", None, [1.0, 1.0, 2.0, 2.0], **nearest)),
        ("Expand, Tile", moved("Tile", [1, 2, 1, 1])),
        ("DepthToSpace", moved("DepthToSpace", blocksize=2)),
        ("SpaceToDepth", moved("SpaceToDepth", blocksize=2)),
    ]
    return [("Rearrangements", title, proto) for title, proto in found]


def _padded_input(n: Net) -> str:
    pads = n.const([0, 0, 1, 1, 0, 0, 0, 1], np.int64)
    return n.quant(n.op("Pad", n.input("x", 1, 3, 3), pads, n.const(np.float32(0.6))), P2, 5)


def _split(n: Net) -> str:
    x = _input(n, 4, 4, 4)
    names = ["left", "right"]
    n.nodes.append(
        onnx.helper.make_node("Split", [x, n.const([1, 3], np.int64)], names, "split", axis=1)
    )
    return n.quant("right", 0.5, 4)


def _networks() -> list[Row]:
    def tail(op: str, **more: Any) -> onnx.ModelProto:
        return _graph(lambda n: n.op(op, n.quant(_dense(n, _input(n, 4), 4, 3), FREE, 5), **more))

    found = [
        ("Conv, Relu, MaxPool, Flatten, MatMul", _graph(_small_cnn)),
        ("residual block", _graph(_residual)),
        ("two inputs", _graph(_two_inputs)),
        ("final Softmax, on the host", tail("Softmax", axis=1)),
        ("final ArgMax, on the host", tail("ArgMax", axis=1)),
    ]
    return [("Networks", title, proto) for title, proto in found]


def _small_cnn(n: Net) -> str:
    x = n.op("Relu", _conv(n, _input(n, 1, 6, 6), 2, 1, 3, 3, scale=FREE, kernel_shape=[3, 3]))
    x = n.op("MaxPool", n.quant(x, 0.3, 4, 0), kernel_shape=[2, 2], strides=[2, 2])
    return n.quant(_dense(n, n.op("Flatten", x, axis=1), 8, 3, FREE), 0.4, 5)


def _residual(n: Net) -> str:
    x = _input(n, 2, 4, 4)
    inner = _conv(n, x, 2, 2, 3, 3, scale=FREE, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return n.quant(n.op("Add", x, n.quant(n.op("Relu", inner), FREE, 4, 0)), 0.4, 5)


def _two_inputs(n: Net) -> str:
    x, y = _input(n, 3), n.quant(n.input("z", 3), FREE, 4)
    return n.quant(_dense(n, n.quant(n.op("Add", x, y), 0.25, 6), 3, 2), FREE, 5)
