"""Datasets: submitted in one entry whatever their size, grown, controlled as a whole, changed, forgotten."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from iceprod_p2p.base.ids import is_name
from iceprod_p2p.ledger import keys, limits
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.commands import AddJobs, ControlDataset, SetDataset, SubmitDataset, Verb
from iceprod_p2p.ledger.counting import publish_ready, retract_ready, shift_share
from iceprod_p2p.ledger.dag import encode_shapes
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refusal, Refused
from iceprod_p2p.ledger.rollup import dataset_state
from iceprod_p2p.ledger.rules.asked import Asked, at_least, find_dataset, may_change, person_of, role_of
from iceprod_p2p.ledger.rules.blobs import use_dataset_blobs
from iceprod_p2p.ledger.rules.classes import normal, number_of_requirements
from iceprod_p2p.ledger.rules.closing import add_closing, delete_closing, why_futile
from iceprod_p2p.ledger.rules.mass import change_all, count_untouched, delete_all, reset_all, truncate_all
from iceprod_p2p.ledger.tables import Dataset, Tables
from iceprod_p2p.ledger.transitions import DATASET_VERBS
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.person import Role


def submit(t: Tables, command: SubmitDataset, asked: Asked) -> Outcome:
    """Create a dataset; the outcome's number is its own. Costs a few hundred bytes, whatever the number of jobs."""
    refusal = _check_submission(t, command, asked)
    if refusal is not None:
        return refusal
    shapes, closing_shapes = _normal(command.shapes), _normal(command.closing)
    requirements, closing_requirements = _classes(t, shapes), _classes(t, closing_shapes)
    if len(requirements) < len(shapes) or len(closing_requirements) < len(closing_shapes):
        return Refused(
            Refusal.LIMIT, f"the cluster knows {limits.REQUIREMENTS_MAX} kinds of requirements already"
        )
    cluster = t.cluster
    assert cluster is not None
    cluster.datasets += 1
    t.save_cluster(cluster)
    record = r.DatasetRecord(
        number=cluster.datasets,
        steering_sha256=command.steering_sha256,
        seed=command.seed,
        owner=command.owner,
        group=command.group,
        alias=command.alias,
        description=command.description,
        category=command.category,
        priority=command.priority,
        sites_allowed=command.sites_allowed,
        sites_excluded=command.sites_excluded,
        attempts_max=command.attempts_max,
        retry_pause_ms=command.retry_pause_ms,
        submitted_ms=t.now_ms,
        jobs=command.jobs,
        requirements=requirements,
    )
    roots = sum(1 for shape in shapes if not shape.parents)
    counts = r.DatasetCounts([0] * 16, [0] * roots)
    ds = t.hold_dataset(record, encode_shapes(shapes), counts)
    if command.alias:
        t.numbers.put(keys.by_name(keys.ALIAS, command.alias), record.number)
    count_untouched(t, ds, command.jobs)
    digests = dict.fromkeys((command.steering_sha256, *command.blobs))
    use_dataset_blobs(t, record.number, tuple(bytes.fromhex(digest) for digest in digests))
    notes = [f"dataset {record.number} {dataset_state(ds.record, ds.counts)}"]
    if closing_shapes:
        number = add_closing(t, ds, closing_shapes, closing_requirements, command)
        notes.append(f"dataset {number} follows it")
    return Applied(tuple(notes), number=record.number)


def _normal(shapes: Sequence[TaskShape]) -> tuple[TaskShape, ...]:
    return tuple(msgspec.structs.replace(shape, requirements=normal(shape.requirements)) for shape in shapes)


def _classes(t: Tables, shapes: Sequence[TaskShape]) -> tuple[int, ...]:
    """Return the class of each shape's requirements; fewer than shapes when the cluster can know no more."""
    classes = (number_of_requirements(t, shape.requirements) for shape in shapes)
    return tuple(number for number in classes if number is not None)


def _check_submission(t: Tables, command: SubmitDataset, asked: Asked) -> Refused | None:
    if t.cluster is None:
        return Refused(Refusal.WRONG_STATE, "the cluster has not been founded")
    return (
        _check_submitter(t, command, asked)
        or _check_shapes(command.shapes)
        or (_check_shapes(command.closing) if command.closing else None)
        or _check_alias(t, command.alias)
        or _check_priority(command.priority)
        or _check_sites(t, command.sites_allowed, command.sites_excluded)
        or _check_attempts(command.attempts_max)
        or _check_numbers(command)
    )


