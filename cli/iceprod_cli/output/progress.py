"""Progress bars of a dataset on stderr, with rate and expected end; plain lines when nobody watches."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from iceprod_cli.output.show import safe, say
from iceprod_cli.session import Session
from iceprod_p2p.base.errors import Unavailable
from iceprod_p2p.wire.pb import control_pb2

FINAL = ("complete", "truncated", "aborted")
PIPED_INTERVAL_S = 10.0  # A log file wants a line now and then, not a picture.


def watch_dataset(
    session: Session, dataset: str, *, interval_s: float = 1.0, timeout_s: float | None = None
) -> str:
    """Show progress until the dataset ends, needs a person (`errors`), or `timeout_s` passed; return its state.

    A cluster that is silent for a while (a new leader is being chosen) is waited for within the connection's limit.
    """
    give_up_at = time.monotonic() + timeout_s if timeout_s else None
    drawn = sys.stderr.isatty()
    progress = Progress(
        TextColumn("{task.description:>16}", markup=False),
        BarColumn(bar_width=36),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=False,
        disable=not drawn,
    )
    bars: dict[str, TaskID] = {}
    said_at = 0.0
    with progress:
        while True:
            detail = _detail(session, dataset)
            _draw(progress, bars, detail)
            if not drawn and time.monotonic() - said_at >= PIPED_INTERVAL_S:
                said_at = time.monotonic()
                say(one_line(detail), err=True)
            if _is_over(detail):
                if not drawn:
                    say(one_line(detail), err=True)
                return detail.row.state
            if give_up_at is not None and time.monotonic() > give_up_at:
                return detail.row.state
            time.sleep(interval_s)


def say_what_next(dataset: str, state: str) -> None:
    """After a dataset that stopped at `errors`: where to look, and how it goes on."""
    if state == "errors":
        say(
            f"  see: iceprod task list {dataset} --state failed; iceprod task explain TASK\n"
            f"  then: iceprod dataset reset {dataset} --failed",
            err=True,
        )


def one_line(detail: control_pb2.DatasetDetail) -> str:
    """Return the dataset's progress as one line."""
    counts = {count.state: count.count for count in detail.row.tasks if count.count}
    total = sum(counts.values())
    words = ", ".join(f"{state} {count}" for state, count in counts.items())
    return f"dataset {detail.row.dataset} {detail.row.state}: {counts.get('complete', 0)}/{total} tasks ({words})"


def _detail(session: Session, dataset: str) -> control_pb2.DatasetDetail:
    request = control_pb2.GetDatasetRequest(read=control_pb2.Read(stale=False), dataset=dataset)
    for patience in (3, 2, 1, 0):
        try:
            detail: control_pb2.DatasetDetail = session.call("GetDataset", request)
            return detail
        except Unavailable:
            if patience == 0:
                raise
    raise AssertionError("the loop above returns or raises")


def _draw(progress: Progress, bars: dict[str, TaskID], detail: control_pb2.DatasetDetail) -> None:
    for entry in detail.task_names:
        counts = {count.state: count.count for count in entry.counts}
        total = sum(counts.values())
        if entry.name not in bars:
            bars[entry.name] = progress.add_task(safe(entry.name), total=total, note="")
        held = sum(counts.get(state, 0) for state in ("processing", "copying"))
        note = f"{held} running" if held else ""
        if counts.get("failed"):
            note += f" {counts['failed']} failed"
        progress.update(bars[entry.name], completed=counts.get("complete", 0), total=total, note=note)


def _is_over(detail: control_pb2.DatasetDetail) -> bool:
    """Whether nothing more will happen by itself: ended, or only failed tasks and what waits for them are left."""
    if detail.row.state in FINAL:
        return True
    moving = ("ready", "claimed", "queued", "processing", "copying", "error")
    return detail.row.state == "errors" and not any(c.count for c in detail.row.tasks if c.state in moving)
