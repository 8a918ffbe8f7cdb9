"""The QONNX frontend: what it accepts, what it makes of it, and what it refuses, with codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from support.qonnx_graphs import Net, ops

from hqc import ir
from hqc.diagnostics import HqcError
from hqc.execution.reference import Reference
from hqc.frontends.qonnx import DEFAULT_PORT, DOMAINS, normalise_import
from hqc.ir import QONNX, State, state_of
from hqc.ir.operators import BipolarQuant, Quant
from hqc.numerics.types import FixedType, Overflow, Rounding
from hqc.pipeline import verifier
from hqc.pipeline.verifier import check

WEIGHTS = np.array([[1.0, -0.5, 0.25], [0.5, 0.0, -1.0]])


def small(domain: str = QONNX, op: str = "Quant", **options: Any) -> Net:
    net = Net(domain)
    x = net.quant(net.input("x", 2), 0.5, 4, op=op, **options)
    net.op("MatMul", x, net.quant(net.const(WEIGHTS), 0.25, 5, op=op), name="y")
    return net


def codes_of(net: Net, *outputs: str, **options: Any) -> list[str]:
    with pytest.raises(HqcError) as found:
        net.model(*(outputs or ("y",)), **options)
    return [d.code for d in found.value.diagnostics]


# --- what is accepted ---------------------------------------------------------------------------


@pytest.mark.parametrize("domain", sorted(DOMAINS))
@pytest.mark.parametrize("op", ["Quant", "IntQuant"])
def test_every_domain_met_in_files(domain: str, op: str) -> None:
    model = small(domain, op).model("y")
    check(model)
    assert state_of(model) is State.QUANTISED
    assert {n.domain for n in model.graph if n.op_type == "Quant"} == {QONNX}
    assert model.opset_imports.keys() == {"", QONNX}


def test_the_batch_is_symbolic_whatever_it_was() -> None:
    for batch in (1, 7, "anything", None):
        net = Net()
        net.quant(net.input("x", 2, batch=batch), 0.5, 4, name="y")
        model = net.model("y")
        assert str(model.graph.inputs[0].shape) == "[N,2]"
        assert str(model.graph.outputs[0].shape) == "[N,2]"
        x = np.ones((5, 2), np.float32)
        assert Reference(model).run({"x": x})["y"].shape == (5, 2)


@pytest.mark.parametrize("batch", [1, 7, "b"])
def test_reshapes_by_computed_shapes(batch: int | str) -> None:
    """x.view(x.size(0), -1), as exporters write it."""
    net = Net()
    x = net.quant(net.input("x", 2, 3, batch=batch), 0.5, 4)
    size = net.op("Gather", net.op("Shape", x), net.const(0, np.int64), axis=0)
    size = net.op("Unsqueeze", size, net.const([0], np.int64))
    target = net.op("Concat", size, net.const([-1], np.int64), axis=0)
    net.dense(net.op("Reshape", x, target), np.ones((6, 2)), name="y")
    model = net.model("y")
    assert sorted(set(ops(model))) == ["Flatten", "MatMul", "Quant"]
    x_ = np.arange(24, dtype=np.float32).reshape(4, 2, 3) / 8
    assert Reference(model).run({"x": x_})["y"].shape == (4, 2)


@pytest.mark.parametrize("target", [[-1, 6], [0, 6], [0, -1]])
def test_reshapes_that_keep_the_batch(target: list[int]) -> None:
    net = Net()
    x = net.quant(net.input("x", 2, 3), 0.5, 4)
    x = net.op("Reshape", x, net.const(target, np.int64))
    net.dense(x, np.ones((6, 2)), name="y")
    model = net.model("y")
    x_ = np.arange(24, dtype=np.float32).reshape(4, 2, 3) / 8
    assert Reference(model).run({"x": x_})["y"].shape == (4, 2)


def test_initializers_among_the_inputs_are_no_inputs() -> None:
    proto = small().proto("y")
    for tensor in proto.graph.initializer:
        shape = list(tensor.dims)
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, shape)
        proto.graph.input.append(info)
    model = ir.from_bytes(proto.SerializeToString(), "file")
    normalise_import(model)
    assert [v.name for v in model.graph.inputs] == ["x"]


def test_nodes_get_names_of_their_own_and_keep_their_source() -> None:
    proto = small().proto("y")
    for node in proto.graph.node:
        node.name = "same"
    model = ir.from_bytes(proto.SerializeToString(), "file")
    normalise_import(model)
    names = [n.name for n in model.graph]
    assert len(set(names)) == len(names)
    assert {ir.location_of(n).source for n in model.graph} == {"same"}


def test_a_saved_state_is_taken_as_it_is() -> None:
    model = small().model("y")
    again = ir.from_bytes(ir.to_bytes(model), "state")
    imported = normalise_import(again)
    assert imported.remarks == ()
    assert ir.to_bytes(again) == ir.to_bytes(model)


# --- ports --------------------------------------------------------------------------------------


def unquantised(first: Callable[[Net, str], str] | None = None) -> Net:
    net = Net()
    x = net.input("x", 2)
    x = first(net, x) if first is not None else x
    net.op("MatMul", x, net.quant(net.const(WEIGHTS), 0.25, 5), name="y")
    return net


def port_of(net: Net, **options: Any) -> tuple[Any, str]:
    model = net.read("y")
    remarks = normalise_import(model, **options).remarks
    check(model)
    node = next(n for n in model.graph if Quant.matches(n) or BipolarQuant.matches(n))
    assert node.inputs[0] is model.graph.inputs[0]
    view = BipolarQuant.read(node) if BipolarQuant.matches(node) else Quant.read(node).fixed_type
    return view, " ".join(str(r) for r in remarks)


def test_an_input_without_a_quantiser_gets_the_customary_port() -> None:
    view, remarks = port_of(unquantised())
    assert view == DEFAULT_PORT
    assert "--input-type x=" in remarks


def test_stated_types() -> None:
    stated = FixedType(True, 12, 4, Rounding.FLOOR, Overflow.SAT)
    for key in ("x", ""):
        view, remarks = port_of(unquantised(), input_types={key: stated})
        assert (view, remarks) == (stated, "")
    view, _ = port_of(unquantised(), input_types={"x": FixedType(True, 12, 4)})
    assert view == FixedType(True, 12, 4, Rounding.FLOOR, Overflow.SAT)


def test_a_stated_type_stands_before_the_models_own_quantiser() -> None:
    stated = FixedType(True, 16, 8, Rounding.ROUND, Overflow.SAT)
    view, _ = port_of(small(), input_types={"x": stated})
    assert view == stated


def test_types_of_unknown_inputs_are_refused() -> None:
    assert codes_of(small(), types={"z": DEFAULT_PORT}) == ["HQC001"]


@pytest.mark.parametrize(
    ("datatype", "want"),
    [
        ("INT8", FixedType(True, 8, 8, Rounding.ROUND, Overflow.SAT)),
        ("UINT4", FixedType(False, 4, 4, Rounding.ROUND, Overflow.SAT)),
        ("FIXED<16,6>", FixedType(True, 16, 6, Rounding.ROUND, Overflow.SAT)),
        ("FLOAT32", DEFAULT_PORT),
    ],
)
def test_annotated_inputs(datatype: str, want: FixedType) -> None:
    net = unquantised()
    net.annotations.append(("x", datatype))
    view, remarks = port_of(net)
    assert view == want
    assert (datatype in remarks) == (want is not DEFAULT_PORT)


def test_bipolar_inputs() -> None:
    net = unquantised()
    net.annotations.append(("x", "BIPOLAR"))
    view, remarks = port_of(net)
    assert isinstance(view, BipolarQuant)
    assert "1-bit port" in remarks


def test_inputs_that_meet_a_quantiser_after_scaling_keep_it() -> None:
    net = unquantised(lambda n, x: n.quant(n.op("Mul", x, n.const(0.3)), 0.5, 4))
    model = net.read("y")
    assert normalise_import(model).remarks == ()


def test_an_input_used_twice_needs_a_quantiser_on_every_way() -> None:
    net = Net()
    x = net.input("x", 2)
    one = net.quant(x, 0.5, 4)
    two = net.op("MatMul", x, net.quant(net.const(WEIGHTS[:, :2]), 0.25, 5))
    net.quant(net.op("Add", one, net.quant(two, 0.5, 4)), 0.5, 5, name="y")
    view, _ = port_of(net)
    assert view == DEFAULT_PORT


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"scale": 0.0}, "HQC106"),
        ({"scale": -0.5}, "HQC106"),
        ({"scale": [0.5, -0.5]}, "HQC106"),
        ({"scale": np.nan}, "HQC106"),
        ({"scale": np.inf}, "HQC106"),
        ({"scale": np.zeros(0)}, "HQC106"),
        ({"bits": 3.5}, "HQC107"),
        ({"bits": 0}, "HQC107"),
        ({"bits": 33}, "HQC107"),
        ({"bits": np.nan}, "HQC107"),
        ({"bits": np.array([4.0, 4.0])}, "HQC107"),
        ({"bits": 1, "signed": 0, "narrow": 1}, "HQC107"),
        ({"zero": 0.5}, "HQC102"),
        ({"rounding": "SOMEHOW"}, "HQC102"),
    ],
)
def test_impossible_quantisers(options: dict[str, Any], code: str) -> None:
    net = Net()
    net.quant(net.input("x", 2), **{"scale": 0.5, "bits": 4, **options}, name="y")
    assert code in codes_of(net)


def test_parameters_must_be_constants() -> None:
    net = Net()
    x = net.input("x", 2)
    scale = net.op("ReduceMax", x, keepdims=0)
    bits, zero = net.const(4.0), net.const(0.0)
    net.op("Quant", x, scale, zero, bits, name="y", domain=QONNX)
    assert codes_of(net) == ["HQC108"]


@pytest.mark.parametrize(
    "rows", [[[1.0, 0.0]], np.zeros((1, 2, 2)), np.zeros((1, 0)), np.zeros((3, 2))]
)
def test_impossible_thresholds(rows: Any) -> None:
    net = Net()
    net.thresholds(net.input("x", 2), rows, name="y")
    assert codes_of(net)[0] == "HQC102"


@pytest.mark.parametrize("layout", ["NWC", ""])
def test_thresholds_of_too_many_channels(layout: str) -> None:
    """Without a layout, qonnx takes the last axis of three for the channels."""
    net = Net()
    net.thresholds(net.input("x", 3, 2), np.zeros((3, 3)), name="y", data_layout=layout)
    with pytest.raises(HqcError, match="HQC102"):
        verifier.check(net.model("y"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_constants_that_are_not_finite(value: float) -> None:
    net = small()
    y = net.op("Add", "y", net.const([0.0, value, 1.0]))
    with pytest.raises(HqcError) as found:
        net.model(y)
    (diagnostic,) = found.value.diagnostics
    assert diagnostic.code == "HQC105"
    assert "add" in str(diagnostic.where)


def test_unknown_operators() -> None:
    net = small()
    y = net.op("Mystery", "y", domain="com.example")
    y = net.op("NoSuchOp", y)
    y = net.op("Im2Col", y, domain=QONNX)
    with pytest.raises(HqcError) as found:
        net.model(y)
    assert [d.code for d in found.value.diagnostics] == ["HQC101"] * 3
    text = str(found.value)
    assert "com.example::Mystery" in text
    assert "ai.onnx::NoSuchOp" in text


def test_all_problems_are_reported_together() -> None:
    net = Net()
    x = net.quant(net.input("x", 2), 0.0, 4)
    x = net.quant(x, 0.5, 3.5)
    x = net.thresholds(x, [[1.0, 0.0]])
    x = net.op("Add", x, net.const([np.nan, 0.0]))
    net.op("Mystery", x, name="y", domain="com.example")
    codes = codes_of(net)
    assert sorted(codes) == ["HQC101", "HQC102", "HQC105", "HQC106", "HQC107"]


@pytest.mark.parametrize("dims", [("w",), (2, None), (0,), (-1,)])
def test_dynamic_sizes(dims: tuple[Any, ...]) -> None:
    net = Net()
    net.quant(net.input("x", *dims), 0.5, 4, name="y")
    assert codes_of(net) == ["HQC104"]


def test_inputs_without_a_shape() -> None:
    net = small()
    proto = net.proto("y")
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    model = ir.from_bytes(proto.SerializeToString(), "file")
    with pytest.raises(HqcError, match="HQC104"):
        normalise_import(model)


def mixes(net: Net, x: str, kind: str) -> str:
    if kind == "reshape":
        return net.op("Reshape", x, net.const([-1, 2], np.int64))
    if kind == "fixed":
        return net.op("Reshape", x, net.const([1, 2, 4, 1], np.int64))
    if kind == "flatten":
        return net.op("Flatten", x, axis=2)
    if kind == "squeeze":
        return net.op("Squeeze", x)
    return net.op("Unsqueeze", x, net.const([0], np.int64))


@pytest.mark.parametrize("kind", ["reshape", "fixed", "flatten", "squeeze", "unsqueeze"])
def test_reshapes_that_mix_samples(kind: str) -> None:
    """Hardware sees one sample at a time."""
    net = Net()
    x = mixes(net, net.quant(net.input("x", 4, 2), 0.5, 4), kind)
    net.op("Identity", x, name="y")
    assert codes_of(net) == ["HQC104"]


def test_shapes_that_do_not_fit() -> None:
    net = Net()
    x = net.quant(net.input("x", 3), 0.5, 4)
    net.dense(x, WEIGHTS, name="y")
    assert codes_of(net) == ["HQC109"]


def test_inputs_that_nothing_reads() -> None:
    net = small()
    net.input("unused", 3)
    with pytest.raises(HqcError, match="unused"):
        net.model("y")
    assert codes_of(net) == ["HQC109"]


def test_the_file_itself_is_not_touched() -> None:
    proto = small().proto("y")
    before = proto.SerializeToString()
    normalise_import(ir.from_bytes(before, "file"))
    assert proto.SerializeToString() == before
    assert isinstance(proto, onnx.ModelProto)
