"""slurmrestd's texts, all pure: what a submission says, and what is read of jobs.

Source: the API's own description (``/openapi/v3``) of Slurm 22.05 for v0.0.38, as it answers; for v0.0.39 and newer
https://slurm.schedmd.com/rest_api.html.  v0.0.38 tells an exit code as `wait` does, and knows no excluded nodes; newer
ones wrap numbers and lists.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from iceprod_p2p.grids.amounts import whole_minutes
from iceprod_p2p.grids.base import Completed, History, is_final
from iceprod_p2p.grids.errors import GridError
from iceprod_p2p.grids.files import shell_script
from iceprod_p2p.grids.request import GridRequest
from iceprod_p2p.grids.slurm_text import SlurmJob, SlurmOptions, state_of

VERSIONS: Final = ("v0.0.38", "v0.0.39", "v0.0.40", "v0.0.41", "v0.0.42")
WRAPS_SINCE: Final = "v0.0.39"
ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin"}  # Slurm wants one; the script sets the others.
INVALID_ID: Final = frozenset({2017, 2021})  # Unknown; ended already.
# Words of sbatch that fields of the API name otherwise.
NAMES: Final = {"constraint": "constraints"}
_EXTRA: Final = re.compile(r"(?:--)?([A-Za-z][A-Za-z0-9_-]*)(?:[= ](.*))?")


def submission(request: GridRequest, options: SlurmOptions, version: str) -> dict[str, Any]:
    """Return the body of a submission; the site's extra lines ``name=value`` become fields of the job.

    OSError where a file that the script carries cannot be read.
    """
    wraps = version >= WRAPS_SINCE
    job: dict[str, Any] = {
        "name": str(request.tag),
        "current_working_directory": "/" if request.carry else request.work_directory,
        "standard_output": options.worker_log if request.carry else request.stdout_path.replace("%", "%%"),
        "standard_error": options.worker_log if request.carry else request.stderr_path.replace("%", "%%"),
        "nodes": "1" if wraps else 1,
        "tasks": 1,
        "cpus_per_task": request.cores,
        **({"requeue": False} if wraps else {"no_requeue": True}),  # v0.0.38 takes no False here.
        "environment": [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        if wraps
        else dict(ENVIRONMENT),
    }
    optional = {
        "partition": request.queue,
        "time_limit": _number(whole_minutes(request.walltime_s), wraps=wraps),
        "memory_per_node": _number(request.memory_mib, wraps=wraps),
        "nice": -request.priority * options.nice_per_priority,
        "excluded_nodes": list(request.exclude_hosts) if wraps else [],
    }
    if request.gpus:
        resource = f"{options.gres}:{request.gpus}"
        optional["tres_per_node" if wraps else "gres"] = f"gres/{resource}" if wraps else resource
    if 0 < options.notice_s < request.walltime_s and not wraps:
        optional["signal"] = f"B:TERM@{options.notice_s}"
    if request.disk_mib and options.request_disk and wraps:
        optional["temporary_disk_per_node"] = request.disk_mib
    job |= {name: value for name, value in optional.items() if value}
    return {"script": shell_script(request), "job": job | _extra(request.extra_lines)}


def submitted_id(document: Mapping[str, Any]) -> str | None:
    """Return the id that a submission was answered with; None for a refusal."""
    found = document.get("job_id")
    return str(found) if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


def complaint(document: Mapping[str, Any]) -> str:
    """Return what an answer complains of, on one line."""
    words = []
    for error in document.get("errors") or ():
        if isinstance(error, Mapping):
            parts = (error.get("description"), error.get("error"))
            words.append(": ".join(str(part) for part in parts if part))
    return "; ".join(word for word in words if word)


def error_numbers(document: Mapping[str, Any]) -> frozenset[int]:
    """Return Slurm's numbers for what it complains of."""
    found = set()
    for error in document.get("errors") or ():
        number = error.get("error_number", error.get("error_code")) if isinstance(error, Mapping) else None
        if isinstance(number, int):
            found.add(number)
    return frozenset(found)


