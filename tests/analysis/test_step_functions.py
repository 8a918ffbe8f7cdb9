"""Every quantiser of QONNX enters as Quant, BipolarQuant or MultiThreshold with the same numbers.

Grids include all ties and both ends; scales are powers of two where float32 must commit no error.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from support.qonnx_graphs import Net, ops

from hqc import ir
from hqc.analysis.grid_constants import grid_constant
from hqc.diagnostics import HqcError
from hqc.equivalence.float_error import undecided
from hqc.execution.reference import Reference
from hqc.frontends.qonnx import normalise_import
from hqc.ir import QONNX
from hqc.passes.fold_quantizers import FoldQuantizers

MODES = ("ROUND", "HALF_UP", "HALF_DOWN", "FLOOR", "DOWN", "CEIL", "UP")


def original(net: Net, x: np.ndarray, *, version: int = 1) -> np.ndarray:
    """Output y of the graph as written, by qonnx's executor."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    proto = net.proto("y")
    for opset in proto.opset_import:
        if opset.domain == QONNX:
            opset.version = version
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = len(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ModelWrapper(proto).transform(InferShapes())
        return np.asarray(execute_onnx(model, {"x": x})["y"])


def imported(net: Net, x: np.ndarray) -> np.ndarray:
    return Reference(net.model("y")).run({"x": x})["y"]


def refused(net: Net) -> Any:
    with pytest.raises(HqcError) as found:
        net.model("y")
    return found.value.diagnostics[0]


def column(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32).reshape(-1, 1)


# --- Trunc --------------------------------------------------------------------------------------


def trunc(
    x_bits: int, *parameters: float, zero: float = 0.0, signed: int = 1, **attributes: Any
) -> Net:
    """x on a grid of x_bits, then Trunc; two parameters are version 1, three version 2."""
    net = Net()
    x = net.quant(net.input("x", 1), parameters[0], x_bits, signed=signed, zero=zero)
    constants = [net.const(v) for v in (parameters[0], zero, *parameters[1:])]
    net.op("Trunc", x, *constants, name="y", domain=QONNX, **attributes)
    return net


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("zero", [0.0, 3.0, -4.0])
def test_trunc_of_version_1(mode: str, signed: int, zero: float) -> None:
    net = trunc(6, 0.25, 6, 3, zero=zero, signed=signed, rounding_mode=mode)
    x = column((np.arange(-40, 80) - zero) * 0.25)
    np.testing.assert_array_equal(imported(net, x), original(net, x))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("signed", "narrow"), [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("zero", [0.0, 3.0, 8.0])
@pytest.mark.parametrize("out_scale", [2.0, 0.5, 1.75])
def test_trunc_of_version_2(
    mode: str, signed: int, narrow: int, zero: float, out_scale: float
) -> None:
    """Output scales of 8, 2 and (nearly) 8 steps of 0.25; the output clamps."""
    net = trunc(7, 0.25, 7, out_scale, 3, zero=zero, rounding_mode=mode, signed=1, narrow=narrow)
    net.nodes[-1].attribute.append(onnx.helper.make_attribute("signed", signed))
    x = column((np.arange(-80, 80) - zero) * 0.25)
    np.testing.assert_array_equal(imported(net, x), original(net, x, version=2))


@pytest.mark.parametrize("x_bits", [4, 12])
def test_trunc_rounds_what_is_not_on_its_grid(x_bits: int) -> None:
    """The input lies on a grid that is 8 times finer: ties to even come first, then the floor."""
    net = Net()
    x = net.quant(net.input("x", 1), 1 / 32, 12)
    constants = [net.const(v) for v in (0.25, 3.0, x_bits, 1.0, 5)]
    net.op("Trunc", x, *constants, name="y", domain=QONNX, signed=1, narrow=0,
           rounding_mode="FLOOR")  # fmt: skip
    grid = column(np.arange(-1200, 1200) / 32)
    np.testing.assert_array_equal(imported(net, grid), original(net, grid, version=2))


def test_trunc_with_odd_scales_differs_on_ties_only() -> None:
    net = trunc(8, 0.1, 8, 1.6, 4, zero=1.0, rounding_mode="ROUND", signed=1)
    x = column(np.arange(-1400, 1400) * np.float32(0.01))
    got, want = imported(net, x), original(net, x, version=2)
    differ = (got != want).ravel()
    assert not np.any(differ & ~undecided(net.model("y"), {"x": x}))
    assert differ.mean() < 0.1


def test_trunc_of_an_average() -> None:
    """As Brevitas wrote sums over a window: an average, times its size, and the low bits off."""
    net = Net()
    x = net.quant(net.input("x", 1, 4, 4), 0.5, 4, signed=0)
    x = net.op("AveragePool", x, kernel_shape=[4, 4])
    x = net.op("Mul", x, net.const(16.0))
    net.op("Trunc", x, *[net.const(v) for v in (0.5, 0.0, 8, 4)], name="y", domain=QONNX,
           rounding_mode="FLOOR")  # fmt: skip
    x_ = np.random.default_rng(0).integers(0, 16, (200, 1, 4, 4)).astype(np.float32) / 2
    np.testing.assert_array_equal(imported(net, x_), original(net, x_))


def test_trunc_without_known_range() -> None:
    net = Net()
    x = net.quant(net.input("x", 2), 0.5, 4)
    x = net.dense(x, np.ones((2, 2)))
    net.op("Trunc", x, *[net.const(v) for v in (0.5, 0.0, 8, 4)], name="y", domain=QONNX)
    assert refused(net).code == "HQC102"
    assert "range" in str(refused(net))


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ((0.0, 8, 4), "HQC106"),
        ((0.25, 8, 0), "HQC107"),
        ((0.25, 8, 2.5), "HQC107"),
        ((0.25, 8, -1.0, 4), "HQC106"),
        ((0.25, 8, 2.0, 1), "HQC107"),
    ],
)
def test_impossible_truncations(parameters: tuple[float, ...], code: str) -> None:
    net = Net()
    x = net.quant(net.input("x", 1), 0.25, 8)
    constants = [net.const(v) for v in (parameters[0], 0.0, *parameters[1:])]
    net.op("Trunc", x, *constants, name="y", domain=QONNX)
    assert refused(net).code == code


