"""Public QONNX models, as they are published, through the whole compiler."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_ir import Model

import hqc
from hqc import pipeline
from hqc.equivalence.float_error import deviations
from hqc.equivalence.samples import generate
from hqc.equivalence.translation_validation import compare
from hqc.execution.fast import Fast
from hqc.execution.reference import Reference
from hqc.frontends.qonnx import normalise_import
from hqc.ir import from_bytes, load, to_bytes
from hqc.pipeline.registry import Registry
from hqc.text import parse_pipeline

SAMPLES = 10_000
JETS, UNSW = "qkeras_jettagging", "unsw_nb15-mlp-w2a2"
NAMES = (JETS, UNSW, "TFC_1W1A", "TFC_1W2A")


@dataclass(frozen=True)
class Compiled:
    """A public model: its file, the imported graph, the integer graph, and samples."""

    path: Path
    imported: Model
    integer: Model
    inputs: Mapping[str, np.ndarray]
    want: Mapping[str, np.ndarray]


def compiled(path: Path) -> Compiled:
    integer = normalise_import(load(path)).model
    imported = from_bytes(to_bytes(integer), path.name)
    inputs = dict(generate(imported, SAMPLES, seed=1))
    pipeline.run(integer, parse_pipeline(pipeline.DEFAULT), Registry.builtin())
    return Compiled(path, imported, integer, inputs, Reference(imported).run(inputs))


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest, shared_models: Path) -> Compiled:
    return compiled(shared_models / f"{request.param}.onnx")


def source_run(path: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Every tensor of the published file, by qonnx's executor."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.change_batchsize import ChangeBatchSize
    from qonnx.transformation.infer_shapes import InferShapes

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = ModelWrapper(str(path))
        for value in source.graph.value_info:
            value.type.tensor_type.ClearField("shape")
        source = source.transform(ChangeBatchSize(len(next(iter(inputs.values())))))
        source = source.transform(InferShapes())
        return dict(execute_onnx(source, dict(inputs), return_full_exec_context=True))


def test_the_integer_graph_is_the_model(model: Compiled) -> None:
    assert compare(Reference(model.integer).run(model.inputs), model.want).equal
    fast = Fast(model.integer)
    assert compare(fast.run(model.inputs), model.want).equal
    assert {c.arithmetic for c in fast.certificate} <= {"float32", "float64"}
    assert len(fast.certificate) >= 4


def test_the_published_file_agrees_but_for_ties(model: Compiled) -> None:
    x = port_values(model)
    want = Reference(model.imported).run(x)
    oracle = source_run(model.path, x)
    rows = sorted({int(i) for n, w in want.items() for i in np.argwhere(oracle[n] != w)[:, 0]})
    assert not (rows and model.path.stem == JETS), "power-of-two scales leave no ties"
    oracle = {**as_imported(model, x), **oracle}
    found = deviations(model.imported, x, oracle, rows) if rows else []
    unexplained = [d.reason for d in found if d.kind == "unexplained"]
    assert not unexplained, unexplained[0]
    ties = sum(d.kind == "tie" for d in found)
    print(f"{model.path.stem}: {len(rows)} of {SAMPLES} differ in float32, {ties} proven ties")


def as_imported(model: Compiled, x: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The tensors that only the imported graph has, such as a quantised input."""
    from hqc.equivalence.qonnx_oracle import run_qonnx

    return run_qonnx(model.imported, x, intermediates=True)


def port_values(model: Compiled) -> dict[str, np.ndarray]:
    """Inputs that lie on the ports that the import added, which the published file has not."""
    trace = Reference(model.imported).trace(model.inputs)
    ports = {str(v.name): t.values() for v, t in trace.items()}
    return {n: np.float32(ports.get(f"{n}_port", x)) for n, x in model.inputs.items()}


def test_normal_inputs_agree(model: Compiled) -> None:
    rng = np.random.default_rng(2)
    x = {n: np.float32(rng.normal(size=(SAMPLES, *v.shape[1:]))) for n, v in model.inputs.items()}
    assert compare(Fast(model.integer).run(x), Reference(model.imported).run(x)).equal


def test_the_softmax_of_the_jet_tagger_is_the_host_s(shared_models: Path) -> None:
    fast = Fast(compiled(shared_models / f"{JETS}.onnx").integer)
    steps = fast.partition.host_steps()
    assert [(s["op"], s["output"]) for s in steps["decode"]] == [("Softmax", "global_out")]
    assert all(node.op_type != "Softmax" for node in fast.partition.core)
    (port,) = fast.partition.outputs
    assert steps["decode"][0]["inputs"] == [port.name]
    assert port.shape == (5,)


EMULATED = [
    pytest.param(name, backend, marks=() if name == JETS else pytest.mark.long)
    for name in NAMES
    for backend in ("vitis", "catapult")
]


@pytest.mark.emulation
@pytest.mark.parametrize(("name", "backend"), EMULATED)
def test_the_emulation_is_the_model(
    name: str,
    backend: str,
    shared_models: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("HQC_CACHE_DIR", str(cache))
    path = shared_models / f"{name}.onnx"
    made = hqc.compile(path, backend, tmp_path / name, check=SAMPLES)
    verdict = made.manifest.verdict
    assert verdict.checked
    assert verdict.exact
    assert (verdict.mismatches, verdict.samples) == (0, SAMPLES)
    assert verdict.overflow_free
