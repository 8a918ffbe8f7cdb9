"""QuantizeLinear, Clip and DequantizeLinear: the same numbers as onnxruntime, ties included."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from support.qcdq_graphs import LIMITS, Qcdq, every_tie, onnxruntime_on, same_but_for_ties
from support.qonnx_graphs import ops

from hqc.analysis.grid_constants import exact_values, grid_constant, round_float
from hqc.diagnostics import HqcError
from hqc.equivalence.float_error import undecided
from hqc.execution.reference import Reference
from hqc.frontends.onnx.grids import grid_data, saturating
from hqc.ir.operators import Quant
from hqc.passes.fold_quantizers import FoldQuantizers


def refused(net: Qcdq, *outputs: str) -> Any:
    with pytest.raises(HqcError) as found:
        net.model(*(outputs or ("y",)))
    return found.value.diagnostics[0]


# --- activations --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "place"),
    [
        *product(["INT4", "UINT4", "INT8", "UINT8"], [0.0, 0.01, 0.3, 0.498, 0.5, 0.9, 1.0]),
        *product(["INT16", "UINT16"], [0.0, 0.498]),
    ],
)
def test_ties_of_power_of_two_scales_are_the_same(type_: str, place: float) -> None:
    """Zero points over the whole range, odd and even; float32 commits no error here."""
    lo, hi = LIMITS[type_]
    for zero in {round(lo + place * (hi - lo)), round(lo + place * (hi - lo)) ^ 1}:
        net = Qcdq()
        net.qd(net.input("x", 1), 0.25, zero, type_, name="y")
        same_but_for_ties(net.proto("y"), every_tie(0.25, zero, type_), ties=False)


@pytest.mark.parametrize("scale", [0.1, 0.0371, 3.7])
@pytest.mark.parametrize(("type_", "zero"), [("UINT8", 0), ("UINT8", 127), ("INT8", -3)])
def test_other_scales_differ_on_ties_only(scale: float, type_: str, zero: int) -> None:
    net = Qcdq()
    net.qd(net.input("x", 1), scale, zero, type_, name="y")
    same_but_for_ties(net.proto("y"), every_tie(scale, zero, type_))


@pytest.mark.parametrize(
    ("zero", "type_", "want"),
    [
        (0, "INT8", [(8, True, 0)]),
        (0, "UINT8", [(8, False, 0)]),
        (128, "UINT8", [(8, True, 0)]),
        (-128, "INT8", [(8, False, 0)]),
        (4, "UINT8", [(8, True, -124)]),
        (127, "UINT8", [(9, True, 0), (8, True, -1)]),
    ],
)
def test_forms(zero: int, type_: str, want: list[tuple[int, bool, int]]) -> None:
    """One quantiser, without a zero point where there is one; two for odd zero points."""
    net = Qcdq()
    net.qd(net.input("x", 1), 0.25, zero, type_, name="y")
    views = [Quant.read(n) for n in net.model("y").graph]
    assert [(v.bits, v.signed, int(v.zero_point)) for v in views] == want


@given(st.integers(-300, 300), st.integers(1, 600), st.integers(-2, 3))
@settings(max_examples=300, deadline=None)
def test_any_limits(lo: int, span: int, shift: int) -> None:
    """In units of the scale; an odd shift before rounding moves the ties."""
    hi = lo + span
    steps = np.arange(4 * lo - 20, 4 * hi + 21) / 4
    want = np.clip(np.rint(steps + shift) - shift, lo, hi)
    got = steps
    for quant in saturating(np.ones((), np.float32), np.asarray(lo), np.asarray(hi), shift):
        low, high = quant.code_limits
        codes = round_float(np.clip(got + quant.zero_point, low, high), quant.rounding)
        got = codes - quant.zero_point
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("limits", [(-8, 7), (-7, 7), (0, 15), (0, 14), (-5, 9), (-128, 20)])
@pytest.mark.parametrize("zero", [0, 1, -2])
def test_clipped_codes(limits: tuple[int, int], zero: int) -> None:
    net = Qcdq()
    codes = net.q(net.input("x", 1), 0.5, zero)
    ends = [net.integers(end) for end in limits]
    net.d(net.op("Clip", codes, *ends), 0.5, zero, name="y")
    same_but_for_ties(net.proto("y"), every_tie(0.5, zero, "INT8"), ties=False)


@pytest.mark.parametrize("zero", [[0, 0], [2, -4], [1, -3], [1, 2]])
@pytest.mark.parametrize("dims", [(2,), (2, 3), (2, 3, 2)])
def test_scales_per_channel(zero: list[int], dims: tuple[int, ...]) -> None:
    net = Qcdq()
    net.qd(net.input("x", *dims), [0.25, 2.0], zero, axis=1, name="y")
    x = np.random.default_rng(0).integers(-2000, 2000, (500, *dims)).astype(np.float32) / 8
    same_but_for_ties(net.proto("y"), x, ties=False)


@pytest.mark.parametrize("opset", [10, 13, 19, 21, 23])
def test_opsets_and_defaults(opset: int) -> None:
    """Without a zero point the codes are uint8."""
    net = Qcdq(opset)
    scale = net.const(0.5)
    codes = net.op("QuantizeLinear", net.input("x", 1), scale)
    net.op("DequantizeLinear", codes, scale, name="y")
    same_but_for_ties(net.proto("y"), every_tie(0.5, 0, "UINT8"), ties=False)


@pytest.mark.parametrize("type_", ["INT4", "INT8", "UINT16"])
def test_the_type_may_be_an_attribute(type_: str) -> None:
    net = Qcdq(21)
    scale, kind = net.const(0.5), TensorProto.DataType.Value(type_)
    codes = net.op("QuantizeLinear", net.input("x", 1), scale, output_dtype=kind)
    net.op("DequantizeLinear", codes, scale, name="y")
    same_but_for_ties(net.proto("y"), every_tie(0.5, 0, type_), ties=False)


def test_one_quantiser_for_several_users() -> None:
    net = Qcdq()
    codes = net.q(net.input("x", 2), 0.5, 3)
    one, two = (net.d(codes, 0.5, 3) for _ in range(2))
    net.qd(net.op("Add", one, two), 1.0, 0, name="y")
    assert ops(net.model("y")) == ["Quant", "Quant", "Add", "Quant"]
    x = np.random.default_rng(0).integers(-300, 300, (99, 2)).astype(np.float32) / 4
    same_but_for_ties(net.proto("y"), x, ties=False)


def test_microsoft_quantisers() -> None:
    net = Qcdq(17)
    scale, zero = net.const(0.5), net.integers(7, "UINT16")
    codes = net.op("QuantizeLinear", net.input("x", 1), scale, zero, domain="com.microsoft")
    net.op("DequantizeLinear", codes, scale, zero, domain="com.microsoft", name="y")
    same_but_for_ties(net.proto("y"), every_tie(0.5, 7, "UINT16"), ties=False)


# --- constants ----------------------------------------------------------------------------------


def weights_of(model: Any, op: str = "MatMul", index: int = 1) -> list[Fraction]:
    node = next(n for n in model.graph if n.op_type == op)
    grid = grid_constant(node.inputs[index])
    assert grid is not None
    return grid.values()


@pytest.mark.parametrize("type_", ["INT4", "UINT4", "INT8", "UINT8", "INT16", "INT32"])
@pytest.mark.parametrize(("scale", "axis"), [(0.3, 1), ([0.3, 0.7, 1e-9], 1), ([0.1, 1e9], 0)])
@pytest.mark.parametrize("with_zero", [False, True])
def test_weights(type_: str, scale: Any, axis: int, with_zero: bool) -> None:
    rng = np.random.default_rng(5)
    lo, hi = LIMITS[type_]
    with_zero = with_zero and type_ != "INT32"  # which has none, by the specification
    codes = rng.integers(lo, hi + 1, (2, 3))
    zero = rng.integers(lo, hi + 1, np.shape(scale)) if with_zero else np.zeros(np.shape(scale))
    net = Qcdq()
    x = net.qd(net.input("x", 2), 0.5)
    weights = net.d(net.integers(codes, type_), scale, zero, type_, axis=axis)
    net.op("MatMul", x, weights, name="y")
    steps, shift = (np.asarray(v) for v in (np.float32(scale), zero))
    if steps.ndim:
        steps, shift = (np.expand_dims(v, 1 - axis) for v in (steps, shift))
    steps, shift = (np.broadcast_to(v, (2, 3)) for v in (steps, shift))
    want = [
        (int(c) - int(z)) * Fraction(float(s))
        for c, z, s in zip(codes.flat, shift.flat, steps.flat, strict=True)
    ]
    assert weights_of(net.model("y")) == want


def test_weights_quantised_in_the_graph() -> None:
    """As onnxruntime writes them on request, and as exporters do: codes come from float weights."""
    net = Qcdq()
    x = net.qd(net.input("x", 2), 0.5)
    values = np.arange(-30, 30).reshape(2, 30) / 8  # full of ties, and of codes that saturate
    codes = net.op("Transpose", net.q(net.const(values.T), 0.25, 1, "INT4"), perm=[1, 0])
    net.op("MatMul", x, net.d(codes, 0.25, 1, "INT4"), name="y")
    grid = np.random.default_rng(0).integers(-128, 128, (50, 2)).astype(np.float32) / 2
    same_but_for_ties(net.proto("y"), grid, ties=False)


@pytest.mark.parametrize("move", ["Transpose", "Reshape", "Flatten"])
@pytest.mark.parametrize("axis", [0, 1])
def test_weights_rearranged_after_dequantising(move: str, axis: int) -> None:
    codes = np.arange(6).reshape((3, 2) if move == "Transpose" else (2, 3)) - 3
    net = Qcdq()
    x = net.qd(net.input("x", 2), 0.5)
    scale = [0.5, 2.0, 0.25][: codes.shape[axis]]
    w = net.d(net.integers(codes), scale, np.zeros(len(scale)), axis=axis)
    extra = [net.const([2, 3], np.int64)] if move == "Reshape" else []
    w = net.op(move, w, *extra)
    net.op("MatMul", x, w, name="y")
    grid = np.random.default_rng(0).integers(-128, 128, (50, 2)).astype(np.float32) / 2
    same_but_for_ties(net.proto("y"), grid, ties=False)
    assert ops(net.model("y")) == ["Quant", "Quant", "MatMul"]


def test_convolution_weights_per_channel() -> None:
    rng = np.random.default_rng(6)
    codes, steps = rng.integers(-128, 128, (3, 2, 2, 2)), np.float32([0.5, 0.3, 2.0])
    net = Qcdq()
    x = net.qd(net.input("x", 2, 4, 4), 0.5)
    w = net.d(net.integers(codes), steps, np.zeros(3), axis=0)
    net.op("Conv", x, w, name="y")
    want = codes * np.array([Fraction(float(s)) for s in steps]).reshape(3, 1, 1, 1)
    assert weights_of(net.model("y"), "Conv") == list(want.ravel())


BIASES = [5, -(2**20) - 1, 2**22 + 1, 2**24 + 1, -(2**30) - 7, 2**31 - 1]


@pytest.mark.parametrize("code", BIASES)
@pytest.mark.parametrize("scale", [2.0**-12, 0.0003, 1.7e-7])
def test_biases_are_exact(code: int, scale: float) -> None:
    """Codes beyond 2**24 are no float32 numbers, but the IR has them as they are."""
    net = Qcdq()
    x = net.qd(net.input("x", 2), 0.5)
    w = net.d(net.integers([[1, 2], [3, 4]]), 0.25)
    b = net.d(net.integers([code, 3], "INT32"), [scale] * 2, [0, 0], "INT32", axis=0)
    y = net.op("Gemm", x, w, b)
    net.qd(y, 64.0, name="y")
    model = net.model("y")
    add = next(n for n in model.graph if n.op_type == "Add")
    values = exact_values(add.inputs[1])
    assert values is not None
    assert list(values.ravel()) == [c * Fraction(float(np.float32(scale))) for c in (code, 3)]
    grid = np.random.default_rng(0).integers(-128, 128, (50, 2)).astype(np.float32) / 2
    want = Reference(model).run({"x": grid})["y"]
    FoldQuantizers().rewrite(model)
    after = exact_values(next(n for n in model.graph if n.op_type == "Add").inputs[1])
    assert after is not None
    assert list(after.ravel()) == list(values.ravel())
    np.testing.assert_array_equal(Reference(model).run({"x": grid})["y"], want)
    same_but_for_ties(net.proto("y"), grid)


def test_constants_beyond_float64_are_refused() -> None:
    with pytest.raises(HqcError, match="HQC107"):
        grid_data(np.array([2**40]), np.float32([1.0]))
    data, quant = grid_data(np.array([-1, 1]), np.float32([1e-44]))  # a subnormal scale
    assert (data.dtype, quant.bits) == (np.float32, 2)


# --- between quantising and dequantising --------------------------------------------------------


@pytest.mark.parametrize("kind", ["MaxPool", "Transpose", "Reshape", "Flatten", "Slice"])
def test_codes_that_move(kind: str) -> None:
    net = Qcdq()
    codes = net.q(net.input("x", 2, 4, 4), 0.5, 3)
    shape = net.const([0, 4, 8], np.int64)
    slices = [net.const(v, np.int64) for v in ([1], [3], [2])]
    moved = {
        "MaxPool": lambda: net.op("MaxPool", codes, kernel_shape=[2, 2], strides=[2, 2]),
        "Transpose": lambda: net.op("Transpose", codes, perm=[0, 2, 3, 1]),
        "Reshape": lambda: net.op("Reshape", codes, shape),
        "Flatten": lambda: net.op("Flatten", codes),
        "Slice": lambda: net.op("Slice", codes, *slices),
    }[kind]()
    net.d(moved, 0.5, 3, name="y")
    x = np.random.default_rng(0).integers(-600, 600, (60, 2, 4, 4)).astype(np.float32) / 8
    same_but_for_ties(net.proto("y"), x, ties=False)


def test_dequantised_on_another_grid() -> None:
    net = Qcdq()
    net.d(net.q(net.input("x", 1), 0.5, 3), 0.75, -2, name="y")
    same_but_for_ties(net.proto("y"), every_tie(0.5, 3, "INT8"), ties=False)


def test_codes_as_numbers() -> None:
    net = Qcdq()
    codes = net.op("Cast", net.q(net.input("x", 1), 0.5, 3), to=TensorProto.INT32)
    net.op("Cast", codes, to=TensorProto.FLOAT, name="y")
    same_but_for_ties(net.proto("y"), every_tie(0.5, 3, "INT8"), ties=False)


@pytest.mark.parametrize("scale", [0.5, 0.3])
def test_integer_interfaces(scale: float) -> None:
    """Floats that hold the codes, and a remark."""
    net = Qcdq()
    net.input("x", 2)
    net.inputs[0].type.tensor_type.elem_type = TensorProto.UINT8
    x = net.d("x", scale, 7, "UINT8")
    net.q(net.op("MatMul", x, net.d(net.integers([[1, 2], [3, -4]]), 0.25)), 0.5, 3)
    net.nodes[-1].output[0] = "y"
    proto = net.proto("y")
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT8
    x_ = np.random.default_rng(0).integers(0, 256, (200, 2))
    (want,) = onnxruntime_on(proto, {"x": x_.astype(np.uint8)})
    model, x_ = net.model("y"), x_.astype(np.float32)
    differ = (Reference(model).run({"x": x_})["y"] != want).any(axis=1)
    assert not np.any(differ & ~undecided(model, {"x": x_}))
    assert not (differ.any() and scale == 0.5)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, -0.5, np.nan, np.inf])
def test_bad_scales(scale: float) -> None:
    net = Qcdq()
    net.qd(net.input("x", 1), scale, name="y")
    assert refused(net).code == "HQC106"


def test_half_precision_scales() -> None:
    net = Qcdq()
    scale = net.const(0.5, np.float16)
    codes = net.op("QuantizeLinear", net.input("x", 1), scale, net.integers(0))
    net.op("DequantizeLinear", codes, scale, net.integers(0), name="y")
    assert refused(net).code == "HQC102"


def test_scales_from_the_data() -> None:
    net = Qcdq()
    x = net.input("x", 1)
    scale = net.op("ReduceMax", x, keepdims=0)
    net.op("DequantizeLinear", net.op("QuantizeLinear", x, scale), scale, name="y")
    assert refused(net).code == "HQC108"


def test_float8_codes() -> None:
    net = Qcdq()
    zero = helper_zero(net, TensorProto.FLOAT8E4M3FN)
    codes = net.op("QuantizeLinear", net.input("x", 1), net.const(0.5), zero)
    net.op("DequantizeLinear", codes, net.const(0.5), zero, name="y")
    found = refused(net)
    assert found.code == "HQC102"
    assert "FLOAT8E4M3FN" in found.message


def helper_zero(net: Qcdq, kind: int) -> str:
    net.constants.append(onnx.helper.make_tensor("zero", kind, (), [0.0]))
    return "zero"


def test_blocks() -> None:
    net = Qcdq()
    x = net.qd(net.input("x", 4), 0.5)
    weights = net.integers(np.ones((4, 2)))
    scale = net.const(np.ones((2, 2)))
    zero = net.integers(np.zeros((2, 2)))
    w = net.op("DequantizeLinear", weights, scale, zero, axis=0, block_size=2)
    net.op("MatMul", x, w, name="y")
    assert refused(net).code == "HQC102"


def test_operators_on_codes() -> None:
    net = Qcdq()
    codes = net.q(net.input("x", 1), 0.5)
    net.d(net.op("Abs", codes), 0.5, name="y")
    found = refused(net)
    assert (found.code, "Abs" in found.message) == ("HQC102", True)


def test_codes_of_unknown_origin() -> None:
    net = Qcdq()
    codes = net.op("Cast", net.input("x", 1), to=TensorProto.INT8)
    net.d(codes, 0.5, name="y")
    assert refused(net).code == "HQC102"


def test_a_single_code() -> None:
    net = Qcdq()
    ends = [net.integers(3), net.integers(3)]
    net.d(net.op("Clip", net.q(net.input("x", 1), 0.5), *ends), 0.5, name="y")
    assert refused(net).code == "HQC107"


def test_a_scale_per_sample_is_refused() -> None:
    net = Qcdq()
    net.qd(net.input("x", 2), [0.5, 0.25], [0, 0], axis=0, name="y")
    assert refused(net).code == "HQC102"


def test_all_problems_are_reported_together() -> None:
    net = Qcdq()
    x = net.input("x", 1)
    one, two = net.qd(x, 0.0), net.d(net.op("Abs", net.q(x, 0.5)), 0.5)
    net.op("Add", one, two, name="y")
    with pytest.raises(HqcError) as found:
        net.model("y")
    assert [d.code for d in found.value.diagnostics] == ["HQC106", "HQC102"]
