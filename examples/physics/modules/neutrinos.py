"""Muon neutrinos that interact in and around the detector, weighted with the atmospheric flux of nuflux.

Every neutrino is made to interact by charged current at a point of a cylinder; its weight, in Hz, is what that would
be in nature: flux at the surface, survival through the Earth, and the chance to interact in the cylinder's ice.

Sources: nuflux (IceCube), model H3a with Sibyll 2.3c; R. Gandhi et al., Phys. Rev. D 58, 093009, tables 1 and 2 (cross
sections); the simplest parton model for the inelasticity.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.modules import IPModule
from iceprod_p2p.modules.npz import write_npz
from iceprod_p2p.modules.seeds import stream_words

# Charged-current cross sections per nucleon, in cm^2, at 10, 10^2, ... 10^8 GeV.
CROSS_SECTION_NU = (7.77e-38, 6.97e-37, 6.25e-36, 4.54e-35, 1.96e-34, 6.11e-34, 1.76e-33, 4.78e-33)
CROSS_SECTION_ANTI = (3.68e-38, 3.49e-37, 3.38e-36, 2.92e-35, 1.62e-34, 5.82e-34, 1.74e-33, 4.78e-33)
QUARK_SHARE = 0.85  # of the nucleon's momentum carried by quarks rather than antiquarks

RADIUS_M, HEIGHT_M = 300.0, 600.0  # of the cylinder around the detector's centre
NUCLEONS_PER_M3 = 0.917e6 * 6.022e23  # in ice
EARTH_RADIUS_KM, CORE_RADIUS_KM = 6371.0, 3480.0
MANTLE_DENSITY, CORE_DENSITY = 4.45, 10.9  # means, in g/cm^3
MUON, HADRONS = 13, 211  # hadronic cascades carry the code of a pion


class GenerateNeutrinos(IPModule):
    """Generate weighted charged-current interactions of muon neutrinos and antineutrinos from below."""

    def __init__(self) -> None:
        super().__init__()
        self.AddParameter("seed", "the job's seed", 0, "int")
        self.AddParameter("stream", "name of the random stream", "neutrinos", "string")
        self.AddParameter("neutrinos", "neutrinos to generate", 20, "int")
        self.AddParameter("energy_min", "lowest energy, in GeV", 1e2, "float")
        self.AddParameter("energy_max", "highest energy, in GeV", 1e6, "float")
        self.AddParameter("index", "spectral index of the energies drawn", 1.5, "float")
        self.AddParameter("flux", "name of nuflux's model", "H3a_SIBYLL23C", "string")
        self.AddParameter("outfile", "file to write", "neutrinos.npz", "string")

    def Execute(self, stats):
        """Write the neutrinos and the muon and cascade of each; report the sample."""
        if not super().Execute(stats):
            return 0
        if self.GetParameter("neutrinos") < 1:
            raise BadInput("there is nothing to generate", remedy="set 'neutrinos' to 1 or more")
        import numpy as np

        words = stream_words(self.GetParameter("seed"), self.GetParameter("stream"))
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
        events = self._events(np, rng)
        particles = interaction_products(np, rng, events)
        outfile = Path(self.GetParameter("outfile"))
        size_bytes = write_npz(outfile, {**events, **particles})
        digest = hashlib.sha256(outfile.read_bytes()).hexdigest()
        self.logger.info("%s: %d neutrinos, sha256 %s", outfile, len(events["energy"]), digest)
        stats["generated"] = len(events["energy"])
        stats["events"] = len(events["energy"])
        stats["mean_energy_gev"] = events["energy"].mean()
        stats["weight_sum_hz"] = events["weight"].sum()
        stats["output_bytes"] = size_bytes
        return 0

    def _events(self, np, rng):
        """Draw kinds, energies and directions from below, and weigh them."""
        import nuflux

        count, index = self.GetParameter("neutrinos"), self.GetParameter("index")
        low, high = self.GetParameter("energy_min"), self.GetParameter("energy_max")
        power = 1.0 - index
        uniform = rng.uniform(size=count)
        energy = (low**power + uniform * (high**power - low**power)) ** (1 / power)
        density = power * energy**-index / (high**power - low**power)
        cosine = rng.uniform(-1.0, 0.0, count)
        anti = rng.uniform(size=count) < 0.5
        codes = np.where(anti, int(nuflux.NuMuBar), int(nuflux.NuMu))
        model = nuflux.makeFlux(self.GetParameter("flux"))
        kinds = [nuflux.NuMuBar if flag else nuflux.NuMu for flag in anti]
        flux = np.array([model.getFlux(*drawn) for drawn in zip(kinds, energy, cosine, strict=True)]) * 1e4
        sections = cross_section(np, energy, anti)
        survival = np.exp(-sections * earth_column(np, cosine) * 6.022e23)
        targets = NUCLEONS_PER_M3 * np.pi * RADIUS_M**2 * HEIGHT_M
        # Flux per m^2 times targets times cross section in m^2, over the solid angle 2 pi and both kinds.
        rate = flux * targets * sections * 1e-4 * survival * 2 * np.pi
        return {
            "energy": energy,
            "zenith": np.arccos(cosine),
            "azimuth": rng.uniform(0.0, 2 * np.pi, count),
            "weight": rate / (density * 0.5 * count),
            "primary": codes.astype("int64"),
        }


def cross_section(np, energy, anti):
    """Return the charged-current cross section per nucleon in cm^2, between the table's points by powers."""
    decades = np.log10(energy)
    points = np.arange(1, 1 + len(CROSS_SECTION_NU))
    neutrino = np.interp(decades, points, np.log10(CROSS_SECTION_NU))
    antineutrino = np.interp(decades, points, np.log10(CROSS_SECTION_ANTI))
    return 10.0 ** np.where(anti, antineutrino, neutrino)


