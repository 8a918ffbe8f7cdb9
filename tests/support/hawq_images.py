"""Small convolutional HAWQ state dicts with their ground truth, from torch's float operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hqc.frontends.hawq.modules import (
    QuantAct,
    QuantAveragePool2d,
    QuantBnConv2d,
    QuantConv2d,
    QuantLinear,
    QuantMaxPool2d,
)
from support.hawq_models import F32, Truth, dyadic

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Design:
    """What a random network looks like.

    Attributes:
        pool: "average", "max", "global" or "none", behind the second activation.
        residual: "none"; "plain", requantised as it is; "rectified" before; "strided", whose
            identity is a convolution.
        stride, padding, dilation: of the first convolution.
        groups: of the second; 4 is depthwise.
    """

    pool: str = "average"
    residual: str = "none"
    stride: int = 1
    padding: int = 1
    dilation: int = 1
    groups: int = 1
    per_channel: bool = True
    symmetric: bool = True
    pool_padding: int = 0
    side: int = 6


class Net(nn.Module):
    """The class that a user of HAWQ writes for a design."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        d = self.design = design
        self.input_shape = (2, d.side, d.side)
        mode = "symmetric" if d.symmetric else "asymmetric"
        self.quant_input, self.quant_act_1 = QuantAct(8), QuantAct(6, quant_mode=mode)
        self.quant_act_2 = QuantAct(6, quant_mode="symmetric")
        options = {"weight_bit": 5, "bias_bit": 12, "per_channel": d.per_channel}
        self.conv1 = QuantBnConv2d(**options)
        first = nn.Conv2d(2, 4, 3, d.stride, d.padding, d.dilation, bias=False)
        self.conv1.set_param(first, nn.BatchNorm2d(4))
        self.conv2 = QuantConv2d(**options)
        self.conv2.set_param(nn.Conv2d(4, 4, 3, padding=1, groups=d.groups))
        if d.residual == "strided":
            self.conv3 = QuantConv2d(**options)
            self.conv3.set_param(nn.Conv2d(4, 4, 1))
        if d.pool == "max":
            self.pool = QuantMaxPool2d(2, 2, d.pool_padding)
        elif d.pool != "none":
            self.pool = QuantAveragePool2d(2, 2, d.pool_padding)
        if d.pool == "global":
            self.pool.set_param(nn.AdaptiveAvgPool2d(1))
        self.fc = QuantLinear(weight_bit=5, bias_bit=12)

    def forward(self, x: Tensor) -> Tensor:
        """Traced, never run."""
        x, s0 = self.quant_input(x)
        x, w1 = self.conv1(x, s0)
        x, s1 = self.quant_act_1(torch.relu(x), s0, w1)
        y, w2 = self.conv2(x, s1)
        if self.design.residual == "none":
            y, s2 = self.quant_act_2(y, s1, w2)
        elif self.design.residual == "plain":
            y, s2 = self.quant_act_2(y + x, s1, w2, x, s1)
        elif self.design.residual == "rectified":
            y, s2 = self.quant_act_2(torch.relu(y + x), s1, w2, x, s1)
        else:
            z, w3 = self.conv3(x, s1)
            y, s2 = self.quant_act_2(torch.relu(y + z), s1, w2, z, s1, w3)
        if self.design.pool != "none":
            y, s2 = self.pool(y, s2)
        return self.fc(y.view(y.size(0), -1), s2)


