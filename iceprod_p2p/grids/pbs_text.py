"""PBS's texts, all pure, in two dialects: OpenPBS (and PBS Professional), and Torque.

Sources: the manual pages qsub(1B), qstat(1B), qdel(1B) and the table "Job Exit Status Codes" of the PBS
Professional Administrator's Guide, https://help.altair.com/2022.1.0/PBS%20Professional/PBSAdminGuide2022.1.pdf;
pbs_job.h of Torque for its negative codes.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from iceprod_p2p.grids.amounts import mebibytes, seconds
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
from iceprod_p2p.grids.files import shell_script
from iceprod_p2p.grids.request import TAG_VARIABLE, GridRequest, Tag

OPENPBS: Final = "openpbs"
TORQUE: Final = "torque"
NAME_MOST: Final = 15  # Letters in a job's name for Torque.
PRIORITY_STEP: Final = 10  # PBS's priorities run from -1024 to 1023, ours from -100 to 100.
PBS_SAYS: Final = "grid.pbs"
NEVER: Final = "Can Never Run"  # How the comment of one begins that waits for more than there is.
DELETED: Final = " and terminated by "  # In the comment, whatever exit code the grid job then chose.
SHUT_OUT: Final = 75  # The exit code of a grid job on a host that it must not run on.
SIGNAL_BASE: Final = 256
TERM: Final = 15
WAITING_LETTERS: Final = frozenset("QWTM")
ACTIVE_LETTERS: Final = frozenset("REBSU")
ENDED_LETTERS: Final = frozenset("FXC")
FAILURES: Final[Mapping[str, Mapping[int, str]]] = {
    OPENPBS: {
        -24: "it used more cores than it asked for",
        -25: "it used more cores than it asked for",
        -26: "it used more virtual memory than it asked for",
        -27: "it used more memory than it asked for",
        -28: "its processor time was over",
        -29: "its wall time was over",
    },
    TORQUE: {
        -10: "it used more memory than it asked for",
        -11: "its wall time was over",
        -12: "its processor time was over",
    },
}
# Said when the server cannot be reached: nothing was changed.
DOWN: Final = re.compile(
    r"cannot connect to server|Connection refused|pbs_iff: |No default server", re.IGNORECASE
)
# Said when it was reached and did not answer to the end.
SILENT: Final = re.compile(r"timed? ?out|Premature end of message|End of File|Protocol.*error", re.IGNORECASE)
# Said, with exit code 0 and instead of everything, to who asks for ended jobs too where the server keeps none.
NO_HISTORY: Final = "not configured to maintain job history"
GONE: Final = re.compile(
    r"Unknown Job|Job has finished|invalid state for job|Request invalid for state", re.IGNORECASE
)
_KEY: Final = re.compile(r"^\s+([A-Za-z_][\w.]*) = (.*)$")


@dataclass(frozen=True, slots=True)
class PbsJob:
    """One grid job as qstat tells it."""

    grid_job_id: str
    tag: Tag | None
    state: GridState
    history: History | None = None


def arguments(request: GridRequest, dialect: str) -> tuple[str, ...]:
    """Return the command line of qsub; the script comes by standard input.

    The tag is in the list of variables, for Torque's names are short.  A grid job is never run again by the
    system: its pilot's secret works once.  What PBS itself says of it goes to `PBS_SAYS` in its directory, by PBS's
    own copying at the end; nobody gets a mail.
    """
    name = str(request.tag) if dialect == OPENPBS else f"p{request.tag.grid_job}"[:NAME_MOST]
    line = ["qsub", "-N", name, "-v", f"{TAG_VARIABLE}={request.tag}", "-r", "n", "-S", "/bin/sh"]
    said = "/dev/null" if request.carry else f"{request.work_directory}/{PBS_SAYS}"
    line += ["-o", "/dev/null", "-e", said, "-m", "n"]
    if request.queue:
        line += ["-q", request.queue]
    if request.priority:
        line += ["-p", str(request.priority * PRIORITY_STEP)]
    for resource in _resources(request, dialect):
        line += ["-l", resource]
    return tuple(line)


def script(request: GridRequest, worker_log: str = "/dev/null") -> str:
    """Return the batch script; it goes to its directory, where PBS would start at home, and off hosts that are
    shut out, which PBS cannot be told.

    It opens its output itself: PBS would bring that when all is over, and by way of scp.  That of one which is
    carried goes to `worker_log` on the worker node, where ``%j`` is PBS's id of it.
    """
    first = [_worker_log(worker_log)] if request.carry else [_place(request)]
    if request.exclude_hosts:
        hosts = "|".join(shlex.quote(host) for host in request.exclude_hosts)
        shut_out = f'echo "this host is shut out" >&2; exit {SHUT_OUT}'
        names = ('"$(hostname)"', '"$(hostname -s)"')
        first = [*(f"case {name} in {hosts}) {shut_out};; esac" for name in names), *first]
    return shell_script(request, [f"#PBS {line}" for line in request.extra_lines], first=first)


def submitted_id(output: str) -> str | None:
    """Read what qsub printed, ``17.server`` or ``17``; None for anything else."""
    match = re.fullmatch(r"\d+(?:\.[\w.-]+)?", output.strip().rpartition("\n")[2])
    return match[0] if match else None


def qstat(output: str, dialect: str) -> list[PbsJob]:
    """Read ``qstat -f``, in which long values are wrapped with a tab."""
    jobs = []
    for block in re.split(r"^Job Id:\s*", output, flags=re.MULTILINE)[1:]:
        head, _, rest = block.partition("\n")
        fields: dict[str, str] = {}
        last = ""
        for line in rest.splitlines():
            match = _KEY.match(line)
            if match:
                last, fields[match[1]] = match[1], match[2]
            elif last and line.startswith("\t"):
                fields[last] += line[1:]
        jobs.append(_job(head.strip(), fields, dialect))
    return jobs


def state_of(fields: Mapping[str, str], dialect: str) -> GridState:
    """Return our state for the attributes of a job."""
    letter = fields.get("job_state", "")
    if letter in ACTIVE_LETTERS:
        return Running(_host(fields))
    if letter == "H":
        return Held(fields.get("comment", "") or "on hold")
    if letter in ENDED_LETTERS:
        return _end_state(fields, dialect)
    comment = fields.get("comment", "")
    if letter == "Q" and comment.startswith(NEVER):
        return Held(comment)
    return Queued(comment if letter in WAITING_LETTERS else f"unknown state {letter}")


def _end_state(fields: Mapping[str, str], dialect: str) -> GridState:
    status = fields.get("Exit_status", fields.get("exit_status", ""))
    comment = fields.get("comment", "")
    terminated = DELETED in comment
    if not re.fullmatch(r"-?\d+", status):
        return Removed(comment) if terminated or not comment else Failed(comment)
    code = int(status)
    if code < 0:
        known = FAILURES[dialect].get(code, "PBS could not run it")
        return Failed(f"{known} ({code})")
    if terminated or code == SIGNAL_BASE + TERM:
        return Removed(comment or "deleted")
    if code < SIGNAL_BASE:
        return Completed(code)
    return Completed(128 + code - SIGNAL_BASE)


def _job(grid_job_id: str, fields: Mapping[str, str], dialect: str) -> PbsJob:
    state = state_of(fields, dialect)
    variables = re.search(rf"(?:^|,){TAG_VARIABLE}=([^,\s]+)", fields.get("Variable_List", ""))
    tag = Tag.parse(variables[1] if variables else fields.get("Job_Name", ""))
    if fields.get("job_state") not in ENDED_LETTERS:
        return PbsJob(grid_job_id, tag, state)
    history = History(
        grid_job_id,
        state,
        state.exit_code if isinstance(state, Completed) else None,
        "" if isinstance(state, Completed) else getattr(state, "reason", ""),
        _host(fields),
        seconds(fields.get("resources_used.walltime", "")),
        seconds(fields.get("resources_used.cput", "")),
        mebibytes(fields.get("resources_used.mem", "")),
    )
    return PbsJob(grid_job_id, tag, state, history)


def _place(request: GridRequest) -> str:
    """Return the commands that enter the directory and write there, or say to PBS why not."""
    directory, out, err = (
        shlex.quote(path) for path in (request.work_directory, request.stdout_path, request.stderr_path)
    )
    return f"cd {directory} || exit 1\nexec >{out} 2>{err} || exit 1"


def _worker_log(path: str) -> str:
    """Return the command that writes there on the worker node."""
    target = '"$PBS_JOBID"'.join(shlex.quote(part) for part in path.split("%j"))
    return f"exec >{target} 2>&1"


def _resources(request: GridRequest, dialect: str) -> list[str]:
    walltime = [f"walltime={request.walltime_s}"] if request.walltime_s else []
    memory = f"mem={request.memory_mib}mb" if request.memory_mib else ""
    if dialect == TORQUE:
        gpus = f":gpus={request.gpus}" if request.gpus else ""
        return [f"nodes=1:ppn={request.cores}{gpus}", *([memory] if memory else []), *walltime]
    gpus = f"ngpus={request.gpus}" if request.gpus else ""
    return ["select=" + ":".join(filter(None, ("1", f"ncpus={request.cores}", memory, gpus))), *walltime]


def _host(fields: Mapping[str, str]) -> str:
    return fields.get("exec_host", "").partition("/")[0]
