"""What sites and pilots report of tasks that they hold: queued, started, copying, finished, failed, given back.

A report names an attempt, and its holder is the key that the attempt was handed to: both are checked here,
when the report is applied, so a lagging node cannot let a stale pilot in.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import (
    CopyTask,
    FailTask,
    FinishTask,
    GiveBack,
    QueueTasks,
    StartTasks,
    TaskRef,
    TaskStart,
)
from iceprod_p2p.ledger.counting import shift_share
from iceprod_p2p.ledger.limits import (
    COPYING_LIMIT_MS,
    PROCESSING_SLACK_MS,
    QUEUED_LIMIT_MS,
)
from iceprod_p2p.ledger.moves import HELD, STARTED, Place, move, read_task, store
from iceprod_p2p.ledger.outcome import Applied, Grant, Outcome, Refusal, Refused
from iceprod_p2p.ledger.rules.asked import Asked, find_attempt, find_site, name_of, stale
from iceprod_p2p.ledger.rules.faults import fail, host_is_shut_out, lose, praise_host
from iceprod_p2p.ledger.rules.files import check_files, record_logs, record_outputs
from iceprod_p2p.ledger.rules.statistics import check_statistics, count_statistics
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.states import NODE_FAULTS, TaskEvent

_encode: Final = msgspec.msgpack.Encoder(order="deterministic").encode
DONE: Final = Applied()


def queue_tasks(t: Tables, command: QueueTasks, asked: Asked) -> Outcome:
    """Note that pilots for these claims stand in the site's queue; ones that moved on are named in the notes."""
    site = find_site(t, command.site)
    if isinstance(site, Refused):
        return site
    notes: list[str] = []
    for ref in command.refs:
        held = _held_by(t, ref, site.number, command.site)
        if isinstance(held, str):
            notes.append(held)
            continue
        place, record = held
        if record.code == r.CLAIMED:
            move(t, place, record, TaskEvent.QUEUE, timer_ms=t.now_ms + QUEUED_LIMIT_MS)
        elif record.code != r.QUEUED:
            notes.append(f"{name_of(ref)} is {record.state}")
    return Applied(tuple(notes))


def _held_by(t: Tables, ref: TaskRef, site: int, site_name: str) -> tuple[Place, r.TaskRecord] | str:
    """Return a task that the site holds at this attempt, or why it does not."""
    place = find_attempt(t, ref)
    if isinstance(place, Refused):
        return place.detail
    record = read_task(t, place)
    if record.attempt != ref.attempt:
        return stale(ref, record).detail
    if record.code not in HELD or record.site != site:
        return f"{name_of(ref)} is {record.state}, and not held by {site_name}"
    return place, record


def start_tasks(t: Tables, command: StartTasks, asked: Asked) -> Outcome:
    """Bind passkeys of claimed attempts to pilots; the grants are those that are theirs now."""
    site = find_site(t, command.site)
    if isinstance(site, Refused):
        return site
    notes: list[str] = []
    grants: list[Grant] = []
    for start in command.starts:
        why = _start(t, start, site.number, command.site)
        if why:
            notes.append(why)
        else:
            place = find_attempt(t, start.ref)
            assert isinstance(place, Place)
            needs = t.requirements_of(read_task(t, place).requirements)
            grants.append(Grant(start.ref.dataset, start.ref.job, start.ref.task, start.ref.attempt, needs))
    return Applied(tuple(notes), grants=tuple(grants))