def earth_column(np, cosine):
    """Return the matter on the way through the Earth, in g/cm^2: a core in a mantle, each of one density."""
    chord = -2 * EARTH_RADIUS_KM * cosine
    closest = EARTH_RADIUS_KM * np.sqrt(1 - cosine**2)
    in_core = 2 * np.sqrt(np.maximum(0.0, CORE_RADIUS_KM**2 - closest**2))
    return 1e5 * (MANTLE_DENSITY * (chord - in_core) + CORE_DENSITY * in_core)


def interaction_products(np, rng, events):
    """Share each neutrino's energy between a muon and a hadronic cascade at a point of the cylinder."""
    count = len(events["energy"])
    from_quark = rng.uniform(size=count) < np.where(events["primary"] > 0, QUARK_SHARE, 1 - QUARK_SHARE)
    uniform = rng.uniform(size=count)
    # Neutrinos see quarks with a flat inelasticity y, antiquarks with (1 - y)^2; antineutrinos the reverse.
    inelasticity = np.where(from_quark, uniform, 1 - uniform ** (1 / 3))
    radius, angle = RADIUS_M * np.sqrt(rng.uniform(size=count)), rng.uniform(0, 2 * np.pi, count)
    height = rng.uniform(-HEIGHT_M / 2, HEIGHT_M / 2, count)
    position = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
    zenith, azimuth = events["zenith"], events["azimuth"]
    along = -np.stack(
        [np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth), np.cos(zenith)], axis=1
    )
    muon, cascade = events["energy"] * (1 - inelasticity), events["energy"] * inelasticity
    return {
        "particle_event": np.repeat(np.arange(count), 2),
        "particle_code": np.tile(np.array([MUON, HADRONS]), count),
        "particle_energy": np.stack([muon, cascade], axis=1).reshape(-1),
        "particle_position": np.repeat(position, 2, axis=0),
        "particle_direction": np.repeat(along, 2, axis=0),
    }
