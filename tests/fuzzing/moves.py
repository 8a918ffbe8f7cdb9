"""Rearrangements of a value's elements; each keeps its grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fuzzing.maker import Maker, Tensor


def move(m: Maker, x: Tensor) -> Tensor:
    """Some rearrangement that the shape allows."""
    rank = len(x.shape)
    kinds: list[Callable[[Maker, Tensor], Tensor]] = [_slice, _pad, _gather, _tile, _unsqueezed]
    kinds += [_flatten, _reshape]
    if rank > 1:
        kinds += [_transpose, _transpose]
    if rank in (2, 3):
        kinds += [_resize]
    if rank == 3:
        kinds += [_depth]
    if max(x.shape) > 1:
        kinds += [_split]
    return m.choose.pick(*kinds)(m, x)


def flat(m: Maker, x: Tensor) -> Tensor:
    """All elements on axis 1."""
    return x if len(x.shape) == 1 else _flatten(m, x)


def _free(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Without its shape of before; a scale per channel is one no more."""
    return replace(x, shape=shape)


def _flatten(m: Maker, x: Tensor) -> Tensor:
    shape = (x.elements,)
    if m.choose.chance(0.5):
        return m.kept("Reshape", x, m.integers([m.choose.pick(-1, 0), x.elements]), shape=shape)
    return m.kept("Flatten", x, shape=shape, axis=1)


def _reshape(m: Maker, x: Tensor) -> Tensor:
    total = x.elements
    divisors = [d for d in range(1, total + 1) if total % d == 0]
    first = m.choose.pick(*divisors)
    rest = total // first
    second = m.choose.pick(*(d for d in range(1, rest + 1) if rest % d == 0))
    shape = m.choose.pick((first, rest), (first, second, rest // second))
    return m.kept("Reshape", x, m.integers([m.choose.pick(-1, 0), *shape]), shape=shape)


def _unsqueezed(m: Maker, x: Tensor) -> Tensor:
    if 1 in x.shape and len(x.shape) > 1:
        axis = x.shape.index(1) + 1
        shape = tuple(n for a, n in enumerate(x.shape, 1) if a != axis)
        return _axes(m, "Squeeze", x, axis, shape)
    if len(x.shape) > 2:
        return _flatten(m, x)
    axis = m.choose.between(1, len(x.shape) + 1)
    shape = (*x.shape[: axis - 1], 1, *x.shape[axis - 1 :])
    return _axes(m, "Unsqueeze", x, axis, shape)


def _axes(m: Maker, op: str, x: Tensor, axis: int, shape: tuple[int, ...]) -> Tensor:
    if m.opset >= 13:
        return m.kept(op, x, m.integers([axis]), shape=shape)
    return m.kept(op, x, shape=shape, axes=[axis])


def _transpose(m: Maker, x: Tensor) -> Tensor:
    order = [int(a) for a in m.choose.rng().permutation(len(x.shape))]
    shape = tuple(x.shape[a] for a in order)
    return m.kept("Transpose", x, shape=shape, perm=[0, *(a + 1 for a in order)])


def _slice(m: Maker, x: Tensor) -> Tensor:
    axis = m.choose.integer(len(x.shape))
    n = x.shape[axis]
    start, step = m.choose.integer(n), m.choose.pick(1, 1, 2)
    end = m.choose.between(start + 1, n)
    given = (start, end, step)
    if m.choose.chance(0.15):
        given = (n - 1, -n - 1, -1)
    elif m.choose.chance(0.2):
        given = (start - n, end, step)
    size = len(range(n)[given[0] :: -1]) if given[2] < 0 else len(range(start, end, step))
    parameters = [m.integers([v]) for v in (given[0], given[1], axis + 1, given[2])]
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    return m.kept("Slice", x, *parameters, shape=shape)


def _pad(m: Maker, x: Tensor) -> Tensor:
    rank = len(x.shape)
    mode = m.choose.pick("constant", "reflect", "edge")
    spatial = range(1, rank) if rank > 1 else range(rank)
    ends = [[0, 0] for _ in x.shape]
    for axis in spatial:
        top = 1 if mode != "reflect" or x.shape[axis] > 1 else 0
        ends[axis] = [m.choose.between(0, top), m.choose.between(0, top)]
    pads = [0, *(a for a, _ in ends), 0, *(b for _, b in ends)]
    others = [m.integers(pads)]
    if mode == "constant" and m.choose.chance(0.4):
        value = 0.0
        if x.scale and m.choose.chance(0.6):
            value = float(np.float32(x.scale)) * m.choose.pick(1, -2, 4)
        others.append(m.net.const(value))
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, ends, strict=True))
    return m.kept("Pad", x, *others, shape=shape, mode=mode)


