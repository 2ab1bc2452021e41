"""A bad world: each fault gives one clear error (what, where, why, what to do), its exit code, and no traceback."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from iceprod_cli.free_ports import free_ports

from iceprod_p2p.base.errors import NotAllowed, Unavailable
from iceprod_p2p.client.contexts import NodeEntry, load_context, write_context
from iceprod_p2p.security.passkeys import PasskeySigner, new_signing_key
from iceprod_p2p.site.node_keys import issue_person, load_keys
from iceprod_p2p.wire.channel import TlsMaterial, blocking_channel
from iceprod_p2p.wire.errors import rpc_errors
from iceprod_p2p.wire.pb import common_pb2, control_pb2, control_pb2_grpc, pilot_pb2, pilot_pb2_grpc
from tests.integration.command_line import CommandLine, Said
from tests.integration.node_processes import COMMAND_S, ROOT, NodeProcess, wait_for
from tests.integration.production import Production, production

HELLO = ROOT / "examples" / "hello" / "hello.yaml"
ONE_TASK = """\
version: 3.2
tasks:
  - name: nap
    requirements: {cpu: 1, memory: 0.1, disk: 0.1, time: 0.1}
    trays: [{modules: [{name: nap, src: nap.sh}]}]
"""
DAY_MS = 86_400_000
SOON_S = 45.0  # Of what is refused at once: nearly all of it is Python starting on a busy machine.
GIVEN_UP_S = 90.0  # Of what is tried for half a minute, the last time for a quarter more.
OWNED = Path(f"/tmp/iceprod-owned-{os.getpid()}")
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    one = NodeProcess(tmp_path_factory.mktemp("bad") / "madison", "madison", slots=1, idle_end_s=600)
    done = one.command("init")
    assert done.returncode == 0, done.stderr
    one.start()
    yield one
    one.end()


@pytest.fixture(scope="module")
def iceprod(node: NodeProcess) -> CommandLine:
    command = CommandLine(node.directory / "config", f"{node.data / 'admin'}/")
    wait_for("the founder leads", lambda: command.process("cluster", "status").code == 0)
    return command


def said(done: subprocess.CompletedProcess[str]) -> Said:
    """What `iceprod-node` said, to look for its one error."""
    return Said(done.returncode, done.stdout, done.stderr)


def refusal(done: subprocess.CompletedProcess[str], *, code: int) -> str:
    """The one error of `iceprod-node`, which ended with `code`."""
    assert done.returncode == code, done
    return said(done).error("iceprod-node")


# Steering files.


def test_every_fault_of_a_steering_file_is_listed_with_its_line(iceprod: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "version: 3.2\n"
        "tasks:\n"
        "  - name: one\n"
        "    depends: [three]\n"
        "    requirements: {cpu: -1}\n"
        "    trays: [{modules: [{name: a, src: a.sh}]}]\n"
        "  - name: one\n"
        "    tray: []\n"
    )
    error = iceprod("submit", str(path), "--jobs", "1", code=2).error()
    lines = [line for line in error.splitlines() if f"{path}:" in line or "line" in line]
    assert len(lines) >= 4, error
    for line, word in ((4, "three"), (5, "cpu"), (7, "one"), (7, "trays")):
        assert any(f"{line}" in found and word in found for found in lines), (line, word, error)
    assert "iceprod steering check" in error


BAD_STEERING = {
    "empty": b"",
    "not XML": b"<configuration><steering>",
    "an entity bomb": b'<!DOCTYPE c [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><configuration>&b;</configuration>',
    "a file of this machine": b'<!DOCTYPE c [<!ENTITY x SYSTEM "file:///etc/passwd">]><configuration>&x;</configuration>',
    "an object of Python": b"!!python/object/apply:os.system ['touch %s']" % bytes(OWNED),
    "aliases that grow": b"a: &a [1,1,1,1]\nb: &b [*a,*a,*a,*a]\nc: [*b,*b,*b,*b]\n",
    "not UTF-8": b"version: 3.2\ntasks: []\n\xff\xfe",
    "deep JSON": b"[" * 100_000,
    "a NUL": b"version: 3.2\x00",
    "nothing to do": b"version: 3.2\ntasks: []\n",
    "a cycle": b"version: 3.2\ntasks:\n- {name: a, depends: [b], trays: []}\n- {name: b, depends: [a], trays: []}\n",
}


@pytest.mark.parametrize("what", BAD_STEERING)
def test_a_steering_file_that_cannot_be_used_is_one_error_that_names_the_file(
    iceprod: CommandLine, tmp_path: Path, what: str
) -> None:
    path = tmp_path / "bad.xml"
    path.write_bytes(BAD_STEERING[what])
    ended = iceprod("submit", str(path), "--jobs", "1", code=2)
    error = ended.error()
    assert "bad.xml" in error and "try: " in error and ended.seconds < SOON_S
    assert not OWNED.exists() and "root:" not in error


def test_a_source_that_is_absent_or_outside_is_named_before_anything_is_sent(
    iceprod: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "nap.sh").write_text("#!/bin/sh\n")
    absent = tmp_path / "in" / "absent.yaml"
    absent.write_text(ONE_TASK)
    error = iceprod("submit", str(absent), "--jobs", "1", code=2).error()
    assert (
        "cannot read the module source 'nap.sh': No such file" in error
        and "beside the steering file" in error
    )
    absent.write_text(ONE_TASK.replace("nap.sh", "../nap.sh"))
    error = iceprod("submit", str(absent), "--jobs", "1", code=2).error()
    assert "lies outside" in error and "try: " in error
    assert iceprod("dataset", "list", "-o", "json").document == []


def test_a_steering_file_that_is_not_there_or_a_directory_is_one_error(
    iceprod: CommandLine, tmp_path: Path
) -> None:
    for path, why in ((tmp_path / "none.xml", "No such file"), (tmp_path, "Is a directory")):
        error = iceprod("submit", str(path), "--jobs", "1", code=2).error()
        assert f"cannot read {path}: {why}" in error


# Contexts and certificates.


def test_without_a_context_the_program_says_how_to_get_one(tmp_path: Path) -> None:
    command = CommandLine(tmp_path)
    for arguments in (("dataset", "list"), ("submit", str(HELLO), "--jobs", "1"), ("whoami",)):
        error = command(*arguments, code=3).error()
        assert "no context" in error and "iceprod context import DIR" in error
    assert "there is no context 'work'" in CommandLine(tmp_path, "work")("whoami", code=3).error()


def test_a_damaged_context_is_named_with_its_directory(node: NodeProcess, tmp_path: Path) -> None:
    for name, content in (
        *(("context.json", b"{"), ("context.json", b'{"nodes": 3}'), ("context.json", b"\xff")),
        *(("person.key.pem", b"no key"), ("person.crt.pem", b""), ("root.crt.pem", b"x" * (2 << 20))),
    ):
        shutil.rmtree(tmp_path / "context", ignore_errors=True)
        shutil.copytree(node.data / "admin", tmp_path / "context")
        (tmp_path / "context" / name).write_bytes(content)
        ended = CommandLine(tmp_path, f"{tmp_path / 'context'}/").process("whoami")
        assert ended.code == 2 and ended.seconds < SOON_S, (name, ended)
        error = ended.error()
        assert str(tmp_path / "context") in error and "try: " in error


def other_context(node: NodeProcess, directory: Path, **changed: Any) -> CommandLine:
    """The command line with a copy of the administrator's context in which some parts are others."""
    own = load_context(f"{node.data / 'admin'}/")
    entry = changed.pop("entry", own.nodes[0])
    parts = {
        "certificate_chain_pem": own.tls.certificate_chain_pem,
        "private_key_pem": own.tls.private_key_pem,
        "root_pem": own.tls.root_pem,
        **changed,
    }
    write_context(directory, cluster="demo", person="admin", nodes=[entry], **parts)
    return CommandLine(directory.parent / "config", f"{directory}/")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> TlsMaterial:
    """The administrator of another cluster of the same name."""
    other = NodeProcess(tmp_path_factory.mktemp("stranger") / "madison", "madison")
    assert other.command("init").returncode == 0
    return load_context(f"{other.data / 'admin'}/").tls