def _check_submitter(t: Tables, command: SubmitDataset, asked: Asked) -> Refused | None:
    refusal = at_least(t, asked, Role.PRODUCTION)
    if refusal is not None:
        return refusal
    person = person_of(asked.actor)
    role, groups = role_of(t, person) if person else (None, ())
    if role is Role.PRODUCTION and command.owner != person:
        return Refused(
            Refusal.NOT_ALLOWED, f"{person} may not submit for {command.owner}: the role operator is needed"
        )
    if role is Role.PRODUCTION and command.group and command.group not in groups:
        return Refused(Refusal.NOT_ALLOWED, f"{person} is not in the group {command.group}")
    return None if command.owner else Refused(Refusal.MALFORMED, "a dataset needs an owner")


def _check_numbers(command: SubmitDataset) -> Refused | None:
    if command.jobs > limits.DATASET_JOBS_MAX:
        return Refused(Refusal.LIMIT, f"at most {limits.DATASET_JOBS_MAX} jobs may be in one dataset")
    if len(command.blobs) >= limits.DATASET_BLOBS_MAX:
        return Refused(Refusal.LIMIT, f"a document names at most {limits.DATASET_BLOBS_MAX} blobs")
    if command.retry_pause_ms > limits.RETRY_PAUSE_MAX_MS:
        return Refused(Refusal.LIMIT, f"a retry pause is at most {limits.RETRY_PAUSE_MAX_MS} ms")
    return None


def _check_attempts(attempts_max: int) -> Refused | None:
    if not 1 <= attempts_max <= limits.ATTEMPTS_MAX:
        return Refused(
            Refusal.LIMIT, f"a task may have 1 to {limits.ATTEMPTS_MAX} attempts, not {attempts_max}"
        )
    return None


def _check_priority(priority: int) -> Refused | None:
    if priority > limits.PRIORITY_MAX:
        return Refused(Refusal.LIMIT, f"a priority is 0 to {limits.PRIORITY_MAX}, not {priority}")
    return None


def _check_shapes(shapes: Sequence[TaskShape]) -> Refused | None:
    if not 1 <= len(shapes) <= limits.DATASET_TASKS_MAX:
        return Refused(Refusal.LIMIT, f"a job has 1 to {limits.DATASET_TASKS_MAX} tasks, not {len(shapes)}")
    names: set[str] = set()
    for index, shape in enumerate(shapes):
        if not shape.name or shape.name in names:
            return Refused(Refusal.MALFORMED, f"task {index} needs a name that no other task has")
        names.add(shape.name)
        if any(parent >= index for parent in shape.parents) or len(set(shape.parents)) < len(shape.parents):
            return Refused(
                Refusal.MALFORMED, f"task {shape.name!r} may depend on earlier tasks only, once on each"
            )
        if shape.requirements.cpus < 1:
            return Refused(Refusal.MALFORMED, f"task {shape.name!r} needs at least one cpu")
    return None


def _check_alias(t: Tables, alias: str) -> Refused | None:
    if not alias:
        return None
    if not is_name(alias) or alias.isdigit():
        return Refused(
            Refusal.MALFORMED, f"{alias!r} is no alias: use letters, digits, '-' and '_', not a mere number"
        )
    if t.numbers.get(keys.by_name(keys.ALIAS, alias)) is not None:
        return Refused(Refusal.EXISTS, f"another dataset has the alias {alias!r}")
    return None


def _check_sites(t: Tables, *lists: Sequence[str]) -> Refused | None:
    for names in lists:
        if len(names) > limits.SITES_LISTED_MAX:
            return Refused(Refusal.LIMIT, f"at most {limits.SITES_LISTED_MAX} sites may be listed")
        for name in names:
            if t.site(name) is None:
                return Refused(Refusal.NOT_FOUND, f"there is no site {name!r}")
    return None


def add_jobs(t: Tables, command: AddJobs, asked: Asked) -> Outcome:
    """Let a dataset grow; the new jobs begin where a new dataset's would."""
    ds = find_dataset(t, command.dataset)
    if isinstance(ds, Refused):
        return ds
    refusal = may_change(t, asked, ds.record)
    if refusal is not None:
        return refusal
    if ds.record.follows:
        return Refused(Refusal.WRONG_STATE, f"dataset {ds.number} follows another: it has one job")
    if ds.record.untouched == r.ABORTED or ds.record.truncated_at >= 0:
        return Refused(Refusal.WRONG_STATE, f"dataset {ds.number} was aborted or truncated: reset it first")
    jobs = ds.record.jobs + command.jobs
    if jobs > limits.DATASET_JOBS_MAX:
        return Refused(Refusal.LIMIT, f"at most {limits.DATASET_JOBS_MAX} jobs may be in one dataset")
    ds.replace(jobs=jobs)
    count_untouched(t, ds, command.jobs)
    return Applied((f"dataset {ds.number} has {jobs} jobs",), number=ds.number)


