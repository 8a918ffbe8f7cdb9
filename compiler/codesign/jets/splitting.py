"""Angular-ordered parton shower of many jets at once, by the Sudakov veto algorithm.

At leading logarithmic accuracy a parton of transverse momentum pT radiates with

    dP = d(theta^2)/theta^2 dz alpha_s(kT)/(2 pi) P(z),    kT = min(z, 1-z) theta pT,

where theta is a distance in (eta, phi), angles decrease along the shower (colour coherence:
Marchesini and Webber, NPB 238 (1984) 1) and kT stays above a cutoff. The kernels (Altarelli and
Parisi, NPB 126 (1977) 298), with g -> g g folded so that only z = 0 is singular, are

    q -> q g   C_F (1 + (1-z)^2) / z          g -> g g   C_A (2 (1-z)/z + z (1-z))
    g -> q q   n_f T_R (z^2 + (1-z)^2)

alpha_s runs at one loop with five flavours from m_Z. A heavy parton does not
radiate inside its dead cone theta < m / pT. The branches take z and 1-z of the pT and stand at
(1-z) theta and z theta from the parent at a uniform azimuth. There are no higher orders, matrix
elements, spin correlations, soft interference beyond the ordering, or initial-state radiation.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]

C_F, C_A, T_R, N_F = 4.0 / 3.0, 3.0, 0.5, 5
M_Z = 91.1876
ALPHA_MZ = 0.118 * (1.0 + 0.118 / (2.0 * np.pi) * (C_A * (67 / 18 - np.pi**2 / 6) - 5 / 9 * N_F))
"""The MS-bar value 0.118 in the scheme that suits soft emission (Catani, Marchesini and Webber,
NPB 349 (1991) 635): 0.1257."""
KT_CUT = 1.0
"""Smallest transverse momentum of an emission, GeV."""
GLUON, QUARK = 0, 1
_MARGIN = 1e-9


@dataclass(frozen=True)
class Partons:
    """A flat list of partons; every field is (M,).

    `system` says whose radiation it is (any index of the caller), `flavour` GLUON or QUARK, `pt`
    in GeV, `angle` the largest and `dead` the smallest angle at which the parton may still split.
    """

    system: Index
    flavour: Index
    pt: Array
    eta: Array
    phi: Array
    angle: Array
    dead: Array

    def __len__(self) -> int:
        return len(self.system)

    def take(self, which: Index | NDArray[np.bool_]) -> Partons:
        """Select by index or mask."""
        return Partons(**{f.name: getattr(self, f.name)[which] for f in fields(self)})

    def but(self, **changes: Array | Index) -> Partons:
        """Copy with some fields replaced."""
        return Partons(**{f.name: changes.get(f.name, getattr(self, f.name)) for f in fields(self)})


def join(parts: list[Partons]) -> Partons:
    """Concatenate lists of partons."""
    names = [f.name for f in fields(Partons)]
    return Partons(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in names})


def alpha_s(kt: Array | float) -> Array:
    """One-loop strong coupling at kT (GeV), frozen below the cutoff of the shower."""
    beta0 = (11.0 * C_A - 4.0 * T_R * N_F) / (12.0 * np.pi)
    scale = np.maximum(np.asarray(kt, dtype=np.float64), KT_CUT)
    return ALPHA_MZ / (1.0 + 2.0 * ALPHA_MZ * beta0 * np.log(scale / M_Z))


def kernel(flavour: Index, z: Array) -> Array:
    """Sum of the splitting functions of a flavour at z; it is below 2 C / z everywhere."""
    quark = C_F * (1.0 + (1.0 - z) ** 2) / z
    return np.where(flavour == QUARK, quark, _gluon_to_gluons(z) + _gluon_to_quarks(z))


def _gluon_to_gluons(z: Array) -> Array:
    return C_A * (2.0 * (1.0 - z) / z + z * (1.0 - z))


def _gluon_to_quarks(z: Array) -> Array:
    return N_F * T_R * (z * z + (1.0 - z) ** 2)


def shower(partons: Partons, random: np.random.Generator) -> Partons:
    """Let every parton radiate down to the cutoff; returns the final partons.

    The sum of pT of each system is conserved. The order of the result follows the random numbers
    and is reproducible for a given generator state.
    """
    active, done = partons, []
    while len(active):
        angle, z, accepted = _trial(active, random)
        alive = (angle > active.dead) & (active.pt * angle > 2.0 * KT_CUT)
        done.append(active.take(~alive))
        rest = active.but(angle=angle)
        keep, split = rest.take(alive & ~accepted), alive & accepted
        active = join([keep, *_split(rest.take(split), z[split], random)])
    return join([*done, active])


def _trial(partons: Partons, random: np.random.Generator) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Draw the next angle and z of each parton from the overestimate, and whether it is real.

    The overestimate 2 C alpha_max / (2 pi) / z on kT_cut / (pT angle) < z < 1 integrates to a
    constant rate in ln theta^2, so that the next angle is a power of a uniform number.
    """
    size = len(partons)
    colour = np.where(partons.flavour == QUARK, C_F, C_A)
    ceiling = float(alpha_s(KT_CUT))
    lowest = np.log(np.minimum(KT_CUT / (partons.pt * partons.angle), 1.0 - _MARGIN))
    rate = -lowest * 2.0 * colour * ceiling / (2.0 * np.pi)
    angle = partons.angle * random.random(size) ** (0.5 / rate)
    z = np.exp(lowest * random.random(size))
    kt = np.minimum(z, 1.0 - z) * angle * partons.pt
    chance = kernel(partons.flavour, z) * z / (2.0 * colour) * alpha_s(kt) / ceiling
    return angle, z, (random.random(size) < chance) & (kt > KT_CUT)


def _split(parents: Partons, z: Array, random: np.random.Generator) -> list[Partons]:
    """The two branches of each parent: z, then 1-z, which keeps the dead cone of a heavy quark."""
    azimuth = 2.0 * np.pi * random.random(len(parents))
    quarks = _gluon_to_quarks(z)
    share = quarks / (quarks + _gluon_to_gluons(z))
    to_quarks = (parents.flavour == GLUON) & (random.random(len(parents)) < share)
    softer = np.where(to_quarks, QUARK, GLUON)
    harder = np.where(to_quarks, QUARK, parents.flavour)
    branches = []
    for fraction, side, flavour in ((z, 1.0 - z, softer), (1.0 - z, -z, harder)):
        shift = side * parents.angle
        branches.append(
            parents.but(
                flavour=flavour,
                pt=parents.pt * fraction,
                eta=parents.eta + shift * np.cos(azimuth),
                phi=parents.phi + shift * np.sin(azimuth),
            )
        )
    branches[0] = branches[0].but(dead=np.zeros(len(parents)))
    return branches
