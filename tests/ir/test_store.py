"""The IR store: annotations in files, provenance, and editing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_ir import Model, Node, Shape, Value

from hqc import ir
from hqc.diagnostics import HqcError
from hqc.ir.operators import BipolarQuant, MultiThreshold, Quant, is_quantiser, power_of_two
from hqc.ir.structural_equality import difference
from hqc.numerics.types import FixedType, Overflow, Range, Rounding
from hqc.text import parse_module

TEXT = """
hqc.module @net version 1 state integer ir 10 opset 18, qonnx 1 {
  meta "hqc.pipeline" = "a,b"
  input %x : float32[N,2] as fixed<8,4> in [-128, 127]*2^-4
  const %w : float32[2,2] as fixed<3,2> in [-4, 3]*2^-1 = [[1.0, -0.5], [0.5, 1.5]]
  %acc = MatMul(%x, %w) : float32[N,2] as fixed<12,7> in [-1000, 1000]*2^-5 "fc1"
      from "model.py:41  x = self.fc1(x)" via (fold-quantizers, dce)
  %same = Identity(%acc) : float32[N,2] "id"
  %pos = Relu(%same) : float32[N,2] "act"
  %out = Identity(%pos) : float32[N,2] "last"
  output %out
}
"""


@pytest.fixture
def model() -> Model:
    return parse_module(TEXT)


def node(model: Model, name: str) -> Node:
    return model.graph.node(name)


# --- files --------------------------------------------------------------------------------------


def test_annotations_survive_a_file(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    ir.save(model, path)
    assert difference(model, ir.load(path)) is None


def test_the_same_model_gives_the_same_bytes(model: Model) -> None:
    data = ir.to_bytes(model)
    assert ir.to_bytes(parse_module(TEXT)) == data
    assert ir.to_bytes(ir.from_bytes(data, "bytes")) == data


def test_a_saved_file_is_ordinary_onnx(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    ir.save(model, path)
    onnx.checker.check_model(onnx.load(path))


def test_cleared_annotations_leave_the_file(model: Model) -> None:
    again = ir.from_bytes(ir.to_bytes(model), "bytes")
    acc = node(again, "fc1").outputs[0]
    ir.set_type(acc, None)
    ir.set_range(acc, None)
    once_more = ir.from_bytes(ir.to_bytes(again), "bytes")
    acc = node(once_more, "fc1").outputs[0]
    assert ir.type_of(acc) is None
    assert ir.range_of(acc) is None


@given(
    st.integers(-(2**80), 2**80),
    st.integers(0, 2**80),
    st.integers(-60, 60),
    st.integers(1, 90),
    st.sampled_from(Rounding),
    st.sampled_from(Overflow),
)
def test_any_annotation_survives(
    lo: int, size: int, exponent: int, width: int, rounding: Rounding, overflow: Overflow
) -> None:
    model = parse_module(TEXT)
    range_ = Range(lo, lo + size, exponent)
    type_ = FixedType(True, width, exponent, rounding, overflow)
    for value in (model.graph.inputs[0], model.graph.initializers["w"], model.graph[1].outputs[0]):
        ir.set_type(value, type_)
        ir.set_range(value, range_)
    assert difference(model, ir.from_bytes(ir.to_bytes(model), "bytes")) is None


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x08\x0a", bytes(100)])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(HqcError) as caught:
        ir.from_bytes(data, "file.onnx")
    assert caught.value.diagnostics[0].code == "HQC002"
    assert "file.onnx" in str(caught.value)


def test_truncated_files_are_refused(model: Model) -> None:
    data = ir.to_bytes(model)
    for size in range(0, len(data) - 1, 7):
        try:
            again = ir.from_bytes(data[:size], "file.onnx")
        except HqcError as error:
            assert error.diagnostics[0].code in ("HQC002", "HQC109")  # noqa: PT017
        else:
            assert difference(model, again) is not None


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HqcError) as caught:
        ir.load(tmp_path / "none.onnx")
    assert caught.value.diagnostics[0].code == "HQC002"


# --- types in text ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "fixed", "fixed<>", "fixed<4>", "fixed<4,2", "fixed<4,2>>", "int<4,2>", "fixed<4,2,X>",
     "fixed<4,2,TRN,SAT,3>", "fixed<a,2>", "fixed<0,2>", "ufixed<4,2,TRN,SAT_SYM>"],
)  # fmt: skip
def test_bad_types_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        ir.parse_type(text)


def test_types_print_as_hardware_spells_them() -> None:
    assert str(ir.parse_type("fixed<16,6,ROUND,SAT>")) == "fixed<16,6,RND_CONV,SAT>"
    assert str(ir.parse_type(" ufixed< 4 , -2 > ")) == "ufixed<4,-2>"
    assert str(ir.parse_type("fixed<16,6,TRN,WRAP>")) == "fixed<16,6>"


# --- state and provenance -----------------------------------------------------------------------


def test_models_without_a_mark_are_quantised(model: Model) -> None:
    assert ir.state_of(model) is ir.State.INTEGER
    del model.metadata_props["hqc.state"]
    assert ir.state_of(model) is ir.State.QUANTISED


def test_locations(model: Model) -> None:
    where = ir.location_of(node(model, "fc1"))
    assert where.source == "model.py:41  x = self.fc1(x)"
    assert where.passes == ("fold-quantizers", "dce")
    assert str(where) == ("model.py:41  x = self.fc1(x)  (node fc1, after fold-quantizers, dce)")
    anonymous = node(model, "act")
    anonymous.name = ""
    assert ir.location_of(anonymous).node == "Relu -> pos"


def test_derived_nodes_inherit_their_place(model: Model) -> None:
    old = node(model, "fc1")
    new = onnx_ir.node("Relu", [old.outputs[0]], name="new")
    ir.derive([new], old, "my-pass")
    assert ir.location_of(new).source == ir.location_of(old).source
    assert ir.location_of(new).passes == ("fold-quantizers", "dce", "my-pass")
    ir.derive([new], new, "my-pass")
    assert ir.location_of(new).passes == ("fold-quantizers", "dce", "my-pass")
    ir.derive([new], node(model, "act"), "my-pass")  # without a source, the node is the source
    assert ir.location_of(new).source == "act"


# --- editing ------------------------------------------------------------------------------------


def names(model: Model) -> list[str]:
    return [f"{n.op_type}:{n.outputs[0].name}" for n in model.graph]


def test_replace_output_keeps_name_uses_and_shape(model: Model) -> None:
    old = node(model, "act")
    source = old.inputs[0]
    assert source is not None
    first = ir.make_node("Neg", [source], like=source, name="neg")
    second = ir.make_node("Neg", [first.outputs[0]], like=source, name="negneg")
    ir.replace_output(old, [first, second], by="my-pass")
    assert names(model) == ["MatMul:acc", "Identity:same", "Neg:neg", "Neg:pos", "Identity:out"]
    assert node(model, "last").inputs[0] is second.outputs[0]
    assert second.outputs[0].shape == Shape(["N", 2])
    assert ir.location_of(second).passes == ("my-pass",)
    assert ir.location_of(second).source == "act"


def test_replace_output_of_a_graph_output(model: Model) -> None:
    old = node(model, "last")
    source = old.inputs[0]
    assert source is not None
    new = ir.make_node("Relu", [source], like=source, name="relu")
    ir.replace_output(old, [new], by="my-pass")
    assert [v.name for v in model.graph.outputs] == ["out"]
    assert model.graph.outputs[0] is new.outputs[0]


def test_bypass_in_the_middle(model: Model) -> None:
    ir.bypass(node(model, "id"))
    assert names(model) == ["MatMul:acc", "Relu:pos", "Identity:out"]
    assert node(model, "act").inputs[0] is node(model, "fc1").outputs[0]


def test_bypass_before_an_output_keeps_its_name(model: Model) -> None:
    ir.bypass(node(model, "last"))
    assert names(model) == ["MatMul:acc", "Identity:same", "Relu:out"]
    assert [v.name for v in model.graph.outputs] == ["out"]
    assert model.graph.outputs[0] is node(model, "act").outputs[0]


def test_bypass_never_joins_an_input_to_an_output() -> None:
    model = parse_module(
        "hqc.module version 1 state quantised ir 8 opset 18 {"
        " input %x : float32[N,2] %y = Identity(%x) : float32[N,2] output %y }"
    )
    ir.bypass(model.graph[0])
    assert names(model) == ["Identity:y"]


# --- reading and building -----------------------------------------------------------------------


def test_constants_are_read(model: Model) -> None:
    weights = ir.constant(model.graph.initializers["w"])
    assert weights is not None
    assert weights.tolist() == [[1.0, -0.5], [0.5, 1.5]]
    assert ir.constant(None) is None
    assert ir.constant(model.graph.inputs[0]) is None
    assert ir.constant(node(model, "act").outputs[0]) is None


@pytest.mark.parametrize("name", ["w", "acc", "x", "pos"])
def test_added_constants_never_share_a_name(model: Model, name: str) -> None:
    """Not with a constant, and not with a computed value or an input either."""
    first = ir.add_constant(model.graph, name, np.ones(3, np.float32))
    second = ir.add_constant(model.graph, name, np.float32(2))
    produced = [v.name for n in model.graph for v in n.outputs]
    taken = [*produced, *(v.name for v in model.graph.inputs), *model.graph.initializers]
    assert len(set(taken)) == len(taken)
    assert str(first.name).startswith(name)
    assert second.shape == Shape([])
    assert ir.constant(second) == 2


def test_sole_consumer_and_channels(model: Model) -> None:
    acc = node(model, "fc1").outputs[0]
    assert ir.sole_consumer(acc) is node(model, "id")
    assert ir.channels_of(acc) == 2
    assert ir.sole_consumer(model.graph.outputs[0]) is None
    assert ir.channels_of(Value(name="v")) is None


def test_boundaries(model: Model) -> None:
    assert ir.boundaries(model.graph.inputs) == (ir.Boundary("x", (2,)),)
    model.graph.inputs[0].shape = Shape(["N", "M"])
    with pytest.raises(HqcError) as caught:
        ir.boundaries(model.graph.inputs)
    assert caught.value.diagnostics[0].code == "HQC104"


# --- operators ----------------------------------------------------------------------------------


@given(
    st.integers(2, 24),
    st.integers(-20, 20),
    st.booleans(),
    st.sampled_from([r for r in Rounding if r.hardware]),
    st.booleans(),
)
def test_a_quantiser_of_a_type_reads_back_as_the_type(
    width: int, integer: int, signed: bool, rounding: Rounding, symmetric: bool
) -> None:
    model = parse_module(TEXT)
    overflow = Overflow.SAT_SYM if symmetric and signed else Overflow.SAT
    type_ = FixedType(signed, width, integer, rounding, overflow)
    built = Quant.of_type(type_).build(model.graph, model.graph.inputs[0], "q")
    model.graph.append(built)
    assert is_quantiser(built)
    view = Quant.read(built)
    assert view.fixed_type == type_
    assert view.code_limits == (type_.limits.lo, type_.limits.hi)


def test_wrapping_types_have_no_quantiser() -> None:
    with pytest.raises(ValueError, match="wraps"):
        Quant.of_type(FixedType(True, 4, 4))


def test_quantisers_without_a_type() -> None:
    good = Quant.of_type(FixedType(True, 4, 2, Rounding.ROUND, Overflow.SAT))
    one = np.ones((), np.int64)
    for changed in (
        {"scale": np.float32(0.3)},
        {"scale": np.float32([0.5, 0.25])},
        {"zero_point": one},
        {"rounding": Rounding.CEIL},
        {"bits": 1},
        {"signed": False, "narrow": True},
    ):
        parts = {**good.__dict__, **changed}
        assert Quant(**parts).fixed_type is None


@pytest.mark.parametrize(
    ("scale", "want"),
    [(1.0, 0), (0.25, -2), (8.0, 3), (0.3, None), (2.0**-140, -140)],
)
def test_power_of_two(scale: float, want: int | None) -> None:
    assert power_of_two(np.full((2, 1), scale, np.float32)) == want
    assert power_of_two(np.array([scale, 2 * scale])) is None
    assert power_of_two(np.zeros(0)) is None


def test_other_quantisers_are_read() -> None:
    model = parse_module(
        """hqc.module version 1 state quantised ir 8 opset 18, qonnx 1 {
          input %x : float32[N,2]
          const %s : float32[] = 0.5
          const %t : float32[1,3] = [[-1.0, 0.5, 0.5]]
          %b = qonnx.BipolarQuant(%x, %s) : float32[N,2]
          %m = qonnx.MultiThreshold(%x, %t) {out_bias = -1.0} : float32[N,2]
          output %m
        }"""
    )
    assert BipolarQuant.read(model.graph[0]).scale == 0.5
    table = MultiThreshold.read(model.graph[1])
    assert table.thresholds.tolist() == [[-1.0, 0.5, 0.5]]
    assert (table.out_scale, table.out_bias) == (1.0, -1.0)
