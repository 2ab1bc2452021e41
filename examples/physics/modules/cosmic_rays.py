"""Cosmic-ray air showers: the first interactions in the atmosphere, and the muons that reach the detector.

Primaries are drawn from a power law; each nucleon of a primary interacts with nitrogen or oxygen in Sibyll 2.3d, run
by the package chromo (superposition: a nucleus of A nucleons is A nucleons of its energy per nucleon).  Charged pions
and kaons either interact again, and are dropped, or decay into a muon; a muon that survives the ice above the detector
is kept.  A shower's weight turns the drawn sample into the rate of the flux H3a, in Hz.

Sources: F. Riehn et al., Phys. Rev. D 102, 063002 (Sibyll 2.3d); T. K. Gaisser, Astropart. Phys. 35, 801 (flux H3a);
T. K. Gaisser, R. Engel, E. Resconi, Cosmic Rays and Particle Physics, chapter 6 (decay in the atmosphere).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.modules import IPModule
from iceprod_p2p.modules.npz import write_npz
from iceprod_p2p.modules.seeds import stream_words

# Name: nucleons, charge, relative number drawn, and the flux H3a's three populations (normalisation in
# (m^2 s sr GeV)^-1, spectral index) with cut-offs at rigidities of 4 PV, 30 PV and 2 EV.
NUCLEI = {
    "H": (1, 1, 5.0, ((7860.0, 2.66), (20.0, 2.4), (1.7, 2.4))),
    "He": (4, 2, 2.25, ((3550.0, 2.58), (20.0, 2.4), (1.7, 2.4))),
    "CNO": (14, 7, 1.1, ((2200.0, 2.63), (13.4, 2.4), (1.14, 2.4))),
    "MgSi": (27, 13, 1.2, ((1430.0, 2.67), (13.4, 2.4), (1.14, 2.4))),
    "Fe": (56, 26, 1.0, ((2120.0, 2.63), (13.4, 2.4), (1.14, 2.4))),
}
CUTOFF_RIGIDITIES_GV = (4e6, 3e7, 2e9)
NITROGEN_SHARE = 0.785  # of the atoms of air; the rest is taken as oxygen

# Decay of a meson against its next interaction: critical energy in GeV, share of decays into a muon, and the
# smallest share of the meson's energy that the muon takes, (m_mu / m_meson)^2.
MESONS = {211: (115.0, 1.0, 0.573), 321: (850.0, 0.635, 0.0458)}
MUON = 13

# Mean energy loss of muons in ice, dE/dX = -(a + b E), in GeV per metre of water and per metre of water.
LOSS_A, LOSS_B = 0.26, 3.6e-4
ICE_DENSITY = 0.917  # of water
DEPTH_M = 1950.0  # of the detector's centre
DISC_RADIUS_M = 300.0  # showers are aimed at a disc around the centre, perpendicular to them
BUNDLE_WIDTH_M = 10.0  # spread of a bundle's muons around its axis
START_M = 600.0  # muons start this far before the disc


class GenerateCosmicRays(IPModule):
    """Generate weighted air showers and the muons they send into the ice."""

    def __init__(self) -> None:
        super().__init__()
        self.AddParameter("seed", "the job's seed", 0, "int")
        self.AddParameter("stream", "name of the random stream", "cosmic_rays", "string")
        self.AddParameter("showers", "showers to generate", 24, "int")
        self.AddParameter("energy_min", "lowest energy per nucleon, in GeV", 1e4, "float")
        self.AddParameter("energy_max", "highest energy of a primary, in GeV", 1e8, "float")
        self.AddParameter("index", "spectral index of the energies drawn", 2.0, "float")
        self.AddParameter("zenith_max", "largest zenith angle, in degrees", 70.0, "float")
        self.AddParameter("outfile", "file to write", "cosmic_rays.npz", "string")

    def Execute(self, stats):
        """Write the showers whose muons reach the detector; report all that were generated."""
        if not super().Execute(stats):
            return 0
        if self.GetParameter("showers") < 1:
            raise BadInput("there is nothing to generate", remedy="set 'showers' to 1 or more")
        import numpy as np

        words = stream_words(self.GetParameter("seed"), self.GetParameter("stream"))
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
        primaries = self._primaries(np, rng)
        secondaries, balance, muons = self._interact(np, rng, primaries)
        kept = np.unique(muons["event"])
        events = {
            name: primaries[name][kept] for name in ("energy", "zenith", "azimuth", "weight", "primary")
        }
        muons["event"] = np.searchsorted(kept, muons["event"])
        outfile = Path(self.GetParameter("outfile"))
        particles = place_muons(np, rng, events, muons)
        size_bytes = write_npz(outfile, {**events, **particles})
        digest = hashlib.sha256(outfile.read_bytes()).hexdigest()
        self.logger.info("%s: %d showers of %d, sha256 %s", outfile, len(kept), len(secondaries), digest)
        stats["generated"] = len(secondaries)
        stats["events"] = len(kept)
        stats["muons"] = len(muons["event"])
        stats["mean_energy_gev"] = primaries["energy"].mean()
        stats["mean_multiplicity"] = secondaries.mean()
        stats["energy_balance"] = balance
        stats["weight_sum_hz"] = primaries["weight"].sum()
        stats["output_bytes"] = size_bytes
        return 0

    def _primaries(self, np, rng):
        """Draw nuclei, energies and directions; weigh them by the flux over the density drawn from."""
        showers = self.GetParameter("showers")
        shares = np.array([share for _, _, share, _ in NUCLEI.values()])
        shares /= shares.sum()
        kinds = rng.choice(len(shares), size=showers, p=shares)
        masses = np.array([mass for mass, _, _, _ in NUCLEI.values()])
        low = self.GetParameter("energy_min") * masses[kinds]
        high, index = self.GetParameter("energy_max"), self.GetParameter("index")
        energy, density = draw_power_law(np, rng, low, high, index)
        cosine_min = np.cos(np.radians(self.GetParameter("zenith_max")))
        cosine = rng.uniform(cosine_min, 1.0, showers)
        acceptance = np.pi * DISC_RADIUS_M**2 * 2 * np.pi * (1 - cosine_min)
        return {
            "mass": masses[kinds],
            "primary": kinds.astype("int64"),
            "energy": energy,
            "zenith": np.arccos(cosine),
            "azimuth": rng.uniform(0.0, 2 * np.pi, showers),
            "weight": h3a_flux(np, kinds, energy) * acceptance / (density * shares[kinds] * showers),
        }

    def _interact(self, np, rng, primaries):
        """Run the first interactions; return multiplicities, energy out over energy in, and the surviving muons."""
        from chromo.kinematics import FixedTarget
        from chromo.models import Sibyll23d

        generator = None
        secondaries, energy_out, energy_in = [], 0.0, 0.0
        muons = {"event": [], "energy": []}
        showers = zip(primaries["mass"], primaries["energy"], primaries["zenith"], strict=True)
        for shower, (mass, energy, zenith) in enumerate(showers):
            target = "N" if rng.uniform() < NITROGEN_SHARE else "O"
            kinematics = FixedTarget(float(energy / mass), "p", target)
            if generator is None:
                generator = Sibyll23d(kinematics, seed=rng.integers(2**32, size=4))
            generator.kinematics = kinematics
            count = 0
            for interaction in generator(int(mass)):
                final = interaction.final_state()
                count += len(final.pid)
                energy_out += final.en.sum()
                survivors = surviving_muons(np, rng, final.pid, final.en, np.cos(zenith))
                muons["event"] += [shower] * len(survivors)
                muons["energy"] += list(survivors)
            energy_in += energy
            secondaries.append(count)
            if shower % 10 == 0:
                self.context.progress(shower / len(primaries["mass"]))
        arrays = {"event": np.array(muons["event"], "int64"), "energy": np.array(muons["energy"], "float64")}
        return np.array(secondaries), energy_out / energy_in, arrays


def draw_power_law(np, rng, low, high, index):
    """Draw energies from E^-index between `low` and `high`; return them and the density at each, in 1/GeV."""
    uniform = rng.uniform(size=len(low))
    if index == 1.0:
        return low * (high / low) ** uniform, 1 / (low * (high / low) ** uniform * np.log(high / low))
    power = 1.0 - index
    energy = (low**power + uniform * (high**power - low**power)) ** (1 / power)
    return energy, power * energy**-index / (high**power - low**power)


def h3a_flux(np, kinds, energy):
    """Return the flux of each nucleus at its energy, in 1 / (GeV m^2 s sr)."""
    flux = np.zeros(len(energy))
    for kind, (_, charge, _, populations) in enumerate(NUCLEI.values()):
        chosen = kinds == kind
        for (norm, index), rigidity in zip(populations, CUTOFF_RIGIDITIES_GV, strict=True):
            flux[chosen] += norm * energy[chosen] ** -index * np.exp(-energy[chosen] / (charge * rigidity))
    return flux


def surviving_muons(np, rng, codes, energies, cosine):
    """Decay pions and kaons where they would before they interact; return the energies of muons at the detector."""
    found = []
    for code, (critical, branching, smallest) in MESONS.items():
        mesons = energies[np.abs(codes) == code]
        decays = rng.uniform(size=len(mesons)) < branching / (1 + mesons * cosine / critical)
        found.append(mesons[decays] * rng.uniform(smallest, 1.0, int(decays.sum())))
    at_surface = np.concatenate(found)
    depth = max(0.0, DEPTH_M / cosine - START_M) * ICE_DENSITY
    at_detector = (at_surface + LOSS_A / LOSS_B) * np.exp(-LOSS_B * depth) - LOSS_A / LOSS_B
    return at_detector[at_detector > 1.0]


def place_muons(np, rng, events, muons):
    """Put each bundle on a random axis through the disc; return the particles' table."""
    count = len(events["zenith"])
    zenith, azimuth = events["zenith"], events["azimuth"]
    along = -np.stack(
        [np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth), np.cos(zenith)], axis=1
    )
    side = np.stack([-np.sin(azimuth), np.cos(azimuth), np.zeros(count)], axis=1)
    up = np.cross(along, side)
    radius, angle = DISC_RADIUS_M * np.sqrt(rng.uniform(size=count)), rng.uniform(0, 2 * np.pi, count)
    axis = side * (radius * np.cos(angle))[:, None] + up * (radius * np.sin(angle))[:, None] - START_M * along
    event = muons["event"]
    spread = rng.normal(0.0, BUNDLE_WIDTH_M, (2, len(event)))
    position = axis[event] + side[event] * spread[0][:, None] + up[event] * spread[1][:, None]
    return {
        "particle_event": event,
        "particle_code": np.full(len(event), MUON, "int64"),
        "particle_energy": muons["energy"],
        "particle_position": np.ascontiguousarray(position),
        "particle_direction": np.ascontiguousarray(along[event]),
    }
