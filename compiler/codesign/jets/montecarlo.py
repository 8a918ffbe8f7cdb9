"""A small Monte Carlo of quark, gluon, W, Z and top jets at pT about 1 TeV.

Quarks and gluons shower from the jet radius. W and Z decay to two quarks, which shower below their
opening angle, as a colour singlet does. A top radiates outside its dead cone, then decays through
t -> b W -> b q q. Everything is hadronised and observed by `hadrons`. It is a toy: leading
logarithms, no parton densities, no hard matrix elements, no decay polarisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hqc.codesign.jets import decays
from hqc.codesign.jets.clustering import four_vectors, rapidity_azimuth
from hqc.codesign.jets.decays import Array, Index
from hqc.codesign.jets.hadrons import Detector, Particles, hadronise, observe, pack
from hqc.codesign.jets.splitting import GLUON, QUARK, Partons, shower

CLASSES: tuple[str, ...] = ("g", "q", "w", "z", "t")
"""Order of the labels: gluon, light quark, W, Z, top."""
START_ANGLE = 0.8
HARDEST = 64
CHUNK = 2000
PT, PT_SPREAD = 1000.0, 50.0


@dataclass(frozen=True)
class Jets:
    """Generated jets. `constituents` (N, 64, 3) is pT in GeV, eta and phi from the axis, hardest
    first, padded with zeros; `multiplicity` (N,) counts before that cut; `labels` (N,) index
    CLASSES.
    """

    constituents: Array
    multiplicity: Index
    labels: Index


def generate(n: int, seed: int, *, detector: Detector | None = None) -> Jets:
    """Generate n jets, the classes in turn, then shuffled; the same for the same n and seed."""
    detector = detector or Detector()
    streams = np.random.SeedSequence(seed).spawn(n // CHUNK + 2)
    labels = np.arange(n) % len(CLASSES)
    np.random.default_rng(streams[-1]).shuffle(labels)
    constituents = np.zeros((n, HARDEST, 3))
    multiplicity = np.zeros(n, dtype=np.int64)
    for chunk, start in enumerate(range(0, n, CHUNK)):
        random = np.random.default_rng(streams[chunk])
        mine = labels[start : start + CHUNK]
        for label, name in enumerate(CLASSES):
            rows = start + np.flatnonzero(mine == label)
            seen = observe(_particles(name, len(rows), random), len(rows), detector, random)
            constituents[rows], multiplicity[rows] = pack(seen, len(rows), HARDEST)
    return Jets(constituents, multiplicity, labels)


def _particles(name: str, n: int, random: np.random.Generator) -> Particles:
    pt = random.normal(PT, PT_SPREAD, n)
    if name in ("g", "q"):
        flavour = GLUON if name == "g" else QUARK
        return hadronise(shower(_along_axis(flavour, pt), random), random)
    if name == "t":
        return _top(pt, random)
    parameters = (decays.M_W, decays.WIDTH_W) if name == "w" else (decays.M_Z, decays.WIDTH_Z)
    mass = decays.breit_wigner(*parameters, n, random)
    return _boson(np.stack([np.hypot(mass, pt), pt, 0 * pt, 0 * pt], axis=1), random)


def _along_axis(flavour: int, pt: Array, dead: Array | float = 0.0) -> Partons:
    n, zero = len(pt), np.zeros(len(pt))
    return Partons(
        system=np.arange(n),
        flavour=np.full(n, flavour),
        pt=pt,
        eta=zero,
        phi=zero,
        angle=np.full(n, START_ANGLE),
        dead=zero + dead,
    )


def _prong(p: Array, partner: Array, dead: Array | float = 0.0) -> Partons:
    """Quarks of four-vectors p (B, 4) that radiate within the angle to their partner."""
    n = len(p)
    pt = np.hypot(p[:, 1], p[:, 2])
    eta, phi = np.arcsinh(p[:, 3] / pt), np.arctan2(p[:, 2], p[:, 1])
    other, azimuth = rapidity_azimuth(partner)
    turn = np.abs(phi - azimuth)
    opening = np.hypot(eta - other, np.minimum(turn, 2 * np.pi - turn))
    angle = np.minimum(opening, START_ANGLE)
    return Partons(np.arange(n), np.full(n, QUARK), pt, eta, phi, angle, np.zeros(n) + dead)


def _vectors(particles: Particles) -> Array:
    return four_vectors(np.stack([particles.pt, particles.eta, particles.phi], axis=1))


def _merged(parts: list[tuple[Index, Array]]) -> Particles:
    """Particles of (jet, four-vector) lists."""
    p = np.concatenate([vectors for _, vectors in parts])
    pt = np.hypot(p[:, 1], p[:, 2])
    eta, phi = np.arcsinh(p[:, 3] / pt), np.arctan2(p[:, 2], p[:, 1])
    return Particles(np.concatenate([jet for jet, _ in parts]), pt, eta, phi)


def _boson(parent: Array, random: np.random.Generator) -> Particles:
    """Showered and hadronised two-prong decays of (B, 4) parents, adding up to the parents."""
    system, p = _boson_products(parent, random)
    return _merged([(system, decays.remass(p, system, parent))])


def _boson_products(parent: Array, random: np.random.Generator) -> tuple[Index, Array]:
    massless = np.zeros(len(parent))
    one, two = decays.two_body(parent, massless, massless, random)
    parts = []
    for p, partner in ((one, two), (two, one)):
        found = hadronise(shower(_prong(p, partner), random), random)
        parts.append((found.jet, _vectors(found)))
    return np.concatenate([jet for jet, _ in parts]), np.concatenate([p for _, p in parts])


def _top(pt: Array, random: np.random.Generator) -> Particles:
    """Tops that radiate, then decay to three prongs with the true W and top masses."""
    n = len(pt)
    mass = decays.breit_wigner(decays.M_TOP, decays.WIDTH_TOP, n, random)
    mass_w = decays.breit_wigner(decays.M_W, decays.WIDTH_W, n, random)
    radiated = shower(_along_axis(QUARK, pt, mass / pt), random)
    gluons = hadronise(radiated.take(radiated.dead == 0.0), random)
    tops = radiated.take(radiated.dead > 0.0)
    tops = tops.take(np.argsort(tops.system, kind="stable"))
    parent = _massive(tops, mass)
    bottom, boson = decays.two_body(parent, np.full(n, decays.M_BOTTOM), mass_w, random)
    dead = decays.M_BOTTOM / np.hypot(bottom[:, 1], bottom[:, 2])
    b_jet = hadronise(shower(_prong(bottom, boson, dead), random), random)
    p_b, b_lab = _recoil(b_jet, parent, mass_w)
    system, products = _boson_products(boson, random)
    p_w = decays.remass(products, system, parent - b_lab)
    return _merged([(gluons.jet, _vectors(gluons)), (b_jet.jet, p_b), (system, p_w)])


def _massive(partons: Partons, mass: Array) -> Array:
    """Four-vectors of partons given a mass, their pT, rapidity and azimuth kept."""
    transverse = np.hypot(mass, partons.pt)
    return np.stack(
        [
            transverse * np.cosh(partons.eta),
            partons.pt * np.cos(partons.phi),
            partons.pt * np.sin(partons.phi),
            transverse * np.sinh(partons.eta),
        ],
        axis=1,
    )


def _recoil(b_jet: Particles, parent: Array, mass_w: Array) -> tuple[Array, Array]:
    """Products (M, 4) and totals (B, 4) of b jets, moved so that the rest of the top weighs a W.

    In the rest frame of the top, the b jet takes the momentum of a decay to a W and an object of
    the jet's own mass; a jet heavier than that allows is first scaled down to the limit.
    """
    n, jet = len(parent), b_jet.jet
    p = decays.boost(_vectors(b_jet), parent[jet], into=True)
    total, limit = decays.totals(p, jet, n), 0.95 * (decays.mass_of(parent) - mass_w)
    heavy = decays.mass_of(total) > limit
    if heavy.any():
        chosen, rank = heavy[jet], np.cumsum(heavy) - 1
        space = total[heavy, 1:]
        energy = np.hypot(limit[heavy], np.linalg.norm(space, axis=1))
        target = np.concatenate([energy[:, None], space], axis=1)
        p[chosen] = decays.remass(p[chosen], rank[jet[chosen]], target)
        total = decays.totals(p, jet, n)
    momentum = decays.breakup_momentum(decays.mass_of(parent), decays.mass_of(total), mass_w)
    p = decays.boost(decays.stretch(p, jet, momentum), parent[jet], into=False)
    return p, decays.totals(p, jet, n)
