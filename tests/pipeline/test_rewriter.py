"""Patterns, and passes made of rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_ir import Model, Node, Value
from support.pass_runs import run
from support.qonnx_graphs import Net, ops, random_net
from support.rewriters import Halves, Ones

from hqc import ir, pipeline
from hqc.execution.reference import Reference
from hqc.ir import State, location_of, range_of, state_of, type_of
from hqc.pipeline.passes import Outcome
from hqc.pipeline.patterns import match
from hqc.pipeline.registry import Registry
from hqc.pipeline.rewriter import Builder, Const, Decline, Match, Op, Pattern, Rewriter, Var, rule
from hqc.pipeline.verifier import check
from hqc.text import parse_pipeline


def _node(model: Model, name: str) -> Node:
    return next(n for n in model.graph if n.outputs[0].name == name)


def _graph() -> Model:
    n = Net()
    x = n.quant(n.input("x", 3), 0.125, 6, name="q")
    n.op("Mul", n.const(0.5, name="half"), x, name="a")
    n.op("Mul", "a", "a", name="square")
    n.op("Clip", "a", "", n.const(1.0), name="clip")
    n.op("LeakyRelu", "clip", name="leaky", alpha=0.25)
    n.op("Identity", n.op("Add", "square", "leaky", name="sum"), name="y")
    return n.raw("y")


# --- patterns -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "at", "fits"),
    [
        (Op("Mul", (Var("x"), Const("c"))), "a", True),  # in either order
        (Op("Mul", (Const("c", 0.5), Var("x"))), "a", True),
        (Op("Mul", (Var("x"), Const("c", 0.25))), "a", False),
        (Op("Mul", (Var("x"), Const("c", np.nextafter(0.5, 1)))), "a", False),  # no tolerance
        (Op("Mul", (Var("x"), Const("c", where=lambda c: c.ndim == 0))), "a", True),
        (Op("Mul", (Var("x"), Const("c", where=lambda c: c.ndim == 1))), "a", False),
        (Op("Mul", (Var("x"), Const("c"))), "square", False),
        (Op("Mul", (Var("x"), Var("x"))), "square", True),
        (Op("Mul", (Var("x"), Var("x"))), "a", False),
        (Op("Mul", (Var("x"), Var("y"))), "square", True),
        (Op("Add", (Var("x"), Var("y"))), "a", False),
        (Op("Clip", (Var("x"), None, Const("top"))), "clip", True),
        (Op("Clip", (Var("x"), Const("low"), Const("top"))), "clip", False),
        (Op("Clip", (Var("x"),)), "clip", False),
        (Op("LeakyRelu", (Var("x"),), attributes={"alpha": 0.25}), "leaky", True),
        (Op("LeakyRelu", (Var("x"),), attributes={"alpha": 0.5}), "leaky", False),
        (Op("LeakyRelu", (Var("x"),), attributes={"beta": 0.5}), "leaky", False),
        (Op("Add", (Op("Clip", (Var("x"), None, Var("t"))), Var("y"))), "sum", False),
        (Op("LeakyRelu", (Op("Clip", (Var("x"), None, Var("t"))),)), "leaky", True),
        (Op("Clip", (Op("Mul", (Var("x"), Const("c"))), None, Var("t"))), "clip", False),
        (
            Op("Clip", (Op("Mul", (Var("x"), Const("c")), shared=True), None, Var("t"))),
            "clip",
            True,
        ),
        (Op("qonnx.Quant", (Var("x"), Const("s"), Const("z"), Const("b"))), "q", True),
        (Op("Quant", (Var("x"), Const("s"), Const("z"), Const("b"))), "q", False),
        (Op("Add", (Op("LeakyRelu", (Var("l"),)), Op("Mul", (Var("m"), Var("m"))))), "sum", True),
        (Op("Add", (Op("LeakyRelu", (Var("l"),)), Op("Mul", (Var("l"), Var("m"))))), "sum", False),
    ],
)
def test_patterns(pattern: Op, at: str, fits: bool) -> None:
    assert (match(pattern, _node(_graph(), at)) is not None) is fits


def test_what_a_match_tells() -> None:
    model = _graph()
    inner: Pattern = Op("Clip", (Var("x"), None, Const("top")), name="inner")
    found = match(Op("LeakyRelu", (inner,)), _node(model, "leaky"))
    assert found is not None
    assert (found["x"].name, found["inner"].name) == ("a", "clip")
    assert found.array("top") == 1.0
    assert found.attribute("alpha", 0.01) == 0.25
    assert found.attribute("min", "none", "inner") == "none"
    assert [n.op_type for n in found.nodes] == ["LeakyRelu", "Clip"]
    with pytest.raises(ValueError, match="x is computed"):
        found.array("x")


# --- rewriting ----------------------------------------------------------------------------------


def _products(*factors: float) -> Model:
    n = Net()
    x = n.quant(n.input("x", 3), 0.125, 6)
    for factor in factors:
        x = n.op("Mul", x, n.const(factor))
    n.quant(x, 0.25, 6, name="y")
    return n.raw("y")


def test_a_rewrite_keeps_name_uses_and_provenance() -> None:
    model = _products(0.5, 0.25)
    ir.set_source(_node(model, "mul2"), "model.py:7  x = x / 4")
    outcome = run(Halves(), model)
    assert ops(model) == ["Quant", "Mul", "Quant"]
    new = _node(model, "mul2")
    assert location_of(new).source == "model.py:7  x = x / 4"
    assert location_of(new).passes == ("halves",)
    (change,) = outcome.changes
    assert (change.rule, change.where.node) == ("two-products", "mul2_node")
    used = {v.name for n in model.graph for v in n.inputs if v is not None}
    kept = {v for v in model.graph.initializers if v.startswith("c")} - used
    assert not kept  # constants of what was replaced are gone


def test_new_nodes_are_matched_inside_but_as_roots_only_by_the_next_run() -> None:
    model = _products(0.5, 0.5, 0.5, 0.5)
    assert run(Halves(), model).rewrites == 3
    assert ops(model) == ["Quant", "Mul", "Quant"]
    again = _rewriter(lambda m, new: new.op("Relu", m["x"]))
    assert run(again, _relu()).rewrites == 1  # and it ends


def test_declining_says_why_and_where() -> None:
    outcome = run(Halves(), _products(-0.5, 0.5))
    assert outcome.rewrites == 0
    (remark,) = outcome.remarks
    assert remark.rule == "two-products"
    assert str(remark) == "two-products: it is negative  --> model  (node mul2_node)"


@pytest.mark.parametrize("limit", [-1, 0, 1, 2, 3])
def test_rewrites_are_limited(limit: int) -> None:
    model = _products(1.0, 0.5, 1.0)
    outcome = run(Ones(max_rewrites=limit), model)
    assert outcome.rewrites == (2 if limit < 0 else min(limit, 2))
    step = parse_pipeline(f"ones{{max-rewrites={limit}}}")
    assert pipeline.run(_products(1.0), step, Registry.builtin().with_pass(Ones)).records


def test_an_output_keeps_its_name_when_its_node_goes() -> None:
    n = Net()
    x = n.quant(n.input("x", 3), 0.125, 6)
    n.op("Mul", x, n.const(1.0), name="y")
    model = n.raw("y")
    assert run(Ones(), model).rewrites == 1
    assert ops(model) == ["Quant", "Identity"]
    assert [v.name for v in model.graph.outputs] == ["y"]


def test_the_integer_state_keeps_types_and_ranges() -> None:
    n = Net()
    x = n.quant(n.input("x", 3), 0.125, 6)
    x = n.dense(x, np.eye(3) / 2, name="fc")
    n.quant(n.op("Relu", x), 0.25, 6, name="y")

    @dataclass(frozen=True)
    class Twice(Rewriter):
        """Relu is half of |x| + x, here with twice the Relu."""

        name: ClassVar[str] = "twice"

        @rule(Op("Relu", (Var("x"),)))
        def relu(self, match: Match, new: Builder) -> Value:
            bent = new.op("Relu", match["x"])
            return new.op("Mul", new.op("Add", bent, bent), 0.5)

    registry = Registry.builtin().with_pass(Twice)
    steps = parse_pipeline(f"{pipeline.DEFAULT},twice,dce")
    model = pipeline.run(n.model("y"), steps, registry).model
    assert state_of(model) is State.INTEGER
    added = [node for node in model.graph if "twice" in location_of(node).passes]
    assert [node.op_type for node in added] == ["Relu", "Add", "Mul"]
    for node in added:
        assert type_of(node.outputs[0]) is not None
        assert range_of(node.outputs[0]) is not None


Answer = Callable[[Match, Builder], Value | Decline | None]


def _rewriter(answer: Answer) -> Rewriter:
    @dataclass(frozen=True)
    class One(Rewriter):
        """A rule in a test."""

        name: ClassVar[str] = "one"

        @rule(Op("Relu", (Var("x"),)))
        def relu(self, match: Match, new: Builder) -> Value | Decline | None:
            return answer(match, new)

    return One()


def _relu(width: int = 3) -> Model:
    n = Net()
    x = n.quant(n.input("x", width), 0.125, 6)
    n.quant(n.op("Relu", x, name="r"), 0.25, 6, name="y")
    return n.raw("y")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda m, new: new.op("ReduceSum", m["x"], np.array([1]), keepdims=1), "shape"),
        (lambda m, new: new.op("Cast", m["x"], to=11), "DOUBLE"),
        (lambda m, new: m.node.outputs[0], "itself"),
        (lambda m, new: new.op("NoSuchOperator", m["x"]), "NoSuchOperator"),
        (lambda m, new: m["z"], "z"),
        (lambda m, new: m.node, "a tensor, a Decline or None"),
        (lambda m, new: True, "a tensor, a Decline or None"),
    ],
)
def test_wrong_answers_are_errors_of_the_rule(answer: Answer, words: str) -> None:
    with pytest.raises(Exception, match=words) as found:
        _rewriter(answer).rewrite(_relu())
    assert any("rule relu on model  (node r_node)" in note for note in found.value.__notes__)


def test_what_a_rule_made_and_did_not_use_leaves_no_trace() -> None:
    def answer(match: Match, new: Builder) -> Value:
        new.op("Mul", match["x"], 3.0)
        return new.op("Clip", match["x"], 0.0, None)

    model = _relu()
    before = len(model.graph.initializers)
    assert run(_rewriter(answer), model).rewrites == 1
    assert ops(model) == ["Quant", "Clip", "Quant"]
    assert len(model.graph.initializers) == before + 1
    declined = run(_rewriter(lambda m, new: Decline(str(new.op("Neg", m["x"]).name))), _relu())
    assert declined.remarks[0].message == "relu: r_neg"


def test_shapes_are_inferred() -> None:
    def answer(match: Match, new: Builder) -> Value:
        turned = new.op("Unsqueeze", match["x"], np.array([2]))
        assert [str(d) for d in turned.shape or ()] == ["N", "3", "1"]
        back = new.op("Squeeze", new.op("Relu", turned), np.array([2]))
        assert [str(d) for d in back.shape or ()] == ["N", "3"]
        return new.op("Reshape", back, np.array([-1, 3]))  # whose batch has no name

    assert run(_rewriter(answer), _relu()).rewrites == 1


def test_rules_are_tried_in_order_and_inherited() -> None:
    @dataclass(frozen=True)
    class More(Ones):
        """One more rule."""

        name: ClassVar[str] = "more"

        @rule(Op("Mul", (Var("x"), Const("any"))))
        def last(self, match: Match, new: Builder) -> None:
            return None

    assert [r.name for r in More.rules()] == ["by-one", "plus-zero", "last"]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_random_networks_keep_their_values(seed: int) -> None:
    """Split every factor into two, and join them again."""

    @dataclass(frozen=True)
    class Split(Rewriter):
        """Write a product as two."""

        name: ClassVar[str] = "split"

        @rule(Op("Mul", (Var("x"), Const("c"))))
        def product(self, match: Match, new: Builder) -> Value:
            half = new.op("Mul", match["x"], 0.5)
            return new.op("Mul", half, match.array("c") * np.float32(2))

    net = random_net(seed, dyadic=True)
    model = net.model("y")
    inputs = {"x": np.random.default_rng(seed).normal(0, 2, (32, 4)).astype(np.float32)}
    want = Reference(model).run(inputs)
    count = ops(model).count("Mul")
    for pass_ in (Split(), Halves()):
        outcome = pass_(model)
        assert isinstance(outcome, Outcome)
        check(model)
        assert ops(model).count("Mul") <= 2 * count
        for name, found in Reference(model).run(inputs).items():
            np.testing.assert_array_equal(found, want[name])
