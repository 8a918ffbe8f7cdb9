"""Brevitas modules: the same numbers, found without importing Brevitas."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx_ir import Model
from torch import Tensor, nn

from hqc import ir
from hqc.diagnostics import HqcError
from hqc.equivalence.float_error import undecided
from hqc.execution.reference import Reference
from hqc.frontends.qonnx import normalise_import
from hqc.frontends.torch_export import from_torch
from hqc.frontends.torch_export.brevitas import from_brevitas, is_brevitas

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def net() -> nn.Module:
    qnn = pytest.importorskip("brevitas.nn")
    quant = pytest.importorskip("brevitas.quant")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inp = qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)
            self.fc1 = qnn.QuantLinear(
                16,
                12,
                bias=True,
                weight_bit_width=4,
                weight_quant=quant.Int8WeightPerChannelFloat,
                bias_quant=quant.Int8Bias,
            )
            self.norm = nn.BatchNorm1d(12)
            self.act1 = qnn.QuantReLU(bit_width=4)
            self.fc2 = qnn.QuantLinear(
                12,
                8,
                bias=False,
                weight_bit_width=1,
                weight_quant=quant.SignedBinaryWeightPerTensorConst,
            )
            self.act2 = qnn.QuantReLU(bit_width=6, act_quant=quant.Uint8ActPerTensorFixedPoint)
            self.fc3 = qnn.QuantLinear(
                8,
                5,
                bias=True,
                weight_bit_width=3,
                weight_quant=quant.ShiftedUint8WeightPerTensorFloat,
            )
            self.out = qnn.QuantIdentity(bit_width=8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.act1(self.norm(self.fc1(self.inp(x))))
            return self.out(self.fc3(self.act2(self.fc2(x))))

    torch.manual_seed(0)
    module = Net()
    for _ in range(5):
        module(torch.randn(64, 16))
    return module.eval()


def test_same_floats_as_the_module(net: nn.Module) -> None:
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx

    x = np.random.default_rng(0).normal(size=(100, 16)).astype(np.float32)
    want = net(torch.tensor(x)).detach().numpy()
    model = from_torch(net, torch.zeros(1, 16))
    proto = onnx.load_from_string(ir.to_bytes(model))
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = len(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = execute_onnx(ModelWrapper(proto), {"x": x})["output"]
    assert np.array_equal(got, want)
    # The module was not touched.
    assert np.array_equal(net(torch.tensor(x)).detach().numpy(), want)


def test_names_and_lines(net: nn.Module) -> None:
    model = from_brevitas(net, torch.zeros(2, 16))
    names = [n.name for n in model.graph]
    assert {"inp/Quant", "fc1.weight/Quant", "fc1/MatMul", "act1/Relu", "act1/Quant"} <= set(names)
    sources = {ir.location_of(n).source for n in model.graph}
    assert all(s.startswith("test_brevitas.py:") for s in sources)


def test_detection(net: nn.Module) -> None:
    assert is_brevitas(net)
    assert not is_brevitas(nn.Sequential(nn.Linear(2, 2)))


def test_brevitas_is_not_imported_for_other_modules() -> None:
    code = (
        "import sys, torch\n"
        "from hqc.frontends.torch_export import from_torch\n"
        "from_torch(torch.nn.Linear(2, 2), torch.zeros(2, 2))\n"
        "sys.exit('brevitas' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=120, check=False)
    assert done.returncode == 0


def test_missing_brevitas_is_a_missing_tool(
    net: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(HqcError, match="HQC404"):
        from_brevitas(net, torch.zeros(2, 16))


def test_minifloat_is_refused() -> None:
    qnn = pytest.importorskip("brevitas.nn")
    minifloat = pytest.importorskip("brevitas.quant.experimental.float")
    layer = qnn.QuantLinear(4, 3, bias=False, weight_quant=minifloat.Fp8e4m3WeightPerTensorFloat)
    with pytest.raises(HqcError, match="HQC102"):
        from_brevitas(nn.Sequential(layer), torch.zeros(2, 4))


def exported(module: nn.Module, folder: Path, *dims: int) -> Model:
    """Imported from Brevitas's own QONNX export."""
    pytest.importorskip("onnxoptimizer")
    from brevitas.export import export_qonnx

    path = folder / "model.onnx"
    example, axes = torch.zeros(2, *dims), {"x": {0: "N"}}
    export_qonnx(module, args=example, export_path=str(path), opset_version=17, dynamo=False,
                 input_names=["x"], dynamic_axes=axes)  # fmt: skip
    return normalise_import(ir.load(path)).model


def agree(model: Model, module: nn.Module, x: np.ndarray) -> None:
    """Equal outputs, but for samples that float32 cannot decide."""
    source = str(model.graph.inputs[0].name)
    want = module(torch.tensor(x)).detach().numpy()
    (got,) = Reference(model).run({source: x}).values()
    differ = (got != want).reshape(len(x), -1).any(axis=1)
    assert not np.any(differ & ~undecided(model, {source: x}))
    assert differ.mean() < 0.2


def test_truncating_pools(tmp_path: Path) -> None:
    """Sums over a window without their low bits, from the module and from its export."""
    qnn = pytest.importorskip("brevitas.nn")
    torch.manual_seed(0)
    module = nn.Sequential(
        qnn.QuantIdentity(bit_width=8, return_quant_tensor=True),
        qnn.QuantConv2d(1, 3, 3, bias=False, weight_bit_width=4),
        qnn.QuantReLU(bit_width=6, return_quant_tensor=True),
        qnn.TruncAvgPool2d(2, bit_width=4, return_quant_tensor=False),
    )
    for _ in range(5):
        module(torch.randn(16, 1, 8, 8))
    module.eval()
    x = np.random.default_rng(0).normal(size=(200, 1, 8, 8)).astype(np.float32)
    agree(normalise_import(from_brevitas(module, torch.zeros(2, 1, 8, 8))).model, module, x)
    agree(exported(module, tmp_path, 1, 8, 8), module, x)


@pytest.mark.parametrize(("name", "fits"), [("Fp8e4m3", True), ("Fp8e5m2", False)])
def test_minifloat_weights_enter_by_file(name: str, fits: bool, tmp_path: Path) -> None:
    """Values of e4m3 are codes of 19 bits on one grid; those of e5m2 would take 33."""
    qnn = pytest.importorskip("brevitas.nn")
    formats = pytest.importorskip("brevitas.quant.float_quant_ocp")
    weights = getattr(formats, f"{name}OCPWeightPerTensorFloat")
    torch.manual_seed(0)
    module = nn.Sequential(
        qnn.QuantIdentity(bit_width=8),
        qnn.QuantLinear(16, 12, bias=False, weight_quant=weights),
        qnn.QuantReLU(bit_width=4),
    )
    for _ in range(5):
        module(torch.randn(64, 16))
    module.eval()
    with pytest.raises(HqcError, match="export_qonnx"):
        from_brevitas(module, torch.zeros(2, 16))
    if fits:
        x = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
        agree(exported(module, tmp_path, 16), module, x)
    else:
        with pytest.raises(HqcError, match="steps"):
            exported(module, tmp_path, 16)
