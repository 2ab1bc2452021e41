"""Merges what the variants of the detector saw of the same events into one table: the job's result."""

from __future__ import annotations

import hashlib
from pathlib import Path

from iceprod_p2p.base.errors import IntegrityError
from iceprod_p2p.modules import IPModule
from iceprod_p2p.modules.npz import write_npz

SHARED_COLUMNS = ("energy", "zenith", "azimuth", "weight", "primary", "sample")
VARIANT_COLUMNS = ("triggered", "coincidences", "charge")


class MergeVariants(IPModule):
    """Merge the events that at least one variant triggered on."""

    def __init__(self) -> None:
        super().__init__()
        self.AddParameter("infiles", "files of the variants, in order", [], "string_list")
        self.AddParameter("variants", "their names, in the same order", [], "string_list")
        self.AddParameter("outfile", "file to write", "merged.npz", "string")

    def Execute(self, stats):
        """Write the merged table; IntegrityError when the variants did not see the same events."""
        if not super().Execute(stats):
            return 0
        import numpy as np

        variants = {}
        for name, path in zip(self.GetParameter("variants"), self.GetParameter("infiles"), strict=True):
            with np.load(path) as file:
                variants[name] = {column: file[column] for column in (*SHARED_COLUMNS, *VARIANT_COLUMNS)}
        first = next(iter(variants.values()))
        for name, variant in variants.items():
            if not all(np.array_equal(variant[column], first[column]) for column in SHARED_COLUMNS):
                raise IntegrityError(f"variant {name} was simulated from other events than the first one")
        kept = np.any([variant["triggered"] for variant in variants.values()], axis=0)
        table = {column: first[column][kept] for column in SHARED_COLUMNS}
        for name, variant in variants.items():
            table |= {f"{column}_{name}": variant[column][kept] for column in VARIANT_COLUMNS}
        outfile = Path(self.GetParameter("outfile"))
        size_bytes = write_npz(outfile, table)
        digest = hashlib.sha256(outfile.read_bytes()).hexdigest()
        self.logger.info("%s: %d of %d events, sha256 %s", outfile, kept.sum(), len(kept), digest)
        stats["events"] = kept.sum()
        for name, variant in variants.items():
            stats[f"triggered_{name}"] = variant["triggered"].sum()
        stats["triggered_all"] = np.all([variant["triggered"] for variant in variants.values()], axis=0).sum()
        stats["rate_cosmic_rays_hz"] = first["weight"][kept & (first["sample"] == 0)].sum()
        stats["rate_neutrinos_hz"] = first["weight"][kept & (first["sample"] == 1)].sum()
        stats["mean_energy_gev"] = first["energy"][kept].mean() if kept.any() else 0.0
        stats["output_bytes"] = size_bytes
        return 0