class _Maker:
    """Runs a design as the original does in eval mode, and keeps what its state dict would."""

    def __init__(self, design: Design, seed: int) -> None:
        self.design = design
        self.rng = np.random.default_rng(seed)
        self.state: dict[str, Array] = {}
        self.codes: dict[str, Array] = {}

    def layer(self, name: str, x: Any, pre: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
        """Real sums and the scale of the weights (out,)."""
        w = self.rng.normal(0, 0.5, shape).astype(F32)
        b = self.rng.normal(0, 0.3, shape[0]).astype(F32)
        if name == "conv1":
            w, b = self._batch_norm(name, w)
        else:
            self.state[f"{name}.weight"], self.state[f"{name}.bias"] = w, b
        rows = np.abs(w.reshape(shape[0], -1))
        each = self.design.per_channel and name != "fc"
        span = rows.max(axis=1) if each else rows.max().reshape(1)
        sw = (span / F32(15)).astype(F32)
        along = (-1, *(1,) * (w.ndim - 1))
        wi = np.clip(np.rint((F32(1) / sw).reshape(along) * w), -16, 15)
        scale = (sw * pre).astype(F32)
        bi = np.clip(np.rint((F32(1) / scale) * b), -2048, 2047)
        kind = {"fc": "fc", "conv1": "convbn"}.get(name, "conv")
        self.state[f"{name}.{kind}_scaling_factor"] = sw
        self.state[f"{name}.weight_integer"] = wi.astype(F32)
        self.state[f"{name}.bias_integer"] = bi.astype(F32)
        sums = self._sums(name, torch.as_tensor(x).double(), torch.tensor(wi).double())
        sums = sums.numpy() + bi.reshape(1, -1, *(1,) * (sums.dim() - 2))
        z = sums.astype(F32) * scale.reshape(1, -1, *(1,) * (sums.ndim - 2))
        return z, np.broadcast_to(sw, shape[:1])

    def _sums(self, name: str, x: Tensor, w: Tensor) -> Tensor:
        d = self.design
        if name == "fc":
            return x.flatten(1) @ w.T
        if name == "conv1":
            return F.conv2d(x, w, None, d.stride, d.padding, d.dilation)
        return F.conv2d(x, w, None, 1, w.shape[-1] // 2, 1, d.groups if name == "conv2" else 1)

    def _batch_norm(self, name: str, w: Array) -> tuple[Array, Array]:
        n = len(w)
        norm = {
            "weight": self.rng.uniform(0.5, 1.5, n),
            "bias": self.rng.normal(0, 0.3, n),
            "running_mean": self.rng.normal(0, 0.3, n),
            "running_var": self.rng.uniform(0.5, 2, n),
        }
        parts = {key: value.astype(F32) for key, value in norm.items()}
        self.state |= {f"{name}.bn.{key}": value for key, value in parts.items()}
        self.state[f"{name}.conv.weight"] = w
        factor = parts["weight"] / np.sqrt(parts["running_var"] + F32(1e-5))
        shifted = (F32(0) - parts["running_mean"]) * factor + parts["bias"]
        return w * factor.reshape(-1, 1, 1, 1), shifted

    def act(self, name: str, low: Any, high: Any, levels: int) -> Any:
        """The scale of an activation, its buffers stored."""
        symmetric = name != "quant_act_1" or self.design.symmetric
        span = max(abs(low), abs(high)) if symmetric else high - low
        scale = F32(F32(span) / F32(levels))
        for key, value in (("x_min", low), ("x_max", high), ("act_scaling_factor", scale)):
            self.state[f"{name}.{key}"] = np.array([value], F32)
        return scale


def _rescaled(z: Array, pre: Any, weights: Array, to: Any) -> Array:
    """Each number rounded to its accumulator, times m / 2**e, rounded."""
    out = np.empty(z.shape, int)
    for c in range(z.shape[1]):
        weight = weights[c]
        m, e = dyadic(float(F32(float(pre) * float(weight))) / float(to))
        whole = np.rint(F32(1) * ((z[:, c] / pre).astype(F32) / weight)).astype(float)
        out[:, c] = [[[round(v * m / 2.0**e) for v in row] for row in image] for image in whole]
    return out


def images(design: Design, seed: int = 0, samples: int = 12) -> Truth:
    """A random network of a design, and what the original computes."""
    make = _Maker(design, seed)
    x = make.rng.normal(0, 1.5, (samples, 2, design.side, design.side)).astype(F32)
    s0 = make.act("quant_input", F32(-3.17), F32(3.9), 127)
    here = np.clip(np.rint((F32(1) / s0) * x), -128, 127)
    make.codes["quant_input"] = here.astype(int)
    z, w1 = make.layer("conv1", here, s0, (4, 2, 3, 3))
    z = np.maximum(z, F32(0))
    levels = 31 if design.symmetric else 63
    s1 = make.act("quant_act_1", F32(0), F32(z.max() * 0.8), levels)
    one = np.clip(_rescaled(z, s0, w1, s1), 0, levels)
    make.codes["quant_act_1"] = one
    y, w2 = make.layer("conv2", one, s1, (4, 4 // design.groups, 3, 3))
    two, s2 = _second(make, one, y, s1, w2)
    make.codes["quant_act_2"] = two
    pooled = _pooled(design, torch.tensor(two, dtype=torch.float32))
    out, _ = make.layer("fc", pooled, s2, (3, pooled[0].numel()))
    state = {key: torch.tensor(value) for key, value in make.state.items()}
    return Truth(state, x, make.codes, out)


def _second(make: _Maker, one: Array, y: Array, s1: Any, w2: Array) -> tuple[Array, Any]:
    design, ones = make.design, np.ones(4, F32)
    if design.residual == "none":
        s2 = make.act("quant_act_2", F32(y.min() * 0.7), F32(y.max() * 0.7), 31)
        return np.clip(_rescaled(y, s1, w2, s2), -32, 31), s2
    identity, w3 = one.astype(F32) * s1, ones
    if design.residual == "strided":
        identity, w3 = make.layer("conv3", one, s1, (4, 4, 1, 1))
    total = (y + identity).astype(F32)
    if design.residual != "plain":
        total = np.maximum(total, F32(0))
    s2 = make.act("quant_act_2", F32(total.min() * 0.7), F32(total.max() * 0.7), 31)
    main = (total - identity).astype(F32)
    return _rescaled(identity, s1, w3, s2) + _rescaled(main, s1, w2, s2), s2


def _pooled(design: Design, codes: Tensor) -> Tensor:
    if design.pool == "none":
        return codes
    if design.pool == "max":
        return F.max_pool2d(codes, 2, 2, design.pool_padding)
    mean = codes.mean((2, 3)) if design.pool == "global" else None
    if mean is None:
        mean = F.avg_pool2d(codes, 2, 2, design.pool_padding)
    return torch.trunc(mean + 0.01)
