"""What follows when an attempt ends without its result: whose fault it was, what is tried next, and who is shut out.

The payload's fault uses up an attempt and is tried again after a pause, with more memory, disk or time if
that was what it ran out of.  A site's fault uses up none; it is bounded, and counted against the site and the
host.
"""

from __future__ import annotations

from typing import Final

import msgspec

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import TaskRef
from iceprod_p2p.ledger.counting import shift_site
from iceprod_p2p.ledger.limits import GROWTH_MAX, HOST_FAULTS_MAX, HOST_PERIOD_MS, NODE_FAULTS_MAX
from iceprod_p2p.ledger.moves import STARTED, Place, move
from iceprod_p2p.ledger.rules.classes import number_of_requirements
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.resources import Requirements, Usage
from iceprod_p2p.model.states import FailReason, TaskEvent

_GROWING: Final = {
    FailReason.MEMORY: "memory_mib",
    FailReason.DISK: "disk_mib",
    FailReason.WALLTIME: "walltime_s",
}


def fail(t: Tables, place: Place, record: r.TaskRecord, fault: r.FaultRecord) -> None:
    """End a held attempt by the payload's fault."""
    ds = place.ds.record
    _note_fault(t, place, fault)
    shift_site(t, place.ds, record.site, more="failures")
    failures = record.failures + 1
    if failures >= ds.attempts_max:
        move(t, place, record, TaskEvent.EXHAUST, failures=failures)
        return
    requirements = _grown(t, place, record, fault.reason, fault.usage)
    move(
        t,
        place,
        record,
        TaskEvent.FAIL,
        failures=failures,
        requirements=requirements,
        timer_ms=t.now_ms + max(ds.retry_pause_ms, 1),
    )


def lose(t: Tables, place: Place, record: r.TaskRecord, fault: r.FaultRecord) -> None:
    """End a held attempt by its site's fault."""
    _note_fault(t, place, fault)
    shift_site(t, place.ds, record.site, more="losses")
    if fault.host and fault.reason is not FailReason.EVICTED:  # Its batch system wanted the slot back.
        _blame_host(t, record.site, fault.host)
    losses = record.losses + 1
    event = TaskEvent.LOSE if losses < NODE_FAULTS_MAX else TaskEvent.EXHAUST
    move(t, place, record, event, losses=losses)


def lose_lease(t: Tables, place: Place, record: r.TaskRecord, why: str) -> None:
    """Take a held task back because its time ran out or its site went silent."""
    ref = TaskRef(place.ds.number, place.number, place.task, record.attempt)
    run = None
    if record.code in STARTED:
        run = t.runs.get(keys.by_task(keys.RUN, ref.dataset, ref.job, ref.task))
    fault = r.FaultRecord(
        ref,
        b"",
        FailReason.PILOT_LOST,
        why,
        0,
        t.site_name(record.site),
        run.pilot if run is not None else "",
        "",  # A silent site says nothing about its hosts.
        t.now_ms,
        Usage(),
    )
    lose(t, place, record, fault)


def _note_fault(t: Tables, place: Place, fault: r.FaultRecord) -> None:
    t.faults.put(keys.by_task(keys.FAULT, place.ds.number, place.number, place.task), fault)


def _grown(t: Tables, place: Place, record: r.TaskRecord, reason: FailReason, usage: Usage) -> int:
    """Return the requirement class of the next attempt: half as much again of what was not enough."""
    field = _GROWING.get(reason)
    if field is None:
        return record.requirements
    needs = t.requirements_of(record.requirements)
    asked = getattr(place.ds.dag.shapes[place.task].requirements, field)
    used = {
        "memory_mib": usage.memory_peak_mib,
        "disk_mib": usage.disk_peak_mib,
        "walltime_s": -(-usage.wall_ms // 1_000),
    }[field]
    wanted = _rounded(3 * max(used, getattr(needs, field)) // 2)
    bound = max(asked, 1) * GROWTH_MAX
    grown: Requirements = msgspec.structs.replace(
        needs, **{field: max(getattr(needs, field), min(wanted, bound))}
    )
    number = number_of_requirements(t, grown)
    return record.requirements if number is None else number


def _rounded(amount: int) -> int:
    """Round up to a power of two or one and a half times one, so that retries fall into few classes."""
    power = 1 << max(amount - 1, 0).bit_length()
    return power * 3 // 4 if amount <= power * 3 // 4 else power


def _faults_of(t: Tables, key: bytes) -> int:
    record = t.host_faults.get(key)
    if record is None:
        return 0
    return record.faults >> min(t.now_ms // HOST_PERIOD_MS - record.period, 31)


def _host_key(site: int, host: str) -> bytes:
    return keys.by_number(keys.HOST_FAULTS, site) + host.encode()[: keys.NAME_BYTES_MAX]


def _blame_host(t: Tables, site: int, host: str) -> None:
    key = _host_key(site, host)
    t.host_faults.put(key, r.HostFaults(_faults_of(t, key) + 1, t.now_ms // HOST_PERIOD_MS))


def praise_host(t: Tables, site: int, host: str) -> None:
    """Forget a host's faults: it completed a task."""
    key = _host_key(site, host)
    if t.host_faults.get(key) is not None:
        t.host_faults.delete(key)


def host_is_shut_out(t: Tables, site: int, host: str) -> bool:
    """Return whether a host lost so many tasks in a row that it swallows them (a black hole)."""
    return bool(host) and _faults_of(t, _host_key(site, host)) >= HOST_FAULTS_MAX
