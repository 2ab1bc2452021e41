"""The module that copies files by path or URL, in a job's own steps.

How it is done is in `iceprod_p2p.transfers`; which credentials a module may use, the site decides (`[transfers]
for_modules` in its configuration).
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from iceprod_p2p.base.errors import BadInput, IntegrityError
from iceprod_p2p.modules.base import IPModule, Statistics
from iceprod_p2p.transfers.credentials import load
from iceprod_p2p.transfers.engine import Copied, Transfers
from iceprod_p2p.transfers.limits import CREDENTIALS_VARIABLE, Limits
from iceprod_p2p.transfers.registry import Registry
from iceprod_p2p.transfers.sums import ExpectedChecksum, parse_all


def copy(
    source: str,
    destination: str,
    *,
    expected: ExpectedChecksum | None = None,
    limits: Limits | None = None,
) -> Copied:
    """Copy from a path or URL to a path or URL with what this process may use; see `Transfers.copy`."""
    wanted = (expected,) if expected else ()
    return _transfers().copy(source, destination, expected=wanted, limits=limits)


@lru_cache(maxsize=1)
def _transfers() -> Transfers:
    path = os.environ.get(CREDENTIALS_VARIABLE, "")
    return Transfers(Registry(load(Path(path))) if path else None)


class Transfer(IPModule):
    """Copy one file by path or URL (file, https, WebDAV, GridFTP, xrootd, S3), and verify it."""

    def __init__(self) -> None:
        super().__init__()
        bounds = Limits()
        self.AddParameter("source", "path or URL to read", "", "string")
        self.AddParameter("destination", "path or URL to write", "", "string")
        self.AddParameter(
            "checksum", "ALGORITHM:HEX that the file must have, or several; empty: any", "", "string"
        )
        self.AddParameter("attempts", "how often to try", bounds.attempts, "int")
        self.AddParameter(
            "timeout", "seconds with hardly a byte before an attempt fails", bounds.timeout_s, "float"
        )

    def Execute(self, stats: Statistics) -> int:
        """Copy it; see `Transfers.copy` for the errors."""
        source, destination = self.GetParameter("source"), self.GetParameter("destination")
        if not source or not destination:
            raise BadInput("Transfer needs a source and a destination")
        if destination.startswith("iceprod://"):
            raise BadInput(
                "a module cannot write into the cluster's store", remedy="declare the file as output data"
            )
        limits = Limits(attempts=self.GetParameter("attempts"), timeout_s=self.GetParameter("timeout"))
        copied = _transfers().copy(
            source, destination, expected=parse_all(self.GetParameter("checksum")), limits=limits
        )
        self.logger.info(
            "copied %s to %s: %d bytes, %s%s",
            source.partition("?")[0],
            destination.partition("?")[0],
            copied.size_bytes,
            ", ".join(f"{name} {digest}" for name, digest in copied.sums.items()),
            ", directly between the servers" if copied.direct else "",
        )
        stats["bytes_transferred"] = copied.size_bytes
        stats["transfer_attempts"] = copied.attempts
        return 0


__all__ = ["Copied", "IntegrityError", "Limits", "Transfer", "copy"]
