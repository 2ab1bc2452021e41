"""A site's configuration: `site.toml` read into frozen records, every fault named at once with its line.

Sections: ``[node]`` who and where this node is and its timings; ``[queue]`` the batch system and what pilots
it is given (``[queue.options]`` for the plugin, ``[[queue.class]]`` for each resource class); ``[system]``
the site's ``$system(...)`` parameters, attributes and directories; ``[environment]`` variables of payloads;
``[people]``, ``[directory]`` and ``[tokens]`` who vouches for people; ``[blobs]`` copies;
``[transfers]``; ``[log]``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from iceprod_p2p.base.config_blobs import BLOBS, BlobsConfig
from iceprod_p2p.base.config_external import EXTERNAL, ExternalConfig, check_external
from iceprod_p2p.base.config_people import DIRECTORY, TOKENS, DirectoryConfig, TokensConfig, check_people
from iceprod_p2p.base.config_syntax import not_toml
from iceprod_p2p.base.config_transfers import TRANSFERS, TransfersConfig
from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.base.settings import Faults, Setting, read_section, unknown
from iceprod_p2p.base.toml_lines import key_lines

FILE_BYTES_MAX: Final = 1024 * 1024  # A configuration is written by hand; a larger file is something else.
ISOLATIONS: Final = ("auto", "none", "required")
CLASSES_MAX: Final = 64  # One offer per class travels with each claim.
EVERY_ADDRESS: Final = ("0.0.0.0:", "[::]:")  # A place to listen, and nowhere to call.
GPU_EMULATION: Final = "gpu-emulation"  # The attribute of a class whose GPUs do not exist.

NODE: Final = (
    Setting("site", "label", None, "the site's name"),
    Setting("id", "label", None, "this node's name, unique for ever in the cluster"),
    Setting("cluster", "label", None, "the cluster's name"),
    Setting("data_dir", "path", None, "the one directory of this node, mode 0700"),
    Setting("listen", "address", "127.0.0.1:4410", "mutual TLS: nodes, pilots and people"),
    Setting("enrol_listen", "address", "127.0.0.1:4411", "enrolment: server certificate only"),
    Setting("advertise", "address", "", "host:port by which others reach `listen`; empty: the same"),
    Setting(
        "advertise_enrol", "address", "", "host:port by which others reach `enrol_listen`; empty: the same"
    ),
    Setting("raft_heartbeat_ms", "whole", 100, "the leader speaks at least this often", 10, 10_000),
    Setting(
        "election_ms_least",
        "whole",
        1_000,
        "shortest silence of a leader that starts an election",
        50,
        60_000,
    ),
    Setting("election_ms_most", "whole", 2_000, "longest such silence", 60, 120_000),
    Setting("tick_ms", "whole", 500, "the leader advances the ledger's time this often", 50, 60_000),
    Setting("heartbeat_s", "number", 5.0, "this site renews its leases this often", 0.1, 3_600),
    Setting(
        "site_grace_s", "number", 600.0, "founding only: leases of a silent site end after this", 1, 86_400
    ),
    Setting("claim_interval_s", "number", 1.0, "the volunteer looks for work this often", 0.05, 3_600),
    Setting("pilot_poll_s", "number", 2.0, "an idle pilot calls again after this", 0.05, 600),
    Setting("passkey_lifetime_s", "whole", 172_800, "longest validity of a passkey", 60, 2_592_000),
    Setting("pilot_certificate_s", "whole", 3_600, "validity of a pilot's certificate", 5, 86_400),
    Setting(
        "calls_max", "whole", 4_096, "concurrent calls served; others are told to come back", 16, 100_000
    ),
)
QUEUE: Final = (
    Setting("plugin", "text", "local", "the grid plugin: local, slurm, htcondor, sge, ..."),
    Setting(
        "grid_jobs_max", "whole", 4, "pilots queued and running at once, all classes together", 0, 100_000
    ),
    Setting("per_submit", "whole", 10, "grid jobs submitted at once", 1, 10_000),
    Setting("interval_s", "number", 10.0, "the batch system is looked at this often", 0.1, 86_400),
    Setting("idle_end_s", "number", 60.0, "a pilot without work ends after this", 1, 604_800),
    Setting("claims_ahead", "number", 1.0, "tasks claimed beyond free slots, as a share of slots", 0, 100),
    Setting("isolation", "text", "auto", "what modules see: docs/pilot.md", choices=ISOLATIONS),
    Setting("queue_name", "text", "", "the batch system's queue or partition"),
    Setting("priority", "whole", 0, "priority in the batch system", -100, 100),
    Setting("extra_lines", "texts", (), "directives passed to the batch system as they are"),
    Setting("grace_s", "number", 20.0, "from the system's warning to its kill: pilots end in it", 1, 3_600),
    Setting("shared_directory", "switch", True, "worker nodes see data_dir and this Python"),
    Setting("worker_python", "path", "", "Python of worker nodes; empty: this one where they see it"),
    Setting("worker_bundle", "path", "", "where they find the pilot bundle; empty: it is carried there"),
    Setting("bundle_with", "texts", (), "further installed distributions that the bundle carries"),
    Setting("credential", "path", "", "x509 proxy or token for submission, 0600; watched"),
    Setting("credential_command", "texts", (), "what renews it, without a shell"),
    Setting(
        "credential_renew_s", "whole", 14_400, "renew, and warn, with less than this left", 0, 31_536_000
    ),
    Setting("options", "values", {}, "options of the plugin, see `iceprod-node config show`"),
)
CLASS: Final = (
    Setting("name", "label", None, "the resource class"),
    Setting("slots", "whole", 1, "tasks that one pilot runs at once", 1, 4_096),
    Setting("pilots_max", "whole", 0, "pilots of this class at once; 0: as the queue allows", 0, 100_000),
    Setting("cpus", "whole", 1, "per slot", 1, 4_096),
    Setting("gpus", "whole", 0, "per slot", 0, 64),
    Setting("memory_mib", "whole", 2_048, "per slot", 16),
    Setting("disk_mib", "whole", 10_240, "per slot", 16),
    Setting("walltime_s", "whole", 86_400, "of the pilot, hence the longest task", 10),
    Setting("attributes", "texts", (), "words that tasks may require, beside the site's"),
    Setting("gpu_tasks_only", "switch", True, "slots with GPUs wait for tasks that need them"),
    Setting("gpu_emulation", "switch", False, "offer GPUs that do not exist: such tasks run on CPUs"),
)
SYSTEM: Final = (
    Setting("parameters", "table", {}, "values of $system(...) at this site"),
    Setting("attributes", "texts", (), "words that every class of this site has"),
    Setting(
        "scratch_dir", "path", "", "where pilots work; empty: the batch system's scratch, else in data_dir"
    ),
    Setting("cache_dir", "path", "", "content shared by pilots of one machine; empty: in the data directory"),
    Setting("cache_mib", "whole", 4_096, "the cache is trimmed to this size", 16),
    Setting(
        "software_mib", "whole", 16_384, "unpacked software and shared inputs are trimmed to this size", 16
    ),
    Setting("free_disk_mib_least", "whole", 512, "no new work is taken with less free space", 0),
)
ENVIRONMENT: Final = (Setting("variables", "table", {}, "environment of every payload at this site"),)
PEOPLE: Final = (
    Setting("certificate_h", "number", 12.0, "validity of a person's certificate", 0.002, 8_760),
    Setting("vouch", "switch", True, "let people log in at this node too, once it is a voter"),
    Setting("administrator", "text", "admin", "founding only: the first administrator"),
)
LOG: Final = (
    Setting("style", "text", "text", "text or json", choices=("text", "json")),
    Setting("level", "text", "INFO", "", choices=("DEBUG", "INFO", "WARNING", "ERROR")),
    Setting("file", "path", "", "empty: standard error, or node.log in the data directory when daemonised"),
)
SECTIONS: Final[Mapping[str, tuple[Setting, ...]]] = {
    "node": NODE,
    "queue": QUEUE,
    "system": SYSTEM,
    "environment": ENVIRONMENT,
    "people": PEOPLE,
    "directory": DIRECTORY,
    "tokens": TOKENS,
    "blobs": BLOBS,
    "transfers": TRANSFERS,
    "external": EXTERNAL,
    "log": LOG,
}


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """``[node]``; each field as the table `NODE` says."""

    site: str
    id: str
    cluster: str
    data_dir: Path
    listen: str
    enrol_listen: str
    advertise: str
    advertise_enrol: str
    raft_heartbeat_ms: int
    election_ms_least: int
    election_ms_most: int
    tick_ms: int
    heartbeat_s: float
    site_grace_s: float
    claim_interval_s: float
    pilot_poll_s: float
    passkey_lifetime_s: int
    pilot_certificate_s: int
    calls_max: int


@dataclass(frozen=True, slots=True)
class ResourceClass:
    """``[[queue.class]]``: one kind of pilot; amounts are those of one slot, as the table `CLASS` says."""

    name: str
    slots: int = 1
    pilots_max: int = 0
    cpus: int = 1
    gpus: int = 0
    memory_mib: int = 2_048
    disk_mib: int = 10_240
    walltime_s: int = 86_400
    attributes: tuple[str, ...] = ()
    gpu_tasks_only: bool = True
    gpu_emulation: bool = False


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """``[queue]``; `classes` has at least one entry, and attributes of the site are already in each."""

    plugin: str
    grid_jobs_max: int
    per_submit: int
    interval_s: float
    idle_end_s: float
    claims_ahead: float
    queue_name: str
    priority: int
    extra_lines: tuple[str, ...]
    grace_s: float
    shared_directory: bool
    worker_python: str
    worker_bundle: str
    bundle_with: tuple[str, ...]
    credential: str
    credential_command: tuple[str, ...]
    credential_renew_s: int
    isolation: str
    options: Mapping[str, object]
    classes: tuple[ResourceClass, ...]

    @property
    def bundled(self) -> bool:
        """Whether pilots are started from a bundle, not from what is installed here."""
        return not self.shared_directory or bool(self.worker_python or self.worker_bundle)

    def resource_class(self, name: str) -> ResourceClass | None:
        """Return the class `name`, None when a former configuration had it."""
        return next((entry for entry in self.classes if entry.name == name), None)


@dataclass(frozen=True, slots=True)
class SystemConfig:
    """``[system]``; directories are absolute."""

    parameters: Mapping[str, str]
    attributes: tuple[str, ...]
    scratch_dir: Path
    cache_dir: Path
    cache_mib: int
    software_mib: int
    free_disk_mib_least: int
    scratch_given: bool = False  # Whether the file names them, or they are the data directory's.
    cache_given: bool = False


@dataclass(frozen=True, slots=True)
class PeopleConfig:
    """``[people]``."""

    certificate_h: float
    administrator: str
    vouch: bool


@dataclass(frozen=True, slots=True)
class LogConfig:
    """``[log]``; `file` empty means standard error."""

    style: str
    level: str
    file: str


@dataclass(frozen=True, slots=True)
class SiteConfig:
    """All of `site.toml`, checked; `path` is where it was read, for messages."""

    node: NodeConfig
    queue: QueueConfig
    system: SystemConfig
    environment: Mapping[str, str]
    people: PeopleConfig
    directory: DirectoryConfig
    tokens: TokensConfig
    blobs: BlobsConfig
    transfers: TransfersConfig
    log: LogConfig
    external: ExternalConfig
    path: Path = field(default=Path("site.toml"))


def load(path: Path) -> SiteConfig:
    """Read `path`; ConfigError lists every fault with its line, or says why the file cannot be read."""
    try:
        with path.open("rb") as source:
            content = source.read(FILE_BYTES_MAX + 1)
        text = content.decode("utf-8")
    except OSError as failure:
        raise ConfigError(
            f"{path} cannot be read: {failure.strerror}",
            remedy="`iceprod-node init` or `iceprod-node join` writes one; name it with --config",
        ) from failure
    except UnicodeDecodeError as failure:
        raise ConfigError(f"{path} is not UTF-8 text", remedy="save it as UTF-8") from failure
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(f"{path} is larger than {FILE_BYTES_MAX} bytes", remedy="is it the right file?")
    return parse(text, path=path)


def parse(text: str, *, path: Path = Path("site.toml")) -> SiteConfig:
    """Read a configuration's text; ConfigError lists every fault with its line."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as failure:
        raise not_toml(path, text, failure) from failure
    faults = Faults(key_lines(text))
    for name in document:
        if name not in SECTIONS:
            faults.add((name,), unknown(name, list(SECTIONS)).replace("setting", "section"))
    values = {
        name: read_section(
            table, document.get(name, {}), (name,), faults, ignore=("class",) if name == "queue" else ()
        )
        for name, table in SECTIONS.items()
    }
    classes = _classes(document, values["system"]["attributes"] or (), faults)
    _check_together(values, faults)
    check_people(values, faults)
    check_external(values["external"], faults)
    if faults.found:
        raise ConfigError(f"{path} has {_count(len(faults.found))}:", faults=faults.sentences())
    return _build(values, classes, path)


