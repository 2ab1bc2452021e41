"""The Slurm plugin: sbatch, squeue, scancel, and sacct where there is accounting; or slurmrestd (`slurm_rest`).

A grid job carries its tag as its name.  Slurm lists ended jobs for a while (MinJobAge, five minutes as
installed), so exit codes are known without accounting; with it they are known for as long as a site keeps it.

Absent on purpose: job arrays, because every pilot has its own secret and tag; docs/grids/slurm.md has measured what
they would gain.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, Final, Self, TypeVar

from iceprod_p2p.base.settings import Setting
from iceprod_p2p.grids import slurm_text as text
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
    Tag,
    Unclear,
    is_final,
)
from iceprod_p2p.grids.command import USUAL_VARIABLES, CommandResult, Commands, failure
from iceprod_p2p.grids.errors import GridDown, GridError
from iceprod_p2p.grids.submitting import in_parts, submit_each

REMEDY: Final = "check slurmctld and munge with `scontrol ping`; the site tries again"
AnySlurm = TypeVar("AnySlurm", bound="SlurmGrid")
HISTORY_START: Final = "now-7days"  # How far back a lost tag is looked for in the accounting.


class SlurmGrid(Grid):
    """One Slurm cluster, spoken to by its commands."""

    OPTIONS: ClassVar[tuple[Setting, ...]] = (
        Setting("bin_directory", "path", "", "where Slurm's commands are; empty: in PATH"),
        Setting("environment", "table", {}, "for Slurm's commands and grid jobs, such as SLURM_CONF"),
        Setting("timeout_s", "number", 60.0, "for one command", 1, 3_600),
        Setting("accounting", "text", "auto", "whether sacct answers", choices=("auto", "yes", "no")),
        Setting("gres", "text", "gpu", "the generic resource of a GPU, such as gpu:a100"),
        Setting("nice_per_priority", "whole", 10, "nice value of one step of priority", 0, 1_000_000),
        Setting("request_disk", "switch", False, "ask for disk by --tmp; needs TmpDisk in slurm.conf"),
        Setting("worker_log", "path", "/dev/null", "pilots' output on nodes that share no file system"),
        Setting("script_mib_max", "whole", 4, "max_script_size of slurm.conf, in MiB", 1, 512),
        Setting(
            "notice_s", "whole", 0, "TERM this long before the wall time; 0: KillWait is enough", 0, 3_600
        ),
        Setting(
            "rest",
            "text",
            "",
            "slurmrestd in place of commands: unix:///path, http://127.0.0.1:6820, https://...",
        ),
        Setting("rest_token", "path", "", "file with its JSON web token; empty: [queue] credential"),
        Setting("rest_user", "text", "", "whose token it is; empty: the node's user"),
        Setting("rest_version", "text", "v0.0.38", "of its API"),
        Setting("rest_authorities", "path", "", "file of authorities for https; empty: the system's"),
    )

    def __init__(self, commands: Commands, options: text.SlurmOptions, *, accounting: str = "auto") -> None:
        self._commands = commands
        self._options = options
        self._accounting = {"yes": True, "no": False}.get(accounting)

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Make the plugin; asks Slurm nothing."""
        values = {name: value for name, value in options.items() if not name.startswith("rest")}
        if options["rest"]:
            return _by_rest(cls, options, values)
        commands = Commands(
            bin_directory=str(values.pop("bin_directory")),
            environment=dict(values.pop("environment")),  # type: ignore[call-overload]
            timeout_s=float(str(values.pop("timeout_s"))),
            inherited=USUAL_VARIABLES | {"SLURM_CONF"},
        )
        accounting = str(values.pop("accounting"))
        return cls(commands, text.SlurmOptions(**values), accounting=accounting)  # type: ignore[arg-type]

    def capabilities(self) -> Capabilities:
        """Return what every Slurm can do; whether it enforces memory is the site's configuration."""
        return Capabilities(enforces=frozenset({"walltime"}), gpus=True)

    def write_config(self, request: GridRequest) -> SubmitConfig:
        """Return sbatch's command line and the script that it reads."""
        return SubmitConfig(text.arguments(request, self._options), text.script(request))

    def submit(self, requests: Sequence[GridRequest]) -> list[SubmitResult]:
        """Submit one by one; thirty to a hundred in a second."""
        return submit_each(requests, self._submit_one)

    def status(self, grid_job_ids: Collection[str]) -> dict[str, GridState]:
        """Return the states of those that live, by one call of squeue for all of this user's jobs.

        Ended ones are left to `history`, which knows their host and times.
        """
        wanted = set(grid_job_ids)
        return {
            job.grid_job_id: job.state
            for job in (self._squeue() if wanted else ())
            if job.grid_job_id in wanted and not is_final(job.state)
        }

    def history(self, grid_job_ids: Collection[str]) -> dict[str, History]:
        """Return the ends that sacct knows, and for the others those that squeue still lists.

        slurmdbd may hear that one failed before it hears its exit code: squeue is then believed, if it lists it.
        Raises GridError when the accounting is silent and squeue does not know all of them: nobody may then
        conclude that one has vanished.
        """
        wanted = set(grid_job_ids)
        if not wanted:
            return {}
        ends: dict[str, History] = {}
        silent: GridError | None = None
        if self._has_accounting():
            try:
                for part in in_parts(sorted(wanted)):
                    ends |= _ends(self._sacct("--jobs", ",".join(part)))
            except GridError as trouble:
                silent = trouble
        doubtful = {name: end for name, end in ends.items() if end.state == text.UNTOLD}
        ends = {name: end for name, end in ends.items() if name not in doubtful}
        if wanted - set(ends):
            listed = self._squeue("--states=all")
            forgotten = doubtful.keys() - {job.grid_job_id for job in listed}
            ends = _ends(listed) | ends | {name: doubtful[name] for name in forgotten}
            if silent and wanted - {job.grid_job_id for job in listed} - set(ends):
                raise silent
        return {grid_job_id: end for grid_job_id, end in ends.items() if grid_job_id in wanted}

    def remove(self, grid_job_ids: Collection[str]) -> None:
        """Cancel; running ones get TERM, and KILL after the site's KillWait."""
        for part in in_parts(sorted(grid_job_id for grid_job_id in grid_job_ids if grid_job_id.isdigit())):
            result = self._commands.run(["scancel", "--quiet", *part])
            if result.exit_code and not re.search("Invalid job id|already complet", result.stderr):
                raise _failure(result)

    def our_jobs(self, owner: str) -> list[GridJobStatus]:
        """Return an owner's grid jobs, ended ones for MinJobAge."""
        return [
            GridJobStatus(job.grid_job_id, job.tag, job.state)
            for job in self._squeue("--states=all")
            if job.tag is not None and job.tag.owner == owner
        ]

    def find_by_tag(self, tags: Collection[Tag]) -> dict[Tag, GridJobStatus]:
        """Return the grid jobs with these tags, ended ones as far back as a week with accounting."""
        found = super().find_by_tag(tags)
        lost = sorted(set(tags) - set(found))
        if lost and self._has_accounting():
            for part in in_parts(lost):
                names = ",".join(str(tag) for tag in part)
                for job in self._sacct("--name", names, "--starttime", HISTORY_START):
                    if job.tag is not None and is_final(job.state):
                        found[job.tag] = GridJobStatus(job.grid_job_id, job.tag, job.state)
        return found

    def check(self) -> str:
        """Return Slurm's version, once the controller answers, and whether there is accounting."""
        version = self._commands.succeed(["sbatch", "--version"]).strip()
        self._succeed("squeue", "--noheader", "--me")
        return f"{version}, accounting: {'yes' if self._has_accounting() else 'no'}"

    def _submit_one(self, request: GridRequest) -> SubmitResult:
        config = self.write_config(request)
        if len(config.text) >= self._options.script_mib_max << 20:
            return NotSubmitted(request.tag, text.TOO_LONG.format(mib=len(config.text) >> 20))
        result = self._commands.run(config.arguments, stdin=config.text)
        if result.exit_code == 0:
            grid_job_id = text.submitted_id(result.stdout)
            if grid_job_id is None:
                return Unclear(request.tag, f"sbatch printed no job id but: {result.said}")
            return Submitted(request.tag, grid_job_id)
        error = _failure(result)
        if isinstance(error, GridDown):
            raise error
        if text.SILENT.search(result.stderr):
            return Unclear(request.tag, str(error))
        return NotSubmitted(request.tag, result.said.replace("sbatch: error: ", ""))

    def _squeue(self, *more: str) -> list[text.SlurmJob]:
        line = ("squeue", "--noheader", f"--user={os.getuid()}", f"--Format={text.SQUEUE_FORMAT}")
        return text.squeue(self._succeed(*line, *more))

    def _sacct(self, *which: str) -> list[text.SlurmJob]:
        line = (
            "sacct",
            "--noheader",
            "--parsable2",
            f"--user={os.getuid()}",
            f"--format={text.SACCT_FORMAT}",
        )
        return text.sacct(self._succeed(*line, *which))

    def _has_accounting(self) -> bool:
        if self._accounting is None:
            config = self._succeed("scontrol", "show", "config")
            kind = re.search(r"^AccountingStorageType\s*=\s*(\S+)", config, re.MULTILINE)
            self._accounting = bool(kind) and kind[1] == "accounting_storage/slurmdbd"  # type: ignore[index]
        return self._accounting

    def _succeed(self, *line: str) -> str:
        result = self._commands.run(line)
        if result.exit_code != 0:
            raise _failure(result)
        return result.stdout


def _by_rest(kind: type[AnySlurm], options: Mapping[str, object], values: Mapping[str, object]) -> AnySlurm:
    """Return the plugin that speaks to slurmrestd: it is one of this kind, and knows it."""
    from iceprod_p2p.grids.slurm_rest import SlurmRestGrid

    slurm = {name: value for name, value in values.items() if name in text.SlurmOptions.__slots__}
    made = SlurmRestGrid.of(options, text.SlurmOptions(**slurm))  # type: ignore[arg-type]
    assert isinstance(made, kind)
    return made


def _failure(result: CommandResult) -> GridError:
    """Return the error; GridDown where nothing can have been changed."""
    submits = os.path.basename(result.arguments[0]) == "sbatch"
    down = bool(text.DOWN.search(result.stderr) or (not submits and text.SILENT.search(result.stderr)))
    return failure(result, down=down, remedy=REMEDY)


def _ends(jobs: Sequence[text.SlurmJob]) -> dict[str, History]:
    return {job.grid_job_id: job.history for job in jobs if job.history is not None}