# --- FloatQuant ---------------------------------------------------------------------------------

#: Exponent bits, mantissa bits, bias, largest value: e2m1, e3m0, e2m3, e3m2.
FORMATS = [(2, 1, 1, 6.0), (3, 0, 3, 16.0), (2, 3, 1, 7.5), (3, 2, 3, 28.0)]


def minifloat(net: Net, x: str, scale: Any, form: tuple[float, ...], mode: str = "ROUND") -> str:
    constants = [net.const(v) for v in (scale, *form)]
    return net.op("FloatQuant", x, *constants, name="y", domain=QONNX, rounding_mode=mode,
                  has_inf=0, has_nan=0, has_subnormal=1, saturation=1)  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("mode", MODES)
def test_minifloat_activations(form: tuple[float, ...], mode: str) -> None:
    net = Net()
    minifloat(net, net.input("x", 1), 0.5, form, mode)
    step = 0.5 * 2.0 ** (1 - form[2] - form[1])
    top = int(form[3] * 0.5 / step) + 3
    x = column(np.arange(-32 * top, 32 * top + 1) * step / 32)  # the executor's log2 is a float32
    np.testing.assert_array_equal(imported(net, x), original(net, x))


@pytest.mark.parametrize("form", [*FORMATS, (4, 3, 7, 448.0)])
@pytest.mark.parametrize("scale", [0.5, 0.37, [[0.1], [0.3]]])
def test_minifloat_weights(form: tuple[float, ...], scale: Any) -> None:
    rng = np.random.default_rng(1)
    weights = (rng.normal(0, form[3] / 4, (2, 300))).astype(np.float32)
    net = Net()
    out = minifloat(net, net.const(weights), scale, form)
    net.nodes[-1].output[0] = "w"
    x = net.quant(net.input("x", 2), 1.0, 4)
    net.op("MatMul", x, "w", name="y")
    assert out == "y"
    model = net.model("y")
    grid = grid_constant(next(n for n in model.graph if n.op_type == "MatMul").inputs[1])
    assert grid is not None
    got = (grid.codes * grid.scale.astype(np.float64)).astype(np.float32)
    eye = Net()
    minifloat(eye, eye.input("x", 300), scale, form)
    np.testing.assert_array_equal(got, original(eye, weights))


@pytest.mark.parametrize("form", [(5, 2, 15, 57344.0), (4, 3, 7, 448.0)])
def test_minifloat_activations_of_too_many_steps(form: tuple[float, ...]) -> None:
    net = Net()
    minifloat(net, net.input("x", 1), 1.0, form)
    assert refused(net).code == "HQC102"
    assert "steps" in str(refused(net))


def test_minifloats_that_overflow_to_infinity() -> None:
    net = Net()
    minifloat(net, net.input("x", 1), 1.0, FORMATS[0])
    next(a for a in net.nodes[-1].attribute if a.name == "saturation").i = 0
    assert refused(net).code == "HQC102"


