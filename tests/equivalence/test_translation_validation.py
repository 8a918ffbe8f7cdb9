"""Translation validation: comparisons, float32 error bounds, ties and what is unexplained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.qonnx_graphs import Net, random_net

from hqc import pipeline
from hqc.analysis.partition import computed_nodes
from hqc.equivalence import float_error, translation_validation
from hqc.equivalence.qonnx_oracle import run_qonnx
from hqc.equivalence.samples import generate
from hqc.equivalence.translation_validation import against_oracle, compare, first_difference
from hqc.execution.reference import Reference
from hqc.ir import Array
from hqc.ir.operators import is_quantiser
from hqc.pipeline.registry import Registry
from hqc.text import parse_module, parse_pipeline

SEEDS = st.integers(0, 10**6)


def test_equal_outputs() -> None:
    found = compare({"y": np.array([1.0, 2.0])}, {"y": np.array([1.0, 2.0])})
    assert (found.equal, found.total, found.mismatches, found.first) == (True, 2, 0, None)


@pytest.mark.parametrize(
    ("got", "want", "words"),
    [
        ({"y": [[1.0, 2.0]]}, {"y": [[1.0, 3.0]]}, ["y[0, 1]", "2.0", "3.0"]),
        ({"y": [[1.0]]}, {"y": [1.0]}, ["shape (1, 1)", "want (1,)"]),
        ({}, {"y": [1.0]}, ["y", "None"]),
        ({"y": [1.0], "z": [1.0]}, {"y": [1.0]}, ["z"]),
        ({"y": [np.nan]}, {"y": [0.0]}, ["nan"]),
    ],
)
def test_the_first_difference_is_told(got: Any, want: Any, words: list[str]) -> None:
    arrays = [{n: np.array(v) for n, v in side.items()} for side in (got, want)]
    found = compare(*arrays)
    assert not found.equal
    assert found.mismatches >= 1
    assert all(word in str(found.first) for word in words)


def test_every_mismatch_is_counted() -> None:
    one = np.arange(12.0).reshape(3, 4)
    two = one.copy()
    two[1:, 2] += 1
    found = compare({"a": one, "b": one}, {"a": one, "b": two})
    assert (found.total, found.mismatches) == (24, 2)


def test_the_first_tensor_that_differs_is_found_by_name() -> None:
    model = random_net(7, dyadic=True).model("y")
    x = generate(model, 20)
    trace = Reference(model).trace(x)
    before = {str(v.name): t for v, t in trace.items()}
    assert first_difference(before, trace) is None
    names = [str(v.name) for v in trace]
    for name in names[3:5]:
        spoiled = before[name]
        before[name] = type(spoiled)(spoiled.base + 1, spoiled.chain)
    assert names[3] in str(first_difference(before, trace))


# --- float32 error ------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_bounds_bound_what_float32_does_up_to_the_first_flip(seed: int) -> None:
    """Every tensor of random graphs: |float32 - exact| never exceeds its bound.

    Behind a quantiser that fell on the other side of a tie, the row is another computation.
    """
    model = random_net(seed, dyadic=False).model("y")
    x = generate(model, 48, seed)
    oracle = run_qonnx(model, x, intermediates=True)
    trace = Reference(model).trace(x)
    errors = float_error._Errors(trace)
    same = np.ones(48, bool)
    for node in computed_nodes(model):
        value = node.outputs[0]
        errors.add(node)
        mine = np.asarray(oracle[str(value.name)], np.float64)
        exact = trace[value].values()
        gap = np.abs(mine - exact)
        if is_quantiser(node):
            grid = trace[value].chain.affine
            assert grid is not None
            codes = float_error._codes(mine, grid)
            same &= (codes == trace[value].base).reshape(48, -1).all(axis=1)
            gap = gap * 0  # a code is equal or it is not; its float value is compared below
        slack = float_error.SINGLE * np.abs(exact)  # the bound of a grid's own values
        slack += 1e-15 * np.max(np.abs(exact), initial=0)  # and of showing them in float64
        assert np.all((gap <= errors.bound[value] + slack)[same]), str(node.name)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_every_difference_of_a_correct_model_is_explained(seed: int) -> None:
    model = random_net(seed, dyadic=False, layers=3).model("y")
    found = against_oracle(model, generate(model, 64, seed))
    assert found.proven, found.first
    assert found.equal + found.ties + found.rounding == found.samples == 64


def tie_net() -> Net:
    """0.1 * x with scale 0.1 and a float32 product: 5 * 0.1 is no tie in float32."""
    net = Net()
    x = net.quant(net.input("x", 1), 1.0, 6)
    x = net.op("Mul", net.dense(x, [[1.0]], 0.1, 6), net.const(0.3))
    net.quant(x, 0.6, 8, name="q")
    net.op("Identity", "q", name="y")
    return net


def test_a_genuine_tie_is_a_tie() -> None:
    """All products n * 0.1f * 0.3f / 0.6f with odd n are within float error of a tie."""
    model = tie_net().model("y")
    x = np.arange(-31, 32, dtype=np.float32).reshape(-1, 1)
    found = against_oracle(model, {"x": x})
    assert found.unexplained == 0
    assert found.equal + found.ties == found.samples
    assert found.ties > 0
    assert found.first is None


def spoil(monkeypatch: pytest.MonkeyPatch, name: str, change: Any) -> None:
    """Plant a wrong value into what the oracle computes."""

    def wrong(*args: Any, **kwargs: Any) -> dict[str, Array]:
        found = run_qonnx(*args, **kwargs)
        found[name] = change(np.array(found[name]))
        return found

    monkeypatch.setattr(translation_validation, "run_qonnx", wrong)


def far_from_ties() -> dict[str, Array]:
    return {"x": np.arange(-30, 31, 4, dtype=np.float32).reshape(-1, 1)}


def test_a_planted_code_is_unexplained(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tie_net().model("y")
    assert against_oracle(model, far_from_ties()).equal == 16

    def change(array: Array) -> Array:
        array[3] += np.float32(0.6)
        return array

    spoil(monkeypatch, "y", change)
    found = against_oracle(model, far_from_ties())
    assert (found.unexplained, found.equal, found.ties) == (1, 15, 0)
    assert not found.proven
    assert "sample 3" in str(found.first)
    assert "gives code" in str(found.first)


def test_a_code_two_steps_away_is_no_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value on a tie explains the neighbouring code, not the one after it."""
    model = tie_net().model("y")
    x = {"x": np.array([[5.0]], np.float32)}
    spoil(monkeypatch, "y", lambda array: array + np.float32(1.8))
    assert against_oracle(model, x).unexplained == 1


