"""What must hold after every entry, checked by counting everything anew.

Reads the whole ledger: for tests, where it runs after every entry, and on demand (`iceprod cluster check`).  Each
violation is one sentence; none means that counters, indexes, states and results agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

import msgspec

from iceprod_p2p.ledger import keys, limits
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.counting import HELD_FIELDS
from iceprod_p2p.ledger.invariants_dataset import DatasetCheck
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.ledger.moves import HELD, STARTED
from iceprod_p2p.ledger.rules.people import counted
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.ledger.versions import AUTHORITIES_TOLD

_task: Final = msgspec.msgpack.Decoder(r.TaskRecord).decode
_page: Final = msgspec.msgpack.Decoder(r.RequestPage).decode
VIOLATIONS_MAX: Final = 1_000
# Whose entries are exactly those that the stored tasks own; of a timer that is over, an entry may be left.
INDEXES: Final = {keys.READY: "ready", keys.HELD: "held", keys.RUN: "passkey"}


def check(kv: KeyValue) -> list[str]:
    """Return every violation found, at most a thousand; empty when the ledger is sound."""
    t = Tables(kv)
    found: list[str] = []
    for violation in _violations(t):
        found.append(violation)
        if len(found) >= VIOLATIONS_MAX:
            break
    return found


def _violations(t: Tables) -> Iterator[str]:
    last = t.cluster.datasets if t.cluster is not None else 0
    checks = []
    for number in range(1, last + 1):
        ds = t.dataset(number)
        if ds is not None:
            checked = DatasetCheck(t, ds)
            checks.append(checked)
            yield from checked.violations()
    yield from check_totals(t, checks)
    yield from _check_indexes(t)
    yield from check_blobs(t)
    yield from _check_memory(t)
    yield from _check_sites(t)
    yield from check_trust(t)


def check_totals(t: Tables, checks: list[DatasetCheck]) -> Iterator[str]:
    """Compare counters that span datasets with the sum over datasets."""
    ready: Counter[int] = Counter()
    active: set[bytes] = set()
    held_cpus: Counter[bytes] = Counter()
    sites: Counter[tuple[int, str]] = Counter()
    for checked in checks:
        record = checked.ds.record
        for requirements, count in checked.ready.items():
            ready[requirements] += count
            active.add(keys.active(requirements, record.priority, record.number))
        held_cpus[keys.by_name(keys.SHARE, "g" + record.group)] += checked.held_cpus
        held_cpus[keys.by_name(keys.SHARE, "o" + record.owner)] += checked.held_cpus
        sites.update(checked.sites)
    noted = {
        keys.number_of(key, 1, 2): count for key, count in t.numbers.under(keys.REQUIREMENTS_READY, 1 << 20)
    }
    if noted != dict(ready):
        yield f"ready tasks by class are {dict(ready)}, noted as {noted}"
    entries = {key for key, _ in t.scan_keys(keys.ACTIVE, 1 << 20)}
    if entries != active:
        yield f"{len(entries ^ active)} entries of the index of active datasets are wrong"
    for key, share in t.shares.under(keys.SHARE, 1 << 20):
        if share.held_cpus != held_cpus[key]:
            yield f"share {key[1:].decode()} holds {held_cpus[key]} cpus, noted as {share.held_cpus}"
    for number in range(1, (t.cluster.sites if t.cluster is not None else 0) + 1):
        tally = t.site_tally(number)
        for field in HELD_FIELDS.values():
            if getattr(tally, field) != sites[number, field]:
                yield (
                    f"site {t.site_name(number)} has {sites[number, field]} tasks {field}, "
                    f"noted as {getattr(tally, field)}"
                )


def _check_indexes(t: Tables) -> Iterator[str]:
    """Compare the entries of each index with those that the stored records own, whether they were settled or not."""
    all_owned: dict[bytes, set[bytes]] = {table: set() for table in (*INDEXES, keys.TIMER)}
    for key, raw in t.kv.scan(keys.TASK, keys.prefix_stop(keys.TASK)):
        for entry in index_entries(key, raw):
            all_owned[entry[:1]].add(entry)
    for table, what in INDEXES.items():
        owned = all_owned[table]
        entries = {key for key, _ in t.scan_keys(table, 1 << 24)}
        if entries != owned:
            yield f"{what} index: {len(owned - entries)} entries are missing, {len(entries - owned)} are too many"
    timers = all_owned[keys.TIMER]
    entries = {key for key, _ in t.scan_keys(keys.TIMER, 1 << 24) if key[9] == keys.TASK_TIMER}
    if timers - entries:
        yield f"timers: {len(timers - entries)} are missing"


def index_entries(key: bytes, raw: bytes) -> list[bytes]:
    """Return the index entries that a stored task owns: in the indexes of `INDEXES`, and its timer."""
    record, place = _task(raw), keys.task_of(key)
    owned = []
    if record.code == r.READY:
        owned.append(keys.ready(place[0], record.requirements, place[1], place[2]))
    if record.code in HELD:
        owned.append(keys.held(record.site, record.code in STARTED, *place))
    if record.code in STARTED:
        owned.append(keys.RUN + key[1:])
    if record.timer_ms:
        owned.append(keys.task_timer(record.timer_ms, *place))
    return owned


def check_blobs(t: Tables) -> Iterator[str]:
    """Check that whoever needs a blob by the index is there; deleted datasets may still be on their way out."""
    for key, _ in t.scan_keys(keys.BLOB_USE, 1 << 20):
        user = key[33:]
        if user[:1] == keys.DATASET and t.dataset_even_deleted(keys.number_of(user, 1, 4)) is None:
            yield f"a blob is kept for dataset {keys.number_of(user, 1, 4)}, which is gone"
        if user[:1] == keys.SOFTWARE and t.software.get(user) is None:
            yield "a blob is kept for software that is gone"
    builds = t.software.under(keys.SOFTWARE, limits.SOFTWARE_MAX + 1)
    if t.cluster is not None and len(builds) != t.cluster.software:
        yield "the number of builds of software is not as noted"
    for key, record in builds:
        if t.kv.get(keys.BLOB_USE + bytes.fromhex(record.build.sha256) + key) is None:
            yield "a build of software whose blob nothing keeps"


def check_trust(t: Tables) -> Iterator[str]:
    """Check what is counted of people, and that nothing is kept of nodes and authorities that are gone."""
    if t.cluster is None or t.version < AUTHORITIES_TOLD:
        return
    if (t.cluster.administrators, t.cluster.shut_out) != counted(t):
        yield "the number of administrators, or of people who were shut out, is not as noted"
    for key, _ in t.scan_keys(keys.NODE_AUTHORITIES, limits.NODES_MAX + 1):
        if t.nodes.get(keys.NODE + key[1:]) is None:
            yield "what a node signs with is kept, but the node is gone"
    listed = {
        sha256(der).digest()
        for _, site in t.sites.under(keys.SITE, limits.SITES_MAX + 1)
        for der in site.issuing_certificates
    }
    if any(key[1:] not in listed for key, _ in t.scan_keys(keys.UNUSED_AUTHORITY, 1 << 20)):
        yield "an authority that is not listed is kept as unused"


def _check_memory(t: Tables) -> Iterator[str]:
    """Check that request memory and audit are what their counters say, and bounded."""
    size_bytes = 0
    requests: set[bytes] = set()
    for _, raw in t.kv.scan(keys.REQUEST_PAGE, keys.prefix_stop(keys.REQUEST_PAGE)):
        page_bytes, named = requests_of(raw)
        size_bytes += page_bytes
        requests.update(named)
    if size_bytes != t.progress.request_bytes:
        yield f"request memory has {size_bytes} bytes, noted as {t.progress.request_bytes}"
    kept = {key[1:] for key, _ in t.scan_keys(keys.REQUEST, 1 << 24)}
    if kept != requests:
        yield f"request memory: {len(kept ^ requests)} outcomes are in the pages or kept, but not both"
    records = len(t.scan_keys(keys.AUDIT, limits.AUDIT_MAX + 2))
    if records != t.progress.audit_next - t.progress.audit_first or records > limits.AUDIT_MAX:
        yield f"the audit has {records} records"


def requests_of(page: bytes) -> tuple[int, list[bytes]]:
    """Return what a stored page of requests counts, in bytes, and the requests that it names."""
    read = _page(page)
    return read.size_bytes, [read.request_ids[at : at + 16] for at in range(0, len(read.request_ids), 16)]


def _check_sites(t: Tables) -> Iterator[str]:
    """Check that every site that holds tasks will be looked after."""
    for key, site in t.sites.under(keys.SITE, limits.SITES_MAX + 1):
        yield from check_site(t, key[1:].decode(), site)


def check_site(t: Tables, name: str, site: r.SiteRecord) -> Iterator[str]:
    """Check that a site that holds tasks will be looked after."""
    if t.site_tally(site.number).held and not site.timer_ms:
        yield f"site {name} holds tasks and has no timer"
    if site.timer_ms:
        timer = keys.other_timer(site.timer_ms, keys.SITE_TIMER, name.encode())
        if t.kv.get(timer) is None:
            yield f"the timer of site {name} is missing"