# --- thresholds ---------------------------------------------------------------------------------

ROWS = np.array([[-1.0, 0.0, 2.0], [-2.0, -1.5, 0.5]])


@pytest.mark.parametrize(
    ("dims", "layout"),
    [
        ((2,), "NC"),
        ((2,), ""),
        ((2, 3), "NCW"),
        ((3, 2), "NWC"),
        ((3, 2), ""),
        ((2, 3, 4), "NCHW"),
        ((2, 3, 4), ""),
        ((3, 4, 2), "NHWC"),
    ],
)
def test_thresholds_in_every_layout(dims: tuple[int, ...], layout: str) -> None:
    net = Net()
    net.thresholds(net.input("x", *dims), ROWS, name="y", data_layout=layout, out_scale=0.5,
                   out_bias=-1.0)  # fmt: skip
    x = np.random.default_rng(0).integers(-6, 7, (400, *dims)).astype(np.float32) / 2
    np.testing.assert_array_equal(imported(net, x), original(net, x))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_one_row_of_thresholds_serves_all_layouts(layout: str) -> None:
    net = Net()
    net.thresholds(net.input("x", 2, 3, 2), ROWS[:1], name="y", data_layout=layout)
    x = np.random.default_rng(0).integers(-6, 7, (99, 2, 3, 2)).astype(np.float32) / 2
    np.testing.assert_array_equal(imported(net, x), original(net, x))
    assert ops(net.model("y")) == ["MultiThreshold"]


# --- parameters ---------------------------------------------------------------------------------


