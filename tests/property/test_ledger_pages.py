"""Pages of tasks and jobs under any filter are what a look at every single task gives, whatever happened before."""

from __future__ import annotations

import pytest

from iceprod_p2p.ledger import queries, query_datasets, query_tasks
from iceprod_p2p.model.states import JobState, TaskState
from tests.ledger_walk import SITES, Walk


@pytest.mark.parametrize(("seed", "wide"), [(11, 16), (12, 0), (13, 1)])
def test_a_filter_leaves_out_exactly_what_it_says(
    seed: int, wide: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = Walk(seed, checked=False)
    for number in range(240):
        walk.step()
        if number % 24 == 23:
            with monkeypatch.context() as patch:
                for module in (query_datasets, query_tasks):
                    patch.setattr(module, "LOOK_MAX", 12)  # So that pages end early, and are gone on with.
                    patch.setattr(module, "WIDE_TASKS", wide)
                compare(walk)


def compare(walk: Walk) -> None:
    kv = walk.ledger.kv
    for dataset in queries.datasets(kv).rows:
        number, jobs = dataset.dataset, range(min(dataset.jobs, 40))
        names = queries.dataset(kv, number).task_names  # type: ignore[union-attr]
        every = [queries.task(kv, number, job, name.task).row for job in jobs for name in names]  # type: ignore[union-attr]
        for state in (None, *TaskState):
            for site, name in (("", ""), (walk.random.choice(SITES), ""), ("", names[-1].name)):
                expected = [
                    row
                    for row in every
                    if state in (None, row.state) and site in ("", row.site) and name in ("", row.name)
                ]
                assert tasks(walk, number, len(jobs) - 1, state, site, name) == expected
        for wanted in (None, *JobState):
            found, at = [], -1
            while True:
                page = queries.jobs(kv, number, after=at, limit=7, state=wanted, last=len(jobs) - 1)
                found += page.rows
                if page.next_after is None:
                    break
                at = page.next_after
            singly = [queries.jobs(kv, number, after=job - 1, limit=1).rows[0] for job in jobs]
            assert found == [row for row in singly if wanted in (None, row.state)]


def tasks(walk: Walk, number: int, last: int, state: TaskState | None, site: str, name: str) -> list[object]:
    found: list[object] = []
    at = (-1, -1)
    while True:
        page = queries.tasks(
            walk.ledger.kv, number, after=at, limit=5, state=state, site=site, name=name, last=last
        )
        found += page.rows
        if page.next_after is None:
            return found
        at = page.next_after
