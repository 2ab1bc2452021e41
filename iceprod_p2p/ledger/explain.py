"""Why a task stands where it stands, in one sentence, and what to type next."""

from __future__ import annotations

from iceprod_p2p.ledger import keys, limits
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.moves import HELD, Place
from iceprod_p2p.ledger.reading import see_task
from iceprod_p2p.ledger.rows import Explanation
from iceprod_p2p.ledger.rules.claims import may_run_at
from iceprod_p2p.ledger.rules.closing import why_futile
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.states import SiteState, TaskState

LIST_MAX = 5  # Names in a sentence.


def explain_place(t: Tables, place: Place, record: r.TaskRecord) -> Explanation:
    """Return the explanation of one task as it is now."""
    name = f"Task {place.ds.number}.{place.number}.{place.task} ({place.ds.dag.shapes[place.task].name})"
    job = f"{place.ds.number}.{place.number}"
    if record.code == r.WAITING:
        return Explanation(f"{name} waits for {_unfinished_parents(t, place)}.", _look_at_failed(t, place))
    if record.code == r.READY:
        return _explain_ready(t, place, record, name)
    if record.code in HELD:
        return _explain_held(t, record, name)
    if record.code == r.COMPLETE:
        return Explanation(f"{name} was completed by {t.site_name(record.site)}.", "")
    if record.code == r.SUSPENDED and place.ds.record.gated:
        follows = place.ds.record.follows
        return Explanation(
            f"{name} waits until dataset {follows} is complete.", f"iceprod dataset show {follows}"
        )
    if record.code == r.SUSPENDED:
        return Explanation(f"{name} is suspended.", f"iceprod job resume {job}")
    if record.code == r.ABORTED:
        if place.ds.record.futile:
            follows = place.ds.record.follows
            return Explanation(
                f"{name} does not run: {why_futile(t, place.ds)}.", f"iceprod dataset show {follows}"
            )
        if place.ds.record.untouched == r.ABORTED:
            return Explanation(
                f"{name} is aborted with its dataset.", f"iceprod dataset reset {place.ds.number}"
            )
        return Explanation(f"{name} is aborted.", f"iceprod job reset {job}")
    return _explain_fault(t, place, record, name, job)


def _unfinished_parents(t: Tables, place: Place) -> str:
    waits = (f"{place.ds.dag.shapes[p].name} ({see_task(t, place.at(p)).state})" for p in _waited_for(place))
    return _listed(list(waits))


def _waited_for(place: Place) -> list[int]:
    """Return the tasks of the job that this one waits for, by number."""
    above, complete = place.ds.dag.parents[place.task], place.job.complete
    return [parent for parent in range(place.task) if above >> parent & 1 and not complete >> parent & 1]


def _look_at_failed(t: Tables, place: Place) -> str:
    """Return what explains a failure that stands in the way, empty when nothing failed."""
    for parent in _waited_for(place):
        if see_task(t, place.at(parent)).state is TaskState.FAILED:
            return f"iceprod task explain {place.ds.number}.{place.number}.{parent}"
    return ""


def _listed(words: list[str]) -> str:
    more = f" and {len(words) - LIST_MAX} more" if len(words) > LIST_MAX else ""
    return ", ".join(words[:LIST_MAX]) + more


def _explain_ready(t: Tables, place: Place, record: r.TaskRecord, name: str) -> Explanation:
    ds = place.ds.record
    able, others = [], []
    for key, site in t.sites.under(keys.SITE, limits.SITES_MAX):
        site_name = key[1:].decode()
        if not may_run_at(ds, site_name):
            others.append(f"{site_name} (not allowed for this dataset)")
        elif site.state is not SiteState.ACTIVE:
            others.append(f"{site_name} ({site.state})")
        elif site.alive_until_ms <= t.now_ms:
            others.append(f"{site_name} (silent)")
        else:
            able.append(site_name)
    needs = t.requirements_of(record.requirements)
    wants = f"{needs.cpus} cpus, {needs.gpus} gpus, {needs.memory_mib} MiB, {needs.walltime_s} s"
    if needs.attributes:
        wants += f", {' '.join(needs.attributes)}"
    if not able:
        return Explanation(
            f"{name} is ready, but no site can take it: {_listed(others) or 'there are none'}.",
            "iceprod site list",
        )
    if record.home and record.home_until_ms > t.now_ms:
        return Explanation(
            f"{name} is ready and kept for {t.site_name(record.home)}, where its inputs are.", ""
        )
    return Explanation(
        f"{name} is ready; {_listed(able)} may claim it once a slot with {wants} is free.",
        "iceprod site list",
    )


def _explain_held(t: Tables, record: r.TaskRecord, name: str) -> Explanation:
    site_name = t.site_name(record.site)
    site = t.site(site_name)
    if site is not None and site.alive_until_ms <= t.now_ms:
        return Explanation(
            f"{name} is {record.state} at {site_name}, which has gone silent: it will be taken back soon.", ""
        )
    since_s = (t.now_ms - record.changed_ms) // 1_000
    return Explanation(f"{name} is {record.state} at {site_name} for {since_s} s.", "")


def _explain_fault(t: Tables, place: Place, record: r.TaskRecord, name: str, job: str) -> Explanation:
    fault = t.faults.get(keys.by_task(keys.FAULT, place.ds.number, place.number, place.task))
    reason, where, last = "an unknown reason", "", ""
    if fault is not None:
        reason = str(fault.reason)
        where = f" at {fault.site}" + (f" on {fault.host}" if fault.host else "")
        lines = fault.message.strip().splitlines()
        last = f": {lines[-1][:200]}" if lines else ""
    if record.code == r.ERROR:
        in_s = max(record.timer_ms - t.now_ms, 0) // 1_000
        return Explanation(f"{name} failed for {reason}{where}{last}; it is tried again in {in_s} s.", "")
    tries = record.failures + record.losses
    return Explanation(
        f"{name} failed {tries} {'time' if tries == 1 else 'times'}, last for {reason}{where}{last}.",
        f"iceprod task logs {place.ds.number}.{place.number}.{place.task}; then iceprod job reset {job}",
    )
