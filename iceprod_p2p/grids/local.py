"""The local grid: grid jobs as processes of this machine, the smallest example for writers of plugins.

Grid jobs survive a restart of the node: each runs in a session of its own, all that is known about it lies in
the spool directory (`local_spool`), and one supervisor process per spool (`local_supervisor`) starts the
queued ones and keeps the limits.  A grid job's id is its tag, so the same tag is never submitted twice.

Absent on purpose: accounts of other users (grid jobs run as the node's user) and other machines.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import ClassVar, Final, Self

import iceprod_p2p
from iceprod_p2p.base.clock import Clock, SystemClock
from iceprod_p2p.base.settings import Setting
from iceprod_p2p.grids.base import (
    Capabilities,
    Completed,
    Failed,
    Grid,
    GridJobStatus,
    GridRequest,
    GridState,
    History,
    NotSubmitted,
    Queued,
    Removed,
    Running,
    SubmitConfig,
    SubmitResult,
    Submitted,
    Tag,
    Unclear,
)
from iceprod_p2p.grids.errors import GridDown
from iceprod_p2p.grids.files import place_files
from iceprod_p2p.grids.local_spool import VERDICT_REMOVED, Alive, End, JobFile, Spool, SpoolOptions, Waiting

SPAWN_INTERVAL_S: Final = 1.0  # A supervisor needs a moment to open the FIFO.
LOG_BYTES_MAX: Final = 1 << 20
PATH: Final = "/usr/local/bin:/usr/bin:/bin"


class LocalGrid(Grid):
    """Processes of this machine.  Any number of objects, in any number of processes, may share one spool."""

    OPTIONS: ClassVar[tuple[Setting, ...]] = (
        Setting("spool", "path", None, "directory that is kept over restarts"),
        Setting("slots", "whole", os.cpu_count() or 1, "cores for grid jobs", 1, 4_096),
        Setting("memory_mib", "whole", 0, "memory for all grid jobs together; 0: not counted"),
        Setting("gpus", "texts", (), "values for CUDA_VISIBLE_DEVICES, one for each GPU"),
        Setting("nice", "whole", 0, "nice value of every grid job", 0, 19),
        Setting("grace_s", "number", 10.0, "between TERM and KILL", 0, 3_600),
        Setting("interval_s", "number", 1.0, "between looks at limits", 0.05, 60),
        Setting("linger_s", "number", 5.0, "how long an idle supervisor stays", 0, 3_600),
        Setting("keep_s", "number", 7 * 86_400.0, "how long ends are kept that nobody fetched", 60),
    )

    def __init__(self, spool: Path, options: SpoolOptions, *, clock: Clock | None = None) -> None:
        self.spool = Spool(spool)
        self.options = options
        self._clock = clock or SystemClock()
        self._host = socket.gethostname()
        self._sequence = 0
        self._supervisors: list[subprocess.Popen[bytes]] = []
        self._spawned_at_s = float("-inf")

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Make the plugin; the spool is created at the first use."""
        values = dict(options)
        return cls(Path(str(values.pop("spool"))).expanduser(), SpoolOptions(**values))  # type: ignore[arg-type]

    def capabilities(self) -> Capabilities:
        """Return what this machine can do."""
        return Capabilities(
            jobs_per_submit=1_000,
            enforces=frozenset({"walltime", "memory", "disk"}),
            gpus=bool(self.options.gpus),
        )

    def write_config(self, request: GridRequest) -> SubmitConfig:
        """Return the command line and the file that the spool will hold."""
        job = self._job_file(request, sequence=0)
        return SubmitConfig(job.command, json.dumps(asdict(job), indent=2, sort_keys=True))

    def submit(self, requests: Sequence[GridRequest]) -> list[SubmitResult]:
        """Put the requests into the spool; about a thousand in a second."""
        self._open()
        results: list[SubmitResult] = []
        for request in requests:
            refusal = self._refusal(request)
            results.append(NotSubmitted(request.tag, refusal) if refusal else self._submit_one(request))
        unclear = [result.reason for result in results if isinstance(result, Unclear)]
        if unclear and len(unclear) == len(results):
            raise GridDown(f"the local grid took nothing: {unclear[0]}", remedy=f"look at {self.spool.root}")
        self._wake()
        return results

    def status(self, grid_job_ids: Collection[str]) -> dict[str, GridState]:
        """Return the states from the disk and /proc; starts a supervisor where one is needed and none is
        there.
        """
        self._open()
        seen = {name: self.spool.look(name) for name in grid_job_ids if Tag.parse(name)}
        if any(isinstance(look, Waiting | Alive) for look in seen.values()):
            self._wake()
        return {name: self._state(look) for name, look in seen.items() if look is not None}

    def history(self, grid_job_ids: Collection[str]) -> dict[str, History]:
        """Return the ends.

        An exit code is known at once, resources when the supervisor has noted the end, milliseconds
        later; they stay None for a grid job that ended while no supervisor was there.
        """
        ends: dict[str, History] = {}
        for name in grid_job_ids:
            look = self.spool.look(name) if Tag.parse(name) else None
            if isinstance(look, End):
                reason = look.verdict.reason if look.verdict else look.lost
                ends[name] = History(
                    name,
                    self._state(look),
                    look.exit_code,
                    reason,
                    self._host,
                    look.walltime_s,
                    look.cpu_s,
                    look.memory_mib,
                )
        return ends

    def remove(self, grid_job_ids: Collection[str]) -> None:
        """Note the removals; the supervisor sends TERM at once and KILL after `grace_s`."""
        self._open()
        asked = [name for name in grid_job_ids if Tag.parse(name) and self.spool.ask_removal(name)]
        if asked:
            self._wake()

    def our_jobs(self, owner: str) -> list[GridJobStatus]:
        """Return all of an owner's grid jobs in the spool, ended ones until they are forgotten."""
        self._open()
        found = []
        for name in self.spool.ids():
            tag = Tag.parse(name)
            look = self.spool.look(name) if tag and tag.owner == owner else None
            if look is not None:
                found.append(GridJobStatus(name, tag, self._state(look)))
        return found

    def find_by_tag(self, tags: Collection[Tag]) -> dict[Tag, GridJobStatus]:
        """Return the grid jobs with these tags; one look at the disk for each."""
        self._open()
        looks = {tag: self.spool.look(str(tag)) for tag in tags}
        return {
            tag: GridJobStatus(str(tag), tag, self._state(look))
            for tag, look in looks.items()
            if look is not None
        }

    def forget(self, grid_job_ids: Collection[str]) -> None:
        """Drop what the spool keeps of ended grid jobs; others are kept."""
        for name in grid_job_ids:
            if Tag.parse(name) and isinstance(self.spool.look(name), End):
                self.spool.drop(name)

    def check(self) -> str:
        """Return what this grid offers, after a look that its spool can be written."""
        self._open()
        return f"local: {self.options.slots} slots, {len(self.options.gpus)} GPUs, spool {self.spool.root}"

    def _open(self) -> None:
        try:
            self.spool.create()
            self.spool.write_options(self.options)
        except OSError as broken:
            raise GridDown(
                f"the local grid's spool {self.spool.root} cannot be used: {broken.strerror or broken}",
                remedy="make the directory writable for the node's user, or give it space",
            ) from broken

    def impossible(self, request: GridRequest) -> str:
        """Return which amount this machine does not have."""
        return self._refusal(request)

    def _refusal(self, request: GridRequest) -> str:
        """Return why this grid can never run the request; empty when it can."""
        options = self.options
        if request.cores > options.slots:
            return f"it wants {request.cores} cores, this grid has {options.slots} slots"
        if options.memory_mib and request.memory_mib > options.memory_mib:
            return f"it wants {request.memory_mib} MiB of memory, this grid has {options.memory_mib} MiB"
        if request.gpus > len(options.gpus):
            return f"it wants {request.gpus} GPUs, this grid has {len(options.gpus)}"
        if not os.access(request.executable, os.X_OK):
            return f"{request.executable} cannot be executed"
        if request.queue or request.extra_lines:
            return "the local grid has no queues and takes no extra lines"
        if self._host in request.exclude_hosts:
            return f"it must not run on {self._host}, and this grid has no other host"
        return ""

    def _submit_one(self, request: GridRequest) -> SubmitResult:
        try:
            place_files(replace(request, carry=False))
            self._sequence += 1
            self.spool.add(
                self._job_file(request, sequence=self._clock.wall_ms() * 1_000 + self._sequence % 1_000)
            )
        except OSError as broken:
            reason = f"{broken.strerror or broken}: {broken.filename or request.work_directory}"
            if broken.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO):
                return Unclear(request.tag, reason)
            return NotSubmitted(request.tag, reason)
        return Submitted(request.tag, str(request.tag))

    def _job_file(self, request: GridRequest, *, sequence: int) -> JobFile:
        user = pwd.getpwuid(os.getuid())
        usual = {
            "HOME": user.pw_dir,
            "USER": user.pw_name,
            "LOGNAME": user.pw_name,
            "PATH": PATH,
            "LANG": "C.UTF-8",
        }
        return JobFile(
            tag=str(request.tag),
            sequence=sequence,
            priority=request.priority,
            command=(request.executable, *request.arguments),
            work_directory=request.work_directory,
            environment={**usual, **request.full_environment()},
            walltime_s=request.walltime_s,
            cores=request.cores,
            memory_mib=request.memory_mib,
            disk_mib=request.disk_mib,
            gpus=request.gpus,
        )

    def _state(self, look: Waiting | Alive | End) -> GridState:
        if isinstance(look, Waiting):
            return Queued("waiting for free slots")
        if isinstance(look, Alive):
            return Running(self._host)
        if look.verdict is not None:
            return (
                Removed(look.verdict.reason)
                if look.verdict.kind == VERDICT_REMOVED
                else Failed(look.verdict.reason)
            )
        return Failed(look.lost) if look.exit_code is None else Completed(look.exit_code)

    def _wake(self) -> None:
        """Ring the supervisor; start one when nobody listens."""
        self._supervisors = [process for process in self._supervisors if process.poll() is None]
        try:
            bell = os.open(self.spool.wake, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as nobody:
            if nobody.errno != errno.ENXIO:
                raise GridDown(
                    f"the local grid's spool {self.spool.root} cannot be used: {nobody}"
                ) from nobody
            self._start_supervisor()
            return
        try:
            os.write(bell, b"!")
        except BlockingIOError:
            return  # It has many rings to read already.
        except BrokenPipeError:
            self._start_supervisor()
        finally:
            os.close(bell)

    def _start_supervisor(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._spawned_at_s < SPAWN_INTERVAL_S:
            return
        self._spawned_at_s = now_s
        package_root = str(Path(iceprod_p2p.__file__).parent.parent)
        environment = {
            name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LD_LIBRARY_PATH")
        }
        mode = "wb" if self.spool.log.exists() and self.spool.log.stat().st_size > LOG_BYTES_MAX else "ab"
        with open(self.spool.log, mode) as log:
            self._supervisors.append(
                subprocess.Popen(
                    [sys.executable, "-m", "iceprod_p2p.grids.local_supervisor", str(self.spool.root)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env={**environment, "PYTHONPATH": package_root},
                    start_new_session=True,
                )
            )
