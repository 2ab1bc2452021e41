"""Tasks that come once, after a whole dataset: a dataset of one job that *follows* another.

It is made with the dataset that it follows, and waits behind a gate.  The gate opens when every job of that dataset
is complete (or will never run: it was truncated), and closes when some job is no more, by a reset or by further
jobs: then everything that was made behind it is void, and will be made again.  When that dataset ends otherwise, by an
abort or with jobs that failed for good, what follows is *futile*: it is aborted, and waits again as soon as that one
goes on.  Gates are set after each command that moved a dataset which is followed.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec

from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import SubmitDataset, Verb
from iceprod_p2p.ledger.dag import encode_shapes
from iceprod_p2p.ledger.rollup import dataset_state
from iceprod_p2p.ledger.rules.blobs import use_dataset_blobs
from iceprod_p2p.ledger.rules.mass import change_all, count_untouched, delete_all, reset_all
from iceprod_p2p.ledger.tables import Dataset, Tables
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.states import DatasetState

OPEN: Final = (DatasetState.COMPLETE, DatasetState.TRUNCATED)
FUTILE: Final = (DatasetState.ABORTED, DatasetState.ERRORS)  # Nothing goes on there: a person must act.
JOBS: Final = 1


def add_closing(
    t: Tables,
    ds: Dataset,
    shapes: tuple[TaskShape, ...],
    requirements: tuple[int, ...],
    command: SubmitDataset,
) -> int:
    """Make the dataset that follows `ds`, behind its closed gate; return its number."""
    cluster = t.cluster
    assert cluster is not None
    cluster.datasets += 1
    t.save_cluster(cluster)
    record = msgspec.structs.replace(
        ds.record,
        number=cluster.datasets,
        seed=_seed(command.seed),
        alias="",
        jobs=JOBS,
        requirements=requirements,
        untouched=r.SUSPENDED,
        follows=ds.number,
        gated=True,
        closing=0,
    )
    roots = sum(1 for shape in shapes if not shape.parents)
    closing = t.hold_dataset(record, encode_shapes(shapes), r.DatasetCounts([0] * 16, [0] * roots))
    count_untouched(t, closing, JOBS)
    digests = dict.fromkeys((command.steering_sha256, *command.blobs))
    use_dataset_blobs(t, closing.number, tuple(bytes.fromhex(digest) for digest in digests))
    ds.replace(closing=closing.number)
    return closing.number


def _seed(seed: int) -> int:
    """Return a seed of its own: job 0 of both datasets must not draw the same streams."""
    return int.from_bytes(sha256(b"closing" + seed.to_bytes(8, "big")).digest()[:8], "big") >> 1


def set_gates(t: Tables) -> None:
    """Open and close the gates behind datasets that have moved since the last command."""
    moved, t.followed = sorted(t.followed), set()
    for number in moved:
        ds = t.dataset(number)
        closing = t.dataset(ds.record.closing) if ds is not None else None
        if ds is None or closing is None:
            continue  # It was deleted for itself, which only a person can have asked for.
        state = dataset_state(ds.record, ds.counts)
        gated, futile = state not in OPEN, state in FUTILE
        if (closing.record.gated, closing.record.futile) != (gated, futile):
            _set_gate(t, closing, gated=gated, futile=futile)


def _set_gate(t: Tables, closing: Dataset, *, gated: bool, futile: bool) -> None:
    """Move a gate: tasks behind it are ready for the first time when it is open, suspended or aborted when not."""
    if closing.record.futile or not closing.record.gated:  # Otherwise nothing has happened to them.
        reset_all(t, closing)
        if gated:
            change_all(t, closing, Verb.ABORT if futile else Verb.SUSPEND)
    else:
        change_all(t, closing, Verb.ABORT if futile else Verb.RESUME)
    closing.replace(gated=gated, futile=futile)


def why_futile(t: Tables, closing: Dataset) -> str:
    """Return, in words, why a dataset that is futile never runs as things stand."""
    ahead = t.dataset(closing.record.follows)
    state = dataset_state(ahead.record, ahead.counts) if ahead is not None else DatasetState.ABORTED
    how = "has jobs that failed" if state is DatasetState.ERRORS else "was aborted"
    return (
        f"dataset {closing.number} ended because dataset {closing.record.follows}, which it follows, {how}:"
        " it waits again when that one is reset"
    )


def delete_closing(t: Tables, ds: Dataset) -> None:
    """Forget what follows a dataset together with it."""
    closing = t.dataset(ds.record.closing) if ds.record.closing else None
    if closing is not None:
        delete_all(t, closing)