def _gather(m: Maker, x: Tensor) -> Tensor:
    axis = m.choose.integer(len(x.shape))
    n = x.shape[axis]
    count = m.choose.between(1, min(4, n + 1))
    index = [int(i) for i in m.choose.rng().integers(-n, n, count)]
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    return m.kept("Gather", x, m.integers(index), shape=shape, axis=axis + 1)


def _tile(m: Maker, x: Tensor) -> Tensor:
    if 1 in x.shape and m.choose.chance(0.6):
        shape = tuple(2 if n == 1 else n for n in x.shape)
        return m.kept("Expand", x, m.integers([1, *shape]), shape=shape)
    if x.elements > 40:
        return _slice(m, x)
    repeats = [m.choose.pick(1, 2) for _ in x.shape]
    shape = tuple(n * r for n, r in zip(x.shape, repeats, strict=True))
    return m.kept("Tile", x, m.integers([1, *repeats]), shape=shape)


def _resize(m: Maker, x: Tensor) -> Tensor:
    factors = [m.choose.pick(2, 1) for _ in x.shape[1:]]
    if x.elements * math.prod(factors) > 150:
        return _slice(m, x)
    shape = (x.channels, *(n * f for n, f in zip(x.shape[1:], factors, strict=True)))
    more: dict[str, Any] = {"mode": "nearest"}
    how = m.choose.pick("asymmetric", "half_pixel")
    more["coordinate_transformation_mode"] = how
    more["nearest_mode"] = "floor" if how == "asymmetric" else "round_prefer_floor"
    scales = m.net.const([1.0, 1.0, *(float(f) for f in factors)])
    roi = m.net.const(np.zeros(0)) if m.opset < 13 else ""
    return m.kept("Resize", x, roi, scales, shape=shape, **more)


def _depth(m: Maker, x: Tensor) -> Tensor:
    c, h, w = x.shape
    if c % 4 == 0:
        mode = m.choose.pick("DCR", "CRD")
        return m.kept("DepthToSpace", x, shape=(c // 4, h * 2, w * 2), blocksize=2, mode=mode)
    if h % 2 == 0 and w % 2 == 0:
        return m.kept("SpaceToDepth", x, shape=(c * 4, h // 2, w // 2), blocksize=2)
    return _transpose(m, x)


def _split(m: Maker, x: Tensor) -> Tensor:
    """Two parts, of which one is taken, or both in the other order."""
    axis = m.choose.pick(*(a for a, n in enumerate(x.shape) if n > 1))
    n = x.shape[axis]
    cut = m.choose.between(1, n - 1)
    names = [f"part{len(m.net.nodes)}_{i}" for i in (0, 1)]
    others = [m.integers([cut, n - cut])] if m.opset >= 13 else []
    more = {} if others else {"split": [cut, n - cut]}
    m.several("Split", (x.name, *others), names, axis=axis + 1, **more)
    shapes = [(*x.shape[:axis], size, *x.shape[axis + 1 :]) for size in (cut, n - cut)]
    parts = [replace(x, name=a, shape=s) for a, s in zip(names, shapes, strict=True)]
    if m.choose.chance(0.4):
        return parts[m.choose.integer(2)]
    return m.kept("Concat", parts[1], parts[0].name, shape=x.shape, axis=axis + 1)
