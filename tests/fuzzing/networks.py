"""Random quantised networks over the whole space of operators and quantisers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx

from fuzzing.choices import Choices
from fuzzing.elementwise import between
from fuzzing.layers import linear, pool, reduce
from fuzzing.maker import FEATURES, Maker, Tensor
from fuzzing.moves import flat, move

Block = Callable[[Maker, Tensor], Tensor]

#: Values with more elements are cut down before the next layer.
LARGE = 160


def network(choose: Choices, features: frozenset[str] = FEATURES) -> onnx.ModelProto:
    """A network of one to four blocks between quantised inputs and one or two outputs.

    Args:
        choose: where decisions come from.
        features: what may occur (of `FEATURES`).
    """
    m = Maker(choose, features)
    x = m.quantised_input()
    seen = [x]
    for _ in range(m.choose.between(1, 4)):
        x = _block(m, _small(m, x))
        seen.append(x)
    outputs = [_head(m, x)]
    if m.has("several_outputs", 0.2):
        other = m.choose.pick(*seen)
        outputs.append(_head(m, other) if m.choose.chance(0.5) else m.op("Identity", other))
    return m.proto(outputs)


def _small(m: Maker, x: Tensor) -> Tensor:
    """At most `LARGE` elements."""
    while x.elements > LARGE:
        axis = int(np.argmax(x.shape))
        size = max(1, x.shape[axis] // 2)
        bounds = [m.integers([v]) for v in (0, size, axis + 1)]
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        x = m.kept("Slice", x, *bounds, shape=shape)
    return x


def _block(m: Maker, x: Tensor) -> Tensor:
    features, rank = m.features, len(x.shape)
    kinds: list[Block] = [_layer] * 4
    if "movement" in features:
        kinds += [_moved] * 3
    if "pooling" in features and rank in (2, 3):
        kinds += [_pooled] * 2
    if "reduction" in features:
        kinds += [_reduced]
    if "merge" in features:
        kinds += [_merged] * 2
    if "residual" in features:
        kinds += [_residual]
    if "several_inputs" in features and len(m.net.inputs) < 3:
        kinds += [_second_input]
    if "shared" in features:
        kinds += [_requantised]
    return m.choose.pick(*kinds)(m, x)


def _layer(m: Maker, x: Tensor) -> Tensor:
    if x.scale is None and not m.choose.chance(0.2):  # scales per channel: rarely straight in
        x = m.uniform(x)
    if len(x.shape) > 1 and m.choose.chance(0.1):
        x = flat(m, x)
    if len(x.shape) > 3:
        x = flat(m, x)
    return m.quant(between(m, linear(m, x)))


def _moved(m: Maker, x: Tensor) -> Tensor:
    if m.choose.chance(0.2):  # in front of the quantiser, too
        out = move(m, between(m, x))
        return m.quant(out)
    return move(m, x)


def _pooled(m: Maker, x: Tensor) -> Tensor:
    if m.choose.chance(0.2):  # on a grid no more, and perhaps falling
        return m.quant(pool(m, between(m, x)))
    out = pool(m, x)
    return out if out.grid and m.choose.chance(0.5) else m.quant(between(m, out))


def _reduced(m: Maker, x: Tensor) -> Tensor:
    out = reduce(m, x)
    return out if out.grid and m.choose.chance(0.5) else m.quant(between(m, out))


def _requantised(m: Maker, x: Tensor) -> Tensor:
    return m.quant(between(m, x))


def _merged(m: Maker, x: Tensor) -> Tensor:
    """Two quantised forms of one value, added, subtracted, multiplied or joined."""
    one, two = m.quant(x), m.uniform(x, scale=x.scale if x.scale and m.choose.chance(0.4) else 0.0)
    return _together(m, one, two)


def _together(m: Maker, one: Tensor, two: Tensor) -> Tensor:
    op = m.choose.pick("Add", "Sub", "Mul", "Concat")
    if op == "Concat":
        axis = m.choose.integer(len(one.shape))
        shape = tuple(n * 2 if a == axis else n for a, n in enumerate(one.shape))
        same = one.scale is not None and one.scale == two.scale
        out = m.kept(
            "Concat",
            replace(one, scale=None if not same else one.scale),
            two.name,
            shape=shape,
            axis=axis + 1,
        )
        return out if same else m.quant(out)
    out = m.op(op, one, two.name)
    size = one.size * two.size if op == "Mul" else one.size + two.size
    out = replace(out, size=size)
    return m.quant(between(m, out))


def _residual(m: Maker, x: Tensor) -> Tensor:
    """y = Q(x) op Q(layer(x)), where the layer keeps the shape."""
    n = x.channels
    scale = x.scale or 0.25
    if len(x.shape) == 1:
        w = m.weight(m.choose.rng().normal(0, 0.5, (n, n)), 1)
        out = m.op("MatMul", x, w)
    elif len(x.shape) in (2, 3) and "convolution" in m.features:
        rank = len(x.shape) - 1
        w = m.weight(m.choose.rng().normal(0, 0.5, (n, n, *(3,) * rank)), 0)
        out = m.op("Conv", x, w, kernel_shape=[3] * rank, pads=[1] * (2 * rank))
    else:
        return _merged(m, x)
    inner = m.uniform(between(m, out), scale=scale if m.choose.chance(0.5) else 0.0)
    return _together(m, x, inner)


def _second_input(m: Maker, x: Tensor) -> Tensor:
    """Another input of the same shape, joined to this value."""
    name = m.net.input(f"x{len(m.net.inputs)}", *x.shape)
    side = m.quant(Tensor(name, x.shape, 1.0), first=True)
    return _together(m, x, side)


def _head(m: Maker, x: Tensor) -> Tensor:
    if m.has("float_output", 0.15):
        x = between(m, linear(m, flat(m, m.uniform(x)))) if m.choose.chance(0.7) else x
    if m.has("host_tail", 0.15):
        x = flat(m, x)
        tail = m.choose.pick("Softmax", "ArgMax", "Mul", "Sigmoid")
        if tail == "Softmax":
            return m.op("Softmax", x, axis=m.choose.pick(1, -1))
        if tail == "ArgMax":
            keep = int(m.choose.chance(0.5))
            return m.op("ArgMax", x, shape=(1,), axis=1, keepdims=keep)
        if tail == "Mul":
            return m.op("Mul", x, m.net.const(m.choose.rng().uniform(0.5, 2.0)))
        return m.op(tail, x)
    return m.op("Identity", x)
