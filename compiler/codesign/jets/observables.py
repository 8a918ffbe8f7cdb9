"""The 16 observables of the hls4ml LHC jet set (OpenML 42468), from their published definitions.

Set and names: Duarte et al., JINST 13 (2018) P07027 and Coleman et al., JINST 13 (2018) T01003.
With z_i = pT_i / sum pT over the groomed jet and R_ij the distance in (eta, phi):

    e2(b)  = sum_{i<j} z_i z_j R_ij^b                             Larkoski, Salam and Thaler,
    e3(b)  = sum_{i<j<k} z_i z_j z_k (R_ij R_ik R_jk)^b           JHEP 06 (2013) 108
    1e3(b) = sum_{i<j<k} z_i z_j z_k min(R_ij, R_ik, R_jk)^b      Moult, Necib and Thaler,
    2e3(b) = the same with the product of the two smallest        JHEP 12 (2016) 153

    C1 = e2    C2 = e3 / e2^2    D2(a, b) = e3(a) / e2(b)^(3 a / b)    (D2(b) = D2(b, b))
    M2 = 1e3 / e2    N2 = 2e3 / e2^2

The mass and all correlators are of the jet after mMDT (z_cut = 0.1); the multiplicity and
sum z ln z are of the whole jet. A ratio whose denominator is zero, as for a jet groomed down to
one constituent, is set to zero.
"""

from __future__ import annotations

import numpy as np

from hqc.codesign.jets.clustering import Array, cluster, four_vectors, mass_drop, separation

NAMES: tuple[str, ...] = (
    *("zlogz", "c1_b0_mmdt", "c1_b1_mmdt", "c1_b2_mmdt", "c2_b1_mmdt", "c2_b2_mmdt"),
    *("d2_b1_mmdt", "d2_b2_mmdt", "d2_a1_b1_mmdt", "d2_a1_b2_mmdt"),
    *("m2_b1_mmdt", "m2_b2_mmdt", "n2_b1_mmdt", "n2_b2_mmdt", "mass_mmdt", "multiplicity"),
)
CHUNK = 256
"""Jets handled at once: their distance matrices should stay near the cache."""


def observables(constituents: Array, *, z_cut: float = 0.1) -> Array:
    """Compute the observables, (N, 16) in the order of `NAMES`.

    `constituents` is (N, C, 3): pT in GeV (any unit: only the mass scales), eta and phi, relative
    to an axis or not; a pT of zero is padding. Cost grows as C^3 with the largest jet of a chunk,
    so jets are handled in the order of their size.
    """
    found = np.asarray(constituents, dtype=np.float64)
    count = np.count_nonzero(found[..., 0] > 0, axis=1)
    result = np.zeros((len(found), len(NAMES)))
    by_size = np.argsort(count, kind="stable")
    for start in range(0, len(found), CHUNK):
        rows = by_size[start : start + CHUNK]
        size = max(int(count[rows].max()), 1)
        result[rows] = _chunk(_hardest_first(found[rows])[:, :size], z_cut)
    return result


def _hardest_first(constituents: Array) -> Array:
    order = np.argsort(-constituents[..., 0], axis=1, kind="stable")
    return np.take_along_axis(constituents, order[..., None], axis=1)


def _chunk(constituents: Array, z_cut: float) -> Array:
    kept = mass_drop(cluster(four_vectors(constituents)), z_cut)
    groomed = _hardest_first(np.where(kept[..., None], constituents, 0.0))
    groomed = groomed[:, : int(kept.sum(axis=1).max())]
    found = shapes(groomed)
    found["zlogz"] = z_log_z(constituents[..., 0])
    found["mass_mmdt"] = mass(groomed)
    found["multiplicity"] = np.count_nonzero(constituents[..., 0] > 0, axis=1).astype(np.float64)
    return np.stack([found[name] for name in NAMES], axis=1)


