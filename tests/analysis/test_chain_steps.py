"""What nodes mean: constants on grids against qonnx's executor, and nodes as exact steps."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx_ir import Node
from support.qonnx_graphs import Net

from hqc.analysis.chain_steps import chain_step, is_pass_through, square_root
from hqc.analysis.grid_constants import exact_values, grid_constant, round_float
from hqc.diagnostics import HqcError
from hqc.equivalence.qonnx_oracle import run_qonnx
from hqc.execution.reference import Reference
from hqc.ir import set_type
from hqc.numerics.activations import Curve, Rectifier
from hqc.numerics.monotone_chain import Affine
from hqc.numerics.types import FixedType, Rounding


def last(net: Net) -> Node:
    """The node that makes the output `y`."""
    node = net.raw("y").graph.outputs[0].producer()
    assert node is not None
    return node


def step_of(op: str, *operands: Any, left: bool = False, shape: tuple[int, ...] = (3,)) -> Any:
    net = Net()
    x = net.input("x", *shape)
    constants = [net.const(c) for c in operands]
    inputs = [*constants, x] if left else [x, *constants]
    net.op(op, *inputs, name="y")
    return chain_step(last(net))


# --- constants ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(Rounding))
@pytest.mark.parametrize("bits", [1, 2, 5])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("zero", [0.0, 2.0])
def test_quantised_constants_are_what_the_executor_makes_of_them(
    mode: Rounding, bits: int, signed: int, zero: float
) -> None:
    """Raw float32 weights, also exactly on ties, on scales that are no powers of two."""
    rng = np.random.default_rng(bits)
    scale = np.float32(0.3)
    ties = (np.arange(-8, 8) + np.float32(0.5)) * scale
    weights = np.concatenate([rng.normal(0, 1, 112).astype(np.float32), ties]).reshape(4, 32)
    net = Net()
    x = net.quant(net.input("x", 4), 1.0, 2)
    w = net.quant(net.const(weights), scale, bits, signed, 0, mode.value, zero, name="w")
    net.op("MatMul", x, w, name="y")
    model = net.raw("y")
    want = run_qonnx(model, {"x": np.zeros((1, 4), np.float32)}, intermediates=True)["w"]
    producer = next(n for n in model.graph if n.name == "w_node")
    grid = grid_constant(producer.outputs[0])
    assert grid is not None
    values = np.array([float(v) for v in grid.values()], np.float32).reshape(4, 32)
    np.testing.assert_array_equal(values, want)


def test_bipolar_constants() -> None:
    net = Net()
    x = net.quant(net.input("x", 2), 1.0, 2)
    net.op("MatMul", x, net.bipolar(net.const([[0.0, -0.0], [-1e-9, 3.0]]), 0.75), name="y")
    grid = grid_constant(last(net).inputs[1])
    assert grid is not None
    assert grid.codes.tolist() == [[1, 1], [-1, 1]]
    assert set(grid.values()) == {Fraction(3, 4), Fraction(-3, 4)}


def test_scaled_and_transposed_constants() -> None:
    net = Net()
    x = net.quant(net.input("x", 3), 1.0, 2)
    scale = np.array([[0.5], [0.25]])
    w = net.quant(net.const([[0.5, 1.0, -0.5], [0.25, 0.5, 0.0]]), scale, 4)
    w = net.op("Mul", w, net.const(np.array([[3.0], [1.0]])))
    net.op("MatMul", x, net.op("Transpose", w, perm=[1, 0]), name="y")
    grid = grid_constant(last(net).inputs[1])
    assert grid is not None
    assert grid.codes.tolist() == [[1, 1], [2, 2], [-1, 0]]
    want = [Fraction(3, 2), Fraction(1, 4), 3, Fraction(1, 2), Fraction(-3, 2), 0]
    assert grid.values() == want


def test_nan_weights_are_refused() -> None:
    net = Net()
    x = net.quant(net.input("x", 1), 1.0, 2)
    net.op("MatMul", x, net.quant(net.const([[np.nan]]), 1.0, 2), name="y")
    with pytest.raises(HqcError, match="HQC105"):
        grid_constant(last(net).inputs[1])


def test_typed_constants_and_raw_floats() -> None:
    net = Net()
    x = net.quant(net.input("x", 2), 1.0, 2)
    net.op("Add", x, net.const([0.5, -0.75]), name="y")
    value = last(net).inputs[1]
    assert value is not None
    assert grid_constant(value) is None
    raw = exact_values(value)
    assert raw is not None
    assert raw.tolist() == [Fraction(1, 2), Fraction(-3, 4)]
    set_type(value, FixedType(True, 4, 2))
    grid = grid_constant(value)
    assert grid is not None
    assert grid.codes.tolist() == [2, -3]
    assert grid_constant(None) is None


@pytest.mark.parametrize("mode", list(Rounding))
def test_round_float_is_the_executors_rounding(mode: Rounding) -> None:
    from qonnx.custom_op.general.intquant import resolve_rounding_mode

    x = np.arange(-80, 81) / 16
    np.testing.assert_array_equal(round_float(x, mode), resolve_rounding_mode(mode.value)(x))


def test_round_float_next_to_a_half() -> None:
    """Where adding a half would round: the largest float below 0.5 is nearest to 0."""
    below = np.nextafter(np.float64(0.5), 0)
    for mode in (Rounding.HALF_UP, Rounding.HALF_DOWN, Rounding.ROUND):
        assert round_float(np.array([below, -below]), mode).tolist() == [0, 0]


# --- steps --------------------------------------------------------------------------------------


def test_arithmetic_with_constants() -> None:
    assert step_of("Relu") == Rectifier()
    half = (Fraction(1, 2),)
    assert step_of("Add", 0.5) == Affine((Fraction(1),), half)
    assert step_of("Mul", [0.5, 1.0, -2.0]).a == (*half, Fraction(1), Fraction(-2))
    assert step_of("Sub", 0.5).b == (Fraction(-1, 2),)
    assert step_of("Sub", 0.5, left=True) == Affine((Fraction(-1),), half)
    assert step_of("Div", 3.0).a == (Fraction(1, 3),)
    assert step_of("Div", 3.0, left=True) is None
    assert step_of("Sigmoid") == Curve("Sigmoid")
    assert step_of("Softplus") is None


@pytest.mark.parametrize(
    ("op", "operand", "shape"),
    [
        ("Add", np.ones(3), (1,)),  # would widen the tensor
        ("Mul", np.ones((5, 3)), (3,)),  # varies along the batch
        ("Mul", np.ones(4), (3, 4)),  # varies along the last axis
        ("Mul", np.ones(3), (3, 3)),  # does, though channels are as many
        ("Add", np.ones((3, 4)), (3, 4)),
    ],
)
def test_constants_along_other_axes_are_refused(
    op: str, operand: Any, shape: tuple[int, ...]
) -> None:
    with pytest.raises(HqcError, match="HQC102"):
        step_of(op, operand, shape=shape)


def test_constants_along_channels_of_deeper_tensors() -> None:
    step = step_of("Mul", np.array([[[2.0], [3.0]]]), shape=(2, 4))
    assert step.a == (2, 3)
    assert step_of("Add", np.full((1, 1, 1), 2.0), shape=(2, 4)).b == (2,)


def test_division_by_zero_is_refused() -> None:
    with pytest.raises(HqcError, match="HQC105"):
        step_of("Div", [1.0, 0.0, 1.0])


def batch_norm(var: Any = (1.0, 2.0, 4.0), **attributes: Any) -> Node:
    net = Net()
    x = net.input("x", 3)
    gamma, beta = [1.0, 2.0, -0.5], [0.0, 0.25, 1.0]
    constants = [net.const(v) for v in (gamma, beta, [0.5, 0.0, 0.25], var)]
    outputs = ["y", "m", "v"] if attributes.get("training_mode") else ["y"]
    net.nodes.append(
        helper.make_node("BatchNormalization", [x, *constants], outputs, "bn", **attributes)
    )
    return last(net)


def test_batch_norm_is_exact_where_the_root_is() -> None:
    step = chain_step(batch_norm(epsilon=0.0))
    assert isinstance(step, Affine)
    assert step.at(0) == (1, Fraction(-1, 2))
    assert step.at(2) == (Fraction(-1, 4), 1 + Fraction(1, 16))
    root = step.at(1)[0] / 2  # 1 / sqrt(2)
    assert abs(root * root - Fraction(1, 2)) < Fraction(1, 2**180)


def test_batch_norm_uses_the_float32_epsilon_of_the_file() -> None:
    step = chain_step(batch_norm(epsilon=1e-5))
    assert isinstance(step, Affine)
    square = 1 / step.at(0)[0] ** 2
    assert abs(square - 1 - Fraction(float(np.float32(1e-5)))) < Fraction(1, 2**170)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: batch_norm(training_mode=1), "HQC102"),
        (lambda: batch_norm((1.0, -1.0, 1.0)), "HQC105"),
        (lambda: batch_norm((1.0, np.inf, 1.0)), "HQC105"),
    ],
)
def test_impossible_batch_norms_are_refused(make: Callable[[], Node], code: str) -> None:
    with pytest.raises(HqcError, match=code):
        chain_step(make())


@settings(max_examples=60, deadline=None)
@given(x=st.fractions(min_value=Fraction(1, 10**9), max_value=10**9))
def test_square_roots(x: Fraction) -> None:
    assert square_root(x * x) == x
    root = square_root(x)
    assert abs(root * root - x) <= x * Fraction(1, 2**180)


@pytest.mark.parametrize(
    ("to", "storage"), [(1, True), (11, True), (10, False), (6, False), (7, False), (16, False)]
)
def test_only_casts_that_hold_the_values_pass_through(to: int, storage: bool) -> None:
    """float32 and float64; not half precision, not integers, which truncate."""
    net = Net()
    net.op("Cast", net.input("x", 2), name="y", to=to)
    net_model = net.read("y")
    assert is_pass_through(next(iter(net_model.graph))) is storage


def test_a_cast_to_integers_is_refused() -> None:
    net = Net()
    x = net.quant(net.input("x", 2), 0.25, 4)
    x = net.op("Cast", net.op("Cast", x, to=6), to=1)
    net.quant(x, 0.5, 3, name="y")
    with pytest.raises(HqcError, match="HQC205"):
        Reference(net.model("y")).run({"x": np.ones((1, 2), np.float32)})
