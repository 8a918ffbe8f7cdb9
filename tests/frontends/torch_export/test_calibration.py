"""Post-training quantisation of float models."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from support.onnx_run import qonnx_run
from torch import Tensor, nn

from hqc import ir
from hqc.diagnostics import HqcError
from hqc.driver.loading import normalise, read
from hqc.execution.reference import Reference
from hqc.frontends.torch_export import from_module
from hqc.frontends.torch_export.calibration import quantise, require_quantised
from hqc.ir.operators import Quant, power_of_two


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(8, 32)
        self.bn1 = nn.BatchNorm1d(32)
        self.fc2 = nn.Linear(32, 32, bias=False)
        self.bn2 = nn.BatchNorm1d(32)
        self.bn3 = nn.BatchNorm1d(32)
        self.fc3 = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.fc1(x)))
        x = torch.relu(x + self.bn2(self.fc2(x)))
        return self.fc3(self.bn3(x))


@pytest.fixture(scope="module")
def trained() -> tuple[onnx_ir.Model, np.ndarray, np.ndarray]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the layers are too small to share
    torch.manual_seed(0)
    net, x = Net(), torch.randn(800, 8)
    labels = (x[:, :3] * x[:, 3:6]).argmax(1)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(80):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), labels).backward()
        optimiser.step()
    torch.set_num_threads(threads)
    net.eval()
    return from_module(net, x[:2]), x.numpy(), net(x).detach().numpy()


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize(("bits", "agreement"), [(8, 0.98), (6, 0.92)])
def test_close_to_the_float_model(
    trained: tuple[onnx_ir.Model, np.ndarray, np.ndarray], bits: int, agreement: float, power: bool
) -> None:
    model, x, want = trained
    before = ir.to_bytes(model)
    quantised = quantise(model, bits, {"x": x[:500]}, power_of_two=power)
    assert ir.to_bytes(model) == before
    got = qonnx_run(quantised, x)
    assert np.mean(got.argmax(1) == want.argmax(1)) > agreement
    require_quantised(quantised)
    kinds = [node.op_type for node in quantised.graph]
    assert "BatchNormalization" not in kinds
    # Input, two activations, the merged branch, the data of fc3, the output; three weights.
    assert kinds.count("Quant") >= 8
    quants = [Quant.read(node) for node in quantised.graph if Quant.matches(node)]
    assert all(q.bits == bits for q in quants)
    constants = [
        n for n in quantised.graph if Quant.matches(n) and ir.constant(n.inputs[0]) is not None
    ]
    assert len(constants) == 3
    if power:
        assert all(power_of_two(s) is not None for q in quants for s in q.scale.reshape(-1, 1))


def test_same_samples_give_same_bytes(
    trained: tuple[onnx_ir.Model, np.ndarray, np.ndarray],
) -> None:
    model, x, _ = trained
    first = ir.to_bytes(quantise(model, 8, {"x": x[:100]}))
    assert first == ir.to_bytes(quantise(model, 8, {"x": x[:100]}))
    assert [v.name for v in quantise(model, 8, {"x": x[:100]}).graph.outputs] == ["output"]


def test_folding_alone_keeps_the_float_function(
    trained: tuple[onnx_ir.Model, np.ndarray, np.ndarray],
) -> None:
    from hqc.frontends.torch_export.batchnorm_folding import fold_batch_norms

    model, x, want = trained
    copy = ir.from_bytes(ir.to_bytes(model), "copy")
    assert fold_batch_norms(copy) == 3
    got = onnxruntime.InferenceSession(ir.to_bytes(copy)).run(None, {"x": x})[0]
    np.testing.assert_allclose(got, want, atol=2e-3)


def test_gemm_conv_and_softmax_models() -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)
            self.norm = nn.BatchNorm2d(4)
            self.fc = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.norm(self.conv(x)))
            return torch.softmax(self.fc(nn.functional.max_pool2d(x, 2).flatten(1)), 1)

    torch.manual_seed(1)
    module, x = Small().eval(), torch.randn(200, 1, 6, 6)
    quantised = quantise(from_module(module, x[:2]), 8, {"x": x.numpy()})
    kinds = [node.op_type for node in quantised.graph]
    assert kinds[-1] == "Softmax"
    assert kinds[-2] == "Add"
    assert "BatchNormalization" not in kinds
    got = qonnx_run(quantised, x.numpy())
    np.testing.assert_allclose(got, module(x).detach().numpy(), atol=0.02)


class Images(nn.Module):
    """Convolutions, one of them depthwise; both kinds of pooling; a sum; a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4)
        self.deep, self.wide = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 2, 1)
        self.norm2, self.fc = nn.BatchNorm2d(4), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = nn.functional.max_pool2d(torch.relu(x + self.norm2(self.deep(x))), 2)
        x = torch.cat([x, torch.relu(self.wide(x))], 1)
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.fixture(scope="module")
def images() -> tuple[onnx_ir.Model, np.ndarray, np.ndarray]:
    torch.manual_seed(2)
    net, x = Images(), torch.randn(300, 1, 12, 12)
    for _ in range(5):
        net(x)
    net.eval()
    return from_module(net, x[:2]), x.numpy(), net(x).detach().numpy()


