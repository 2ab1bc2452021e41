"""A grid job that is missing once has not vanished; its history decides first."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Self

from iceprod_p2p.grids.base import (
    Capabilities,
    Completed,
    Grid,
    GridJobStatus,
    GridRequest,
    GridState,
    Held,
    History,
    Queued,
    Removed,
    Running,
    SubmitConfig,
    SubmitResult,
    Tag,
    Vanished,
    is_final,
)
from iceprod_p2p.grids.polling import poll


class ListedGrid(Grid):
    """A batch system that lists and remembers what the test says."""

    def __init__(self, listed: dict[str, GridState], remembered: dict[str, GridState]) -> None:
        self.listed = listed
        self.remembered = remembered
        self.removed: list[str] = []

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        return cls({}, {})

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def write_config(self, request: GridRequest) -> SubmitConfig:
        return SubmitConfig(())

    def submit(self, requests: Sequence[GridRequest]) -> list[SubmitResult]:
        return []

    def status(self, grid_job_ids: Collection[str]) -> dict[str, GridState]:
        return {name: self.listed[name] for name in grid_job_ids if name in self.listed}

    def history(self, grid_job_ids: Collection[str]) -> dict[str, History]:
        return {
            name: History(name, self.remembered[name], 7) for name in grid_job_ids if name in self.remembered
        }

    def remove(self, grid_job_ids: Collection[str]) -> None:
        self.removed += grid_job_ids

    def our_jobs(self, owner: str) -> list[GridJobStatus]:
        jobs = [GridJobStatus(name, Tag.parse(name), state) for name, state in self.listed.items()]
        return [job for job in jobs if job.tag and job.tag.owner == owner]


def test_a_grid_job_vanishes_only_after_two_polls_without_it() -> None:
    grid = ListedGrid({"a": Running()}, {})
    first = poll(grid, ["a", "b"])
    assert (first.states, first.missing) == ({"a": Running()}, frozenset({"b"}))
    second = poll(grid, ["a", "b"], missing_before=first.missing)
    assert (second.states, second.missing) == ({"a": Running(), "b": Vanished()}, frozenset())


def test_a_grid_job_that_comes_back_is_no_longer_doubted() -> None:
    grid = ListedGrid({}, {})
    first = poll(grid, ["a"])
    grid.listed["a"] = Queued()
    second = poll(grid, ["a"], missing_before=first.missing)
    del grid.listed["a"]
    third = poll(grid, ["a"], missing_before=second.missing)
    assert (second.missing, third.states, third.missing) == (frozenset(), {}, frozenset({"a"}))


def test_the_history_tells_the_end_at_the_first_poll_without_it() -> None:
    seen = poll(ListedGrid({}, {"a": Completed(7)}), ["a"])
    assert seen.states == {"a": Completed(7)} and seen.ended["a"].exit_code == 7 and not seen.missing


def test_orphans_are_live_jobs_with_our_sites_tag_that_nobody_knows() -> None:
    known, orphan, ended, other = (
        str(Tag(site, name))
        for site, name in (("s", "known"), ("s", "orphan"), ("s", "ended"), ("t", "other"))
    )
    grid = ListedGrid(
        {known: Running(), orphan: Held("x"), ended: Removed(), other: Queued(), "stranger": Queued()}, {}
    )
    assert [job.grid_job_id for job in grid.clean_queue("s", [Tag("s", "known")])] == [orphan]
    assert grid.removed == [orphan]
    assert grid.find_by_tag([Tag("t", "other"), Tag("t", "none")]).keys() == {Tag("t", "other")}


def test_only_ends_are_final() -> None:
    assert [
        is_final(state) for state in (Queued(), Running(), Held(), Completed(0), Removed(), Vanished())
    ] == [
        False,
        False,
        False,
        True,
        True,
        True,
    ]
