"""The keeper and a batch system that lies, falls silent or forgets: nothing is submitted twice, nobody is
forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.grids.base import (
    Completed,
    GridJobStatus,
    Queued,
    Removed,
    Running,
    Tag,
)
from iceprod_p2p.ledger.commands import (
    ControlSite,
    FailTask,
    GiveBack,
    QueueTasks,
    SiteVerb,
    StartTasks,
    TaskStart,
)
from iceprod_p2p.ledger.limits import HOST_FAULTS_MAX, HOST_PERIOD_MS
from iceprod_p2p.model.resources import Requirements
from iceprod_p2p.model.states import FailReason
from iceprod_p2p.site.grid_jobs import GridJobPhase
from iceprod_p2p.site.keeper import FORGET_AGE_S
from iceprod_p2p.site.lost_pilots import VANISHED_SILENCE_S
from iceprod_p2p.site.pilot_files import offer_of
from tests.unit.site.one_keeper import FakeGrid, Site
from tests.unit.site.one_ledger import NOW_MS, OneLedger


@pytest.fixture
def site(tmp_path: Path) -> Site[FakeGrid]:
    ledger = OneLedger()
    ledger.found()
    ledger.submit(jobs=20)
    return Site(tmp_path, ledger, FakeGrid(), ManualClock(wall_ms=NOW_MS))


async def test_pilots_follow_the_claims_within_the_limit_and_the_ledger_hears_of_them(
    site: Site[FakeGrid],
) -> None:
    await site.keeper.step()
    assert site.grid.submissions == 0
    site.claim(20)
    for _ in range(3):
        await site.keeper.step()
        site.clock.advance(3.0)
    assert site.grid.submissions == 3
    assert site.proposed(QueueTasks)
    job = site.book.live()[0]
    secret = site.book.path(job.pilot) / "secret"
    assert secret.stat().st_mode & 0o077 == 0 and secret.read_text() not in str(job)


async def test_a_crash_between_submission_and_note_submits_nothing_twice(
    site: Site[FakeGrid], tmp_path: Path
) -> None:
    site.claim(2)
    site.grid.answers_lost = True
    await site.keeper.step()
    assert [job.phase for job in site.book] == [GridJobPhase.NOTED]
    site.grid.answers_lost = False
    restarted = site.again(tmp_path)
    for _ in range(3):
        await restarted.keeper.step()
        site.clock.advance(5.0)
    assert site.grid.submissions == 1
    assert [job.phase for job in restarted.book] == [GridJobPhase.QUEUED]


def enrols(site: Site[FakeGrid], pilot: str) -> None:
    """Write what the enrolment of a pilot writes."""
    site.book.change(
        pilot, lambda job: replace(job, phase=GridJobPhase.RUNNING, enrolled_key="ab" * 32, host="w1")
    )


async def test_a_pilot_that_enrols_while_it_is_looked_for_keeps_its_key(
    site: Site[FakeGrid], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its secret would work a second time if the record of its use were overwritten."""
    site.claim(2)
    site.grid.answers_lost = True
    await site.keeper.step()
    (noted,) = site.book
    restarted = site.again(tmp_path)
    look = site.grid.find_by_tag

    def enrols_meanwhile(tags: Collection[Tag]) -> dict[Tag, GridJobStatus]:
        enrols(restarted, noted.pilot)
        return look(tags)

    monkeypatch.setattr(site.grid, "find_by_tag", enrols_meanwhile)
    await restarted.keeper.step()
    found = restarted.book.get(noted.pilot)
    assert found is not None and found.enrolled_key == "ab" * 32
    assert (found.phase, found.grid_job_id) == (GridJobPhase.RUNNING, noted.tag)


async def test_a_pilot_that_enrolled_before_its_grid_job_was_known_is_found_and_its_end_seen(
    site: Site[FakeGrid], tmp_path: Path
) -> None:
    site.claim(2)
    site.grid.answers_lost = True
    await site.keeper.step()
    (noted,) = site.book
    restarted = site.again(tmp_path)
    enrols(restarted, noted.pilot)
    await restarted.keeper.step()
    found = restarted.book.get(noted.pilot)
    assert found is not None and found.grid_job_id and found.phase is GridJobPhase.RUNNING
    site.grid.all_are(Completed(0))
    await restarted.keeper.step()
    ended = restarted.book.get(noted.pilot)
    assert ended is not None and ended.phase is GridJobPhase.ENDED


