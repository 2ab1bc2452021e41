"""Joins samples of several generators into one list of events, so that the rest of the chain sees no difference."""

from __future__ import annotations

import hashlib
from pathlib import Path

from iceprod_p2p.modules import IPModule
from iceprod_p2p.modules.npz import write_npz

EVENT_COLUMNS = ("energy", "zenith", "azimuth", "weight", "primary")
PARTICLE_COLUMNS = ("particle_code", "particle_energy", "particle_position", "particle_direction")


class CombineSamples(IPModule):
    """Join generated samples; events keep the number of the file they came from as `sample`."""

    def __init__(self) -> None:
        super().__init__()
        self.AddParameter("infiles", "samples to join, in order", [], "string_list")
        self.AddParameter("outfile", "file to write", "combined.npz", "string")

    def Execute(self, stats):
        """Write all events with their particles; report the sums."""
        if not super().Execute(stats):
            return 0
        import numpy as np

        samples = []
        for name in self.GetParameter("infiles"):
            with np.load(name) as file:
                samples.append({column: file[column] for column in file.files})
        sizes = [len(sample["energy"]) for sample in samples]
        shifts = np.cumsum([0, *sizes[:-1]])
        joined = {
            column: np.concatenate([sample[column] for sample in samples])
            for column in (*EVENT_COLUMNS, *PARTICLE_COLUMNS)
        }
        joined["sample"] = np.repeat(np.arange(len(samples)), sizes)
        joined["particle_event"] = np.concatenate(
            [sample["particle_event"] + shift for sample, shift in zip(samples, shifts, strict=True)]
        )
        outfile = Path(self.GetParameter("outfile"))
        size_bytes = write_npz(outfile, joined)
        digest = hashlib.sha256(outfile.read_bytes()).hexdigest()
        self.logger.info("%s: %s events, sha256 %s", outfile, " + ".join(map(str, sizes)), digest)
        stats["events"] = len(joined["energy"])
        stats["particles"] = len(joined["particle_event"])
        stats["mean_energy_gev"] = joined["energy"].mean() if len(joined["energy"]) else 0.0
        stats["weight_sum_hz"] = joined["weight"].sum()
        stats["output_bytes"] = size_bytes
        return 0
