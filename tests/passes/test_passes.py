"""Each pass alone, on graphs small enough to know the answer, with what it declines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from onnx_ir import Model
from support.pass_runs import WEIGHTS, remarks, run
from support.qonnx_graphs import Net, ops

from hqc.diagnostics import HqcError
from hqc.equivalence.qonnx_oracle import run_qonnx
from hqc.execution.reference import Reference
from hqc.ir import Array, constant, type_of
from hqc.numerics.types import FixedType
from hqc.passes.dce import DeadCode
from hqc.passes.fold_constants import FoldConstants
from hqc.passes.fold_quantizers import FoldQuantizers
from hqc.passes.fuse_batchnorm import FuseBatchNorm
from hqc.passes.legalize_rounding import LegalizeRounding
from hqc.passes.normalize import Normalize
from hqc.pipeline.passes import Outcome
from hqc.pipeline.verifier import check

# --- fold-constants -----------------------------------------------------------------------------


def test_constants_fold_and_quantisers_stay() -> None:
    net = Net()
    x = net.quant(net.input("x", 2), 0.5, 4)
    raw = net.op("Mul", net.const(WEIGHTS), net.op("Sqrt", net.const(4.0)))
    net.op("MatMul", x, net.quant(raw, 0.25, 5), name="y")
    model = net.raw("y")
    x_ = generate_port(2)
    want = run_qonnx(model, x_)["y"]
    outcome = FoldConstants()(model)
    assert isinstance(outcome, Outcome)
    assert outcome.rewrites == 2
    np.testing.assert_array_equal(Reference(model).run(x_)["y"], want)
    assert ops(model) == ["Quant", "Quant", "MatMul"]
    producer = model.graph.outputs[0].producer()
    assert producer is not None
    weight = producer.inputs[1].producer()  # type: ignore[union-attr]
    assert weight is not None
    np.testing.assert_array_equal(constant(weight.inputs[0]), 2 * WEIGHTS)
    assert not FoldConstants()(model).modified


def test_codes_times_scale_stay_unfolded() -> None:
    """Folding them would leave rounded floats where codes were."""
    net = Net()
    x = net.quant(net.input("x", 2), 0.5, 4)
    net.op("MatMul", x, net.quant(net.const(WEIGHTS), 0.3, 5), name="y")
    model = net.model("y")
    run(FoldQuantizers(), model)
    assert "Mul" in ops(model)
    assert not FoldConstants()(model).modified


def test_known_shapes_fold() -> None:
    net = Net()
    x = net.quant(net.input("x", 2, batch=5), 0.5, 4)
    shape = net.op("Shape", x, start=1)
    net.op("Reshape", x, net.op("Concat", net.const([-1], np.int64), shape, axis=0), name="y")
    model = net.raw("y")
    FoldConstants()(model)
    assert ops(model) == ["Quant", "Reshape"]


# --- normalize ----------------------------------------------------------------------------------


def test_no_ops_vanish_and_interfaces_keep_their_names() -> None:
    net = Net()
    x = net.quant(net.op("Identity", net.input("x", 2)), 0.5, 4)
    x = net.op("Dropout", x)
    net.op("Identity", net.quant(x, 1.0, 3), name="y")
    model = net.raw("y")
    assert run(Normalize(), model).rewrites == 3
    assert ops(model) == ["Quant", "Quant"]
    assert [v.name for v in model.graph.outputs] == ["y"]


@pytest.mark.parametrize("trans", [0, 1])
@pytest.mark.parametrize("beta", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_gemm(trans: int, beta: float, alpha: float) -> None:
    net = Net()
    x = net.quant(net.input("x", 2), 0.5, 4)
    w = net.quant(net.const(WEIGHTS.T if trans else WEIGHTS), 0.25, 5)
    bias = net.const([0.5, 1.0, -2.0])
    net.op("Gemm", x, w, bias, transB=trans, beta=beta, alpha=alpha, name="y")
    model = net.raw("y")
    x_ = generate_port(2)
    want = run_qonnx(model, x_)["y"]
    Normalize()(model)
    check(model)
    assert "Gemm" not in ops(model)
    np.testing.assert_array_equal(Reference(model).run(x_)["y"], want)


def generate_port(width: int) -> Mapping[str, Array]:
    rng = np.random.default_rng(0)
    return {"x": rng.integers(-20, 20, (50, width)).astype(np.float32) / 4}


def test_a_transposed_data_input_is_refused() -> None:
    net = Net()
    x = net.quant(net.input("x", 3, batch=3), 0.5, 4)
    net.op("Gemm", x, net.quant(net.const(np.eye(3)), 0.25, 5), transA=1, name="y")
    with pytest.raises(HqcError, match="HQC102"):
        Normalize()(net.raw("y"))


def test_reshapes_that_flatten_become_flatten() -> None:
    net = Net()
    x = net.quant(net.input("x", 2, 3), 0.5, 4)
    x = net.op("Reshape", x, net.const([0, -1], np.int64))
    net.dense(x, np.ones((6, 2)), name="y")
    model = net.raw("y")
    run(Normalize(), model)
    assert ops(model) == ["Quant", "Flatten", "Quant", "MatMul"]


# --- fold-quantizers ----------------------------------------------------------------------------


def test_power_of_two_weights_become_one_typed_constant() -> None:
    net = Net()
    x = net.quant(net.input("x", 2), 0.5, 4)
    net.op("MatMul", x, net.quant(net.const(WEIGHTS), 0.25, 5), name="y")
    model = net.model("y")
    assert run(FoldQuantizers(), model).rewrites == 1
    assert ops(model) == ["Quant", "MatMul"]
    weight = list(model.graph)[1].inputs[1]
    assert weight is not None
    assert type_of(weight) == FixedType(True, 4, 2)
    np.testing.assert_array_equal(constant(weight), WEIGHTS)


def test_other_scales_stay_beside_their_codes() -> None:
    net = Net()
    x = net.quant(net.input("x", 2), 0.5, 4)
    w = net.quant(net.const(WEIGHTS.T), np.array([[0.3], [0.25], [0.7]]), 5)
    net.op("MatMul", x, net.op("Transpose", w, perm=[1, 0]), name="y")
    model = net.raw("y")
    run(FoldQuantizers(), model)
    DeadCode()(model)
    assert ops(model) == ["Quant", "Mul", "MatMul"]
    codes, scale = list(model.graph)[1].inputs
    assert codes is not None
    np.testing.assert_array_equal(constant(scale), np.array([[0.3, 0.25, 0.7]], np.float32))
    assert type_of(codes) == FixedType(True, 3, 3)


@pytest.mark.parametrize(
    ("second", "kept"),
    [
        ({"scale": 0.5, "bits": 4}, 1),
        ({"scale": 0.5, "bits": 6}, 1),
        ({"scale": 0.5, "bits": 3}, 2),
        ({"scale": 0.25, "bits": 8}, 2),
        ({"scale": 0.5, "bits": 6, "signed": 0}, 2),
        ({"scale": 0.5, "bits": 4, "narrow": 1}, 2),
        ({"scale": 0.5, "bits": 4, "zero": 1.0}, 2),
        ({"scale": 0.5, "bits": 6, "rounding": "CEIL"}, 1),
        ({"scale": 0.5, "bits": 1}, 2),
    ],
)
def test_quantisers_that_change_nothing_go(second: dict[str, Any], kept: int) -> None:
    net = Net()
    x = net.quant(net.input("x", 2), 0.5, 4)
    net.op("Relu", net.quant(x, **second), name="y")
    model = net.model("y")
    outcome = run(FoldQuantizers(), model)
    assert ops(model).count("Quant") == kept
    assert ("repeats" in remarks(outcome)) == (kept == 1)


# --- fuse-batchnorm -----------------------------------------------------------------------------


def with_batch_norm(var: Any, epsilon: float = 0.0) -> Model:
    net = Net()
    x = net.dense(net.quant(net.input("x", 2), 0.5, 4), WEIGHTS)
    names = [net.const(v) for v in ([1.0, 2.0, -0.5], [0.0, 0.25, 1.0], [0.5, 0.0, 0.25], var)]
    x = net.op("BatchNormalization", x, *names, epsilon=epsilon)
    net.quant(x, 0.5, 5, name="y")
    return net.model("y")


def test_exact_batch_norms_become_factors_and_offsets() -> None:
    model = with_batch_norm([1.0, 4.0, 0.25])
    assert run(FuseBatchNorm(), model).rewrites == 1
    assert "BatchNormalization" not in ops(model)
    assert {"Mul", "Add"} <= set(ops(model))


def test_batch_norms_that_would_be_rounded_are_declined() -> None:
    model = with_batch_norm([2.0, 4.0, 0.25])
    outcome = run(FuseBatchNorm(), model)
    assert outcome.rewrites == 0
    assert "BatchNormalization" in ops(model)
    assert "declined" in remarks(outcome)
    assert "batchnormalization" in remarks(outcome)


def test_a_batch_norm_that_does_nothing_leaves_one_node() -> None:
    net = Net()
    x = net.quant(net.input("x", 2), 0.5, 4)
    names = [net.const(v) for v in ([1.0, 1], [0.0, 0], [0.0, 0], [1.0, 1])]
    net.quant(net.op("BatchNormalization", x, *names, epsilon=0.0), 0.5, 3, name="y")
    model = net.model("y")
    run(FuseBatchNorm(), model)
    assert "BatchNormalization" not in ops(model)


# --- legalize-rounding --------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", ["CEIL", "UP"])
@pytest.mark.parametrize("scale", [0.5, 0.3])
def test_ports_that_no_type_rounds_become_thresholds(rounding: str, scale: float) -> None:
    net = Net()
    net.quant(net.input("x", 2), scale, 4, rounding=rounding, name="y")
    model = net.model("y")
    run(LegalizeRounding(), model)
    declined = ops(model) == ["Quant"]
    x = {"x": np.linspace(-6, 6, 2000, dtype=np.float32).reshape(-1, 2)}
    if not declined:
        assert ops(model) == ["MultiThreshold"]
        if scale == 0.5:
            want = np.clip(round_by(rounding, x["x"] / 0.5), -8, 7) * 0.5
            np.testing.assert_array_equal(run_qonnx(model, x)["y"], want)
    else:
        assert scale == 0.3


def round_by(rounding: str, x: Array) -> Array:
    return np.ceil(x) if rounding == "CEIL" else np.copysign(np.ceil(np.abs(x)), x)


def test_narrow_unsigned_ports_become_thresholds() -> None:
    net = Net()
    net.quant(net.input("x", 2), 0.5, 3, 0, 1, name="y")
    model = net.model("y")
    assert run(LegalizeRounding(), model).rewrites == 1


@pytest.mark.parametrize(
    "options",
    [{"rounding": "ROUND"}, {"rounding": "HALF_DOWN", "narrow": 1}, {"signed": 0}],
)
def test_ports_with_a_type_stay(options: dict[str, Any]) -> None:
    net = Net()
    net.quant(net.input("x", 2), 0.5, 3, name="y", **options)
    model = net.model("y")
    outcome = run(LegalizeRounding(), model)
    assert (outcome.rewrites, outcome.remarks) == (0, ())


def test_what_cannot_be_a_table_is_declined() -> None:
    net = Net()
    net.quant(net.input("x", 2), 2.0**-9, 12, rounding="CEIL", name="y")
    outcome = run(LegalizeRounding(), net.model("y"))
    assert "declined" in remarks(outcome)


def test_inner_quantisers_are_left_to_lowering() -> None:
    net = Net()
    x = net.quant(net.input("x", 2), 0.5, 4)
    net.quant(net.dense(x, WEIGHTS), 0.3, 4, rounding="CEIL", name="y")
    model = net.model("y")
    assert run(LegalizeRounding(), model).rewrites == 0
