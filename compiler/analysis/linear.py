"""Sums over weights, exactly: matrix products, convolutions and average pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx_ir import Node

from hqc.analysis.grid_constants import GridConstant, grid_constant
from hqc.diagnostics import HqcError, reject
from hqc.ir import location_of
from hqc.ir.windows import Taps, divisors
from hqc.numerics.exact_tensor import ExactTensor, common_unit, straightened, without_offset
from hqc.numerics.monotone_chain import Affine, Chain
from hqc.numerics.types import DOUBLE_BITS, INT64_BITS, SINGLE_BITS, Codes

#: Elements of the unfolded input that are held at once.
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Weights:
    """Weights as integers.

    Attributes:
        codes: int64 (n_out, n_in per group, taps).
        scales: one per output channel.
        group: parts that inputs and outputs fall into.
    """

    codes: Codes
    scales: tuple[Fraction, ...]
    group: int

    def offsets(self, affine: Affine) -> tuple[Fraction, ...]:
        """What the offsets of the input (one, or one per channel) add to each output."""
        if not any(affine.b):
            return (Fraction(0),)
        per_input = self.codes.sum(axis=2)
        if len(set(affine.b)) == 1:
            sums = [affine.b[0] * int(n) for n in per_input.sum(axis=1)]
        else:
            b = np.array(affine.b, object).reshape(self.group, 1, -1)
            parts = per_input.astype(object).reshape(self.group, -1, per_input.shape[1])
            sums = [Fraction(n) for n in (parts * b).sum(axis=2).ravel()]
        return tuple(n * s for n, s in zip(sums, self.scales, strict=True))


def quantised_weights(node: Node) -> GridConstant:
    """The constant weights of a linear node.

    Raises:
        HqcError: HQC103, they are on no grid.
    """
    grid = grid_constant(node.inputs[1])
    if grid is None:
        raise reject(
            "HQC103",
            f"the weights of {node.name} are not quantised",
            where=location_of(node),
            helps=("quantise them in training, or pass --quantize 8",),
        )
    return grid


def weights_of(node: Node, factors: Sequence[Fraction] = (Fraction(1),)) -> Weights:
    """The weights of a MatMul, Conv or ConvTranspose, the scales of its input multiplied in.

    Args:
        node: the linear node.
        factors: one per input channel, or one for all.

    Raises:
        HqcError: HQC103, not quantised; HQC205, scales without a common unit.
    """
    grid = quantised_weights(node)
    codes = grid.codes
    aligned = grid.scale.reshape((1,) * (codes.ndim - grid.scale.ndim) + grid.scale.shape)
    group = node.attributes.get_int("group", 1)
    if node.op_type == "MatMul":
        codes, aligned = codes.T[:, :, None], aligned.T[:, :, None]
    elif node.op_type == "ConvTranspose":
        aligned = _outputs_first(np.broadcast_to(aligned, codes.shape), group)
        codes = _outputs_first(codes, group)
    codes = codes.reshape(*codes.shape[:2], -1)
    per_output = aligned.shape[1:] == (1,) * (aligned.ndim - 1)
    if not per_output:
        aligned = np.broadcast_to(aligned, (*codes.shape[:2], *aligned.shape[2:]))
    scale = aligned.reshape(*aligned.shape[:2], -1)
    if len(set(factors)) == 1:
        scale = scale * factors[0] if factors[0] != 1 else scale
    else:
        rows = np.array(factors, object).reshape(group, 1, -1, 1)
        scale = np.broadcast_to(scale, (codes.shape[0], codes.shape[1], scale.shape[2]))
        scale = (scale.reshape(group, -1, *scale.shape[1:]) * rows).reshape(scale.shape)
    return _by_output(node, codes, scale, group)


def _outputs_first(array: npt.NDArray[Any], group: int) -> npt.NDArray[Any]:
    """(n_in, n_out per group, ...) to (n_out, n_in per group, ...)."""
    n_in, per_group, *kernel = array.shape
    parts = array.reshape(group, n_in // group, per_group, *kernel).swapaxes(1, 2)
    return parts.reshape(group * per_group, n_in // group, *kernel)


def _by_output(node: Node, codes: Codes, scale: npt.NDArray[np.object_], group: int) -> Weights:
    """One scale per output channel, whatever varied within it multiplied into the integers."""
    n_out = codes.shape[0]
    if scale.shape[1:] == (1, 1):
        one = scale.ravel()
        return Weights(codes, tuple(one) if one.size == n_out else tuple(one) * n_out, group)
    full = np.broadcast_to(scale, (n_out, codes.shape[1], scale.shape[2])).reshape(n_out, -1)
    units = [common_unit(tuple(set(row))) for row in full]
    factors = np.array([[s / u for s in row] for row, u in zip(full, units, strict=True)], object)
    if factors.max() > 2**20:
        raise reject(
            "HQC205",
            f"{node.name} sums over channels whose scales have no common unit",
            where=location_of(node),
            helps=("use one scale for the whole activation tensor before a linear layer",),
        )
    whole = factors.astype(np.int64).reshape(n_out, codes.shape[1], scale.shape[2])
    return Weights(codes * whole, tuple(units), group)


def weighted_sum(node: Node, x: ExactTensor) -> ExactTensor:
    """A MatMul, Conv or ConvTranspose of an exact tensor.

    Raises:
        HqcError: HQC102/103/205, not of the supported form; HQC204, sums beyond 62 bits.
    """
    x = straightened(x)
    affine = x.chain.affine
    if x.is_real or affine is None:
        raise no_form(node)
    if node.op_type == "MatMul":
        if x.base.ndim != 2 or quantised_weights(node).codes.ndim != 2:
            raise no_form(node)
        taps = Taps((), np.zeros((1, 1), np.int64))
        base = x.codes[:, :, None]
    else:
        taps = Taps.of(node)
        if taps.pads and any(affine.b):
            moved = without_offset(x)
            if moved is None:
                raise no_form(node)
            x, affine = moved, moved.chain.affine
            assert affine is not None
        base = x.codes.reshape(*x.base.shape[:2], -1)
    one_factor = len(set(affine.a)) == 1
    weights = weights_of(node, affine.a[:1] if one_factor else affine.a)
    sums = _sum(node, base, weights, taps)
    divided = _offsets_over_factors(affine, weights, one_factor)
    step = Affine(weights.scales, divided)
    shape = (len(base), weights.codes.shape[0], *taps.shape)
    return ExactTensor(sums.reshape(shape), Chain().then(step))


def _offsets_over_factors(
    affine: Affine, weights: Weights, one_factor: bool
) -> tuple[Fraction, ...]:
    """The offsets' sums; the weights hold the factors already, so each offset counts b / a."""
    if not any(affine.b):
        return (Fraction(0),)
    n = 1 if one_factor and len(set(affine.b)) == 1 else affine.channels
    ratios = []
    for c in range(n):
        a, b = affine.at(c)
        if a == 0:
            raise reject("HQC205", "a constant channel with an offset before a linear layer")
        ratios.append(b / a)
    return weights.offsets(Affine((Fraction(1),), tuple(ratios)))