def test_the_context_of_another_cluster_is_refused_at_the_handshake(
    iceprod: CommandLine, node: NodeProcess, stranger: TlsMaterial, tmp_path: Path
) -> None:
    """The caller sees that the server is not of its cluster, and sends it nothing."""
    command = other_context(
        node,
        tmp_path / "theirs",
        certificate_chain_pem=stranger.certificate_chain_pem,
        private_key_pem=stranger.private_key_pem,
        root_pem=stranger.root_pem,
    )
    ended = command.process("dataset", "list")
    assert ended.code == 4 and ended.seconds < SOON_S, ended
    assert "its certificate is not of this cluster" in ended.error() and "try: " in ended.error()


def test_a_certificate_of_another_cluster_is_named_before_it_is_shown(
    iceprod: CommandLine, node: NodeProcess, stranger: TlsMaterial, tmp_path: Path
) -> None:
    command = other_context(
        node,
        tmp_path / "mixed",
        certificate_chain_pem=stranger.certificate_chain_pem,
        private_key_pem=stranger.private_key_pem,
    )
    ended = command.process("dataset", "list")
    assert ended.code == 4 and ended.seconds < SOON_S, ended
    assert "is not one of cluster demo" in ended.error() and "try: " in ended.error()


def test_a_node_lets_in_no_certificate_of_another_cluster_nor_an_expired_one(
    node: NodeProcess, iceprod: CommandLine, stranger: TlsMaterial
) -> None:
    """Whatever a caller's own program thinks of its certificate."""
    own = load_context(f"{node.data / 'admin'}/").tls
    long_ago_ms = int(time.time() * 1_000) - 2 * DAY_MS
    expired = issue_person(people_of(node), "admin", now_ms=long_ago_ms, lifetime_ms=DAY_MS)
    for chain, key in ((stranger.certificate_chain_pem, stranger.private_key_pem), expired):
        with (
            pytest.raises((NotAllowed, Unavailable), match=r"certificate|expired"),
            calls(node, TlsMaterial(chain, key, own.root_pem), control_pb2_grpc.ControlStub) as stub,
        ):
            stub.WhoAmI(control_pb2.WhoAmIRequest(), timeout=60)


