"""The examples on a real cluster of two sites: scripts, software by name, a module from a repository, a container."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from iceprod_p2p.base.errors import BadInput, NotAllowed, Refused, Unavailable
from iceprod_p2p.client.connection import Connection
from iceprod_p2p.client.contexts import load_context
from iceprod_p2p.client.submission import submit_file
from tests.integration.archives import tarball
from tests.integration.https_server import HttpsServer
from tests.integration.production import Production
from tests.integration.test_pilot_software import sandbox

__all__ = ["sandbox"]
EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = [pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpsServer]:
    server = HttpsServer(tmp_path_factory.mktemp("https"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, server: HttpsServer) -> Iterator[Production]:
    production = Production(tmp_path_factory.mktemp("examples") / "cluster", sites=2, slots=1)
    written = production.cluster.site_toml
    allowed = f'\n[external]\nnetworks = ["127.0.0.0/8", "::1"]\nca_file = "{server.ca_file}"\n'
    production.cluster.site_toml = lambda site: written(site) + allowed  # type: ignore[method-assign]
    try:
        production.found()
        yield production
    finally:
        production.stop()


@pytest.fixture
def example(tmp_path: Path) -> Path:
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    return tmp_path / "examples"


def iceprod(running: Production, *words: str) -> subprocess.CompletedProcess[str]:
    """Type a command as a person would."""
    context = f"{running.cluster.context_directory}/"
    return subprocess.run(
        [sys.executable, "-m", "iceprod_cli.main", "--context", context, *words],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def statistics(running: Production, dataset: str) -> dict[str, float]:
    return {row["name"]: row["average"] for row in running.result(dataset)["statistics"]}


def test_scripts_alone_make_a_dataset(running: Production, example: Path) -> None:
    dataset = running.submit(example / "hello" / "hello.yaml", jobs=2)
    assert running.watch(dataset) == "complete"
    assert statistics(running, dataset)["lines_counted"] == 3


def test_software_is_published_used_and_retired(running: Production, example: Path) -> None:
    directory = example / "software"
    with pytest.raises(BadInput, match=r"needs software lightyield 1\.0, which is not there"):
        running.submit(directory / "software.yaml", jobs=1)
    made = subprocess.run(
        ["sh", "build.sh"], cwd=directory, capture_output=True, text=True, timeout=120, check=True
    )
    archive = made.stdout.strip()
    publish = ("software", "publish", "lightyield", "1.0")
    options = ("--platform", "linux", "--env", "LIGHTYIELD_TABLES={root}/share")
    done = iceprod(running, *publish, archive, *options)
    assert done.returncode == 0 and "lightyield 1.0 for linux published" in done.stdout, done.stderr
    assert "held by 2 nodes" in done.stdout
    assert "published before" in iceprod(running, *publish, archive, *options).stdout
    other = directory / "other.tar.gz"
    other.write_bytes(tarball({"bin/lightyield": "#!/bin/sh\n"}))
    refused = iceprod(running, *publish, str(other), *options)
    assert refused.returncode == 1 and "what a version is never changes" in refused.stderr
    evil = directory / "evil.tar.gz"
    evil.write_bytes(tarball({"../../evil": "x"}))
    refused = iceprod(running, "software", "publish", "evil", "1", str(evil))
    assert refused.returncode == 2 and "lies outside it" in refused.stderr
    shown = iceprod(running, "software", "list", "-o", "csv").stdout
    assert "lightyield" in shown and "linux" in shown and "evil" not in shown
    assert (
        "LIGHTYIELD_TABLES={root}/share" in iceprod(running, "software", "show", "lightyield", "1.0").stdout
    )

    dataset = running.submit(directory / "software.yaml", jobs=3)
    assert running.watch(dataset) == "complete"
    found = statistics(running, dataset)
    assert (found["rows"], found["photons_per_gev"]) == (3, 180_000)

    assert "1 builds" in iceprod(running, "software", "retire", "lightyield", "1.0").stdout
    with pytest.raises(BadInput, match="which is retired"):
        running.submit(directory / "software.yaml", jobs=1)


def test_software_that_no_site_can_run_is_claimed_by_none(running: Production, example: Path) -> None:
    directory = example / "software"
    tar = directory / "t.tar.gz"
    tar.write_bytes(tarball({"bin/lightyield": "#!/bin/sh\necho 1\n"}))
    done = iceprod(
        running, "software", "publish", "lightyield", "2.0", str(tar), "--platform", "linux-riscv64"
    )
    assert done.returncode == 0, done.stderr
    steering = directory / "software.yaml"
    steering.write_text(steering.read_text().replace('"1.0"}', '"2.0"}'))
    dataset = running.submit(steering, jobs=1)
    said = iceprod(running, "task", "explain", f"{dataset}.0.tabulate").stdout
    assert "arch=riscv64" in said, said
    assert running.counts(dataset) == {"ready": 1}


def test_a_module_from_a_repository_runs_when_the_repository_is_gone(
    running: Production, server: HttpsServer, example: Path
) -> None:
    code = (example / "external" / "repository" / "counting.py").read_text()
    commit = server.repository("counting", {"counting.py": code})
    steering = example / "external" / "external.yaml"
    there = server.url("counting.git")
    steering.write_text(steering.read_text().replace("https://github.com/example/counting.git", there))
    reply = submit_file(running.session.connection, steering, jobs=3, seed=1)
    (pinned,) = reply.pinned
    assert commit in pinned and there in pinned
    shutil.rmtree(server.repositories / "counting.git")
    asked = len(server.asked)
    assert running.watch(str(reply.dataset)) == "complete"
    assert statistics(running, str(reply.dataset))["sum"] == 5_050
    assert len(server.asked) == asked, "no job asks the repository"
    context = load_context(f"{running.cluster.context_directory}/")
    with (
        Connection(context, give_up_s=5) as impatient,  # Others go on asking for half a minute.
        pytest.raises(Unavailable, match="git could not fetch"),
    ):
        submit_file(impatient, steering, jobs=1, seed=1)


def test_an_address_of_a_private_network_is_refused_at_submission(running: Production, example: Path) -> None:
    steering = example / "external" / "external.yaml"
    text = steering.read_text()
    steering.write_text(
        text.replace("https://github.com/example/counting.git", "https://10.0.0.1/counting.git")
    )
    with pytest.raises(NotAllowed, match="private or reserved network"):
        running.submit(steering, jobs=1)
    steering.write_text(text.replace("git+$options(repository)", "http://example.org/counting.py"))
    with pytest.raises((BadInput, Refused), match="not fetched by 'http'"):
        running.submit(steering, jobs=1)


def test_a_task_runs_inside_the_container_that_travels_with_it(
    sandbox: None, running: Production, example: Path
) -> None:
    directory = example / "container"
    subprocess.run(["sh", "make_image.sh"], cwd=directory, capture_output=True, timeout=120, check=True)
    dataset = running.submit(directory / "container.yaml", jobs=2)
    assert running.watch(dataset) == "complete"
    assert statistics(running, dataset)["lines"] == 2
