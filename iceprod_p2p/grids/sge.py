"""The Grid Engine plugin (Son of Grid Engine, and its relatives with the same commands): qsub, qstat, qacct,
qdel.

A grid job carries its tag as its name.  Grid Engine forgets a grid job the moment it ends, and writes it to
its accounting a little later; in between it counts as running.  One that is removed before it starts is never
accounted, so the plugin remembers what it removed.

Absent on purpose: array jobs, because every pilot has its own secret and tag.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, Final, Self

from iceprod_p2p.base.clock import Clock, SystemClock
from iceprod_p2p.base.settings import Setting
from iceprod_p2p.grids import sge_text as text
from iceprod_p2p.grids.base import (
    Capabilities,
    Completed,
    Grid,
    GridJobStatus,
    GridRequest,
    GridState,
    Held,
    History,
    NotSubmitted,
    Removed,
    Running,
    SubmitConfig,
    SubmitResult,
    Submitted,
    Tag,
    Unclear,
)
from iceprod_p2p.grids.command import CommandResult, Commands, failure
from iceprod_p2p.grids.errors import GridDown, GridError
from iceprod_p2p.grids.submitting import in_parts, submit_each

ALONE_MOST: Final = 3  # So many are asked for one by one; qacct reads its whole file every time.
REMEMBERED_MOST: Final = 20_000
NOT_FOUND: Final = "not found"
REMEDY: Final = "check sge_qmaster with `qstat -f`, and SGE_ROOT and SGE_CELL in the option environment"


class SgeGrid(Grid):
    """One Grid Engine cell, spoken to by its commands."""

    OPTIONS: ClassVar[tuple[Setting, ...]] = (
        Setting("bin_directory", "path", "", "where Grid Engine's commands are; empty: in PATH"),
        Setting("environment", "table", {}, "for Grid Engine's commands: SGE_ROOT, SGE_CELL, ports"),
        Setting("timeout_s", "number", 60.0, "for one command", 1, 3_600),
        Setting("parallel_environment", "text", "smp", "for more than one core; must use $pe_slots"),
        Setting("memory_resource", "text", "h_vmem", "limit of memory per slot; empty: not asked for"),
        Setting("disk_resource", "text", "", "disk per slot; empty: not asked for"),
        Setting("gpu_resource", "text", "gpu", "consumable that counts GPUs"),
        Setting("gpu_per_slot", "switch", True, "false where the consumable counts per job (JOB)"),
        Setting("priority_most", "whole", 0, "only operators may go above 0", 0, 1_024),
        Setting("verify", "switch", True, "refuse what no host can ever run (-w e)"),
        Setting("accounting_delay_s", "number", 60.0, "until the accounting is written", 0, 86_400),
        Setting("history_days", "whole", 7, "how far back ends are looked for", 1, 365),
    )

    def __init__(
        self,
        commands: Commands,
        options: text.SgeOptions,
        *,
        accounting_delay_s: float = 60.0,
        history_days: int = 7,
        clock: Clock | None = None,
    ) -> None:
        self._commands = commands
        self._options = options
        self._delay_s = accounting_delay_s
        self._days = history_days
        self._clock = clock or SystemClock()
        self._user = pwd.getpwuid(os.getuid()).pw_name
        self._seen: dict[str, float] = {}  # When an id was last listed, or submitted.
        self._removed: dict[str, None] = {}
        self._ends: dict[str, History] = {}

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Make the plugin; asks Grid Engine nothing."""
        values = dict(options)
        commands = Commands(
            bin_directory=str(values.pop("bin_directory")),
            environment=dict(values.pop("environment")),  # type: ignore[call-overload]
            timeout_s=float(str(values.pop("timeout_s"))),
        )
        delay_s = float(str(values.pop("accounting_delay_s")))
        days = int(str(values.pop("history_days")))
        sge = text.SgeOptions(**values)  # type: ignore[arg-type]
        return cls(commands, sge, accounting_delay_s=delay_s, history_days=days)

    def capabilities(self) -> Capabilities:
        """Return what Grid Engine can do; it counts GPUs, and the site's prolog has to assign them."""
        enforces = {"walltime", "memory"} if self._options.memory_resource else {"walltime"}
        return Capabilities(enforces=frozenset(enforces), gpus=bool(self._options.gpu_resource))

    def write_config(self, request: GridRequest) -> SubmitConfig:
        """Return qsub's command line and the script that it reads."""
        return SubmitConfig(text.arguments(request, self._options), text.script(request))

    def submit(self, requests: Sequence[GridRequest]) -> list[SubmitResult]:
        """Submit one by one; forty to seventy in a second."""
        return submit_each(requests, self._submit_one)

    def status(self, grid_job_ids: Collection[str]) -> dict[str, GridState]:
        """Return the states of those that live, by one call of qstat, and one more for the reasons of errors.

        One that was here and is gone counts as running until the accounting has it, or `accounting_delay_s`
        is over.
        """
        wanted = set(grid_job_ids)
        if not wanted:
            return {}
        now_s = self._clock.monotonic_s()
        states = {job.grid_job_id: job.state for job in self._list() if job.grid_job_id in wanted}
        self._seen |= dict.fromkeys(states, now_s)
        gone = [name for name in wanted - set(states) - set(self._removed) if name in self._seen]
        ended = self.history(gone) if gone else {}
        for name in gone:
            if name not in ended and now_s - self._seen[name] < self._delay_s:
                states[name] = Running()
        return states

    def history(self, grid_job_ids: Collection[str]) -> dict[str, History]:
        """Return the ends from the accounting; for many ids it is read once for all.

        What this object removed is `Removed`, whatever its last exit code.
        """
        wanted = sorted(name for name in set(grid_job_ids) if name.isdigit())
        asked = [name for name in wanted if name not in self._ends]
        if len(asked) > ALONE_MOST:
            found = self._qacct("-o", self._user, "-d", str(self._days), "-j", "iceprod.*")
        else:
            found = [job for name in asked for job in self._qacct("-j", name)]
        for job in found:
            if job.grid_job_id in asked and job.history is not None:
                self._ends[job.grid_job_id] = self._as_removed(job.history)
        for name in asked:
            if name in self._removed and name not in self._ends and not self._is_listed(name):
                self._ends[name] = History(
                    name, Removed("removed before it ran"), reason="removed before it ran"
                )
        _trim(self._ends)
        return {name: self._ends[name] for name in wanted if name in self._ends}

    def remove(self, grid_job_ids: Collection[str]) -> None:
        """Delete; running ones get USR2, as TERM, and KILL after the queue's `notify`."""
        for part in in_parts(sorted(name for name in grid_job_ids if name.isdigit())):
            result = self._commands.run(["qdel", *part])
            lines = (result.stdout + result.stderr).splitlines()
            unknown = {line.split('"')[1] for line in lines if line.startswith('denied: job "')}
            wrong = [
                line
                for line in lines
                if line.startswith(("denied", "error")) and not text.UNKNOWN_JOB.match(line)
            ]
            if result.exit_code and (wrong or not unknown):
                raise _failure(result)
            self._removed |= dict.fromkeys(name for name in part if name not in unknown)
            _trim(self._removed)

    def our_jobs(self, owner: str) -> list[GridJobStatus]:
        """Return an owner's live grid jobs; ended ones are found by `find_by_tag`."""
        return [
            GridJobStatus(job.grid_job_id, job.tag, job.state)
            for job in self._list()
            if job.tag is not None and job.tag.owner == owner
        ]

    def find_by_tag(self, tags: Collection[Tag]) -> dict[Tag, GridJobStatus]:
        """Return the grid jobs with these tags, ended ones by the names in the accounting."""
        found = super().find_by_tag(tags)
        lost = set(tags) - set(found)
        if lost:
            for job in self._qacct("-o", self._user, "-d", str(self._days), "-j", "iceprod.*"):
                if job.tag in lost and job.tag is not None:
                    found[job.tag] = GridJobStatus(job.grid_job_id, job.tag, job.state)
        return found

    def forget(self, grid_job_ids: Collection[str]) -> None:
        """Drop what is remembered of these."""
        for name in grid_job_ids:
            for memory in (self._seen, self._removed, self._ends):
                memory.pop(name, None)

    def check(self) -> str:
        """Return Grid Engine's version, once its master answers."""
        first = self._succeed("qstat", "-help").splitlines()[0].strip()
        self._list()
        return f"Grid Engine: {first}"

    def _submit_one(self, request: GridRequest) -> SubmitResult:
        config = self.write_config(request)
        result = self._commands.run(config.arguments, stdin=config.text)
        if result.exit_code == 0:
            grid_job_id = text.submitted_id(result.stdout)
            if grid_job_id is None:
                return Unclear(request.tag, f"qsub printed no job id but: {result.said}")
            self._seen[grid_job_id] = self._clock.monotonic_s()
            _trim(self._seen)
            return Submitted(request.tag, grid_job_id)
        error = _failure(result)
        if text.SILENT.search(result.stderr):
            return Unclear(request.tag, str(error))
        if isinstance(error, GridDown):
            raise error
        return NotSubmitted(request.tag, text.refusal(result.said))

    def _list(self) -> list[text.SgeJob]:
        jobs = text.qstat(self._succeed("qstat", "-u", self._user, "-xml"))
        broken = [job.grid_job_id for job in jobs if "E" in job.letters]
        if not broken:
            return jobs
        shown = self._commands.run(["qstat", "-j", ",".join(broken[:50])])
        reasons = text.error_reasons(shown.stdout)
        return [
            text.SgeJob(job.grid_job_id, job.name, Held(reasons[job.grid_job_id]), job.letters)
            if job.grid_job_id in reasons
            else job
            for job in jobs
        ]

    def _is_listed(self, grid_job_id: str) -> bool:
        return any(job.grid_job_id == grid_job_id for job in self._list())

    def _as_removed(self, end: History) -> History:
        if end.grid_job_id not in self._removed or not isinstance(end.state, Completed):
            return end
        state = Removed(f"removed; it ended with exit code {end.exit_code}")
        return History(
            end.grid_job_id, state, None, state.reason, end.host, end.walltime_s, end.cpu_s, end.memory_mib
        )

    def _qacct(self, *which: str) -> list[text.SgeJob]:
        result = self._commands.run(["qacct", *which])
        if result.exit_code != 0:
            # Before the first end there is no accounting file at all.
            if NOT_FOUND in result.stderr or "No such file" in result.stderr:
                return []
            raise _failure(result)
        return text.qacct(result.stdout)

    def _succeed(self, *line: str) -> str:
        result = self._commands.run(line)
        if result.exit_code != 0:
            raise _failure(result)
        return result.stdout


def _failure(result: CommandResult) -> GridError:
    down = bool(text.DOWN.search(result.stderr) or text.DOWN.search(result.stdout[:2_000]))
    return failure(result, down=down, remedy=REMEDY)


def _trim(memory: dict[str, History] | dict[str, None] | dict[str, float]) -> None:
    while len(memory) > REMEMBERED_MOST:
        memory.pop(next(iter(memory)))
