"""Cambridge/Aachen declustering and the modified mass-drop tagger, for many jets at once.

References: Cambridge/Aachen, Dokshitzer et al., JHEP 08 (1997) 001; mMDT, Dasgupta, Fregoso,
Marzani and Salam, JHEP 09 (2013) 029; its equality with soft drop at beta = 0, Larkoski, Marzani,
Soyez and Thaler, JHEP 05 (2014) 146. Four-vectors are (E, px, py, pz) in GeV and are added when
two pseudojets merge (E scheme).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class History:
    """Merges of B jets of at most n constituents.

    Nodes 0..n-1 are the constituents, node n+s is what merge s made. `children` is (B, n-1, 2),
    -1 where a jet had nothing left to merge; `pt` is (B, 2n-1) in GeV; `root` is (B,).
    """

    children: Index
    pt: Array
    root: Index


def four_vectors(constituents: Array) -> Array:
    """Massless (E, px, py, pz) of (..., 3) rows of pT, eta, phi; the last axis becomes 4."""
    pt, eta, phi = np.moveaxis(constituents, -1, 0)
    return np.stack(
        [pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=-1
    )


def rapidity_azimuth(p: Array) -> tuple[Array, Array]:
    """Rapidity 1/2 ln((E+pz)/(E-pz)) and azimuth of (..., 4) vectors; zero vectors give zeros."""
    energy, px, py, pz = np.moveaxis(p, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        rapidity = np.arctanh(pz / energy)
    return np.where(energy > 0, rapidity, 0.0), np.arctan2(py, px)


def separation(dy: Array, dphi: Array) -> Array:
    """Squared distance dy^2 + dphi^2 with the azimuth wrapped into [-pi, pi]."""
    wrapped = np.abs(dphi)
    wrapped = np.minimum(wrapped, np.abs(2 * np.pi - wrapped))
    squared: Array = dy * dy + wrapped * wrapped
    return squared


def cluster(p: Array) -> History:
    """Recluster (B, n, 4) constituents with Cambridge/Aachen and no radius limit.

    The closest pair in (rapidity, azimuth) merges first. Constituents must stand before the
    padding, which is zero vectors. The cost is n distance scans of (B, n, n).
    """
    jets, n, _ = p.shape
    p, row = p.copy(), np.arange(jets)
    count = np.count_nonzero(p[..., 0] > 0, axis=1)
    y, phi = rapidity_azimuth(p)
    distance = separation(y[:, :, None] - y[:, None, :], phi[:, :, None] - phi[:, None, :])
    live = np.arange(n) < count[:, None]
    distance[~(live[:, :, None] & live[:, None, :]) | np.eye(n, dtype=bool)] = np.inf
    node = np.tile(np.arange(n), (jets, 1))
    children = np.full((jets, max(n - 1, 0), 2), -1)
    pt = np.zeros((jets, 2 * n - 1))
    pt[:, :n] = np.hypot(p[..., 1], p[..., 2])
    for step in range(int(count.max(initial=1)) - 1):
        first, second = np.divmod(distance.reshape(jets, -1).argmin(axis=1), n)
        todo = np.flatnonzero(step < count - 1)
        b, i, j = row[todo], first[todo], second[todo]
        children[b, step, 0], children[b, step, 1] = node[b, i], node[b, j]
        node[b, i] = n + step
        p[b, i] += p[b, j]
        pt[b, n + step] = np.hypot(p[b, i, 1], p[b, i, 2])
        y[b, i], phi[b, i] = rapidity_azimuth(p[b, i])
        live[b, j] = False
        fresh = separation(y[b] - y[b, i, None], phi[b] - phi[b, i, None])
        fresh[~live[b]] = np.inf
        fresh[np.arange(len(b)), i] = np.inf
        distance[b, i, :] = distance[b, :, i] = fresh
        distance[b, j, :] = distance[b, :, j] = np.inf
    root = np.where(count > 1, n + count - 2, 0)
    return History(children, pt, root)


def mass_drop(history: History, z_cut: float = 0.1) -> NDArray[np.bool_]:
    """Constituents that mMDT keeps, as a (B, n) mask.

    From the root, the softer branch is dropped until min(pT_a, pT_b) / (pT_a + pT_b) > z_cut.
    A jet with no such splitting is left with a single constituent, hence with zero mass.
    """
    jets, merges, _ = history.children.shape
    n, row = merges + 1, np.arange(jets)
    current, todo = history.root.copy(), history.root >= n
    while todo.any():
        b = row[todo]
        pair = history.children[b, current[b] - n]
        pt = np.take_along_axis(history.pt[b], pair, axis=1)
        drop = pt.min(axis=1) <= z_cut * pt.sum(axis=1)
        harder = np.take_along_axis(pair, pt.argmax(axis=1)[:, None], axis=1)[:, 0]
        current[b[drop]] = harder[drop]
        todo[b[~drop]] = False
        todo &= current >= n
    inside = np.zeros((jets, 2 * n - 1), dtype=bool)
    inside[row, current] = True
    for step in range(merges - 1, -1, -1):
        b = row[inside[:, n + step]]
        for branch in range(2):
            inside[b, history.children[b, step, branch]] = True
    return inside[:, :n]
