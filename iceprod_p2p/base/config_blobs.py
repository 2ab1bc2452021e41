"""``[blobs]``: how many nodes keep what datasets need, and how long temporary files stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from iceprod_p2p.base.settings import Setting

BLOBS: Final = (
    Setting("copies", "whole", 2, "nodes beside this one that get documents, modules and software", 0, 63),
    Setting(
        "copies_least",
        "whole",
        1,
        "a submission is acknowledged when so many have them, if the cluster has so many",
        0,
        63,
    ),
    Setting("interval_s", "number", 60.0, "copies are counted and replaced this often", 0.1, 86_400),
    Setting(
        "temp_grace_s",
        "number",
        3_600.0,
        "temporary files that nobody needs are removed when untouched for so long",
        0,
        31_536_000,
    ),
    Setting(
        "size_mib",
        "whole",
        0,
        "while the store is larger, copies of other sites' files are let go, longest unread first; 0: no limit",
        0,
    ),
    Setting(
        "size_max_mib",
        "whole",
        0,
        "while the store is larger all the same, the site's own files included, no new work is taken; 0: no limit",
        0,
    ),
)


@dataclass(frozen=True, slots=True)
class BlobsConfig:
    """``[blobs]``; each field as the table `BLOBS` says."""

    copies: int = 2
    copies_least: int = 1
    interval_s: float = 60.0
    temp_grace_s: float = 3_600.0
    size_mib: int = 0
    size_max_mib: int = 0

    @property
    def trimmed_mib(self) -> int:
        """The size above which copies are let go; 0 for none."""
        return min(self.size_mib, self.size_max_mib) or self.size_mib or self.size_max_mib
