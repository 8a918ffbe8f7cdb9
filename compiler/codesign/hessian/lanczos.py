"""The spectrum of the Hessian: its largest eigenvalue, and its density by Lanczos quadrature.

Products are with the mean loss over all samples; the arithmetic on vectors is in float64. The
density follows Ghorbani et al. (arXiv:1901.10159): for a random unit vector, the Lanczos matrix of
m steps has eigenvalues t_i and first components u_i of its eigenvectors, and sum_i u_i^2 d(t - t_i)
estimates the density; its moments up to 2m - 1 are those that the vector gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import vmap

from hqc.codesign.hessian.objective import Objective, Point, Samples, checked, hessian_product
from hqc.diagnostics import Exit, reject

_BATCH = 4096
_TINY = 1e-10


@dataclass(frozen=True)
class Eigenvalue:
    """The eigenvalue of largest magnitude.

    Attributes:
        value: the Rayleigh quotient of the last vector.
        residual: |H v - value v|: some eigenvalue is within this distance of `value`.
        iterations: Hessian-vector products used.
        converged: whether `residual` is within the tolerance asked for.
    """

    value: float
    residual: float
    iterations: int
    converged: bool


@dataclass(frozen=True, eq=False)
class Density:
    """Weighted points (probes, steps) that stand for the density of eigenvalues.

    Attributes:
        nodes: eigenvalue estimates.
        weights: their shares; each row sums to 1, and padding has weight 0.
        size: the dimension of the Hessian: size * mean of the weighted nodes estimates its trace.
    """

    nodes: NDArray[np.float64]
    weights: NDArray[np.float64]
    size: int

    @property
    def trace(self) -> float:
        """The trace that the density implies."""
        return float(self.size * (self.nodes * self.weights).sum() / len(self.nodes))

    def curve(
        self, points: int = 500, width: float = 0.01
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The density smoothed by Gaussians: abscissae and values, each (points,).

        Args:
            points: how many, evenly spaced a little beyond the nodes.
            width: standard deviation of the Gaussians as a part of the span of the nodes.
        """
        low, high = float(self.nodes.min()), float(self.nodes.max())
        sigma = width * (high - low or 1.0)
        x = np.linspace(low - 4 * sigma, high + 4 * sigma, points)
        steps = (x[:, None, None] - self.nodes) / sigma
        bells = np.exp(-0.5 * steps**2) / (sigma * np.sqrt(2 * np.pi))
        return x, (bells * self.weights).sum(axis=(1, 2)) / len(self.nodes)


class HessianProduct:
    """Products of the Hessian with flat vectors (P, n) in float64, layers in the names' order."""

    def __init__(self, objective: Objective, samples: Samples) -> None:
        if objective.kind != "weights":
            raise reject("HQC610", "a spectrum is that of weights: activations differ by sample")
        self._objective, self._samples = objective, samples
        self._point = objective.point(samples)
        #: Elements of a vector.
        self.size = sum(value.numel() for value in self._point.values())

    def __call__(self, vectors: Tensor) -> Tensor:
        """H v for each row v of (P, n)."""
        total = torch.zeros_like(vectors)
        for part in self._samples.batches(_BATCH):
            share = len(part) / len(self._samples)
            total += share * vmap(self._on(part))(vectors)
        return total

    def _on(self, part: Samples) -> Callable[[Tensor], Tensor]:
        product = hessian_product(self._objective, self._point, part.inputs, part.targets)

        def flat(vector: Tensor) -> Tensor:
            rows = product(self._point_of(vector))
            return torch.cat([rows[n].double().flatten() for n in self._objective.names])

        return flat

    def _point_of(self, vector: Tensor) -> Point:
        sizes = [value.numel() for value in self._point.values()]
        pieces = zip(self._point.items(), vector.split(sizes), strict=True)
        return {name: piece.reshape(value.shape).to(value) for (name, value), piece in pieces}