def mass(constituents: Array) -> Array:
    """Invariant mass (B,) of massless constituents (B, n, 3), in the unit of pT."""
    energy, px, py, pz = np.moveaxis(four_vectors(constituents).sum(axis=1), -1, 0)
    squared: Array = (energy - pz) * (energy + pz) - px * px - py * py
    return np.sqrt(np.maximum(squared, 0.0))


def z_log_z(pt: Array) -> Array:
    """Sum of z ln z (B,) over transverse momenta (B, n), with 0 ln 0 = 0."""
    z = _fractions(pt)
    total: Array = (z * np.log(np.where(z > 0, z, 1.0))).sum(axis=1)
    return total


def shapes(constituents: Array) -> dict[str, Array]:
    """C1, C2, D2, M2 and N2 (each (B,)) of all given constituents (B, n, 3)."""
    z = _fractions(constituents[..., 0])
    eta, phi = constituents[..., 1], constituents[..., 2]
    squared = separation(eta[:, :, None] - eta[:, None, :], phi[:, :, None] - phi[:, None, :])
    angle = {1: np.sqrt(squared), 2: squared}
    e2 = {b: 0.5 * np.einsum("bi,bij,bj->b", z, angle[b], z, optimize=True) for b in angle}
    e3 = {b: _product_of_three(z, angle[b]) for b in angle}
    smallest, two_smallest = _ordered_triples(z, angle[1])
    found = {"c1_b0_mmdt": 0.5 * (z.sum(axis=1) ** 2 - (z * z).sum(axis=1))}
    for b in (1, 2):
        found[f"c1_b{b}_mmdt"] = e2[b]
        found[f"c2_b{b}_mmdt"] = _ratio(e3[b], e2[b] ** 2)
        found[f"d2_b{b}_mmdt"] = _ratio(e3[b], e2[b] ** 3)
        found[f"m2_b{b}_mmdt"] = _ratio(smallest[b], e2[b])
        found[f"n2_b{b}_mmdt"] = _ratio(two_smallest[b], e2[b] ** 2)
    found["d2_a1_b1_mmdt"] = found["d2_b1_mmdt"]
    found["d2_a1_b2_mmdt"] = _ratio(e3[1], e2[2] ** 1.5)
    return found


def _fractions(pt: Array) -> Array:
    total = pt.sum(axis=1, keepdims=True)
    return pt / np.where(total > 0, total, 1.0)


def _ratio(numerator: Array, denominator: Array) -> Array:
    positive = denominator > 0
    return np.where(positive, numerator / np.where(positive, denominator, 1.0), 0.0)


def _product_of_three(z: Array, angle: Array) -> Array:
    """e3: with A_ij = z_i R_ij^b (zero on the diagonal) it is tr(A^3) / 6."""
    weighted = z[:, :, None] * angle
    cubed: Array = np.einsum("bij,bji->b", weighted @ weighted, weighted)
    return cubed / 6.0


def _ordered_triples(z: Array, angle: Array) -> tuple[dict[int, Array], dict[int, Array]]:
    """1e3 and 2e3 at beta 1 and 2: explicit sums over i < j < k."""
    jets, n = z.shape
    smallest = {b: np.zeros(jets) for b in (1, 2)}
    two_smallest = {b: np.zeros(jets) for b in (1, 2)}
    for i in range(n - 2):
        for j in range(i + 1, n - 1):
            near, far = angle[:, i, j + 1 :], angle[:, j, j + 1 :]
            pair = angle[:, i, j, None]
            low, high = np.minimum(near, far), np.maximum(near, far)
            least = np.minimum(pair, low)
            middle = np.minimum(high, np.maximum(pair, low))
            weight = (z[:, i] * z[:, j])[:, None] * z[:, j + 1 :]
            product = least * middle
            smallest[1] += np.einsum("bk,bk->b", weight, least)
            smallest[2] += np.einsum("bk,bk->b", weight, least * least)
            two_smallest[1] += np.einsum("bk,bk->b", weight, product)
            two_smallest[2] += np.einsum("bk,bk->b", weight, product * product)
    return smallest, two_smallest
