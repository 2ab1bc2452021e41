"""Jobs without a cluster, through a batch system: each is one grid job that calls nobody and leaves its answer behind.

    DIR/unmonitored.json      what was submitted: the plugin with its options, and each job's grid job
    DIR/job-N/bundle/         the document, what it names, and what to run (see `iceprod_pilot.local`)
    DIR/job-N/result.json     how the job went, written at its end
    DIR/job-N/out/            its permanent files
    DIR/job-N/grid/           what the grid job printed

Worker nodes see the directory and this Python.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from iceprod_cli.dagman import write_bundle
from iceprod_cli.fetching import packed_whole
from iceprod_p2p.base.errors import BadInput, NotFound
from iceprod_p2p.client.submission import read_document
from iceprod_p2p.grids import registry
from iceprod_p2p.grids.base import (
    Completed,
    Failed,
    Grid,
    GridRequest,
    GridState,
    Removed,
    Submitted,
    Tag,
    is_final,
)
from iceprod_p2p.grids.polling import poll
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.steering.plan import all_shapes

NOTE = "unmonitored.json"
JOBS_MAX = 10_000  # One directory and one grid job each: more belong to a cluster.
UNKNOWN = "unknown"
RUNNER = "iceprod_pilot.local"
PILOT_MEMORY_MIB = 256


def options_of(words: Iterable[str]) -> dict[str, object]:
    """Read ``NAME=VALUE`` options of a plugin; values are TOML where they can be, else text."""
    options: dict[str, object] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise BadInput(f"--grid-option {word!r} is not NAME=VALUE")
        try:
            options[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            options[name] = value
    return options


def submit(
    file: Path,
    directory: Path,
    *,
    plugin: str,
    options: Mapping[str, object],
    jobs: int,
    seed: int,
    external: Path | None = None,
) -> list[dict[str, Any]]:
    """Submit every job of a steering file as a grid job; return a row for each, with why it was not taken, if so.

    BadInput for a directory in use or too many jobs, ConfigError for the plugin's options; grid errors as they are.
    """
    if jobs > JOBS_MAX:
        raise BadInput(f"at most {JOBS_MAX} jobs run unmonitored, not {jobs}", remedy="submit to a cluster")
    directory = directory.absolute()
    if (directory / NOTE).exists():
        raise BadInput(f"{directory} holds unmonitored jobs already", remedy="name another with --dir")
    document = read_document(file)
    packed = packed_whole(document, file.resolve().parent, site_toml=external)
    shapes = all_shapes(document)
    directory.mkdir(parents=True, exist_ok=True)
    grid = _grid(plugin, options, directory)
    requests = []
    for job in range(jobs):
        place = directory / f"job-{job}"
        wish = {
            "job": job,
            "jobs": jobs,
            "seed": seed,
            "out": str(place / "out"),
            "result": str(place / "result.json"),
        }
        (place / "bundle").mkdir(parents=True)
        write_bundle(place / "bundle", packed, wish)
        requests.append(_request(job, place, shapes))
    rows: list[dict[str, Any]] = []
    page = max(1, grid.capabilities().jobs_per_submit)
    for start in range(0, jobs, page):
        for result in grid.submit(requests[start : start + page]):
            grid_job, error = (
                (result.grid_job_id, "") if isinstance(result, Submitted) else ("", result.reason)
            )
            rows.append({"job": len(rows), "grid_job": grid_job, "error": error})
    note = {"file": str(file), "grid": plugin, "options": dict(options), "jobs": rows}
    (directory / NOTE).write_text(json.dumps(note, indent=1))
    return rows


def gathered(directory: Path) -> list[dict[str, Any]]:
    """Return how each job went, by the files that they left; of those without one, what the batch system says.

    `gone`: the batch system has ended it, and it left no answer; `unknown`: it is too young or too old to be listed.
    """
    try:
        note = json.loads((directory / NOTE).read_text())
    except FileNotFoundError:
        raise NotFound(f"{directory} holds no unmonitored jobs") from None
    rows: list[dict[str, Any]] = []
    open_jobs: dict[str, dict[str, Any]] = {}
    for known in note["jobs"]:
        row: dict[str, Any] = {"job": known["job"], "grid_job": known["grid_job"], "state": "failed"}
        rows.append(row)
        result = directory / f"job-{known['job']}" / "result.json"
        if result.exists():
            answer = json.loads(result.read_text())
            row["state"] = "complete" if answer["ok"] else "failed"
            row["tasks"] = answer["tasks"]
            failed = [task for task in answer["tasks"] if not task["ok"]]
            row["message"] = failed[0]["message"].partition("\n")[0] if failed else ""
        elif known["grid_job"]:
            open_jobs[known["grid_job"]] = row
        else:
            row["message"] = known["error"]
    if open_jobs:
        grid = _grid(note["grid"], note["options"], directory)
        seen = poll(grid, open_jobs)
        for grid_job, row in open_jobs.items():
            state = seen.states.get(grid_job)
            if state is None:
                row["state"], row["message"] = UNKNOWN, "the batch system does not list it"
            elif is_final(state):
                # It may have written its answer since we looked for it.
                written = (directory / f"job-{row['job']}" / "result.json").exists()
                row["state"] = UNKNOWN if written else "gone"
                row["message"] = "" if written else f"{_end_of(state)}; see job-{row['job']}/grid/grid.err"
            else:
                row["state"] = type(state).__name__.lower()
                row["message"] = getattr(state, "reason", "")
    return rows


def _end_of(state: GridState) -> str:
    """Say how the batch system says that a grid job ended."""
    match state:
        case Completed(exit_code):
            return f"it ended with exit code {exit_code}"
        case Failed(reason) | Removed(reason):
            return f"{type(state).__name__.lower()}: {reason or 'no reason is given'}"
        case _:
            return type(state).__name__.lower()


def _grid(plugin: str, options: Mapping[str, object], directory: Path) -> Grid:
    given = dict(options)
    if any(setting.name == "spool" for setting in registry.load(plugin).OPTIONS):
        given.setdefault("spool", str(directory.absolute() / "spool"))
    return registry.create(plugin, given)


def _request(job: int, place: Path, shapes: tuple[TaskShape, ...]) -> GridRequest:
    """Ask for what all tasks of a job need one after the other."""
    needs = [shape.requirements for shape in shapes]
    return GridRequest(
        tag=Tag("unmonitored", f"job-{job}"),
        executable=sys.executable,
        work_directory=str((place / "grid").absolute()),
        arguments=("-m", RUNNER, "--bundle", str((place / "bundle").absolute())),
        walltime_s=sum(need.walltime_s for need in needs),
        cores=max(need.cpus for need in needs),
        memory_mib=max(need.memory_mib for need in needs) + PILOT_MEMORY_MIB,
        disk_mib=sum(need.disk_mib for need in needs),
        gpus=max(need.gpus for need in needs),
    )
