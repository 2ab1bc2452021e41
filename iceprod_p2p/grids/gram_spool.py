"""The places of grid jobs that went to GRAM: one directory each, shared with worker nodes.

    spool/TAG/gram.sh, grid.sh, gram.rsl    what was submitted
    spool/TAG/contact                       GRAM's name for it, as soon as the node knows
    spool/TAG/start                         who took it: "started", contact, host, time; or "given up"
    spool/TAG/alive                         touched while it runs
    spool/TAG/removed, stop                 GRAM has removed it; it shall end by itself, for GRAM has lost it
    spool/TAG/end                           exit code and time

`start` is made by linking a whole file to that name, which one of all who try succeeds in, also over NFS: a grid job
that starts, or the node that gives it up.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iceprod_p2p.grids.gram_text import is_contact
from iceprod_p2p.grids.request import Tag

KEEP_S: Final = 7 * 86_400.0  # How long ends are kept that nobody fetched: orphans'.
GIVEN_UP: Final = "given up\n"
STARTED: Final = "started\n"  # As the script writes it.


@dataclass(frozen=True, slots=True)
class Record:
    """What one place says; `host` and `started_s` are as the grid job wrote them."""

    tag: Tag
    place: Path
    contact: str
    started: bool
    given_up: bool
    host: str
    removed: bool
    stopping: bool
    beat_ns: int
    exit_code: int | None
    walltime_s: float | None

    @property
    def grid_job_id(self) -> str:
        """GRAM's name for it; ours where it started without telling one."""
        return self.contact or str(self.tag)


def give_up(place: Path) -> bool:
    """Keep a grid job from ever starting; return whether that succeeded, else it has started.  Raises OSError."""
    start = place / "start"
    if not start.exists():
        claim = place / f"claim.node.{os.getpid()}"
        claim.write_text(GIVEN_UP)
        with suppress(FileExistsError):  # Of the grid job's, or of ours when NFS sent the call twice.
            os.link(claim, start)
    return not start.read_text(errors="replace").startswith(STARTED)


def write(path: Path, text: str) -> None:
    """Put a whole file in its place; raises OSError."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


def drop(place: Path) -> None:
    """Remove a place; a grid job that starts later finds nothing to run."""
    shutil.rmtree(place, ignore_errors=True)


def records(spool: Path) -> Iterator[Record]:
    """Yield what each place says; a place that goes away meanwhile is left out.  Raises OSError."""
    try:
        names = sorted(os.listdir(spool))
    except FileNotFoundError:
        return
    for name in names:
        tag = Tag.parse(name)
        record = read(tag, spool / name) if tag is not None else None
        if record is not None:
            yield record


def read(tag: Tag, place: Path) -> Record | None:
    """Return what a place says; None when there is none."""
    if not place.is_dir():
        return None
    end = _lines(place / "end")  # First: what is there has its start as well.
    start = _lines(place / "start")
    started = start[:1] == [STARTED.strip()]
    told = start[1] if started and is_contact(start[1]) else ""
    begun_s = _number(start[3]) if started else None
    ended_s = _number(end[1]) if end else None
    return Record(
        tag=tag,
        place=place,
        contact="".join(_lines(place / "contact")[:1]) or told,
        started=started,
        given_up=bool(start) and not started,
        host=start[2] if started else "",
        removed=(place / "removed").exists(),
        stopping=(place / "stop").exists(),
        beat_ns=_changed_ns(place / "alive"),
        exit_code=_number(end[0]) if end else None,
        walltime_s=float(max(0, ended_s - begun_s)) if begun_s is not None and ended_s is not None else None,
    )


def _lines(path: Path) -> list[str]:
    """Return the lines of a file that is whole when it is there, padded to four; none when it is not there."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [*lines, "", "", "", ""][: max(4, len(lines))]


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 16 else None


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