async def test_an_enrolled_pilot_that_the_system_does_not_know_has_vanished_and_was_not_refused(
    site: Site[FakeGrid], tmp_path: Path
) -> None:
    site.claim(2)
    site.grid.answers_lost = True
    await site.keeper.step()
    (noted,) = site.book
    restarted = site.again(tmp_path)
    enrols(restarted, noted.pilot)
    site.grid.jobs.clear()
    await restarted.keeper.step()
    assert [job.phase for job in restarted.book] == [GridJobPhase.RUNNING]
    site.clock.advance(FORGET_AGE_S + 1)
    await restarted.keeper.step()
    lost = restarted.book.get(noted.pilot)
    assert lost is not None and lost.phase is GridJobPhase.VANISHED


async def test_a_job_that_was_noted_and_never_submitted_is_forgotten_and_made_anew(
    site: Site[FakeGrid], tmp_path: Path
) -> None:
    await site.keeper.step()
    site.claim(2)
    site.grid.down = True
    await site.keeper.step()
    site.grid.down = False
    restarted = site.again(tmp_path)
    await restarted.keeper.step()
    site.clock.advance(FORGET_AGE_S + 1)
    for _ in range(3):
        await restarted.keeper.step()
        site.clock.advance(1.0)
    assert site.grid.submissions == 1
    assert sorted(str(job.phase) for job in restarted.book) == ["ended", "queued"]


async def test_a_task_that_no_young_pilot_has_time_for_is_not_offered_room(site: Site[FakeGrid]) -> None:
    """A pilot has spent some of its wall time before it asks for work, and keeps some for its end."""
    (kind,) = site.keeper._config.queue.classes
    pilots_grace_s = 20
    assert pilots_grace_s < kind.walltime_s - offer_of(kind).walltime_s < 120
    assert not offer_of(kind).fits(Requirements(walltime_s=kind.walltime_s))
    brief = replace(kind, walltime_s=10)
    assert 0 < offer_of(brief).walltime_s < 10


async def test_orphans_with_our_tag_are_removed_once_at_the_start(
    site: Site[FakeGrid], tmp_path: Path
) -> None:
    site.claim(2)
    await site.keeper.step()
    (name,) = site.grid.jobs
    empty = site.again(tmp_path / "lost data directory")
    await empty.keeper.step()
    assert name not in site.grid.jobs


async def test_a_silent_batch_system_is_left_alone_for_longer_and_longer(site: Site[FakeGrid]) -> None:
    site.claim(2)
    site.grid.down = True
    asked = 0
    for _ in range(200):
        before = site.keeper._back_off.failures
        await site.keeper.step()
        asked += site.keeper._back_off.failures != before
        site.clock.advance(1.0)
    assert asked <= 5 and site.capacity.grid_down
    site.grid.down = False
    site.clock.advance(1_000.0)
    await site.keeper.step()
    assert site.grid.submissions == 1 and not site.capacity.grid_down


async def test_refused_pilots_are_not_submitted_again_and_again(site: Site[FakeGrid]) -> None:
    site.claim(2)
    site.grid.refuses = True
    for _ in range(60):
        await site.keeper.step()
        site.clock.advance(1.0)
    assert site.grid.submissions <= 4


async def test_a_draining_site_gives_its_claims_back_and_empties_its_queue(site: Site[FakeGrid]) -> None:
    site.claim(4)
    await site.keeper.step()
    site.ledger.must(ControlSite("madison", SiteVerb.DRAIN), actor="person:ada")
    site.clock.advance(1.0)
    await site.keeper.step()
    site.stock.refresh()
    assert not site.grid.jobs and not site.stock.tasks and site.proposed(GiveBack)


async def test_tasks_of_a_pilot_whose_grid_job_ended_are_reported_lost_once(site: Site[FakeGrid]) -> None:
    site.claim(1)
    await site.keeper.step()
    site.grid.all_are(Running("w1"))
    await site.keeper.step()
    (job,) = site.book.live()
    (entry,) = site.stock.tasks
    start = TaskStart(entry.ref, b"k" * 16, "madison-1", b"h" * 32, job.pilot, "w1", 10**9)
    site.ledger.must(StartTasks("madison", (start,)))
    await site.lost.step()
    assert not site.proposed(FailTask), "a pilot that lives is not lost"
    site.grid.all_are(Completed(137))
    await site.keeper.step()
    for _ in range(3):
        site.clock.advance(3.0)
        await site.lost.step()
    (fail,) = site.proposed(FailTask)
    assert isinstance(fail, FailTask) and fail.ref == entry.ref and "exit code 137" in fail.message
    ended = site.book.get(job.pilot)
    assert ended is not None and ended.settled


