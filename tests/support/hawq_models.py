"""Small HAWQ state dicts with their ground truth, by a plain loop over numbers: no hqc in here."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import torch

F32 = np.float32


@dataclass(frozen=True)
class Truth:
    """A state dict, inputs, and what HAWQ computes."""

    state: dict[str, torch.Tensor]
    x: np.ndarray[Any, Any]
    codes: dict[str, np.ndarray[Any, Any]]
    output: np.ndarray[Any, Any]


def dyadic(ratio: float) -> tuple[int, int]:
    """HAWQ's mantissa and exponent of a ratio, through decimal arithmetic."""
    m, e = np.frexp(ratio)
    return int(Decimal(float(m) * 2**31).quantize(Decimal(1), rounding=ROUND_HALF_UP)), 31 - int(e)


def mlp(
    sizes: tuple[int, ...] = (5, 7, 6, 3),
    *,
    weight_bits: int = 5,
    bias_bits: int = 6,
    act_bits: int = 7,
    input_bits: int = 8,
    symmetric: bool = True,
    per_channel: bool = False,
    tell_weight: bool = False,
    seed: int = 0,
    samples: int = 200,
) -> Truth:
    """A random MLP as the original computes it in eval mode, one scalar operation at a time."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1.5, (samples, sizes[0])).astype(F32)
    state: dict[str, np.ndarray[Any, Any]] = {}
    top = (1 << (input_bits - 1)) - 1
    low, high = F32(-3.17), F32(3.9)
    scale = F32(max(abs(low), abs(high)) / F32(top))
    _act(state, "quant_input", low, high, scale)
    codes = {"quant_input": np.clip(np.rint((F32(1) / scale) * x), -top - 1, top).astype(int)}
    here = codes["quant_input"]
    for i, (n_in, n_out) in enumerate(pairwise(sizes), 1):
        w = rng.normal(0, 0.5, (n_out, n_in)).astype(F32)
        b = rng.normal(0, 0.6, n_out).astype(F32)
        n = (1 << (weight_bits - 1)) - 1
        span = np.abs(w).max(axis=1) if per_channel else np.abs(w).max().reshape(1)
        sw = (span / F32(n)).astype(F32)
        wi = np.clip(np.rint((F32(1) / sw).reshape(-1, 1) * w), -n - 1, n)
        sums_scale = (sw * scale).astype(F32)
        nb = 1 << (bias_bits - 1)
        bi = np.clip(np.rint((F32(1) / sums_scale) * b), -nb, nb - 1)
        for key, value in (
            ("weight", w),
            ("bias", b),
            ("fc_scaling_factor", sw),
            ("weight_integer", wi.astype(F32)),
            ("bias_integer", bi.astype(F32)),
        ):
            state[f"dense_{i}.{key}"] = value
        z = (here @ wi.T.astype(int) + bi.astype(int)).astype(F32) * sums_scale
        if i == len(sizes) - 1:
            return Truth({k: torch.tensor(v) for k, v in state.items()}, x, codes, z)
        z = np.maximum(z, F32(0))
        high = F32(z.max() * 0.8)
        levels = (1 << (act_bits - 1)) - 1 if symmetric else (1 << act_bits) - 1
        to = F32(high / F32(levels))
        _act(state, f"quant_act_{i}", F32(0), high, to)
        here = _requantise(z, scale, sw if tell_weight else np.ones(1, F32), to, levels)
        codes[f"quant_act_{i}"] = here
        scale = to
    raise AssertionError


def _act(state: dict[str, Any], name: str, low: Any, high: Any, scale: Any) -> None:
    for key, value in (("x_min", low), ("x_max", high), ("act_scaling_factor", scale)):
        state[f"{name}.{key}"] = np.array([value], F32)
    for key in ("pre_weight_scaling_factor", "identity_weight_scaling_factor"):
        state[f"{name}.{key}"] = np.ones(1, F32)


def _requantise(z: Any, pre: Any, weights: Any, to: Any, levels: int) -> Any:
    out = np.empty(z.shape, int)
    for c in range(z.shape[1]):
        weight = weights[c if len(weights) > 1 else 0]
        m, e = dyadic(float(F32(float(pre) * float(weight))) / float(to))
        for row in range(len(z)):
            whole = float(np.rint(F32(F32(z[row, c] / pre) / weight)))
            out[row, c] = min(levels, max(0, round(whole * m / 2.0**e)))
    return out
