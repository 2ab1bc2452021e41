"""A batch system described by data: command lines with placeholders, regular expressions, and a table of states.

All pure.  A command line is a list of items; an item is one or more words.  Placeholders in braces are filled
in after the words are cut, so a value is never cut; an item with an empty placeholder (no queue, no limit) is
left out whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from iceprod_p2p.base.errors import ConfigError
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
from iceprod_p2p.grids.request import GridRequest, Tag

PLACEHOLDER: Final = re.compile(r"\{([a-z_]*)\}")
IDS: Final = "{ids}"
EXTRA_LINES: Final = "{extra_lines}"
SCRIPT_NAME: Final = "grid.sh"
DESCRIPTION_NAME: Final = "grid.job"
REQUEST_PLACEHOLDERS: Final = frozenset(
    {
        "cores",
        "description",
        "directory",
        "disk_mib",
        "gpus",
        "memory_mib",
        "minutes",
        "name",
        "priority",
        "queue",
        "script",
        "stderr",
        "stdout",
        "walltime_s",
    }
)
KINDS: Final[Mapping[str, Callable[[str, str, int], GridState]]] = {
    "queued": lambda host, reason, code: Queued(reason),
    "running": lambda host, reason, code: Running(host),
    "held": lambda host, reason, code: Held(reason),
    "completed": lambda host, reason, code: Completed(code),
    "removed": lambda host, reason, code: Removed(reason),
    "failed": lambda host, reason, code: Failed(reason or "the batch system says that it failed"),
}
OTHERWISE: Final = "*"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression that finds grid jobs in an output, and the states of its words."""

    expression: re.Pattern[str]
    states: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Found:
    """One grid job as a command tells it."""

    grid_job_id: str
    tag: Tag | None
    state: GridState
    host: str


def pattern(name: str, text: str, needed: Sequence[str]) -> re.Pattern[str]:
    """Compile a setting's regular expression; raises ConfigError for a wrong one or a missing named group."""
    try:
        made = re.compile(text, re.MULTILINE)
    except re.error as wrong:
        raise ConfigError(f"{name} is no regular expression: {wrong}", remedy=f"correct {text!r}") from wrong
    missing = [group for group in needed if group not in made.groupindex]
    if missing:
        groups = ", ".join(f"(?P<{group}>...)" for group in missing)
        raise ConfigError(f"{name} finds no {', '.join(missing)}", remedy=f"add the named groups {groups}")
    return made


def check_states(states: Mapping[str, str]) -> None:
    """Raise ConfigError for a state that is none of ours."""
    wrong = sorted({kind for kind in states.values() if kind not in KINDS})
    if wrong or not states:
        raise ConfigError(
            f"states names {', '.join(wrong) or 'nothing'}", remedy=f"known kinds: {', '.join(sorted(KINDS))}"
        )


def check_line(name: str, line: Sequence[str], allowed: frozenset[str], *, needs: str = "") -> None:
    """Raise ConfigError for a command line that is empty, or has a placeholder that nobody fills."""
    used = {word for item in line for word in PLACEHOLDER.findall(item)}
    unknown = sorted(used - allowed)
    if unknown or not line or (needs and needs not in used):
        fault = (
            f"has unknown placeholders {unknown}" if unknown else f"needs {{{needs}}}" if line else "is empty"
        )
        raise ConfigError(f"{name} {fault}", remedy=f"known placeholders: {', '.join(sorted(allowed))}")


def submit_line(
    line: Sequence[str], request: GridRequest, *, with_extra_lines: bool = True
) -> tuple[str, ...]:
    """Fill in a request; the site's extra lines follow as words, unless they stand elsewhere."""
    values = _values(request)
    words: list[str] = []
    for item in line:
        if all(values[name] for name in PLACEHOLDER.findall(item)):
            words += [PLACEHOLDER.sub(lambda found: values[found[1]], word) for word in item.split()]
    extra = request.extra_lines if with_extra_lines else ()
    return (*words, *(word for text in extra for word in text.split()))


def description_file(lines: Sequence[str], request: GridRequest) -> str:
    """Fill in a job description, such as JDL: each line, or none of it where a placeholder of it is empty.

    A line ``{extra_lines}`` is replaced by the site's.  Values stand within double quotes there, so quotes and
    backslashes in them are escaped.
    """
    values = {
        name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in _values(request).items()
    }
    written: list[str] = []
    for line in lines:
        if line == EXTRA_LINES:
            written += request.extra_lines
        elif all(values[name] for name in PLACEHOLDER.findall(line)):
            written.append(PLACEHOLDER.sub(lambda found: values[found[1]], line))
    return "\n".join((*written, ""))


def check_description(lines: Sequence[str]) -> None:
    """Raise ConfigError for a placeholder in a job description that nobody fills."""
    asked = [line for line in lines if line != EXTRA_LINES]
    if asked:
        check_line("description", asked, REQUEST_PLACEHOLDERS - {"description"})


def _values(request: GridRequest) -> dict[str, str]:
    return {
        "cores": str(request.cores),
        "description": f"{request.work_directory}/{DESCRIPTION_NAME}",
        "directory": request.work_directory,
        "disk_mib": str(request.disk_mib or ""),
        "gpus": str(request.gpus or ""),
        "memory_mib": str(request.memory_mib or ""),
        "minutes": str(whole_minutes(request.walltime_s) or ""),
        "name": str(request.tag),
        "priority": str(request.priority or ""),
        "queue": request.queue,
        "script": f"{request.work_directory}/{SCRIPT_NAME}",
        "stderr": request.stderr_path,
        "stdout": request.stdout_path,
        "walltime_s": str(request.walltime_s or ""),
    }


def ids_line(line: Sequence[str], grid_job_ids: Sequence[str]) -> tuple[str, ...]:
    """Put ids where ``{ids}`` stands."""
    words: list[str] = []
    for word in (word for item in line for word in item.split()):
        words += grid_job_ids if word == IDS else [word]
    return tuple(words)


def find(output: str, how: Pattern) -> list[Found]:
    """Return the grid jobs that an output tells of; the last word about an id counts."""
    found: dict[str, Found] = {}
    for match in how.expression.finditer(output):
        groups = {name: (text or "").strip() for name, text in match.groupdict().items()}
        code = groups.get("code", "")
        kind = how.states.get(groups["state"], how.states.get(OTHERWISE, "queued"))
        exit_code = int(code) if re.fullmatch(r"-?\d+", code) else 0
        state = KINDS[kind](groups.get("host", ""), groups.get("reason", "") or groups["state"], exit_code)
        tag = Tag.parse(groups.get("name", ""))
        found[groups["id"]] = Found(groups["id"], tag, state, groups.get("host", ""))
    return list(found.values())


def history_of(job: Found) -> History:
    """Return the end of an ended grid job."""
    state = job.state
    code = state.exit_code if isinstance(state, Completed) else None
    reason = "" if isinstance(state, Completed) else getattr(state, "reason", "")
    return History(job.grid_job_id, state, code, reason, job.host)
