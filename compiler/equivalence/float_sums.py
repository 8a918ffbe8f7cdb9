"""Bounds on the float32 error of sums: matrix products, convolutions, average and max pooling.

A sum of n products in any order is off by at most n * u / (1 - n * u) times the sum of their
magnitudes (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1); where
every partial sum is representable there is no error at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx_ir import Node

from hqc.analysis.linear import quantised_weights
from hqc.analysis.ranges import value_range
from hqc.analysis.rearrangements import sample_shape
from hqc.ir.windows import Taps

Floats = npt.NDArray[np.float64]

#: Operators that add up products.
SUMS = frozenset({"MatMul", "Conv", "ConvTranspose", "AveragePool", "GlobalAveragePool"})


@dataclass(frozen=True)
class Sums:
    """The input of a sum: its exact values, the bound on their error, the unit roundoff."""

    x: Floats
    error: Floats
    unit: float

    def bound_of(self, node: Node) -> Floats:
        """Error bound of every output of the node."""
        if node.op_type.endswith("AveragePool"):
            return self._average(node)
        grid = quantised_weights(node)
        scale = grid.scale.astype(np.float64)
        weights = np.abs(grid.codes * scale)
        mantissa, _ = np.frexp(scale)
        exact_weights = bool(np.all(mantissa == 0.5))
        off = np.zeros_like(weights) if exact_weights else self.unit * weights
        x = np.abs(self.x)
        terms = _fan_in(node, weights)
        inherited = _sum(node, self.error, weights + off) + _sum(node, x, off)
        total = _sum(node, x + self.error, weights + off)
        if not np.any(inherited) and exact_weights:
            step = value_range(x).exponent + value_range(weights).exponent
            if np.max(total, initial=0) < 2.0 ** (step - np.log2(self.unit)):
                return np.zeros(total.shape)  # every partial sum is representable
        n = terms + 1
        return np.asarray(inherited + n * self.unit / (1 - n * self.unit) * total)

    def _average(self, node: Node) -> Floats:
        taps = Taps.of(node)
        n = taps.index.shape[1]
        counts = np.maximum((taps.index >= 0).sum(axis=1), 1)
        parts = [_pooled(part, taps) / counts for part in (self.error, np.abs(self.x))]
        bound = parts[0] + (n + 2) * self.unit / (1 - n * self.unit) * (parts[0] + parts[1])
        return np.asarray(bound.reshape(*self.x.shape[:2], *taps.shape))


def widest(node: Node, error: Floats) -> Floats:
    """Error bound of a maximum: the worst of its window."""
    taps = Taps.of(node)
    flat = error.reshape(*error.shape[:2], -1)
    best = taps.gather(flat).max(axis=2)
    return np.asarray(best.reshape(*error.shape[:2], *taps.shape))


def _pooled(x: Floats, taps: Taps) -> Floats:
    flat = x.reshape(*x.shape[:2], -1)
    return np.asarray(taps.gather(flat).sum(axis=2))


def _fan_in(node: Node, weights: Floats) -> int:
    if node.op_type == "MatMul":
        return int(weights.shape[0])
    if node.op_type == "ConvTranspose":
        return int(weights.shape[0] * np.prod(weights.shape[2:]))
    return int(np.prod(weights.shape[1:]))


def _sum(node: Node, x: Floats, weights: Floats) -> Floats:
    """The node itself, on floats."""
    if node.op_type == "MatMul":
        return np.asarray(x @ weights)
    taps = Taps.of(node)
    group = node.attributes.get_int("group", 1)
    if node.op_type == "ConvTranspose":
        n_in, per_group = weights.shape[:2]
        parts = weights.reshape(group, n_in // group, per_group, -1).swapaxes(1, 2)
    else:
        parts = weights.reshape(group, weights.shape[0] // group, weights.shape[1], -1)
    flat = x.reshape(*x.shape[:2], -1)
    rows = taps.gather(flat).reshape(len(x), group, -1, taps.index.shape[0])
    sums = parts.reshape(group, parts.shape[1], -1) @ rows
    return np.asarray(sums.reshape(len(x), *sample_shape(node.outputs[0])))
