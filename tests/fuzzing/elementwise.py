"""What stands between a layer and its quantiser: constants, batch norm, activations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fuzzing.maker import Maker, Tensor


def between(m: Maker, x: Tensor) -> Tensor:
    """Up to three of them, in some order; the result is on no grid."""
    for _ in range(m.choose.pick(0, 1, 1, 2, 3)):
        x = _any(m, x)
    return x


def _any(m: Maker, x: Tensor) -> Tensor:
    kinds: list[Callable[[Maker, Tensor], Tensor]] = [_relu]
    kinds += [_batch_norm] * ("batch_norm" in m.features)
    kinds += [_constant] * 2 * ("constants" in m.features)
    kinds += [_bend] * 2 * ("bends" in m.features)
    kinds += [_curve] * ("curves" in m.features)
    return m.choose.pick(*kinds)(m, x)


def _relu(m: Maker, x: Tensor) -> Tensor:
    return m.op("Relu", x)


def _per_channel(m: Maker, x: Tensor, values: Callable[[Any], Any]) -> Any:
    """One number, or one per channel, in any shape that broadcasts so."""
    rank = len(x.shape)
    if m.choose.chance(0.5):
        return values(m.choose.pick((), (1,), (1,) * (rank + 1)))
    shape: tuple[int, ...] = (1, x.channels, *(1,) * (rank - 1))
    if m.choose.chance(0.3):
        shape = shape[1:]
    return values(shape)


def _constant(m: Maker, x: Tensor) -> Tensor:
    op = m.choose.pick("Add", "Mul", "Sub", "Div")
    rng = m.choose.rng()
    if op in ("Add", "Sub"):
        draw = lambda shape: rng.normal(0, x.size, shape)  # noqa: E731
    else:
        draw = lambda shape: rng.uniform(0.5, 2.0, shape)  # noqa: E731
    values = _per_channel(m, x, draw)
    style = m.choose.pick("dyadic", "free", "power", "negative")
    if style in ("dyadic", "power") and op in ("Add", "Sub"):
        values = np.round(np.asarray(values) * 16) / 16
    elif style == "power":
        values = 2.0 ** np.round(np.log2(values))
    elif style == "dyadic":
        values = np.round(np.asarray(values) * 4) / 4
    elif style == "negative":
        values = -np.asarray(values)
    constant = m.net.const(values)
    if op in ("Add", "Mul", "Sub") and m.choose.chance(0.25):
        return replace(x, name=m.net.op(op, constant, x.name), scale=None, grid=False)
    return m.op(op, x, constant)


def _batch_norm(m: Maker, x: Tensor) -> Tensor:
    rng, n = m.choose.rng(), x.channels
    gamma = rng.uniform(0.3, 1.5, n)
    if m.choose.chance(0.3):
        gamma *= rng.choice([-1, 1], n)
    if m.choose.chance(0.1):
        gamma[rng.integers(n)] = 0.0
    beta, mean = rng.normal(0, 1, n), rng.normal(0, x.size, n)
    variance = rng.uniform(0.3, 2.0, n) * x.size**2
    names = [m.net.const(v) for v in (gamma, beta, mean, variance)]
    epsilon = m.choose.pick(1e-5, 1e-3, 0.25)
    more = {} if epsilon == 1e-5 and m.choose.chance(0.5) else {"epsilon": epsilon}
    return replace(m.op("BatchNormalization", x, *names, **more), size=1.0)


def _bend(m: Maker, x: Tensor) -> Tensor:
    kind = m.choose.pick("Clip", "LeakyRelu", "PRelu", "Max", "Min", "Neg", "Relu")
    if kind == "Clip":
        low = m.net.const(-0.5 * x.size) if m.choose.chance(0.7) else ""
        high = [m.net.const(np.float32(x.size))] if not low or m.choose.chance(0.7) else []
        return m.op("Clip", x, low, *high)
    if kind == "LeakyRelu":
        return m.op("LeakyRelu", x, alpha=m.choose.pick(0.125, 0.01, 0.3))
    if kind == "PRelu":
        n = x.channels if m.choose.chance(0.6) else 1
        shape = (n, *(1,) * (len(x.shape) - 1))
        return m.op("PRelu", x, m.net.const(m.choose.rng().uniform(0.05, 1.5, shape)))
    if kind in ("Max", "Min"):
        return m.op(kind, x, m.net.const(m.choose.pick(0.0, 0.25, -0.7)))
    return m.op(kind, x)


def _curve(m: Maker, x: Tensor) -> Tensor:
    kind = m.choose.pick("Sigmoid", "Tanh", "HardSigmoid")
    more = {}
    if kind == "HardSigmoid" and m.choose.chance(0.5):
        more = {"alpha": m.choose.pick(0.25, 1 / 6), "beta": 0.5}
    return replace(m.op(kind, x, **more), size=min(1.0, x.size), curved=True)
