"""A payload that tells which GPUs it may use."""

import os
import time
from pathlib import Path

from iceprod_p2p.modules import IPModule


class LookAtGpu(IPModule):
    """Count the GPUs given by name, and write them down."""

    def __init__(self) -> None:
        super().__init__()
        self.AddParameter("outfile", "file to write", "gpu.txt", "string")

    def Execute(self, stats):
        """Report `gpus` and, for each, `gpu_NAME`."""
        if not super().Execute(stats):
            return 0
        names = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        stats["gpus"] = len(names)
        for name in names:
            stats[f"gpu_{name}"] = 1
        Path(self.GetParameter("outfile")).write_text(" ".join(names) + "\n")
        time.sleep(3.0)
        return 0
