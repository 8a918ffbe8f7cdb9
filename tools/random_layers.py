"""Random layers of each kind, for fitting and testing what predicts their cost."""

from __future__ import annotations

import numpy as np

from hqc.backends.layers import (
    Activation,
    Constant,
    Dense,
    Input,
    Layer,
    MaxPool,
    Merge,
    Network,
    Requantise,
    Sliding,
    Table,
    Threshold,
    accumulator,
)
from hqc.numerics.types import Codes, FixedType, Overflow, Range, Rounding

#: Kinds, and how many of each 104 layers are of it.
KINDS = {
    "dense": 50,
    "requantise": 18,
    "threshold": 8,
    "table": 8,
    "activation": 8,
    "merge": 4,
    "maxpool": 4,
    "multiply": 4,
}
#: Products of inputs, outputs and weight bits, beyond which synthesis takes minutes.
_MOST, _MOST_SOLVED = 9000, 20000
_ROUNDINGS = (Rounding.FLOOR, Rounding.ROUND, Rounding.HALF_UP)


def random_network(kind: str, seed: int) -> Network:
    """An input port and one layer that reads it (two of them for most merges).

    Args:
        kind: one of `KINDS`.
        seed: of all choices.
    """
    rng = np.random.default_rng([list(KINDS).index(kind), seed])
    inputs, layer = _MAKERS[kind](rng)
    return Network((*inputs, layer), tuple(i.name for i in inputs), (layer.name,))


def random_matrix(seed: int) -> Network:
    """An input port and a dense layer without bias, larger ones among them: for a solver alone."""
    rng = np.random.default_rng([77, seed])
    while True:
        n_in, n_out, bits = _between(rng, 3, 96), _between(rng, 1, 64), _pick(rng, 2, 8)
        if n_in * n_out * bits <= _MOST_SOLVED:
            break
    width, signed = _pick(rng, 1, 10), bool(rng.integers(2))
    x = Input("x", (), (n_in,), FixedType(signed, width, width))
    weight = Constant(_weights(rng, (n_in, n_out), bits), FixedType(True, bits, bits))
    bias = Constant(np.zeros(n_out, np.int64), FixedType(False, 1, 1))
    accum = accumulator(x.result.limits, weight, bias)
    y = Dense("y", ("x",), (n_out,), accum, weight=weight, bias=bias, accum=accum)
    return Network((x, y), ("x",), ("y",))


def _port(rng: np.random.Generator, size: int, bits: int, name: str = "x") -> Input:
    signed = bool(rng.integers(2))
    return Input(name, (), (size,), FixedType(signed, bits, bits))


def _between(rng: np.random.Generator, low: int, high: int) -> int:
    """A number, evenly spread over the logarithm."""
    return round(float(np.exp(rng.uniform(np.log(low), np.log(high)))))


def _pick(rng: np.random.Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high, endpoint=True))


# --- kinds ----------------------------------------------------------------------------------


def _dense(rng: np.random.Generator) -> tuple[list[Input], Layer]:
    while True:
        n_in, n_out, bits = _between(rng, 4, 64), _between(rng, 1, 64), _pick(rng, 2, 8)
        if n_in * n_out * bits <= _MOST:
            break
    x = _port(rng, n_in, _pick(rng, 2, 10))
    codes = _weights(rng, (n_in, n_out), bits)
    weight = Constant(codes, FixedType(True, bits, bits))
    reach = max(1, int(np.abs(codes).sum(axis=0).max()))
    bias = rng.integers(-reach, reach, n_out, endpoint=True) * int(rng.random() < 0.7)
    held = Constant(bias, Range(int(bias.min()), int(bias.max())).fit())
    accum = accumulator(x.result.limits, weight, held)
    layer = Dense("y", ("x",), (n_out,), accum, weight=weight, bias=held, accum=accum)
    return [x], layer


def _weights(rng: np.random.Generator, shape: tuple[int, int], bits: int) -> Codes:
    most = (1 << (bits - 1)) - 1
    match _pick(rng, 0, 3):
        case 0:
            codes = rng.integers(-most, most, shape, endpoint=True)
        case 1:
            codes = np.rint(rng.normal(0, most / rng.uniform(2, 4), shape)).astype(np.int64)
        case 2:
            codes = np.rint(rng.laplace(0, most / rng.uniform(3, 8), shape)).astype(np.int64)
        case _:
            codes = rng.choice([-1, 1], shape) if rng.random() < 0.5 else rng.integers(-1, 2, shape)
    codes = np.clip(codes, -most, most)
    codes[rng.random(shape) < rng.choice([0, 0, 0.3, 0.5, 0.8])] = 0
    return codes.astype(np.int64)


def _requantise(rng: np.random.Generator) -> tuple[list[Input], Layer]:
    n = _between(rng, 1, 32)
    width = _pick(rng, 8, 20)
    x = Input("x", (), (n,), FixedType(True, width, width))
    result = _assigned(rng, _pick(rng, 2, 10))
    if rng.random() < 0.25:
        scale, fraction = np.ones(1, np.int64), width - result.width + _pick(rng, -2, 2)
    else:
        bits = _pick(rng, 8, 29)
        wide = rng.uniform(0.5, 1, n if rng.random() < 0.5 else 1)
        scale = np.rint(wide * 2.0**bits).astype(np.int64)
        fraction = bits + width - result.width + _pick(rng, -2, 2)
    scales = Constant(scale, FixedType(False, int(scale.max()).bit_length(), 0))
    scales = Constant(scale, FixedType(False, scales.type.width, scales.type.width - fraction))
    bias = rng.integers(-(1 << result.width), 1 << result.width, n)
    finer = min(_pick(rng, 0, 8), fraction) if fraction > 0 else 0
    bias = (bias << finer) + rng.integers(0, 1 << finer, n)
    held = Constant(bias, Range(int(bias.min()), int(bias.max()), -finer).fit())
    layer = Requantise("y", ("x",), (n,), result, scale=scales, bias=held)
    return [x], layer


