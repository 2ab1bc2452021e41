"""Data of all kinds and what comes after, on three real nodes: merged once, told once, gone when nobody needs it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from iceprod_cli.commands.file import file_rows
from iceprod_cli.demo_cluster import DemoCluster, DemoSite
from iceprod_cli.selectors import Selector

from iceprod_p2p.client.connection import request_id
from iceprod_p2p.wire.pb import control_pb2
from tests.integration.production import ROOT, Production

EXAMPLE = ROOT / "examples" / "after"
JOBS = 4

pytestmark = [pytest.mark.timeout(600)]


class QuickCluster(DemoCluster):
    """A demonstration that counts copies twice a second, and removes what has served after three."""

    def site_toml(self, site: DemoSite) -> str:
        return super().site_toml(site) + "\n[blobs]\ninterval_s = 0.5\ntemp_grace_s = 3\n"


@dataclass
class Inbox:
    """The letters that a real mail server took."""

    letters: list[bytes] = field(default_factory=list)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.letters.append(envelope.content)
        return "250 OK"


@dataclass
class Story:
    """A cluster with the example's dataset complete, and the letters that were written."""

    running: Production
    inbox: Inbox
    steering: Path
    dataset: str = ""
    following: str = ""

    def blob(self, site: DemoSite, digest: str) -> Path:
        """Where a site keeps some content."""
        return site.directory / "data" / "blobs" / digest[:2] / digest[2:4] / digest

    def held(self, digest: str) -> list[str]:
        """The sites whose disks have some content."""
        return [site.name for site in self.running.cluster.sites if self.blob(site, digest).exists()]

    def files(self, dataset: str) -> list[dict[str, Any]]:
        """Recorded files, without logs."""
        rows = file_rows(self.running.session, Selector(dataset), limit=1_000)
        return [row for row in rows if row["kind"] != "log"]

    def wait_until_temporary_files_are_gone(self) -> None:
        """Wait until no site says that it holds a file that has served."""

        def temporary() -> list[Any]:
            return [row for row in self.files(self.dataset) if row["kind"] != "permanent" and row["sites"]]

        self.running.wait_for("temporary files are gone", lambda: not temporary())

    def content(self, dataset: str, name: str) -> bytes:
        """The content of a file, from any site's disk."""
        (row,) = [row for row in self.files(dataset) if row["name"] == name]
        sites = [site for site in self.running.cluster.sites if site.name in row["sites"]]
        return self.blob(sites[0], row["sha256"]).read_bytes()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    inbox = Inbox()
    mail = Controller(inbox, hostname="127.0.0.1", port=0, ready_timeout=60)

    def reach() -> None:  # The controller's own would call port 0.
        assert mail.server is not None
        socket.create_connection(mail.server.sockets[0].getsockname()).close()

    mail._trigger_server = reach  # type: ignore[method-assign]
    mail.start()
    assert mail.server is not None
    directory = tmp_path_factory.mktemp("after")
    running = Production(directory / "cluster")
    running.cluster = QuickCluster(directory / "cluster", sites=3, slots=1, say=print)
    work = directory / "steering"
    work.mkdir()
    for path in (entry for entry in EXAMPLE.iterdir() if entry.is_file()):
        text = path.read_text().replace(
            "localhost:25", f"127.0.0.1:{mail.server.sockets[0].getsockname()[1]}"
        )
        (work / path.name).write_text(text)
    try:
        running.found()
        story = Story(running, inbox, work / "after.yaml")
        story.dataset = running.submit(story.steering, jobs=JOBS)
        story.following = str(int(story.dataset) + 1)
        assert running.watch(story.dataset) == "complete"
        assert running.watch(story.following) == "complete"
        yield story
    finally:
        running.stop()
        mail.stop()


def test_what_comes_after_all_jobs_runs_once_and_reads_files_of_every_job(story: Story) -> None:
    assert story.running.counts(story.dataset) == {"complete": 3 * JOBS}
    assert story.running.counts(story.following) == {"complete": 3}
    rows = story.content(story.following, "all.csv").decode().splitlines()
    expected = [
        f"{job},{n},{(job * 7 + n * 3) % 10}"
        for job in range(JOBS)
        for n in range(6)
        if (job * 7 + n * 3) % 10 > 4
    ]
    assert rows == ["job,event,energy", *expected]
    catalogue = json.loads(story.content(story.following, "catalogue.json"))
    listed = {(entry["job"], entry["name"], entry["sha256"]) for entry in catalogue["files"]}
    recorded = {
        (row["job"], row["name"], row["sha256"])
        for row in story.files(story.dataset)
        if row["kind"] == "permanent"
    }
    assert listed == recorded and len(listed) == JOBS
    assert catalogue["metadata"]["dataset"] == int(story.dataset)


def test_people_are_told_when_it_is_done(story: Story) -> None:
    letter = message_from_bytes(story.inbox.letters[0])
    assert letter["Subject"] == f"Dataset {story.dataset} is complete"
    assert f"{JOBS} jobs have been merged" in str(letter.get_payload())


def test_temporary_files_go_and_permanent_ones_stay(story: Story) -> None:
    kinds = {row["kind"] for row in story.files(story.dataset)}
    assert kinds == {"permanent", "job_temp", "dataset_temp", "site_temp"}
    story.wait_until_temporary_files_are_gone()
    for row in story.files(story.dataset):
        if row["kind"] == "permanent":
            assert story.held(row["sha256"])
        else:
            story.running.wait_for("it left the disks", lambda row=row: not story.held(row["sha256"]))
    assert story.running.bad_copies(story.dataset) == []


def test_a_lost_or_damaged_copy_of_the_document_is_replaced(story: Story) -> None:
    running = story.running
    request = control_pb2.GetDatasetRequest(dataset=story.dataset)
    digest = running.session.call("GetDataset", request).row.steering_sha256
    running.wait_for("every node holds the document", lambda: len(story.held(digest)) == 3)
    victim = story.blob(running.cluster.sites[1], digest)
    victim.unlink()
    running.wait_for("the copy is there again", victim.exists, timeout_s=60)
    assert sha256(victim.read_bytes()).hexdigest() == digest


def test_what_comes_after_is_done_anew_when_a_job_is(story: Story) -> None:
    """Last: it changes what the others look at."""
    story.wait_until_temporary_files_are_gone()
    running, told = story.running, len(story.inbox.letters)
    before = story.content(story.following, "all.csv")
    request = control_pb2.ControlTasksRequest(
        dataset=story.dataset, verb="reset", first_job=1, last_job=1, task=1, request_id=request_id()
    )
    running.session.call("ControlTasks", request)
    assert running.watch(story.dataset) == "complete"
    running.wait_for("what follows ran again", lambda: len(story.inbox.letters) > told, timeout_s=120)
    assert running.watch(story.following) == "complete"
    assert story.content(story.following, "all.csv") == before
    attempts = {row["task"].split(".", 1)[1]: row["attempt"] for row in running.tasks(story.dataset)}
    # The events that it selects from were gone, so they were generated again; other jobs were left alone.
    assert attempts["1.0"] > 0 and attempts["1.1"] > 0 and attempts["0.1"] == 0
    assert list(running.session.call("CheckCluster", control_pb2.CheckClusterRequest()).violations) == []
