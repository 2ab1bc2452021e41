"""What one pilot is started with: its configuration, its one-time secret, and the request to the batch
system.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from iceprod_p2p.base.config import ResourceClass, SiteConfig
from iceprod_p2p.base.machine import this_machine
from iceprod_p2p.grids.base import Grid, GridRequest, Tag
from iceprod_p2p.model.resources import Offer
from iceprod_p2p.security.certificates import chain_from_pem, fingerprint
from iceprod_p2p.security.enrolment import OneTimeSecret, make_one_time_secret
from iceprod_p2p.security.keyfiles import make_private_directory, write_secret
from iceprod_p2p.site import bundle
from iceprod_p2p.site.grid_jobs import GridJob, GridJobPhase
from iceprod_p2p.wire.pb import common_pb2

BUNDLE_DIRECTORY: Final = "bundle"  # In the data directory.
# What lies in the data directory and is no payload's business: keys, the ledger, other pilots' secrets.
PRIVATE: Final = ("keys", "authority", "admin", "raft", "next", "pilots", "grid", "blobs")
PILOT_MODULE: Final = "iceprod_pilot.main"
PILOT_MEMORY_MIB: Final = 256  # The pilot itself, beside its tasks.
PILOT_WALLTIME_S: Final = 60  # Of the pilot's time no task can have: it starts, enrols, and ends in peace.
WORKER_PYTHON: Final = "/usr/bin/python3"  # Where nothing else is said of worker nodes that share nothing.
NAME_MAX: Final = 63  # What `is_name` allows.
MARK_DIGITS: Final = 6  # With a node's id, against another cluster's node that was given the same one.
SECRET_LIFETIME_MS: Final = 7 * 86_400_000  # Busy batch systems queue for days.


@dataclass(slots=True)
class PilotKit:
    """Writes what pilots of one site are started with; `config` may be replaced between them."""

    config: SiteConfig
    root_pem: bytes
    probes: set[str] = field(default_factory=set)  # Under way without a record: nobody's orphans.

    def make_ready(self) -> None:
        """See to the bundle that pilots are started from, where they are; blocking, some seconds at most.

        Anything installed anew since goes into the next pilots.
        """
        queue = self.config.queue
        if queue.bundled and not queue.worker_bundle:
            bundle.kept_file(self._bundle_directory, queue.bundle_with)

    @property
    def _bundle_directory(self) -> Path:
        return self.config.node.data_dir / BUNDLE_DIRECTORY

    def prepare(
        self,
        pilot: str,
        kind: ResourceClass,
        directory: Path,
        nodes: Sequence[common_pb2.NodeAddress],
        *,
        now_ms: int,
    ) -> tuple[GridJob, GridRequest]:
        """Write the pilot's files and return its record, to be noted before the request is submitted."""
        tag = Tag(self.owner, pilot)
        make_private_directory(directory)
        secret, record = make_one_time_secret(pilot, now_ms=now_ms, lifetime_ms=SECRET_LIFETIME_MS)
        write_secret(directory / "secret", secret.encode())
        path = directory / "pilot.json"
        write_secret(path, json.dumps(self._content(pilot, kind, directory, nodes), indent=1).encode())
        job = GridJob(
            pilot=pilot,
            resource_class=kind.name,
            slots=kind.slots,
            phase=GridJobPhase.NOTED,
            noted_ms=now_ms,
            tag=str(tag),
            secret_digest=record.digest.hex(),
            secret_expires_ms=record.expires_ms,
        )
        return job, self._request(tag, kind, directory, path)

    @property
    def owner(self) -> str:
        """What this node's tags begin with: its id, and a mark of its cluster's root.

        Ids may be chosen by hand, so that a test cluster and a production have the same beside the same batch
        system.  It changes with the node's id and with the root; grid jobs keep the tag in their records.
        """
        node_id = self.config.node.id
        root = fingerprint(chain_from_pem(self.root_pem)[0])
        mark = hashlib.sha256(f"{root} {node_id}".encode()).hexdigest()[:MARK_DIGITS]
        return f"{node_id[: NAME_MAX - 1 - MARK_DIGITS]}-{mark}"

    def tag(self, job: GridJob) -> Tag:
        """Return the tag that a pilot's grid job was submitted with."""
        return Tag.parse(job.tag) or Tag(self.config.node.site, job.pilot)

    def known(self, book: Iterable[GridJob]) -> list[Tag]:
        """Return the tags of everything of this node that may be in the batch system: nobody's orphans."""
        return [*(self.tag(job) for job in book), *(Tag(self.owner, probe) for probe in self.probes)]

    def _content(
        self, pilot: str, kind: ResourceClass, directory: Path, nodes: Sequence[common_pb2.NodeAddress]
    ) -> dict[str, object]:
        root, transfers = chain_from_pem(self.root_pem)[0], self.config.transfers
        system, shared = self.config.system, self.config.queue.shared_directory
        places = {
            "secret_file": str(directory / "secret"),
            "work_dir": str(system.scratch_dir / pilot),
            "state_dir": str(directory / "state"),
            "cache_dir": str(system.cache_dir),
        }
        if not shared:
            places |= {"secret_file": "secret", "state_dir": "$SCRATCH/state"}
            places |= {} if system.scratch_given else {"work_dir": "$SCRATCH/work"}
            places |= {} if system.cache_given else {"cache_dir": "$SCRATCH/cache"}
        return {
            **places,
            "scratch": shared and not system.scratch_given and self.config.queue.plugin != "local",
            "pilot": pilot,
            "site": self.config.node.site,
            "cluster": self.config.node.cluster,
            "root_fingerprint": fingerprint(root),
            "root_pem": self.root_pem.decode(),
            "nodes": [
                {
                    "node_id": node.node_id,
                    "site": node.site,
                    "address": node.address,
                    "server_name": node.server_name,
                    "enrol_address": node.enrol_address,
                    "role": node.role,
                }
                for node in nodes
            ],
            "resource_class": kind.name,
            "slots": kind.slots,
            "cpus": kind.slots * kind.cpus,
            "gpus": kind.slots * kind.gpus,
            "memory_mib": kind.slots * kind.memory_mib,
            "disk_mib": kind.slots * kind.disk_mib,
            "walltime_s": kind.walltime_s,
            "attributes": list(attributes_of(kind)),
            "idle_end_s": self.config.queue.idle_end_s,
            "grace_s": self.config.queue.grace_s,
            "cache_mib": system.cache_mib,
            "software_mib": system.software_mib,
            "isolation": self.config.queue.isolation,
            "hidden": self._hidden() if shared else [],
            "transfer_credentials": "" if transfers.hand_out else transfers.credentials,
            "transfer_handed": bool(transfers.hand_out and transfers.credentials),
            "transfer_for_modules": transfers.for_modules,
            "log_style": self.config.log.style,
            "log_level": self.config.log.level,
        }

    def _hidden(self) -> list[str]:
        """Directories of the node that payloads could see where the data directory is shared."""
        data_dir = self.config.node.data_dir.absolute()
        return [str(data_dir / name) for name in PRIVATE]

    def _request(self, tag: Tag, kind: ResourceClass, directory: Path, path: Path) -> GridRequest:
        queue = self.config.queue
        executable, arguments, carried = self._start(path)
        # A development tree that is not installed is found by its PYTHONPATH; an installed one needs nothing.
        passed_on = () if queue.bundled else ("PYTHONPATH",)
        return GridRequest(
            tag=tag,
            executable=executable,
            work_directory=str(directory / "grid"),
            arguments=arguments,
            files_in=carried,
            carry=not queue.shared_directory,
            environment={name: os.environ[name] for name in passed_on if name in os.environ},
            queue=queue.queue_name,
            priority=queue.priority,
            walltime_s=kind.walltime_s,
            cores=kind.slots * kind.cpus,
            memory_mib=kind.slots * kind.memory_mib + PILOT_MEMORY_MIB,
            disk_mib=kind.slots * kind.disk_mib,
            gpus=0 if kind.gpu_emulation else kind.slots * kind.gpus,
            extra_lines=queue.extra_lines,
        )

    def misfits(self, grid: Grid) -> list[str]:
        """Return a sentence for each resource class whose pilots the batch system can never start; asks nobody."""
        found = []
        for kind in self.config.queue.classes:
            reason = self.misfit(grid, kind)
            if reason:
                found.append(f"no pilot of class {kind.name} will ever start: {reason}")
        return found

    def misfit(self, grid: Grid, kind: ResourceClass) -> str:
        """Return why the batch system can never start pilots of a class, empty when nothing is known against it."""
        directory = self.config.node.data_dir.absolute()
        sample = Tag(self.config.node.site, "p-sample")
        return grid.impossible(self._request(sample, kind, directory, directory / "pilot.json"))

    def _start(self, path: Path) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        """Return the executable, its arguments, and the files that are carried to the worker node."""
        queue = self.config.queue
        if not queue.bundled:
            return sys.executable, ("-m", PILOT_MODULE, "--config", str(path)), ()
        made = self._bundle_directory / bundle.FILE_NAME
        if queue.shared_directory:
            start = (queue.worker_bundle or str(made), "--config", str(path))
            return queue.worker_python or sys.executable, start, ()
        carried = [str(path), str(path.with_name("secret"))]
        if not queue.worker_bundle:
            carried.append(str(made))
        start = (queue.worker_bundle or bundle.FILE_NAME, "--config", path.name)
        return queue.worker_python or WORKER_PYTHON, start, tuple(carried)


