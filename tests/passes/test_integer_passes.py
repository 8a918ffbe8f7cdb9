"""The passes that make and improve the integer state, each alone, and the whole pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_ir import Model
from support.backend_graphs import Builder, signed, unsigned
from support.pass_runs import WEIGHTS, remarks, run
from support.qonnx_graphs import Net, ops, random_net

from hqc import pipeline
from hqc.analysis.partition import partition
from hqc.equivalence.samples import generate
from hqc.equivalence.translation_validation import against_oracle, compare
from hqc.execution.fast import Fast
from hqc.execution.reference import Reference
from hqc.ir import State, constant, range_of, set_state, state_of, type_of
from hqc.ir.operators import MultiThreshold, Quant
from hqc.numerics.types import FixedType, Range, Rounding
from hqc.passes.dce import DeadCode
from hqc.passes.fold_quantizers import FoldQuantizers
from hqc.passes.lower_scales import LowerScales
from hqc.passes.propagate_precision import PropagatePrecision
from hqc.passes.prune_channels import PruneChannels
from hqc.pipeline.passes import Outcome
from hqc.pipeline.registry import Registry
from hqc.pipeline.verifier import check
from hqc.text import parse_pipeline

REGISTRY = Registry.builtin()
STEPS = parse_pipeline(pipeline.DEFAULT)
SEEDS = st.integers(0, 10**6)


# --- lower-scales -------------------------------------------------------------------------------


def lowered(model: Model) -> Model:
    x = generate(model, 64, 2)
    want = Reference(model).run(x)
    result = pipeline.run(model, STEPS, REGISTRY, check_samples=40).model
    check(result)
    assert compare(Fast(result).run(x), want).equal
    found = against_oracle(result, x)
    assert found.proven, found.first
    return result


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, layers=st.integers(1, 3))
def test_lowering_keeps_every_output_of_random_networks(seed: int, layers: int) -> None:
    """Scales, zero points, batch-norm-like factors of either sign, every rounding mode."""
    model = lowered(random_net(seed, dyadic=False, layers=layers).model("y"))
    assert state_of(model) is State.INTEGER


def test_free_scales_become_one_multiplier_per_channel() -> None:
    net = Net()
    x = net.quant(net.input("x", 2), 0.5, 8)
    x = net.dense(x, WEIGHTS, np.array([[0.03, 0.05, 0.021]]), 8)
    net.quant(x, 0.17, 6, name="y")
    model = lowered(net.model("y"))
    kinds = ops(model)
    assert kinds.count("MatMul") == 1
    (mul,) = [n for n in model.graph if n.op_type == "Mul" and type_of(n.inputs[1])]
    array = constant(mul.inputs[1])
    assert array is not None
    assert array.size == 3
    assert "requantise" not in kinds


def test_a_rectifier_before_a_signed_quantiser_is_its_saturation_at_zero() -> None:
    net = Net()
    x = net.quant(net.input("x", 2), 0.5, 8)
    x = net.op("Relu", net.dense(x, WEIGHTS, np.array([[0.03, 0.05, 0.021]]), 8))
    net.quant(x, 0.017, 8, name="y")
    model = lowered(net.model("y"))
    assert "MultiThreshold" not in ops(model)
    last = [n for n in model.graph if Quant.matches(n)][-1]
    assert not Quant.read(last).signed
    assert Quant.read(last).bits == 7


def test_lowering_says_what_it_did() -> None:
    net = Net()
    x = net.quant(net.input("x", 2), 0.5, 8)
    x = net.quant(net.dense(x, WEIGHTS, 0.03, 8), 0.17, 6)
    net.quant(net.dense(x, WEIGHTS.T[:3], 0.3, 4), 1.7, 2, name="y")
    model = net.model("y")
    FoldQuantizers()(model)
    outcome = LowerScales()(model)
    assert isinstance(outcome, Outcome)
    assert "requantise by" in remarks(outcome)
    assert "thresholds per channel" in remarks(outcome)


@pytest.mark.parametrize("bits", [3, 8])
def test_wide_accumulators_run_in_the_float32_executor_too(bits: int) -> None:
    """Beyond 24 bits values are stored in float64, but a Quant of qonnx gives float32."""
    net = Net()
    x = net.quant(net.input("x", 2), 2.0**-15, 16)
    x = net.quant(net.dense(x, WEIGHTS, 0.0003, 16), 0.017, bits)
    net.quant(net.dense(x, np.eye(3), 0.3, 4), 0.41, 6, name="y")
    model = lowered(net.model("y"))
    assert "Cast" in ops(model)


def test_narrow_multipliers_only_leave_thresholds() -> None:
    net = Net()
    x = net.quant(net.input("x", 2), 0.5, 8)
    net.quant(net.dense(x, WEIGHTS, 0.03, 8), 0.17, 5, name="y")
    model = net.model("y")
    text = pipeline.DEFAULT.replace("lower-scales", "lower-scales{max-bits=1}")
    x_ = generate(model, 64, 2)
    want = Reference(model).run(x_)
    result = pipeline.run(model, parse_pipeline(text), REGISTRY).model
    assert "MultiThreshold" in ops(result)
    assert compare(Fast(result).run(x_), want).equal


def test_products_of_deeper_tensors_are_convolutions() -> None:
    net = Net()
    x = net.quant(net.input("x", 5, 2), 0.5, 4)
    net.quant(net.dense(x, WEIGHTS), 0.3, 4, name="y")
    model = net.model("y")
    assert "MatMul" not in ops(model)
    for pass_ in (FoldQuantizers(), LowerScales()):
        run(pass_, model)
    assert "Conv" in ops(model)


# --- prune-channels -----------------------------------------------------------------------------


def pruning(weights_in: Any, weights_out: Any, bias: Any) -> tuple[Model, Outcome]:
    """Two layers with a clipping quantiser between, in the integer state."""
    b = Builder()
    x = b.input("x", 2, signed(4, 4))
    h = b.matmul(x, np.asarray(weights_in), FixedType(True, 4, 4))
    h = b.quant(b.relu(b.add(h, np.asarray(bias), FixedType(True, 9, 9))), unsigned(4, 4))
    y = b.matmul(h, np.asarray(weights_out), FixedType(True, 4, 4))
    b.finish(b.quant(y, signed(6, 6)))
    model = Model(b.graph, ir_version=10)
    set_state(model, State.INTEGER)
    x_ = generate(model, 64)
    want = Reference(model).run(x_)
    outcome = PruneChannels()(model)
    assert isinstance(outcome, Outcome)
    assert compare(Reference(model).run(x_), want).equal
    DeadCode()(model)
    PropagatePrecision()(model)
    check(model)
    assert compare(Fast(partition(model)).run(x_), want).equal
    return model, outcome


def weights_of(model: Model) -> list[tuple[int, ...]]:
    found = [constant(n.inputs[1]) for n in model.graph if n.op_type == "MatMul"]
    return [a.shape for a in found if a is not None]


def test_constant_and_unread_channels_go() -> None:
    """Channel 1 is stuck at 15, channel 2 at 0, nothing reads channel 3."""
    model, outcome = pruning(
        [[1, 0, 1, 2], [-1, 0, 1, 1]], [[1, 2], [3, -1], [1, 1], [0, 0]], [0, 99, -99, 0]
    )
    assert outcome.rewrites == 3
    assert "3 channels carried nothing" in remarks(outcome)
    assert weights_of(model) == [(2, 1), (1, 2)]
    assert any("constant" in str(n.inputs[1].name) for n in model.graph if n.op_type == "Add")


def test_a_layer_keeps_one_input() -> None:
    model, outcome = pruning([[1, 2], [1, 1]], [[0], [0]], [0, 0])
    assert weights_of(model) == [(2, 1), (1, 1)]
    assert outcome.rewrites == 1


def test_live_channels_stay() -> None:
    _, outcome = pruning([[1, 2], [1, 1]], [[1], [2]], [0, 0])
    assert (outcome.rewrites, outcome.remarks) == (0, ())


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_pruning_changes_no_output(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hidden = int(rng.integers(1, 6))
    keep = rng.random((2, hidden)) < 0.6
    pruning(
        rng.integers(-3, 4, (2, hidden)) * keep,
        rng.integers(-3, 4, (hidden, 2)) * (rng.random((hidden, 1)) < 0.7),
        rng.choice([0, 0, 99, -99, 5], hidden),
    )


# --- propagate-precision, dce -------------------------------------------------------------------


def test_types_hold_the_ranges_and_nothing_more() -> None:
    net = Net()
    x = net.quant(net.input("x", 2), 0.5, 4)
    x = net.op("Relu", net.dense(x, WEIGHTS, 0.25, 5))
    net.quant(x, 0.25, 6, 0, name="y")
    model = net.model("y")
    FoldQuantizers()(model)
    LowerScales()(model)
    outcome = run(PropagatePrecision(), model)
    assert outcome.rewrites > 0
    linear = next(n.outputs[0] for n in model.graph if n.op_type == "MatMul")
    relu = next(n.outputs[0] for n in model.graph if n.op_type == "Relu")
    found = range_of(linear)
    assert found == Range(-48, 42, -3)
    assert type_of(linear) == found.fit()
    assert type_of(relu) == found.relu().fit()
    port = next(iter(model.graph)).outputs[0]
    assert str(type_of(port)) == "fixed<4,3,RND_CONV,SAT>"
    assert PropagatePrecision()(model).modified is False


def test_dead_code_goes_and_outputs_stay() -> None:
    net = Net()
    x = net.quant(net.input("x", 2), 0.5, 4)
    dead = net.op("Relu", net.dense(x, WEIGHTS))
    net.op("Sigmoid", dead)
    net.op("Relu", x, name="y")
    model = net.raw("y")
    constants = len(model.graph.initializers)
    assert run(DeadCode(), model).rewrites == 4 + 4
    assert ops(model) == ["Quant", "Relu"]
    assert len(model.graph.initializers) == constants - 4
    assert not DeadCode()(model).modified


def test_views_of_what_lowering_leaves() -> None:
    """Every quantiser of an integer graph is a native cast or counts thresholds."""
    model = lowered(random_net(11, dyadic=False, layers=3).model("y"))
    for node in partition(model).core:
        if Quant.matches(node):
            type_ = Quant.read(node).fixed_type
            assert type_ is not None
            assert type_.rounding in set(Rounding)
        elif MultiThreshold.matches(node):
            assert MultiThreshold.read(node).out_scale == 1
