"""The ledger's clock: time enters here alone, and what time brings is carried out in bounded pages."""

from __future__ import annotations

import msgspec

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import SetSettings, Tick
from iceprod_p2p.ledger.limits import (
    PAGE_RECORDS,
    SITE_GRACE_MAX_MS,
    SITE_GRACE_MIN_MS,
    TIMERS_PER_TICK,
)
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal, Refused
from iceprod_p2p.ledger.rules.asked import Asked, at_least
from iceprod_p2p.ledger.rules.leases import is_silent, task_time_is_up
from iceprod_p2p.ledger.rules.members import invitation_time_is_up
from iceprod_p2p.ledger.rules.sweeping import SILENCE, add_sweep
from iceprod_p2p.ledger.rules.sweeps import advance_sweeps
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.person import Role


def tick(t: Tables, command: Tick, asked: Asked) -> Outcome:
    """Advance ledger time, which never goes back; then act on what is due and on sweeps, a page of each."""
    if command.term != asked.term:
        return Refused(Refusal.STALE_TERM, f"a tick of term {command.term} in an entry of term {asked.term}")
    if t.cluster is None:
        return Refused(Refusal.WRONG_STATE, "the cluster has not been founded")
    t.progress.time_ms = max(t.progress.time_ms, command.now_ms)
    _act_on_timers(t)
    advance_sweeps(t, PAGE_RECORDS)
    return Applied()


def _act_on_timers(t: Tables) -> None:
    start, stop = keys.TIMER, keys.by_index(keys.TIMER, t.now_ms + 1)
    due: list[bytes] = []
    for key, _ in t.kv.scan(start, stop):
        if len(due) >= TIMERS_PER_TICK:
            break
        due.append(key)
    for key in due:
        at_ms, kind = keys.number_of(key, 1, 8), key[9]
        if kind == keys.TASK_TIMER:
            task_time_is_up(t, *keys.task_of_tail(key), at_ms)
        elif kind == keys.SITE_TIMER:
            _site_time_is_up(t, key[10:].decode(), at_ms)
        else:
            invitation_time_is_up(t, key[10:], at_ms)
        t.kv.delete(key)


def _site_time_is_up(t: Tables, name: str, at_ms: int) -> None:
    """Look after a site.

    Wait on for one that was heard of, sweep one that is silent, forget one that holds nothing.
    """
    site = t.site(name)
    if site is None or site.timer_ms != at_ms:
        return
    cluster = t.cluster
    assert cluster is not None
    if not is_silent(t, site):
        again_ms = site.alive_until_ms
    elif t.site_tally(site.number).held:
        add_sweep(t, r.SweepRecord(SILENCE, site.number))
        again_ms = t.now_ms + cluster.site_grace_ms  # Attempts that others vouched for are looked at again.
    else:
        again_ms = 0
    if again_ms:
        t.kv.put(keys.other_timer(again_ms, keys.SITE_TIMER, name.encode()), b"")
    t.sites.put(keys.by_name(keys.SITE, name), msgspec.structs.replace(site, timer_ms=again_ms))


def set_settings(t: Tables, command: SetSettings, asked: Asked) -> Outcome:
    """Change cluster settings; zero leaves a value as it is."""
    refusal = at_least(t, asked, Role.ADMINISTRATOR)
    if refusal is not None:
        return refusal
    cluster = t.cluster
    if cluster is None:
        return Refused(Refusal.WRONG_STATE, "the cluster has not been founded")
    grace_ms = command.site_grace_ms
    if grace_ms:
        if not SITE_GRACE_MIN_MS <= grace_ms <= SITE_GRACE_MAX_MS:
            return Refused(
                Refusal.LIMIT,
                f"the site grace is {SITE_GRACE_MIN_MS} to {SITE_GRACE_MAX_MS} ms, not {grace_ms}",
            )
        cluster.site_grace_ms = grace_ms
        t.save_cluster(cluster)
    return Applied()
