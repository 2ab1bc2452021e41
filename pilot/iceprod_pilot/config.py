"""The pilot's configuration: one JSON file that the node's keeper writes per grid job, for its owner alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.security.keyfiles import read_secret
from iceprod_pilot import platform

SCRATCH_WORD: Final = "$SCRATCH"  # In a path: the directory that the batch system gives the grid job.
SLOTS_MAX = 4_096  # One thread each; more tasks at once on one worker node is a slip of the pen.


class Node(msgspec.Struct, frozen=True):
    """A node that can be called: `address` for work (mutual TLS), `enrol_address` for the first certificate."""

    node_id: str
    site: str
    address: str
    server_name: str
    enrol_address: str = ""
    role: str = ""


class PilotConfig(msgspec.Struct, frozen=True):
    """What one pilot is told.  Amounts are totals of the pilot; `slots` is how many tasks it runs at once, at most.

    `walltime_s` 0: the batch system sets no limit.  `grace_s` is the time between the first SIGTERM and the end.
    `silence_s` is how long its site's node may be silent before the pilot calls others, `lost_end_s` how long all
    may be silent before a pilot that runs nothing gives up.  With `scratch`, tasks get the batch system's scratch in
    place of `work_dir` where it gives one.  `transfer_credentials` names the site's file for storages, which modules
    are told of with `transfer_for_modules`; with `transfer_handed` the site's node gives it.  `isolation` is auto,
    none or required; `hidden` names directories of the site that modules shall not see, beside the pilot's own
    state.  Unknown keys are ignored, so that an older pilot can read a newer node's file.
    """

    pilot: str
    site: str
    cluster: str
    secret_file: str
    root_pem: str
    nodes: tuple[Node, ...]
    work_dir: str
    state_dir: str
    cache_dir: str
    root_fingerprint: str = ""
    resource_class: str = ""
    slots: int = 1
    cpus: int = 1
    gpus: int = 0
    memory_mib: int = 1_024
    disk_mib: int = 1_024
    walltime_s: int = 0
    attributes: tuple[str, ...] = ()
    idle_end_s: float = 60.0
    grace_s: float = 20.0
    silence_s: float = 4.0
    lost_end_s: float = 1_800.0
    cache_mib: int = 4_096
    software_mib: int = 16_384
    log_style: str = "text"
    log_level: str = "INFO"
    scratch: bool = False
    transfer_credentials: str = ""
    transfer_for_modules: bool = False
    transfer_handed: bool = False
    isolation: str = "none"
    hidden: tuple[str, ...] = ()

    @property
    def work_path(self) -> Path:
        """Where task directories are made."""
        return Path(self.work_dir)

    @property
    def state_path(self) -> Path:
        """Where key, certificate, orders and reports are kept."""
        return Path(self.state_dir)

    @property
    def cache_path(self) -> Path:
        """Where fetched content is kept for later tasks."""
        return Path(self.cache_dir)


def load(path: Path, environ: Mapping[str, str] | None = None) -> PilotConfig:
    """Read and check the file; ConfigError names every fault at once, or the one that hides the others.

    A path in it may begin with ``$SCRATCH``, and the secret's may be relative to the file.
    """
    try:
        config = msgspec.json.decode(read_secret(path), type=PilotConfig)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
        raise ConfigError(
            f"{path} is not a pilot's configuration: {wrong}", remedy="let the node write it again"
        ) from wrong
    config = _placed(config, path, platform.scratch(environ or {}))
    faults = tuple(_faults(config))
    if faults:
        raise ConfigError(
            f"{path} has {len(faults)} fault(s):", faults=faults, remedy="correct the node's site.toml"
        )
    return config


def _placed(config: PilotConfig, path: Path, scratch: Path | None) -> PilotConfig:
    """Return the configuration with the paths of this worker node."""
    places = {name: getattr(config, name) for name in ("secret_file", "work_dir", "state_dir", "cache_dir")}
    if scratch is not None:
        places = {name: place.replace(SCRATCH_WORD, str(scratch), 1) for name, place in places.items()}
        if config.scratch:
            places["work_dir"] = str(scratch / f"iceprod-{config.pilot}")
    places["secret_file"] = str(path.absolute().parent / places["secret_file"])
    return msgspec.structs.replace(config, **places)


def _faults(config: PilotConfig) -> list[str]:
    faults = []
    for name in ("pilot", "site", "cluster", "root_pem"):
        if not getattr(config, name):
            faults.append(f"  {name} is empty")
    for name in ("work_dir", "state_dir", "cache_dir", "secret_file"):
        if not getattr(config, name).startswith("/"):
            faults.append(f"  {name} is {getattr(config, name)!r}, not an absolute path")
    if not config.nodes:
        faults.append("  nodes is empty: there is nobody to call")
    if not 1 <= config.slots <= SLOTS_MAX:
        faults.append(f"  slots is {config.slots}, not 1 to {SLOTS_MAX}")
    if config.cpus < 1:
        faults.append(f"  cpus is {config.cpus}, not at least 1")
    for name in (
        "gpus",
        "memory_mib",
        "disk_mib",
        "walltime_s",
        "idle_end_s",
        "grace_s",
        "silence_s",
        "lost_end_s",
        "cache_mib",
        "software_mib",
    ):
        value = getattr(config, name)
        if value < 0 or not math.isfinite(value):
            faults.append(f"  {name} is {value}, not at least 0")
    if config.isolation not in ("auto", "none", "required"):
        faults.append(f"  isolation is {config.isolation!r}, not auto, none or required")
    if config.log_style not in ("text", "json"):
        faults.append(f"  log_style is {config.log_style!r}, not text or json")
    if config.log_level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        faults.append(f"  log_level is {config.log_level!r}, not DEBUG, INFO, WARNING or ERROR")
    return faults
