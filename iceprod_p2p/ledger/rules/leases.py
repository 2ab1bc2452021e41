"""Leases: what happens when a held task's time runs out, when its site goes silent, and who may vouch for it."""

from __future__ import annotations

import msgspec

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import TaskRef
from iceprod_p2p.ledger.moves import HELD, STARTED, Place, move, read_job, read_task
from iceprod_p2p.ledger.outcome import Refused
from iceprod_p2p.ledger.rules.asked import find_attempt
from iceprod_p2p.ledger.rules.faults import lose_lease
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.states import SiteState, TaskEvent


def vouch(t: Tables, ref: TaskRef, until_ms: int) -> None:
    """Renew a started attempt whose pilot reports to a node of another site than its own."""
    place = find_attempt(t, ref)
    if isinstance(place, Refused):
        return
    record = read_task(t, place)
    key = keys.by_task(keys.RUN, ref.dataset, ref.job, ref.task)
    run = t.runs.get(key)
    if record.attempt == ref.attempt and record.code in STARTED and run is not None:
        t.runs.put(key, msgspec.structs.replace(run, vouched_until_ms=until_ms))


def task_time_is_up(t: Tables, dataset: int, job: int, task: int, due_ms: int) -> None:
    """Act on a task's timer.

    Take a held task back, try a failed one again, or wait on for one that was vouched for.
    """
    ds = t.dataset(dataset)
    if ds is None or job >= ds.record.jobs:
        return
    place = Place(ds, job, read_job(t, ds, job), task)
    record = read_task(t, place)
    if record.timer_ms != due_ms:
        return
    if record.code == r.ERROR:
        move(t, place, record, TaskEvent.RETRY)
    elif record.code in HELD:
        lose_lease(t, place, record, f"the time limit of a task that is {record.state} has passed")


def take_back_from_silent(t: Tables, dataset: int, job: int, task: int, site: int, *, why: str) -> bool:
    """Take one task of a site that went silent back, unless somebody vouches for it; returns whether it was taken."""
    ds = t.dataset(dataset)
    if ds is None:
        return False
    place = Place(ds, job, read_job(t, ds, job), task)
    record = read_task(t, place)
    if record.code not in HELD or record.site != site:
        return False
    if record.code in STARTED:
        run = t.runs.get(keys.by_task(keys.RUN, dataset, job, task))
        if run is not None and run.vouched_until_ms > t.now_ms:
            return False
    lose_lease(t, place, record, why)
    return True


def is_silent(t: Tables, site: r.SiteRecord) -> bool:
    """Return whether a site's leases have ended."""
    return site.state is SiteState.BANNED or site.alive_until_ms <= t.now_ms
