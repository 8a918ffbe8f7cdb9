"""Networks of single layers for the tests of logic, and inputs that reach their corners."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hqc.backends.layers import (
    Activation,
    Constant,
    Conv,
    Dense,
    Input,
    Layer,
    MaxPool,
    Merge,
    Network,
    Rearrange,
    Requantise,
    Sliding,
    Table,
    Threshold,
    evaluate,
)
from hqc.backends.rtl.design import Design, run
from hqc.numerics.types import Codes, FixedType, Overflow, Rounding

Random = np.random.Generator


def type_of(rng: Random, bits: tuple[int, int] = (1, 8)) -> FixedType:
    """Any type: every rounding mode, every overflow mode, fractions of either sign."""
    signed = bool(rng.integers(2))
    width = int(rng.integers(bits[0] + signed, bits[1] + 1))
    overflows = list(Overflow) if signed else [Overflow.SAT, Overflow.WRAP]
    rounding = list(Rounding)[rng.integers(len(Rounding))]
    overflow = overflows[rng.integers(len(overflows))]
    return FixedType(signed, width, int(rng.integers(-3, width + 4)), rounding, overflow)


def constant(rng: Random, shape: tuple[int, ...], bits: int = 5) -> Constant:
    width = int(rng.integers(2, bits + 1))
    type_ = FixedType(True, width, int(rng.integers(-2, width + 3)))
    codes = rng.integers(type_.limits.lo, type_.limits.hi, shape, endpoint=True)
    codes[rng.random(shape) < rng.choice([0.0, 0.4])] = 0
    if len(shape) > 1 and rng.random() < 0.3:  # columns that are equal but for a factor
        codes[..., -1] = codes[..., 0] // 2
    return Constant(codes, type_)


def networks(kind: str, seed: int) -> Network:
    """A network of one layer of a kind behind its inputs, the layer called "y"."""
    rng = np.random.default_rng(seed)
    sources, layer = _MAKE[kind](rng)
    inputs = tuple(x.name for x in sources)
    return Network((*sources, layer), inputs, (layer.name,))


def _input(rng: Random, shape: tuple[int, ...], name: str = "x", bits: int = 7) -> Input:
    return Input(name, (), shape, type_of(rng, (1, bits)).exact())


def _dense(rng: Random) -> tuple[list[Layer], Layer]:
    n_in, n_out = (int(n) for n in rng.integers(1, 9, 2))
    weight, bias = constant(rng, (n_in, n_out)), constant(rng, (n_out,), 7)
    result = type_of(rng, (1, 14))
    given = {"weight": weight, "bias": bias, "accum": result}
    return [_input(rng, (n_in,))], Dense("y", ("x",), (n_out,), result, **given)


def _sliding(rng: Random, padded: bool = True) -> Sliding:
    size, kernel, strides, dilations = (
        tuple(int(n) for n in rng.integers(1, most + 1, 2)) for most in (6, 3, 2, 2)
    )
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    before = tuple(int(rng.integers(0, r)) if padded else 0 for r in reach)
    after = [int(rng.integers(0, r)) for r in reach]
    axes = zip(size, before, after, reach, strides, strict=True)
    windows = tuple(max(1, (n + b + a - r) // s + 1) for n, b, a, r, s in axes)
    return Sliding(size, windows, kernel, strides, dilations, before)


def _conv(rng: Random) -> tuple[list[Layer], Layer]:
    sliding, group = _sliding(rng), int(rng.integers(1, 4))
    n_in, n_out = (int(n) for n in rng.integers(1, 3, 2))
    weight = constant(rng, (*sliding.kernel, n_in, n_out * group), 4)
    bias, result = constant(rng, (n_out * group,), 6), type_of(rng, (1, 12))
    given = {"weight": weight, "bias": bias, "accum": result, "sliding": sliding, "group": group}
    shape = (*sliding.windows, n_out * group)
    return [_input(rng, (*sliding.size, n_in * group))], Conv("y", ("x",), shape, result, **given)


def _max_pool(rng: Random) -> tuple[list[Layer], Layer]:
    while True:
        sliding, channels = _sliding(rng), int(rng.integers(1, 4))
        probe = np.zeros((1, *sliding.size, 1), np.int64)
        lowest = np.iinfo(np.int64).min
        if np.all(evaluate._windows(probe, sliding, lowest).max(axis=2) == 0):
            break  # no window lies in the padding
    shape = (*sliding.windows, channels)
    layer = MaxPool("y", ("x",), shape, type_of(rng), sliding=sliding, channels=channels)
    return [_input(rng, (*sliding.size, channels))], layer


def _shape(rng: Random) -> tuple[int, ...]:
    return tuple(int(n) for n in rng.integers(1, 4, int(rng.integers(1, 4))))


def _rows(rng: Random, shape: tuple[int, ...]) -> int:
    """One constant for all, one per channel, or one per element."""
    return int(rng.choice([1, shape[-1], int(np.prod(shape))]))


def _requantise(rng: Random) -> tuple[list[Layer], Layer]:
    shape = _shape(rng)
    count = _rows(rng, shape)
    scale, bias = constant(rng, (count,), 12), constant(rng, (count,), 12)
    result = type_of(rng, (1, 10))
    layer = Requantise("y", ("x",), shape, result, scale=scale, bias=bias)
    return [_input(rng, shape, bits=11)], layer


def _activation(rng: Random) -> tuple[list[Layer], Layer]:
    shape, function = _shape(rng), ("relu", "cast")[rng.integers(2)]
    layer = Activation("y", ("x",), shape, type_of(rng), function=function)  # type: ignore[arg-type]
    return [_input(rng, shape)], layer


def _threshold(rng: Random) -> tuple[list[Layer], Layer]:
    shape = _shape(rng)
    rows, count = _rows(rng, shape), int(rng.choice([1, 3, 15, 40]))
    x = _input(rng, shape, bits=9)
    type_ = FixedType(True, 9, 9 - x.result.fraction - int(rng.integers(-2, 3)))
    codes = np.sort(rng.integers(-256, 256, (rows, count)), axis=1)
    bias, result = int(rng.integers(-20, 20)), type_of(rng, (2, 8))
    return [x], Threshold("y", ("x",), shape, result, thresholds=Constant(codes, type_), bias=bias)


def _table(rng: Random) -> tuple[list[Layer], Layer]:
    shape = _shape(rng)
    rows, x = _rows(rng, shape), _input(rng, shape)
    limits = x.result.limits
    entries = constant(rng, (rows, limits.hi - limits.lo + 1), 8)
    step = Constant(np.ones(1, np.int64), FixedType(False, 1, 1 + x.result.fraction))
    return [x], Table("y", ("x",), shape, type_of(rng), table=entries, step=step, first=limits.lo)


def _merge(rng: Random) -> tuple[list[Layer], Layer]:
    shape, function = _shape(rng), ("add", "multiply")[rng.integers(2)]
    inputs: list[Layer] = [_input(rng, shape), _input(rng, shape, "z")]
    names = ("x", "z") if rng.random() < 0.8 else ("x", "x")
    layer = Merge("y", names, shape, type_of(rng, (1, 14)), function=function)  # type: ignore[arg-type]
    return inputs, layer


def _rearrange(rng: Random) -> tuple[list[Layer], Layer]:
    inputs: list[Layer] = [_input(rng, _shape(rng), name) for name in ("x", "z")]
    names = [("x",), ("x", "z"), ("z", "z")][rng.integers(3)]
    sizes = tuple(next(x.size for x in inputs if x.name == name) for name in names)
    result = type_of(rng) if rng.random() < 0.5 else inputs[0].result
    index = rng.integers(-1, sum(sizes), int(rng.integers(1, 12)))
    fill = int(rng.integers(result.limits.lo, result.limits.hi, endpoint=True))
    given: dict[str, Any] = {"sizes": sizes, "index": index, "fill": fill}
    return inputs, Rearrange("y", names, (len(index),), result, **given)


_MAKE: dict[str, Callable[[Random], tuple[list[Layer], Layer]]] = {
    "dense": _dense,
    "conv": _conv,
    "maxpool": _max_pool,
    "requantise": _requantise,
    "activation": _activation,
    "threshold": _threshold,
    "table": _table,
    "merge": _merge,
    "rearrange": _rearrange,
}
KINDS = tuple(_MAKE)


def samples(network: Network, count: int, seed: int = 0) -> dict[str, Codes]:
    """Random codes, then codes near the lower and the upper ends, for each input."""
    rng = np.random.default_rng(seed)
    found = {}
    for name in network.inputs:
        layer = network.layer(name)
        lo, hi = layer.result.limits.lo, layer.result.limits.hi
        x = rng.integers(lo, hi, (count, *layer.shape), endpoint=True)
        third = count // 3
        ends = np.array([lo, hi, min(lo + 1, hi), max(hi - 1, lo), min(max(0, lo), hi)])
        x[:third] = rng.choice(ends, x[:third].shape)
        x[0], x[1] = lo, hi
        found[name] = x
    return found


def assert_computes(design: Design, network: Network, inputs: Mapping[str, Codes]) -> None:
    """Each layer's codes by logic and by definition, with ==, within the bounds of the blocks."""
    got, want = run(design, inputs), evaluate.run(network, inputs)
    for layer in network.layers:
        expected = want[layer.name].reshape(len(got[layer.name]), -1)
        assert np.array_equal(got[layer.name], expected), layer.name
    for block in design.blocks:
        limits, bus = block.type.limits, block.bus.limits
        for bounds in block.ranges:
            assert limits.lo <= bounds.lo <= bounds.hi <= limits.hi, block.name
            assert bus.lo <= bounds.lo <= bounds.hi <= bus.hi, block.name
