"""A real three-site cluster for tests: started, disturbed and stopped by process id, on loopback alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from iceprod_cli.commands.cluster import status_document
from iceprod_cli.commands.dataset import detail_document, detail_of, statistics_rows
from iceprod_cli.commands.file import file_rows, verified_rows
from iceprod_cli.commands.task import task_rows
from iceprod_cli.demo_cluster import DemoCluster, DemoSite
from iceprod_cli.output.progress import watch_dataset
from iceprod_cli.selectors import Selector
from iceprod_cli.session import Session

from iceprod_p2p.base.errors import Unavailable
from iceprod_p2p.client.submission import submit_file

ROOT = Path(__file__).resolve().parents[2]
PHYSICS = ROOT / "examples" / "physics" / "physics.xml"


class _Cluster(DemoCluster):
    """The demonstration's, with further settings of every node."""

    node = ""

    def site_toml(self, site: DemoSite) -> str:
        return super().site_toml(site).replace("[node]\n", f"[node]\n{self.node}\n", 1)


class Production:
    """A founded cluster and a session of its first administrator; `node` are lines for every `[node]`."""

    def __init__(self, directory: Path, *, sites: int = 3, slots: int = 1, node: str = "") -> None:
        self.cluster = _Cluster(directory, sites=sites, slots=slots, say=print)
        self.cluster.node = node
        self.session = Session()

    def found(self) -> None:
        """Found the cluster."""
        self.cluster.found()
        self.session = Session(context_name=f"{self.cluster.context_directory}/")

    def site(self, name: str) -> DemoSite:
        """The site of this name."""
        return next(site for site in self.cluster.sites if site.name == name)

    def submit(self, steering: Path = PHYSICS, *, jobs: int, seed: int = 1311) -> str:
        """Submit a dataset and return its number as text."""
        return str(submit_file(self.session.connection, steering, jobs=jobs, seed=seed).dataset)

    def wait_for(self, what: str, holds: Callable[[], Any], *, timeout_s: float = 120.0) -> Any:
        """Wait until `holds()` is true and return it; tells the last value when it does not come."""
        deadline = time.monotonic() + timeout_s
        while True:
            value = holds()
            if value:
                return value
            assert time.monotonic() < deadline, f"after {timeout_s:.0f} s still not: {what} (last: {value!r})"
            time.sleep(0.1)

    def wait_until_whole(self) -> None:
        """Wait until every node answers, as after one was started again."""

        def whole() -> bool:
            try:
                status = status_document(self.session)
            except Unavailable:
                return False
            return bool(status["leader"]) and all(member["reachable"] for member in status["members"])

        self.wait_for("every node answers and one leads", whole)

    def counts(self, dataset: str) -> dict[str, int]:
        """Tasks by state."""
        return {
            count.state: count.count for count in detail_of(self.session, dataset).row.tasks if count.count
        }

    def watch(self, dataset: str, *, timeout_s: float = 300.0) -> str:
        """Wait for the dataset's end and return its state."""
        return watch_dataset(self.session, dataset, interval_s=0.3, timeout_s=timeout_s)

    def result(self, dataset: str) -> dict[str, Any]:
        """Everything that must be equal whatever happened in between: states, statistics, files by content."""
        document = detail_document(detail_of(self.session, dataset))
        files = file_rows(self.session, Selector(dataset), limit=1_000_000)
        return {
            "state": document["state"],
            "tasks": {state: count for state, count in document["tasks"].items() if count},
            "statistics": statistics_rows(self.session, dataset),
            "files": sorted(
                (f["job"], f["name"], f["sha256"], f["size_bytes"]) for f in files if f["kind"] != "log"
            ),
        }

    def tasks(self, dataset: str) -> list[dict[str, Any]]:
        """All tasks as rows."""
        return list(task_rows(self.session, Selector(dataset), limit=1_000_000))

    def bad_copies(self, dataset: str) -> list[dict[str, Any]]:
        """Stored copies that do not verify."""
        return [row for row in verified_rows(self.session, Selector(dataset)) if not row["good"]]

    def pilots_of(self, site: DemoSite) -> list[psutil.Process]:
        """The processes of a site's pilots and their supervisors and payloads: all that live in its directory."""
        node = site.process.pid if site.process is not None else -1
        found = []
        for process in psutil.process_iter(["pid", "cmdline"]):
            words = " ".join(process.info["cmdline"] or ())
            if str(site.directory) in words and process.pid not in (node, os.getpid()):
                found.append(process)
        return found

    def kill_site(self, site: DemoSite) -> None:
        """Kill a site's node and every process of its pilots, as a power cut of the site would."""
        if site.process is not None:
            site.process.kill()
            site.process.wait()
        for process in self.pilots_of(site):
            for child in [*_children(process), process]:
                _kill(child)

    def stop(self) -> None:
        """Stop everything, pilots included."""
        self.session.close()
        self.cluster.stop()
        for site in self.cluster.sites:
            self.kill_site(site)


@contextmanager
def production(directory: Path, *, sites: int = 3, slots: int = 1, node: str = "") -> Iterator[Production]:
    """A founded cluster that is stopped whatever happens; its logs are printed when a test fails."""
    running = Production(directory, sites=sites, slots=slots, node=node)
    try:
        running.found()
        yield running
    except BaseException:
        for site in running.cluster.sites:
            log = site.directory / "node.log"
            if log.exists():
                print(f"--- {site.name} ---", log.read_text(errors="replace")[-4_000:], sep="\n")
        raise
    finally:
        running.stop()


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
