"""A payload bent on the pilot's secrets tries every way there is, and gets none of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from iceprod_pilot.config import load
from iceprod_pilot.isolation import Isolation, make_isolation

from iceprod_p2p.base.errors import ConfigError
from tests.integration.pilot_fakes import FakeCluster, document, write_config
from tests.integration.test_pilot import Pilot, gone, payload_pid, sleeper, task

THIEF = """\
import ctypes, json, os, subprocess, sys
found, tried = {}, []


def attempt(way, take):
    tried.append(way)
    try:
        taken = take()
    except (OSError, ValueError) as refusal:
        return
    if taken:
        found[way] = repr(taken)[:200]


def content(path):
    with open(path, "rb") as file:
        return file.read(4096)


def memory(pid):
    with open(f"/proc/{pid}/maps") as file:
        first = file.readline().split("-")[0]
    with open(f"/proc/{pid}/mem", "rb", 0) as file:
        file.seek(int(first, 16))
        return file.read(64)


def traced(pid):
    library = ctypes.CDLL(None, use_errno=True)
    if library.ptrace(16, int(pid), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    library.ptrace(17, int(pid), 0, 0)
    return b"attached"


def uncovered(path):
    library = ctypes.CDLL(None, use_errno=True)
    if library.umount2(path.encode(), 2) != 0:
        raise OSError(ctypes.get_errno(), "umount")
    return os.listdir(path)


state, pilot = STATE, PILOT
for name in ("key.pem", "chain.pem", "journal", "nodes.json"):
    attempt(f"file {name}", lambda name=name: content(f"{state}/{name}"))
attempt("list", lambda: os.listdir(state))
attempt("site's keys", lambda: content(f"{KEYS}/node.key"))
attempt("uncover", lambda: uncovered(state))
inner = f"umount {state}; ls -A {state}"
words = ["unshare", "-Urm", "sh", "-c", inner]
attempt("further namespace", lambda: subprocess.run(words, stdout=-1, stderr=-3).stdout)
attempt("environ", lambda: content(f"/proc/{pilot}/environ"))
attempt("mem", lambda: memory(pilot))
attempt("ptrace", lambda: traced(pilot))
attempt("descriptors", lambda: [os.readlink(f"/proc/{pilot}/fd/{fd}") for fd in os.listdir(f"/proc/{pilot}/fd")])
outside = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid()]
for pid in outside:
    attempt("through others", lambda pid=pid: content(f"/proc/{pid}/root{state}/key.pem"))
fds = [fd for fd in range(3, 64) if os.path.exists(f"/proc/self/fd/{fd}")]
attempt("inherited", lambda: [os.readlink(f"/proc/self/fd/{fd}") for fd in fds])
attempt("variables", lambda: [name for name, value in os.environ.items() if "PRIVATE KEY" in value])
with open("kept", "w") as file:
    file.write("files are written as before")