def _classes(
    document: Mapping[str, Any], site_attributes: tuple[str, ...], faults: Faults
) -> tuple[ResourceClass, ...]:
    queue = document.get("queue", {})
    tables = queue.get("class", [{"name": "cpu"}]) if isinstance(queue, Mapping) else []
    if not isinstance(tables, list) or not 1 <= len(tables) <= CLASSES_MAX:
        faults.add(("queue", "class"), f"is not a list of 1 to {CLASSES_MAX} tables; write [[queue.class]]")
        return ()
    found: dict[str, ResourceClass] = {}
    for number, table in enumerate(tables):
        path = ("queue", "class", str(number))
        before = len(faults.found)
        values = read_section(CLASS, table, path, faults)
        if len(faults.found) > before:
            continue
        if values["name"] in found:
            faults.add((*path, "name"), f"there are two classes {values['name']!r}; name each once")
        extra = (GPU_EMULATION,) if values["gpu_emulation"] else ()
        values["attributes"] = tuple(sorted({*values["attributes"], *site_attributes, *extra}))
        found[values["name"]] = ResourceClass(**values)
    return tuple(found.values())


def _check_together(values: Mapping[str, dict[str, Any]], faults: Faults) -> None:
    node = values["node"]
    if node["election_ms_most"] <= node["election_ms_least"]:
        faults.add(("node", "election_ms_most"), "must be more than election_ms_least")
    if node["raft_heartbeat_ms"] * 4 > node["election_ms_least"]:
        faults.add(("node", "raft_heartbeat_ms"), "must be at most a quarter of election_ms_least")
    if node["heartbeat_s"] * 2 > node["site_grace_s"]:
        faults.add(
            ("node", "heartbeat_s"), "must be at most half of site_grace_s, or leases end between heartbeats"
        )
    if node["site"] == "people":
        faults.add(("node", "site"), "'people' is reserved; choose another name")
    if node["listen"] == node["enrol_listen"] and not node["listen"].endswith(":0"):
        faults.add(("node", "enrol_listen"), "must differ from listen; choose another port")
    for name, advertised in (("listen", "advertise"), ("enrol_listen", "advertise_enrol")):
        if (node[advertised] or node[name]).startswith(EVERY_ADDRESS):
            faults.add(
                ("node", name),
                f"is every address of this machine: say in {advertised} by which others reach it",
            )