def people_of(node: NodeProcess) -> Any:
    """The authority of the founder that vouches for people."""
    keys = load_keys(node.data, cluster="demo", site=node.site, node_id=node.node_id)
    assert keys.people is not None
    return keys.people


def test_an_expired_certificate_says_so_and_what_to_do(
    iceprod: CommandLine, node: NodeProcess, tmp_path: Path
) -> None:
    long_ago_ms = int(time.time() * 1_000) - 2 * DAY_MS
    people = people_of(node)
    chain, key = issue_person(people, "admin", now_ms=long_ago_ms, lifetime_ms=DAY_MS)
    command = other_context(node, tmp_path / "old", certificate_chain_pem=chain, private_key_pem=key)
    ended = command.process("dataset", "list")
    assert ended.code == 4 and ended.seconds < SOON_S, ended
    assert "expired" in ended.error() and "try: " in ended.error()


def test_somebody_without_a_role_may_ask_who_they_are_and_nothing_else(
    iceprod: CommandLine, node: NodeProcess, tmp_path: Path
) -> None:
    now_ms = int(time.time() * 1_000)
    chain, key = issue_person(people_of(node), "guest", now_ms=now_ms, lifetime_ms=DAY_MS)
    command = other_context(node, tmp_path / "guest", certificate_chain_pem=chain, private_key_pem=key)
    assert command("whoami", "--query", "[name, role]").document == ["guest", ""]
    for arguments in (
        *(("dataset", "list"), ("submit", str(HELLO), "--jobs", "1"), ("site", "drain", "madison")),
        *(("cluster", "invite", "geneva"), ("audit",)),
    ):
        error = command(*arguments, code=4).error()
        assert "needs the role" in error and "ask an administrator" in error


def test_a_node_under_another_name_than_expected_is_not_spoken_to(
    iceprod: CommandLine, node: NodeProcess, tmp_path: Path
) -> None:
    entry = NodeEntry("geneva-1", "geneva", node.address, "geneva-1.geneva.demo")
    ended = other_context(node, tmp_path / "wrong", entry=entry).process("whoami")
    assert ended.code == 4 and ended.seconds < SOON_S, ended
    assert "it is another node than the one expected" in ended.error()


# Pilots and passkeys.


