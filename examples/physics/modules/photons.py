"""Cherenkov photons in the ice: each is followed from scatter to scatter until it is absorbed or meets a sensor.

Muons shine along their track, cascades from a point.  Scattering follows Henyey and Greenstein; scattering and
absorption lengths depend on depth, with a dusty layer below the centre.  Two devices save time, as in IceCube's own
programs: sensors are drawn larger than they are and photons fewer in the same proportion (`oversize`), and an event
that shines too brightly is followed with fewer photons of more weight (`photons_max`).

The detector is a small IceCube: 19 strings 125 m apart, 30 sensors each, 17 m apart.  Written with NumPy alone; the
real programs do the same on GPUs, which is why this task asks for one and why it can do without.
Sources: D. Chirkin, Nucl. Instrum. Meth. A 725, 141 (ppc); M. G. Aartsen et al., Nucl. Instrum. Meth. A 711, 73 (ice);
L. Rädel and C. Wiebusch, Astropart. Phys. 38, 53 and 44, 102 (light of muons and cascades).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from iceprod_p2p.modules import IPModule
from iceprod_p2p.modules.npz import write_npz
from iceprod_p2p.modules.seeds import stream_words

SPACING_M, SENSOR_SPACING_M = 125.0, 17.0
RINGS, SENSORS_PER_STRING = 2, 30
SENSOR_RADIUS_M = 0.1651

PHOTONS_PER_M = 2450.0  # Cherenkov photons of a bare track, weighted with the sensors' efficiency by colour
CASCADE_M_PER_GEV = 5.2 * 0.9  # track length of a cascade, times the share of light that hadrons give
LOSS_B_PER_M = 3.6e-4 * 0.917  # share of its energy that a muon loses to cascades per metre of ice
LOSS_A_PER_M = 0.26 * 0.917  # GeV that it loses otherwise
VIEW_M = 370.0  # light further than this from the centre is left out: it would not reach a sensor
CHERENKOV_COSINE = 1 / 1.33
LIGHT_M_PER_NS = 0.299792458 / 1.356  # group velocity in ice
MUON = 13

# Scattering lengths are effective ones, as measured: (1 - g) of them is the way between two scatters.
EFFECTIVE_SCATTERING_M, ABSORPTION_M = 30.0, 110.0
DUST_HEIGHT_M, DUST_WIDTH_M, DUST_DEPTH = -100.0, 40.0, 3.0  # the layer, and how much dirtier it is
STEPS_MAX = 2_000  # bounds the work; a photon lives some 40 scatters


class PropagatePhotons(IPModule):
    """Propagate the light of every event to the sensors."""

    def __init__(self) -> None:
        super().__init__()
        self.AddParameter("seed", "the job's seed", 0, "int")
        self.AddParameter("stream", "name of the random stream", "photons", "string")
        self.AddParameter("infile", "events to light up", "combined.npz", "string")
        self.AddParameter("outfile", "file to write", "photons.npz", "string")
        self.AddParameter("oversize", "how much larger than real the sensors' radius is", 50.0, "float")
        self.AddParameter("photons_max", "most photons followed per event", 300, "int")
        self.AddParameter("asymmetry", "mean cosine g of the scattering angle", 0.9, "float")
        self.AddParameter("absorption", "factor on the absorption length", 1.0, "float")
        self.AddParameter("scattering", "factor on the scattering length", 1.0, "float")

    def Execute(self, stats):
        """Write what reached the sensors; report how the photons ended."""
        if not super().Execute(stats):
            return 0
        import numpy as np

        words = stream_words(self.GetParameter("seed"), self.GetParameter("stream"))
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
        with np.load(self.GetParameter("infile")) as file:
            events = {name: file[name] for name in file.files}
        photons = self._emit(np, rng, events)
        hits, path_m = self._propagate(np, rng, photons)
        outfile = Path(self.GetParameter("outfile"))
        columns = ("energy", "zenith", "azimuth", "weight", "primary", "sample")
        size_bytes = write_npz(outfile, {name: events[name] for name in columns} | hits)
        digest = hashlib.sha256(outfile.read_bytes()).hexdigest()
        self.logger.info("%s: %d hits, sha256 %s", outfile, len(hits["hit_event"]), digest)
        count = len(photons["event"])
        stats["events"] = len(events["energy"])
        stats["photons"] = count
        stats["photons_detected"] = len(hits["hit_event"])
        stats["photons_emitted"] = photons["weight"].sum() * self.GetParameter("oversize") ** 2
        stats["mean_path_m"] = path_m / count if count else 0.0
        stats["mean_energy_gev"] = events["energy"].mean() if len(events["energy"]) else 0.0
        stats["output_bytes"] = size_bytes
        return 0

    def _emit(self, np, rng, events):
        """Start the photons: where, when and in which direction, and how many real ones each stands for."""
        event, energy = events["particle_event"], events["particle_energy"]
        is_muon = events["particle_code"] == MUON
        start, length = visible_part(np, events, is_muon)
        light = emitted_light(np, energy, is_muon, start, length) / self.GetParameter("oversize") ** 2
        per_event = np.bincount(event, light, minlength=len(events["energy"]))
        kept = np.minimum(1.0, self.GetParameter("photons_max") / np.maximum(per_event, 1e-9))
        source = np.repeat(np.arange(len(event)), rng.poisson(light * kept[event]))
        along = start[source] + rng.uniform(size=len(source)) * length[source]
        direction = events["particle_direction"][source]
        photons = {
            "event": event[source],
            "weight": 1 / kept[event[source]],
            "position": events["particle_position"][source] + along[:, None] * direction,
            "direction": turn(np, rng, direction, np.full(len(source), CHERENKOV_COSINE)),
            "time": along / 0.299792458,
        }
        # The light of a cascade is spread around the Cherenkov angle; one broad scatter gives it that shape.
        spread = ~is_muon[source]
        cosines = henyey_greenstein(np, rng, int(spread.sum()), 0.8)
        photons["direction"][spread] = turn(np, rng, photons["direction"][spread], cosines)
        return photons

    def _propagate(self, np, rng, photons):
        """Follow every photon to its end; return the hits and the way all of them went, in metres."""
        strings, sensors, radius = string_positions(np), sensor_heights(np), self._radius()
        asymmetry = self.GetParameter("asymmetry")
        position, direction = photons["position"], photons["direction"]
        index = np.arange(len(position))
        time = photons["time"].copy()
        budget = rng.exponential(size=len(position))  # absorption lengths left to live
        found = []
        path_m = 0.0
        for step in range(STEPS_MAX):
            if not len(index):
                break
            if step % 25 == 0:
                self.context.progress(1 - len(index) / len(photons["event"]), f"{len(index)} photons alive")
            dust = dustiness(np, position[:, 2])
            scattering = EFFECTIVE_SCATTERING_M * self.GetParameter("scattering") * (1 - asymmetry) / dust
            absorption = ABSORPTION_M * self.GetParameter("absorption") / dust
            length = rng.exponential(size=len(index)) * scattering
            absorbed = length > budget * absorption
            length = np.where(absorbed, budget * absorption, length)
            hit, sensor, way = meet_sensor(np, position, direction, length, strings, sensors, radius)
            found.append((index[hit], sensor, time[hit] + way / LIGHT_M_PER_NS))
            path_m += length[~hit].sum() + way.sum()
            alive = ~(absorbed | hit)
            index, length, absorption = index[alive], length[alive], absorption[alive]
            position = position[alive] + length[:, None] * direction[alive]
            time = time[alive] + length / LIGHT_M_PER_NS
            budget = budget[alive] - length / absorption
            cosines = henyey_greenstein(np, rng, len(index), asymmetry)
            direction = turn(np, rng, direction[alive], cosines)
        return self._hits(np, photons, found), float(path_m)

    def _radius(self):
        return SENSOR_RADIUS_M * self.GetParameter("oversize")

    def _hits(self, np, photons, found):
        """Return the hits as columns, ordered by event, then time."""
        columns = list(zip(*found, strict=True)) or [(), (), ()]
        index, sensor, time = (np.concatenate([*column, np.zeros(0)]) for column in columns)
        index = index.astype("int64")
        order = np.lexsort((index, time, photons["event"][index]))
        return {
            "hit_event": photons["event"][index][order],
            "hit_sensor": sensor.astype("int64")[order],
            "hit_time": time[order],
            "hit_weight": photons["weight"][index][order],
        }


def visible_part(np, events, is_muon):
    """Return where on its way each particle comes into view and how far it shines there, both in metres.

    A track is a line that ends where the muon stops; a cascade is a point, and shines nowhere when it is out of view.
    """
    position, direction = events["particle_position"], events["particle_direction"]
    ratio = LOSS_A_PER_M / LOSS_B_PER_M
    reach = np.where(is_muon, np.log1p(events["particle_energy"] / ratio) / LOSS_B_PER_M, 0.0)
    nearest = -(position * direction).sum(axis=1)
    half = np.sqrt(np.maximum(0.0, nearest**2 - (position**2).sum(axis=1) + VIEW_M**2))
    start = np.clip(nearest - half, 0.0, reach)
    return start, np.clip(nearest + half, 0.0, reach) - start


def emitted_light(np, energy, is_muon, start, length):
    """Return the photons of each particle in view: of a muon's bare track and its losses, or of a cascade."""
    ratio = LOSS_A_PER_M / LOSS_B_PER_M
    at_start = (energy + ratio) * np.exp(-LOSS_B_PER_M * start) - ratio
    lost = (at_start + ratio) * -np.expm1(-LOSS_B_PER_M * length)
    radiated = np.where(is_muon, np.maximum(0.0, lost - LOSS_A_PER_M * length), energy)
    return PHOTONS_PER_M * (length + CASCADE_M_PER_GEV * radiated)


