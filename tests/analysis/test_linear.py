"""Exact convolutions, poolings and rearrangements against onnxruntime on integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.qonnx_graphs import Net

from hqc.analysis.rearrangements import rearrangement
from hqc.diagnostics import HqcError
from hqc.execution.fast import Fast
from hqc.execution.reference import Reference
from hqc.ir import Array
from hqc.ir.onnxruntime_session import session
from hqc.pipeline import DEFAULT
from hqc.pipeline import run as run_pipeline
from hqc.pipeline.registry import Registry
from hqc.text import parse_pipeline

#: Codes and weights are small whole numbers, so onnxruntime's float32 sums are exact.
CONVOLUTIONS: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("Conv", (2, 7, 6), (3, 2, 3, 2), {}),
    ("Conv", (2, 7, 6), (3, 2, 3, 2), {"strides": [2, 3], "pads": [1, 0, 2, 1]}),
    ("Conv", (2, 9, 8), (3, 2, 2, 3), {"dilations": [3, 2], "pads": [0, 3, 1, 0]}),
    ("Conv", (4, 5, 5), (6, 2, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    ("Conv", (3, 5, 5), (6, 1, 2, 2), {"group": 3, "strides": [2, 1]}),
    ("Conv", (2, 7, 6), (3, 2, 3, 2), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", (2, 7, 6), (3, 2, 3, 2), {"auto_pad": "SAME_LOWER", "strides": [2, 1]}),
    ("Conv", (2, 7, 6), (3, 2, 3, 2), {"auto_pad": "VALID"}),
    ("Conv", (3, 9), (4, 3, 3), {"strides": [2], "pads": [2, 1]}),
    ("ConvTranspose", (2, 4, 3), (2, 3, 3, 2), {}),
    ("ConvTranspose", (2, 4, 3), (2, 3, 3, 2), {"strides": [2, 3], "pads": [1, 0, 0, 1]}),
    ("ConvTranspose", (2, 4, 3), (2, 3, 2, 2), {"strides": [3, 2], "output_padding": [1, 0]}),
    (
        "ConvTranspose",
        (4, 3, 3),
        (4, 3, 3, 3),
        {"group": 2, "strides": [2, 2], "dilations": [2, 1]},
    ),
    ("ConvTranspose", (2, 4, 3), (2, 3, 4, 4), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("ConvTranspose", (2, 5, 5), (2, 1, 1, 1), {"strides": [1, 1], "pads": [1, 1, 0, 1]}),
    ("ConvTranspose", (3, 5), (3, 2, 3), {"strides": [2], "pads": [1, 1]}),
]
POOLS: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("MaxPool", (2, 6, 5), {"kernel_shape": [2, 2]}),
    ("MaxPool", (2, 6, 5), {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 0]}),
    ("MaxPool", (2, 6, 5), {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", (2, 7, 7), {"kernel_shape": [2, 2], "dilations": [2, 3]}),
    ("MaxPool", (2, 9), {"kernel_shape": [3], "strides": [2], "auto_pad": "SAME_UPPER"}),
    ("GlobalMaxPool", (3, 4, 5), {}),
    ("AveragePool", (2, 6, 5), {"kernel_shape": [2, 2], "strides": [2, 1]}),
    (
        "AveragePool",
        (2, 6, 8),
        {"kernel_shape": [4, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    ("GlobalAveragePool", (3, 4, 4), {}),
]
MOVES: list[tuple[str, tuple[int, ...], list[Any], dict[str, Any]]] = [
    ("Transpose", (2, 3, 4), [], {"perm": [0, 3, 1, 2]}),
    ("Reshape", (2, 3, 4), [np.array([-1, 6, 4])], {}),
    ("Flatten", (2, 3, 4), [], {}),
    ("Unsqueeze", (2, 3), [np.array([2])], {}),
    ("Squeeze", (2, 1, 3), [np.array([2])], {}),
    (
        "Slice",
        (4, 5),
        [np.array([1, 4]), np.array([3, 0]), np.array([1, 2]), np.array([1, -2])],
        {},
    ),
    ("Gather", (4, 5), [np.array([3, 0, 0])], {"axis": 1}),
    ("Pad", (2, 3), [np.array([0, 1, 2, 0, 0, 1])], {}),
    ("Pad", (2, 3), [np.array([0, 0, 1, 0, 0, 2]), np.float32(2.0)], {}),
    ("Pad", (2, 3), [np.array([0, 0, 2, 0, 0, 1])], {"mode": "reflect"}),
    ("Pad", (2, 3), [np.array([0, 0, 2, 0, 0, 1])], {"mode": "edge"}),
    ("Expand", (2, 1, 3), [np.array([1, 2, 4, 3])], {}),
    ("Tile", (2, 3), [np.array([1, 2, 1])], {}),
    ("DepthToSpace", (8, 2, 3), [], {"blocksize": 2}),
    ("SpaceToDepth", (2, 4, 6), [], {"blocksize": 2}),
]


def ort(op: str, x: Array, constants: list[Array], attributes: dict[str, Any]) -> Array:
    names = [f"c{i}" for i in range(len(constants))]
    graph = onnx.GraphProto(name="one")
    graph.node.append(helper.make_node(op, ["x", *names], ["y"], **attributes))
    graph.input.append(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, list(x.shape)))
    graph.output.append(onnx.ValueInfoProto(name="y"))
    for name, array in zip(names, constants, strict=True):
        graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return np.asarray(session(graph, 17).run(None, {"x": x})[0])


def exact(net: Net, x: Array) -> list[Array]:
    """The model as imported, after all passes, and in the fast executor."""
    net.op("Identity", "out", name="y")
    model = net.model("y")
    found = [Reference(model).run({"x": x})["y"]]
    run_pipeline(model, parse_pipeline(DEFAULT), Registry.builtin(), check_samples=16)
    return [*found, Reference(model).run({"x": x})["y"], Fast(model).run({"x": x})["y"]]


def codes(shape: tuple[int, ...]) -> Array:
    rng = np.random.default_rng(sum(shape))
    return rng.integers(-8, 8, (5, *shape)).astype(np.float32)


@pytest.mark.parametrize(("op", "shape", "kernel", "attributes"), CONVOLUTIONS)
def test_convolutions(
    op: str, shape: tuple[int, ...], kernel: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    x = codes(shape)
    weights = np.random.default_rng(1).integers(-4, 4, kernel).astype(np.float32)
    net = Net()
    q = net.quant(net.input("x", *shape), 1.0, 4)
    net.op(op, q, net.quant(net.const(weights), 1.0, 4), name="out", **attributes)
    want = ort(op, x, [weights], attributes)
    for got in exact(net, x):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("op", "shape", "attributes"), POOLS)
def test_poolings(op: str, shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    x = codes(shape)
    net = Net()
    q = net.quant(net.input("x", *shape), 1.0, 4)
    q = net.op(op, q, **attributes)
    net.quant(q, 0.25, 8, rounding="FLOOR", name="out")
    want = np.floor(ort(op, x, [], attributes).astype(np.float64) * 4) / 4
    for got in exact(net, x):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("op", "shape", "constants", "attributes"), MOVES)
def test_rearrangements(
    op: str, shape: tuple[int, ...], constants: list[Any], attributes: dict[str, Any]
) -> None:
    x = codes(shape)
    net = Net()
    q = net.quant(net.input("x", *shape), 1.0, 4)
    names = [net.const(c, np.asarray(c).dtype) for c in constants]
    net.op(op, q, *names, name="out", **attributes)
    want = ort(op, x, constants, attributes)
    for got in exact(net, x):
        np.testing.assert_array_equal(got, want)


def test_padding_writes_zero_where_codes_have_a_zero_point() -> None:
    """Code 3 stands for 0: that is what must be read beyond the edge."""
    net = Net()
    q = net.quant(net.input("x", 1, 3), 0.5, 4, signed=0, zero=3.0)
    w = net.quant(net.const(np.ones((1, 1, 3))), 1.0, 3)
    net.op("Conv", q, w, name="out", pads=[1, 1])
    x = np.array([[[1.0, 2.0, -1.5]]], np.float32)
    for got in exact(net, x):
        assert got.ravel().tolist() == [3.0, 1.5, 0.5]


def test_averages_over_uneven_windows() -> None:
    """The reference knows them; as hardware they are refused."""
    net = Net()
    q = net.quant(net.input("x", 1, 4), 1.0, 4)
    a = net.op("AveragePool", q, kernel_shape=[3], pads=[1, 1])
    net.quant(a, 0.125, 8, rounding="FLOOR", name="y")
    model = net.model("y")
    x = np.array([[[1.0, 2.0, 4.0, 7.0]]], np.float32)
    got = Reference(model).run({"x": x})["y"]
    assert got.ravel().tolist() == [1.5, 2.25, 4.25, 5.5]
    with pytest.raises(HqcError, match=r"HQC205.*different sizes"):
        run_pipeline(model, parse_pipeline(DEFAULT), Registry.builtin(), check_samples=8)


@pytest.mark.parametrize(
    ("op", "constants", "attributes"),
    [
        ("Transpose", [], {"perm": [1, 0, 2]}),
        ("Tile", [np.array([2, 1, 1])], {}),
        ("Resize", [np.float32([]), np.float32([1, 1, 2])], {"mode": "linear"}),
    ],
)
def test_what_is_no_rearrangement(
    op: str, constants: list[Any], attributes: dict[str, Any]
) -> None:
    net = Net()
    q = net.quant(net.input("x", 2, 3, batch=2), 1.0, 4)
    names = [net.const(c, np.asarray(c).dtype) for c in constants]
    net.op(op, q, *names, name="y", **attributes)
    model = net.raw("y")
    with pytest.raises(HqcError, match="HQC102"):
        rearrangement(next(n for n in model.graph if n.op_type == op))


def test_joined_tensors_keep_their_own_scales() -> None:
    net = Net()
    x = net.input("x", 2, 3)
    a, b = net.quant(x, 0.5, 4), net.quant(x, 0.3, 6)
    joined = net.op("Concat", a, b, axis=1)
    net.quant(joined, 0.1, 8, name="out")
    x_ = codes((2, 3)) / 7
    outputs = exact(net, x_)
    for got in outputs[1:]:
        np.testing.assert_array_equal(got, outputs[0])


def test_a_tensor_joined_to_itself() -> None:
    net = Net()
    x = net.input("x", 2, 3)
    a, b = net.quant(x, 0.5, 4), net.quant(x, 0.25, 6)
    net.op("Concat", a, b, a, axis=1, name="out")
    outputs = exact(net, codes((2, 3)) / 7)
    for got in outputs[1:]:
        np.testing.assert_array_equal(got, outputs[0])
    np.testing.assert_array_equal(outputs[0][:, :2], outputs[0][:, 4:])
