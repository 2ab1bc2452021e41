"""Claims: a site asks for tasks that fit what it has free, and the ledger grants the best ones.

Sites decide on a view that may be old; what they get is decided here, when the claim is applied, by
everything that was applied before.  Fewer grants than asked, or none, is normal.  A claim reads what it
grants and one page more, however many tasks wait, fit or are done.
"""

from __future__ import annotations

import heapq

from msgspec.structs import replace

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import Claim
from iceprod_p2p.ledger.limits import (
    CLAIM_CANDIDATES,
    CLAIM_DATASETS,
    CLAIMED_LIMIT_MS,
    GRANTS_MAX,
    OFFER_CLASSES_MAX,
    SITES_MAX,
    TAKEOVER_AGE_MS,
    TAKEOVER_PAGE,
)
from iceprod_p2p.ledger.moves import Place, move, read_job, read_task
from iceprod_p2p.ledger.ordering import Rank, rank
from iceprod_p2p.ledger.outcome import Applied, Grant, Outcome, Refusal, Refused
from iceprod_p2p.ledger.rules.asked import Asked, find_site
from iceprod_p2p.ledger.rules.candidates import Candidate
from iceprod_p2p.ledger.rules.sites import renew_site
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.resources import Offer, Requirements
from iceprod_p2p.model.states import SiteState, TaskEvent


class Slots:
    """What a site offers and has not been given yet."""

    __slots__ = ("left", "offers")

    def __init__(self, offers: tuple[Offer, ...]) -> None:
        # Slots without GPUs first, so that tasks that need none leave those with GPUs free.
        self.offers = sorted(offers, key=_narrowest_first) if len(offers) > 1 else list(offers)
        self.left = [offer.slots for offer in self.offers]

    def fitting(self, needs: Requirements) -> list[int]:
        """Return which offers have a free slot for a task with these requirements."""
        return [i for i, offer in enumerate(self.offers) if self.left[i] > 0 and offer.fits(needs)]

    def free(self, fitting: list[int]) -> int | None:
        """Return the first of these offers that has a slot left."""
        for i in fitting:
            if self.left[i] > 0:
                return i
        return None


def _narrowest_first(offer: Offer) -> tuple[int, int, str]:
    return offer.gpus, offer.memory_mib, offer.resource_class


def claim(t: Tables, command: Claim, asked: Asked) -> Outcome:
    """Grant up to `limit` tasks that fit the offers; the site holds them from now on."""
    site = find_site(t, command.site)
    if isinstance(site, Refused):
        return site
    if site.state is not SiteState.ACTIVE:
        return Refused(Refusal.WRONG_STATE, f"site {command.site} is {site.state}: it gets no new tasks")
    known = _offers_known(site, command.offers)
    site = renew_site(t, command.site, site, **({} if known == site.offers else {"offers": known}))
    limit = min(command.limit, GRANTS_MAX, t.budget)
    grants: list[Grant] = []
    if limit > 0:
        slots = Slots(command.offers)
        classes = [(number, t.requirements_of(number)) for number in t.ready_classes()]
        for with_gpus in (True, False):  # Slots with GPUs are for tasks that need them, first of all.
            fitting = [(number, needs) for number, needs in classes if (needs.gpus > 0) is with_gpus]
            if fitting:
                found = _candidates(t, command.site, site.number, slots, fitting, limit=limit)
                _grant(t, site.number, slots, found, grants, limit)
        if not grants:
            _take_over(t, command.site, site.number, slots, grants, limit)
    t.budget -= len(grants)
    return Applied(grants=tuple(grants))


def _offers_known(site: r.SiteRecord, offers: tuple[Offer, ...]) -> dict[str, Offer]:
    """Return what a site can run at all, by class: a class without a free slot now is not offered, but kept."""
    known = {**site.offers, **{offer.resource_class: replace(offer, slots=0) for offer in offers}}
    while len(known) > OFFER_CLASSES_MAX:  # The class offered longest ago by order of first mention.
        del known[next(iter(known))]
    return known


def _candidates(
    t: Tables,
    site_name: str,
    site: int,
    slots: Slots,
    classes: list[tuple[int, Requirements]],
    *,
    limit: int,
) -> list[Candidate]:
    """Return the datasets that have ready tasks for this site, by class and priority."""
    found: list[Candidate] = []
    looks = CLAIM_DATASETS
    for requirements, needs in classes:
        fitting = slots.fitting(needs)
        if not fitting:
            continue
        for number in t.active_datasets(requirements)[:looks]:
            looks -= 1
            ds = t.dataset(number)
            if ds is not None and may_run_at(ds.record, site_name):
                found.append(Candidate(t, ds, requirements, fitting, site=site, limit=limit))
            if len(found) >= CLAIM_CANDIDATES:
                return found
    return found