def test_parameters_from_constant_expressions() -> None:
    net = Net()
    x = net.input("x", 1)
    scale = net.op("Div", net.const(3.0), net.op("Sqrt", net.const(16.0)))
    zero = net.op("Sub", net.const(3.0), net.const(1.0))
    bits = net.op("Identity", net.op("Add", net.const(1.0), net.const(3.0)))
    net.op("Quant", x, scale, zero, bits, name="y", domain=QONNX, signed=1, narrow=0,
           rounding_mode="ROUND")  # fmt: skip
    grid = column(np.arange(-80, 80) * 0.375)
    np.testing.assert_array_equal(imported(net, grid), original(net, grid))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("signed", "narrow"), [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("zero", [0.0, 1.0, 2.0, -3.0])
def test_quant_in_every_mode(mode: str, signed: int, narrow: int, zero: float) -> None:
    net = Net()
    net.quant(net.input("x", 1), 0.25, 4, signed, narrow, mode, zero, name="y")
    x = column(np.arange(-200, 201) / 32)
    x = np.concatenate([x, np.nextafter(x, np.float32(9)), np.nextafter(x, np.float32(-9))])
    if zero or mode.startswith("HALF"):  # x / s + z and |x| + 1/2 round in float32 next to ties
        x = x[: len(x) // 3]
    np.testing.assert_array_equal(imported(net, x), original(net, x))


@pytest.mark.parametrize("scale", [0.5, 0.3, [[0.25, 0.75, 3.0]]])
def test_bipolar_of_any_scale(scale: Any) -> None:
    net = Net()
    net.bipolar(net.input("x", 3), scale, name="y")
    x = np.array([[-1e-30, 0.0, 1e-30], [5, -5, -0.0]], np.float32)
    np.testing.assert_array_equal(imported(net, x), original(net, x))


@pytest.mark.parametrize("shape", [(), (1, 3), (2, 1), (2, 3)])
@pytest.mark.parametrize("kind", ["Quant", "BipolarQuant"])
def test_weights_with_scales_on_any_axis(shape: tuple[int, ...], kind: str) -> None:
    rng = np.random.default_rng(2)
    scale = rng.integers(1, 5, shape) / 8
    weights = net_weights = rng.normal(0, 1, (2, 3))
    net = Net()
    x = net.quant(net.input("x", 2), 0.5, 4)
    w = net.const(net_weights)
    if kind == "Quant":
        w = net.quant(w, scale, 4, zero=rng.integers(-3, 4, shape))
    else:
        w = net.bipolar(w, scale)
    net.op("MatMul", x, w, name="y")
    assert weights.shape == (2, 3)
    grid = rng.integers(-8, 8, (100, 2)).astype(np.float32) / 2
    np.testing.assert_array_equal(imported(net, grid), original(net, grid))


@pytest.mark.parametrize("move", ["transpose", "reshape", "unsqueeze"])
@pytest.mark.parametrize("shape", [(), (3, 1), (1, 2), (3, 2)])
def test_weights_that_are_rearranged(move: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    weights, scale = rng.normal(0, 1, (3, 2)), rng.integers(1, 5, shape) / 8
    net = Net()
    x = net.quant(net.input("x", 2), 0.5, 4)
    w = net.quant(net.const(weights), scale, 4)
    if move == "transpose":
        w = net.op("Transpose", w, perm=[1, 0])
    else:
        w = net.op("Reshape", w, net.const([2, 3], np.int64))
    if move == "unsqueeze":
        w = net.op("Unsqueeze", w, net.const([0], np.int64))
        w = net.op("Squeeze", w, net.const([0], np.int64))
    net.op("MatMul", x, w, name="y")
    grid = rng.integers(-8, 8, (100, 2)).astype(np.float32) / 2
    np.testing.assert_array_equal(imported(net, grid), original(net, grid))
    assert ops(net.model("y")) == ["Quant", "Quant", "MatMul"]


# --- quantisers that change nothing -------------------------------------------------------------


def folded(net: Net, x: np.ndarray) -> list[str]:
    """Operators that are left of a graph without the quantisers that change nothing."""
    model = net.model("y")
    want = Reference(model).run({"x": x})["y"]
    FoldQuantizers().rewrite(model)
    np.testing.assert_array_equal(Reference(model).run({"x": x})["y"], want)
    return ops(model)


@pytest.mark.parametrize(
    ("bits", "signed", "zero", "kept"),
    [(4, 1, 3.0, 1), (4, 1, 4.0, 2), (5, 1, 0.0, 1), (5, 0, 11.0, 1), (5, 0, 10.0, 2)],
)
def test_quantisers_of_what_lies_on_their_grid(
    bits: int, signed: int, zero: float, kept: int
) -> None:
    """Codes -11 to 4 of the first: what spans them has nothing to do, whatever its zero point."""
    net = Net()
    x = net.quant(net.input("x", 2, 4, 4), 0.5, 4, zero=3.0)
    x = net.op("MaxPool", x, kernel_shape=[2, 2])
    net.quant(x, 0.5, bits, signed, zero=zero, name="y")
    grid = np.random.default_rng(0).integers(-99, 99, (99, 2, 4, 4)).astype(np.float32) / 8
    assert folded(net, grid).count("Quant") == kept


def test_a_rectifier_brings_in_zero() -> None:
    net = Net()
    x = net.op("Relu", net.quant(net.input("x", 1), 0.5, 4, signed=0, zero=20.0))
    net.quant(x, 0.5, 4, signed=0, zero=20.0, name="y")  # codes -20 to -5
    assert folded(net, column(np.arange(-99, 99) / 4)) == ["Quant", "Relu", "Quant"]
    net = Net()
    x = net.op("Relu", net.quant(net.input("x", 1), 0.5, 4))
    net.quant(x, 0.5, 3, signed=0, name="y")
    assert folded(net, column(np.arange(-99, 99) / 4)).count("Quant") == 1


def test_moves_keep_scales_per_channel_apart() -> None:
    net = Net()
    x = net.quant(net.input("x", 2, 2), [[[0.5], [2.0]]], 4)
    x = net.op("Transpose", x, perm=[0, 2, 1])
    net.quant(x, [[[0.5], [2.0]]], 4, name="y")
    model = net.model("y")
    FoldQuantizers().rewrite(model)
    assert ops(model) == ["Quant", "Transpose", "Quant"]


# --- what has no translation --------------------------------------------------------------------


@pytest.mark.parametrize("op", ["Im2Col", "XnorPopcountMatMul", "QuantAvgPool2d", "MaxPoolNHWC"])
@pytest.mark.parametrize("domain", [QONNX, "finn.custom_op.general"])
def test_operators_without_translation_are_named(op: str, domain: str) -> None:
    net = Net()
    net.op(op, net.quant(net.input("x", 2), 0.5, 4), name="y", domain=domain)
    found = refused(net)
    assert found.code == "HQC101"
    assert op in found.message
    assert found.helps


def test_all_problems_are_still_reported_together() -> None:
    net = Net()
    x = net.quant(net.input("x", 2), 0.0, 4)
    x = net.op("Im2Col", x, domain=QONNX)
    net.op("Trunc", x, *[net.const(v) for v in (1.0, 0.0, 8.0, 0.0)], name="y", domain=QONNX)
    with pytest.raises(HqcError) as found:
        normalise_import(ir.from_bytes(net.proto("y").SerializeToString(), "net"))
    assert sorted(d.code for d in found.value.diagnostics) == ["HQC101", "HQC106", "HQC107"]