print(json.dumps({"found": found, "tried": sorted(set(tried)), "owner": os.stat("kept").st_uid == os.getuid()}))
"""


WAYS = 15


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    made = FakeCluster()
    made.add_node("home")
    yield made
    made.close()


@pytest.fixture
def start(cluster: FakeCluster, tmp_path: Path) -> Iterator[Any]:
    pilots: list[Pilot] = []

    def start(**changes: Any) -> Pilot:
        pilots.append(Pilot(write_config(tmp_path / "pilot", cluster, **changes)))
        return pilots[-1]

    yield start
    for pilot in pilots:
        pilot.stop()
        sys.stdout.write(pilot.log.read_text())


def test_a_payload_reads_neither_key_nor_passkey_by_any_way(
    cluster: FakeCluster, start: Any, tmp_path: Path
) -> None:
    keys = tmp_path / "site" / "keys"
    keys.mkdir(parents=True)
    (keys / "node.key").write_text("of the site")
    pilot = start(isolation="required", hidden=[str(keys)])
    cluster.until(lambda: cluster.exchanges, what="a pilot that has enrolled")
    state = tmp_path / "pilot" / "state"
    assert (state / "key.pem").stat().st_size > 100  # It is there, for the pilot.
    text = f"#!{sys.executable}\n" + THIEF.replace("STATE, PILOT", f"{str(state)!r}, {pilot.process.pid}")
    text = text.replace("{KEYS}", str(keys))
    cluster.order(document(cluster, task("steal", {"script": text})))
    cluster.until(lambda: cluster.accepted, what="a report")
    (report,) = cluster.accepted
    assert report.WhichOneof("what") == "finished", report
    said = json.loads(cluster.blobs[report.finished.files[0].sha256].decode())
    assert said["found"] == {} and said["owner"]
    assert len(said["tried"]) == WAYS, said["tried"]


def test_an_isolated_module_ends_is_measured_and_killed_as_any_other(
    cluster: FakeCluster, start: Any, tmp_path: Path
) -> None:
    start(isolation="required", slots=1)
    words = {"script": f"#!{sys.executable}\nx = bytearray(300 << 20)\nimport time; time.sleep(1)\n"}
    cluster.order(document(cluster, task("large", words)))
    cluster.order(document(cluster, task("bad", {"script": "#!/bin/sh\nexit 7\n"})), job=1)
    cluster.order(
        document(cluster, task("no", {"class": "Executable", "parameters": {"executable": "nope"}})), job=2
    )
    cluster.until(lambda: len(cluster.accepted) == 3, what="three reports")
    large, bad, missing = sorted(cluster.accepted, key=lambda report: report.ref.job)
    assert large.finished.usage.memory_peak_mib >= 300
    assert bad.failed.exit_code == 7
    assert missing.failed.exit_code == 127 and "no program" in missing.failed.message
    ref = cluster.order(sleeper(cluster), job=3)
    pid = payload_pid(tmp_path, cluster)
    assert not gone(pid)
    cluster.void.add(ref)  # As if it was taken away.
    cluster.until(lambda: gone(pid), what="the payload's end")


def test_isolation_that_is_required_and_does_not_work_ends_the_pilot_by_name(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    config = load(write_config(tmp_path / "pilot", cluster, isolation="required"))
    with pytest.raises(ConfigError, match="there is no bwrap"):
        make_isolation(config, {"PATH": str(tmp_path)})
    other = load(write_config(tmp_path / "pilot", cluster, isolation="auto"))
    assert not make_isolation(other, {"PATH": str(tmp_path)}).works
    liar = tmp_path / "bwrap"
    liar.write_text("#!/bin/sh\necho key.pem\n")
    liar.chmod(0o755)
    with pytest.raises(ConfigError, match="shows what it should hide"):
        make_isolation(config, {"PATH": str(tmp_path)})


def test_a_state_that_lies_in_a_hidden_directory_of_the_node_is_hidden_with_it(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    """As at every site whose pilots share the node's data directory."""
    pilots = tmp_path / "data" / "pilots"
    state = pilots / "p-test" / "state"
    state.mkdir(parents=True)
    (state / "key.pem").write_text("the pilot's")
    changes: dict[str, Any] = {"isolation": "required", "hidden": [str(pilots)], "state_dir": str(state)}
    config = load(write_config(tmp_path / "pilot", cluster, **changes))
    isolation = make_isolation(config, os.environ)
    line = isolation.wrap(["/bin/sh", "-c", f"ls -A {pilots}"], os.environ, tmp_path)
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    assert isolation.works and done.stdout == ""


