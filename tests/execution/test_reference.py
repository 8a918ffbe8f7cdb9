"""The executors: the reference against qonnx, the fast one against the reference."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.backend_graphs import Builder, corner_codes, evaluate, signed, unsigned
from support.qonnx_graphs import Net, random_net

from hqc import pipeline
from hqc.analysis.linear import Weights, weights_of
from hqc.analysis.partition import partition
from hqc.diagnostics import HqcError
from hqc.equivalence.bit_exactness import ExactCore
from hqc.equivalence.qonnx_oracle import run_qonnx
from hqc.execution.fast import Fast
from hqc.execution.reference import Reference
from hqc.ir import Array
from hqc.numerics.types import Codes, FixedType, Overflow, Rounding
from hqc.pipeline.registry import Registry
from hqc.text import parse_pipeline

SEEDS = st.integers(0, 10**6)
REGISTRY = Registry.builtin()
STEPS = parse_pipeline(pipeline.DEFAULT)
ROUNDINGS = tuple(r for r in Rounding if r.hardware is not None)


def on_grid(seed: int, n: int, size: int) -> Array:
    """Samples that float32 executors round as the exact one does."""
    return np.random.default_rng(seed).integers(-4000, 4000, (n, size)).astype(np.float32) / 1024


# --- reference ----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_the_reference_is_qonnx_where_float32_commits_no_error(seed: int) -> None:
    """Random networks on power-of-two scales: not one output differs, ties included."""
    model = random_net(seed, dyadic=True).model("y")
    x = on_grid(seed, 64, 4)
    want = run_qonnx(model, {"x": x})["y"]
    np.testing.assert_array_equal(Reference(model).run({"x": x})["y"], want)


def test_inner_tensors_are_exact_too() -> None:
    model = random_net(5, dyadic=True, layers=3).model("y")
    x = on_grid(5, 32, 4)
    theirs = run_qonnx(model, {"x": x}, intermediates=True)
    trace = Reference(model).trace({"x": x})
    assert len(trace) > 8
    for value, tensor in trace.items():
        np.testing.assert_array_equal(tensor.values(), theirs[str(value.name)])


def bipolar_with_zero_point() -> Net:
    net = Net()
    x = net.quant(net.input("x", 3), 0.5, 4)
    x = net.dense(x, np.array([[1.0, -2, 0.5], [2, 1, 1], [-1, 0.5, 3]]), 0.5)
    net.quant(x, 0.5, 1, 1, zero=1.0, name="y")
    return net


def merged() -> Net:
    net = Net()
    x = net.quant(net.input("x", 3), 0.5, 4)
    weights = np.array([[1.0, -2, 0.5], [2, 1, 1], [-1, 0.5, 3]])
    one = net.quant(net.dense(x, weights, 0.5), 0.25, 5)
    two = net.quant(net.dense(x, -weights, 0.5), 0.25, 6)
    net.quant(net.op("Add", one, two), 1.0, 6, rounding="DOWN", name="y")
    return net


def thresholds_behind_thresholds() -> Net:
    net = Net()
    x = net.thresholds(net.input("x", 3), [[-1.0, 0.5, 2.0]], out_scale=-0.5, out_bias=0.75)
    x = net.dense(x, np.array([[1.0, -2], [2, 1], [-1, 0.5]]), 0.5)
    net.thresholds(x, [[-1.0, 0.0, 0.0], [0.5, 1.0, 1.5]], name="y")
    return net


def rank_three() -> Net:
    net = Net()
    x = net.op("Reshape", net.input("x", 3), net.const([0, 3, 1], np.int64))
    x = net.op("Mul", x, net.const(np.array([[[0.5], [2.0], [-1.0]]])))
    x = net.thresholds(x, [[-1.0, 1.0], [0.0, 0.5], [1.0, 2.0]], data_layout="NCW")
    x = net.op("Flatten", x)
    net.dense(x, np.array([[1.0], [2], [-1]]), 0.5, name="y")
    return net


@pytest.mark.parametrize(
    "make", [bipolar_with_zero_point, merged, thresholds_behind_thresholds, rank_three]
)
def test_by_hand_against_qonnx_and_through_the_pipeline(make: Any) -> None:
    model = make().model("y")
    x = on_grid(1, 200, 3)
    want = run_qonnx(model, {"x": x})["y"]
    np.testing.assert_array_equal(Reference(model).run({"x": x})["y"], want)
    lowered = pipeline.run(model, STEPS, REGISTRY, check_samples=40).model
    np.testing.assert_array_equal(Fast(lowered).run({"x": x})["y"], want)


def test_inputs_that_do_not_fit_are_refused() -> None:
    reference = Reference(random_net(1, dyadic=True).model("y"))
    bad: list[dict[str, Array]] = [
        {},
        {"x": np.zeros((3, 5))},
        {"x": np.full((1, 4), np.nan)},
        {"z": np.zeros((3, 4))},
    ]
    for inputs in bad:
        with pytest.raises(HqcError, match="HQC005"):
            reference.run(inputs)


def unquantised(net: Net, x: str) -> str:
    x = net.quant(net.op("Flatten", x), 0.5, 4)
    return net.op("MatMul", x, net.const(np.ones((16, 2))))


def last_axis(net: Net, x: str) -> str:
    return net.quant(x, np.array([0.5, 0.25, 1.0, 2.0]), 4)


def far_apart_into_linear(net: Net, x: str) -> str:
    x = net.quant(net.op("Flatten", x), 2.0**-2 * np.arange(1.0, 17.0) ** 8, 4)
    return net.dense(x, np.ones((16, 2)))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (unquantised, "HQC103"),
        (last_axis, "HQC102"),
        (far_apart_into_linear, "HQC205"),
    ],
)
def test_what_has_no_exact_form_is_refused(make: Any, code: str) -> None:
    net = Net()
    y = make(net, net.input("x", 4, 4))
    net.quant(y, 0.25, 4, name="y")
    with pytest.raises(HqcError, match=code):
        Reference(net.model("y")).run({"x": np.ones((2, 4, 4), np.float32)})


def test_sums_beyond_62_bits_are_refused() -> None:
    net = Net()
    x = net.quant(net.input("x", 64), 1.0, 32)
    net.quant(net.dense(x, np.full((64, 1), 2.0**30), 1.0, 32), 1.0, 4, name="y")
    with pytest.raises(HqcError, match="HQC204"):
        Reference(net.model("y")).run({"x": np.full((1, 64), 2.0**31, np.float32)})


def test_units_of_weights_whose_scale_varies_along_the_input() -> None:
    def weights(values: Any, scale: Any) -> Weights:
        net = Net()
        x = net.quant(net.input("x", len(values)), 1.0, 4)
        net.op("MatMul", x, net.quant(net.const(values), scale, 8), name="y")
        return weights_of(next(n for n in net.model("y").graph if n.op_type == "MatMul"))

    found = weights([[0.5, -1.0], [2.25, 3.0]], [[0.5], [0.75]])
    assert found.codes[:, :, 0].tolist() == [[2, 9], [-4, 12]]
    assert set(found.scales) == {Fraction(1, 4)}
    with pytest.raises(HqcError, match="HQC205"):
        weights([[1.0], [2.0**-30]], [[1.0], [2.0**-30]])


# --- ports --------------------------------------------------------------------------------------


def flattened_first(net: Net) -> str:
    x = net.op("Flatten", net.input("x", 3, 4))
    return net.op("Mul", x, net.const(np.arange(1.0, 13.0).reshape(1, 12) / 4))


def folded_first(net: Net) -> str:
    x = net.op("Reshape", net.input("x", 12), net.const([0, 3, 4], np.int64))
    return net.op("Sub", x, net.const(np.array([[[0.5], [2.0], [-1.0]]])))


@pytest.mark.parametrize("make", [flattened_first, folded_first])
def test_the_host_scales_what_it_has_reshaped(make: Any) -> None:
    """Channels are those of the quantiser's input, not of the model's."""
    net = Net()
    x = net.op("Flatten", net.quant(make(net), 0.5, 5))
    net.dense(x, np.random.default_rng(0).normal(0, 1, (12, 3)), name="y")
    model = net.model("y")
    shape = tuple(model.graph.inputs[0].shape or ())[1:]
    x = on_grid(2, 60, 12).reshape(60, *shape)
    want = run_qonnx(model, {"x": x})["y"]
    lowered = pipeline.run(model, STEPS, REGISTRY, check_samples=40).model
    np.testing.assert_array_equal(Fast(lowered).run({"x": x})["y"], want)


def test_a_reshape_behind_per_channel_scaling_is_refused() -> None:
    net = Net()
    x = net.op("Mul", net.input("x", 3, 4), net.const(np.array([[[1.0], [2.0], [3.0]]])))
    net.quant(net.op("Flatten", x), 0.5, 4, name="y")
    with pytest.raises(HqcError, match="HQC"):
        pipeline.run(net.model("y"), STEPS, REGISTRY)


# --- fast ---------------------------------------------------------------------------------------


def random_integer_net(seed: int) -> Builder:
    """Random integer layers with every node that the fast executor knows."""
    rng = np.random.default_rng(seed)
    b = Builder()
    width = int(rng.integers(1, 5))

    def type_(signed_: bool, widest: int = 10) -> FixedType:
        bits = int(rng.integers(2, widest))
        overflow = Overflow.SAT_SYM if signed_ and rng.random() < 0.3 else Overflow.SAT
        rounding = ROUNDINGS[int(rng.integers(len(ROUNDINGS)))]
        return FixedType(signed_, bits, int(rng.integers(-2, 6)), rounding, overflow)

    x = b.input("x", width, type_(bool(rng.integers(2))))
    outputs = []
    settled = True  # whether all channels are on one step, as linear layers and merges want it
    for _ in range(int(rng.integers(2, 6))):
        kind = rng.integers(7)
        if kind in (0, 5) and not settled:
            x = b.quant(x, type_(True))
        settled = kind not in (1, 2, 3)
        if kind == 0:
            n_out = int(rng.integers(1, 5))
            top = 2 ** int(rng.integers(1, 14))
            weights = rng.integers(-top, top + 1, (width, n_out))
            x, width = b.matmul(x, weights, FixedType(True, 16, int(rng.integers(-3, 9)))), n_out
        elif kind == 1:
            x = b.add(x, rng.integers(-99, 99, width), FixedType(True, 8, int(rng.integers(1, 9))))
        elif kind == 2:
            x = b.mul(x, rng.integers(-99, 99, width), FixedType(True, 8, int(rng.integers(1, 9))))
        elif kind == 3:
            x = b.relu(x)
        elif kind == 4:
            rows = np.sort(rng.normal(0, 3, (width, 4)), axis=1)
            x = b.thresholds(x, rows, int(rng.integers(-3, 3)))
        elif kind == 5:
            x = b.merge(x, b.quant(x, type_(True)))
        else:
            outputs.append(x)
            x = b.quant(x, type_(bool(rng.integers(2))))
        if b.range_of(x).magnitude_bits > 34:
            x, settled = b.quant(x, type_(True)), True
    b.finish(x, *[o for o in dict.fromkeys(outputs) if o is not x])
    return b


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_fast_is_the_reference_and_plain_integers_code_for_code(seed: int) -> None:
    from onnx_ir import Model

    from hqc.ir import State, set_state

    model = Model(random_integer_net(seed).graph, ir_version=10)
    set_state(model, State.INTEGER)
    cut = partition(model)
    fast = Fast(cut)
    codes = corner_codes(cut, 64, seed)
    got = fast.run_codes(codes)
    want = evaluate(cut, codes)
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array)
    port = cut.inputs[0]
    x = {port.external: (codes[port.name] * 2.0**-port.type.fraction).astype(np.float32)}
    trace = {v.name: t for v, t in Reference(model).trace(x).items()}
    for out in cut.outputs:
        exact = trace[out.name].values() * 2.0**out.type.fraction
        np.testing.assert_array_equal(got[out.name], exact)


def linear(bits_in: int, bits_weight: int, n: int = 4) -> Builder:
    b = Builder()
    x = b.input("x", n, FixedType(False, bits_in, bits_in, Rounding.ROUND, Overflow.SAT))
    top = 2 ** (bits_weight - 1)
    weights = np.array([[top - 1 - i, -top + i] for i in range(n)])
    b.finish(b.matmul(x, weights, FixedType(True, bits_weight, bits_weight)))
    return b


def certified(b: Builder) -> tuple[Fast, Any]:
    from onnx_ir import Model

    cut = partition(Model(b.graph, ir_version=10))
    return Fast(cut), cut


@pytest.mark.parametrize(
    ("bits_in", "bits_weight", "arithmetic"), [(8, 8, "float32"), (16, 12, "float64")]
)
def test_certificates_name_the_arithmetic_that_is_exact(
    bits_in: int, bits_weight: int, arithmetic: str
) -> None:
    """Partial sums beyond 2**24 run in float64, where float32 would give other codes."""
    fast, cut = certified(linear(bits_in, bits_weight))
    (row,) = fast.certificate
    assert row.arithmetic == arithmetic
    assert "partial sums" in row.reason
    codes = corner_codes(cut, 200, 0)
    want = evaluate(cut, codes)
    (name,) = want
    np.testing.assert_array_equal(fast.run_codes(codes)[name], want[name])
    if arithmetic == "float64":
        weight = next(v for v in cut.model.graph.initializers.values() if v.shape == [4, 2])
        single = codes[cut.inputs[0].name].astype(np.float32) @ np.asarray(
            weight.const_value, np.float32
        )
        assert np.any(single != want[name])


def test_beyond_float64_the_fast_executor_refuses_and_the_reference_takes_over() -> None:
    b = linear(24, 30)
    with pytest.raises(HqcError, match="HQC204"):
        certified(b)
    from onnx_ir import Model

    cut = partition(Model(b.graph, ir_version=10))
    core = ExactCore(cut)
    codes = corner_codes(cut, 50, 0)
    port = cut.inputs[0]
    got = core.codes({port.external: codes[port.name].astype(np.float32)})
    want = evaluate(cut, codes)
    (name,) = want
    np.testing.assert_array_equal(got[name], want[name])
    assert "rationals" in core.certificate[0].arithmetic


def test_wide_ports_run_in_float64() -> None:
    b = Builder()
    x = b.input("x", 2, signed(32, 8))
    b.finish(b.relu(x))
    fast, cut = certified(b)
    codes: Codes = np.array([[2**31 - 1, -(2**31)], [2**24 + 1, 12345]])
    (found,) = fast.run_codes({cut.inputs[0].name: codes}).values()
    np.testing.assert_array_equal(found, np.maximum(codes, 0))


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_rounding_at_the_edge_of_float32(rounding: Rounding, extra: int) -> None:
    """The largest 24-bit code just below half of a step: adding a half must not round it up."""
    width = 24
    b = Builder()
    x = b.input("x", 1, unsigned(width, width))
    quantiser = FixedType(True, 4, 4 + width + extra, rounding, Overflow.SAT)
    b.finish(b.quant(x, quantiser))
    fast, cut = certified(b)
    top = 2**width - 1
    codes: Codes = np.array([[top], [top - 1], [2 ** (width - 1)], [1], [0]], np.int64)
    inputs = {cut.inputs[0].name: codes}
    want = evaluate(cut, inputs)
    (name,) = want
    np.testing.assert_array_equal(fast.run_codes(inputs)[name], want[name])


def test_a_model_that_is_only_a_port() -> None:
    net = Net()
    net.quant(net.input("x", 3), 0.25, 5, name="y")
    model = pipeline.run(net.model("y"), STEPS, REGISTRY).model
    x = np.array([[0.3, -9.0, 0.125]], np.float32)
    assert Fast(model).run({"x": x})["y"].tolist() == [[0.25, -4.0, 0.0]]
