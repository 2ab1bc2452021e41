"""Grid Engine's texts, all pure: what qsub is told, and what qstat and qacct say.

Sources: the manual pages qsub(1), qstat(1), qacct(1), sge_status(5) and accounting(5) of Son of Grid Engine
8.1.9, https://arc.liv.ac.uk/SGE/htmlman/manuals.html.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree

from iceprod_p2p.grids.amounts import mebibytes
from iceprod_p2p.grids.base import (
    Completed,
    Failed,
    GridState,
    Held,
    History,
    Queued,
    Removed,
    Running,
)
from iceprod_p2p.grids.errors import GridError
from iceprod_p2p.grids.files import shell_script
from iceprod_p2p.grids.request import GridRequest, Tag

PRIORITY_STEP: Final = 10  # Grid Engine's priorities run from -1023 to 1024, ours from -100 to 100.
ACTIVE_LETTERS: Final = frozenset("rtsSTdz")
RAN_ALL_THE_SAME: Final = frozenset({0, 12, 13, 14, 15, 16})  # The executable's exit code is valid.
KILLED: Final = 100
LIMIT: Final = 37
# Said when the master cannot be reached: nothing was changed.
DOWN: Final = re.compile(
    r"unable to (?:send message to|contact) qmaster|can't connect to|connection refused|commlib error"
    r"|Unable to initialize environment|got select error|qmaster is not running",
    re.IGNORECASE,
)
# Said when the master was reached and did not answer.
SILENT: Final = re.compile(r"failed receiving|got read error|time-?out|receive error", re.IGNORECASE)
UNKNOWN_JOB: Final = re.compile(r'^denied: job "\d+" does not exist$|^job \d+ is already in deletion$')


@dataclass(frozen=True, slots=True)
class SgeOptions:
    """How requests become options of qsub at one site; an empty resource is not asked for."""

    parallel_environment: str = "smp"
    memory_resource: str = "h_vmem"
    gpu_resource: str = "gpu"
    gpu_per_slot: bool = True
    disk_resource: str = ""
    priority_most: int = 0
    verify: bool = True


@dataclass(frozen=True, slots=True)
class SgeJob:
    """One grid job as qstat or qacct tells it."""

    grid_job_id: str
    name: str
    state: GridState
    letters: str = ""
    history: History | None = None

    @property
    def tag(self) -> Tag | None:
        """Our tag, or None for a stranger's job."""
        return Tag.parse(self.name)


def arguments(request: GridRequest, options: SgeOptions) -> tuple[str, ...]:
    """Return the command line of qsub; the script comes by standard input.

    A grid job is never run again by the system: its pilot's secret works once.  `-notify` lets USR2 come
    before KILL, which the script turns into TERM.
    """
    line = ["qsub", "-terse", "-notify", "-r", "n", "-S", "/bin/sh", "-N", str(request.tag)]
    if request.carry:  # Nothing of this host is there; the script makes a directory of its own.
        line += ["-wd", "/", "-j", "y", "-o", "/dev/null"]
    else:
        line += ["-wd", request.work_directory, "-o", request.stdout_path, "-e", request.stderr_path]
    if options.verify:
        line += ["-w", "e"]
    if request.queue:
        line += ["-q", request.queue]
    if request.cores > 1:
        line += ["-pe", options.parallel_environment, str(request.cores)]
    priority = min(request.priority * PRIORITY_STEP, options.priority_most)
    if priority:
        line += ["-p", str(priority)]
    for resource in _resources(request, options):
        line += ["-l", resource]
    return tuple(line)


def script(request: GridRequest) -> str:
    """Return the batch script; the site's extra lines are its directives."""
    return shell_script(request, [f"#$ {line}" for line in request.extra_lines], forward_signals=True)


def submitted_id(output: str) -> str | None:
    """Read what ``qsub -terse`` printed, warnings before it; None where there is no id."""
    match = re.fullmatch(r"\d+", output.strip().rpartition("\n")[2])
    return match[0] if match else None


def refusal(said: str) -> str:
    """Return the reason in a complaint of qsub."""
    text = re.sub(r"\s*/?\s*Exiting\.?\s*$", "", said)
    return re.sub(r"^Unable to run job:\s*(?:error:\s*)?", "", text) or said