def jobs(document: Mapping[str, Any], user: str) -> list[SlurmJob]:
    """Read ``/slurm/VERSION/jobs``; a user's own.  GridError for another form."""
    return [_job(entry) for entry in _entries(document) if entry.get("user_name") in (user, "", None)]


def accounted(document: Mapping[str, Any]) -> list[SlurmJob]:
    """Read ``/slurmdb/VERSION/job/ID``, which may tell no exit code (22.05 does not) but says how a job ended."""
    found = []
    for entry in _entries(document):
        state = entry.get("state")
        word = _word(state.get("current") if isinstance(state, Mapping) else state)
        code = entry.get("exit_code")
        exit_code = _amount(code.get("return_code")) if isinstance(code, Mapping) else 0
        host = str(entry.get("nodes") or "")
        grid_job_id, name = str(_amount(entry.get("job_id"))), str(entry.get("name") or "")
        untold = "its exit code is not told by slurmrestd" if word == "FAILED" else ""
        ended = state_of(word, exit_code, 0, reason=untold, host=host)
        time = entry.get("time")
        elapsed = float(_amount(time.get("elapsed"))) if isinstance(time, Mapping) else None
        history = _history(grid_job_id, ended, host, elapsed) if is_final(ended) else None
        found.append(SlurmJob(grid_job_id, name, ended, history))
    return found


def _job(entry: Mapping[str, Any]) -> SlurmJob:
    word, reason = _word(entry.get("job_state")), str(entry.get("state_reason") or "")
    code, signal = _exit(entry.get("exit_code"))
    host, name = str(entry.get("nodes") or ""), str(entry.get("name") or "")
    said = "" if reason == "None" or word == "CANCELLED" else reason
    state = state_of(word, code, signal, reason=said, host=host)
    grid_job_id = str(_amount(entry.get("job_id")))
    start_s, end_s = _amount(entry.get("start_time")), _amount(entry.get("end_time"))
    walltime_s = float(end_s - start_s) if 0 < start_s <= end_s else None
    history = _history(grid_job_id, state, host, walltime_s) if is_final(state) else None
    return SlurmJob(grid_job_id, name, state, history)


def _history(grid_job_id: str, state: Any, host: str, walltime_s: float | None) -> History:
    completed = isinstance(state, Completed)
    return History(
        grid_job_id,
        state,
        state.exit_code if completed else None,
        "" if completed else getattr(state, "reason", ""),
        "" if host == "None assigned" else host,
        walltime_s,
    )


def _entries(document: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found = document.get("jobs")
    if not isinstance(found, list) or any(not isinstance(entry, Mapping) for entry in found):
        raise GridError(
            f"slurmrestd answered in an unknown form: {json.dumps(document)[:200]}",
            remedy="check rest_version against the API that it offers",
        )
    return found


def _word(state: Any) -> str:
    """Return the state of a job; newer APIs give a list whose first one is it."""
    return str(state[0]) if isinstance(state, list) and state else str(state or "")


def _exit(code: Any) -> tuple[int, int]:
    """Return exit code and signal."""
    if isinstance(code, Mapping):
        signal = code.get("signal")
        number = signal.get("id", signal.get("signal_id")) if isinstance(signal, Mapping) else 0
        return _amount(code.get("return_code")), _amount(number)
    raw = _amount(code)
    return raw >> 8, raw & 0x7F


def _amount(value: Any) -> int:
    """Read a whole number, plain or wrapped; 0 for none."""
    if isinstance(value, Mapping):
        value = value.get("number") if value.get("set", True) else 0
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _number(value: int, *, wraps: bool) -> Any:
    return {"set": True, "infinite": False, "number": value} if wraps and value else value


def _extra(lines: Sequence[str]) -> dict[str, Any]:
    """Turn ``--account=x``, ``qos=y`` or ``hold`` into fields."""
    fields: dict[str, Any] = {}
    for line in lines:
        found = _EXTRA.fullmatch(line.strip())
        if found is not None:
            name = found[1].replace("-", "_")
            value = found[2]
            fields[NAMES.get(name, name)] = (
                True if value is None else int(value) if value.strip().isdigit() else value.strip()
            )
    return fields
