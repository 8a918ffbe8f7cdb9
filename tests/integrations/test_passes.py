"""Passes across compilers: hqc's in qonnx, onnx_ir and onnxscript, and theirs under contracts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxscript.optimizer
import pytest
from onnx_ir import Model
from onnx_ir.passes import PassManager, Sequential
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, RemoveUnusedNodesPass
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.rules.common import _basic_rules
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.base import Transformation
from qonnx.transformation.fold_constants import FoldConstants as QonnxFoldConstants
from qonnx.transformation.general import GiveUniqueNodeNames
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.transformation.remove import RemoveIdentityOps
from support.small_model import small_model

from hqc.diagnostics import HqcError
from hqc.driver import load, run_passes
from hqc.execution.reference import Reference
from hqc.integrations.foreign import from_onnx_ir
from hqc.integrations.qonnx import as_qonnx, from_qonnx
from hqc.ir import State, state_of
from hqc.passes.dce import DeadCode
from hqc.passes.fold_constants import FoldConstants
from hqc.passes.fold_quantizers import FoldQuantizers
from hqc.passes.normalize import Normalize
from hqc.pipeline import DEFAULT
from hqc.pipeline.passes import Contract, Promise
from hqc.pipeline.registry import Registry


class NudgeWeights(Transformation):  # type: ignore[misc]
    """Adds 2**-12 to the first element of each matrix: wrong, but not by much."""

    def apply(self, model: Any) -> tuple[Any, bool]:
        for tensor in model.graph.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            if array.dtype == np.float32 and array.ndim == 2:
                array = array.copy()
                array[0, 0] += 1.0
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        return model, False


def outputs(model: Model) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    inputs = {
        str(v.name): rng.normal(0, 2, (50, *[int(d) for d in list(v.shape or ())[1:]]))
        for v in model.graph.inputs
        if not v.is_initializer()
    }
    return list(Reference(model).run({n: x.astype(np.float32) for n, x in inputs.items()}).values())


def same(a: Model, b: Model) -> bool:
    pairs = zip(outputs(a), outputs(b), strict=True)
    return all(np.array_equal(x, y) and np.ptp(x) > 0 for x, y in pairs)


@pytest.fixture
def model() -> Model:
    return load(small_model())


# --- qonnx ------------------------------------------------------------------------------------


@pytest.mark.parametrize("passes", [DEFAULT, FoldConstants(), FoldQuantizers()], ids=str)
def test_passes_run_in_qonnx(passes: Any) -> None:
    proto = small_model()
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 6
    before = ModelWrapper(proto).transform(InferShapes())
    after = before.transform(as_qonnx(passes)).transform(GiveUniqueNodeNames())
    name = before.graph.input[0].name
    shape = before.get_tensor_shape(name)
    assert after.get_tensor_shape(after.graph.input[0].name) == shape
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    want = execute_onnx(before, {name: x})[before.graph.output[0].name]
    got = execute_onnx(after, {name: x})[after.graph.output[0].name]
    assert np.array_equal(got, want)
    assert np.ptp(want) > 0


def test_a_lowered_model_comes_back_from_qonnx_as_it_was() -> None:
    wrapper = ModelWrapper(small_model()).transform(as_qonnx(DEFAULT))
    back = load(wrapper.model)
    assert state_of(back) is State.INTEGER
    assert same(back, load(small_model()))


def test_qonnx_transformations_are_passes(model: Model) -> None:
    registry = Registry.default()
    for made in (QonnxFoldConstants, RemoveIdentityOps(), InferShapes, GiveUniqueNodeNames):
        registry = registry.with_pass(from_qonnx(made))
    own = "qonnx-fold-constants,qonnx-remove-identity-ops,qonnx-infer-shapes"
    pipeline = f"{own},qonnx-give-unique-node-names,{DEFAULT}"
    after = run_passes(model, pipeline, registry=registry)
    assert state_of(after) is State.INTEGER
    assert same(after, model)


def test_a_transformation_that_breaks_its_contract_is_caught(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the reproducer goes
    registry = Registry.default().with_pass(from_qonnx(NudgeWeights, name="nudge"))
    with pytest.raises(HqcError) as caught:
        run_passes(model, "nudge", registry=registry)
    assert caught.value.diagnostics[0].code == "HQC303"


def test_a_bounded_contract_is_the_users_to_give(model: Model) -> None:
    contract = Contract(Promise.BOUNDED, 10**6)
    registry = Registry.default().with_pass(from_qonnx(NudgeWeights, contract, name="nudge"))
    assert not same(run_passes(model, "nudge", registry=registry), model)


# --- onnx_ir and onnxscript -------------------------------------------------------------------


def test_passes_run_in_onnx_irs_managers(model: Model) -> None:
    want = load(small_model())
    common = CommonSubexpressionEliminationPass(), RemoveUnusedNodesPass()
    inner = PassManager([Normalize(), common[0], FoldQuantizers()], steps=2, early_stop=True)
    result = Sequential(FoldConstants(), inner, common[1], DeadCode())(model)
    assert result.modified
    assert result.model is model
    assert same(model, want)


def test_passes_run_beside_onnxscripts_rewriter_and_optimizer(model: Model) -> None:
    want = load(small_model())
    rules = RewritePass(_basic_rules.basic_optimization_rules())
    Sequential(FoldConstants(), rules, Normalize())(model)
    assert same(model, want)
    onnxscript.optimizer.optimize(model)
    assert same(model, want)
    assert same(run_passes(model, DEFAULT), want)


def test_onnx_irs_passes_are_passes(model: Model) -> None:
    made = from_onnx_ir(CommonSubexpressionEliminationPass())
    assert made.name == "ir-common-subexpression-elimination"
    assert made.summary() == "CommonSubexpressionEliminationPass of onnx_ir."
    registry = Registry.default().with_pass(made)
    assert same(run_passes(model, f"{made.name},{DEFAULT}", registry=registry), model)
