"""Small integer graphs that every exporter is held to, and what they must give."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx_ir import Model

from hqc.analysis.partition import Partition
from hqc.numerics.types import Codes, FixedType, Rounding
from support.backend_graphs import (
    Builder,
    _casts,
    _others,
    _requantisers,
    corner_codes,
    evaluate,
    signed,
    unsigned,
)
from support.tensor_graphs import convolutions, elementwise, movements, pools, residual, together

Graph = tuple[Model, Partition]


def modes() -> Graph:
    """Every rounding and saturation, requantisers with negative factors, thresholds, a sum."""
    b = Builder()
    x = b.input("x", 4, signed(10, 5))
    rng = np.random.default_rng(5)
    return b.finish(*_casts(b, x), *_requantisers(b, x, rng), *_others(b, x))


def mlp() -> Graph:
    """Three dense layers with a bias, factors per channel and a rectifier."""
    rng = np.random.default_rng(1)
    b = Builder()
    y = b.matmul(b.input("x", 6, signed(6, 3)), rng.integers(-7, 8, (6, 8)), signed(4, 1))
    y = b.add(y, rng.integers(-30, 30, 8), FixedType(True, 8, 3))
    y = b.mul(y, rng.integers(-60, 60, 8), FixedType(True, 7, 1))
    y = b.matmul(b.quant(b.relu(y), unsigned(4, 3)), rng.integers(-7, 8, (8, 3)), signed(4, 1))
    y = b.quant(y, signed(5, 4, Rounding.FLOOR))
    return b.finish(b.matmul(y, rng.integers(-7, 8, (3, 3)), signed(4, 1)))


GRAPHS: dict[str, Callable[[], Graph]] = {
    "modes": modes,
    "mlp": mlp,
    "conv1d": lambda: convolutions(1, slice(0, None, 7)),
    "conv2d": lambda: convolutions(2, slice(1, None, 7)),
    "others": lambda: together(pools, movements, elementwise),
    "residual": lambda: residual(np.random.default_rng(2)),
}


def case(name: str, samples: int = 40) -> tuple[Partition, dict[str, Codes], dict[str, Codes]]:
    """A graph, codes of its inputs, and the codes of its outputs by int64 numpy."""
    _, parts = GRAPHS[name]()
    codes = corner_codes(parts, samples, 3)
    return parts, codes, evaluate(parts, codes)


def too_wide() -> Partition:
    """Sums of 67 bits."""
    b = Builder()
    z = b.input("z", 3, signed(32, 5))
    weight = np.full((3, 4), 2**34)
    return b.finish(b.quant(b.matmul(z, weight, FixedType(True, 36, 4)), signed(12, 7)))[1]


def same(parts: Partition, got: list[np.ndarray], want: dict[str, Codes]) -> bool:
    """Whether all ports, in order, hold the same codes."""
    return len(got) == len(parts.outputs) and all(
        found.shape == want[port.name].shape and bool(np.all(found == want[port.name]))
        for port, found in zip(parts.outputs, got, strict=True)
    )