def _build(
    values: Mapping[str, dict[str, Any]], classes: tuple[ResourceClass, ...], path: Path
) -> SiteConfig:
    node, system = dict(values["node"]), dict(values["system"])
    data_dir = Path(node["data_dir"]).expanduser()
    node["data_dir"] = data_dir
    node["advertise"] = node["advertise"] or node["listen"]
    node["advertise_enrol"] = node["advertise_enrol"] or node["enrol_listen"]
    system |= {"scratch_given": bool(system["scratch_dir"]), "cache_given": bool(system["cache_dir"])}
    system["scratch_dir"] = Path(system["scratch_dir"] or data_dir / "scratch").expanduser()
    system["cache_dir"] = Path(system["cache_dir"] or data_dir / "cache").expanduser()
    return SiteConfig(
        node=NodeConfig(**node),
        queue=QueueConfig(**values["queue"], classes=classes),
        system=SystemConfig(**system),
        environment=values["environment"]["variables"],
        people=PeopleConfig(**values["people"]),
        directory=DirectoryConfig(**values["directory"]),
        tokens=TokensConfig(**values["tokens"]),
        blobs=BlobsConfig(**values["blobs"]),
        transfers=TransfersConfig(
            _home(values["transfers"]["credentials"]),
            values["transfers"]["for_modules"],
            values["transfers"]["hand_out"],
        ),
        log=LogConfig(**values["log"]),
        external=ExternalConfig(**values["external"]),
        path=path,
    )


def _home(path: str) -> str:
    return str(Path(path).expanduser()) if path else ""


def _count(faults: int) -> str:
    return "one fault" if faults == 1 else f"{faults} faults"