def test_credentials_that_are_meant_for_modules_are_there_and_nothing_else(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    given = {"transfer_for_modules": True, "transfer_handed": True}
    config = load(write_config(tmp_path / "pilot", cluster, isolation="required", **given))
    state = tmp_path / "pilot" / "state"
    state.mkdir()
    (state / "key.pem").write_text("the pilot's")
    isolation = make_isolation(config, os.environ)
    (state / "storage" / "credentials.toml").write_text("of the site")
    words = ["/bin/sh", "-c", f"ls {state}; cat {state}/storage/*"]
    done = subprocess.run(
        isolation.wrap(words, os.environ, tmp_path), check=True, capture_output=True, text=True
    )
    assert done.stdout == "storage\nof the site"


def test_what_isolation_costs_a_short_task(cluster: FakeCluster, start: Any, tmp_path: Path) -> None:
    config = load(write_config(tmp_path / "pilot", cluster, isolation="required"))
    (tmp_path / "pilot" / "state").mkdir()
    isolation = make_isolation(config, os.environ)
    argv = isolation.wrap(["/bin/true"], os.environ, tmp_path)
    times: dict[str, list[float]] = {"bare": [], "isolated": []}
    for _ in range(15):
        for name, words in (("bare", ["/bin/true"]), ("isolated", argv)):
            began_s = time.perf_counter()
            subprocess.run(words, check=True)
            times[name].append(time.perf_counter() - began_s)
    cost_ms = 1_000 * (min(times["isolated"]) - min(times["bare"]))
    print(f"isolation costs {cost_ms:.1f} ms for each module")
    assert cost_ms < 100  # About three on a quiet machine.


def _isolated(isolation: Isolation, words: str, work: Path) -> str:
    """What a shell says that runs as a module does."""
    argv = isolation.wrap(["/bin/sh", "-c", words], os.environ, work)
    return subprocess.run(argv, check=False, capture_output=True, text=True).stdout


def _write(path: Path, content: str) -> Path:
    """Put a file in place as what renews credentials does: written beside it, then renamed."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.new")
    scratch.write_text(content)
    scratch.chmod(0o600)
    scratch.replace(path)
    return path


def _with_credentials(
    cluster: FakeCluster, tmp_path: Path, isolation: str = "required"
) -> tuple[Any, Path, Path]:
    """A pilot's configuration, and the places of the site's file of credentials and of a token that it names."""
    file, token = tmp_path / "site" / "credentials.toml", tmp_path / "tokens" / "dav.token"
    work = tmp_path / "pilot" / "work"
    work.mkdir(parents=True)
    changes = {"isolation": isolation, "transfer_credentials": str(file), "work_dir": str(work)}
    return load(write_config(tmp_path / "pilot", cluster, **changes)), file, token


SERVER = '[[server]]\nurls = ["https://dav.example.org/"]\ntoken_file = "{}"\n'


def test_credentials_stay_hidden_from_a_running_module_when_they_are_renewed_by_rename(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    config, file, token = _with_credentials(cluster, tmp_path)
    _write(file, SERVER.format(token))
    _write(token, "first")
    isolation = make_isolation(config, os.environ)
    words = f"echo ready; read line; cat {file} {token}"
    argv = isolation.wrap(["/bin/sh", "-c", words], os.environ, tmp_path)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as module:
        assert module.stdout is not None and module.stdout.readline() == "ready\n"
        _write(file, SERVER.format(token) + "# renewed\n")
        _write(token, "second")
        said, _ = module.communicate("go on\n", timeout=120)
    assert said == ""
    assert token.read_text() == "second", "the pilot itself reads it"


def test_files_and_directories_that_come_after_the_pilot_began_are_hidden_too(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    config, file, token = _with_credentials(cluster, tmp_path)
    isolation = make_isolation(config, os.environ)  # Neither is there yet.
    words = f"echo ready; read line; cat {file}"
    argv = isolation.wrap(["/bin/sh", "-c", words], os.environ, tmp_path)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as module:
        assert module.stdout is not None and module.stdout.readline() == "ready\n"
        _write(file, SERVER.format(token))
        _write(token, "first")
        said, _ = module.communicate("go on\n", timeout=120)
    assert said == "", "what is written while a module runs"
    assert _isolated(isolation, f"cat {file} {token}", tmp_path) == "", "what the file names since then"


def test_a_secret_in_a_directory_that_modules_need_is_refused_where_isolation_is_required(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    config, file, _ = _with_credentials(cluster, tmp_path)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    token = _write(shared / "dav.token", "first")
    _write(file, SERVER.format(token))
    with pytest.raises(ConfigError, match=r"dav\.token lies in .*shared, which others may enter"):
        make_isolation(config, os.environ)
    beside = _write(tmp_path / "pilot" / "proxy", "first")
    _write(file, SERVER.format(token).replace("token_file", "x509_proxy").replace(str(token), str(beside)))
    with pytest.raises(ConfigError, match="which modules need"):
        make_isolation(config, os.environ)


def test_what_cannot_be_hidden_for_good_is_hidden_as_far_as_it_goes_where_isolation_is_not_required(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    config, file, _ = _with_credentials(cluster, tmp_path, isolation="auto")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    token = _write(shared / "dav.token", "secret")
    other = _write(shared / "data", "for modules")
    _write(file, SERVER.format(token))
    isolation = make_isolation(config, os.environ)
    assert _isolated(isolation, f"cat {token} {other}", tmp_path) == "for modules"


def test_a_link_to_a_secret_hides_where_it_leads(cluster: FakeCluster, tmp_path: Path) -> None:
    config, file, token = _with_credentials(cluster, tmp_path)
    target = _write(tmp_path / "vault" / "first", "secret")
    token.parent.mkdir(mode=0o700)
    token.symlink_to(target)
    _write(file, SERVER.format(token))
    isolation = make_isolation(config, os.environ)
    assert _isolated(isolation, f"cat {token} {target}", tmp_path) == ""
