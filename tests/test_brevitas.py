"""Brevitas modules: the same numbers, found without importing Brevitas."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from hqc import ir
from hqc.diagnostics import HqcError
from hqc.frontends.brevitas import from_brevitas, is_brevitas
from hqc.frontends.torch_export import from_torch

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
