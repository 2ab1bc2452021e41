"""The pilot as one file: run with nothing but a Python and an empty directory, and gone without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from iceprod_p2p.site import bundle
from tests.integration.pilot_fakes import FakeCluster, document, found, write_config

MODULE = """
from iceprod_p2p.modules import IPModule
class Simulate(IPModule):
    def Execute(self, stats):
        stats['answer'] = 42
        return 0
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bundle")
    return bundle.kept_file(directory)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    cluster = FakeCluster()
    cluster.add_node("home")
    yield cluster
    cluster.close()


def bare_python() -> str:
    """An interpreter of this version that knows none of our packages."""
    return os.path.realpath(sys.executable)


def carried(directory: Path, cluster: FakeCluster) -> Path:
    """Lay down what a worker node gets: the configuration and the secret, in a directory of their own."""
    path = write_config(
        directory,
        cluster,
        secret_file="secret",
        work_dir="$SCRATCH/work",
        state_dir="$SCRATCH/state",
        cache_dir="$SCRATCH/cache",
        idle_end_s=1,
        grace_s=8,  # A quarter of it is for the report, on a busy machine.
    )
    return path


def start(program: Path, config: Path, scratch: Path) -> subprocess.Popen[bytes]:
    scratch.mkdir()
    return subprocess.Popen(
        [bare_python(), "-I", "-S", str(program), "--config", config.name],
        cwd=config.parent,
        env={"TMPDIR": str(scratch)},
        stderr=(config.parent / "log").open("wb"),
    )


@pytest.mark.parametrize("form", ["file", "directory"])
def test_a_bundle_runs_a_class_and_a_script_with_nothing_installed_and_leaves_nothing(
    made: Path, cluster: FakeCluster, tmp_path: Path, form: str
) -> None:
    program = made
    if form == "directory":
        program = tmp_path / "moved" / "here"
        program.mkdir(parents=True)
        with zipfile.ZipFile(made) as archive:
            archive.extractall(program)
    modules = [
        {"python": MODULE, "class": "Simulate"},
        {"script": "#!/bin/sh\nenv >seen; test ! -e pilot.json\n"},
    ]
    cluster.order(document(cluster, {"name": "simulate", "trays": [{"modules": modules}], "data": []}))
    config = carried(tmp_path / "start", cluster)
    pilot = start(program, config, tmp_path / "scratch")
    try:
        assert pilot.wait(120) == 0, (tmp_path / "start" / "log").read_text()
    finally:
        pilot.kill()
    (report,) = cluster.accepted
    assert report.WhichOneof("what") == "finished", report
    assert dict(report.finished.statistics) == {"answer": 42.0}
    assert list((tmp_path / "scratch").iterdir()) == []
    assert sorted(path.name for path in config.parent.iterdir()) == ["log", "pilot.json"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_bundle_that_is_ended_leaves_nothing_in_the_scratch(
    made: Path, cluster: FakeCluster, tmp_path: Path, number: signal.Signals
) -> None:
    cluster.order(
        document(
            cluster,
            {"name": "sleep", "trays": [{"modules": [{"script": "#!/bin/sh\nsleep 300\n"}]}], "data": []},
        )
    )
    scratch = tmp_path / "scratch"
    pilot = start(made, carried(tmp_path / "start", cluster), scratch)
    try:
        cluster.until(lambda: found(scratch, "*/work/*/*/work"), what="a task")
        pilot.send_signal(number)
        pilot.wait(60)
    finally:
        pilot.kill()
    cluster.until(lambda: not list(scratch.iterdir()), what="an empty scratch")
    if number is signal.SIGTERM:
        (report,) = cluster.accepted
        assert report.failed.reason == "evicted"


def test_a_python_of_another_version_is_told_in_a_sentence(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pyz"
    with zipfile.ZipFile(made) as source, zipfile.ZipFile(other, "w") as target:
        target.writestr("__main__.py", source.read("__main__.py"))
        target.writestr(
            "bundle.json", source.read("bundle.json").replace(b'"python": "3.', b'"python": "3.9')
        )
    done = subprocess.run(
        [bare_python(), str(other), "--version"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "this bundle is for Python 3.9" in done.stderr and done.stderr.count("\n") == 1


def test_a_bundle_is_kept_until_something_changes(made: Path) -> None:
    before = made.stat().st_mtime_ns
    assert bundle.kept_file(made.parent).stat().st_mtime_ns == before
    assert bundle.kept_file(made.parent, ["click"]).stat().st_mtime_ns != before
    with zipfile.ZipFile(made) as archive:
        assert "click/__init__.py" in archive.namelist()
