"""What the local grid's supervisor does in one turn: finds, starts, watches, ends and notes grid jobs.

All it knows is read from the spool and /proc, so that another supervisor can go on at any point.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from iceprod_p2p.base.clock import Clock, SystemClock
from iceprod_p2p.grids import local_processes as processes
from iceprod_p2p.grids.local_limits import broken_limit, disk_mib
from iceprod_p2p.grids.local_slots import Slots, next_to_start
from iceprod_p2p.grids.local_spawn import spawn
from iceprod_p2p.grids.local_spool import (
    VERDICT_REMOVED,
    Alive,
    End,
    JobFile,
    Spool,
    SpoolOptions,
    Verdict,
    Waiting,
)
from iceprod_p2p.grids.request import TAG_VARIABLE

STARTS_PER_TURN: Final = 50  # Then ends and removals get their turn.
DISK_IDLE_RATIO: Final = 50  # A walk over many files may take this part of the supervisor's time.
SILENT_START_S: Final = 10.0  # A shell needs milliseconds to say that it runs.
PURGE_INTERVAL_S: Final = 3_600.0
KILL_ROUNDS_MAX: Final = 20  # A tree that forks for longer must not hold up all others.


@dataclass(slots=True)
class Watched:
    """A grid job that runs, or is about to."""

    job: JobFile
    since_s: float
    pid: int = 0
    start_ticks: int = 0
    verdict: Verdict | None = None
    kill_at_s: float = 0.0
    memory_mib: int = 0
    disk_mib: int = 0
    disk_at_s: float = 0.0
    cpu_s: float | None = None
    elapsed_s: float = 0.0

    def complete(self, end: End) -> End:
        """Return `end` with what has been measured."""
        return replace(
            end,
            verdict=end.verdict or self.verdict,
            walltime_s=round(self.elapsed_s, 3) or None,
            cpu_s=self.cpu_s,
            memory_mib=self.memory_mib or None,
        )


@dataclass(slots=True)
class Supervisor:
    """The loop; every turn looks at what is on disk and in /proc, then acts."""

    spool: Spool
    options: SpoolOptions
    clock: Clock = field(default_factory=SystemClock)
    waiting: dict[str, JobFile] = field(default_factory=dict)
    watched: dict[str, Watched] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    children: dict[int, str] = field(default_factory=dict)
    kinship: processes.Kinship = field(default_factory=lambda: processes.Kinship(TAG_VARIABLE))
    limits_at_s: float = 0.0
    purge_at_s: float = 0.0

    def turn(self) -> None:
        """Look once and do all that is to do now."""
        self.options = self.spool.read_options() or self.options
        self._find_new()
        self._reap()
        self._note_ends()
        self._remove_waiting()
        self._start()
        now_s = self.clock.monotonic_s()
        if now_s >= self.limits_at_s or self._someone_is_due(now_s):
            self._keep_limits(now_s)
            self.limits_at_s = now_s + self.options.interval_s
        if now_s >= self.purge_at_s:
            self._purge()
            self.purge_at_s = now_s + PURGE_INTERVAL_S

    @property
    def idle(self) -> bool:
        """Return whether no grid job waits or runs."""
        return not (self.waiting or self.watched)

    def _find_new(self) -> None:
        there = set(self.spool.ids())
        self.ended &= there
        for grid_job_id in sorted(there - self.ended - self.waiting.keys() - self.watched.keys()):
            job = self.spool.request(grid_job_id)
            if self.spool.has_end(grid_job_id):
                self.ended.add(grid_job_id)
            elif job is None:
                self._end(grid_job_id, End(None, Verdict("start", "its request in the spool cannot be read")))
            elif isinstance(self.spool.look(grid_job_id), Waiting):
                self.waiting[grid_job_id] = job
            else:  # Started by an earlier supervisor; it may have ended since.
                self.watched[grid_job_id] = Watched(job, self.clock.monotonic_s())

    def _end(self, grid_job_id: str, end: End) -> None:
        with suppress(FileNotFoundError):  # Somebody who saw it end has dropped it.
            self.spool.write_end(grid_job_id, end)
            self.ended.add(grid_job_id)

    def _reap(self) -> None:
        """Take the ends of our own children, with what they used; their exit codes are on disk already."""
        while self.children:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self.children.clear()
                return
            if pid == 0:
                return
            grid_job_id = self.children.pop(pid, "")
            watched = self.watched.get(grid_job_id)
            if watched is None or watched.pid not in (0, pid):
                continue
            watched.cpu_s = round(usage.ru_utime + usage.ru_stime, 3)
            watched.memory_mib = max(watched.memory_mib, usage.ru_maxrss >> 10)
            watched.elapsed_s = self.clock.monotonic_s() - watched.since_s
            if isinstance(self.spool.look(grid_job_id), Waiting):
                reason = (
                    f"its shell could not start in the spool (exit code {os.waitstatus_to_exitcode(status)})"
                )
                del self.watched[grid_job_id]
                self._end(grid_job_id, End(None, Verdict("start", reason)))

    def _note_ends(self) -> None:
        over: dict[str, End] = {}
        for grid_job_id, watched in self.watched.items():
            seen = self.spool.look(grid_job_id)
            if isinstance(seen, Alive) and seen.started:
                watched.pid, watched.start_ticks = seen.started.pid, seen.started.start_ticks
            elif isinstance(seen, End):
                over[grid_job_id] = seen
            elif seen is None:
                over[grid_job_id] = End(None, Verdict(VERDICT_REMOVED, "its files were taken away"))
            elif watched.pid == 0 and self.clock.monotonic_s() - watched.since_s > SILENT_START_S:
                over[grid_job_id] = End(None, Verdict("start", "its shell died at once"))
        if not over:
            return
        self._reap()  # Who ended since this turn began is still a zombie, with its use of resources.
        self._kill_leftovers(over)
        for grid_job_id, end in over.items():
            self._end(grid_job_id, self.watched.pop(grid_job_id).complete(end))

    def _kill_leftovers(self, over: Collection[str]) -> None:
        """Kill what ended grid jobs left running, and what that started before the signal reached it."""
        killed: set[tuple[int, int]] = set()
        for _ in range(KILL_ROUNDS_MAX):
            kin = self.kinship.members(self._leaders(), over)
            members = {
                (process.pid, process.start_ticks): process for kind in kin.values() for process in kind
            }
            if killed.issuperset(members):
                return
            processes.send([members[key] for key in members.keys() - killed], signal.SIGKILL)
            killed.update(members)

    def _leaders(self) -> dict[int, str]:
        return {watched.pid: name for name, watched in self.watched.items() if self._lives(watched)}

    def _lives(self, watched: Watched) -> bool:
        return watched.pid != 0 and processes.is_alive(watched.pid, watched.start_ticks)

    def _remove_waiting(self) -> None:
        for grid_job_id in [name for name in self.waiting if self.spool.removal_asked(name)]:
            del self.waiting[grid_job_id]
            self._end(grid_job_id, End(None, Verdict(VERDICT_REMOVED, "removed before it started")))

    def _start(self) -> None:
        running = {name: (watched.job, self.spool.gpus_of(name)) for name, watched in self.watched.items()}
        slots = Slots.free(self.options, running.values())
        for grid_job_id, gpus in next_to_start(slots, self.waiting)[:STARTS_PER_TURN]:
            job = self.waiting.pop(grid_job_id)
            try:
                self.spool.write_gpus(grid_job_id, gpus)
                pid = spawn(self.spool.directory(grid_job_id), job, gpus=gpus, nice=self.options.nice)
            except OSError as broken:
                self._end(grid_job_id, End(None, Verdict("start", f"it cannot be started: {broken}")))
                continue
            self.children[pid] = grid_job_id
            self.watched[grid_job_id] = Watched(job, self.clock.monotonic_s())

    def _someone_is_due(self, now_s: float) -> bool:
        return any(
            (watched.kill_at_s and now_s >= watched.kill_at_s)
            or (watched.verdict is None and self.spool.removal_asked(name))
            for name, watched in self.watched.items()
        )

    def _keep_limits(self, now_s: float) -> None:
        if not self.watched:
            return
        kin = self.kinship.members(self._leaders(), self.watched)
        for grid_job_id, watched in self.watched.items():
            members = kin[grid_job_id]
            self._measure(watched, members, now_s)
            if watched.verdict is None:
                self._judge(grid_job_id, watched, members, now_s)
            elif now_s >= watched.kill_at_s:
                processes.send(members, signal.SIGKILL)

    def _measure(self, watched: Watched, members: list[processes.Process], now_s: float) -> None:
        resident_mib = sum(process.rss_bytes for process in members) >> 20
        if watched.job.memory_mib and resident_mib > watched.job.memory_mib:
            resident_mib = processes.memory_bytes(members) >> 20  # Shared pages were counted more than once.
        watched.memory_mib = max(watched.memory_mib, resident_mib)
        if watched.start_ticks:
            watched.elapsed_s = processes.age_s(watched.start_ticks)
        if watched.job.disk_mib and now_s >= watched.disk_at_s:
            watched.disk_mib = disk_mib(watched.job.work_directory)
            took_s = self.clock.monotonic_s() - now_s
            watched.disk_at_s = now_s + max(self.options.interval_s, took_s * DISK_IDLE_RATIO)

    def _judge(
        self, grid_job_id: str, watched: Watched, members: list[processes.Process], now_s: float
    ) -> None:
        """Send TERM to the grid job's own session when it has to end; its pilot gives its tasks back and
        goes.
        """
        verdict = broken_limit(
            watched.job,
            elapsed_s=watched.elapsed_s,
            memory_mib=watched.memory_mib,
            disk_mib=watched.disk_mib,
        )
        if self.spool.removal_asked(grid_job_id):
            verdict = Verdict(VERDICT_REMOVED, "removed while it ran")
        if verdict is None or not watched.pid:
            return
        watched.verdict = verdict
        watched.kill_at_s = now_s + self.options.grace_s
        self.spool.write_verdict(grid_job_id, verdict)
        processes.send([process for process in members if process.session == watched.pid], signal.SIGTERM)

    def _purge(self) -> None:
        """Drop grid jobs that ended long ago and that nobody has told us to forget."""
        self.spool.clear_dropped()
        oldest_s = self.clock.wall_ms() / 1_000 - self.options.keep_s
        for grid_job_id in sorted(self.ended):
            try:
                ended_s = (self.spool.directory(grid_job_id) / "end.json").stat().st_mtime
            except OSError:
                continue
            if ended_s < oldest_s:
                self.spool.drop(grid_job_id)
