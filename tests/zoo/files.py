"""Models as other tools' quantisers leave them: onnxruntime, PT2E, HAWQ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import SHARED
from support import quantised_models as tools
from support.qcdq_graphs import onnxruntime_on

from hqc.ir import Array
from zoo.hawq_digits import Digits
from zoo.source import Source


def onnxruntime_cnn(folder: Path) -> Source:
    """A CNN from `quantize_static`: uint8 activations with zero points, weights per channel."""
    path = tools.static("cnn", folder, "QDQ", "QUInt8", "QInt8", True)
    proto = onnx.load(path)

    def floats(x: Array) -> Array:
        return onnxruntime_on(proto, {"x": np.float32(x)})[0]

    return Source(path, floats, samples=tools.samples("cnn", 64, seed=2))


def pt2e_mlp(folder: Path) -> Source:
    """An MLP from PT2E with the x86 quantiser: uint8 activations, weights per channel."""
    return _pt2e("mlp", "x86", folder)


def pt2e_cnn(folder: Path) -> Source:
    """A CNN from PT2E with the XNNPACK quantiser, weights per channel."""
    return _pt2e("cnn", "xnnpack per channel", folder)


def _pt2e(kind: str, quantizer: str, folder: Path) -> Source:
    module = tools.pt2e(kind, quantizer)
    example = torch.zeros(4, *tools.SHAPES[kind])
    batch = ({0: torch.export.Dim("batch")},)
    path = folder / "program.pt2"
    torch.export.save(torch.export.export(module, (example,), dynamic_shapes=batch), path)

    def floats(x: Array) -> Array:
        with torch.no_grad():
            return np.asarray(module(torch.tensor(np.float32(x))))

    return Source(path, floats, samples=tools.samples(kind, 64, seed=2))


def hawq_resconv(folder: Path) -> Source:
    """A HAWQ checkpoint: residual CNN on digits, 6-bit weights per channel, 8-bit activations."""
    path = SHARED / "models" / "hawq_digits_resconv_w6a8.pt"
    if not path.is_file():
        pytest.skip("the HAWQ checkpoints are not present beside the repository")
    data = np.load(path.with_name(f"{path.stem}_io.npz"))
    return Source(path, keywords={"hawq_model": Digits()}, samples=np.float32(data["x"][:64]))