@pytest.mark.parametrize("power", [False, True])
def test_convolutions_and_pooling(
    images: tuple[onnx_ir.Model, np.ndarray, np.ndarray], power: bool
) -> None:
    model, x, want = images
    quantised = quantise(model, 8, {"x": x[:200]}, power_of_two=power)
    got = qonnx_run(quantised, x)
    assert np.sqrt(np.mean((got - want) ** 2)) < 0.06 * want.std()
    nodes = list(quantised.graph)
    assert not [n for n in nodes if n.op_type == "BatchNormalization"]
    for node in nodes:
        if node.op_type in ("Conv", "GlobalAveragePool"):
            assert comes_from_a_quantiser(node.inputs[0])
        if node.op_type == "Conv":
            scale = Quant.read(node.inputs[1].producer()).scale
            assert scale.shape == (node.inputs[1].shape[0], 1, 1, 1)


def comes_from_a_quantiser(value: onnx_ir.Value) -> bool:
    maker = value.producer()
    while maker.op_type == "MaxPool":
        maker = maker.inputs[0].producer()
    return Quant.matches(maker)


def test_parts_of_sums_and_joins_share_one_scale(
    images: tuple[onnx_ir.Model, np.ndarray, np.ndarray],
) -> None:
    model, x, _ = images
    quantised = quantise(model, 8, {"x": x[:200]})
    joins = [n for n in quantised.graph if n.op_type in ("Concat", "Add")]
    joins = [n for n in joins if all(v.producer() is not None for v in n.inputs)]
    assert sorted(n.op_type for n in joins) == ["Add", "Concat"]
    for node in joins:
        parts = [Quant.read(v.producer()) for v in node.inputs]
        assert len({(float(p.scale), p.signed) for p in parts}) == 1
        assert parts[0].signed is (node.op_type == "Add")  # the parts of the other are rectified


def test_a_calibrated_convolutional_network_has_an_exact_form(
    images: tuple[onnx_ir.Model, np.ndarray, np.ndarray],
) -> None:
    model, x, _ = images
    quantised = quantise(model, 6, {"x": x[:200]})
    exact = Reference(normalise(read(quantised)).model).run({"x": x[:50]})["output"]
    assert np.isclose(exact, qonnx_run(quantised, x[:50]), atol=1e-5).mean() > 0.9


def test_refusals(trained: tuple[onnx_ir.Model, np.ndarray, np.ndarray]) -> None:
    model, x, _ = trained
    with pytest.raises(HqcError, match=r"HQC103.*(\n.*)*--quantize 8"):
        require_quantised(model)
    with pytest.raises(HqcError, match="--samples"):
        quantise(model, 8, None)
    with pytest.raises(HqcError, match="HQC005"):
        quantise(model, 8, {"x": x[:, :5]})
    with pytest.raises(HqcError, match="HQC005"):
        quantise(model, 8, {"x": x * np.nan})
    with pytest.raises(HqcError, match="HQC107"):
        quantise(model, 1, {"x": x})
    with pytest.raises(HqcError, match="quantised already"):
        quantise(quantise(model, 8, {"x": x}), 8, {"x": x})


def test_float_file_with_a_fixed_batch(
    trained: tuple[onnx_ir.Model, np.ndarray, np.ndarray],
) -> None:
    model, x, _ = trained
    proto = onnx.load_from_string(ir.to_bytes(model))
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    fixed = ir.from_bytes(proto.SerializeToString(), "fixed")
    scales = [
        [
            Quant.read(n).scale.tolist()
            for n in quantise(m, 8, {"x": x[:64]}).graph
            if Quant.matches(n)
        ]
        for m in (model, fixed)
    ]
    # Sums run in another order for another batch: the floats need not be the same to the last bit.
    for one, other in zip(*scales, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3)
