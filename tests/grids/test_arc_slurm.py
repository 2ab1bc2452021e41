"""The ARC plugin on a real A-REX over a real Slurm, for a person with a proxy and a factory with bearer tokens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from iceprod_p2p.grids.base import Completed, Grid, History, Removed, Running, Submitted
from iceprod_p2p.grids.errors import GridDown, GridError
from iceprod_p2p.grids.polling import poll
from iceprod_p2p.security.credentials import CredentialKind, read_credential
from tests.grids.arc_system import TOKEN_SUBJECT, ArcSystem
from tests.grids.behaviour import Work
from tests.grids.daemons import until
from tests.grids.site_on_grid import site_through_arc
from tests.grids.slurm_system import SlurmSystem
from tests.grids.users import USER, as_root_again, as_user_in

PATIENCE_S = 150.0
TASKS = 7
pytestmark = [pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmSystem]:
    made = SlurmSystem()
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def element(slurm: SlurmSystem) -> Iterator[ArcSystem]:
    made = ArcSystem(slurm_conf=slurm.environment["SLURM_CONF"], tokens=True)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def directory(element: ArcSystem, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory of the test's user, who this process is until the end of the test."""
    name = f"{request.node.originalname[5:35]}-{time.monotonic_ns()}"
    element.make_token()
    with as_user_in(element.root / name) as made:
        yield made


def until_ended(grid: Grid, ids: list[str]) -> dict[str, History]:
    """Poll as a site does, which tries again when the service is down."""
    ended: dict[str, History] = {}

    def all_ended() -> bool:
        try:
            ended.update(poll(grid, [name for name in ids if name not in ended]).ended)
        except GridDown as down:
            print(down)
        return len(ended) == len(ids)

    until(all_ended, "all have ended", limit_s=PATIENCE_S, pause_s=0.5)
    return ended


def test_grid_jobs_of_a_proxy_and_of_a_token_run_in_slurm_and_are_removed_from_it(
    element: ArcSystem, slurm: SlurmSystem, directory: Path
) -> None:
    words = 'echo "in Slurm job $SLURM_JOB_ID as $(id -un)"; cat given; exit 3'
    (directory / "given").write_text("brought")
    given = (str(directory / "given"),)
    bearer, person = Work(element, directory, "bearer"), Work(element, directory, "person")
    bearer.grid = element.grid(credential=str(element.token))
    assert "token" in bearer.grid.check() and "x509" in person.grid.check()
    asked, long = (
        bearer.request("asked", words, files_in=given, walltime_s=300, carry=True),
        bearer.request("long", "sleep 250", walltime_s=300),
    )
    ended_id, long_id = bearer.submit(asked, long)
    [person_id] = person.submit(person.request("good", 'test -n "$SLURM_JOB_ID"', walltime_s=300))
    until(
        lambda: isinstance(bearer.grid.status([long_id]).get(long_id), Running),
        "the long one runs",
        limit_s=PATIENCE_S,
        pause_s=0.5,
    )
    bearer.grid.remove([long_id])
    ends = until_ended(bearer.grid, [ended_id, long_id]) | until_ended(person.grid, [person_id])
    assert ends[ended_id].state == Completed(3) and ends[person_id].state == Completed(0)
    assert isinstance(ends[long_id].state, Removed)
    out = Path(asked.stdout_path).read_text()
    assert out.startswith("in Slurm job ") and f"as {USER}" in out and out.endswith("brought")
    assert {job.tag for job in bearer.grid.our_jobs("bearer") if job.tag} == {asked.tag, long.tag}
    assert bearer.grid.our_jobs("person") == [], "what is another's is not even seen"
    with as_root_again():
        until(lambda: not slurm.run("squeue", "--noheader"), "nothing is left in Slurm", limit_s=PATIENCE_S)


def test_a_renewed_token_is_used_at_once_and_one_for_others_is_refused(
    element: ArcSystem, directory: Path
) -> None:
    before = read_credential(element.token)
    assert before.kind is CredentialKind.TOKEN and before.subject == TOKEN_SUBJECT
    grid = element.grid(credential=str(element.token))
    now = int(time.time())
    for claims in ({"aud": "https://elsewhere"}, {"exp": now - 60, "nbf": now - 120}, {"sub": "another"}):
        with as_root_again():
            element.make_token(**claims)
        with pytest.raises(GridError, match="403"):
            grid.check()
    with as_root_again():
        element.make_token(exp=now + 7_200)
    assert read_credential(element.token).expires_ms > before.expires_ms
    work = Work(element, directory, "renewed")
    [result] = grid.submit([work.request("good", "true", walltime_s=300)])
    assert isinstance(result, Submitted)
    grid.remove([result.grid_job_id])


def test_a_production_runs_through_arc_in_slurm(element: ArcSystem, slurm: SlurmSystem, place: Path) -> None:
    """From the steering file to verified files: ARC carries the pilots, Slurm runs them."""
    before = set(slurm_jobs(slurm))
    with site_through_arc(place / "cluster", element) as running:
        dataset = running.submit(jobs=1)
        assert running.watch(dataset, timeout_s=400) == "complete"
        running.assert_whole(dataset, TASKS)
        ran = [record for record in running.records() if record["enrolled_key"]]
        assert ran and len(set(slurm_jobs(slurm)) - before) >= len(ran), "a pilot ran beside Slurm"


def slurm_jobs(slurm: SlurmSystem) -> list[str]:
    """Every job that the controller remembers: all of this file's."""
    return slurm.run("squeue", "--noheader", "--states=all", "--format=%i").split()
