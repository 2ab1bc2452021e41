"""The local grid's spool: what is on disk about each grid job, and what follows from it.

    <spool>/options.json      slots and limits, written by the plugin, read by the supervisor
    <spool>/supervisor.lock   held by the one supervisor while it lives
    <spool>/wake              a FIFO; the supervisor reads it, others write a byte to say "look"
    <spool>/jobs/<id>/        one grid job; its id is its tag, so a tag is submitted once or not at all
        request.json          what to run; the directory appears complete, by a rename
        running               made by the job's shell, exclusively, as its first act: a job starts at most
                              once; pid, start time and boot, on which all knowledge of "does it live" rests
        gpus.json             which GPUs it was given, where it wanted some
        verdict.json          why the supervisor is about to end it, written before the first signal
        remove                somebody wants it removed
        exit                  its exit code, written by the job's shell, whoever else is dead by then
        end.json              the end, with used resources, written by the supervisor; never changes

Every file is small, written once, and read by anybody at any time; status needs neither the supervisor nor to
be anybody's parent.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.grids import local_processes as processes

FORMAT: Final = 1
VERDICT_REMOVED: Final = "removed"
DROPPED: Final = ".dropped-"  # How the name of a directory begins that is being removed.

# $1: the job's directory, $2: where it starts; then the command line.  Only what the shell itself can do, so
# that a job's PATH does not matter.  `trap :` lets the shell outlive a TERM to its group without passing
# "ignored" on.
JOB_SCRIPT: Final = """\
set -C
read -r stat < /proc/$$/stat
boot=
read -r boot 2>/dev/null < /proc/sys/kernel/random/boot_id
printf '%s\\n%s\\n' "$stat" "$boot" 2>/dev/null > "$1/running" || exit 75
set +C
job=$1 start=$2
shift 2
trap : TERM INT HUP QUIT USR1 USR2
if cd "$start"; then "$@"; code=$?; else code=126; fi
printf '%s\\n' "$code" > "$job/exit"
exit "$code"
"""


@dataclass(frozen=True, slots=True)
class SpoolOptions:
    """What the supervisor has to keep to; `gpus` are the values that CUDA_VISIBLE_DEVICES may take."""

    slots: int
    memory_mib: int
    gpus: tuple[str, ...]
    nice: int
    grace_s: float
    interval_s: float
    linger_s: float
    keep_s: float


@dataclass(frozen=True, slots=True)
class JobFile:
    """A request as it lies in the spool; `sequence` orders equals by submission."""

    tag: str
    sequence: int
    priority: int
    command: tuple[str, ...]
    work_directory: str
    environment: dict[str, str]
    walltime_s: int
    cores: int
    memory_mib: int
    disk_mib: int
    gpus: int


@dataclass(frozen=True, slots=True)
class Started:
    """The first process of a running grid job."""

    pid: int
    start_ticks: int
    boot_id: str

    def is_alive(self) -> bool:
        """Return whether it lives in this boot of the machine."""
        now = processes.boot_id()
        return (not self.boot_id or not now or self.boot_id == now) and processes.is_alive(
            self.pid, self.start_ticks
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why the supervisor ended a grid job: `kind` is removed, walltime, memory, disk, or start."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class End:
    """How a grid job ended; without a verdict and an exit code it was killed from outside or the machine
    stopped.
    """

    exit_code: int | None
    verdict: Verdict | None
    lost: str = ""
    walltime_s: float | None = None
    cpu_s: float | None = None
    memory_mib: int | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """In the spool, not started."""


@dataclass(frozen=True, slots=True)
class Alive:
    """Started and not ended; `started` is None for the moment in which its shell is writing."""

    started: Started | None


class Spool:
    """Paths, reads and atomic writes; holds no state and may be used by any number of processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.jobs = root / "jobs"
        self.lock = root / "supervisor.lock"
        self.wake = root / "wake"
        self.log = root / "supervisor.log"

    def create(self) -> None:
        """Make the spool where it is missing, for this user alone; OSError when that cannot be."""
        self.jobs.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.wake.exists():
            try:
                os.mkfifo(self.wake, 0o600)
            except FileExistsError:
                return

    def write_options(self, options: SpoolOptions) -> None:
        """Set what the supervisor keeps to; unchanged options cause no write."""
        if self.read_options() != options:
            _write_json(self.root / "options.json", asdict(options))

    def read_options(self) -> SpoolOptions | None:
        """Return the options, None while there are none."""
        found = _read_json(self.root / "options.json")
        try:
            return SpoolOptions(**{**found, "gpus": tuple(found["gpus"])}) if found else None
        except (TypeError, KeyError):
            return None  # Of another version: written anew by the next plugin object.

    def add(self, job: JobFile) -> bool:
        """Put a grid job into the spool at once and complete; False when its tag is there already."""
        if self.directory(job.tag).exists():
            return False
        young = self.jobs / f".new-{os.getpid()}-{job.sequence}-{job.tag}"
        young.mkdir(mode=0o700)
        try:
            (young / "request.json").write_text(json.dumps({"format": FORMAT, **asdict(job)}))
            passing("local.add.before")
            young.rename(self.directory(job.tag))
            passing("local.add.after")
        except OSError as broken:
            shutil.rmtree(young, ignore_errors=True)
            if broken.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        return True

    def ids(self) -> list[str]:
        """Return the ids of all grid jobs in the spool, sorted."""
        return sorted(name for name in os.listdir(self.jobs) if not name.startswith("."))

    def directory(self, grid_job_id: str) -> Path:
        """Return where a grid job's files are."""
        return self.jobs / grid_job_id

    def request(self, grid_job_id: str) -> JobFile | None:
        """Return a grid job's request; None when it is not in the spool or cannot be read."""
        found = _read_json(self.directory(grid_job_id) / "request.json")
        if not found or found.pop("format", None) != FORMAT:
            return None
        try:
            return JobFile(**{**found, "command": tuple(found["command"])})
        except (TypeError, KeyError):
            return None

    def ask_removal(self, grid_job_id: str) -> bool:
        """Note that a grid job shall be removed; False when it is not in the spool."""
        try:
            (self.directory(grid_job_id) / "remove").touch()
        except FileNotFoundError:
            return False
        return True

    def removal_asked(self, grid_job_id: str) -> bool:
        """Return whether somebody wants it removed."""
        return (self.directory(grid_job_id) / "remove").exists()

    def write_gpus(self, grid_job_id: str, gpus: tuple[str, ...]) -> None:
        """Note which GPUs a grid job is about to get, so that another supervisor does not give them again."""
        if gpus:
            _write_json(self.directory(grid_job_id) / "gpus.json", {"gpus": list(gpus)})

    def gpus_of(self, grid_job_id: str) -> tuple[str, ...]:
        """Return the GPUs that a started grid job was given."""
        return tuple(_read_json(self.directory(grid_job_id) / "gpus.json").get("gpus", ()))

    def write_verdict(self, grid_job_id: str, verdict: Verdict) -> None:
        """Note why a grid job is about to be ended."""
        _write_json(self.directory(grid_job_id) / "verdict.json", asdict(verdict))

    def write_end(self, grid_job_id: str, end: End) -> None:
        """Note a grid job's end for good."""
        _write_json(self.directory(grid_job_id) / "end.json", asdict(end))

    def has_end(self, grid_job_id: str) -> bool:
        """Return whether a grid job's end has been noted."""
        return (self.directory(grid_job_id) / "end.json").exists()

    def drop(self, grid_job_id: str) -> None:
        """Forget a grid job, whole and at once: who writes into it then fails.

        Its own work directory is not touched.
        """
        dropped = self.jobs / f"{DROPPED}{os.getpid()}-{grid_job_id}"
        shutil.rmtree(dropped, ignore_errors=True)
        try:
            self.directory(grid_job_id).rename(dropped)
        except OSError:
            return
        shutil.rmtree(dropped, ignore_errors=True)

    def clear_dropped(self) -> None:
        """Remove what a process left that died while it dropped grid jobs."""
        for name in os.listdir(self.jobs):
            if name.startswith(DROPPED):
                shutil.rmtree(self.jobs / name, ignore_errors=True)

    def look(self, grid_job_id: str) -> Waiting | Alive | End | None:
        """Return where a grid job stands, from the disk and /proc alone; None when it is not in the spool."""
        directory = self.directory(grid_job_id)
        end = _read_json(directory / "end.json")
        if end:
            return _end(end)
        if not (directory / "running").exists():
            return Waiting() if directory.exists() else None
        started = self._started(directory)
        if started is None or started.is_alive():
            return Alive(started)
        return self._derived_end(directory, started)

    def _started(self, directory: Path) -> Started | None:
        try:
            stat, boot, *_ = (directory / "running").read_text().split("\n")
            process = processes.parse_stat(stat)
        except (OSError, ValueError):
            return None
        return Started(process.pid, process.start_ticks, boot)

    def _derived_end(self, directory: Path, started: Started) -> End:
        """Tell the end of a grid job whose first process is gone.  Its shell wrote the exit code before it
        went.
        """
        verdict = _verdict(_read_json(directory / "verdict.json"))
        try:
            text = (directory / "exit").read_text()
        except OSError:
            text = ""
        if text.endswith("\n") and text.strip().isdigit():
            return End(int(text), verdict)
        if started.boot_id and started.boot_id != processes.boot_id():
            return End(None, verdict, "the machine was restarted")
        return End(None, verdict, "its first process was killed and left no exit code")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    young = path.with_name(f".{path.name}.{os.getpid()}")
    young.write_text(json.dumps(content))
    young.rename(path)


def _read_json(path: Path) -> dict[str, Any]:
    """Return the file's table; empty when it is missing or is none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _verdict(found: dict[str, Any] | None) -> Verdict | None:
    return Verdict(str(found.get("kind", "")), str(found.get("reason", ""))) if found else None


def _end(found: dict[str, Any]) -> End:
    try:
        return End(**{**found, "verdict": _verdict(found.get("verdict"))})
    except TypeError:
        return End(None, None, "its end was noted by another version of this program")