def string_positions(np):
    """Return the strings' (x, y) in metres: a hexagon of rings around the origin."""
    grid = range(-RINGS, RINGS + 1)
    rows = [(q, r) for q in grid for r in grid if abs(q + r) <= RINGS]
    return np.array([(SPACING_M * (q + r / 2), SPACING_M * r * np.sqrt(3) / 2) for q, r in rows])


def sensor_heights(np):
    """Return the sensors' heights on every string, in metres, from the lowest."""
    return SENSOR_SPACING_M * (np.arange(SENSORS_PER_STRING) - (SENSORS_PER_STRING - 1) / 2)


def dustiness(np, height):
    """Return how much more the ice scatters and absorbs at a height than clear ice does."""
    return 1 + DUST_DEPTH * np.exp(-0.5 * ((height - DUST_HEIGHT_M) / DUST_WIDTH_M) ** 2)


def henyey_greenstein(np, rng, count, asymmetry):
    """Draw cosines of scattering angles whose mean is `asymmetry`."""
    uniform = rng.uniform(size=count)
    if abs(asymmetry) < 1e-6:
        return 2 * uniform - 1
    square = asymmetry * asymmetry
    return (1 + square - ((1 - square) / (1 - asymmetry + 2 * asymmetry * uniform)) ** 2) / (2 * asymmetry)