def linear_net() -> Net:
    net = Net()
    x = net.quant(net.input("x", 8), 0.3, 6)
    net.dense(x, np.random.default_rng(0).normal(0, 0.5, (8, 3)), 0.07, 6, name="y")
    return net


def test_outputs_that_no_quantiser_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    model = linear_net().model("y")
    x = {"x": np.random.default_rng(1).normal(0, 3, (200, 8)).astype(np.float32)}
    honest = against_oracle(model, x)
    assert honest.proven
    assert honest.rounding > 0
    spoil(monkeypatch, "y", lambda array: array * np.float32(1 + 1e-4))
    planted = against_oracle(model, x)
    assert planted.unexplained > 150
    assert "float32 error up to" in str(planted.first)


def test_dyadic_models_have_no_error_at_all() -> None:
    """Where every partial sum is representable the bound is zero, so any difference is one."""
    net = Net()
    x = net.quant(net.input("x", 4), 0.5, 8)
    net.dense(x, np.random.default_rng(0).normal(0, 0.5, (4, 3)), 0.125, 6, name="y")
    model = net.model("y")
    trace = Reference(model).trace(generate(model, 64))
    errors = float_error._Errors(trace)
    for node in computed_nodes(model):
        errors.add(node)
    assert all(not np.any(bound) for bound in errors.bound.values())


def test_the_oracle_runs_nodes_without_names_and_attributes() -> None:
    """qonnx wants attributes that hqc reads defaults for."""
    model = parse_module("""
    hqc.module version 1 state quantised ir 8 opset 17, qonnx 1 {
      input %x : float32[N,2]
      const %s : float32[] = 0.5
      const %z : float32[] = 0.0
      const %b : float32[] = 3.0
      const %t : float32[1,3] = [[-1.0, 0.0, 1.0]]
      %q = qonnx.Quant(%x, %s, %z, %b) : float32[N,2]
      %y = qonnx.MultiThreshold(%q, %t) : float32[N,2]
      output %y
    }""")
    inputs = generate(model, 50)
    assert against_oracle(model, inputs).equal == 50
    lowered = pipeline.run(model, parse_pipeline(pipeline.DEFAULT), Registry.builtin()).model
    assert all(node.name for node in lowered.graph)