def _start(t: Tables, start: TaskStart, site: int, site_name: str) -> str:
    """Hand one attempt to a pilot; return why not, or nothing."""
    ref = start.ref
    held = _held_by(t, ref, site, site_name)
    if isinstance(held, str):
        return held
    place, record = held
    now_ms = t.now_ms
    if start.expires_ms <= now_ms:
        return f"the passkey for {name_of(ref)} has expired already"
    if host_is_shut_out(t, site, start.host):
        return f"host {start.host} failed too many tasks in a row and gets none for a while"
    key = keys.by_task(keys.RUN, ref.dataset, ref.job, ref.task)
    needs = t.requirements_of(record.requirements)
    limit_ms = now_ms + 2_000 * needs.walltime_s + PROCESSING_SLACK_MS
    started_ms, vouched_ms = now_ms, 0
    if record.code in STARTED:
        run = t.runs.get(key)
        assert run is not None
        if run.holder != start.holder:
            return f"{name_of(ref)} was handed to another pilot"
        if run.passkey_id == start.passkey_id:
            return ""
        started_ms, vouched_ms = run.started_ms, run.vouched_until_ms
        limit_ms = max(record.timer_ms, min(start.expires_ms, limit_ms))
        store(t, place, record, msgspec.structs.replace(record, timer_ms=limit_ms))
    else:
        move(t, place, record, TaskEvent.START, timer_ms=min(start.expires_ms, limit_ms))
    run = r.RunRecord(
        ref.attempt,
        start.passkey_id,
        start.key_id,
        start.holder,
        start.pilot,
        start.host,
        start.expires_ms,
        started_ms,
        vouched_ms,
    )
    t.runs.put(key, run)
    return ""


def _run_of(
    t: Tables, ref: TaskRef, place: Place, record: r.TaskRecord, holder: bytes
) -> r.RunRecord | Refused:
    """Return the passkey record of an attempt for its holder, or the refusal of anybody else."""
    if record.attempt != ref.attempt:
        return stale(ref, record)
    run = t.runs.get(keys.RUN + place.tail)
    if record.code not in STARTED or run is None:
        return Refused(Refusal.WRONG_STATE, f"task {name_of(ref)} is {record.state}: no pilot has it")
    if run.holder != holder:
        return Refused(Refusal.NOT_HOLDER, f"task {name_of(ref)} was handed to another pilot")
    if run.expires_ms <= t.now_ms:
        return Refused(Refusal.NOT_HOLDER, f"the passkey for {name_of(ref)} has expired")
    return run


def copy_task(t: Tables, command: CopyTask, asked: Asked) -> Outcome:
    """Note that the payload ended well and its outputs are on their way."""
    place = find_attempt(t, command.ref)
    if isinstance(place, Refused):
        return place
    record = read_task(t, place)
    run = _run_of(t, command.ref, place, record, command.holder)
    if isinstance(run, Refused):
        return run
    if record.code == r.PROCESSING:
        move(t, place, record, TaskEvent.COPY, timer_ms=min(run.expires_ms, t.now_ms + COPYING_LIMIT_MS))
    return DONE


def finish_task(t: Tables, command: FinishTask, asked: Asked) -> Outcome:
    """Accept a result once: statistics, files and use count from here, and the task's children may become ready."""
    ref = command.ref
    place = find_attempt(t, ref)
    if isinstance(place, Refused):
        return place
    record = read_task(t, place)
    digest = sha256(_encode((command.statistics, command.files, command.usage))).digest()[:16]
    if record.code == r.COMPLETE and record.attempt == ref.attempt:
        return _finished_before(ref, record, digest)
    run = _run_of(t, ref, place, record, command.holder)
    if isinstance(run, Refused):
        return run
    site = find_site(t, command.site)
    if isinstance(site, Refused):
        return site
    refusal = check_statistics(command.statistics) or check_files(t, place, command.files)
    if refusal is not None:
        return refusal
    shared = record_outputs(t, place, ref.attempt, command.files, site.number)
    note = count_statistics(t, place, command.statistics)
    done = r.Done(digest, run.started_ms, _host_number(t, run.host), command.usage, shared)
    _note_use(t, place, record, command.usage.wall_ms)
    praise_host(t, record.site, run.host)
    if record.failures or record.losses:
        t.faults.delete(keys.FAULT + place.tail)
    move(t, place, record, TaskEvent.FINISH, done=done)
    return Applied((note,)) if note else DONE


