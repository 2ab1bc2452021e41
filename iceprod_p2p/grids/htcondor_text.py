"""HTCondor's texts, all pure: submit descriptions, and what condor_q and condor_history say.

Sources: the HTCondor manual 23, condor_submit(1) and "Job ClassAd Attributes",
https://htcondor.readthedocs.io/en/23.0/classad-attributes/job-classad-attributes.html (JobStatus).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from iceprod_p2p.grids.amounts import whole_minutes
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

TAG_ATTRIBUTE: Final = "IceProdTag"
SCRIPT_NAME: Final = "grid.sh"
ATTRIBUTES: Final = (
    "ClusterId,ProcId,JobStatus,IceProdTag,HoldReason,RemoteHost,LastRemoteHost,ExitCode,ExitBySignal,ExitSignal,"
    "RemoveReason,RemoteWallClockTime,RemoteUserCpu,RemoteSysCpu,ResidentSetSize"
)
IDLE, RUNNING, REMOVED, COMPLETED, HELD, TRANSFERRING, SUSPENDED = range(1, 8)
ACTIVE: Final = frozenset({RUNNING, TRANSFERRING, SUSPENDED})
# Said when the schedd cannot be reached: nothing was changed.
DOWN: Final = re.compile(
    r"Failed to connect to|Can't find address of|can't find address|Can't send|Unable to locate"
    r"|neither a config file|CEDAR:6001|AUTHENTICATE:|not set up properly",
    re.IGNORECASE,
)
# Said when it was reached and did not answer to the end.
SILENT: Final = re.compile(
    r"CEDAR:600[2-9]|timed? ?out|Failed to commit|Failed to fetch ads|Qmgmt", re.IGNORECASE
)
UNKNOWN_JOB: Final = re.compile(
    r"Couldn't find/remove all jobs|Job [\d.]+ not found|already (?:marked|removed)"
)


@dataclass(frozen=True, slots=True)
class HtcondorOptions:
    """How requests become submit descriptions at one site."""

    transfer: str = "if_needed"
    schedd: str = ""
    pool: str = ""
    spool: bool = False
    routed: bool = False  # By an HTCondor-CE, to a batch system behind it.

    def where(self) -> tuple[str, ...]:
        """Return the options that every command needs to find the schedd."""
        pool = ("-pool", self.pool) if self.pool else ()
        return (*pool, "-name", self.schedd) if self.schedd else pool


@dataclass(frozen=True, slots=True)
class HtcondorJob:
    """One grid job as condor_q or condor_history tells it."""

    grid_job_id: str
    tag: Tag | None
    state: GridState
    history: History | None = None


def description(request: GridRequest, options: HtcondorOptions) -> str:
    """Return the submit description.

    The environment is in the script, for a submit description holds no line breaks.  A grid job is never run
    again by the system: its pilot's secret works once.
    """
    lines = {
        "universe": "vanilla",
        "executable": f"{request.work_directory}/{SCRIPT_NAME}",  # Not affected by initialdir.
        "initialdir": request.work_directory,
        "output": request.stdout_path,
        "error": request.stderr_path,
        "transfer_executable": "true",
        "should_transfer_files": "yes" if request.carry or options.spool else options.transfer,
        "when_to_transfer_output": "on_exit",
        "transfer_output_files": '""',
        "transfer_input_files": _inputs(request),
        "notification": "never",
        "request_cpus": str(request.cores),
        "request_memory": f"{request.memory_mib}M" if request.memory_mib else "",
        "request_disk": f"{request.disk_mib}M" if request.disk_mib else "",
        "request_gpus": str(request.gpus) if request.gpus else "",
        "priority": str(request.priority) if request.priority else "",
        "accounting_group": "" if options.routed else request.queue,
        "requirements": "" if options.routed else _requirements(request),
        "periodic_remove": _removal(request),
        f"My.{TAG_ATTRIBUTE}": f'"{request.tag}"',
        "batch_name": str(request.tag),
        **(_for_routes(request) if options.routed else {}),
    }
    written = [f"{name} = {value}" for name, value in lines.items() if value]
    return "\n".join([*written, *request.extra_lines, "queue 1", ""])


def script(request: GridRequest) -> str:
    """Return the script that lies in the grid job's directory."""
    return shell_script(request, embed=False)


def submitted_id(output: str) -> str | None:
    """Read what ``condor_submit -terse`` printed for one grid job, ``1.0 - 1.0``; None for anything else."""
    match = re.fullmatch(r"(\d+\.\d+) - \1", output.strip().rpartition("\n")[2])
    return match[1] if match else None


