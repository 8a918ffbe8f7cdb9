"""Inputs on which graphs are compared: random, range corners, and rounding ties."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from onnx_ir import Model, Node, Value

from hqc.analysis.chain_steps import chain_step, is_pass_through
from hqc.analysis.dependence import data_input
from hqc.analysis.grid_constants import grid_constant
from hqc.analysis.partition import code_boundaries, first_quantisers, is_linear
from hqc.analysis.rearrangements import is_rearrangement
from hqc.analysis.step_functions import Coder, Thresholds
from hqc.analysis.workload import affordable
from hqc.ir import Array
from hqc.numerics.bounds import Bound
from hqc.numerics.monotone_chain import Affine, Chain
from hqc.numerics.types import Codes

Floats = npt.NDArray[np.float32]


def generate(model: Model, n: int, seed: int = 0) -> dict[str, Floats]:
    """Samples (n, ...) of every input of a model, reproducible under a seed.

    A quarter is uniform over a little more than the range of the input's quantiser, a quarter
    normal, a quarter stands on or next to the rounding ties of that quantiser, and a quarter are
    corners: everything lowest, everything highest, and for each neuron of the first linear layer
    the input that drives it to either end of its range.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, Floats] = {}
    for node, (value, chain) in first_quantisers(model).items():
        if value.name in found:
            continue
        shape = tuple(int(d) for d in (value.shape or ())[1:] if isinstance(d, int))
        found[str(value.name)] = _of_input(rng, n, shape, chain, node)
    return found


def probes(
    model: Model, given: Mapping[str, Array] | None = None, seed: int = 0, count: int = 96
) -> dict[str, Array]:
    """What passes are judged on: the first `count` given samples, then as many generated ones.

    Fewer of a model that takes long to run, see `hqc.analysis.workload`.
    """
    count = affordable(model, count)
    made: dict[str, Array] = dict(generate(model, count, seed))
    if given is None:
        return made
    return {
        name: np.concatenate([np.asarray(given[name], np.float32)[:count], x])
        for name, x in made.items()
    }


def _of_input(
    rng: np.random.Generator, n: int, shape: tuple[int, ...], chain: Chain, node: Node
) -> Floats:
    coder = code_boundaries(node)
    lo, hi, ties = _landmarks(chain, coder)
    middle, half = (lo + hi) / 2, (hi - lo) / 2
    size = int(np.prod(shape))
    corner = _corners(node, size, lo, hi, slope=chain.slope(0))
    kinds = [len(part) for part in np.array_split(np.arange(n), 4)]
    uniform = rng.uniform(middle - 1.1 * half, middle + 1.1 * half, (kinds[0], size))
    normal = rng.normal(middle, half / 3 + 1e-30, (kinds[1], size))
    tie = ties[rng.integers(len(ties), size=(kinds[2], size))]
    pick = corner[np.arange(kinds[3]) % len(corner)]
    everything = np.concatenate([uniform, normal, tie, pick]).astype(np.float32)
    return np.asarray(everything[rng.permutation(n)].reshape(n, *shape))


def _landmarks(chain: Chain, coder: Coder) -> tuple[float, float, npt.NDArray[np.float64]]:
    """Lowest and highest interesting input, and floats on and beside code boundaries."""
    codes = np.unique(np.linspace(coder.lo + 1, coder.hi, 64).round().astype(int))
    bounds = [chain.invert(coder.bound(int(k), 0), 0) for k in codes]
    points = [float(b.value) for b in bounds if isinstance(b, Bound)]
    if not points:
        return -1.0, 1.0, np.array([0.0])
    at = np.array(points, np.float32)
    inf = np.float32(np.inf)
    ties = np.concatenate([at, np.nextafter(at, inf), np.nextafter(at, -inf)])
    spread = (max(points) - min(points)) / max(1, coder.hi - coder.lo - 1)
    step = spread or abs(float(1 / chain.slope(0))) * _unit(coder)
    return min(points) - step, max(points) + step, ties.astype(np.float64)


def _unit(coder: Coder) -> float:
    return 1.0 if isinstance(coder, Thresholds) else float(max(coder.scale, default=Fraction(1)))


def _corners(
    node: Node, size: int, lo: float, hi: float, slope: Fraction
) -> npt.NDArray[np.float64]:
    rows = [np.full(size, lo), np.full(size, hi), np.zeros(size)]
    weights = _first_weights(node.outputs[0])
    if weights is not None and weights.ndim == 2 and weights.shape[0] == size:
        for column in weights.T[:256]:
            up = (column > 0) if slope > 0 else (column < 0)
            rows += [np.where(up, hi, lo), np.where(up, lo, hi)]
    return np.array(rows)


def _first_weights(value: Value) -> Codes | None:
    pending, seen = [value], {value}
    while pending:
        last = pending.pop()
        for use in last.uses():
            if is_linear(use.node):
                grid = grid_constant(use.node.inputs[1])
                return None if grid is None else grid.codes
            step = None if data_input(use.node, {last}) is None else chain_step(use.node)
            goes_on = (
                is_pass_through(use.node) or is_rearrangement(use.node) or isinstance(step, Affine)
            )
            if goes_on and use.node.outputs[0] not in seen:
                pending.append(use.node.outputs[0])
                seen.add(use.node.outputs[0])
    return None