def _finished_before(ref: TaskRef, record: r.TaskRecord, digest: bytes) -> Outcome:
    if record.done is not None and record.done.digest == digest:
        return Applied(("finished before with the same result",))
    return Refused(Refusal.CONFLICT, f"task {name_of(ref)} finished before with another result")


def _host_number(t: Tables, host: str) -> int:
    """Return the number that stands for a host's name in finished tasks; 0 for no name."""
    if not host:
        return 0
    name = host.encode()[: keys.NAME_BYTES_MAX]
    key = keys.HOST + name
    number = t.numbers.get(key)
    if number is None:
        cluster = t.cluster
        assert cluster is not None
        cluster.hosts += 1
        t.save_cluster(cluster)
        number = cluster.hosts
        t.numbers.put(key, number)
        t.kv.put(keys.by_index(keys.HOST_NAME, number), name)
    return number


def _note_use(t: Tables, place: Place, record: r.TaskRecord, wall_ms: int) -> None:
    cpus = t.requirements_of(record.requirements).cpus
    shift_share(t, place.ds, used_cpu_s=(min(wall_ms, 10**12) * cpus + 999) // 1_000)


def fail_task(t: Tables, command: FailTask, asked: Asked) -> Outcome:
    """Note that an attempt ended badly; whose fault it was decides whether an attempt is used up."""
    ref = command.ref
    place = find_attempt(t, ref)
    if isinstance(place, Refused):
        return place
    record = read_task(t, place)
    digest = sha256(
        _encode((ref, command.reason, command.message, command.exit_code, command.files))
    ).digest()[:16]
    if record.attempt != ref.attempt:
        before = t.faults.get(keys.by_task(keys.FAULT, ref.dataset, ref.job, ref.task))
        if before is not None and before.ref == ref and before.digest == digest:
            return Applied(("failed before with the same report",))
        return stale(ref, record)
    site = find_site(t, command.site)
    if isinstance(site, Refused):
        return site
    if command.holder:
        run = _run_of(t, ref, place, record, command.holder)
        if isinstance(run, Refused):
            return run
    elif record.code not in HELD:
        return Refused(Refusal.WRONG_STATE, f"task {name_of(ref)} is {record.state}: no site holds it")
    elif record.site != site.number:
        return Refused(
            Refusal.WRONG_SITE,
            f"task {name_of(ref)} is held by {t.site_name(record.site)}, not {command.site}",
        )
    else:
        run = t.runs.get(keys.by_task(keys.RUN, ref.dataset, ref.job, ref.task)) or r.RunRecord(
            ref.attempt, b"", "", b"", "", "", 0, 0
        )
    if any(entry.kind != "log" for entry in command.files):
        return Refused(Refusal.MALFORMED, "a failed attempt has no outputs: only files of the kind log")
    refusal = check_files(t, place, command.files)
    if refusal is not None:
        return refusal
    record_logs(t, place, ref.attempt, command.files)
    _note_use(t, place, record, command.usage.wall_ms)
    fault = r.FaultRecord(
        ref,
        digest,
        command.reason,
        command.message,
        command.exit_code,
        command.site,
        run.pilot,
        run.host,
        t.now_ms,
        command.usage,
    )
    if command.reason in NODE_FAULTS:
        lose(t, place, record, fault)
    else:
        fail(t, place, record, fault)
    return DONE


def give_back(t: Tables, command: GiveBack, asked: Asked) -> Outcome:
    """Take claims back that the site will not run; nobody is blamed, and the attempt is over."""
    site = find_site(t, command.site)
    if isinstance(site, Refused):
        return site
    notes: list[str] = []
    for ref in command.refs:
        held = _held_by(t, ref, site.number, command.site)
        if isinstance(held, str):
            notes.append(held)
            continue
        move(t, *held, TaskEvent.GIVE_BACK)
    return Applied(tuple(notes))
