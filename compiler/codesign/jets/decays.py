"""Isotropic two-body decays with true masses, and the momentum balance after radiation.

Four-vectors are (E, px, py, pz) in GeV, shape (..., 4). A shower and hadronisation give each prong
a mass, so that prongs no longer add up to their parent. `remass` restores the parent: its products
are taken to their common rest frame, scaled together to the true mass and boosted back, so that
recoil is shared by all of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]

M_W, M_Z, M_TOP, M_BOTTOM = 80.377, 91.1876, 172.69, 4.78
WIDTH_W, WIDTH_Z, WIDTH_TOP = 2.085, 2.4952, 1.42
"""Masses and widths in GeV: R. L. Workman et al. (Particle Data Group), PTEP 2022, 083C01."""


def breit_wigner(mass: float, width: float, size: int, random: np.random.Generator) -> Array:
    """Masses from a non-relativistic Breit-Wigner, cut five widths either side, (size,)."""
    reach = np.arctan(10.0)
    return mass + 0.5 * width * np.tan(random.uniform(-reach, reach, size))


def mass_of(p: Array) -> Array:
    """Invariant mass of (..., 4) vectors; rounding below zero gives zero."""
    squared: Array = p[..., 0] ** 2 - (p[..., 1:] ** 2).sum(axis=-1)
    return np.sqrt(np.maximum(squared, 0.0))


def boost(p: Array, frame: Array, *, into: bool) -> Array:
    """Boost (M, 4) vectors into the rest frame of the massive (M, 4) `frame`, or out of it."""
    gamma = frame[:, 0] / mass_of(frame)
    u = frame[:, 1:] / mass_of(frame)[:, None] * (-1.0 if into else 1.0)
    along = (u * p[:, 1:]).sum(axis=1)
    energy = gamma * p[:, 0] + along
    space = p[:, 1:] + ((energy + p[:, 0]) / (gamma + 1.0))[:, None] * u
    return np.concatenate([energy[:, None], space], axis=1)


def breakup_momentum(mass: Array, first: Array, second: Array) -> Array:
    """Momentum of two products of given masses in the rest frame of their parent, GeV.

    Source: the two-body formula of the Particle Data Group's kinematics review.
    """
    product = (mass**2 - (first + second) ** 2) * (mass**2 - (first - second) ** 2)
    return np.sqrt(np.maximum(product, 0.0)) / (2.0 * mass)


def two_body(
    parent: Array, first: Array, second: Array, random: np.random.Generator
) -> tuple[Array, Array]:
    """Decay (B, 4) parents isotropically in their rest frame into products of given masses (B,)."""
    momentum = breakup_momentum(mass_of(parent), first, second)
    cosine = random.uniform(-1.0, 1.0, len(parent))
    azimuth = random.uniform(0.0, 2.0 * np.pi, len(parent))
    sine = np.sqrt(1.0 - cosine**2)
    unit = np.stack([sine * np.cos(azimuth), sine * np.sin(azimuth), cosine], axis=1)
    space = momentum[:, None] * unit
    products = []
    for sign, mass in ((1.0, first), (-1.0, second)):
        energy = np.sqrt(momentum**2 + mass**2)
        rest = np.concatenate([energy[:, None], sign * space], axis=1)
        products.append(boost(rest, parent, into=False))
    return products[0], products[1]


def totals(p: Array, system: Index, count: int) -> Array:
    """Sum (M, 4) vectors by system, (count, 4)."""
    columns = [np.bincount(system, weights=p[:, k], minlength=count) for k in range(4)]
    return np.stack(columns, axis=1)


def remass(p: Array, system: Index, target: Array) -> Array:
    """Move massless products (M, 4) so that each system adds up to its massive (S, 4) target.

    Every system needs two products that are not parallel.
    """
    before = totals(p, system, len(target))
    scale = mass_of(target) / mass_of(before)
    rest = boost(p, before[system], into=True) * scale[system, None]
    return boost(rest, target[system], into=False)


def stretch(p: Array, system: Index, momentum: Array) -> Array:
    """Boost each system along its own momentum until that has the magnitude (S,), GeV.

    Masses do not change: with n the direction, E + p.n is multiplied and E - p.n divided by one
    factor. It also serves systems of a single massless product.
    """
    total = totals(p, system, len(momentum))
    size = np.linalg.norm(total[:, 1:], axis=1)
    unit = (total[:, 1:] / size[:, None])[system]
    energy = np.sqrt(mass_of(total) ** 2 + momentum**2)
    factor = ((energy + momentum) / (total[:, 0] + size))[system]
    along = (p[:, 1:] * unit).sum(axis=1)
    plus, minus = (p[:, 0] + along) * factor, (p[:, 0] - along) / factor
    space = p[:, 1:] + (0.5 * (plus - minus) - along)[:, None] * unit
    return np.concatenate([0.5 * (plus + minus)[:, None], space], axis=1)