def control_dataset(t: Tables, command: ControlDataset, asked: Asked) -> Outcome:
    """Apply a verb to a whole dataset at once; its records follow in pages."""
    ds = find_dataset(t, command.dataset)
    if isinstance(ds, Refused):
        return ds
    refusal = may_change(t, asked, ds.record)
    if refusal is not None:
        return refusal
    state = dataset_state(ds.record, ds.counts)
    if ds.record.futile and command.verb is not Verb.DELETE:
        return Refused(Refusal.WRONG_STATE, why_futile(t, ds))
    if command.verb not in DATASET_VERBS[state]:
        return Refused(Refusal.WRONG_STATE, f"dataset {ds.number} is {state}: {command.verb} does not apply")
    if len(ds.record.events) >= limits.PENDING_EVENTS_MAX and command.verb not in (Verb.RESET, Verb.DELETE):
        return Refused(Refusal.BUSY, f"earlier commands for dataset {ds.number} are still being carried out")
    _carry_out(t, ds, command.verb)
    if command.verb is Verb.DELETE:
        return Applied((f"dataset {ds.number} deleted",), number=ds.number)
    return Applied((f"dataset {ds.number} {dataset_state(ds.record, ds.counts)}",), number=ds.number)


def _carry_out(t: Tables, ds: Dataset, verb: Verb) -> None:
    if verb is Verb.DELETE:
        delete_closing(t, ds)
        delete_all(t, ds)
    elif verb is Verb.RESET:
        reset_all(t, ds)
    elif verb is Verb.TRUNCATE:
        if ds.record.truncated_at < 0:
            truncate_all(t, ds)
    else:
        change_all(t, ds, verb)


def set_dataset(t: Tables, command: SetDataset, asked: Asked) -> Outcome:
    """Change what may change after submission."""
    ds = find_dataset(t, command.dataset)
    if isinstance(ds, Refused):
        return ds
    alias = command.alias if command.alias != ds.record.alias else None
    refusal = (
        may_change(t, asked, ds.record)
        or _check_alias(t, alias or "")
        or _check_priority(command.priority or 0)
        or _check_sites(t, command.sites_allowed or (), command.sites_excluded or ())
        or _check_attempts(1 if command.attempts_max is None else command.attempts_max)
        or _check_heir(t, asked, ds, command)
    )
    if refusal is not None:
        return refusal
    if alias is not None:
        if ds.record.alias:
            t.numbers.delete(keys.by_name(keys.ALIAS, ds.record.alias))
        if alias:
            t.numbers.put(keys.by_name(keys.ALIAS, alias), ds.number)
    changes = {
        field: value
        for field, value in (
            ("sites_allowed", command.sites_allowed),
            ("sites_excluded", command.sites_excluded),
            ("attempts_max", command.attempts_max),
            ("alias", command.alias),
            ("description", command.description),
        )
        if value is not None
    }
    if changes:
        ds.replace(**changes)
    if command.owner is not None or command.group is not None:
        _give(t, ds, command)
    if command.priority is not None and command.priority != ds.record.priority:
        ready = retract_ready(t, ds)  # The index of ready tasks is sorted by priority.
        ds.replace(priority=command.priority)
        publish_ready(t, ds, ready)
    return Applied((f"dataset {ds.number} changed",), number=ds.number)


def _check_heir(t: Tables, asked: Asked, ds: Dataset, command: SetDataset) -> Refused | None:
    """Its owner gives a dataset away, or an operator; to a person that the ledger knows, and to a group of theirs."""
    if command.owner is None and command.group is None:
        return None
    person = person_of(asked.actor)
    role, groups = role_of(t, person) if person else (None, ())
    if role is Role.PRODUCTION:
        if ds.record.owner != person:
            return Refused(
                Refusal.NOT_ALLOWED,
                f"dataset {ds.number} belongs to {ds.record.owner}: the role operator is needed",
            )
        if command.group and command.group not in groups:
            return Refused(Refusal.NOT_ALLOWED, f"{person} is not in group {command.group}")
    if command.owner is not None and t.people.get(keys.by_name(keys.PERSON, command.owner)) is None:
        return Refused(Refusal.NOT_FOUND, f"there is no person {command.owner!r} to own it")
    return None


def _give(t: Tables, ds: Dataset, command: SetDataset) -> None:
    """Let it belong to another person or group, and to their share of the sites."""
    held_cpus = ds.counts.held_cpus
    shift_share(t, ds, held_cpus=-held_cpus)
    owner = ds.record.owner if command.owner is None else command.owner
    ds.replace(owner=owner, group=ds.record.group if command.group is None else command.group)
    shift_share(t, ds, held_cpus=held_cpus)