def turn(np, rng, direction, cosine):
    """Turn unit vectors by angles of these cosines, around at random."""
    angle = rng.uniform(0.0, 2 * np.pi, len(cosine))
    sine = np.sqrt(np.maximum(0.0, 1 - cosine**2))
    x, y, z = direction.T
    # An orthonormal frame without a special case at the poles: T. Duff et al., J. Comput. Graph. Tech. 6, 1.
    sign = np.copysign(1.0, z)
    a = -1 / (sign + z)
    b = x * y * a
    u, v = sine * np.cos(angle), sine * np.sin(angle)
    turned = np.stack(
        [
            u * (1 + sign * x * x * a) + v * b + cosine * x,
            u * sign * b + v * (sign + y * y * a) + cosine * y,
            -u * sign * x - v * y + cosine * z,
        ],
        axis=1,
    )
    return turned / np.sqrt((turned**2).sum(axis=1))[:, None]


def meet_sensor(np, position, direction, length, strings, sensors, radius):
    """Find which steps meet a sensor; return who did, the sensor of each, and the way to it.

    Steps are short against the strings' distance, so that only the string nearest to the middle can be met.
    """
    middle = position[:, :2] + 0.5 * length[:, None] * direction[:, :2]
    distance = (middle[:, :1] - strings[:, 0]) ** 2 + (middle[:, 1:] - strings[:, 1]) ** 2
    string = distance.argmin(axis=1)
    near = np.flatnonzero(distance[np.arange(len(string)), string] < (radius + 0.5 * length) ** 2)
    start, ahead, limit = position[near], direction[near], length[near]
    foot = np.concatenate([strings[string[near]], start[:, 2:]], axis=1)
    flat = np.maximum(1e-12, (ahead[:, :2] ** 2).sum(axis=1))
    closest = np.clip(((foot - start)[:, :2] * ahead[:, :2]).sum(axis=1) / flat, 0.0, limit)
    height = start[:, 2] + closest * ahead[:, 2]
    rank = np.clip(np.rint((height - sensors[0]) / SENSOR_SPACING_M), 0, SENSORS_PER_STRING - 1).astype(
        "int64"
    )
    foot[:, 2] = sensors[rank]
    to_sensor = foot - start
    way = np.clip((to_sensor * ahead).sum(axis=1), 0.0, limit)
    met = ((to_sensor - way[:, None] * ahead) ** 2).sum(axis=1) <= radius**2
    hit = np.zeros(len(position), bool)
    hit[near[met]] = True
    return hit, string[near[met]] * SENSORS_PER_STRING + rank[met], way[met]
