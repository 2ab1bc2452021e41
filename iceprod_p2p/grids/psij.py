"""A bridge to PSI/J (https://exaworks.org/psij-python), for batch systems that have no plugin here: LSF, Flux, Cobalt.

PSI/J hides names, so a grid job's tag cannot be read back from the system.  In place of that every grid job has a
directory in the spool, shared with worker nodes: made before its submission, told its id as soon as the system has
told it, and written to by the grid job itself when it starts and when it ends.  One that finds no directory, or finds
that it was started before, ends at once.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from iceprod_p2p.base.clock import SystemClock
from iceprod_p2p.base.settings import Setting
from iceprod_p2p.grids.base import (
    Capabilities,
    Completed,
    Failed,
    Grid,
    GridJobStatus,
    GridRequest,
    GridState,
    Held,
    History,
    NotSubmitted,
    Queued,
    Removed,
    Running,
    SubmitConfig,
    SubmitResult,
    Submitted,
    Tag,
    Unclear,
    is_final,
)
from iceprod_p2p.grids.command import Commands, failure
from iceprod_p2p.grids.errors import GridDown, GridError, GridTimeout
from iceprod_p2p.grids.files import place_files, shell_script

BRIDGE: Final = "iceprod_p2p.grids.psij_bridge"
DOWN: Final = re.compile(
    r"refused|unreachable|not respond|[Uu]nable to contact|[Cc]annot connect|[Nn]o such file or directory: '"
)
SILENT: Final = re.compile(r"[Tt]imed? ?out|failure|Zero Bytes")
LOST_S: Final = (
    86_400.0  # A place without an id is given up after so long: what then still starts ends at once.
)
ATTRIBUTE: Final = re.compile(r"-*([A-Za-z][A-Za-z0-9_-]*)(?:[= ](.*))?")
# Signals reach the executable by the system's own way; this shell only has to outlive it.
SCRIPT: Final = """\
#!/bin/sh
place={place}
mkdir "$place/started" 2>/dev/null || exit 75
uname -n >"$place/host"
echo "$LSB_JOBID$FLUX_JOB_ID$COBALT_JOBID$PBS_JOBID$SLURM_JOB_ID" >"$place/told"
trap : TERM USR1 USR2
/bin/sh {script} &
child=$!
while :; do
  wait $child
  code=$?
  kill -0 $child 2>/dev/null || break
done
echo $code >"$place/ended.new" && mv "$place/ended.new" "$place/ended"
exit $code
"""


@dataclass(frozen=True, slots=True)
class Record:
    """What one place in the spool says: its grid job's id, and how far the grid job says that it is."""

    tag: Tag
    place: Path
    native: str
    host: str
    exit_code: int | None
    removed: bool


