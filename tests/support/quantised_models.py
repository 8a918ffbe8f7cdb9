"""Small networks quantised by the tools that people use, as fixtures for whole-model tests."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

SHAPES = {"mlp": (16,), "cnn": (1, 8, 8)}


class Cnn(nn.Module):
    """Digits of 8 by 8 pixels to ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 8, 3, padding=1)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc(x.flatten(1))


def network(kind: str) -> nn.Module:
    """A float network with random weights, the same ones each time."""
    torch.manual_seed(3)
    if kind == "cnn":
        return Cnn().eval()
    layers = (nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 5))
    return nn.Sequential(*layers).eval()


def samples(kind: str, count: int, seed: int = 0) -> np.ndarray:
    """Normally distributed inputs."""
    return np.random.default_rng(seed).normal(size=(count, *SHAPES[kind])).astype(np.float32)


def onnx_file(kind: str, folder: Path) -> Path:
    """A float network as ONNX."""
    path = folder / f"{kind}.onnx"
    axes = {"x": {0: "N"}, "y": {0: "N"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network(kind),
            (torch.zeros(2, *SHAPES[kind]),),
            str(path),
            input_names=["x"],
            output_names=["y"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    return path


def static(kind: str, folder: Path, form: str, activations: str, weights: str, wide: bool) -> Path:
    """A network quantised by onnxruntime's `quantize_static`."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(np.split(samples(kind, 128), 8))

        def get_next(self) -> Any:
            batch = next(self._batches, None)
            return None if batch is None else {"x": batch}

    path = folder / f"{kind}_{form}_{activations}_{weights}_{wide}.onnx"
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises to preprocess
    try:
        quantization.quantize_static(
            onnx_file(kind, folder),
            path,
            Reader(),
            quant_format=quantization.QuantFormat[form],
            activation_type=quantization.QuantType[activations],
            weight_type=quantization.QuantType[weights],
            per_channel=wide,
        )
    finally:
        logging.disable(before)
    return path


def pt2e(kind: str, quantizer: str) -> Any:
    """A program quantised by torchao's PT2E flow, with uint8 or int8 activations."""
    pytest.importorskip("torchao")
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    example = torch.zeros(4, *SHAPES[kind])
    batch = ({0: torch.export.Dim("batch")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(network(kind), (example,), dynamic_shapes=batch)
        prepared = prepare_pt2e(program.module(), _quantizer(quantizer))
        for part in np.split(samples(kind, 128), 2):
            prepared(torch.tensor(part))
        return convert_pt2e(prepared)


def _quantizer(name: str) -> Any:
    if name == "x86":
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        config = x86.get_default_x86_inductor_quantization_config()
        return x86.X86InductorQuantizer().set_global(config)
    from torchao.testing.pt2e import _xnnpack_quantizer as xnnpack

    wide = name == "xnnpack per channel"
    config = xnnpack.get_symmetric_quantization_config(is_per_channel=wide)
    return xnnpack.XNNPACKQuantizer().set_global(config)


def brevitas_module(kind: str) -> nn.Module:
    """Brevitas layers of several widths, zero points and granularities, calibrated."""
    qnn = pytest.importorskip("brevitas.nn")
    quant = pytest.importorskip("brevitas.quant")

    torch.manual_seed(5)
    options: dict[str, Any] = {"bias": True, "bias_quant": quant.Int32Bias}
    layers: list[nn.Module] = [qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)]
    width = 16
    if kind == "cnn":
        per_channel = quant.Int8WeightPerChannelFloat
        layers += [
            qnn.QuantConv2d(
                1, 4, 3, padding=1, weight_bit_width=4, weight_quant=per_channel, **options
            ),
            qnn.QuantReLU(bit_width=4, return_quant_tensor=True),
            nn.MaxPool2d(4),
            nn.Flatten(),
        ]
    layers += [
        qnn.QuantLinear(width, 12, weight_bit_width=3, **options),
        qnn.QuantReLU(
            bit_width=6, act_quant=quant.ShiftedUint8ActPerTensorFloat, return_quant_tensor=True
        ),
        qnn.QuantLinear(
            12, 5, weight_bit_width=5, weight_quant=quant.ShiftedUint8WeightPerTensorFloat,
            **options,
        ),
        qnn.QuantIdentity(bit_width=8, act_quant=quant.ShiftedUint8ActPerTensorFloat),
    ]  # fmt: skip
    module = nn.Sequential(*layers)
    with torch.no_grad():
        for part in np.split(samples(kind, 320), 5):
            module(torch.tensor(part))
    return module.eval()


def brevitas_qcdq(kind: str, folder: Path) -> tuple[nn.Module, Path]:
    """A Brevitas module, and its QCDQ export."""
    pytest.importorskip("onnxoptimizer")
    module = brevitas_module(kind)
    from brevitas.export import export_onnx_qcdq

    path = folder / f"brevitas_{kind}.onnx"
    axes = {"x": {0: "N"}, "y": {0: "N"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx_qcdq(
            module,
            args=torch.zeros(2, *SHAPES[kind]),
            export_path=str(path),
            opset_version=17,
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes=axes,
        )
    return module, path


def forms() -> Iterator[tuple[str, str, str, bool]]:
    """Combinations of `quantize_static` that onnxruntime can run."""
    for form in ("QDQ", "QOperator"):
        for activations, weights in (("QUInt8", "QInt8"), ("QUInt8", "QUInt8"), ("QInt8", "QInt8")):
            yield form, activations, weights, False
            if weights == "QInt8":
                yield form, activations, weights, True
