"""ONNX files that keep data of their tensors in other files: beside them, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import hqc
from hqc.diagnostics import HqcError
from hqc.ir import QONNX

WEIGHT = np.arange(16, dtype=np.float32).reshape(4, 4) / 8


def model(location: str) -> onnx.ModelProto:
    """A quantised product whose weight lies elsewhere."""
    weight = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[4, 4], data_location=TensorProto.EXTERNAL
    )
    entry = weight.external_data.add()
    entry.key, entry.value = "location", location
    constants = [
        helper.make_tensor(name, TensorProto.FLOAT, [], [value])
        for name, value in (("s", 0.125), ("z", 0.0), ("b", 8.0))
    ]
    nodes = [
        helper.make_node("Quant", ["x", "s", "z", "b"], ["x_q"], domain=QONNX),
        helper.make_node("Quant", ["w", "s", "z", "b"], ["w_q"], domain=QONNX),
        helper.make_node("MatMul", ["x_q", "w_q"], ["y"]),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in "xy"]
    graph = helper.make_graph(nodes, "net", ports[:1], ports[1:], [weight, *constants])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the model; data lie in it, and above it where they must not be read."""
    (tmp_path / "model").mkdir()
    WEIGHT.tofile(tmp_path / "model" / "weights.bin")
    WEIGHT.tofile(tmp_path / "secret.bin")
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "secret.bin")
    monkeypatch.chdir(tmp_path)  # where a path must not be looked up, either
    return tmp_path / "model"


def test_data_beside_the_model_are_read(folder: Path) -> None:
    (folder / "net.onnx").write_bytes(model("weights.bin").SerializeToString())
    found = hqc.load(folder / "net.onnx").graph.initializers["w"].const_value
    assert found is not None
    np.testing.assert_array_equal(found.numpy(), WEIGHT)


@pytest.mark.parametrize("place", ["{}/secret.bin", "../secret.bin", "secret.bin", "link.bin"])
def test_data_elsewhere_are_not(folder: Path, place: str) -> None:
    path = folder / "net.onnx"
    path.write_bytes(model(place.format(folder.parent)).SerializeToString())
    with pytest.raises(HqcError) as caught:
        hqc.load(path)
    assert caught.value.diagnostics[0].code == "HQC002"
    assert "another file" in str(caught.value)


def test_a_model_in_memory_has_nothing_beside_it(folder: Path) -> None:
    with pytest.raises(HqcError, match="another file"):
        hqc.load(model("secret.bin"))
