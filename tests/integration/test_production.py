"""The whole chain over three real nodes, undisturbed and disturbed: equal results, every task exactly once."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from iceprod_cli.commands.cluster import status_document

from iceprod_p2p.base.errors import Unavailable
from tests.integration.production import Production, production

JOBS = 6
TASKS = 7 * JOBS

pytestmark = [pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a production that nobody disturbs, from a cluster that is gone afterwards."""
    with production(tmp_path_factory.mktemp("undisturbed") / "cluster") as running:
        dataset = running.submit(jobs=JOBS)
        assert running.watch(dataset) == "complete"
        result = running.result(dataset)
        assert running.bad_copies(dataset) == []
        result["tasks_list"] = running.tasks(dataset)
    return result


def _without_list(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key != "tasks_list"}


def _assert_once(running: Production, dataset: str, undisturbed: dict[str, Any]) -> None:
    running.wait_until_whole()  # The copies of a node that is not there yet could not be verified.
    assert running.result(dataset) == _without_list(undisturbed)
    assert running.bad_copies(dataset) == []
    reply = running.session.call("CheckCluster", _check_request())
    assert list(reply.violations) == []


def _check_request() -> Any:
    from iceprod_p2p.wire.pb import control_pb2

    return control_pb2.CheckClusterRequest()


def test_every_task_completes_and_every_job_crosses_sites(undisturbed: dict[str, Any]) -> None:
    assert undisturbed["state"] == "complete"
    assert undisturbed["tasks"] == {"complete": TASKS}
    where: dict[int, set[str]] = {}
    for task in undisturbed["tasks_list"]:
        where.setdefault(int(task["task"].split(".")[1]), set()).add(task["site"])
    assert all(len(sites) > 1 for sites in where.values()), where


def test_statistics_are_summed_once_for_each_task(undisturbed: dict[str, Any]) -> None:
    assert undisturbed["statistics"]
    assert {row["count"] for row in undisturbed["statistics"]} == {JOBS}


def test_killing_the_leader_loses_nothing_and_stops_progress_for_less_than_five_seconds(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    with production(tmp_path / "cluster") as running:
        dataset = running.submit(jobs=JOBS)
        running.wait_for(
            "some tasks are done", lambda: running.counts(dataset).get("complete", 0) >= TASKS // 5
        )
        silent_s = [_kill_the_leader(running)]
        while min(silent_s) >= 5 and len(silent_s) < 3:  # A busy machine does something else now and then.
            running.wait_until_whole()
            silent_s.append(_kill_the_leader(running))
        assert running.watch(dataset) == "complete"
        _assert_once(running, dataset, undisturbed)
        assert min(silent_s) < 5, f"the cluster was silent for {silent_s} s"


def _kill_the_leader(running: Production) -> float:
    """Kill the leader's node, start it again when another leads, and return how long nobody did."""
    leader = running.wait_for("there is a leader", lambda: status_document(running.session)["leader"])
    site = running.site(leader.rpartition("-")[0])
    assert site.process is not None
    site.process.send_signal(signal.SIGKILL)
    site.process.wait()
    killed_at = time.monotonic()
    other = next(entry for entry in running.cluster.sites if entry is not site)
    running.wait_for("a new leader answers", lambda: _answers(running, other.name))
    silent_s = time.monotonic() - killed_at
    running.cluster.start(site)
    return silent_s


def _answers(running: Production, node: str) -> bool:
    from iceprod_p2p.client.connection import Connection
    from iceprod_p2p.client.contexts import load_context
    from iceprod_p2p.wire.pb import control_pb2

    context = load_context(f"{running.cluster.context_directory}/")
    try:
        with Connection(context, node=node, give_up_s=0.1) as connection:
            request = control_pb2.ListDatasetsRequest(read=control_pb2.Read(stale=False), limit=1)
            connection.call("ListDatasets", request, timeout_s=2)
    except Unavailable:
        return False
    return True


def test_a_site_that_dies_with_its_pilots_is_replaced_by_the_others(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    with production(tmp_path / "cluster") as running:
        dataset = running.submit(jobs=JOBS)
        site = running.site("zeuthen")
        running.wait_for(
            "the site runs something",
            lambda: any(
                t["state"] == "processing" and t["site"] == site.name for t in running.tasks(dataset)
            ),
        )
        running.kill_site(site)
        assert running.watch(dataset) == "complete"
        result = running.result(dataset)
        assert result["statistics"] == undisturbed["statistics"]
        assert result["files"] == undisturbed["files"]
        assert result["tasks"] == {"complete": TASKS}
        reply = running.session.call("CheckCluster", _check_request())
        assert list(reply.violations) == []


def test_a_restart_of_every_node_goes_on_where_it_was_while_pilots_run_on(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    with production(tmp_path / "cluster") as running:
        dataset = running.submit(jobs=JOBS)
        running.wait_for(
            "some tasks are done", lambda: running.counts(dataset).get("complete", 0) >= TASKS // 5
        )
        for site in running.cluster.sites:
            assert site.process is not None
            site.process.kill()
            site.process.wait()
        assert any(running.pilots_of(site) for site in running.cluster.sites), "pilots die with their nodes"
        time.sleep(1)
        for site in running.cluster.sites:
            running.cluster.start(site)
        assert running.watch(dataset) == "complete"
        _assert_once(running, dataset, undisturbed)


def test_a_paused_pilot_that_lost_its_lease_is_refused_and_changes_nothing(
    tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    """The site is stopped (node and pilots) past its grace, its work is done elsewhere, then it wakes up."""
    with production(tmp_path / "cluster") as running:
        dataset = running.submit(jobs=JOBS)
        site = running.site("zeuthen")
        running.wait_for(
            "the site runs something",
            lambda: any(
                t["state"] == "processing" and t["site"] == site.name for t in running.tasks(dataset)
            ),
        )
        assert site.process is not None
        frozen = [site.process.pid, *(p.pid for p in _with_children(running, site))]
        for pid in frozen:
            _signal(pid, signal.SIGSTOP)
        try:
            assert running.watch(dataset) == "complete"
            before = running.result(dataset)
        finally:
            for pid in frozen:
                _signal(pid, signal.SIGCONT)
        time.sleep(8)
        assert running.result(dataset) == before
        assert before["statistics"] == undisturbed["statistics"]
        assert before["files"] == undisturbed["files"]
        reply = running.session.call("CheckCluster", _check_request())
        assert list(reply.violations) == []


def _with_children(running: Production, site: Any) -> list[Any]:
    found = {}
    for process in running.pilots_of(site):
        found[process.pid] = process
        with contextlib.suppress(psutil.NoSuchProcess):  # It has just ended.
            found |= {child.pid: child for child in process.children(recursive=True)}
    return list(found.values())


def _signal(pid: int, number: int) -> None:
    import os

    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
