"""Bars of a running cluster: three voters that agree, nothing beyond loopback, no pickle in any of its processes."""

from __future__ import annotations

import ipaddress
import site
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest

from tests.integration.command_line import CommandLine
from tests.integration.production import PHYSICS, Production, production

JOBS = 2
# Python imports this first in every process of the cluster.  The C functions of `pickle` raise audit events only for
# classes that are looked up, so each way into it is replaced as well.
WATCH = """
import sys

def note(word):
    with open(BOOK, "a") as book:
        book.write(word + " | " + " ".join(sys.orig_argv) + "\\n")

note("armed")
sys.addaudithook(lambda event, arguments: note("pickle used: " + event) if event.startswith("pickle.") else None)

import pickle, _pickle

def watched(module, name):
    true = getattr(module, name)
    def call(*arguments, **options):
        note("pickle used: " + name)
        return true(*arguments, **options)
    setattr(module, name, call)

for module in (pickle, _pickle):
    for name in ("load", "loads", "dump", "dumps", "_load", "_loads", "_dump", "_dumps"):
        if hasattr(module, name):
            watched(module, name)
"""

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Watched:
    """A Python whose every process, and every process that those start with it, notes any use of pickle in `book`.

    It is an environment of its own, for pilots do not inherit the variables of their node.
    """

    python: str
    book: Path

    @classmethod
    def make(cls, directory: Path) -> Watched:
        """Make an environment with this one's packages and the watch."""
        venv.create(directory, with_pip=False, symlinks=True)
        (packages,) = directory.glob("lib/python*/site-packages")
        lines = [f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages()]
        (packages / "packages.pth").write_text("".join(lines))
        book = directory / "book"
        (packages / "sitecustomize.py").write_text(f"BOOK = {str(book)!r}\n{WATCH}")
        return cls(str(directory / "bin" / "python"), book)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return Watched.make(tmp_path_factory.mktemp("watched"))


@pytest.fixture(scope="module")
def running(watched: Watched, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    with (
        mock.patch.object(sys, "executable", watched.python),
        production(tmp_path_factory.mktemp("bars") / "cluster") as cluster,
    ):
        yield cluster


@pytest.fixture(scope="module")
def listening(running: Production) -> set[tuple[str, str]]:
    """Run a production to its end; return (process, address) of everything that listened meanwhile."""
    dataset = running.submit(PHYSICS, jobs=JOBS)
    found: set[tuple[str, str]] = set()
    while running.watch(dataset, timeout_s=1) != "complete":
        found |= _listeners(running)
    return found | _listeners(running)


def _listeners(running: Production) -> set[tuple[str, str]]:
    found = set()
    for one_site in running.cluster.sites:
        assert one_site.process is not None
        for process in [psutil.Process(one_site.process.pid), *running.pilots_of(one_site)]:
            try:
                family = [process, *process.children(recursive=True)]
                for one in family:
                    word = " ".join(one.cmdline()[1:5])
                    for connection in one.net_connections("inet"):
                        if connection.status == psutil.CONN_LISTEN or not connection.raddr:
                            found.add((word, connection.laddr.ip))
            except psutil.NoSuchProcess:
                continue
    return found


def test_nothing_listens_beyond_loopback(listening: set[tuple[str, str]]) -> None:
    assert all(_is_loopback(address) for _, address in listening), listening
    assert any("iceprod_p2p.daemon" in word for word, _ in listening)
    assert not any("iceprod_pilot" in word for word, _ in listening), "a pilot calls, and is never called"


def _is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback  # How a socket for both families shows 127.0.0.1.
    return address.is_loopback


def test_cluster_status_lists_three_voters_with_equal_digests(
    running: Production, listening: set[tuple[str, str]], tmp_path: Path
) -> None:
    command = CommandLine(tmp_path, f"{running.cluster.context_directory}/")

    def status() -> Any:
        return command.process("cluster", "status", "-o", "json").document

    document = running.wait_for("the members stand at one index", lambda: _agreed(status()))
    assert [member["role"] for member in document["members"]] == ["voter"] * 3
    assert len({member["digest"] for member in document["members"]}) == 1
    assert len(document["members"][0]["digest"]) == 64 and document["digests_equal"]
    assert {member["site"] for member in document["members"]} == {"madison", "zeuthen", "uppsala"}
    assert (document["health"], sum(member["leader"] for member in document["members"])) == ("healthy", 1)
    assert document["leader"] in {member["node_id"] for member in document["members"]}


def _agreed(document: dict[str, Any]) -> dict[str, Any] | None:
    """The status, when its digests are those of one index."""
    return document if len({member["digest_index"] for member in document["members"]}) == 1 else None


def test_no_process_of_the_cluster_ever_pickles(listening: set[tuple[str, str]], watched: Watched) -> None:
    lines = watched.book.read_text().splitlines()
    armed = [line for line in lines if line.startswith("armed")]
    for part in ("iceprod_p2p.daemon start", "iceprod_pilot.main", "iceprod_p2p.modules.child"):
        assert any(part in line for line in armed), f"{part} was not watched"
    used = [line for line in lines if line.startswith("pickle used")]
    assert used == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle; pickle.loads(b'N.')",
        "import pickle, io; pickle.Unpickler(io.BytesIO(b'cpathlib\\nPath\\n.')).load()",
        "from pysyncobj.pickle import loads; loads(b'N.')",
    ],
)
def test_the_watch_does_catch_pickle(tmp_path: Path, code: str) -> None:
    watched = Watched.make(tmp_path / "watched")
    subprocess.run([watched.python, "-c", code], timeout=30, check=True)
    assert "pickle used" in watched.book.read_text()