def secret_record(job: GridJob) -> OneTimeSecret:
    """Return what is remembered of a pilot's secret."""
    return OneTimeSecret(
        bytes.fromhex(job.secret_digest), job.pilot, job.secret_expires_ms, bytes.fromhex(job.enrolled_key)
    )


def attributes_of(kind: ResourceClass) -> tuple[str, ...]:
    """Return the attributes of a class, with architecture and Python as this machine's where it names none itself."""
    here = this_machine()
    usual = {"arch=": here.arch, "python=": here.python}
    added = (
        f"{prefix}{value}"
        for prefix, value in usual.items()
        if not any(word.startswith(prefix) for word in kind.attributes)
    )
    return tuple(sorted({*kind.attributes, *added}))


def offer_of(kind: ResourceClass) -> Offer:
    """Return one slot of a resource class as the ledger knows it.

    Its wall time is what a young pilot can give to a task, less than its own: a task that fits no pilot would
    be claimed, and pilots submitted for it, for ever.
    """
    reserve_s = min(PILOT_WALLTIME_S, kind.walltime_s // 2)
    return Offer(
        kind.name,
        0,
        cpus=kind.cpus,
        gpus=kind.gpus,
        memory_mib=kind.memory_mib,
        disk_mib=kind.disk_mib,
        walltime_s=kind.walltime_s - reserve_s,
        attributes=attributes_of(kind),
        gpu_tasks_only=kind.gpu_tasks_only,
    )