def qstat(output: str) -> list[SgeJob]:
    """Read ``qstat -xml``; raises GridError for anything else."""
    try:
        root = ElementTree.fromstring(output)
    except ElementTree.ParseError as broken:
        raise GridError(
            f"qstat -xml printed no XML: {output[:200]!r}",
            command="qstat -xml",
            remedy="check that bin_directory holds Grid Engine's own commands",
        ) from broken
    jobs = []
    for entry in root.iter("job_list"):
        letters = entry.findtext("state", "")
        host = entry.findtext("queue_name", "").partition("@")[2]
        state = state_of(letters, host=host)
        jobs.append(
            SgeJob(entry.findtext("JB_job_number", ""), entry.findtext("JB_name", ""), state, letters)
        )
    return jobs


def state_of(letters: str, *, host: str = "", reason: str = "") -> GridState:
    """Return our state for Grid Engine's letters, sge_status(5)."""
    if "E" in letters:
        return Held(reason or f"error state {letters}")
    if ACTIVE_LETTERS & set(letters):
        return Running(host)
    if "h" in letters:
        return Held(reason or "on hold")
    return Queued("" if "q" in letters else f"unknown state {letters}")


def error_reasons(output: str) -> Mapping[str, str]:
    """Read why grid jobs are in error state from ``qstat -j``, by id."""
    reasons: dict[str, str] = {}
    current = ""
    for line in output.splitlines():
        name, _, value = line.partition(":")
        if name == "job_number":
            current = value.strip()
        elif name.startswith("error reason") and current:
            text = line.partition("error:")[2] or value.partition(":")[2] or value
            reasons.setdefault(current, text.strip())
    return reasons


def qacct(output: str) -> list[SgeJob]:
    """Read ``qacct -j``: one record after another, the last one of an id being the valid one."""
    jobs: dict[str, SgeJob] = {}
    for block in re.split(r"^=+$", output, flags=re.MULTILINE):
        fields = {
            name: rest.strip() for name, _, rest in (line.partition(" ") for line in block.splitlines())
        }
        if fields.get("jobnumber", "").isdigit():
            job = _ended(fields)
            jobs[job.grid_job_id] = job
    return list(jobs.values())


def _ended(fields: Mapping[str, str]) -> SgeJob:
    grid_job_id = fields["jobnumber"]
    code = _number(fields.get("exit_status", ""))
    failed, _, why = fields.get("failed", "0").partition(":")
    state = _end_state(_number(failed), code, why.strip())
    host = fields.get("hostname", "")
    history = History(
        grid_job_id,
        state,
        code if isinstance(state, Completed) else None,
        "" if isinstance(state, Completed) else getattr(state, "reason", ""),
        "" if host == "NONE" else host,
        float(_number(fields.get("ru_wallclock", ""))),
        _decimal(fields.get("cpu", "")),
        mebibytes(fields.get("maxvmem", "")),
    )
    return SgeJob(grid_job_id, fields.get("jobname", ""), state, history=history)


def _end_state(failed: int, code: int, why: str) -> GridState:
    if failed in RAN_ALL_THE_SAME:
        return Completed(code)
    if failed == LIMIT:
        return Failed("it passed its wall time or memory limit (h_rt, h_cpu or h_vmem)")
    if failed == KILLED:
        return Removed(f"killed by signal {code - 128}" if code > 128 else "killed")
    return Failed(f"Grid Engine: {why or 'failure'} ({failed})")


def _resources(request: GridRequest, options: SgeOptions) -> list[str]:
    """Amounts are per slot for Grid Engine, and rounded up."""
    gpus = -(-request.gpus // request.cores) if options.gpu_per_slot else request.gpus
    wanted = {
        "h_rt": str(request.walltime_s) if request.walltime_s else "",
        options.memory_resource: f"{-(-request.memory_mib // request.cores)}M" if request.memory_mib else "",
        options.disk_resource: f"{-(-request.disk_mib // request.cores)}M" if request.disk_mib else "",
        options.gpu_resource: str(gpus) if gpus else "",
        "hostname": f"!({'|'.join(request.exclude_hosts)})" if request.exclude_hosts else "",
    }
    return [f"{name}={value}" for name, value in wanted.items() if name and value]


def _number(text: str) -> int:
    match = re.match(r"\d+", text)
    return int(match[0]) if match else 0


def _decimal(text: str) -> float | None:
    match = re.match(r"\d+(?:\.\d+)?", text)
    return float(match[0]) if match else None
