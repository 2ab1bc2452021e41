"""The PBS plugin for OpenPBS, PBS Professional and Torque: qsub, qstat, qselect, qdel.

A grid job carries its tag among its variables.  Servers that keep no history (job_history_enable in OpenPBS,
keep_completed in Torque) forget how grid jobs ended; OpenPBS, as it comes, is such a server, and tells nothing at
all to who asks for ended jobs too.

Absent on purpose: array jobs, because every pilot has its own secret and tag.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, Final, Self

from iceprod_p2p.base.settings import Setting
from iceprod_p2p.grids import pbs_text as text
from iceprod_p2p.grids.base import (
    Capabilities,
    Grid,
    GridJobStatus,
    GridRequest,
    GridState,
    History,
    NotSubmitted,
    SubmitConfig,
    SubmitResult,
    Submitted,
    Unclear,
    is_final,
)
from iceprod_p2p.grids.command import CommandResult, Commands, failure
from iceprod_p2p.grids.errors import GridDown, GridError
from iceprod_p2p.grids.submitting import in_parts, submit_each

REMEDY: Final = "check the PBS server with `qstat -B`, and PBS_SERVER in the option environment"


class PbsGrid(Grid):
    """One PBS server, spoken to by its commands."""

    OPTIONS: ClassVar[tuple[Setting, ...]] = (
        Setting("bin_directory", "path", "", "where PBS's commands are; empty: in PATH"),
        Setting("environment", "table", {}, "for PBS's commands: PBS_SERVER, PBS_CONF_FILE"),
        Setting("timeout_s", "number", 60.0, "for one command", 1, 3_600),
        Setting("dialect", "text", text.OPENPBS, "", choices=(text.OPENPBS, text.TORQUE)),
        Setting("history", "switch", True, "whether the server keeps ended jobs"),
        Setting("worker_log", "path", "/dev/null", "pilots' output on nodes that share no file system"),
    )

    def __init__(
        self,
        commands: Commands,
        *,
        dialect: str = text.OPENPBS,
        history: bool = True,
        worker_log: str = "/dev/null",
    ) -> None:
        self._commands = commands
        self._worker_log = worker_log
        self._dialect = dialect
        self._history = history
        self._keeps_ended = history  # As far as the server has told.
        self._user = pwd.getpwuid(os.getuid()).pw_name

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Make the plugin; asks PBS nothing."""
        commands = Commands.from_options(options)
        return cls(
            commands,
            dialect=str(options["dialect"]),
            history=bool(options["history"]),
            worker_log=str(options["worker_log"]),
        )

    def capabilities(self) -> Capabilities:
        """Return what PBS can do."""
        return Capabilities(history=self._keeps_ended, enforces=frozenset({"walltime"}), gpus=True)

    def write_config(self, request: GridRequest) -> SubmitConfig:
        """Return qsub's command line and the script that it reads."""
        return SubmitConfig(text.arguments(request, self._dialect), text.script(request, self._worker_log))

    def submit(self, requests: Sequence[GridRequest]) -> list[SubmitResult]:
        """Submit one by one."""
        return submit_each(requests, self._submit_one)

    def status(self, grid_job_ids: Collection[str]) -> dict[str, GridState]:
        """Return the states of those that live, by few calls of qstat for all."""
        jobs = self._qstat(grid_job_ids)
        return {job.grid_job_id: job.state for job in jobs if not is_final(job.state)}

    def history(self, grid_job_ids: Collection[str]) -> dict[str, History]:
        """Return the ends that the server still knows."""
        jobs = self._qstat(grid_job_ids)
        return {job.grid_job_id: job.history for job in jobs if job.history is not None}

    def remove(self, grid_job_ids: Collection[str]) -> None:
        """Delete; running ones get TERM, and KILL after the server's kill_delay."""
        for part in in_parts(_ids(grid_job_ids)):
            result = self._commands.run(["qdel", *part])
            if result.exit_code and not _only_gone(result):
                raise _failure(result)

    def our_jobs(self, owner: str) -> list[GridJobStatus]:
        """Return an owner's grid jobs, ended ones as far as the server keeps them."""
        result = self._with_ended("qselect", "-u", self._user)
        if result.exit_code != 0:
            raise _failure(result)
        ids = result.stdout.split()
        return [
            GridJobStatus(job.grid_job_id, job.tag, job.state)
            for job in self._qstat(ids)
            if job.tag is not None and job.tag.owner == owner
        ]

    def check(self) -> str:
        """Return which server answers, and whether it forgets what has ended."""
        lines = self._succeed("qstat", "-B").splitlines()
        self._with_ended("qselect", "-u", self._user)
        forgets = "" if self._keeps_ended else "; it keeps no ended jobs, whose ends are then unknown"
        return f"PBS ({self._dialect}): {lines[-1].split()[0] if lines else 'no server'}{forgets}"

    def _submit_one(self, request: GridRequest) -> SubmitResult:
        config = self.write_config(request)
        result = self._commands.run(config.arguments, stdin=config.text)
        if result.exit_code == 0:
            grid_job_id = text.submitted_id(result.stdout)
            if grid_job_id is None:
                return Unclear(request.tag, f"qsub printed no job id but: {result.said}")
            return Submitted(request.tag, grid_job_id)
        error = _failure(result)
        if isinstance(error, GridDown):
            raise error
        if text.SILENT.search(result.stderr):
            return Unclear(request.tag, str(error))
        return NotSubmitted(request.tag, result.said.removeprefix("qsub: "))

    def _qstat(self, grid_job_ids: Collection[str]) -> list[text.PbsJob]:
        """Return what qstat says of these; it complains about those that it does not know and lists the rest."""
        jobs: list[text.PbsJob] = []
        for part in in_parts(_ids(grid_job_ids)):
            result = self._with_ended("qstat", "-f", *part)
            if result.exit_code and not _only_gone(result):
                raise _failure(result)
            jobs += text.qstat(result.stdout, self._dialect)
        return jobs

    def _with_ended(self, name: str, *arguments: str) -> CommandResult:
        """Ask for ended grid jobs too; once more without them where the server keeps none."""
        if self._history and self._dialect == text.OPENPBS:
            result = self._commands.run([name, "-x", *arguments])
            self._keeps_ended = text.NO_HISTORY not in result.stderr
            if self._keeps_ended:
                return result
        return self._commands.run([name, *arguments])

    def _succeed(self, *line: str) -> str:
        result = self._commands.run(line)
        if result.exit_code != 0:
            raise _failure(result)
        return result.stdout


def _ids(grid_job_ids: Collection[str]) -> list[str]:
    return sorted(name for name in set(grid_job_ids) if text.submitted_id(name) == name)


def _only_gone(result: CommandResult) -> bool:
    """Whether a command complained about jobs that have ended or are unknown, and about nothing else."""
    complaints = [line for line in result.stderr.splitlines() if line.strip()]
    return bool(complaints) and all(text.GONE.search(line) for line in complaints)


def _failure(result: CommandResult) -> GridError:
    submits = os.path.basename(result.arguments[0]) == "qsub"
    down = bool(text.DOWN.search(result.stderr) or (not submits and text.SILENT.search(result.stderr)))
    return failure(result, down=down, remedy=REMEDY)
