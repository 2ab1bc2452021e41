"""Slurm's texts, all pure: what sbatch is told, and what squeue and sacct say.

Sources: the manuals of sbatch, squeue and sacct at https://slurm.schedmd.com/, Slurm 22.05.  States:
https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES; reasons:
https://slurm.schedmd.com/job_reason_codes.html.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from iceprod_p2p.grids.amounts import mebibytes, seconds, whole_minutes
from iceprod_p2p.grids.base import (
    Completed,
    Failed,
    GridState,
    Held,
    History,
    Queued,
    Removed,
    Running,
    is_final,
)
from iceprod_p2p.grids.errors import GridError
from iceprod_p2p.grids.files import shell_script
from iceprod_p2p.grids.request import GridRequest, Tag

# The name comes last: strangers' names may hold any letter.  Widths are given because the usual 20 cuts.
SQUEUE_FORMAT: Final = "JobArrayID:40|,State:30|,exit_code:12|,Reason:80|,NodeList:120|,TimeUsed:24|,Name:150"
SACCT_FORMAT: Final = "JobID,State,ExitCode,ElapsedRaw,TotalCPU,MaxRSS,NodeList,JobName"
TOO_LONG: Final = (
    "the script with the files that it carries has {mib} MiB, more than Slurm takes: name worker_bundle in "
    "[queue], or raise max_script_size in slurm.conf and script_mib_max in [queue.options]"
)
UNTOLD: Final = Failed("FAILED")  # Neither an exit code nor a reason.
CANNOT_START: Final = 53  # The "signal" by which slurmd says that it could not start the script.

WAITING: Final = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED"})
HELD: Final = frozenset({"REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"})
ACTIVE: Final = frozenset(
    {
        "COMPLETING",
        "CONFIGURING",
        "POWER_UP_NODE",
        "RESIZING",
        "RUNNING",
        "SIGNALING",
        "STAGE_OUT",
        "STOPPED",
        "SUSPENDED",
    }
)
FAILED: Final = {
    "BOOT_FAIL": "the worker node could not be started",
    "DEADLINE": "it passed its deadline",
    "LAUNCH_FAILED": "it could not be started on its worker node",
    "NODE_FAIL": "its worker node failed",
    "OUT_OF_MEMORY": "it used more memory than it asked for",
    "PREEMPTED": "it had to make room for another job",
    "RECONFIG_FAIL": "its worker node could not be configured",
    "REVOKED": "another cluster took it",
    "TIMEOUT": "its wall time was over",
}
# Pending for these reasons means that somebody has to act; all others pass by themselves.
HOLDING_REASONS: Final = frozenset(
    {
        "BadConstraints",
        "DependencyNeverSatisfied",
        "InvalidAccount",
        "InvalidQOS",
        "JobHeldAdmin",
        "JobHeldUser",
        "PartitionNodeLimit",
        "PartitionTimeLimit",
        "QOSNotAllowed",
    }
)
# Said when the controller, or munge before it, cannot be reached: nothing was changed.
DOWN: Final = re.compile(
    r"connect failure|Unable to contact slurm controller$|Could not establish a configuration source"
    r"|authentication (?:credential|error)|standby mode|Connection refused|Munge encode failed"
)
# Said when the controller was reached, or may have been, and did not answer: who knows what it did.
SILENT: Final = re.compile(
    r"Socket timed out|Zero Bytes were transmitted|(?:send|receive|recv) failure|Connection reset"
    r"|Unable to contact slurm controller|Unexpected message received|Transport endpoint"
)


@dataclass(frozen=True, slots=True)
class SlurmOptions:
    """How requests become options of sbatch at one site."""

    gres: str = "gpu"
    nice_per_priority: int = 10
    request_disk: bool = False
    notice_s: int = 0
    worker_log: str = "/dev/null"
    script_mib_max: int = 4


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """One grid job as squeue lists it; an ended one has `history`."""

    grid_job_id: str
    name: str
    state: GridState
    history: History | None = None

    @property
    def tag(self) -> Tag | None:
        """Our tag, or None for a stranger's job, as every task of an array is (``12_3``): we submit none."""
        return Tag.parse(self.name) if self.grid_job_id.isdigit() else None


def arguments(request: GridRequest, options: SlurmOptions) -> tuple[str, ...]:
    """Return the command line of sbatch; the script comes by standard input.

    A grid job is never requeued: its pilot's secret works once, and the site submits a new one.
    """
    places = [
        f"--chdir={request.work_directory}",
        f"--output={_literal(request.stdout_path)}",
        f"--error={_literal(request.stderr_path)}",
    ]
    if request.carry:
        places = ["--chdir=/", f"--output={options.worker_log}"]
    line = [
        "sbatch",
        "--parsable",
        f"--job-name={request.tag}",
        *places,
        "--no-requeue",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={request.cores}",
    ]
    optional = {
        "--partition": request.queue,
        "--time": whole_minutes(request.walltime_s),
        "--signal": f"B:TERM@{options.notice_s}" if 0 < options.notice_s < request.walltime_s else "",
        "--mem": f"{request.memory_mib}M" if request.memory_mib else "",
        "--tmp": f"{request.disk_mib}M" if request.disk_mib and options.request_disk else "",
        "--gres": f"{options.gres}:{request.gpus}" if request.gpus else "",
        "--nice": -request.priority * options.nice_per_priority,
        "--exclude": ",".join(request.exclude_hosts),
    }
    return (*line, *(f"{name}={value}" for name, value in optional.items() if value))


