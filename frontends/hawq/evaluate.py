"""A HAWQ network evaluated as HAWQ does it, in numpy: the codes of every activation, the output.

Sums are taken in integers. HAWQ's own are float32 sums of integers, which are the same while they
stay below 2**24.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hqc.frontends.hawq import fixed_point as fp
from hqc.frontends.hawq.fixed_point import Array, Single
from hqc.frontends.hawq.network import Network, Step
from hqc.numerics.types import Codes


@dataclass(frozen=True)
class Evaluation:
    """What a network computes: `codes` by name of the activation, and the float32 output."""

    codes: dict[str, Codes]
    output: Single


def evaluate(network: Network, x: Array) -> Evaluation:
    """Run a network on float32 inputs (N, ...)."""
    found: dict[str, Codes] = {}
    values: list[Single] = []
    for step in network.steps:
        values.append(_step(network, step, [values[i] for i in step.sources], found, x))
    return Evaluation(found, values[-1])


def _step(
    network: Network, step: Step, given: list[Single], codes: dict[str, Codes], x: Array
) -> Single:
    if step.op == "input":
        return np.asarray(x, np.float32)
    if step.op == "act":
        codes[step.name] = _activate(network, step, given)
        return _real(codes[step.name], network.activations[step.name].scale)
    if step.op in ("linear", "conv"):
        return _layer(network, step, given[0])
    if step.op == "relu":
        return np.maximum(given[0], np.float32(0))
    if step.op == "add":
        return np.asarray(given[0] + given[1], np.float32)
    if step.op == "flatten":
        return given[0].reshape(len(given[0]), -1)
    if step.op == "max_pool":
        return np.asarray(_windows(given[0], step, -np.inf).max(axis=(-2, -1)), np.float32)
    if step.op == "average_pool":
        assert step.scales is not None
        scale = network.activations[step.scales.pre].scale.reshape(())
        whole = np.rint(given[0] / scale)
        views = _windows(whole, step, 0.0) if step.window else whole[:, :, None, None]
        return _real(fp.average(views.mean(axis=(-2, -1))), scale)
    shifted = np.exp(given[0] - given[0].max(axis=1, keepdims=True))
    likely = shifted / shifted.sum(axis=1, keepdims=True)
    return np.asarray(likely if step.op == "softmax" else np.log(likely), np.float32)


def _real(codes: Codes, scale: Single) -> Single:
    return np.asarray(codes.astype(np.float32) * scale.reshape(()), np.float32)


def _activate(network: Network, step: Step, given: list[Single]) -> Codes:
    act = network.activations[step.name]
    if step.scales is None:
        return fp.quantise(given[0], act.scale.reshape(()), act.limits)
    pre, weight = (_along(s, given[0]) for s in network.scale_of(step.scales))
    to = act.scale.reshape(())
    if step.identity is None:
        return fp.requantise(given[0], pre, weight, to, act.limits)
    other = network.scale_of(step.identity)
    scales = _along(other[0], given[0]), _along(other[1], given[0])
    return fp.requantise_sum(given[0], given[1], (pre, weight), scales, to)


def _along(scale: Single, x: Single) -> Single:
    """A scale shaped to broadcast along axis 1."""
    return scale.reshape(1, -1, *(1,) * (x.ndim - 2))


def _layer(network: Network, step: Step, x: Single) -> Single:
    assert step.scales is not None
    layer = network.layers[step.name]
    pre = network.activations[step.scales.pre].scale
    whole = np.rint(x / pre.reshape(()))
    weight, bias = layer.weight_codes, layer.bias_codes(pre)
    if step.op == "linear":
        sums = whole.astype(np.float64) @ weight.T.astype(np.float64)
    else:
        sums = convolve(whole.astype(np.float64), weight, step)
    sums = sums + bias.reshape(1, -1, *(1,) * (x.ndim - 2))
    return np.asarray(sums.astype(np.float32) * _along(layer.sum_scale(pre), sums), np.float32)


def convolve(x: Array, weight: Codes, step: Step) -> Array:
    """Sums (N, out, rows, columns) of integers (N, in, ...) under weights (out, in/groups, ...)."""
    windows = _windows(x, step, 0.0)
    out, each = len(weight) // step.groups, weight.shape[1]
    parts = [
        np.einsum(
            "nchwij,ocij->nohw",
            windows[:, g * each : (g + 1) * each],
            weight[g * out : (g + 1) * out].astype(np.float64),
            optimize=True,
        )
        for g in range(step.groups)
    ]
    return np.concatenate(parts, axis=1)


def _windows(x: Array, step: Step, fill: float) -> Array:
    """Views (N, C, rows, columns, kernel rows, kernel columns) of padded images."""
    (ph, pw), (sh, sw), (dh, dw) = (step.window[k] for k in ("padding", "stride", "dilation"))
    kh, kw = step.window["kernel"]
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=fill)
    size = (kh - 1) * dh + 1, (kw - 1) * dw + 1
    views = np.lib.stride_tricks.sliding_window_view(padded, size, axis=(2, 3))
    return np.asarray(views[:, :, ::sh, ::sw, ::dh, ::dw])