def may_run_at(ds: r.DatasetRecord, site: str) -> bool:
    """Return whether a dataset's tasks may run at a site."""
    return site not in ds.sites_excluded and (not ds.sites_allowed or site in ds.sites_allowed)


def _grant(
    t: Tables, site: int, slots: Slots, candidates: list[Candidate], grants: list[Grant], limit: int
) -> None:
    """Grant tasks in order until slots, tasks or the limit are used up."""
    if len(candidates) == 1:
        _grant_of(t, site, slots, candidates[0], grants, limit)
        return
    heap: list[tuple[Rank, int]] = [(_rank(t, found), i) for i, found in enumerate(candidates)]
    heapq.heapify(heap)
    while heap and len(grants) < limit:
        stood, i = heap[0]
        candidate = candidates[i]
        slot = slots.free(candidate.fitting)
        if slot is None:
            heapq.heappop(heap)
            continue
        candidate.look()
        stands = _rank(t, candidate)
        if stands != stood:  # Another grant, or the look, changed its place.
            heapq.heapreplace(heap, (stands, i))
            continue
        taken = candidate.take()
        if taken is None:
            heapq.heappop(heap)
            continue
        place, record = taken
        slots.left[slot] -= 1
        grants.append(_hold(t, place, record, site))


def _grant_of(
    t: Tables, site: int, slots: Slots, candidate: Candidate, grants: list[Grant], limit: int
) -> None:
    """Grant tasks of the only candidate: nothing needs to be weighed."""
    while len(grants) < limit:
        slot = slots.free(candidate.fitting)
        taken = candidate.take() if slot is not None else None
        if slot is None or taken is None:
            return
        slots.left[slot] -= 1
        grants.append(_hold(t, *taken, site))


def _rank(t: Tables, candidate: Candidate) -> Rank:
    return rank(t, candidate.ds, candidate.requirements, new_job=candidate.begins_job())


def _hold(t: Tables, place: Place, record: r.TaskRecord, site: int, *, flags: int = 0) -> Grant:
    held = move(
        t,
        place,
        record,
        TaskEvent.CLAIM,
        site=site,
        timer_ms=t.now_ms + CLAIMED_LIMIT_MS,
        flags=record.flags | flags,
    )
    needs = t.requirements_of(held.requirements)
    return Grant(place.ds.number, place.number, place.task, held.attempt, needs)


def _take_over(t: Tables, site_name: str, site: int, slots: Slots, grants: list[Grant], limit: int) -> None:
    """Give an idle site what others claimed long ago and have not started; each task moves so once."""
    looks = TAKEOVER_PAGE
    for number in range(1, min(_sites(t), SITES_MAX) + 1):
        if number == site or not _has_unstarted(t, number):
            continue
        page = t.scan_keys(keys.by_number(keys.HELD, number) + b"\x00", looks)
        for key, _ in page:
            looks -= 1
            taken = _may_take_over(t, key, site_name)
            if taken is None:
                continue
            place, record = taken
            slot = slots.free(slots.fitting(t.requirements_of(record.requirements)))
            if slot is None:
                continue
            slots.left[slot] -= 1
            ready = move(t, place, record, TaskEvent.GIVE_BACK)
            grants.append(_hold(t, place, ready, site, flags=r.TAKEN_OVER))
            if len(grants) >= limit:
                return
        if looks <= 0:
            return


def _sites(t: Tables) -> int:
    return t.cluster.sites if t.cluster is not None else 0


def _has_unstarted(t: Tables, site: int) -> bool:
    tally = t.site_tally(site)
    return tally.claimed + tally.queued > 0


def _may_take_over(t: Tables, key: bytes, site_name: str) -> tuple[Place, r.TaskRecord] | None:
    dataset, number, task = keys.task_of_tail(key)
    ds = t.dataset(dataset)
    if ds is None or not may_run_at(ds.record, site_name):
        return None
    place = Place(ds, number, read_job(t, ds, number), task)
    record = read_task(t, place)
    unstarted = record.code in (r.CLAIMED, r.QUEUED) and not record.flags & r.TAKEN_OVER
    return (place, record) if unstarted and record.changed_ms + TAKEOVER_AGE_MS <= t.now_ms else None
