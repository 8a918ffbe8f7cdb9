"""Whole networks from other tools' quantisers: imported, compared, compiled to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx_ir import Model
from support import quantised_models as tools
from support.qcdq_graphs import onnxruntime_on

import hqc
from hqc import ir
from hqc.diagnostics import HqcError
from hqc.equivalence.float_error import undecided
from hqc.execution.reference import Reference
from hqc.frontends.qonnx import normalise_import
from hqc.frontends.torch_export import from_exported

pytestmark = pytest.mark.filterwarnings("ignore")
KINDS = ("mlp", "cnn")
PT2E = ("x86", "xnnpack", "xnnpack per channel")


def agree(model: Model, x: np.ndarray, want: np.ndarray, *, float_output: bool = False) -> None:
    """Equal outputs, but for samples that float32 cannot decide; sums may round."""
    (source,) = model.graph.inputs
    (got,) = Reference(model).run({str(source.name): x}).values()
    if float_output:
        differ = ~np.isclose(got, want, rtol=0, atol=1e-6).all(axis=1)
    else:
        differ = (got != want).any(axis=1)
    open_ = undecided(model, {str(source.name): x})
    assert not np.any(differ & ~open_)
    assert open_.mean() < 0.3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", tools.forms(), ids=str)
def test_onnxruntime_static(kind: str, form: Any, tmp_path: Path) -> None:
    path = tools.static(kind, tmp_path, *form)
    x = tools.samples(kind, 200, seed=1)
    (want,) = onnxruntime_on(onnx.load(path), {"x": x})
    agree(normalise_import(ir.load(path)).model, x, want)


@pytest.mark.parametrize("kind", KINDS)
def test_brevitas_qcdq(kind: str, tmp_path: Path) -> None:
    module, path = tools.brevitas_qcdq(kind, tmp_path)
    x = tools.samples(kind, 200, seed=1)
    model = normalise_import(ir.load(path)).model
    agree(model, x, onnxruntime_on(onnx.load(path), {"x": x})[0])
    agree(model, x, module(torch.tensor(x)).detach().numpy())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quantizer", PT2E)
def test_pt2e(kind: str, quantizer: str) -> None:
    module = tools.pt2e(kind, quantizer)
    x = torch.tensor(tools.samples(kind, 200, seed=1))
    program = torch.export.export(
        module, (x[:4],), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    model = normalise_import(from_exported(program)).model
    assert "Quant" in {n.op_type for n in model.graph}
    agree(model, x.numpy(), module(x).detach().numpy(), float_output=quantizer == "x86")


def compiled(source: Any, folder: Path, monkeypatch: Any, **options: Any) -> None:
    monkeypatch.setenv("HQC_CACHE_DIR", str(folder / "cache"))
    made = hqc.compile(source, "vitis", folder / "out", check=500, **options)
    verdict = made.manifest.verdict
    assert (verdict.checked, verdict.exact, verdict.mismatches) == (True, True, 0)
    assert verdict.overflow_free


CNN = pytest.param("cnn", marks=pytest.mark.long)


@pytest.mark.emulation
@pytest.mark.parametrize("kind", ["mlp", CNN])
def test_onnxruntime_static_compiles(kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    path = tools.static(kind, tmp_path, "QDQ", "QUInt8", "QInt8", True)
    compiled(path, tmp_path, monkeypatch)


@pytest.mark.emulation
@pytest.mark.parametrize("kind", [pytest.param("mlp", marks=pytest.mark.long), CNN])
def test_onnxruntime_operators_compile(kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    path = tools.static(kind, tmp_path, "QOperator", "QInt8", "QInt8", False)
    compiled(path, tmp_path, monkeypatch)


@pytest.mark.emulation
@pytest.mark.parametrize("kind", ["mlp", CNN])
def test_brevitas_qcdq_compiles(kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    _, path = tools.brevitas_qcdq(kind, tmp_path)
    compiled(path, tmp_path, monkeypatch)


@pytest.mark.emulation
@pytest.mark.parametrize("kind", ["mlp", CNN])
def test_pt2e_compiles(kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    """From the file; the module itself gives the same graph."""
    module = tools.pt2e(kind, "xnnpack")
    example = torch.zeros(4, *tools.SHAPES[kind])
    batch = ({0: torch.export.Dim("batch")},)
    path = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(module, (example,), dynamic_shapes=batch), path)
    compiled(path, tmp_path, monkeypatch)
    made = hqc.compile(module, "vitis", tmp_path / "m", check=None, example_inputs=example)
    assert made is not None


def test_a_float_model_is_still_refused(tmp_path: Path) -> None:
    with pytest.raises(HqcError, match="HQC103"):
        hqc.compile(tools.onnx_file("mlp", tmp_path), "vitis", tmp_path / "out", check=None)
