"""A real pilot with software of its tasks: builds by platform, caches, classes, containers; against a fake cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from iceprod_p2p.base.machine import this_machine
from tests.integration.archives import python_filesystem, root_filesystem, tarball
from tests.integration.pilot_fakes import FakeCluster, document, write_config
from tests.integration.test_pilot import Pilot, data, failed

HERE = this_machine()
PLATFORM = f"linux-{HERE.arch}-{HERE.libc}-py{HERE.python}"
TOOL = {
    "tool-1.3/bin/tool": "#!/bin/sh\necho tool 1.3 of $TOOL_HOME with $LD_LIBRARY_PATH\n",
    "tool-1.3/lib/libnothing.so": "not really",
    "tool-1.3/python/toollib.py": "ANSWER = 42\n",
}


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    cluster = FakeCluster()
    cluster.add_node("home")
    yield cluster
    cluster.close()


@pytest.fixture
def start(cluster: FakeCluster, tmp_path: Path) -> Iterator[Any]:
    pilots: list[Pilot] = []

    def start(**changes: Any) -> Pilot:
        pilots.append(Pilot(write_config(tmp_path / f"pilot{len(pilots)}", cluster, **changes)))
        return pilots[-1]

    yield start
    for pilot in pilots:
        pilot.stop()
        print(pilot.log.read_text())


def task(*modules: dict[str, Any], tray: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": "use", "trays": [{**(tray or {}), "modules": list(modules)}], **more}


def finished(cluster: FakeCluster) -> Any:
    cluster.until(lambda: cluster.accepted, what="a report")
    report = cluster.accepted.pop()
    logs = [cluster.blobs[entry.sha256].decode() for entry in report.failed.files]
    assert report.WhichOneof("what") == "finished", (report.failed.message, logs)
    return report.finished


def log_of(cluster: FakeCluster, report: Any) -> str:
    (entry,) = [entry for entry in report.files if entry.kind == "log"]
    return cluster.blobs[entry.sha256].decode()


def test_the_build_that_fits_is_unpacked_once_and_put_into_the_environment(
    cluster: FakeCluster, start: Any, tmp_path: Path
) -> None:
    cluster.publish("tool", "1.3", "riscv64", tarball({"bin/tool": "#!/bin/false\n"}))
    cluster.publish("tool", "1.3", "any", tarball({"bin/tool": "#!/bin/sh\necho generic\n"}))
    mine = cluster.publish("tool", "1.3", PLATFORM, tarball(TOOL), variables={"TOOL_HOME": "{root}/share"})
    python = (
        "from iceprod_p2p.modules import module_function\nimport toollib\n"
        "@module_function\ndef answer() -> dict[str, float]:\n    return {'answer': toollib.ANSWER}\n"
    )
    doc = document(
        cluster,
        task(
            {"script": "#!/bin/sh\ntool; test ! -w $TOOL_HOME/../bin/tool || test $(id -u) = 0\n"},
            {"python": python, "class": "answer"},
            tray={"environment": {"software": "tool", "version": "1.3"}},
        ),
    )
    cluster.order(doc, job=0)
    cluster.order(doc, job=1)
    start()
    reports = [finished(cluster), finished(cluster)]
    for report in reports:
        assert report.statistics["answer"] == 42.0
        said = log_of(cluster, report)
        (entry,) = (tmp_path / "pilot0" / "cache" / "software").glob("*-tree-0")
        assert said.startswith(f"tool 1.3 of {entry}/tool-1.3/share with {entry}/tool-1.3/lib")
    assert cluster.fetched.count(mine) == 1, "the second task finds it unpacked"


def test_the_nearest_environment_counts(cluster: FakeCluster, start: Any) -> None:
    for name in ("one", "two", "three"):
        cluster.publish(name, "1", "any", tarball({"bin/who": f"#!/bin/sh\necho {name}\n"}))
    who = {"script": "#!/bin/sh\nwho\n"}
    doc = document(
        cluster,
        task(
            {**who},
            {**who, "environment": {"software": "three", "version": "1"}},
            environment={"software": "one", "version": "1"},
        ),
    )
    doc["tasks"][0]["trays"].append(
        {
            "modules": [doc["tasks"][0]["trays"][0]["modules"][0]],
            "environment": {"software": "two", "version": "1"},
        }
    )
    cluster.order(doc)
    start()
    assert log_of(cluster, finished(cluster)).split() == ["one", "three", "two"]


def test_without_a_build_for_the_platform_the_failure_names_those_there_are(
    cluster: FakeCluster, start: Any
) -> None:
    cluster.publish("tool", "1.3", "linux-riscv64", tarball(TOOL))
    cluster.publish("tool", "1.3", "linux-s390x-py3.8", tarball(TOOL))
    cluster.order(
        document(cluster, task({"src": "/bin/true"}, environment={"software": "tool", "version": "1.3"}))
    )
    start()
    failure = failed(cluster)
    assert failure.reason == "software"
    assert "no build for this platform" in failure.message and HERE.arch in failure.message
    assert failure.message.endswith("has linux-riscv64, linux-s390x-py3.8")


@pytest.mark.parametrize(
    ("environment", "reason", "words"),
    [
        ({"software": "nothing", "version": "1"}, "software", "there is no software 'nothing'"),
        ({"cvmfs": "/cvmfs/not.mounted.here"}, "software", "there is no directory '/cvmfs/not.mounted.here'"),
        ({"sha256": "ab" * 32}, "software", "could not be had"),
        ({"container": "images/../../etc"}, "bad_steering", "no absolute path"),
    ],
)
def test_what_cannot_be_had_is_named(
    environment: dict[str, str], reason: str, words: str, cluster: FakeCluster, start: Any
) -> None:
    cluster.order(document(cluster, task({"src": "/bin/true"}, tray={"environment": environment})))
    start()
    failure = failed(cluster)
    assert failure.reason == reason and words in failure.message


def test_a_tarball_that_leaves_its_directory_is_refused(
    cluster: FakeCluster, start: Any, tmp_path: Path
) -> None:
    digest = cluster.put(tarball({"../escaped": "x"}))
    cluster.order(document(cluster, task({"src": "/bin/true"}, tray={"environment": {"sha256": digest}})))
    start()
    failure = failed(cluster)
    assert failure.reason == "bad_steering" and "lies outside it" in failure.message
    assert not list(tmp_path.rglob("escaped"))


def test_an_altered_copy_is_dropped_and_fetched_again(
    cluster: FakeCluster, start: Any, tmp_path: Path
) -> None:
    digest = cluster.put(tarball({"bin/who": "#!/bin/sh\necho good\n"}))
    doc = document(cluster, task({"script": "#!/bin/sh\nwho\n"}, environment={"sha256": digest}))
    cluster.order(doc, job=0)
    start()
    assert log_of(cluster, finished(cluster)) == "good\n"
    (tool,) = (tmp_path / "pilot0" / "cache" / "software").glob("*-tree-0/bin/who")
    tool.chmod(0o755)
    tool.write_text("#!/bin/sh\necho evil\n")
    cached = tmp_path / "pilot0" / "cache" / "sha256" / digest
    cached.chmod(0o600)
    cached.write_bytes(b"evil too")
    cluster.order(doc, job=1)
    assert log_of(cluster, finished(cluster)) == "good\n"
    assert cluster.fetched.count(digest) == 2


def test_a_directory_that_the_machine_has_serves_as_software(
    cluster: FakeCluster, start: Any, tmp_path: Path
) -> None:
    (tmp_path / "cvmfs" / "bin").mkdir(parents=True)
    (tmp_path / "cvmfs" / "bin" / "who").write_text("#!/bin/sh\necho mounted\n")
    (tmp_path / "cvmfs" / "bin" / "who").chmod(0o755)
    cluster.order(
        document(
            cluster, task({"script": "#!/bin/sh\nwho\n"}, environment={"cvmfs": str(tmp_path / "cvmfs")})
        )
    )
    start()
    assert log_of(cluster, finished(cluster)) == "mounted\n"


def test_classes_are_importable_with_their_directories_and_variables(
    cluster: FakeCluster, start: Any
) -> None:
    code = cluster.put(
        tarball(
            {"repo/counting/__init__.py": "N = 7\n", "repo/extra/more.py": "M = 5\n", "repo/lib/x.so": ""}
        )
    )
    module = (
        "from iceprod_p2p.modules import module_function\nimport counting, more, os\n"
        "@module_function\ndef count() -> dict[str, float]:\n"
        "    print(os.environ['COUNT_DATA'])\n"
        "    return {'n': counting.N, 'm': more.M}\n"
    )
    reference = {
        "name": "counting",
        "src": "https://example.org/gone/counting.tar.gz",
        "sha256": code,
        "libs": "extra",
        "env_vars": "COUNT_DATA=$CLASS/data;OTHER=1",
    }
    cluster.order(document(cluster, task({"python": module, "class": "count"}, classes=[reference])))
    start()
    report = finished(cluster)
    assert dict(report.statistics) == {"n": 7.0, "m": 5.0}
    assert log_of(cluster, report).strip().endswith("/repo/data")


def test_a_class_takes_the_inherited_parameters_that_it_declares(cluster: FakeCluster, start: Any) -> None:
    module = (
        "from iceprod_p2p.modules import IPModule\n"
        "class Show(IPModule):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        for name in ('own', 'tray', 'task', 'all', 'unset'):\n"
        "            self.AddParameter(name, '', 0)\n"
        "    def Execute(self, stats):\n"
        "        stats.update({name: self.GetParameter(name) for name in ('own', 'tray', 'task', 'all', 'unset')})\n"
        "        return 0\n"
    )
    cluster.order(
        document(
            cluster,
            task(
                {"python": module, "class": "Show", "parameters": {"Own": 1}},
                tray={"parameters": {"own": 9, "tray": 2}},
                parameters={"tray": 9, "task": 3, "execute": False},
            ),
            own=9,
            task=9,
            all="$eval(2+2)",
            foreign="x",
        )
    )
    start()
    assert dict(finished(cluster).statistics) == {"own": 1, "tray": 2, "task": 3, "all": 4, "unset": 0}


def test_a_shared_input_lies_once_on_the_worker_node(
    cluster: FakeCluster, start: Any, tmp_path: Path
) -> None:
    digest = cluster.record(1, "tables", b"large" * 1_000)
    script = "#!/bin/sh\nreadlink tables; wc -c < tables\n"
    doc = document(cluster, task({"script": script}, data=[data("tables", "input", shared=True)]))  # type: ignore[arg-type]
    cluster.order(doc, job=0)
    cluster.order(doc, job=1)
    start()
    said = {log_of(cluster, finished(cluster)) for _ in range(2)}
    (path,) = (tmp_path / "pilot0" / "cache" / "software").glob("*-file-0/content")
    assert said == {f"{path}\n5000\n"} and cluster.fetched.count(digest) == 1


def can_sandbox() -> str:
    """Return why bubblewrap cannot be used here; empty when it can."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed (Debian: apt-get install bubblewrap)"
    done = subprocess.run(
        ["bwrap", "--unshare-user-try", "--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc", "true"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return f"bubblewrap may not make a sandbox here: {done.stderr.strip()}" if done.returncode else ""


@pytest.fixture
def sandbox() -> None:
    why = can_sandbox()
    if why:
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)


def test_a_module_runs_inside_a_container_and_sees_nothing_else(
    sandbox: None, cluster: FakeCluster, start: Any, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("of the worker node")
    cluster.record(1, "events.in", b"input")
    cluster.publish("tool", "1.3", "any", tarball({"bin/tool": "#!/bin/sh\necho tool in $PWD\n"}))
    cluster.publish("tiny", "1", f"linux-{HERE.arch}", root_filesystem(), kind="container")
    script = (
        "#!/bin/sh\ncat /etc/os-release; cat events.in; echo\n"
        f"ls {tmp_path}/secret 2>/dev/null && echo SEEN\n"
        "ls /work /root 2>/dev/null && echo SEEN\n"
        "touch /etc/evil 2>/dev/null && echo WRITTEN\n"
        "touch $TMPDIR/fine && echo done > events.out\n"
        "echo '{\"pid\": '$$'}' > $ICEPROD_STATISTICS\n"
        "echo path $PATH\n"
    )
    doc = document(
        cluster,
        task(
            {"script": script},
            tray={"environment": {"software": "tiny", "version": "1"}},
            data=[data("events.in", "input"), data("events.out", "output")],
        ),
    )
    cluster.order(doc)
    start()
    report = finished(cluster)
    said = log_of(cluster, report)
    assert "ID=tiny" in said and "input" in said and "path /usr/local/sbin" in said
    assert "SEEN" not in said and "WRITTEN" not in said
    assert report.statistics["pid"] < 20, "it has a process tree of its own"
    (entry,) = [entry for entry in report.files if entry.name == "events.out"]
    assert cluster.blobs[entry.sha256] == b"done\n"


def test_software_is_seen_inside_a_container_given_as_a_blob(
    sandbox: None, cluster: FakeCluster, start: Any
) -> None:
    image = cluster.put(root_filesystem())
    cluster.publish(
        "tool", "1.3", "any", tarball({"bin/tool": "#!/bin/sh\necho tool on ; cat /etc/os-release\n"})
    )
    cluster.order(
        document(
            cluster,
            task(
                {"script": "#!/bin/sh\ntool\n"},
                tray={"environment": {"software": "tool", "version": "1.3"}},
                container=f"iceprod://sha256/{image}/tiny.tar.gz",
            ),
        )
    )
    start()
    assert log_of(cluster, finished(cluster)).split() == ["tool", "on", "ID=tiny", "VERSION_ID=1"]


def test_a_class_runs_inside_a_container_that_has_python(
    sandbox: None, cluster: FakeCluster, start: Any
) -> None:
    module = (
        "from iceprod_p2p.modules import module_function\nimport os\n"
        "@module_function\ndef look() -> dict[str, float]:\n"
        "    return {'pid': os.getpid(), 'writable': os.access('/etc', os.W_OK)}\n"
    )
    cluster.order(document(cluster, task({"python": module, "class": "look"}, container="/")))
    start()
    report = finished(cluster)
    assert report.statistics["pid"] < 20


def test_a_class_needs_no_more_than_python3_of_a_container(
    sandbox: None, cluster: FakeCluster, start: Any, tmp_path: Path
) -> None:
    root = python_filesystem(tmp_path / "image")
    module = (
        "from iceprod_p2p.modules import module_function\nimport os, sys\n"
        "@module_function\ndef look() -> dict[str, float]:\n"
        "    return {'mine': sys.executable == '/usr/bin/python3', 'entries': len(os.listdir('/usr/bin'))}\n"
    )
    cluster.order(document(cluster, task({"python": module, "class": "look"}, container=str(root))))
    start()
    assert dict(finished(cluster).statistics) == {"mine": 1.0, "entries": 1.0}


def test_a_class_in_a_container_without_python_is_told_what_it_needs(
    sandbox: None, cluster: FakeCluster, start: Any
) -> None:
    image = cluster.put(root_filesystem())
    module = {"python": "def look(): pass\n", "class": "look"}
    cluster.order(document(cluster, task(module, container=f"iceprod://sha256/{image}/tiny.tar.gz")))
    start()
    cluster.until(lambda: cluster.reports("failed"), what="a failure")
    message = cluster.reports("failed")[0].failed.message
    assert "needs python3, 3.11 or newer, in its image" in message
    assert "python3" in log_of(cluster, cluster.reports("failed")[0].failed)


def test_what_a_container_leaves_running_is_ended_with_its_task(
    sandbox: None, cluster: FakeCluster, start: Any
) -> None:
    image = cluster.put(root_filesystem())
    long = f"sleep {10_000_000 + os.getpid()}"
    script = f"#!/bin/sh\n{long} &\nexit 0\n"
    cluster.order(
        document(cluster, task({"script": script}, container=f"iceprod://sha256/{image}/tiny.tar.gz"), n=1)
    )
    start()
    finished(cluster)

    def runs() -> bool:
        return any(
            " ".join(process.info["cmdline"] or ()) == long for process in psutil.process_iter(["cmdline"])
        )

    cluster.until(lambda: not runs(), what="the end of what was left running")
