"""FINN's own conversion and streamlining of what is exported for it; skipped without FINN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul
from support.integration_graphs import case, same

from hqc.integrations.finn import export_finn

convert = pytest.importorskip("finn.transformation.qonnx.convert_qonnx_to_finn")
streamline = pytest.importorskip("finn.transformation.streamline")
rounding = pytest.importorskip("finn.transformation.streamline.round_thresholds")


def steps() -> list[Any]:
    return [
        convert.ConvertQONNXtoFINN(),
        streamline.Streamline(),
        rounding.RoundAndClipThresholds(),
    ]


@pytest.mark.parametrize("name", ["mlp", "conv1d", "conv2d", "residual"])
def test_finn_keeps_every_code(name: str) -> None:
    parts, codes, want = case(name)
    wrapper = ModelWrapper(export_finn(parts, batch=40)).transform(InferShapes())
    for step in steps():
        wrapper = wrapper.transform(step)
        names = zip(wrapper.graph.input, parts.inputs, strict=True)
        feeds = {i.name: codes[p.name].astype(np.float32) for i, p in names}
        results = execute_onnx(wrapper, feeds)
        assert same(parts, [results[o.name] for o in wrapper.graph.output], want), step


def test_nothing_is_left_to_convert() -> None:
    wrapper = ModelWrapper(export_finn(case("mlp")[0], batch=1)).transform(InferShapes())
    assert "Mul" in {node.op_type for node in wrapper.graph.node}  # signs: factors below 0
    for step in steps():
        wrapper = wrapper.transform(step)
    kinds = [node.op_type for node in wrapper.graph.node]
    assert kinds == ["MatMul", "MultiThreshold", "MatMul", "MultiThreshold", "MatMul"]


def test_convolutions_become_matrix_products() -> None:
    parts, codes, want = case("residual", samples=8)
    wrapper = ModelWrapper(export_finn(parts, batch=1)).transform(InferShapes())
    for step in (*steps(), LowerConvsToMatMul()):
        wrapper = wrapper.transform(step)
    assert "Conv" not in {node.op_type for node in wrapper.graph.node}
    for row in range(8):
        names = zip(wrapper.graph.input, parts.inputs, strict=True)
        feeds = {i.name: codes[p.name][row : row + 1].astype(np.float32) for i, p in names}
        results = execute_onnx(wrapper, feeds)
        got = [results[o.name] for o in wrapper.graph.output]
        assert same(parts, got, {name: w[row : row + 1] for name, w in want.items()})
