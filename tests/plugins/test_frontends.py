"""File formats and operators from another package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_ir import Model, Node, Value
from support.plugin_site import importable_plugins, installed_plugins  # noqa: F401 - fixtures
from support.small_model import Run, quant

import hqc
from hqc.diagnostics import Exit, HqcError
from hqc.driver.loading import normalise, read
from hqc.execution.reference import Reference
from hqc.ir import QONNX
from hqc.pipeline import Builder, Registry

MLP = {
    "input": {"size": 2, "type": "fixed<8,4,RND_CONV,SAT>"},
    "layers": [
        {
            "weight": [[3, -1], [0, 2]],
            "weight_type": "fixed<4,1>",
            "relu": True,
            "type": "ufixed<6,3,RND_CONV,SAT>",
        },
        {"weight": [[7], [-8]], "weight_type": "fixed<4,1>", "type": "fixed<7,4,TRN,SAT>"},
    ],
}


# --- files --------------------------------------------------------------------------------------


def test_a_file_of_another_format_is_a_model(plugins: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.mlp.json"
    path.write_text(json.dumps(MLP))
    x = np.array([[1.5, -2.0], [7.9375, 7.9375], [-8.0, 3.0]], np.float32)
    hidden = np.maximum(x @ (np.array([[3, -1], [0, 2]]) / 8), 0)
    hidden = np.minimum(np.rint(hidden * 8) / 8, 63 / 8)
    sums = hidden @ (np.array([[7], [-8]]) / 8)
    want = np.clip(np.floor(sums * 8) / 8, -8, 7.875)
    (got,) = Reference(hqc.load(path)).run({"x": x}).values()
    assert np.array_equal(got, want)


def test_a_file_of_another_format_compiles(plugins: Path, hqc: Run, tmp_path: Path) -> None:
    (tmp_path / "net.mlp.json").write_text(json.dumps(MLP))
    assert hqc("compile", "net.mlp.json", "-b", "c99", "--check", "off", "-o", "out").status == 0
    manifest = json.loads((tmp_path / "out" / "hqc.json").read_text())
    assert manifest["model"]["file"] == "net.mlp.json"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("net.mlp.json", "{}", "is no MLP in JSON"),
        ("net.mlp.json", "[1", "is no MLP in JSON"),
        ("net.json", "{}", ".hqir, .mlp.json"),
    ],
)
def test_what_is_no_model(name: str, text: str, words: str, plugins: Path, hqc: Run) -> None:
    Path(name).write_text(text)
    ended = hqc("show", name)
    assert (ended.status, ended.codes) == (Exit.REJECTED, ["HQC002"])
    assert words in ended.err


class Reads:
    """A frontend made of a function."""

    suffixes = (".net",)

    def __init__(self, answer: Callable[[Path], object]) -> None:
        self.answer = answer

    def __call__(self, path: Path) -> object:
        return self.answer(path)


def _raises(path: Path) -> object:
    raise RuntimeError(f"no idea of {path.name}")


@pytest.mark.parametrize(
    ("answer", "words"), [(_raises, "no idea of a.net"), (lambda _: 7, "gave a int")]
)
def test_a_frontend_that_fails_is_named(
    answer: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.net"
    path.write_text("x")
    registry = Registry.builtin().with_frontend("nets", Reads(answer))
    with pytest.raises(HqcError, match="HQC305") as found:
        read(path, registry=registry)
    assert "frontend nets" in str(found.value)
    assert words in str(found.value)


def test_suffixes_are_taken_once() -> None:
    registry = Registry.builtin().with_frontend("nets", Reads(_raises))
    with pytest.raises(HqcError, match=r"files \.net are read by nets"):
        registry.with_frontend("others", Reads(_raises))
    own = Reads(_raises)
    own.suffixes = (".onnx",)
    with pytest.raises(HqcError, match=r"files \.onnx are read by hqc"):
        registry.with_frontend("others", own)


# --- operators ----------------------------------------------------------------------------------


def custom_model(op: str = "Ternary", domain: str = "acme", **attributes: Any) -> Model:
    """x -> Quant -> acme.TernaryDense -> an operator of a domain."""
    port, constants = quant("q", "x", 0.125, 8, 1)
    weight = np.array([[0.5, -0.25, 0.3], [-1.0, 0.75, 0.2]], np.float32)
    dense = helper.make_node("TernaryDense", ["q", "w"], ["d"], name="d", domain="acme", scale=0.5)
    last = helper.make_node(op, ["d"], ["y"], name="last", domain=domain, **attributes)
    graph = helper.make_graph(
        [port, dense, last],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [*constants, numpy_helper.from_array(weight, "w")],
    )
    opsets = [helper.make_opsetid(d, v) for d, v in {"": 17, QONNX: 1, "acme": 1}.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_an_operator_means_what_it_is_written_in(plugins: Path) -> None:
    loaded = normalise(read(custom_model(scale=0.75)))
    x = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32)
    ported = np.clip(np.rint(x * 8), -128, 127) / 8
    sums = ported @ np.array([[0.5, -0.0, 0.5], [-0.5, 0.5, 0.0]])
    want = 0.75 * np.clip(np.rint(sums / 0.75), -1, 1)
    (got,) = Reference(loaded.model).run({"x": x}).values()
    assert np.array_equal(got, want)
    assert {str(r).partition(" ")[0] for r in loaded.remarks} >= {
        *("acme::Ternary", "acme::TernaryDense"),
    }


def test_custom_operators_compile(plugins: Path, hqc: Run, tmp_path: Path) -> None:
    onnx.save(custom_model(scale=0.75), tmp_path / "net.onnx")
    ended = hqc("compile", "net.onnx", "-b", "c99", "-o", "out", "--check", "off")
    assert ended.status == Exit.OK, ended.err
    assert "acme::TernaryDense is written in others" in ended.err


def test_what_an_operator_refuses_is_located(plugins: Path, hqc: Run, tmp_path: Path) -> None:
    onnx.save(custom_model(scale=-1.0), tmp_path / "net.onnx")
    ended = hqc("show", "net.onnx")
    assert (ended.status, ended.codes) == (Exit.REJECTED, ["HQC106"])
    assert "last" in ended.err


def test_an_operator_that_nobody_knows(plugins: Path, hqc: Run, tmp_path: Path) -> None:
    onnx.save(custom_model("Quaternary"), tmp_path / "net.onnx")
    assert hqc("show", "net.onnx").codes == ["HQC101"]


def _identity(node: Node, new: Builder) -> Value:
    found = node.inputs[0]
    assert found is not None
    return found


def _itself(node: Node, new: Builder) -> Value:
    return new.op("acme.Loop", node.inputs[0])


def _number(node: Node, new: Builder) -> Any:
    return 7


@pytest.mark.parametrize(
    ("op", "operator", "words"),
    [("Loop", _itself, "without an end"), ("Wrong", _number, "gave int")],
)
def test_operators_that_fail_are_named(op: str, operator: Any, words: str, plugins: Path) -> None:
    registry = Registry.default().with_operator(f"acme::{op}", operator)
    with pytest.raises(HqcError, match="HQC305") as found:
        normalise(read(custom_model(op)), registry=registry)
    assert f"operator acme::{op}" in str(found.value)
    assert words in str(found.value)


def test_an_operator_can_be_nothing(plugins: Path) -> None:
    registry = Registry.default().with_operator("acme::Nothing", _identity)
    model = normalise(read(custom_model("Nothing")), registry=registry).model
    assert model.graph.outputs[0].name == "y"


@pytest.mark.parametrize("name", ["Ternary", "::Relu", "qonnx.custom_op.general::Quant", "acme::"])
def test_operators_of_known_domains_are_not_changed(name: str) -> None:
    with pytest.raises(HqcError, match="HQC305"):
        Registry.builtin().with_operator(name, _identity)
    with pytest.raises(HqcError, match="no function"):
        Registry.builtin().with_operator("acme::Op", 7)  # type: ignore[arg-type]
