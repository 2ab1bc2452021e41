"""ARC's texts, all pure: job descriptions in xRSL, and what A-REX's REST interface says.

Sources: "ARC CE REST interface specification", https://www.nordugrid.org/arc/arc6/tech/rest/rest.html, and "Extended
Resource Specification Language", https://www.nordugrid.org/documents/xrsl.pdf.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from iceprod_p2p.grids.amounts import mebibytes, whole_minutes
from iceprod_p2p.grids.base import Completed, Failed, GridState, Held, History, Queued, Removed, Running
from iceprod_p2p.grids.errors import GridError
from iceprod_p2p.grids.files import shell_script
from iceprod_p2p.grids.request import GridRequest, Tag

SCRIPT_NAME: Final = "grid.sh"
OUTPUTS: Final = ("grid.out", "grid.err")
PLACE_VARIABLE: Final = "ICEPROD_WORK_DIRECTORY"
RUNNING: Final = ("RUNNING", "EXITINGLRMS", "EXECUTED", "FINISHING", "KILLING")
HELD: Final = "HELD"
ENDED: Final = ("FINISHED", "FAILED", "KILLED", "WIPED")
STATES_ASKED: Final = (*RUNNING, HELD, *ENDED)
CANCELLED: Final = re.compile(r"cancell?ed by external request", re.IGNORECASE)
EXIT_CODE: Final = re.compile(r"(?:wrong exit code - |LRMS error: \()(\d+)")
# A-REX writes descriptions that came together with others in a form of its own.
_NAME: Final = re.compile(r'\(\s*"?jobname"?\s*=\s*"([^"]*)"\s*\)', re.IGNORECASE)
_PLACE: Final = re.compile(rf'\(\s*"?{PLACE_VARIABLE}"?\s+"([^"]*)"\s*\)')


def description(request: GridRequest, *, delegation: str = "") -> str:
    """Return the xRSL of one grid job; memory is per core, as ARC wants it."""
    inputs = [SCRIPT_NAME, *(path.rsplit("/", 1)[-1] for path in request.files_in)]
    pairs = {
        "executable": SCRIPT_NAME,
        "jobname": str(request.tag),
        "stdout": OUTPUTS[0],
        "stderr": OUTPUTS[1],
        "queue": request.queue,
        "wallTime": f"{whole_minutes(request.walltime_s)} minutes" if request.walltime_s else "",
        "cpuTime": f"{whole_minutes(request.walltime_s) * request.cores} minutes"
        if request.walltime_s
        else "",
        "count": str(request.cores) if request.cores > 1 else "",
        "countpernode": str(request.cores) if request.cores > 1 else "",
        "memory": str(-(-request.memory_mib // request.cores)) if request.memory_mib else "",
        "disk": str(-(-request.disk_mib // 1_024)) if request.disk_mib else "",
        "priority": str(max(1, min(100, 50 + request.priority // 2))) if request.priority else "",
        "delegationid": delegation,
    }
    text = [f"({name}={quoted(value)})" for name, value in pairs.items() if value]
    text.append(f"(inputFiles={_files(inputs)})(outputFiles={_files(OUTPUTS)})")
    text.append(f"(environment=({quoted(PLACE_VARIABLE)} {quoted(request.work_directory)}))")
    return f"&{''.join(text)}{''.join(request.extra_lines)}"


def script(request: GridRequest) -> str:
    """Return the script that becomes the executable; ARC brings its files to where it starts."""
    return shell_script(request, embed=False)


def quoted(text: str) -> str:
    """Return a text as xRSL writes it."""
    return '"' + text.replace('"', '""') + '"'


def rows(document: Any, call: str) -> list[Mapping[str, Any]]:
    """Return the jobs of an answer, in which one alone is no list; GridError for an answer of another form."""
    if document is None:
        return []
    found = document.get("job", []) if isinstance(document, dict) else None
    found = [found] if isinstance(found, dict) else found
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise GridError(f"{call} was answered in an unknown form: {str(document)[:200]}", command=call)
    return found


def ids(document: Any, call: str) -> list[str]:
    """Return the ids of an answer's jobs."""
    return [str(row["id"]) for row in rows(document, call) if row.get("id")]


def live_state(word: str) -> GridState:
    """Return our state for one that has not ended; what no list names is on its way to the batch system."""
    if word in RUNNING:
        return Running()
    return Held("held by the service") if word == HELD else Queued()


def end_of(grid_job_id: str, word: str, failed: str, diagnosis: str) -> History:
    """Return how one ended, from why it failed and what the worker node measured."""
    facts = dict(re.findall(r"^(\w+)=(.*)$", diagnosis, re.MULTILINE))
    reason = " ".join(failed.split())[:500]
    said = EXIT_CODE.search(reason)
    state: GridState
    if CANCELLED.search(reason) or word == "KILLED":
        state = Removed(reason)
    elif word == "FINISHED":
        state = Completed(0)
    elif said is not None:
        state = Completed(int(said[1]))
    else:
        state = Failed(reason or f"ARC says {word}")
    code = state.exit_code if isinstance(state, Completed) else None
    return History(
        grid_job_id,
        state,
        code,
        reason if code is None else "",
        facts.get("nodename", ""),
        _seconds(facts.get("WallTime") or facts.get("walltime", "")),
        _sum(_seconds(facts.get("UserTime", "")), _seconds(facts.get("KernelTime", ""))),
        mebibytes(facts.get("MaxResidentMemory", "")) or None,
    )


def described(text: str) -> tuple[Tag | None, str]:
    """Read our tag and the directory on this host out of a job description."""
    name, place = _NAME.search(text), _PLACE.search(text)
    return (Tag.parse(name[1]) if name else None), (place[1] if place else "")


def many(descriptions: Sequence[str]) -> str:
    """Return one text for several job descriptions."""
    return descriptions[0] if len(descriptions) == 1 else "+" + "".join(f"({text})" for text in descriptions)


def _files(names: Sequence[str]) -> str:
    return "".join(f'({quoted(name)} "")' for name in names)


def job_list(grid_job_ids: Sequence[str]) -> bytes:
    """Return the document that names grid jobs to A-REX."""
    return json.dumps({"job": [{"id": name} for name in grid_job_ids]}).encode()


def _seconds(text: str) -> float | None:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)s?", text.strip())
    return float(match[1]) if match else None


def _sum(*parts: float | None) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if known else None