def top_eigenvalue(
    objective: Objective,
    samples: Samples,
    *,
    tolerance: float = 1e-3,
    max_iterations: int = 200,
    seed: int = 0,
) -> Eigenvalue:
    """The eigenvalue of largest magnitude by power iteration.

    Args:
        objective: `Weights`; with one layer in `layers`, the eigenvalue is that of its block.
        samples: of the mean loss.
        tolerance: stop when the residual is within this part of the value.
        max_iterations: stop after so many products.
        seed: of the first vector.

    Raises:
        HqcError: HQC001, an option out of range; HQC610, a loss that this cannot be done with.
    """
    if max_iterations < 1:
        raise reject("HQC001", "power iteration takes one iteration or more", exit_=Exit.USAGE)
    with checked(objective, samples):
        product = HessianProduct(objective, samples)
        vector = _unit(torch.randn(product.size, generator=_generator(seed), dtype=torch.float64))
        value, residual, done, good = 0.0, 0.0, 0, False
        while done < max_iterations and not good:
            image = product(vector[None])[0]
            value = float(vector @ image)
            residual = float((image - value * vector).norm())
            done += 1
            good = residual <= tolerance * abs(value)
            if not good:
                vector = _unit(image)
        return Eigenvalue(value, residual, done, good)


def spectral_density(
    objective: Objective, samples: Samples, *, steps: int = 60, probes: int = 4, seed: int = 0
) -> Density:
    """The density of eigenvalues by stochastic Lanczos quadrature, fully reorthogonalised.

    Arguments, and errors, as for `top_eigenvalue`; `steps` Lanczos steps for each of `probes`
    random vectors.
    """
    if steps < 1 or probes < 1:
        raise reject("HQC001", "Lanczos takes one step and one probe or more", exit_=Exit.USAGE)
    with checked(objective, samples):
        product = HessianProduct(objective, samples)
        steps = min(steps, product.size)
        bits = torch.randint(0, 2, (probes, product.size), generator=_generator(seed))
        basis, alphas, betas = _lanczos(product, (2 * bits - 1).double(), steps)
    nodes, weights = np.zeros((probes, steps)), np.zeros((probes, steps))
    for row in range(probes):
        length = _length(betas[row], alphas[row])
        matrix = np.diag(alphas[row, :length])
        between = betas[row, : length - 1]
        matrix += np.diag(between, 1) + np.diag(between, -1)
        found, vectors = np.linalg.eigh(matrix)
        nodes[row, :length], weights[row, :length] = found, vectors[0] ** 2
        nodes[row, length:] = found[0]
    return Density(nodes, weights, basis)


def _lanczos(
    product: HessianProduct, start: Tensor, steps: int
) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """Diagonals (P, steps) and the entries beside them (P, steps) of the Lanczos matrices."""
    vector = start / start.norm(dim=1, keepdim=True)
    basis = [vector]
    alphas, betas = [], []
    for _ in range(steps):
        image = product(basis[-1])
        alphas.append((basis[-1] * image).sum(dim=1))
        held = torch.stack(basis, dim=1)
        for _ in range(2):  # once more, against what rounding left over
            parts = torch.einsum("pkn,pn->pk", held, image)
            image = image - torch.einsum("pkn,pk->pn", held, parts)
        beta = image.norm(dim=1)
        betas.append(beta)
        basis.append(image / beta.clamp(min=_TINY)[:, None])
    return product.size, torch.stack(alphas, 1).numpy(), torch.stack(betas, 1).numpy()


def _length(betas: NDArray[np.float64], alphas: NDArray[np.float64]) -> int:
    """Steps until the vector's invariant subspace is used up."""
    scale = max(float(np.abs(alphas).max()), float(betas.max()), _TINY)
    ended = np.flatnonzero(betas <= 1e-7 * scale)
    return int(ended[0]) + 1 if ended.size else len(alphas)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _unit(vector: Tensor) -> Tensor:
    norm = vector.norm()
    return vector / norm if norm > 0 else vector
