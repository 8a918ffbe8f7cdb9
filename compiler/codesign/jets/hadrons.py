"""From partons to what a detector sees: hadronisation, underlying event, resolution, the cone.

These are parametrisations, chosen for plausible sizes and not fitted to data:

- each final parton of momentum pT breaks into 1 + 0.45 s ln(1 + pT / GeV) hadrons, rounded up or
  down at random, with s the number of colour strings that end on it: one for a quark, two for a
  gluon (Lund: Andersson et al., Phys. Rep. 97 (1983) 31). They share its pT at random and are
  kicked sideways by about 0.3 GeV;
- the underlying event is a Poisson number of soft particles, uniform in the cone;
- each particle is smeared in pT and angle; the jet as a whole in pT, for the energy scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hqc.codesign.jets.splitting import GLUON, Partons

Array = NDArray[np.float64]
Index = NDArray[np.int64]

RADIUS = 0.8


@dataclass(frozen=True)
class Detector:
    """Resolution, cuts and underlying event. Momenta in GeV, angles in (eta, phi).

    `scale` is the relative spread of the pT of whole jets; a particle's own relative spread is
    `stochastic` / sqrt(pT) and `constant` in quadrature. `angle` smears eta and phi, `threshold`
    is the smallest pT seen. The underlying event has a mean number of particles in the cone and a
    mean pT of each.
    """

    scale: float = 0.02
    stochastic: float = 0.3
    constant: float = 0.03
    angle: float = 0.002
    threshold: float = 0.5
    underlying_particles: float = 5.0
    underlying_pt: float = 0.8


@dataclass(frozen=True)
class Particles:
    """A flat list of massless particles: jet index, pT in GeV, eta, phi; every field is (M,)."""

    jet: Index
    pt: Array
    eta: Array
    phi: Array

    def where(self, mask: NDArray[np.bool_]) -> Particles:
        """Select by mask."""
        return Particles(self.jet[mask], self.pt[mask], self.eta[mask], self.phi[mask])


def hadronise(
    partons: Partons, random: np.random.Generator, *, rate: float = 0.45, kick: float = 0.3
) -> Particles:
    """Break partons into hadrons that share its pT and keep its direction on average.

    `rate` is hadrons per string and unit of ln pT, `kick` a spread per component in GeV.
    """
    strings = np.where(partons.flavour == GLUON, 2.0, 1.0)
    extra = (rate * strings * np.log1p(partons.pt) + random.random(len(partons))).astype(np.int64)
    parent = np.repeat(np.arange(len(partons)), 1 + extra)
    share = random.exponential(size=len(parent))
    share /= np.bincount(parent, weights=share, minlength=len(partons))[parent]
    pt = partons.pt[parent] * share
    width = np.where(extra[parent] > 0, np.minimum(kick / pt, 0.3), 0.0)
    eta = partons.eta[parent] + width * random.standard_normal(len(parent))
    phi = partons.phi[parent] + width * random.standard_normal(len(parent))
    return Particles(partons.system[parent], pt, eta, phi)


def observe(
    particles: Particles, jets: int, detector: Detector, random: np.random.Generator
) -> Particles:
    """Add the underlying event, smear, cut in pT and keep what is within the radius of the axis.

    The axis is the pT-weighted centre, found twice (after the first pass has dropped what is out
    of the cone), and the result is relative to it.
    """
    soft = _underlying(jets, detector, random)
    pairs = zip(_fields(particles), _fields(soft), strict=True)
    seen = _smear(Particles(*(np.concatenate(pair) for pair in pairs)), jets, detector, random)
    for _ in range(2):
        seen = _centred(seen, jets)
        seen = seen.where(seen.eta**2 + seen.phi**2 < RADIUS**2)
    return seen


def _fields(p: Particles) -> tuple[Index, Array, Array, Array]:
    return p.jet, p.pt, p.eta, p.phi


def _underlying(jets: int, detector: Detector, random: np.random.Generator) -> Particles:
    jet = np.repeat(np.arange(jets), random.poisson(detector.underlying_particles, jets))
    distance = RADIUS * np.sqrt(random.random(len(jet)))
    azimuth = 2.0 * np.pi * random.random(len(jet))
    pt = random.exponential(detector.underlying_pt, len(jet))
    return Particles(jet, pt, distance * np.cos(azimuth), distance * np.sin(azimuth))


def _smear(p: Particles, jets: int, detector: Detector, random: np.random.Generator) -> Particles:
    scale = 1.0 + detector.scale * random.standard_normal(jets)
    relative = np.hypot(detector.stochastic / np.sqrt(p.pt), detector.constant)
    pt = p.pt * scale[p.jet] * (1.0 + relative * random.standard_normal(len(p.pt)))
    eta = p.eta + detector.angle * random.standard_normal(len(p.pt))
    phi = p.phi + detector.angle * random.standard_normal(len(p.pt))
    return Particles(p.jet, pt, eta, phi).where(pt > detector.threshold)


def _centred(p: Particles, jets: int) -> Particles:
    total = np.bincount(p.jet, weights=p.pt, minlength=jets)
    total = np.where(total > 0, total, 1.0)
    eta = np.bincount(p.jet, weights=p.pt * p.eta, minlength=jets) / total
    phi = np.bincount(p.jet, weights=p.pt * p.phi, minlength=jets) / total
    return Particles(p.jet, p.pt, p.eta - eta[p.jet], p.phi - phi[p.jet])


def pack(particles: Particles, jets: int, hardest: int) -> tuple[Array, Index]:
    """Padded constituents (jets, hardest, 3) in falling pT, and the full multiplicity (jets,)."""
    order = np.lexsort((-particles.pt, particles.jet))
    jet = particles.jet[order]
    multiplicity = np.bincount(jet, minlength=jets)
    first = np.concatenate([[0], np.cumsum(multiplicity)[:-1]])
    rank = np.arange(len(jet)) - first[jet]
    kept = rank < hardest
    packed = np.zeros((jets, hardest, 3))
    for column, values in enumerate((particles.pt, particles.eta, particles.phi)):
        packed[jet[kept], rank[kept], column] = values[order][kept]
    return packed, multiplicity