async def test_a_pilot_that_was_taken_away_is_no_fault_of_its_host(site: Site[FakeGrid]) -> None:
    site.claim(1)
    await site.keeper.step()
    site.grid.all_are(Running("w1"))
    await site.keeper.step()
    (job,), (entry,) = site.book.live(), site.stock.tasks
    start = TaskStart(entry.ref, b"k" * 16, "madison-1", b"h" * 32, job.pilot, "w1", 10**9)
    site.ledger.must(StartTasks("madison", (start,)))
    site.grid.all_are(Removed("cancelled by 1001"))
    await site.keeper.step()
    await site.lost.step()
    site.clock.advance(3.0)
    await site.lost.step()
    (lost,) = site.proposed(FailTask)
    assert isinstance(lost, FailTask) and lost.reason is FailReason.EVICTED


async def test_a_class_that_can_never_start_is_told_of(
    site: Site[FakeGrid], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert site.keeper.problems() == []
    monkeypatch.setattr(site.grid, "impossible", lambda request: f"{request.cores} cores are too many")
    (told,) = site.keeper.problems()
    assert "class cpu" in told and "2 cores are too many" in told
    monkeypatch.undo()
    site.grid.down = True
    site.claim(2)
    await site.keeper.step()
    assert any("no answer" in problem for problem in site.keeper.problems())
    site.grid.down = False
    site.clock.advance(100.0)
    await site.keeper.step()
    assert site.keeper.problems() == []


async def test_a_job_that_the_system_lost_sight_of_once_is_no_lost_pilot(site: Site[FakeGrid]) -> None:
    site.claim(1)
    await site.keeper.step()
    site.grid.all_are(Running("w1"))
    await site.keeper.step()
    hidden = dict(site.grid.jobs)
    site.grid.jobs.clear()
    await site.keeper.step()
    site.grid.jobs.update(hidden)
    await site.keeper.step()
    assert [job.phase for job in site.book] == [GridJobPhase.RUNNING]


async def test_a_host_where_pilots_end_unheard_is_left_out_while_another_works(site: Site[FakeGrid]) -> None:
    site.claim(20)
    await site.keeper.step()
    first, *_ = site.book.live()
    enrols(site, first.pilot)
    seen: list[tuple[str, ...]] = []
    for _ in range(4):
        site.clock.advance(5.0)
        await site.keeper.step()
        for name, (request, state) in list(site.grid.jobs.items()):
            if isinstance(state, Queued) and first.pilot not in name:
                site.grid.jobs[name] = (request, Running(host="hole"))
        site.clock.advance(1.0)
        await site.keeper.step()
        for name, (request, state) in list(site.grid.jobs.items()):
            if isinstance(state, Running) and state.host == "hole":
                site.grid.jobs[name] = (request, Completed(1))
                seen.append(request.exclude_hosts)
    assert (seen[0], seen[-1]) == ((), ("hole",))


async def test_a_host_that_the_ledger_blames_gets_no_pilots(site: Site[FakeGrid]) -> None:
    site.claim(20)
    for number in range(HOST_FAULTS_MAX):
        ref = site.stock.tasks[number].ref
        start = TaskStart(ref, b"k" * 16, "madison-1", b"h" * 32, "p-1", "hole", NOW_MS + 9_000_000)
        site.ledger.must(StartTasks("madison", (start,)))
        site.ledger.must(FailTask(ref, b"", "madison", FailReason.STORAGE, "no disk"))
    assert site.cluster.hosts_shut_out("madison") == ("hole",)
    await site.keeper.step()
    assert {request.exclude_hosts for request, _ in site.grid.jobs.values()} == {("hole",)}
    site.ledger.tick(NOW_MS + 3 * HOST_PERIOD_MS)
    assert site.cluster.hosts_shut_out("madison") == ()


@pytest.mark.parametrize("jump_s", [86_400.0, -86_400.0])
async def test_a_wall_clock_that_jumps_neither_forgets_a_noted_grid_job_nor_keeps_it_for_ever(
    site: Site[FakeGrid], tmp_path: Path, jump_s: float
) -> None:
    await site.keeper.step()
    site.claim(2)
    site.grid.down = True
    await site.keeper.step()
    site.grid.down = False
    restarted = site.again(tmp_path)
    site.clock.jump(jump_s)
    await restarted.keeper.step()
    assert [job.phase for job in restarted.book] == [GridJobPhase.NOTED], "its submission may still arrive"
    site.clock.advance(FORGET_AGE_S + 1)
    await restarted.keeper.step()
    assert GridJobPhase.ENDED in [job.phase for job in restarted.book]


@pytest.mark.parametrize("jump_s", [86_400.0, -86_400.0])
async def test_a_wall_clock_that_jumps_neither_hurries_nor_delays_the_end_of_a_lost_pilots_tasks(
    site: Site[FakeGrid], tmp_path: Path, jump_s: float
) -> None:
    site.claim(1)
    await site.keeper.step()
    (job,), (entry,) = site.book.live(), site.stock.tasks
    start = TaskStart(entry.ref, b"k" * 16, "madison-1", b"h" * 32, job.pilot, "w1", 10**9)
    site.ledger.must(StartTasks("madison", (start,)))
    site.book.end(job.pilot, phase=GridJobPhase.VANISHED, now_ms=site.clock.wall_ms(), reason="unknown")
    restarted = site.again(tmp_path)
    site.clock.jump(jump_s)
    for _ in range(2):
        await restarted.lost.step()
        site.clock.advance(VANISHED_SILENCE_S / 2)
    assert not site.proposed(FailTask), "it may still run and report"
    site.clock.advance(1.0)
    await restarted.lost.step()
    assert site.proposed(FailTask)


async def test_a_node_leaves_what_others_submitted_for_a_site_of_its_name(
    site: Site[FakeGrid], tmp_path: Path
) -> None:
    """Another node of the site, and a node with the same id of another cluster: one account for all three."""
    site.claim(2)
    await site.keeper.step()
    second = site.again(tmp_path / "second", node_id="madison-2")
    other = OneLedger()
    other.found()
    stranger = Site(tmp_path / "test cluster", other, site.grid, site.clock)
    assert len({site.kit.owner, second.kit.owner, stranger.kit.owner}) == 3
    for node in (second, stranger):
        await node.keeper.step()
    (name,) = (job.tag for job in site.book)
    site.grid.jobs[str(Tag("madison", "p-old"))] = (
        site.grid.jobs[name][0],
        Queued(),
    )  # No node's, by its tag.
    restarted = site.again(tmp_path)
    await restarted.keeper.step()
    assert name in site.grid.jobs and [job.phase for job in restarted.book] == [GridJobPhase.QUEUED]


async def test_a_node_under_a_new_id_or_release_finds_what_it_submitted_before(
    site: Site[FakeGrid], tmp_path: Path
) -> None:
    """By the tag that its record keeps; a record from before tags were kept has its site's."""
    site.claim(4)
    site.grid.answers_lost = True
    await site.keeper.step()
    before, oldest = site.book
    (request, _) = site.grid.jobs.pop(oldest.tag)
    old_tag = Tag("madison", oldest.pilot)
    site.grid.jobs[str(old_tag)] = (replace(request, tag=old_tag), Running())
    record = site.book.path(oldest.pilot) / "grid_job.json"
    values = {name: value for name, value in json.loads(record.read_text()).items() if name != "tag"}
    record.write_text(json.dumps(values))
    rejoined = site.again(tmp_path, node_id="madison-new")
    await rejoined.keeper.step()
    found = {job.pilot: (job.grid_job_id, job.phase) for job in rejoined.book}
    assert found == {
        before.pilot: (before.tag, GridJobPhase.QUEUED),
        oldest.pilot: (str(old_tag), GridJobPhase.RUNNING),
    }
    assert set(site.grid.jobs) == {before.tag, str(old_tag)}


async def test_the_longest_node_id_still_makes_a_tag_of_its_own(site: Site[FakeGrid], tmp_path: Path) -> None:
    owners = {site.again(tmp_path / last, node_id="n" * 62 + last).kit.owner for last in "ab"}
    assert len(owners) == 2 and all(str(Tag(owner, "p" * 63)) for owner in owners)