def _sum(node: Node, base: Codes, weights: Weights, taps: Taps) -> Codes:
    """(N, C, positions) to (N, n_out, windows), in 62 bits."""
    largest = int(np.abs(weights.codes).reshape(len(weights.codes), -1).sum(axis=1).max(initial=0))
    top = int(np.max(np.abs(base), initial=0)) * largest
    if top.bit_length() > INT64_BITS:
        raise reject("HQC204", "sums beyond 62 bits", where=location_of(node))
    # no partial sum is rounded, in any order, below 2**24 in float32 and 2**53 in float64
    wide = np.float64 if top < 2**DOUBLE_BITS else np.int64
    kind = np.float32 if top < 2**SINGLE_BITS else wide
    n, channels, _ = base.shape
    groups, (windows, kernel) = weights.group, taps.index.shape
    matrix = weights.codes.astype(kind).reshape(groups, -1, channels // groups * kernel)
    out = np.empty((n, weights.codes.shape[0], windows), np.int64)
    chunk = max(1, _CHUNK // max(1, channels * windows * kernel))
    for start in range(0, n, chunk):
        part = base[start : start + chunk].astype(kind)
        columns = taps.columns(part).reshape(groups, -1, len(part) * windows)
        sums = (matrix @ columns).reshape(-1, len(part), windows)
        out[start : start + chunk] = sums.swapaxes(0, 1)
    return out


def average(node: Node, x: ExactTensor) -> ExactTensor:
    """AveragePool and GlobalAveragePool of an exact tensor."""
    x = straightened(x)
    affine = x.chain.affine
    if x.is_real or affine is None:
        raise no_form(node)
    taps = Taps.of(node)
    if taps.pads and any(affine.b):
        moved = without_offset(x)
        if moved is None or moved.chain.affine is None:
            raise no_form(node)
        x, affine = moved, moved.chain.affine
    channels = x.base.shape[1]
    ones = np.ones((channels, 1, taps.index.shape[1]), np.int64)
    base = x.codes.reshape(*x.base.shape[:2], -1)
    sums = _sum(node, base, Weights(ones, (Fraction(1),) * channels, channels), taps)
    counts = divisors(node, taps)
    whole = math.lcm(*(int(n) for n in counts))
    if not whole:
        raise reject("HQC102", f"{node.name} averages over padding only", where=location_of(node))
    if (int(np.max(np.abs(sums), initial=0)) * whole).bit_length() > INT64_BITS:
        raise reject("HQC204", "sums beyond 62 bits", where=location_of(node))
    scaled = np.asarray(sums * (whole // counts), np.int64)
    mean = Affine(tuple(a / whole for a in affine.a), affine.b)
    return ExactTensor(scaled.reshape(*x.base.shape[:2], *taps.shape), Chain().then(mean))


def maximum(node: Node, x: ExactTensor) -> ExactTensor:
    """MaxPool and GlobalMaxPool: monotone chains and maxima commute."""
    taps = Taps.of(node)
    rising = [x.chain.slope(c) >= 0 for c in range(x.chain.channels)]
    sign = np.where(rising, 1, -1).astype(x.base.dtype).reshape(-1, 1)
    base: npt.NDArray[Any] = x.base
    flat = base.reshape(*base.shape[:2], -1) * sign
    best = taps.gather(flat, np.min(flat, initial=0)).max(axis=2) * sign
    return ExactTensor(best.reshape(*x.base.shape[:2], *taps.shape), x.chain)


def no_form(node: Node) -> HqcError:
    """HQC205 for a node without an exact integer form."""
    return reject(
        "HQC205",
        f"{node.op_type} has no exact integer form here",
        where=location_of(node),
        notes=("it stands between quantisers, so it must be exact",),
        helps=("put a quantiser before it, or move it behind the last layer",),
    )