@pytest.fixture(scope="module")
def pilot(node: NodeProcess, iceprod: CommandLine) -> TlsMaterial:
    """The identity of a real pilot, that runs a task of dataset 1 for ever."""
    (node.directory / "nap.yaml").write_text(ONE_TASK)
    (node.directory / "nap.sh").write_text("#!/bin/sh\nexec sleep 600\n")
    iceprod("submit", str(node.directory / "nap.yaml"), "--jobs", "1", "--name", "nap")
    wait_for("it runs", lambda: running_task(iceprod)["state"] == "processing")
    (key,) = node.data.rglob("key.pem")
    root_pem = load_context(f"{node.data / 'admin'}/").tls.root_pem
    return TlsMaterial((key.parent / "chain.pem").read_bytes(), key.read_bytes(), root_pem)


def running_task(iceprod: CommandLine) -> dict[str, Any]:
    row: dict[str, Any] = iceprod("task", "show", "nap.0.nap", "-o", "json").document
    return row


@contextmanager
def calls(node: NodeProcess, material: TlsMaterial, stub: Any) -> Iterator[Any]:
    channel = blocking_channel(node.address, material, server_name="madison-1.madison.demo")
    try:
        with rpc_errors("madison-1"):
            yield stub(channel)
    finally:
        channel.close()


def forged_passkey(dataset: int, attempt: int, *, holder: bytes) -> bytes:
    """A passkey that says all the right things, signed by a key that the ledger does not list."""
    signer = PasskeySigner(new_signing_key(), key_id="madison-1", cluster="demo", site="madison")
    return signer.sign(
        dataset=dataset,
        job=0,
        task=0,
        attempt=attempt,
        pilot="p",
        holder=holder,
        passkey_id=b"0" * 16,
        now_ms=0,
        lifetime_ms=10**12,
    )


@pytest.mark.parametrize(
    ("word", "passkey"),
    [
        ("passkey_malformed", b""),
        ("passkey_malformed", b"hello"),
        ("passkey_too_long", b"x" * 5_000),
        ("passkey_signature", forged_passkey(1, 0, holder=b"h" * 32)),
    ],
    ids=["missing", "garbage", "too long", "forged"],
)
def test_a_report_without_a_good_passkey_is_refused_by_name_and_changes_nothing(
    node: NodeProcess, iceprod: CommandLine, pilot: TlsMaterial, word: str, passkey: bytes
) -> None:
    before = running_task(iceprod)
    ref = common_pb2.TaskRef(dataset=int(before["task"].split(".")[0]), attempt=before["attempt"])
    report = pilot_pb2.Report(
        report_id=4_000 + len(passkey), ref=ref, passkey=passkey, finished=pilot_pb2.Finished()
    )
    with calls(node, pilot, pilot_pb2_grpc.PilotsStub) as stub:
        reply = stub.Exchange(
            pilot_pb2.ExchangeRequest(host="h", reports=[report], running=[pilot_pb2.Running(ref=ref)]),
            timeout=60,
        )
    (ack,) = reply.acks
    assert not ack.accepted and ack.refusal == word and ack.detail
    after = running_task(iceprod)
    assert (after["state"], after["attempt"]) == (before["state"], before["attempt"])


def test_a_pilot_may_not_use_the_control_service_nor_a_person_the_pilots(
    node: NodeProcess, pilot: TlsMaterial
) -> None:
    with (
        pytest.raises(NotAllowed, match="a pilot may not call ListDatasets"),
        calls(node, pilot, control_pb2_grpc.ControlStub) as stub,
    ):
        stub.ListDatasets(control_pb2.ListDatasetsRequest(), timeout=60)
    person = load_context(f"{node.data / 'admin'}/").tls
    with (
        pytest.raises(NotAllowed, match="people may not call Exchange"),
        calls(node, person, pilot_pb2_grpc.PilotsStub) as stub,
    ):
        stub.Exchange(pilot_pb2.ExchangeRequest(), timeout=60)


def test_a_pilots_certificate_in_a_context_is_one_error_of_the_command(
    node: NodeProcess, pilot: TlsMaterial, tmp_path: Path
) -> None:
    command = other_context(
        node,
        tmp_path / "pilot",
        certificate_chain_pem=pilot.certificate_chain_pem,
        private_key_pem=pilot.private_key_pem,
    )
    assert "a pilot may not call ListDatasets" in command("dataset", "list", code=4).error()


# Directories, ports, configurations.


