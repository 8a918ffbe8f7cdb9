"""Each ATen operator that has a translation: onnxruntime computes what torch does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hqc import ir
from hqc.diagnostics import HqcError
from hqc.frontends.torch_export import from_module

IMAGE, LINE, ROW = (3, 4, 9, 8), (3, 4, 10), (3, 6)


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def signal(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2


def check(module: nn.Module, shape: tuple[int, ...]) -> Any:
    """The translation gives what the module gives, for another batch size as well."""
    torch.manual_seed(0)
    module.eval()
    for m in module.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
    model = from_module(module, torch.zeros(2, *shape[1:]))
    session = onnxruntime.InferenceSession(ir.to_bytes(model))
    for count, seed in ((shape[0], 1), (1, 2)):
        x = signal((count, *shape[1:]), seed)
        want = module(x)
        wanted = list(want) if isinstance(want, tuple | list) else [want]
        found = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert len(found) == len(wanted)
        for got, expected, value in zip(found, wanted, model.graph.outputs, strict=True):
            assert got.shape == tuple(expected.shape)
            assert list(value.shape)[1:] == list(expected.shape)[1:]
            np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-5, atol=1e-5)
    return model


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), LINE),
    "conv1d strided": (lambda: nn.Conv1d(4, 6, 4, stride=3, padding=2, dilation=2), LINE),
    "conv1d depthwise": (lambda: nn.Conv1d(4, 8, 3, groups=4, bias=False), LINE),
    "conv1d same": (lambda: nn.Conv1d(4, 6, 4, padding="same"), LINE),
    "conv2d": (lambda: nn.Conv2d(4, 5, (3, 2), stride=(2, 1), padding=(1, 0)), IMAGE),
    "conv2d dilated": (lambda: nn.Conv2d(4, 5, 3, dilation=(2, 1), padding=2), IMAGE),
    "conv2d grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), IMAGE),
    "conv2d depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, padding="same"), IMAGE),
    "conv2d valid": (lambda: nn.Conv2d(4, 4, 3, padding="valid", bias=False), IMAGE),
    "transposed conv1d": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1), LINE),
    "transposed conv2d": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        IMAGE,
    ),
    "transposed dilated": (lambda: nn.ConvTranspose2d(4, 3, (2, 3), dilation=(2, 1)), IMAGE),
    "linear on rows": (lambda: nn.Linear(10, 3), LINE),
    "batch norm": (lambda: nn.BatchNorm2d(4), IMAGE),
    "batch norm of lines": (lambda: nn.BatchNorm1d(4, affine=False), LINE),
    "max pool 1d": (lambda: nn.MaxPool1d(3, 2, padding=1), LINE),
    "max pool 1d dilated": (lambda: nn.MaxPool1d(3, 1, dilation=2), LINE),
    "max pool 2d": (lambda: nn.MaxPool2d((2, 3), stride=(1, 2), padding=(1, 0)), IMAGE),
    "max pool 2d ceil": (lambda: nn.MaxPool2d(3, 2, ceil_mode=True), IMAGE),
    "max pool 1d ceil": (lambda: nn.MaxPool1d(4, 3, padding=1, ceil_mode=True), LINE),
    "average pool 1d": (lambda: nn.AvgPool1d(3, 2, padding=1), LINE),
    "average pool 2d": (lambda: nn.AvgPool2d(2), IMAGE),
    "average pool padded": (lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), IMAGE),
    "average pool ceil": (
        lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        IMAGE,
    ),
    "adaptive average 1d": (lambda: nn.AdaptiveAvgPool1d(1), LINE),
    "adaptive average 2d": (lambda: nn.AdaptiveAvgPool2d(1), IMAGE),
    "adaptive average to parts": (lambda: nn.AdaptiveAvgPool2d((3, 4)), IMAGE),
    "adaptive average none": (lambda: nn.AdaptiveAvgPool2d((None, 2)), IMAGE),
    "adaptive max 1d": (lambda: nn.AdaptiveMaxPool1d(1), LINE),
    "adaptive max 2d": (lambda: nn.AdaptiveMaxPool2d((3, 2)), IMAGE),
    "prelu": (nn.PReLU, IMAGE),
    "prelu per channel": (lambda: nn.PReLU(4, 0.1), IMAGE),
    "hardtanh": (lambda: nn.Hardtanh(-0.5, 1.5), IMAGE),
    "hardswish": (nn.Hardswish, IMAGE),
    "upsample": (lambda: nn.Upsample(scale_factor=2), IMAGE),
    "upsample to a size": (lambda: nn.Upsample(size=(18, 24)), IMAGE),
    "upsample 1d": (lambda: nn.Upsample(scale_factor=3), LINE),
    "zero pad": (lambda: nn.ZeroPad2d((1, 2, 0, 1)), IMAGE),
    "constant pad": (lambda: nn.ConstantPad1d((2, 1), 0.5), LINE),
    "flatten": (nn.Flatten, IMAGE),
    "flatten a part": (lambda: nn.Flatten(2), IMAGE),
    "unflatten": (lambda: nn.Unflatten(1, (2, 3)), ROW),
    "pixel shuffle": (lambda: nn.PixelShuffle(2), IMAGE),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    torch.manual_seed(3)
    make, shape = LAYERS[name]
    check(make(), shape)


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Any], tuple[int, ...]]] = {
    "relu": (torch.relu, IMAGE),
    "relu6": (F.relu6, IMAGE),
    "leaky relu": (lambda x: F.leaky_relu(x, 0.25), IMAGE),
    "elu": (lambda x: F.elu(x, 0.5), ROW),
    "clamp": (lambda x: x.clamp(-1, 0.5), ROW),
    "clamp below": (lambda x: x.clamp(min=-1), ROW),
    "clamp min": (lambda x: torch.clamp_min(x, 0.25), ROW),
    "clamp max": (lambda x: torch.clamp_max(x, 0.25), ROW),
    "hardtanh": (F.hardtanh, ROW),
    "hardsigmoid": (F.hardsigmoid, ROW),
    "sigmoid": (torch.sigmoid, ROW),
    "tanh": (torch.tanh, ROW),
    "softplus": (F.softplus, ROW),
    "softmax": (lambda x: F.softmax(x, 1), IMAGE),
    "log softmax": (lambda x: F.log_softmax(x, -1), ROW),
    "permute": (lambda x: x.permute(0, 2, 3, 1), IMAGE),
    "transpose": (lambda x: x.transpose(1, -1), LINE),
    "transpose and multiply": (lambda x: x.transpose(1, 2) @ x, LINE),
    "squeeze": (lambda x: x[:, :1].squeeze(1), LINE),
    "squeeze all": (lambda x: x.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1), IMAGE),
    "unsqueeze": (lambda x: x.unsqueeze(1), ROW),
    "unsqueeze last": (lambda x: x.unsqueeze(-1), ROW),
    "view": (lambda x: x.view(x.shape[0], 2, -1), LINE),
    "reshape": (lambda x: x.reshape(-1, 40), LINE),
    "flatten": (lambda x: torch.flatten(x, 1), IMAGE),
    "slice": (lambda x: x[:, 1:3], LINE),
    "slice with a step": (lambda x: x[:, :, 1::3], LINE),
    "slice from the end": (lambda x: x[..., -3:], IMAGE),
    "select": (lambda x: x[:, 2], LINE),
    "narrow": (lambda x: x.narrow(2, 1, 4), LINE),
    "split": (lambda x: torch.split(x, [1, 3], 1)[1], LINE),
    "split evenly": (lambda x: x.split(3, 2), LINE),
    "chunk": (lambda x: x.chunk(2, 1), LINE),
    "unbind": (lambda x: x.unbind(1)[0], LINE),
    "index select": (lambda x: x.index_select(1, torch.tensor([3, 0])), LINE),
    "cat": (lambda x: torch.cat([x, 2 * x, x[:, :1]], 1), LINE),
    "stack": (lambda x: torch.stack([x, -x], 1), LINE),
    "add": (lambda x: x + x.relu(), LINE),
    "add with alpha": (lambda x: torch.add(x, x.relu(), alpha=2), LINE),
    "add in place": (lambda x: x.clone().add_(1.5), LINE),
    "sub": (lambda x: x - x.tanh(), LINE),
    "number minus": (lambda x: 1.5 - x, LINE),
    "mul": (lambda x: x * x.sigmoid(), LINE),
    "div": (lambda x: x / (1 + x.abs()), LINE),
    "add a constant": (lambda x: x + torch.arange(4.0).reshape(4, 1), LINE),
    "broadcast": (lambda x: x * x.mean((2, 3), keepdim=True), IMAGE),
    "pow": (lambda x: x**2, ROW),
    "square": (torch.square, ROW),
    "maximum": (lambda x: torch.maximum(x, -x), ROW),
    "minimum": (lambda x: torch.minimum(x, 0.5 * x), ROW),
    "mean": (lambda x: x.mean((2, 3)), IMAGE),
    "mean keeping": (lambda x: x.mean(1, keepdim=True), IMAGE),
    "sum": (lambda x: x.sum(-1), IMAGE),
    "amax": (lambda x: x.amax((2, 3)), IMAGE),
    "amin": (lambda x: x.amin(1, keepdim=True), IMAGE),
    "max": (lambda x: x.max(1).values, LINE),
    "max keeping": (lambda x: torch.max(x, 2, keepdim=True)[0], LINE),
    "argmax": (lambda x: x.argmax(1), LINE),
    "argmax keeping": (lambda x: x.argmax(-1, keepdim=True), LINE),
    "pad": (lambda x: F.pad(x, (1, 0, 2, 1)), IMAGE),
    "pad with a number": (lambda x: F.pad(x, (1, 2), value=-0.5), LINE),
    "crop": (lambda x: F.pad(x, (-1, -2)), LINE),
    "interpolate": (lambda x: F.interpolate(x, scale_factor=(2, 3)), IMAGE),
    "average pool": (lambda x: F.avg_pool2d(x, 3, 1, 1), IMAGE),
    "max pool": (lambda x: F.max_pool2d(x, 2), IMAGE),
    "global max": (lambda x: F.adaptive_max_pool2d(x, 1), IMAGE),
    "einsum-free attention": (lambda x: F.softmax(x @ x.transpose(1, 2), -1) @ x, LINE),
    "dropout": (lambda x: F.dropout(x, 0.5, False), LINE),
    "identity": (lambda x: x.contiguous().detach().float(), LINE),
    "movedim": (lambda x: x.movedim(1, -1), IMAGE),
    "swapaxes": (lambda x: x.swapaxes(1, 2), LINE),
    "silu": (F.silu, ROW),
    "expand": (lambda x: x[:, :1].expand(-1, 3, -1) + 0, LINE),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    function, shape = FUNCTIONS[name]
    check(Call(function), shape)


def test_embeddings_look_up_rows() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 2)).eval()
    x = torch.randint(0, 7, (4, 3))
    model = from_module(module, x[:2])
    session = onnxruntime.InferenceSession(ir.to_bytes(model))
    found = session.run(None, {"input": x.numpy()})[0]
    np.testing.assert_allclose(found, module(x).detach().numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: F.avg_pool1d(x, 3, 2, 1, ceil_mode=True), "HQC102.*ceil_mode"),
        (lambda x: F.avg_pool2d(x[:, None], 2, divisor_override=3), "HQC102.*divisor"),
        (lambda x: F.adaptive_avg_pool1d(x, 4), "HQC102.*several sizes"),
        (lambda x: F.interpolate(x, size=15), "HQC102.*upsampling"),
        (lambda x: F.interpolate(x, scale_factor=2, mode="linear"), "HQC101.*upsample"),
        (lambda x: F.pad(x, (1, 1), mode="circular"), "HQC10[12]"),
        (lambda x: x[1:], "HQC10[24]"),
        (lambda x: x.split([1, 1], 0)[0], "HQC10[24]"),
        (lambda x: x.amax(), "HQC102.*all axes"),
        (lambda x: x.max(), "HQC102.*all axes"),
        (lambda x: x.mean(0, keepdim=True), "HQC104"),
        (lambda x: x**3, "HQC102.*power of 3"),
        (lambda x: F.softplus(x, 2), "HQC102.*beta"),
        (lambda x: F.softmax(x, 1, dtype=torch.float64), "HQC102.*dtype"),
        (lambda x: torch.div(x, 2, rounding_mode="floor"), "HQC102.*rounding mode"),
    ],
)
def test_what_cannot_be_translated(function: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(HqcError, match=message):
        from_module(Call(function), torch.zeros(2, 4, 10))
