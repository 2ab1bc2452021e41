"""Who asks and when, and the first questions that many rules put."""

from __future__ import annotations

from typing import NamedTuple

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import TaskRef
from iceprod_p2p.ledger.moves import Place, read_job
from iceprod_p2p.ledger.outcome import Refusal, Refused
from iceprod_p2p.ledger.tables import Dataset, Tables
from iceprod_p2p.model.person import ROLE_RANK, Role
from iceprod_p2p.model.states import SiteState


class Asked(NamedTuple):
    """What travels beside a command: who asks, at which ledger time, in which entry of which term."""

    actor: str
    made_at_ms: int
    entry: int
    term: int


def person_of(actor: str) -> str:
    """Return the name of the person who asks; empty when a node or pilot does."""
    return actor[7:] if actor.startswith("person:") else ""


def find_dataset(t: Tables, number: int) -> Dataset | Refused:
    """Return a dataset in hand, or the refusal."""
    ds = t.dataset(number)
    return ds if ds is not None else Refused(Refusal.NOT_FOUND, f"there is no dataset {number}")


def find_place(t: Tables, dataset: int, job: int, task: int) -> Place | Refused:
    """Return a task's place, or the refusal that names the part that does not exist."""
    ds = t.dataset(dataset)
    if ds is None:
        return Refused(Refusal.NOT_FOUND, f"there is no dataset {dataset}")
    if job >= ds.record.jobs:
        return Refused(Refusal.NOT_FOUND, f"dataset {dataset} has no job {job}: it has {ds.record.jobs}")
    if task >= len(ds.dag.shapes):
        return Refused(
            Refusal.NOT_FOUND, f"dataset {dataset} has no task {task}: its jobs have {len(ds.dag.shapes)}"
        )
    return Place(ds, job, read_job(t, ds, job), task)


def find_attempt(t: Tables, ref: TaskRef) -> Place | Refused:
    """Return the place of the task that an attempt belongs to."""
    return find_place(t, ref.dataset, ref.job, ref.task)


def find_site(t: Tables, name: str) -> r.SiteRecord | Refused:
    """Return a site that may take part: one that exists and is not banned."""
    site = t.site(name)
    if site is None:
        return Refused(Refusal.NOT_FOUND, f"there is no site {name!r}")
    if site.state is SiteState.BANNED:
        return Refused(
            Refusal.NOT_ALLOWED, f"site {name!r} is banned: {site.reason or 'no reason was given'}"
        )
    return site


def stale(ref: TaskRef, record: r.TaskRecord) -> Refused:
    """The refusal of a report by an attempt that is not the present one."""
    return Refused(
        Refusal.STALE_ATTEMPT, f"task {name_of(ref)} is at attempt {record.attempt}, not {ref.attempt}"
    )


def name_of(ref: TaskRef) -> str:
    """Return ``dataset.job.task``."""
    return f"{ref.dataset}.{ref.job}.{ref.task}"


def may_change(t: Tables, asked: Asked, ds: r.DatasetRecord) -> Refused | None:
    """Refuse a person who may not change a dataset: production works on its own or its groups', operators on all."""
    person = person_of(asked.actor)
    if not person:
        return None
    role, groups = role_of(t, person)
    if role is None or ROLE_RANK[role] < ROLE_RANK[Role.PRODUCTION]:
        return Refused(
            Refusal.NOT_ALLOWED, f"{person} may not change datasets: the role production is needed"
        )
    if role is Role.PRODUCTION and ds.owner != person and (not ds.group or ds.group not in groups):
        return Refused(
            Refusal.NOT_ALLOWED, f"dataset {ds.number} belongs to {ds.owner}: the role operator is needed"
        )
    return None


def at_least(t: Tables, asked: Asked, needed: Role) -> Refused | None:
    """Refuse a person whose role is below `needed`; nodes act on behalf of their own checks."""
    person = person_of(asked.actor)
    if not person:
        return None
    role, _ = role_of(t, person)
    if role is None or ROLE_RANK[role] < ROLE_RANK[needed]:
        return Refused(Refusal.NOT_ALLOWED, f"{person} may not do this: the role {needed} is needed")
    return None


def role_of(t: Tables, person: str) -> tuple[Role | None, tuple[str, ...]]:
    """Return a person's role and groups; no role when the person is unknown."""
    record = t.people.get(keys.by_name(keys.PERSON, person))
    return (None, ()) if record is None else (record.role, record.groups)
