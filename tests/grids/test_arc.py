"""The ARC plugin on a real A-REX of this machine: REST, an x509 proxy, delegation, and files' way there and back.

A-REX takes some seconds for each step of a job, so one test submits many at once and looks at all that comes of them.
The last one runs the physics production through pilots that ARC carried, with a proxy that is renewed in the middle.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.grids.base import (
    Completed,
    History,
    NotSubmitted,
    Removed,
    Running,
    Submitted,
    Tag,
    is_final,
)
from iceprod_p2p.grids.errors import GridDown, GridError
from iceprod_p2p.grids.polling import poll
from iceprod_p2p.security.credentials import CredentialKind, read_credential
from tests.grids.arc_system import PERSON, ArcSystem
from tests.grids.behaviour import Work
from tests.grids.daemons import until
from tests.grids.site_on_grid import site_through_arc, until_done, wait
from tests.grids.users import as_root_again, as_user_in

PATIENCE_S = 150.0
TASKS = 7

pytestmark = [pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def element() -> Iterator[ArcSystem]:
    made = ArcSystem()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def work(element: ArcSystem, request: pytest.FixtureRequest) -> Iterator[Work]:
    name = request.node.originalname.removeprefix("test_")[:40].strip("_")
    with as_user_in(element.root / "work") as place:
        directory = place / name
        directory.mkdir()
        made = Work(element, directory, name)
        yield made
        patiently(made.remove_all)


def patiently(work: object) -> None:
    """Do what a site would try again: a service that has just started may break a connection off."""

    def done() -> bool:
        try:
            work()  # type: ignore[operator]
        except GridDown:
            return False
        return True

    until(done, "the service answers", pause_s=0.5)


def until_ended(work: Work, ids: Collection[str]) -> dict[str, History]:
    """Poll as a site does, which tries again when the service is down."""
    ended: dict[str, History] = {}
    deadline_s = time.monotonic() + PATIENCE_S
    while len(ended) < len(ids):
        assert time.monotonic() < deadline_s, f"not ended: {set(ids) - set(ended)}"
        try:
            ended |= poll(work.grid, [name for name in ids if name not in ended]).ended
        except GridDown as down:
            print(down)
        time.sleep(0.5)
    return ended


def test_many_grid_jobs_run_as_asked_and_all_that_becomes_of_them_is_told(
    work: Work, element: ArcSystem
) -> None:
    (work.directory / "secret").write_text("abc")
    given = (str(work.directory / "secret"),)
    odd = "a  b'\"$x;\\"
    words = 'cat secret; stat -c %a secret; printf "%s\\n" "$ODD" "$ICEPROD_GRID_TAG"; echo oops >&2; exit 3'
    proxy = 'grep -c "BEGIN CERT" "$X509_USER_PROXY"; openssl x509 -noout -subject -in "$X509_USER_PROXY"'
    asked = [
        work.request("asked", words, files_in=given, environment={"ODD": odd}, walltime_s=300, carry=True),
        work.request("proxy", proxy),
        work.request("good", "true"),
        work.request("killed", "kill -KILL $$"),
        *(work.request(name, "sleep 280", walltime_s=300) for name in ("removed", "orphan", "kept")),
    ]
    ids = dict(zip((request.tag.grid_job for request in asked), work.submit(*asked), strict=True))

    def all_run() -> bool:
        states = work.grid.status(ids.values())
        return all(isinstance(states.get(ids[name]), Running) for name in ("removed", "orphan", "kept"))

    until(all_run, "the long ones run", limit_s=PATIENCE_S, pause_s=0.5)
    known = [request.tag for request in asked if request.tag.grid_job != "orphan"]
    orphans = work.system.grid().clean_queue(work.site, known)
    assert [job.grid_job_id for job in orphans] == [ids["orphan"]]
    work.grid.remove([ids["removed"], "no-such-job"])

    ends = until_ended(work, [name for key, name in ids.items() if key != "kept"])
    states = {key: ends[name].state for key, name in ids.items() if name in ends}
    assert (states["asked"], states["good"], states["killed"]) == (Completed(3), Completed(0), Completed(137))
    assert isinstance(states["removed"], Removed) and isinstance(states["orphan"], Removed)
    assert ends[ids["asked"]].host and ends[ids["asked"]].walltime_s is not None
    out = Path(asked[0].stdout_path).read_text().splitlines()
    assert out == ["abc600", odd, str(asked[0].tag)] and "oops" in Path(asked[0].stderr_path).read_text()
    count, subject = Path(asked[1].stdout_path).read_text().splitlines()
    assert int(count) == 3 and subject.count("CN =") == 3, "the person, the proxy, and A-REX's own"

    found = work.system.grid().find_by_tag([*known, Tag(work.site, "never")])
    assert {tag.grid_job: job.grid_job_id for tag, job in found.items()} == {
        name: grid_job_id for name, grid_job_id in ids.items() if name != "orphan"
    }
    assert is_final(found[known[0]].state) and not is_final(found[asked[-1].tag].state)
    work.grid.forget([ids["asked"]])
    until(lambda: known[0] not in work.grid.find_by_tag(known[:1]), "it is cleaned", limit_s=PATIENCE_S)


def test_what_is_refused_says_why_and_spoils_nothing_else(work: Work) -> None:
    good, lost = work.request("good", "true"), work.request("lost", "true", queue="nowhere")
    bad = work.request("bad", "true", extra_lines=('(executable="x',))
    first, second, third = work.grid.submit([good, lost, bad])
    assert isinstance(first, Submitted)
    assert isinstance(second, NotSubmitted) and "nowhere" in second.reason
    assert isinstance(third, NotSubmitted)
    assert list(work.grid.find_by_tag([good.tag, lost.tag, bad.tag])) == [good.tag]
    assert work.grid.status(["no-such-job"]) == {} and work.grid.history(["no-such-job"]) == {}


def test_a_renewed_credential_is_used_at_once_and_a_wrong_one_named(work: Work, element: ArcSystem) -> None:
    before = read_credential(element.proxy)
    assert before.kind is CredentialKind.X509 and PERSON in before.subject
    assert "x509" in work.grid.check()
    with as_root_again():
        element.make_proxy(validity="6H")
    assert read_credential(element.proxy).expires_ms < before.expires_ms
    (result,) = work.grid.submit([work.request("renewed", "true")])
    assert isinstance(result, Submitted)
    with pytest.raises(GridError, match="cannot be read"):
        element.grid(credential="/nowhere/proxy.pem").check()
    wrong = work.directory / "wrong"
    wrong.write_text("nonsense")
    wrong.chmod(0o600)
    with pytest.raises(ConfigError, match="neither"):
        element.grid(credential=str(wrong)).check()


def test_while_the_service_is_frozen_or_away_nothing_is_known_and_nothing_is_lost(
    work: Work, element: ArcSystem
) -> None:
    (kept,) = work.submit(work.request("kept", "sleep 280", walltime_s=300))
    grid = element.grid(timeout_s=3.0)
    element.freeze(frozen=True)
    try:
        with pytest.raises(GridDown):
            grid.submit([work.request("frozen", "true")])
    finally:
        element.freeze(frozen=False)
    element.stop_controller()
    try:
        for attempt in (
            lambda: work.grid.status([kept]),
            lambda: work.grid.remove([kept]),
            lambda: work.grid.submit([work.request("late", "true")]),
        ):
            with pytest.raises(GridDown):
                attempt()
    finally:
        element.start_controller()
    tags = [Tag(work.site, name) for name in ("kept", "late", "frozen")]
    found: list[str] = []
    patiently(lambda: found.extend(tag.grid_job for tag in work.grid.find_by_tag(tags)))
    assert found == ["kept"]


def test_a_production_runs_through_arc_with_bundles_that_it_carries(element: ArcSystem, place: Path) -> None:
    with site_through_arc(place / "cluster", element) as running:
        dataset = running.submit(jobs=1)
        until_done(running, dataset, 1, limit_s=200)
        element.make_proxy(validity="8H")
        assert running.watch(dataset, timeout_s=400) == "complete"
        running.assert_whole(dataset, TASKS)
        wait(
            lambda: all(record["phase"] == "ended" for record in running.records()),
            "pilots have ended",
            limit_s=150,
        )
        assert {record["reason"] for record in running.records()} == {"ended with exit code 0"}
        logs = list(running.first.directory.glob("data/pilots/*/grid/grid.err"))
        assert logs and all("pilot ends" in path.read_text() for path in logs), "ARC brought the logs back"
