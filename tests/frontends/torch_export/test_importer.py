"""PyTorch modules and programs to the IR: numbers, names, source lines, refusals."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from torch import Tensor, nn

from hqc import ir
from hqc.diagnostics import HqcError
from hqc.frontends.torch import QuantIdentity, QuantLinear, QuantReLU
from hqc.frontends.torch_export import export_module, from_exported, from_module, from_torch
from hqc.frontends.torch_export.program_files import load_program


def qonnx_run(model: onnx_ir.Model, x: np.ndarray) -> np.ndarray:
    """What qonnx's executor makes of the saved file."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx

    proto = onnx.load_from_string(ir.to_bytes(model))
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = len(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = execute_onnx(ModelWrapper(proto), {model.graph.inputs[0].name: x})
    return found[model.graph.outputs[0].name]


class Residual(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.fc = QuantLinear(24, 24, weight_bits=4, **options)  # type: ignore[arg-type]
        self.bn = nn.BatchNorm1d(24)
        self.act = QuantReLU(5, power_of_two=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.fc(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inp = QuantIdentity(8, power_of_two=True)
        self.fc1 = QuantLinear(16, 24, bias_bits=12, per_channel=True)
        self.act1 = QuantReLU(6, ranges="learned")
        self.block = Residual(per_channel=True, learned=True, power_of_two=True)
        self.mid = QuantIdentity(7, symmetric=False, narrow=True, ranges="max")
        self.fc2 = QuantLinear(24, 5, symmetric=False, signed=False, narrow=False)
        self.out = QuantIdentity(8, ranges="percentile")

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.fc1(self.inp(x)))
        x = self.mid(x + self.block(x))
        return self.out(self.fc2(x.view(x.shape[0], -1)))


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    net = Net()
    for _ in range(4):
        net(torch.randn(64, 16))
    return net.eval()


def test_same_floats_as_qonnx_on_every_quantiser_variant(net: Net) -> None:
    x = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    model = from_module(net, torch.zeros(1, 16))
    assert np.array_equal(qonnx_run(model, x), net(torch.tensor(x)).detach().numpy())


def test_nodes_are_named_after_modules_and_keep_layers_whole(net: Net) -> None:
    model = from_module(net, torch.zeros(2, 16))
    kinds = [(n.op_type, n.name) for n in model.graph]
    assert ("MatMul", "fc1/MatMul") in kinds
    assert ("BatchNormalization", "block.bn/BatchNormalization") in kinds
    assert ("Quant", "fc1.weight/Quant") in kinds
    assert [k for k, _ in kinds].count("MatMul") == 3
    assert "Transpose" not in [k for k, _ in kinds]
    assert [v.name for v in model.graph.inputs] == ["x"]
    assert [v.name for v in model.graph.outputs] == ["output"]
    assert str(model.graph.inputs[0].shape) == "[batch,16]"


def test_nodes_know_the_line_of_the_user(net: Net) -> None:
    lines, start = inspect.getsourcelines(Net.forward)
    want = {
        "act1/Quant": next(i for i, line in enumerate(lines) if "self.act1" in line) + start,
        "fc2/MatMul": next(i for i, line in enumerate(lines) if "self.fc2" in line) + start,
    }
    for node in from_module(net, torch.zeros(2, 16)).graph:
        if node.name in want:
            source = ir.location_of(node).source
            code = lines[want[str(node.name)] - start].strip()
            assert source == f"test_importer.py:{want[str(node.name)]}  {code}"


def test_sequential_models_are_located_by_module() -> None:
    model = from_module(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.zeros(2, 4))
    assert ir.location_of(model.graph[0]).source == "module 0 (Linear)"


def test_same_module_gives_same_bytes_and_a_file_does_too(net: Net, tmp_path: Path) -> None:
    first = ir.to_bytes(from_module(net, torch.zeros(2, 16)))
    assert first == ir.to_bytes(from_module(net, torch.randn(5, 16)))
    torch.export.save(export_module(net, torch.zeros(2, 16)), tmp_path / "net.pt2")
    program = load_program(tmp_path / "net.pt2")
    assert first == ir.to_bytes(from_torch(program))
    x = torch.randn(3, 16)
    assert torch.equal(program.module()(x), net(x))


def test_module_keeps_its_mode_and_parameters(net: Net) -> None:
    net.block.train()
    try:
        before = {k: v.clone() for k, v in net.state_dict().items()}
        from_module(net, torch.zeros(2, 16))
        assert net.block.training
        assert net.block.act.training
        assert not net.act1.training
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    finally:
        net.eval()


def test_float_operators_compute_the_same() -> None:
    class Zoo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 4, 3, padding=1)
            self.pool = nn.MaxPool2d(2)
            self.norm = nn.BatchNorm2d(4)
            self.fc = nn.Linear(16, 6)
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            x = self.norm(self.pool(self.conv(x))).clamp(-1, 1)
            x = nn.functional.avg_pool2d(x, 1)
            h = self.drop(torch.tanh(self.fc(torch.flatten(x, 1))))
            h = torch.cat([h, 2 * y - 1], dim=1) / 3
            return torch.softmax(h, dim=-1), h.mean(dim=1, keepdim=True) + (1 - y).relu()

    import onnxruntime

    module = Zoo().eval()
    x, y = torch.randn(7, 2, 4, 4), torch.randn(7, 3)
    model = from_module(module, (x[:2], y[:2]))
    assert [v.name for v in model.graph.inputs] == ["x", "y"]
    assert [v.name for v in model.graph.outputs] == ["output_0", "output_1"]
    session = onnxruntime.InferenceSession(ir.to_bytes(model))
    got = session.run(None, {"x": x.numpy(), "y": y.numpy()})
    for g, want in zip(got, module(x, y), strict=True):
        np.testing.assert_allclose(g, want.detach().numpy(), atol=1e-5)


def test_program_with_a_fixed_batch_is_made_dynamic(net: Net) -> None:
    program = torch.export.export(net, (torch.zeros(4, 16),))
    x = np.random.default_rng(1).normal(size=(9, 16)).astype(np.float32)
    got = qonnx_run(from_exported(program), x)
    assert np.array_equal(got, net(torch.tensor(x)).detach().numpy())


class Gelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.gelu(x)


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class MixesBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 2)


class DynamicScale(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        from hqc.frontends.torch import quant

        return quant(x, x.abs().amax(), torch.tensor(0.0), 8, True, False, "ROUND")


@pytest.mark.parametrize(
    ("module", "code"),
    [
        (Gelu(), "HQC101"),
        (Branch(), "HQC102"),
        (MixesBatch(), "HQC104"),
        (DynamicScale(), "HQC10"),
        (QuantIdentity(8), "HQC106"),
    ],
)
def test_what_cannot_be_translated_is_refused(module: nn.Module, code: str) -> None:
    with pytest.raises(HqcError, match=code):
        from_module(module, torch.zeros(2, 4))


def test_refusals_point_to_the_line() -> None:
    with pytest.raises(HqcError) as caught:
        from_module(Gelu(), torch.zeros(2, 4))
    where = caught.value.diagnostics[0].where
    assert where.source.endswith("return nn.functional.gelu(x)")


def test_module_without_example_inputs_is_refused(net: Net) -> None:
    with pytest.raises(HqcError, match="example_inputs"):
        from_torch(net)
    with pytest.raises(HqcError, match="HQC001"):
        from_torch(object())


def test_program_in_training_mode_is_refused() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    program = torch.export.export(module, (torch.zeros(4, 4),))
    with pytest.raises(HqcError, match="eval mode"):
        from_exported(program)


class Constants(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.tensor([1.0, 2.0])


def test_constants_in_forward_survive_a_file(tmp_path: Path) -> None:
    program = export_module(Constants(), torch.zeros(2, 2))
    torch.export.save(program, tmp_path / "c.pt2")
    loaded = from_exported(load_program(tmp_path / "c.pt2"))
    assert ir.to_bytes(loaded) == ir.to_bytes(from_exported(program))
    assert [n.op_type for n in loaded.graph] == ["Mul"]
