"""``[external]`` of `site.toml`: where modules that submissions name by address may be fetched from."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from iceprod_p2p.base.settings import Faults, Setting

EXTERNAL: Final = (
    Setting("enabled", "switch", True, "fetch modules that submissions name by https or git+https address"),
    Setting("hosts", "texts", (), "only from these hosts, such as *.github.com; empty: any public one"),
    Setting("networks", "texts", (), "private networks that may be connected to, such as 10.1.0.0/16"),
    Setting("ca_file", "path", "", "authorities of such hosts, PEM; empty: the system's"),
    Setting("size_mib", "whole", 64, "largest module", 1, 4_096),
    Setting("timeout_s", "number", 40.0, "longest fetch", 1, 3_600),
)


@dataclass(frozen=True, slots=True)
class ExternalConfig:
    """``[external]``: where modules that submissions name by address are fetched from."""

    enabled: bool = True
    hosts: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    ca_file: str = ""
    size_mib: int = 64
    timeout_s: float = 40.0


def check_external(values: Mapping[str, Any], faults: Faults) -> None:
    """Note networks that are none."""
    for network in values["networks"] or ():
        try:
            ipaddress.ip_network(network)
        except ValueError as wrong:
            faults.add(("external", "networks"), f"{wrong}; write such as 10.1.0.0/16")
