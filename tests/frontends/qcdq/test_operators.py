"""Operators on integer codes (the QOperator format): the same numbers as onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from support.qcdq_graphs import MICROSOFT, Qcdq, onnxruntime_on, same_but_for_ties

from hqc.diagnostics import HqcError
from hqc.equivalence.qonnx_oracle import run_qonnx

RNG = np.random.default_rng(8)


def triple(net: Qcdq, codes: str, scale: Any, zero: Any, type_: str = "UINT8") -> list[str]:
    return [codes, net.const(scale), net.integers(zero, type_)]


def samples(*dims: int, count: int = 300) -> np.ndarray:
    return np.random.default_rng(1).integers(-900, 900, (count, *dims)).astype(np.float32) / 8


def finish(net: Qcdq, codes: str, scale: float, zero: int, type_: str = "UINT8") -> Any:
    net.d(codes, scale, zero, type_, name="y")
    return net.proto("y")


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("zero", [0, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_convolution(wide: bool, zero: int, bias: bool) -> None:
    """Scales and zero points of weights per tensor and per channel."""
    net = Qcdq()
    x = triple(net, net.q(net.input("x", 2, 5, 5), 0.5, 7, "UINT8"), 0.5, 7)
    size = (3,) if wide else ()
    scale = [0.25, 0.125, 0.5] if wide else 0.25
    weights = net.integers(RNG.integers(-128, 128, (3, 2, 3, 3)))
    w = triple(net, weights, scale, np.full(size, 0 if wide else zero), "INT8")
    y = [net.const(16.0), net.integers(zero, "UINT8")]
    b = [net.integers(RNG.integers(-9999, 9999, 3), "INT32")] if bias else []
    out = net.op("QLinearConv", *x, *w, *y, *b, pads=[1, 1, 1, 1], strides=[2, 2])
    same_but_for_ties(finish(net, out, 16.0, zero), samples(2, 5, 5), ties=False)


@pytest.mark.parametrize(("scale", "type_"), [(0.25, "UINT8"), ([0.5, 0.25, 2.0], "INT8")])
@pytest.mark.parametrize("zero", [0, 5])
def test_matrix_product(scale: Any, type_: str, zero: int) -> None:
    net = Qcdq()
    x = triple(net, net.q(net.input("x", 4), 0.5, 9, "UINT8"), 0.5, 9)
    weights = net.integers(RNG.integers(0, 128, (4, 3)), type_)
    w = triple(net, weights, scale, np.full(np.shape(scale), zero), type_)
    y = [net.const(8.0), net.integers(zero, "UINT8")]
    out = net.op("QLinearMatMul", *x, *w, *y)
    same_but_for_ties(finish(net, out, 8.0, zero), samples(4), ties=False)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("scale", [0.25, [0.5, 0.25, 2.0]])
@pytest.mark.parametrize("to_float", [False, True])
def test_gemm(transposed: int, scale: Any, to_float: bool) -> None:
    net = Qcdq(17)
    x = triple(net, net.q(net.input("x", 4), 0.5, 9, "UINT8"), 0.5, 9)
    weights = net.integers(RNG.integers(-128, 128, (3, 4) if transposed else (4, 3)))
    w = triple(net, weights, scale, np.zeros(np.shape(scale)), "INT8")
    b = net.integers(RNG.integers(-9999, 9999, 3), "INT32")
    y = [] if to_float else [net.const(8.0), net.integers(1, "UINT8")]
    out = net.op("QGemm", *x, *w, b, *y, transB=transposed, domain=MICROSOFT)
    if to_float:
        net.qd(out, 8.0, name="y")
        proto = net.proto("y")
    else:
        proto = finish(net, out, 8.0, 1)
    same_but_for_ties(proto, samples(4), ties=False)


@pytest.mark.parametrize("op", ["MatMulInteger", "ConvInteger"])
def test_integer_accumulators(op: str) -> None:
    net = Qcdq()
    dims, shape = ((4,), (4, 3)) if op == "MatMulInteger" else ((2, 4, 4), (3, 2, 3, 3))
    codes = net.q(net.input("x", *dims), 0.5, 9, "UINT8")
    weights = net.integers(RNG.integers(0, 256, shape), "UINT8")
    zeros = [net.integers(9, "UINT8"), net.integers(100, "UINT8")]
    acc = net.op(op, codes, weights, *zeros)
    y = net.op("Mul", net.op("Cast", acc, to=TensorProto.FLOAT), net.const(0.125))
    net.qd(y, 64.0, name="y")
    same_but_for_ties(net.proto("y"), samples(*dims), ties=False)


def exact(net: Qcdq, x: np.ndarray) -> None:
    """As onnxruntime has it, by qonnx's executor: all scales are powers of two."""
    (want,) = onnxruntime_on(net.proto("y"), {"x": x})
    np.testing.assert_array_equal(run_qonnx(net.model("y"), {"x": x})["y"], want)


