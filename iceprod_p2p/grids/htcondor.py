"""The HTCondor plugin: condor_submit, condor_q, condor_history, condor_rm.

A grid job carries its tag as an attribute of its own, by which the schedd is asked.  The pool's file transfer
is used where worker nodes share no file system with the node.

Absent on purpose: clusters of many procs, because every pilot has its own secret and tag.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final, Self

from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.base.settings import Setting
from iceprod_p2p.grids import htcondor_text as text
from iceprod_p2p.grids.base import (
    Capabilities,
    Failed,
    Grid,
    GridJobStatus,
    GridRequest,
    GridState,
    History,
    NotSubmitted,
    Removed,
    Running,
    SubmitConfig,
    SubmitResult,
    Submitted,
    Tag,
    Unclear,
    is_final,
)
from iceprod_p2p.grids.command import CommandResult, Commands, failure
from iceprod_p2p.grids.errors import GridDown, GridError
from iceprod_p2p.grids.submitting import in_parts, submit_each

log = get_logger("grid.htcondor")
REMEDY: Final = "check condor_schedd with `condor_q`, and CONDOR_CONFIG in the option environment"


class HtcondorGrid(Grid):
    """One schedd, spoken to by the commands of HTCondor."""

    OPTIONS: ClassVar[tuple[Setting, ...]] = (
        Setting("bin_directory", "path", "", "where HTCondor's commands are; empty: in PATH"),
        Setting("environment", "table", {}, "for HTCondor's commands, such as CONDOR_CONFIG"),
        Setting("timeout_s", "number", 60.0, "for one command", 1, 3_600),
        Setting(
            "transfer",
            "text",
            "if_needed",
            "whether the pool carries files; if_needed: unless FILESYSTEM_DOMAIN is the same",
            choices=("if_needed", "yes", "no"),
        ),
        Setting("schedd", "text", "", "name of a schedd elsewhere (-name); empty: this host's"),
        Setting("pool", "text", "", "its central manager (-pool); empty: CONDOR_CONFIG's"),
        Setting("spool", "switch", False, "bring files to the schedd and fetch output (-spool)"),
        Setting("history_scan", "whole", 20_000, "how many ended jobs are looked through", 1, 10_000_000),
    )

    def __init__(
        self, commands: Commands, options: text.HtcondorOptions, *, history_scan: int = 20_000
    ) -> None:
        self._commands = commands
        self._options = options
        self._scan = history_scan
        self._fetched: set[str] = set()

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Make the plugin; asks HTCondor nothing."""
        values = dict(options)
        commands = Commands.from_options(values)
        scan = int(str(values["history_scan"]))
        where = text.HtcondorOptions(
            str(values["transfer"]), str(values["schedd"]), str(values["pool"]), spool=bool(values["spool"])
        )
        return cls(commands, where, history_scan=scan)

    def capabilities(self) -> Capabilities:
        """Return what HTCondor can do; whether it enforces memory is the pool's policy."""
        return Capabilities(
            transfers_files=self._options.transfer != "no" or self._options.spool,
            enforces=frozenset({"walltime"}),
            gpus=True,
        )

    def write_config(self, request: GridRequest) -> SubmitConfig:
        """Return condor_submit's command line and the description that it reads."""
        spool = ("-spool",) if self._options.spool else ()
        line = ("condor_submit", *self._options.where(), *spool, "-terse", "-")
        return SubmitConfig(line, text.description(request, self._options))

    def submit(self, requests: Sequence[GridRequest]) -> list[SubmitResult]:
        """Submit one by one; fifteen to twenty-five in a second."""
        return submit_each(requests, self._submit_one)

    def status(self, grid_job_ids: Collection[str]) -> dict[str, GridState]:
        """Return the states of those in the queue, by one call of condor_q for all of ours."""
        wanted = set(grid_job_ids)
        return {
            job.grid_job_id: job.state
            for job in (self._queue() if wanted else ())
            if job.grid_job_id in wanted and not is_final(job.state)
        }

    def history(self, grid_job_ids: Collection[str]) -> dict[str, History]:
        """Return the ends: of those that wait in the queue to be fetched, and from the history."""
        wanted = {name for name in grid_job_ids if _is_id(name)}
        if not wanted:
            return {}
        queue = self._queue()
        found = [job for job in queue if job.grid_job_id in wanted]
        listed = {job.grid_job_id for job in queue}
        for part in in_parts(sorted(wanted - listed)):
            clauses = [f"(ClusterId == {name.replace('.', ' && ProcId == ')})" for name in part]
            found += self._ended(" || ".join(clauses), limit=len(part))
        ends = {job.grid_job_id: job.history for job in found if job.history is not None}
        for name in sorted(set(ends) & listed) if self._options.spool else ():
            self._fetch_output(name)
        return ends

    def forget(self, grid_job_ids: Collection[str]) -> None:
        """Let a schedd that keeps the output of ended ones give it up: it was fetched when their end was seen."""
        if self._options.spool:
            self.remove(grid_job_ids)
        self._fetched.difference_update(grid_job_ids)

    def remove(self, grid_job_ids: Collection[str]) -> None:
        """Remove; running ones get TERM, and KILL after the pool's time to vacate."""
        for part in in_parts(sorted(name for name in grid_job_ids if _is_id(name))):
            result = self._commands.run(["condor_rm", *self._options.where(), *part])
            if result.exit_code and not text.UNKNOWN_JOB.search(result.stderr + result.stdout):
                raise _failure(result)

    def our_jobs(self, owner: str) -> list[GridJobStatus]:
        """Return an owner's grid jobs in the queue; ended ones are found by `find_by_tag`."""
        return [
            GridJobStatus(job.grid_job_id, job.tag, job.state)
            for job in self._queue()
            if job.tag is not None and job.tag.owner == owner
        ]

    def find_by_tag(self, tags: Collection[Tag]) -> dict[Tag, GridJobStatus]:
        """Return the grid jobs with these tags, ended ones from the history."""
        found = super().find_by_tag(tags)
        for part in in_parts(sorted(set(tags) - set(found))):
            clause = " || ".join(f'{text.TAG_ATTRIBUTE} == "{tag}"' for tag in part)
            for job in self._ended(clause, limit=len(part)):
                if job.tag is not None:
                    found[job.tag] = GridJobStatus(job.grid_job_id, job.tag, job.state)
        return found

    def check(self) -> str:
        """Return HTCondor's version, once the schedd answers."""
        version = self._succeed("condor_version").splitlines()[0].strip("$ ")
        self._queue()
        return version

    def _submit_one(self, request: GridRequest) -> SubmitResult:
        script = Path(request.work_directory, text.SCRIPT_NAME)
        script.write_text(text.script(request))
        script.chmod(0o700)
        config = self.write_config(request)
        result = self._commands.run(config.arguments, stdin=config.text)
        if result.exit_code == 0:
            grid_job_id = text.submitted_id(result.stdout)
            if grid_job_id is None:
                return Unclear(request.tag, f"condor_submit printed no job id but: {result.said}")
            return Submitted(request.tag, grid_job_id)
        error = _failure(result)
        if isinstance(error, GridDown):
            raise error
        if text.SILENT.search(result.stderr):
            return Unclear(request.tag, str(error))
        return NotSubmitted(request.tag, result.said.removeprefix("ERROR: "))

    def _queue(self) -> list[text.HtcondorJob]:
        """Return ours in the queue; one that is being removed counts as running until it has left."""
        asked = (
            "-constraint",
            f"{text.TAG_ATTRIBUTE} isnt undefined",
            "-json",
            "-attributes",
            text.ATTRIBUTES,
        )
        return [
            text.HtcondorJob(job.grid_job_id, job.tag, Running())
            if isinstance(job.state, Removed | Failed)
            else job
            for job in text.jobs(self._succeed("condor_q", *self._options.where(), *asked), "condor_q")
        ]

    def _ended(self, clause: str, *, limit: int) -> list[text.HtcondorJob]:
        line = ("-constraint", clause, "-limit", str(limit), "-scanlimit", str(self._scan), "-json")
        output = self._succeed(
            "condor_history", *self._options.where(), *line, "-attributes", text.ATTRIBUTES
        )
        return text.jobs(output, "condor_history")

    def _fetch_output(self, grid_job_id: str) -> None:
        """Bring the output of an ended one home, once; what cannot be brought is only a log."""
        if grid_job_id in self._fetched:
            return
        result = self._commands.run(["condor_transfer_data", *self._options.where(), grid_job_id])
        if result.exit_code != 0:
            log.warning("output of a grid job not fetched", grid_job=grid_job_id, why=result.said)
        self._fetched.add(grid_job_id)

    def _succeed(self, *line: str) -> str:
        result = self._commands.run(line)
        if result.exit_code != 0:
            raise _failure(result)
        return result.stdout


def _is_id(text_: str) -> bool:
    cluster, _, process = text_.partition(".")
    return cluster.isdigit() and process.isdigit()


def _failure(result: CommandResult) -> GridError:
    submits = result.arguments[0].endswith("condor_submit")
    down = bool(text.DOWN.search(result.stderr) or (not submits and text.SILENT.search(result.stderr)))
    return failure(result, down=down, remedy=REMEDY)