def test_a_file_in_place_of_the_data_directory_is_one_error(tmp_path: Path) -> None:
    one = NodeProcess(tmp_path / "madison", "madison")
    one.data.write_text("not a directory")
    error = refusal(one.command("init"), code=2)
    assert str(one.data) in error and len(error.splitlines()) >= 2, error


@contextmanager
def small_disk(path: Path, *, size_mib: int, read_only: bool = False) -> Iterator[Path]:
    """A file system of its own at `path`; the test does without where this account may not mount one."""
    path.mkdir(parents=True, exist_ok=True)
    options = f"size={size_mib}m" + (",ro" if read_only else "")
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted and read_only:
        path.chmod(0o500)
    try:
        yield path
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(path)], check=True)
        else:
            path.chmod(0o700)


def can_write(path: Path) -> bool:
    try:
        (path / "probe").touch()
    except OSError:
        return False
    return True


def test_a_directory_that_cannot_be_written_is_one_error_also_for_root(tmp_path: Path) -> None:
    one = NodeProcess(tmp_path / "madison", "madison")
    with small_disk(tmp_path / "disk", size_mib=1, read_only=True) as disk:
        # Root may write anywhere but on a read-only file system; where it may not mount one, a file must do.
        target = disk if not can_write(disk) else Path("/proc/iceprod")
        one.config.write_text(one.text().replace(str(one.data), str(target / "data")))
        error = refusal(one.command("init"), code=2)
        assert f"{target / 'data'}" in error and len(error.splitlines()) >= 2, error
        demo = CommandLine(tmp_path / "config").process("demo", "--directory", str(target / "demo"))
        assert demo.code == 2 and "cannot write" in demo.error() and "--directory" in demo.error()


def test_busy_ports_are_named_for_both_listeners(
    node: NodeProcess, iceprod: CommandLine, tmp_path: Path
) -> None:
    for which in (0, 1):
        one = NodeProcess(tmp_path / f"busy{which}" / "madison", "madison")
        assert one.command("init").returncode == 0
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", one.ports[which]))
            taken.listen()
            for arguments in (("start", "--foreground"), ("start",)):
                error = refusal(one.command(*arguments), code=2)
                assert f"cannot listen on 127.0.0.1:{one.ports[which]}" in error
        assert one.pilots() == []


def test_a_second_node_on_the_same_data_directory_is_refused_and_disturbs_nothing(
    node: NodeProcess, iceprod: CommandLine, tmp_path: Path
) -> None:
    copy = tmp_path / "site.toml"
    ports = free_ports(2)
    text = node.text().replace(node.address, f"127.0.0.1:{ports[0]}")
    copy.write_text(text.replace(f"127.0.0.1:{node.ports[1]}", f"127.0.0.1:{ports[1]}"))
    for arguments in (("start", "--foreground"), ("start",), ("init",)):
        done = node_command(copy, *arguments)
        assert done.returncode in (1, 2, 5), done
        error = said(done).error("iceprod-node")
        assert str(node.data) in error or "runs already" in error, error
    assert iceprod("cluster", "status", "--query", "health").document == "healthy"
    assert node.command("status").returncode == 0, "the refused node has not taken the pid file away"


def node_command(config: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "iceprod_p2p.daemon", *arguments, "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False, **options)


def test_every_fault_of_a_configuration_is_listed_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(
        '[node]\nsite = "Big City"\nid = 7\ncluster = "demo"\ndata_dir = "relative/path"\nlisten = "nowhere"\n'
        'heartbeat_s = -1\n[queue]\npluggin = "local"\n[[queue.class]]\nname = "cpu"\nslots = "many"\n[sistem]\n'
    )
    for arguments in (("config", "check"), ("start",), ("init",)):
        error = refusal(node_command(path, *arguments), code=2)
        for line, word in (
            *(
                (2, "node.site"),
                (3, "node.id"),
                (5, "node.data_dir"),
                (6, "node.listen"),
                (7, "node.heartbeat_s"),
            ),
            *((9, "queue.pluggin"), (12, "slots"), (13, "sistem")),
        ):
            assert any(text.startswith(f"line {line}: ") and word in text for text in error.splitlines()), (
                line,
                error,
            )
        assert "did you mean plugin?" in error and "did you mean system?" in error


@pytest.mark.parametrize(
    "content", [b"[node\n", b"\xff\xfe", b"a = 1\n" * 1_000_000, b"x = " + b"[" * 50_000]
)
def test_a_configuration_that_is_no_toml_is_one_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "site.toml").write_bytes(content)
    assert str(tmp_path / "site.toml") in refusal(
        node_command(tmp_path / "site.toml", "config", "check"), code=2
    )


