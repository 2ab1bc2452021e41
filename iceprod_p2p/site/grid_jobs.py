"""The site's own memory of its grid jobs: one small file per pilot, written before anything is submitted.

    data_dir/pilots/ID/grid_job.json    this record
    data_dir/pilots/ID/pilot.json       what the pilot is started with
    data_dir/pilots/ID/secret           its one-time enrolment secret, 0600

None of it is replicated.  After a restart the records tell which pilots there are, so nothing is submitted
twice: a record whose submission is unclear is looked up by its tag in the batch system.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.security.keyfiles import make_private_directory, read_secret, write_secret

_RECORD: Final = "grid_job.json"
_PILOT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
log = get_logger("keeper")


class GridJobPhase(StrEnum):
    """How far one grid job is, as the site knows."""

    NOTED = "noted"  # Written down; whether the system has it must be asked by tag.
    QUEUED = "queued"
    HELD = "held"
    RUNNING = "running"
    ENDED = "ended"
    VANISHED = "vanished"  # Nobody can say how it ended.


LIVE_PHASES: Final = frozenset(
    {GridJobPhase.NOTED, GridJobPhase.QUEUED, GridJobPhase.HELD, GridJobPhase.RUNNING}
)


@dataclass(frozen=True, slots=True)
class GridJob:
    """One pilot and the grid job that carries it; times are wall milliseconds, for display and cleaning."""

    pilot: str
    resource_class: str
    slots: int
    phase: GridJobPhase
    noted_ms: int
    grid_job_id: str = ""
    secret_digest: str = ""  # Hex; the secret itself lies in the pilot's file alone.
    secret_expires_ms: int = 0
    enrolled_key: str = ""  # Hex digest of the key that used the secret.
    host: str = ""
    ended_ms: int = 0
    reason: str = ""
    evicted: bool = False  # The batch system, or somebody by it, took it away: its host is not to blame.
    settled: bool = False  # What it ran when it ended has been given back.
    tag: str = ""  # As submitted: the node may have another id by now.  Empty in records of old: its site's.

    @property
    def live(self) -> bool:
        """Whether it may still run or start."""
        return self.phase in LIVE_PHASES


class GridJobBook:
    """All grid jobs of this node, in memory and on disk; used on the event loop only.

    Every `put` is durable when it returns (one small file and its directories synced).
    """

    def __init__(self, directory: Path) -> None:
        make_private_directory(directory)
        self.directory = directory
        self._jobs: dict[str, GridJob] = {}
        self._live: dict[
            str, GridJob
        ] = {}  # Those of them that may still run or start: asked for all the time.
        for record in sorted(directory.glob(f"*/{_RECORD}")):
            job = _read(record)
            if job is not None:
                self._note(job)
        for young in directory.iterdir():  # A crash before the record: nobody ever heard of this pilot.
            if young.is_dir() and not (young / _RECORD).exists():
                shutil.rmtree(young, ignore_errors=True)

    def __iter__(self) -> Iterator[GridJob]:
        return iter(list(self._jobs.values()))

    def get(self, pilot: str) -> GridJob | None:
        """Return the record of a pilot."""
        return self._jobs.get(pilot)

    def unsettled(self) -> list[GridJob]:
        """Return those that ended and whose tasks have not been looked after."""
        return [job for job in self._jobs.values() if not job.live and not job.settled]

    def live(self) -> list[GridJob]:
        """Return those that may still run or start."""
        return list(self._live.values())

    def put(self, job: GridJob) -> None:
        """Write one record down."""
        if self._jobs.get(job.pilot) == job:
            return
        directory = self.path(job.pilot)
        make_private_directory(directory)
        write_secret(directory / _RECORD, json.dumps(asdict(job), indent=1).encode())
        self._note(job)

    def change(self, pilot: str, change: Callable[[GridJob], GridJob]) -> None:
        """Rewrite a record that may have been removed meanwhile."""
        job = self._jobs.get(pilot)
        if job is not None:
            self.put(change(job))

    def end(
        self, pilot: str, *, phase: GridJobPhase, now_ms: int, reason: str, evicted: bool = False
    ) -> None:
        """Note that a grid job has ended, once."""
        job = self._jobs.get(pilot)
        if job is not None and job.live:
            self.put(replace(job, phase=phase, ended_ms=now_ms, reason=reason[:500], evicted=evicted))

    def path(self, pilot: str) -> Path:
        """Return the directory of a pilot; ConfigError for a text that cannot name one."""
        if _PILOT_ID.fullmatch(pilot) is None:
            raise ConfigError(f"{pilot[:80]!r} cannot name a pilot")
        return self.directory / pilot

    def forget(self, pilots: Iterable[str]) -> None:
        """Remove records and directories."""
        for pilot in pilots:
            shutil.rmtree(self.path(pilot), ignore_errors=True)
            self._jobs.pop(pilot, None)
            self._live.pop(pilot, None)

    def _note(self, job: GridJob) -> None:
        self._jobs[job.pilot] = job
        if job.live:
            self._live[job.pilot] = job
        else:
            self._live.pop(job.pilot, None)


def _read(path: Path) -> GridJob | None:
    try:
        values = json.loads(read_secret(path))
        return GridJob(**{**values, "phase": GridJobPhase(values["phase"])})
    except (ConfigError, ValueError, KeyError, TypeError) as damaged:
        # One lost record must not keep the node down; the grid job itself ends by its own idle limit.
        log.error("grid job record unreadable", path=str(path), error=str(damaged))
        return None
