"""A systemd unit for one node, hardened: no privileges, and nothing writable but the node's own directories.

With the local plugin pilots are processes of this machine and must outlive a restart of the node, so only
the node itself is stopped (``KillMode=process``); elsewhere nothing of the unit may stay behind.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.base.errors import ConfigError

HARDENING: Final = """\
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
PrivateTmp={private}
PrivateDevices={private}
ProtectSystem=strict
ProtectHome=read-only
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces={private}
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service{mounts}
"""


def unit(config: SiteConfig, *, user: str) -> str:
    """Return the unit's text; ConfigError for a path or name that a unit file cannot hold."""
    node, system = config.node, config.system
    local = config.queue.plugin == "local"
    log_directory = [Path(config.log.file).parent] if config.log.file else []
    writable = sorted(
        {str(path) for path in (node.data_dir, system.scratch_dir, system.cache_dir, *log_directory)}
    )
    words = [sys.executable, str(config.path.absolute()), user, *writable]
    for word in words:
        if not word.isprintable() or any(letter in word for letter in " \"'\\%$;"):
            raise ConfigError(f"{word!r} cannot stand in a unit file", remedy="choose a path without blanks")
    # With the local plugin payloads are processes of this unit: they may need devices, /tmp, and namespaces of their
    # own with mounts in them (containers, and what keeps a pilot's keys from its payloads).
    hardening = HARDENING.format(private="no" if local else "yes", mounts=" @mount" if local else "")
    return f"""\
[Unit]
Description=IceProd P2P node {node.id} of site {node.site}, cluster {node.cluster}
Wants=network-online.target time-sync.target
After=network-online.target time-sync.target

[Service]
Type=exec
User={user}
ExecStart={sys.executable} -m iceprod_p2p.daemon start --foreground --config {config.path.absolute()}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=5
TimeoutStopSec=45
KillMode={"process" if local else "mixed"}
LimitNOFILE=65536
ReadWritePaths={" ".join(writable)}
{hardening}
[Install]
WantedBy=multi-user.target
"""