def test_a_batch_system_that_does_not_exist_is_named(tmp_path: Path) -> None:
    one = NodeProcess(tmp_path / "madison", "madison")
    one.config.write_text(one.text().replace('plugin = "local"', 'plugin = "cluster-x"'))
    error = refusal(one.command("config", "check"), code=2)
    assert "cluster-x" in error and "local" in error and "slurm" in error, error


# Full disks.


def file_limit(size_bytes: int) -> Any:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))

    return limit


def fill(disk: Path) -> None:
    """Leave not one free page on the file system of `disk`."""
    with (disk / "filling").open("wb", buffering=0) as file:
        for size in (1 << 20, 4_096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError as full:
                assert full.errno == errno.ENOSPC


def test_a_node_that_starts_on_a_full_disk_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_mib=16) as disk:
        one = NodeProcess(disk / "madison", "madison")
        assert one.command("init").returncode == 0
        if os.path.ismount(disk):
            fill(disk)
            done = one.command("start", "--foreground")
        else:
            done = node_command(one.config, "start", "--foreground", preexec_fn=file_limit(4_096))
        assert done.returncode in (1, 2, 5), done
        error = said(done).error("iceprod-node")
        assert "space" in error or "too large" in error.lower() or "full" in error, error
        if os.path.ismount(disk):
            (disk / "filling").unlink()
            one.start()
            try:
                wait_for("it serves once there is room", lambda: "node started" in one.log())
            finally:
                one.end()


def test_a_disk_that_fills_up_under_a_node_is_named_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_mib=32) as disk:
        one = NodeProcess(disk / "madison", "madison", slots=1)
        if not os.path.ismount(disk):
            pytest.skip("this account may not mount a file system, and a file limit would hit the log first")
        # A disk of this size would refuse every document before it is full.
        one.config.write_text(one.text() + "[system]\nfree_disk_mib_least = 0\n")
        assert one.command("init").returncode == 0
        one.start()
        try:
            command = CommandLine(tmp_path / "config", f"{one.data / 'admin'}/")
            wait_for("it leads", lambda: command.process("cluster", "status").code == 0)
            command("site", "drain", "madison")
            command("submit", str(HELLO), "--jobs", "3", "--name", "before")
            fill(disk)
            ended = command.process("submit", str(HELLO), "--jobs", "3", "--name", "after", timeout_s=120)
            assert ended.code in (1, 5), ended
            assert "space" in ended.error() or "full" in ended.error(), ended
            (disk / "filling").unlink()
            one.end()
            one.start()
            wait_for("it is back", lambda: command.process("cluster", "status").code == 0)
            aliases = command("dataset", "list", "--query", "[].alias").document
            assert "before" in aliases
            assert "0 violations" in command("cluster", "check").stdout
        finally:
            one.end()


# Invitations.


