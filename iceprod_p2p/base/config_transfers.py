"""``[transfers]`` of `site.toml`: what the storages that tasks read and write ask for, and who gets it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from iceprod_p2p.base.settings import Setting

TRANSFERS: Final = (
    Setting(
        "credentials", "path", "", "TOML file, mode 0600: what goes to which storage (docs/transfers.md)"
    ),
    Setting("for_modules", "switch", False, "modules may use these credentials, not the pilot alone"),
    Setting(
        "hand_out", "switch", False, "pilots get them from this node, not from the same path on worker nodes"
    ),
)


@dataclass(frozen=True, slots=True)
class TransfersConfig:
    """``[transfers]``; `credentials` is empty without a file."""

    credentials: str
    for_modules: bool
    hand_out: bool

    @property
    def handed_out(self) -> str:
        """The file that pilots get from the node, empty where they get none."""
        return self.credentials if self.hand_out else ""