class PsijGrid(Grid):
    """One batch system, spoken to by PSI/J."""

    OPTIONS: ClassVar[tuple[Setting, ...]] = (
        Setting("spool", "path", None, "directory that worker nodes see; one per node"),
        Setting(
            "executor", "text", None, "PSI/J's name of the batch system: lsf, flux, cobalt, pbs, slurm, local"
        ),
        Setting("url", "text", "", "of the batch system, where the executor wants one"),
        Setting("account", "text", "", "account or project"),
        Setting("python", "path", "", "a Python that has psij-python and this package; empty: the node's"),
        Setting("bin_directory", "path", "", "where the batch system's commands are; empty: in PATH"),
        Setting("environment", "table", {}, "for the batch system's commands"),
        Setting("timeout_s", "number", 120.0, "for one call of PSI/J", 1, 3_600),
    )

    def __init__(self, spool: Path, commands: Commands, options: Mapping[str, str]) -> None:
        self._spool = spool
        self._commands = commands
        self._options = options

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Make the plugin; asks nobody."""
        commands = Commands.from_options(options)
        words = {name: str(options[name]) for name in ("executor", "url", "account", "python")}
        return cls(Path(str(options["spool"])).expanduser().absolute(), commands, words)

    def capabilities(self) -> Capabilities:
        """Return what PSI/J passes on; what is enforced is the batch system's."""
        walltime = frozenset({"walltime"} if self._options["executor"] != "local" else ())
        return Capabilities(jobs_per_submit=100, enforces=walltime, gpus=True)

    def impossible(self, request: GridRequest) -> str:
        """Return why a request cannot run: PSI/J brings no files."""
        return "PSI/J brings no files to worker nodes: shared_directory = true" if request.carry else ""

    def write_config(self, request: GridRequest) -> SubmitConfig:
        """Return the call of the bridge and what it is told of one grid job."""
        told = json.dumps(self._asked("submit", jobs=[self._job(request)]), sort_keys=True)
        return SubmitConfig((self._python, "-m", BRIDGE), told)

    def submit(self, requests: Sequence[GridRequest]) -> list[SubmitResult]:
        """Submit all by one call of the bridge."""
        if not requests:
            return []
        for request in requests:
            place_files(request)
            place = self._place(request.tag)
            place.mkdir(mode=0o700, parents=True)  # It must be new, as the tag is.
            inner = place / "grid.sh"
            inner.write_text(shell_script(request))
            script = SCRIPT.format(place=shlex.quote(str(place)), script=shlex.quote(str(inner)))
            (place / "psij.sh").write_text(script)
        try:
            told = self._bridge("submit", jobs=[self._job(request) for request in requests])
        except (GridTimeout, GridError) as trouble:
            return [self._unclear(request, str(trouble)) for request in requests]
        results = [self._result(request, answer) for request, answer in zip(requests, told, strict=True)]
        if all(isinstance(result, GridDown) for result in results):
            for request in requests:
                shutil.rmtree(self._place(request.tag), ignore_errors=True)
            raise results[0]  # type: ignore[misc]
        return [
            self._unclear(request, str(result)) if isinstance(result, GridDown) else result
            for request, result in zip(requests, results, strict=True)
        ]

    def status(self, grid_job_ids: Collection[str]) -> dict[str, GridState]:
        """Return the states of those that live."""
        return {name: state for name, state in self._states(grid_job_ids).items() if not is_final(state)}

    def history(self, grid_job_ids: Collection[str]) -> dict[str, History]:
        """Return the ends: exit codes as grid jobs wrote them, the rest as PSI/J says."""
        hosts = {record.native: record.host for record in self._records()}
        return {
            name: History(
                name,
                state,
                state.exit_code if isinstance(state, Completed) else None,
                "" if isinstance(state, Completed) else getattr(state, "reason", ""),
                hosts.get(name, ""),
            )
            for name, state in self._states(grid_job_ids).items()
            if is_final(state)
        }

    def remove(self, grid_job_ids: Collection[str]) -> None:
        """Cancel those that have not ended."""
        wanted = set(grid_job_ids)
        records = [one for one in self._records() if one.native in wanted and one.exit_code is None]
        if not records:
            return
        said = self._bridge("cancel", ids=[record.native for record in records])
        for record, trouble in zip(records, said, strict=True):
            if trouble and DOWN.search(trouble):
                raise GridDown(f"PSI/J could not cancel {record.native}: {trouble}", command=BRIDGE)
            if not trouble:
                (record.place / "removed").touch()

    def our_jobs(self, owner: str) -> list[GridJobStatus]:
        """Return an owner's grid jobs in the spool, ended ones until they are forgotten."""
        records = [record for record in self._records() if record.tag.owner == owner and record.native]
        states = self._states([record.native for record in records])
        return [
            GridJobStatus(record.native, record.tag, states[record.native])
            for record in records
            if record.native in states
        ]

    def forget(self, grid_job_ids: Collection[str]) -> None:
        """Drop the places of ended ones."""
        for record in self._records():
            if record.native in set(grid_job_ids):
                shutil.rmtree(record.place, ignore_errors=True)

    def check(self) -> str:
        """Return PSI/J's version and how many jobs the batch system lists."""
        self._spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        return str(self._bridge("check"))

    def _states(self, grid_job_ids: Collection[str]) -> dict[str, GridState]:
        """Return the state of each that is known; PSI/J is asked only for those that have not said their end."""
        wanted = set(grid_job_ids)
        records = {record.native: record for record in self._records() if record.native in wanted}
        states: dict[str, GridState] = {
            name: Completed(record.exit_code)
            for name, record in records.items()
            if record.exit_code is not None
        }
        open_ = sorted(set(records) - set(states))
        if not open_:
            return states
        told = self._bridge("status", ids=open_)
        for name, record in self._again(open_).items():  # It may have ended meanwhile.
            if record.exit_code is not None:
                states[name] = Completed(record.exit_code)
            elif name in told:
                states[name] = _state(told[name], record)
            elif record.removed:
                states[name] = Removed("removed by this site")
        return states

    def _again(self, names: Sequence[str]) -> dict[str, Record]:
        return {record.native: record for record in self._records() if record.native in names}

    def _result(self, request: GridRequest, answer: Mapping[str, str]) -> SubmitResult | GridDown:
        if "id" in answer:
            return Submitted(request.tag, answer["id"])
        said = answer.get("refused") or answer.get("failed") or "PSI/J said nothing"
        if DOWN.search(said):
            return GridDown(
                f"PSI/J could not submit: {said}", command=BRIDGE, remedy="check the batch system"
            )
        if SILENT.search(said):
            return Unclear(request.tag, said)
        shutil.rmtree(self._place(request.tag), ignore_errors=True)
        return NotSubmitted(request.tag, said)

    def _unclear(self, request: GridRequest, reason: str) -> SubmitResult:
        return Unclear(request.tag, reason)

    def _job(self, request: GridRequest) -> dict[str, Any]:
        place = self._place(request.tag)
        attributes = {}
        for line in request.extra_lines:
            found = ATTRIBUTE.fullmatch(line.strip())
            if found:
                attributes[f"{self._options['executor']}.{found[1]}"] = found[2] or ""
        return {
            "name": str(request.tag),
            "place": str(place),
            "script": str(place / "psij.sh"),
            "directory": request.work_directory,
            "stdout": request.stdout_path,
            "stderr": request.stderr_path,
            "queue": request.queue,
            "account": self._options["account"],
            "walltime_s": request.walltime_s,
            "cores": request.cores,
            "gpus": request.gpus,
            "memory_mib": request.memory_mib,
            "attributes": attributes,
        }

    @property
    def _python(self) -> str:
        return self._options["python"] or sys.executable

    def _asked(self, what: str, **more: Any) -> dict[str, Any]:
        usual = {"executor": self._options["executor"], "url": self._options["url"]}
        return {**usual, "work": str(self._spool / "psij"), "do": what, **more}

    def _bridge(self, what: str, **more: Any) -> Any:
        line = (self._python, "-m", BRIDGE)
        result = self._commands.run(line, stdin=json.dumps(self._asked(what, **more)))
        if "No module named 'psij'" in result.stderr:
            raise failure(result, down=True, remedy="install psij-python: pip install 'iceprod-p2p[psij]'")
        try:
            answer = json.loads(result.stdout)
        except ValueError as broken:
            raise failure(result, remedy="is the executor one of PSI/J's?") from broken
        if "error" in answer:
            kind = GridDown if DOWN.search(answer["error"]) else GridError
            raise kind(f"PSI/J failed: {answer['error']}", command=f"{BRIDGE} {what}")
        return answer["answer"]

    def _place(self, tag: Tag) -> Path:
        return self._spool / "jobs" / str(tag)

    def _records(self) -> list[Record]:
        records = []
        for place in sorted((self._spool / "jobs").glob("iceprod.*")):
            tag = Tag.parse(place.name)
            record = _record(tag, place) if tag is not None else None
            if record is not None and (record.native or not _is_old(place)):
                records.append(record)
        return records


def _state(told: Mapping[str, str], record: Record) -> GridState:
    """Return our state for PSI/J's; one that ended without its own word was ended by the system."""
    message = told["message"]
    match told["state"]:
        case "ACTIVE":
            return Running(record.host)
        case "CANCELED":
            return Removed(message or "cancelled")
        case "FAILED":
            return Failed(message or "the batch system says that it failed")
        case "COMPLETED":
            if record.removed:
                return Removed("removed by this site")
            return Failed("it ended without a word of its own: killed, or its node is lost")
    return Held(message) if "held" in message.lower() else Queued(message)


def _record(tag: Tag, place: Path) -> Record | None:
    code = _text(place / "ended")
    return Record(
        tag,
        place,
        _text(place / "native") or _text(place / "told"),
        _text(place / "host"),
        int(code) if code.isdigit() else None,
        (place / "removed").exists(),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _is_old(place: Path) -> bool:
    """Drop a place that was never told an id, long after its submission; return whether that was done."""
    try:
        old = SystemClock().wall_ms() / 1_000 - place.stat().st_mtime > LOST_S
    except OSError:
        return True
    if old:
        shutil.rmtree(place, ignore_errors=True)
    return old
