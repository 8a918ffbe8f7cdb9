"""Each rule of the verifier, broken on its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
from onnx_ir import Model, Node, Value
from support.module_texts import SMALL

from hqc.diagnostics import HqcError
from hqc.ir import QONNX, State, load, parse_type, set_range, set_state, set_type
from hqc.numerics.types import Range
from hqc.pipeline.verifier import RULES, STAGES, Facts, check, verify
from hqc.text import parse_module


@pytest.fixture
def model() -> Model:
    return parse_module(SMALL)


def value(model: Model, name: str) -> Value:
    given = (*model.graph.inputs, *model.graph.initializers.values())
    produced = (v for node in model.graph for v in node.outputs)
    return next(v for v in (*given, *produced) if v.name == name)


def node(model: Model, output: str) -> Node:
    found = value(model, output).producer()
    assert found is not None
    return found


def data(model: Model, name: str, array: object, dtype: type = np.float32) -> None:
    value(model, name).const_value = onnx_ir.tensor(np.array(array, dtype), name=name)


def constant(model: Model, name: str, array: object) -> Value:
    tensor = onnx_ir.tensor(np.array(array, np.float32), name=name)
    new = Value(name=name, const_value=tensor, shape=onnx_ir.Shape(tensor.shape))
    new.dtype = tensor.dtype
    model.graph.register_initializer(new)
    return new


def same_name(model: Model) -> None:
    value(model, "sum").name = "acc"


def no_name(model: Model) -> None:
    value(model, "pos").name = ""


def ghost_output(model: Model) -> None:
    model.graph.outputs.append(Value(name="ghost", shape=onnx_ir.Shape(["N", 1])))


def no_output(model: Model) -> None:
    model.graph.outputs.clear()


def late_producer(model: Model) -> None:
    moved = node(model, "acc2")
    model.graph.remove(moved)
    model.graph.append(moved)


def dangling_input(model: Model) -> None:
    node(model, "p").replace_input_with(0, Value(name="nowhere", shape=onnx_ir.Shape(["N", 1])))


def producer_left_out(model: Model) -> None:
    model.graph.remove(node(model, "acc2"))


def subgraph(model: Model) -> None:
    body = onnx_ir.Graph([], [], nodes=[], name="body")
    node(model, "p").attributes.add(onnx_ir.AttrGraph("body", body))


def local_function(model: Model) -> None:
    body = onnx_ir.Graph([], [], nodes=[], name="body")
    function = onnx_ir.Function("local", "F", graph=body, attributes=[])
    model.functions[function.identifier()] = function


def unknown_operator(model: Model) -> None:
    node(model, "p").op_type = "Bogus"


def unknown_qonnx_operator(model: Model) -> None:
    node(model, "p").domain = QONNX


def foreign_domain(model: Model) -> None:
    node(model, "p").domain = "com.example"
    model.graph.opset_imports["com.example"] = 1


def newer_operator(model: Model) -> None:
    node(model, "p").op_type = "Swish"  # in ONNX since version 24


def no_import(model: Model) -> None:
    del model.graph.opset_imports[QONNX]


def declared_shape(model: Model) -> None:
    value(model, "bias").shape = onnx_ir.Shape([1, 2])


def declared_dtype(model: Model) -> None:
    value(model, "z").dtype = onnx_ir.DataType.DOUBLE


def nan(model: Model) -> None:
    constant(model, "unused", [1.0, float("nan")])


def infinite_attribute(model: Model) -> None:
    tensor = onnx_ir.tensor(np.array([np.inf], np.float32))
    node(model, "p").attributes.add(onnx_ir.AttrTensor("value", tensor))


def negative_scale(model: Model) -> None:
    set_state(model, State.QUANTISED)
    data(model, "s", -0.25)


def computed_scale(model: Model) -> None:
    set_state(model, State.QUANTISED)
    node(model, "x1").replace_input_with(1, value(model, "acc"))


def half_a_bit(model: Model) -> None:
    set_state(model, State.QUANTISED)
    data(model, "three", 2.5)


def descending_thresholds(model: Model) -> None:
    set_state(model, State.QUANTISED)
    data(model, "t", [[1.0, 0.0, 2.0]])


def dynamic_input(model: Model) -> None:
    value(model, "x").shape = onnx_ir.Shape(["N", "M"])


def unknown_output_shape(model: Model) -> None:
    value(model, "p").shape = None


def unquantised_branch(model: Model) -> None:
    other = onnx_ir.node("Softmax", [value(model, "x")], name="early")
    out = other.outputs[0]
    out.name, out.shape = "q", onnx_ir.Shape(["N", 3])
    model.graph.append(other)
    model.graph.outputs.append(out)


def dynamic_core(model: Model) -> None:
    value(model, "sum").shape = onnx_ir.Shape(["N", None])


def untyped(model: Model) -> None:
    set_type(value(model, "pos"), None)


def untyped_port(model: Model) -> None:
    set_type(value(model, "x0"), None)


def no_range(model: Model) -> None:
    set_range(value(model, "acc2"), None)


def untyped_weights(model: Model) -> None:
    set_type(value(model, "w"), None)


def constant_expression(model: Model) -> None:
    negated = onnx_ir.node("Neg", [constant(model, "minus_m", [-0.5, -0.75])], name="neg")
    negated.outputs[0].name, negated.outputs[0].shape = "neg_m", onnx_ir.Shape([2])
    model.graph.insert_before(node(model, "x0"), negated)
    node(model, "scaled").replace_input_with(1, negated.outputs[0])


def odd_scale(model: Model) -> None:
    data(model, "s2", 0.3)


def zero_point(model: Model) -> None:
    node(model, "x1").replace_input_with(2, value(model, "four"))


def no_hardware_rounding(model: Model) -> None:
    node(model, "x1").attributes.add(onnx_ir.AttrString("rounding_mode", "CEIL"))


def scaled_counts(model: Model) -> None:
    node(model, "y").attributes.add(onnx_ir.AttrFloat32("out_scale", 2.0))


def other_step(model: Model) -> None:
    set_type(value(model, "x1"), parse_type("ufixed<4,2>"))


def too_narrow(model: Model) -> None:
    set_type(value(model, "acc"), parse_type("fixed<6,3>"))


def too_coarse(model: Model) -> None:
    set_type(value(model, "sum"), parse_type("fixed<6,4>"))


def off_grid(model: Model) -> None:
    data(model, "bias", [0.25, -0.9])


def outside_type(model: Model) -> None:
    data(model, "w2", [[1.0], [-3.0]])
    set_range(value(model, "acc2"), Range(-12, 7, -1))
    set_type(value(model, "acc2"), parse_type("fixed<6,5>"))


def outside_range(model: Model) -> None:
    data(model, "bias", [0.5, -1.0])
    set_range(value(model, "sum"), Range(-50, 57, -3))
    set_range(value(model, "pos"), Range(0, 57, -3))
    set_range(value(model, "scaled"), Range(0, 114, -5))


def port_too_tight(model: Model) -> None:
    set_range(value(model, "x0"), Range(-7, 7, -2))


def port_too_wide(model: Model) -> None:
    set_type(value(model, "x0"), parse_type("fixed<5,3>"))
    set_range(value(model, "x0"), Range(-9, 8, -2))
    for name in ("acc", "sum"):
        set_type(value(model, name), parse_type("fixed<8,5>"))
        set_range(value(model, name), Range(-70, 70, -3))
    set_type(value(model, "pos"), parse_type("ufixed<7,4>"))
    set_range(value(model, "pos"), Range(0, 70, -3))
    set_type(value(model, "scaled"), parse_type("ufixed<8,3>"))
    set_range(value(model, "scaled"), Range(0, 140, -5))
    set_range(value(model, "acc2"), Range(-7, 7, -1))


def stale(name: str) -> Callable[[Model], None]:
    """A range one code too small at its upper end."""

    def narrow(model: Model) -> None:
        old = value(model, name).meta["hqc.range"]
        set_range(value(model, name), Range(old.lo, old.hi - 1, old.exponent))

    narrow.__name__ = f"stale_{name}"
    return narrow


BREAKS: dict[str, list[Callable[[Model], None]]] = {
    "names": [same_name, no_name],
    "interface": [ghost_output, no_output],
    "order": [late_producer],
    "dangling": [dangling_input, producer_left_out],
    "flat": [subgraph, local_function],
    "operators": [unknown_operator, unknown_qonnx_operator, foreign_domain, newer_operator],
    "opsets": [no_import],
    "declared": [declared_shape, declared_dtype],
    "finite": [nan, infinite_attribute],
    "quantisers": [negative_scale, computed_scale, half_a_bit, descending_thresholds],
    "shapes": [dynamic_input, unknown_output_shape],
    "cut": [unquantised_branch],
    "core-shapes": [dynamic_core],
    "typed": [untyped, untyped_port, no_range],
    "typed-constants": [untyped_weights, constant_expression],
    "requantisers": [odd_scale, zero_point, no_hardware_rounding, scaled_counts, other_step],
    "fits": [too_narrow, too_coarse],
    "on-grid": [off_grid, outside_type, outside_range],
    "ports": [port_too_tight, port_too_wide],
    "ranges": [stale(name) for name in ("acc", "sum", "pos", "scaled", "x1", "acc2", "y")],
}
CASES = [(rule, change) for rule, changes in BREAKS.items() for change in changes]


def broken_rules(model: Model) -> list[str]:
    """Names of the rules that find something, in the first stage that finds anything."""
    facts = Facts(model)
    for stage in STAGES:
        if found := [rule.name for rule in stage if list(rule.diagnose(facts))]:
            return found
    return []


def test_the_model_is_valid(model: Model) -> None:
    assert verify(model) == []
    check(model)


def test_every_rule_is_tested_and_named_once() -> None:
    assert [rule.name for rule in RULES] == list(BREAKS)


@pytest.mark.parametrize(
    ("rule", "change"), CASES, ids=[f"{rule}-{change.__name__}" for rule, change in CASES]
)
def test_a_broken_rule_is_found(model: Model, rule: str, change: Callable[[Model], None]) -> None:
    change(model)
    assert broken_rules(model) == [rule]
    row = next(r for r in RULES if r.name == rule)
    found = verify(model)
    assert found
    if rule != "quantisers" and rule != "cut":
        assert {d.code for d in found} == {row.code}
    with pytest.raises(HqcError) as caught:
        check(model, after="some-pass")
    assert caught.value.diagnostics[0].code == "HQC302"
    assert "after some-pass" in str(caught.value)
    assert caught.value.diagnostics[1:] == tuple(found)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (negative_scale, "HQC106"),
        (computed_scale, "HQC108"),
        (half_a_bit, "HQC107"),
        (descending_thresholds, "HQC102"),
    ],
)
def test_quantisers_bring_their_own_codes(
    model: Model, change: Callable[[Model], None], code: str
) -> None:
    change(model)
    assert {d.code for d in verify(model)} == {code}


def test_findings_say_where(model: Model) -> None:
    untyped_weights(model)
    (found,) = verify(model)
    assert found.where.node == "fc1"
    assert "w has no type" in found.message


def test_many_findings_are_counted(model: Model) -> None:
    for i in range(30):
        constant(model, f"bad{i}", [float("nan")])
    with pytest.raises(HqcError) as caught:
        check(model)
    assert "30 violations" in str(caught.value)
    assert len(caught.value.diagnostics) == 21


def test_a_type_lost_at_the_end_does_not_hide_in_the_tail(model: Model) -> None:
    """The last bias without its type would pass for a float of the host."""
    set_type(value(model, "bias"), None)
    model.graph.outputs[0] = value(model, "sum")
    for name in ("p", "y", "acc2", "x1", "scaled", "pos"):
        model.graph.remove(node(model, name), safe=True)
    assert broken_rules(model) == ["typed-constants"]


def test_quantised_models_need_no_types(model: Model) -> None:
    set_state(model, State.QUANTISED)
    for name in ("x0", "acc", "w"):
        set_type(value(model, name), None)
        set_range(value(model, name), None)
    assert verify(model) == []


def test_before_precision_is_propagated_only_constants_have_types(model: Model) -> None:
    computed = [v for n in model.graph for v in n.outputs if v.name != "p"]
    for v in computed:
        set_type(v, None)
        set_range(v, None)
    assert verify(model) == []
    set_range(computed[2], Range(-50, 55, -3))
    found = verify(model)
    assert len(found) == len(computed)
    assert "sum has no type" in [d.message for d in found]
    set_range(computed[2], None)
    set_type(value(model, "bias"), None)
    assert broken_rules(model) == ["typed-constants"]


def test_wider_ranges_are_not_wrong(model: Model) -> None:
    """A pass may join channels where the verifier does not."""
    set_range(value(model, "acc2"), Range(-7, 7, -1))
    assert verify(model) == []


def test_files_as_they_come_break_the_rules_of_the_dialect(shared_models: Path) -> None:
    model = load(shared_models / "qkeras_jettagging.onnx")
    assert broken_rules(model) == ["operators", "opsets"]  # a domain of an older QONNX