ZEROS = pytest.mark.parametrize("zero", [76, 77])


@ZEROS
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul", "QLinearConcat"])
def test_operators_of_two_tensors(op: str, zero: int) -> None:
    """Where onnxruntime adds the zero point before it rounds, odd ones move the ties."""
    net = Qcdq(17)
    x = net.input("x", 3)
    one = triple(net, net.q(x, 0.5, 9, "UINT8"), 0.5, 9)
    other = triple(net, net.q(x, 0.25, 200, "UINT8"), 0.25, 200)
    y = [net.const(1.0), net.integers(zero, "UINT8")]
    if op == "QLinearConcat":
        out = net.op(op, *y, *one, *other, axis=1, domain=MICROSOFT)
    else:
        out = net.op(op, *one, *other, *y, domain=MICROSOFT)
    finish(net, out, 1.0, zero)
    exact(net, samples(3) / 4)


@ZEROS
def test_sum_with_a_constant(zero: int) -> None:
    net = Qcdq(17)
    one = triple(net, net.q(net.input("x", 3), 0.5, 9, "UINT8"), 0.5, 9)
    other = triple(net, net.integers([[1, 200, 50]], "UINT8"), 0.25, 30)
    y = [net.const(1.0), net.integers(zero, "UINT8")]
    out = net.op("QLinearAdd", *one, *other, *y, domain=MICROSOFT)
    same_but_for_ties(finish(net, out, 1.0, zero), samples(3), ties=False)


@ZEROS
@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("QLinearGlobalAveragePool", {"channels_last": 0}),
        ("QLinearAveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("QLinearLeakyRelu", {"alpha": 0.125}),
        ("QLinearSigmoid", {}),
    ],
)
def test_functions_of_codes(op: str, zero: int, attributes: dict[str, Any]) -> None:
    net = Qcdq(17)
    x = triple(net, net.q(net.input("x", 2, 4, 4), 0.5, 9, "UINT8"), 0.5, 9)
    y = [net.const(0.5), net.integers(zero, "UINT8")]
    out = net.op(op, *x, *y, domain=MICROSOFT, **attributes)
    finish(net, out, 0.5, zero)
    exact(net, samples(2, 4, 4) / 4)


@pytest.mark.parametrize("op", ["QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearConv"])
def test_channels_last_is_refused(op: str) -> None:
    net = Qcdq(17)
    x = triple(net, net.q(net.input("x", 4, 4, 2), 0.5, 9, "UINT8"), 0.5, 9)
    y = [net.const(0.5), net.integers(8, "UINT8")]
    out = net.op(op, *x, *y, domain=MICROSOFT, channels_last=1, kernel_shape=[2, 2])
    finish(net, out, 0.5, 8)
    with pytest.raises(HqcError, match="HQC102"):
        net.model("y")


def test_dynamic_quantisation_is_refused() -> None:
    net = Qcdq()
    x = net.input("x", 4)
    net.nodes.append(
        helper.make_node("DynamicQuantizeLinear", [x], ["codes", "scale", "zero"], name="dynamic")
    )
    acc = net.op("MatMulInteger", "codes", net.integers(np.ones((4, 2))), "zero")
    y = net.op("Cast", acc, to=TensorProto.FLOAT)
    net.op("Mul", y, "scale", name="y")
    with pytest.raises(HqcError) as found:
        net.model("y")
    assert [d.code for d in found.value.diagnostics] == ["HQC108"]


def test_computed_weights_are_refused() -> None:
    net = Qcdq()
    x = triple(net, net.q(net.input("x", 1, 4, 4), 0.5, 9, "UINT8"), 0.5, 9)
    w = triple(net, net.q(net.input("w", 1, 3, 3), 0.5, 9, "UINT8"), 0.5, 9)
    out = net.op("QLinearConv", *x, *w, net.const(1.0), net.integers(0, "UINT8"))
    finish(net, out, 1.0, 0)
    with pytest.raises(HqcError, match="HQC103"):
        net.model("y")


@pytest.mark.parametrize("op", ["QLinearSoftmax", "QEmbedLayerNormalization", "MatMulNBits"])
def test_other_operators_of_onnxruntime_are_named(op: str) -> None:
    net = Qcdq()
    net.op(op, net.qd(net.input("x", 4), 0.5), name="y", domain=MICROSOFT)
    with pytest.raises(HqcError, match=f"HQC101.*{op}"):
        net.model("y")