def script(request: GridRequest) -> str:
    """Return the batch script; the site's extra lines are its directives.

    Slurm transfers no files: where worker nodes share none, the script brings them along (OSError where one cannot
    be read).
    """
    return shell_script(request, [f"#SBATCH {line}" for line in request.extra_lines])


def submitted_id(output: str) -> str | None:
    """Read what ``sbatch --parsable`` printed, ``id`` or ``id;cluster``; None for anything else."""
    match = re.fullmatch(r"(\d+)(?:;\S+)?", output.strip().rpartition("\n")[2])
    return match[1] if match else None


def squeue(output: str) -> list[SlurmJob]:
    """Read ``squeue --noheader --Format SQUEUE_FORMAT``; raises GridError for a line of another form."""
    return [_squeue_job(line) for line in output.splitlines() if line.strip()]


def sacct(output: str) -> list[SlurmJob]:
    """Read ``sacct --noheader --parsable2 --format SACCT_FORMAT``, grid jobs with their steps.

    Memory is the largest of the steps; a grid job that has not ended has no history.
    """
    jobs: dict[str, SlurmJob] = {}
    memory: dict[str, int] = {}
    for line in output.splitlines():
        fields = line.split("|", 7)
        if len(fields) != 8:
            raise _unknown_line("sacct", line)
        number, state, status, elapsed, cpu, rss, node, name = fields
        grid_job_id, _, step = number.partition(".")
        memory[grid_job_id] = max(memory.get(grid_job_id, 0), mebibytes(rss) or 0)
        if step:
            continue
        code, _, signal = status.partition(":")
        word = state.split(" ")[0]
        reason = state.removeprefix("CANCELLED ") if word == "CANCELLED" and state != word else ""
        ended = state_of(word, int(code or 0), int(signal or 0), reason=reason, host=node)
        history = None
        if is_final(ended):
            walltime_s = float(elapsed) if elapsed.isdigit() else None
            history = _history(grid_job_id, ended, node, walltime_s, seconds(cpu))
        jobs[grid_job_id] = SlurmJob(grid_job_id, name, ended, history)
    return [_with_memory(job, memory[job.grid_job_id]) for job in jobs.values()]


def state_of(word: str, exit_code: int, signal: int, *, reason: str = "", host: str = "") -> GridState:
    """Return our state for Slurm's.  A word that is new to us counts as waiting: it is not an end."""
    if word in FAILED:
        return Failed(f"{FAILED[word]} ({word})")
    if word == "COMPLETED":
        return Completed(exit_code)
    if word == "CANCELLED":
        return Removed(f"cancelled {reason}".strip())
    if word == "FAILED":
        return _failed_state(exit_code, signal, reason)
    if word in ACTIVE:
        return Running(host)
    if word in HELD or (word in WAITING and _holds(reason)):
        return Held(reason or word)
    return Queued(reason if word in WAITING else f"unknown state {word}")


def _failed_state(exit_code: int, signal: int, reason: str) -> GridState:
    if reason in HOLDING_REASONS:  # Refused at submission, and listed all the same.
        return Failed(reason)
    if signal == CANNOT_START:
        return Failed("its worker node could not start it: is its work directory there, for its user?")
    if signal:
        return Completed(128 + signal)
    if exit_code:
        return Completed(exit_code)
    return Failed(reason) if reason else UNTOLD


def _holds(reason: str) -> bool:
    return reason in HOLDING_REASONS or "held" in reason


def _squeue_job(line: str) -> SlurmJob:
    fields = [field.strip() for field in line.split("|", 6)]
    if len(fields) != 7 or not fields[2].isdigit():
        raise _unknown_line("squeue", line)
    grid_job_id, word, status, reason, node, used, name = fields
    code, signal = int(status) >> 8, int(status) & 0x7F
    said = "" if reason == "None" or (word == "CANCELLED" and reason != "None") else reason
    state = state_of(word, code, signal, reason=said, host=node)
    history = _history(grid_job_id, state, node, seconds(used), None) if is_final(state) else None
    return SlurmJob(grid_job_id, name, state, history)


def _history(
    grid_job_id: str, state: GridState, node: str, walltime_s: float | None, cpu_s: float | None
) -> History:
    return History(
        grid_job_id,
        state,
        state.exit_code if isinstance(state, Completed) else None,
        "" if isinstance(state, Completed) else getattr(state, "reason", ""),
        "" if node in ("None assigned", "(null)") else node,
        walltime_s,
        cpu_s,
    )


def _with_memory(job: SlurmJob, memory_mib: int) -> SlurmJob:
    end = job.history
    if end is None or not memory_mib:
        return job
    measured = History(
        end.grid_job_id, end.state, end.exit_code, end.reason, end.host, end.walltime_s, end.cpu_s, memory_mib
    )
    return SlurmJob(job.grid_job_id, job.name, job.state, measured)


def _literal(path: str) -> str:
    """Protect a path from sbatch's patterns such as %j."""
    return path.replace("%", "%%")


def _unknown_line(command: str, line: str) -> GridError:
    return GridError(
        f"{command} printed a line of an unknown form: {line[:200]!r}",
        command=command,
        remedy="check that bin_directory holds Slurm's own commands, 20.11 or newer",
    )