def _assigned(rng: np.random.Generator, bits: int, fraction: int = 0) -> FixedType:
    signed = bool(rng.random() < 0.3)
    rounding = _ROUNDINGS[_pick(rng, 0, 2)]
    return FixedType(signed, bits + signed, bits + signed - fraction, rounding, Overflow.SAT)


def _threshold(rng: np.random.Generator) -> tuple[list[Input], Layer]:
    n, width = _between(rng, 1, 32), _pick(rng, 5, 16)
    bits = _pick(rng, 1, 4)
    x = Input("x", (), (n,), FixedType(True, width, width))
    span = 1 << (width - 1)
    rows = 1 if rng.random() < 0.3 else n
    if rng.random() < 0.5:  # evenly spaced, as a uniform quantiser's
        step, start = (
            rng.uniform(0.3, 1.5, rows) * span / (1 << bits),
            rng.normal(0, span / 4, rows),
        )
        levels = np.arange((1 << bits) - 1)
        codes = np.rint(start[:, None] + step[:, None] * levels).astype(np.int64)
    else:
        codes = np.sort(rng.integers(-span, span, (rows, (1 << bits) - 1)), axis=1)
    held = Constant(codes, Range(int(codes.min()), int(codes.max())).fit())
    layer = Threshold("y", ("x",), (n,), FixedType(False, bits, bits), thresholds=held, bias=0)
    return [x], layer


def _table(rng: np.random.Generator) -> tuple[list[Input], Layer]:
    n, width, out = _between(rng, 1, 8), _pick(rng, 4, 10), _pick(rng, 2, 12)
    x = _port(rng, n, width)
    limits = x.result.limits
    codes = np.arange(limits.lo, limits.hi + 1) / (1 << width)
    rows = 1 if rng.random() < 0.7 else n
    top = (1 << out) - 1
    shift = rng.uniform(-0.5, 0.5, (rows, 1))
    match _pick(rng, 0, 3):
        case 0:
            real = 1 / (1 + np.exp(-rng.uniform(3, 12) * (codes - shift)))
        case 1:
            real = (np.tanh(rng.uniform(2, 6) * (codes - shift)) + 1) / 2
        case 2:
            real = np.exp(-rng.uniform(2, 10) * (codes - shift) ** 2)
        case _:
            real = rng.random((rows, len(codes)))
    table = np.rint(real * top).astype(np.int64)
    type_ = FixedType(False, out, out)
    one = Constant(np.ones(1, np.int64), FixedType(False, 1, 1))
    table_ = Constant(table, type_)
    layer = Table("y", ("x",), (n,), type_, table=table_, step=one, first=limits.lo)
    return [x], layer


def _activation(rng: np.random.Generator) -> tuple[list[Input], Layer]:
    n, width, bits = _between(rng, 4, 64), _pick(rng, 5, 20), _pick(rng, 2, 10)
    x = Input("x", (), (n,), FixedType(True, width, width))
    result = _assigned(rng, bits, fraction=-max(0, width - bits - _pick(rng, 0, 3)))
    relu = not result.signed
    layer = Activation("y", ("x",), (n,), result, function="relu" if relu else "cast")
    return [x], layer


def _merge(rng: np.random.Generator) -> tuple[list[Input], Layer]:
    n, left, right = _between(rng, 4, 32), _pick(rng, 3, 12), _pick(rng, 3, 12)
    return _merged(rng, n, left, right, bool(rng.random() < 0.4))


def _multiply(rng: np.random.Generator) -> tuple[list[Input], Layer]:
    return _merged(rng, _pick(rng, 1, 6), _pick(rng, 2, 10), _pick(rng, 2, 10), True)


def _merged(
    rng: np.random.Generator, n: int, left: int, right: int, product: bool
) -> tuple[list[Input], Layer]:
    if product:
        n = min(n, 8)
    x, y = _port(rng, n, left), _port(rng, n, right, "z")
    r, s = x.result.limits, y.result.limits
    exact = (r * s if product else r + s).fit()
    result = exact if rng.random() < 0.5 else _assigned(rng, max(2, exact.width - 3))
    function = "multiply" if product else "add"
    layer = Merge("y", ("x", "z"), (n,), result, function=function)  # type: ignore[arg-type]
    return [x, y], layer


def _maxpool(rng: np.random.Generator) -> tuple[list[Input], Layer]:
    channels, taps, bits = _between(rng, 1, 16), _pick(rng, 2, 9), _pick(rng, 2, 10)
    type_ = FixedType(bool(rng.integers(2)), bits, bits)
    x = Input("x", (), (1, taps, channels), type_)
    sliding = Sliding((1, taps), (1, 1), (1, taps), (1, 1), (1, 1), (0, 0))
    pool = MaxPool("y", ("x",), (1, 1, channels), type_, sliding=sliding, channels=channels)
    return [x], pool


_MAKERS = {
    "dense": _dense,
    "requantise": _requantise,
    "threshold": _threshold,
    "table": _table,
    "activation": _activation,
    "merge": _merge,
    "maxpool": _maxpool,
    "multiply": _multiply,
}