def jobs(output: str, command: str) -> list[HtcondorJob]:
    """Read ``-json`` of condor_q or condor_history, which print nothing at all where there is no job.

    Raises GridError for anything else.
    """
    if not output.strip():
        return []
    try:
        return [_job(entry) for entry in json.loads(output)]
    except (ValueError, TypeError, KeyError) as broken:
        raise GridError(
            f"{command} -json printed something of an unknown form: {output[:200]!r}",
            command=command,
            remedy="check that bin_directory holds HTCondor's own commands, 8.8 or newer",
        ) from broken


def _job(entry: Mapping[str, object]) -> HtcondorJob:
    grid_job_id = f"{_number(entry['ClusterId'])}.{_number(entry['ProcId'])}"
    status = _number(entry["JobStatus"])
    state = state_of(status, entry)
    ended = status in (REMOVED, COMPLETED) and not isinstance(state, Running)
    tag = Tag.parse(str(entry.get(TAG_ATTRIBUTE, "")))
    return HtcondorJob(grid_job_id, tag, state, _history(grid_job_id, state, entry) if ended else None)


def state_of(status: int, entry: Mapping[str, object]) -> GridState:
    """Return our state for a JobStatus with its attributes; removal takes time, and says why at its end."""
    if status in ACTIVE:
        return Running(_host(entry))
    if status == HELD:
        return Held(str(entry.get("HoldReason", "")))
    if status == REMOVED:
        return _removed(str(entry.get("RemoveReason", "")))
    if status == COMPLETED:
        if entry.get("ExitBySignal"):
            return Completed(128 + _number(entry.get("ExitSignal", 0)))
        return Completed(_number(entry.get("ExitCode", 0)))
    return Queued("" if status == IDLE else f"unknown JobStatus {status}")


def _removed(reason: str) -> GridState:
    if "SYSTEM_PERIODIC_REMOVE" in reason:
        return Failed(f"a rule of the pool removed it: {reason}")
    if "PeriodicRemove" in reason:
        return Failed("its wall time was over, or its worker node was lost (PeriodicRemove)")
    return Removed(reason)


def _history(grid_job_id: str, state: GridState, entry: Mapping[str, object]) -> History:
    size_kib = _decimal(entry.get("ResidentSetSize"))
    user_s, system_s = _decimal(entry.get("RemoteUserCpu")), _decimal(entry.get("RemoteSysCpu"))
    return History(
        grid_job_id,
        state,
        state.exit_code if isinstance(state, Completed) else None,
        "" if isinstance(state, Completed) else getattr(state, "reason", ""),
        _host(entry),
        _decimal(entry.get("RemoteWallClockTime")),
        None if user_s is None else user_s + (system_s or 0.0),
        None if size_kib is None else -int(-size_kib // 1_024),
    )


def _for_routes(request: GridRequest) -> dict[str, str]:
    """Return what an HTCondor-CE's routes read: https://htcondor.com/htcondor-ce/v23/remote-job-submission/.

    The CE maps the credential to an account, so the owner is left to it.
    """
    return {
        "+Owner": "undefined",
        "+xcount": str(request.cores),
        "+maxMemory": str(request.memory_mib) if request.memory_mib else "",
        "+maxWallTime": str(whole_minutes(request.walltime_s)) if request.walltime_s else "",
        "+remote_queue": f'"{_quoted(request.queue)}"' if request.queue else "",
    }


def _inputs(request: GridRequest) -> str:
    """Return the files to transfer: carried ones from where they are, others from the initial directory."""
    return ", ".join(path if request.carry else path.rsplit("/", 1)[-1] for path in request.files_in)


def _requirements(request: GridRequest) -> str:
    machines = [f'(TARGET.Machine != "{_quoted(host)}")' for host in request.exclude_hosts]
    return " && ".join(machines)


def _removal(request: GridRequest) -> str:
    """Remove what was started before and is idle again, and what runs for too long."""
    again = "(JobStatus == 1 && NumJobStarts > 0)"
    if not request.walltime_s:
        return again
    return f"{again} || (JobStatus == 2 && time() - JobCurrentStartDate > {request.walltime_s})"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _host(entry: Mapping[str, object]) -> str:
    return str(entry.get("RemoteHost") or entry.get("LastRemoteHost") or "").rpartition("@")[2]


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return int(value)


def _decimal(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
