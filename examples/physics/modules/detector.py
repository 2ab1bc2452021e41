"""The detector's answer to light: pulses, noise, local coincidences, and the trigger.

Run twice with other parameters, it gives two variants of the detector for the same light, as a study of systematic
effects needs.  A pulse is a local coincidence when a neighbour on its string, up to two away, has one within 1
microsecond; an event triggers when enough sensors with one fall into one window (a simple multiplicity trigger).
Source: M. G. Aartsen et al., JINST 12, P03012 (the IceCube detector).
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

from iceprod_p2p.modules import IPModule
from iceprod_p2p.modules.npz import write_npz
from iceprod_p2p.modules.seeds import stream_words

SENSORS, SENSORS_PER_STRING = 570, 30
JITTER_NS = 2.0
CHARGE_WIDTH = 0.3  # of a single photoelectron
COINCIDENCE_NS, COINCIDENCE_SENSORS = 1000.0, 2
READOUT_BEFORE_NS, READOUT_AFTER_NS = 4000.0, 6000.0


class SimulateDetector(IPModule):
    """Turn light into pulses, add noise, and decide the trigger."""

    def __init__(self) -> None:
        super().__init__()
        self.AddParameter("seed", "the job's seed", 0, "int")
        self.AddParameter("stream", "name of the random stream: one for each variant", "detector", "string")
        self.AddParameter("infile", "light to see", "photons.npz", "string")
        self.AddParameter("outfile", "file to write", "detector.npz", "string")
        self.AddParameter("efficiency", "share of photons that the sensors see", 0.99, "float")
        self.AddParameter("noise", "noise of one sensor, in Hz", 650.0, "float")
        self.AddParameter("multiplicity", "sensors in local coincidence that trigger", 8, "int")
        self.AddParameter("window", "the trigger's window, in ns", 5000.0, "float")

    def Execute(self, stats):
        """Write pulses and triggers of every event; report them."""
        if not super().Execute(stats):
            return 0
        import numpy as np

        words = stream_words(self.GetParameter("seed"), self.GetParameter("stream"))
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
        with np.load(self.GetParameter("infile")) as file:
            light = {name: file[name] for name in file.files}
        count = len(light["energy"])
        pulses = self._pulses(np, rng, light, count)
        coincident = local_coincidences(np, pulses)
        most = self._largest_window(np, pulses, coincident, count)
        triggered = most >= self.GetParameter("multiplicity")
        charge = np.bincount(pulses["pulse_event"], pulses["pulse_charge"], minlength=count)
        table = {
            **{name: light[name] for name in ("energy", "zenith", "azimuth", "weight", "primary", "sample")},
            "triggered": triggered,
            "coincidences": most,
            "charge": charge,
        }
        outfile = Path(self.GetParameter("outfile"))
        size_bytes = write_npz(outfile, table | pulses)
        digest = hashlib.sha256(outfile.read_bytes()).hexdigest()
        self.logger.info("%s: %d of %d events triggered, sha256 %s", outfile, triggered.sum(), count, digest)
        stats["events"] = count
        stats["triggered"] = triggered.sum()
        stats["pulses"] = len(pulses["pulse_event"])
        stats["noise_pulses"] = (~pulses["pulse_light"]).sum()
        stats["coincident_pulses"] = coincident.sum()
        stats["charge_sum"] = charge.sum()
        stats["trigger_rate_hz"] = light["weight"][triggered].sum()
        stats["mean_energy_gev"] = light["energy"][triggered].mean() if triggered.any() else 0.0
        stats["output_bytes"] = size_bytes
        return 0

    def _pulses(self, np, rng, light, count):
        """Return the pulses of light and noise, ordered by event, sensor and time.

        A photon that stands for many gives one pulse with the charge of those that are seen.
        """
        seen = rng.poisson(light["hit_weight"] * self.GetParameter("efficiency"))
        lit = seen > 0
        event, sensor, time = (light[f"hit_{name}"][lit] for name in ("event", "sensor", "time"))
        time = time + rng.normal(0.0, JITTER_NS, len(time))
        first = np.zeros(count)
        np.minimum.at(first, event, time)  # an event without light has its readout around 0
        span_ns = READOUT_BEFORE_NS + READOUT_AFTER_NS
        noisy = rng.poisson(SENSORS * self.GetParameter("noise") * span_ns * 1e-9, count)
        noise_event = np.repeat(np.arange(count), noisy)
        noise_sensor = rng.integers(SENSORS, size=len(noise_event))
        noise_time = first[noise_event] - READOUT_BEFORE_NS + rng.uniform(0.0, span_ns, len(noise_event))
        event = np.concatenate([event, noise_event])
        sensor = np.concatenate([sensor, noise_sensor])
        time = np.concatenate([time, noise_time])
        electrons = np.concatenate([seen[lit], np.ones(len(noise_event))])
        charge = np.abs(rng.normal(electrons, CHARGE_WIDTH * np.sqrt(electrons)))
        is_light = np.arange(len(event)) < len(event) - len(noise_event)
        order = np.lexsort((time, sensor, event))
        columns = {"event": event, "sensor": sensor, "time": time, "charge": charge, "light": is_light}
        return {f"pulse_{name}": column[order] for name, column in columns.items()}

    def _largest_window(self, np, pulses, coincident, count):
        """Return for every event the most sensors in local coincidence that fall into one window.

        A sensor counts once, with its first such pulse, for its readout lasts longer than the window.
        """
        pulse = np.flatnonzero(coincident)
        number = pulses["pulse_event"][pulse] * SENSORS + pulses["pulse_sensor"][pulse]
        pulse = pulse[np.unique(number, return_index=True)[1]]
        order = np.lexsort((pulses["pulse_time"][pulse], pulses["pulse_event"][pulse]))
        event, time = pulses["pulse_event"][pulse][order], pulses["pulse_time"][pulse][order]
        most = np.zeros(count, "int64")
        edges = np.searchsorted(event, np.arange(count + 1))
        for number, (start, stop) in enumerate(pairwise(edges)):
            times = time[start:stop]
            if len(times):
                ends = np.searchsorted(times, times + self.GetParameter("window"), side="right")
                most[number] = (ends - np.arange(len(times))).max()
        return most


def local_coincidences(np, pulses):
    """Return which pulses have a neighbour's pulse near in time.

    Pulses are ordered by event and sensor; a sensor with its event makes one number, so that a neighbour's pulses are
    found by looking that number up in order of time.
    """
    sensor, time = pulses["pulse_sensor"], pulses["pulse_time"]
    # One line of time for all: sensors of one event follow each other with gaps wider than any event is long.
    gap = 1e3 * (READOUT_BEFORE_NS + READOUT_AFTER_NS)
    place = (pulses["pulse_event"] * SENSORS + sensor) * gap
    moment = time - (time.min() if len(time) else 0.0)
    line = np.sort(place + moment)
    found = np.zeros(len(sensor), bool)
    for away in (*range(-COINCIDENCE_SENSORS, 0), *range(1, COINCIDENCE_SENSORS + 1)):
        on_string = (sensor + away) // SENSORS_PER_STRING == sensor // SENSORS_PER_STRING
        centre = place + away * gap + moment
        first = np.searchsorted(line, centre - COINCIDENCE_NS, side="left")
        last = np.searchsorted(line, centre + COINCIDENCE_NS, side="right")
        found |= on_string & (last > first)
    return found
