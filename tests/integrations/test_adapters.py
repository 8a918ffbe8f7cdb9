"""What other executors make of exported cores, compared with int64 numpy by ==."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_datatypes import InferDataTypes
from support.integration_graphs import GRAPHS, case, modes, same, too_wide

from hqc.analysis.partition import Partition
from hqc.diagnostics import HqcError
from hqc.integrations.core import Nudge, lowered
from hqc.integrations.finn import export_finn
from hqc.integrations.mlir import export_mlir
from hqc.integrations.mlir_text import width_of
from hqc.integrations.onnx_integer import export_onnx_integer
from hqc.numerics.types import Codes, Rounding, round_shift

by_graph = pytest.mark.parametrize("name", GRAPHS)
INTEGER = {"tensor(int8)", "tensor(uint8)", "tensor(int16)", "tensor(uint16)", "tensor(int32)"}


def run_onnx(proto: onnx.ModelProto, codes: Mapping[str, Codes]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    feeds = {i.name: codes[i.name].astype(i.type[7:-1]) for i in session.get_inputs()}
    return list(session.run(None, feeds))


def run_iree(parts: Partition, codes: Mapping[str, Codes]) -> list[np.ndarray]:
    compiler = pytest.importorskip("iree.compiler")
    runtime = pytest.importorskip("iree.runtime")
    binary = compiler.compile_str(
        export_mlir(parts),
        target_backends=["llvm-cpu"],
        extra_args=["--iree-llvmcpu-target-cpu=generic"],
    )
    module = runtime.load_vm_flatbuffer(binary, driver="local-sync")
    widths = {p.name: f"int{width_of(p.type.limits)}" for p in parts.inputs}
    found = module.main(*(codes[name].astype(kind) for name, kind in widths.items()))
    many = found if isinstance(found, list | tuple) else [found]
    return [array.to_host() for array in many]


@pytest.mark.parametrize("rounding", list(Rounding))
def test_nudges_are_the_rounding_modes(rounding: Rounding) -> None:
    codes = np.arange(-70, 71)
    for bits in range(1, 6):
        nudge = Nudge.of(rounding, bits)
        holds = {
            "odd": (codes >> bits) & 1,
            "negative": codes < 0,
            "positive": codes > 0,
            "": np.zeros_like(codes),
        }[nudge.condition]
        got = (codes + nudge.always + nudge.extra * holds) >> bits
        assert np.array_equal(got, round_shift(codes, bits, rounding))


@by_graph
def test_integer_onnx_is_exact(name: str) -> None:
    parts, codes, want = case(name)
    assert same(parts, run_onnx(export_onnx_integer(parts), codes), want)


@by_graph
def test_integer_onnx_holds_no_floats(name: str) -> None:
    proto = export_onnx_integer(case(name)[0])
    kinds = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}
    values = [v.type.tensor_type.elem_type for v in (*proto.graph.input, *proto.graph.output)]
    assert not kinds & {*values, *(i.data_type for i in proto.graph.initializer)}
    assert {n.domain for n in proto.graph.node} == {""}


def test_eight_bits_are_multiplied_as_such() -> None:
    proto = export_onnx_integer(case("mlp")[0])
    assert sum(n.op_type == "MatMulInteger" for n in proto.graph.node) == 3
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    assert {p.type for p in (*session.get_inputs(), *session.get_outputs())} <= INTEGER


@by_graph
def test_mlir_is_exact(name: str) -> None:
    parts, codes, want = case(name)
    assert same(parts, run_iree(parts, codes), want)


@pytest.mark.parametrize("samples", [1, 7])
def test_the_batch_of_mlir_is_dynamic(samples: int) -> None:
    parts, codes, want = case("mlp")
    few = {name: c[:samples] for name, c in codes.items()}
    assert same(parts, run_iree(parts, few), {name: w[:samples] for name, w in want.items()})


def test_mlir_weights_are_narrow() -> None:
    text = export_mlir(case("mlp")[0])
    assert "tensor<6x8xi8>" in text
    assert "func.func @main(%in0: tensor<?x6xi8>)" in text
    assert "i64" not in text.replace("arith.constant 0 : i64", "")


@by_graph
def test_finns_form_is_exact_in_qonnx(name: str) -> None:
    parts, codes, want = case(name)
    wrapper = ModelWrapper(export_finn(parts, batch=40)).transform(InferDataTypes())
    feeds = {n: c.astype(np.float32) for n, c in codes.items()}
    results = execute_onnx(wrapper, feeds)
    assert same(parts, [results[o.name] for o in wrapper.graph.output], want)


def test_finns_form_is_integer_and_annotated() -> None:
    wrapper = ModelWrapper(export_finn(case("mlp")[0]))
    kinds = [n.op_type for n in wrapper.graph.node]
    assert kinds.count("MultiThreshold") == 2
    assert "Quant" not in kinds
    assert "Relu" not in kinds
    names = [i.name for i in wrapper.graph.initializer if "dims" not in i.name]
    assert names
    for name in names:
        assert wrapper.get_tensor_datatype(name).is_integer()
    assert str(wrapper.get_tensor_datatype(wrapper.graph.input[0].name)) == "INT6"


@pytest.mark.parametrize("export", [export_onnx_integer, export_mlir, export_finn])
def test_what_does_not_fit_is_refused(export: object) -> None:
    assert callable(export)
    with pytest.raises(HqcError) as caught:
        export(too_wide())
    (found,) = caught.value.diagnostics
    assert found.code == "HQC401"
    assert "bits" in found.message
    assert found.helps


def test_finn_refuses_what_float32_does_not_hold() -> None:
    from support.backend_graphs import Builder, signed

    b = Builder()
    x = b.input("x", 3, signed(20, 5))
    _, parts = b.finish(b.matmul(x, np.full((3, 2), 100), signed(8, 3)))
    with pytest.raises(HqcError, match="float32 holds 24"):
        export_finn(parts)
    assert run_onnx(export_onnx_integer(parts), {"x_q": np.array([[1, 2, 3]])})[0].tolist() == [
        [600, 600]
    ]


def test_a_partition_a_model_and_its_bytes_lower_alike() -> None:
    model, parts = modes()
    assert lowered(parts) is parts
    assert export_mlir(model) == export_mlir(parts)