def test_wrong_and_late_invitations_are_each_one_error(
    node: NodeProcess, iceprod: CommandLine, tmp_path: Path
) -> None:
    newcomer = NodeProcess(tmp_path / "geneva", "geneva")
    good = iceprod("cluster", "invite", "geneva").stdout.split()[-1]
    for line in ("hello", good[: len(good) // 2], good.replace("geneva", "zurich"), "x" * 100_000):
        error = refusal(newcomer.command("join", line), code=2)
        assert "invitation" in error and len(error) < 2_000, error
    nobody = good.replace(f"127.0.0.1:{node.ports[1]}", f"127.0.0.1:{free_ports(1)[0]}")
    gone = newcomer.command("join", nobody)
    assert gone.returncode in (2, 5), gone  # The line's own check word may already tell that it was changed.
    assert said(gone).error("iceprod-node")
    assert newcomer.command("join", good).returncode == 0
    thief = NodeProcess(tmp_path / "thief", "geneva")
    error = refusal(thief.command("join", good), code=4)
    assert "already used" in error and len(error.splitlines()) >= 2, error


def test_an_expired_invitation_is_refused_by_name(
    node: NodeProcess, iceprod: CommandLine, tmp_path: Path
) -> None:
    from iceprod_p2p.client.connection import Connection

    late = NodeProcess(tmp_path / "zurich", "zurich")
    with Connection(load_context(iceprod.context)) as connection:

        def ledger_time_ms() -> int:
            return int(connection.call("ListSites", control_pb2.ListSitesRequest()).info.ledger_time_ms)

        line = connection.call("Invite", control_pb2.InviteRequest(site="zurich", lifetime_s=1)).line
        made_ms = ledger_time_ms()
        wait_for("it has expired", lambda: ledger_time_ms() > made_ms + 1_000)
    error = refusal(late.command("join", line.split()[-1]), code=4)
    assert "expired" in error and len(error.splitlines()) >= 2, error


# No quorum.


@pytest.fixture(scope="module")
def headless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    """Three voters of which two have been killed, with a dataset from before."""
    with production(tmp_path_factory.mktemp("headless") / "cluster") as running:
        running.submit(HELLO, jobs=2, seed=5)
        for name in ("zeuthen", "uppsala"):
            running.kill_site(running.site(name))
        yield running


@pytest.fixture(scope="module")
def patient(
    headless: Production, node: NodeProcess, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Said]:
    """What commands said that had to give up after their half minute; all at once, to wait for it once."""
    directory = tmp_path_factory.mktemp("patient")
    entry = NodeEntry("madison-1", "madison", f"127.0.0.1:{free_ports(1)[0]}", "madison-1.madison.demo")
    nowhere = other_context(node, directory / "nowhere", entry=entry)
    command = CommandLine(directory / "config", f"{headless.cluster.context_directory}/")
    runs = {
        "submit": (command, ("submit", str(HELLO), "--jobs", "1")),
        "suspend": (command, ("dataset", "suspend", "1")),
        "read": (command, ("dataset", "list")),
        "nowhere": (nowhere, ("whoami",)),
    }
    with ThreadPoolExecutor(len(runs)) as pool:
        ended = pool.map(lambda run: run[0].process(*run[1], timeout_s=2 * GIVEN_UP_S), runs.values())
        return dict(zip(runs, ended, strict=True))


def test_a_node_that_is_not_there_is_one_error_within_bounded_time(patient: dict[str, Said]) -> None:
    ended = patient["nowhere"]
    assert ended.code == 5 and ended.seconds < GIVEN_UP_S, ended
    error = ended.error()
    assert "cannot reach madison-1 at 127.0.0.1:" in error and "check that it is running" in error


def test_without_a_quorum_writes_end_with_5_in_bounded_time_and_stale_reads_answer(
    headless: Production, patient: dict[str, Said], tmp_path: Path
) -> None:
    command = CommandLine(tmp_path, f"{headless.cluster.context_directory}/")
    for word in ("submit", "suspend", "read"):
        run = patient[word]
        assert run.code == 5 and run.seconds < GIVEN_UP_S, (word, run)
        error = run.error()
        assert "try: " in error and "cannot reach" not in error, "the node that lives says why it cannot"
    stale = command.process("dataset", "list", "--stale", "-o", "json")
    assert stale.code == 0 and stale.seconds < SOON_S, stale
    assert [row["dataset"] for row in stale.document] == [1]
    status = command.process("cluster", "status", "-o", "json")
    assert status.code == 2 and status.seconds < SOON_S, status
    assert status.document["health"] == "no_quorum"
    silent = [m["site"] for m in status.document["members"] if not m["reachable"]]
    assert sorted(silent) == ["uppsala", "zeuthen"] and status.document["problems"]


def test_a_quorum_that_comes_back_takes_writes_again(headless: Production, tmp_path: Path) -> None:
    headless.cluster.start(headless.site("zeuthen"))
    command = CommandLine(tmp_path, f"{headless.cluster.context_directory}/")
    # What was asked without a quorum may still have been carried out, so something new is asked here.
    again = ("submit", str(HELLO), "--jobs", "1")
    wait_for("writes are taken", lambda: command.process(*again).code == 0, timeout_s=120)

    def health() -> str:
        said = command.process("cluster", "status", "-o", "json").stdout
        return str(json.loads(said)["health"]) if said else "nobody answers"

    wait_for("two of three voters are enough", lambda: health() == "degraded")
