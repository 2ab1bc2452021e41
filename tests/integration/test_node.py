"""One real node: founded, started, asked over mutual TLS, given work, stopped and restarted; and how it
refuses.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from iceprod_p2p.base.errors import NotAllowed, Unavailable
from iceprod_p2p.client.submission import submit_file
from iceprod_p2p.wire.channel import TlsMaterial, blocking_channel
from iceprod_p2p.wire.errors import rpc_errors
from iceprod_p2p.wire.pb import control_pb2, control_pb2_grpc, peer_pb2, peer_pb2_grpc
from tests.integration.node_processes import (
    ROOT,
    NodeProcess,
    leads,
    run_command,
    status_of,
    task_counts,
    wait_for,
)

HELLO = ROOT / "examples" / "hello" / "hello.yaml"
SLOW = """\
version: 3.2
description: Sleep until it is enough
tasks:
  - name: nap
    requirements: {cpu: 1, memory: 0.1, disk: 0.1, time: 0.1}
    trays:
      - modules:
          - {name: nap, src: nap.sh}
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    node = NodeProcess(tmp_path / "madison", "madison")
    yield node
    node.end()


def founded(node: NodeProcess) -> NodeProcess:
    done = node.command("init")
    assert done.returncode == 0, done.stderr
    node.start()
    return node


def slow(node: NodeProcess) -> tuple[Path, Path]:
    """A dataset whose tasks last until a file is there; return its steering and that file."""
    steering, enough = node.directory / "slow.yaml", node.directory / "enough"
    steering.write_text(SLOW)
    (node.directory / "nap.sh").write_text(f"#!/bin/sh\nwhile [ ! -e {enough} ]; do sleep 0.1; done\n")
    return steering, enough


def test_a_founder_answers_over_mutual_tls_and_runs_a_dataset_to_its_end(node: NodeProcess) -> None:
    founded(node)
    with node.connect() as connection:
        wait_for("the founder leads", lambda: leads(connection))
        status = wait_for(
            "it is healthy", lambda: (status := status_of(connection)).health == "healthy" and status
        )
        assert (status.digests_equal, status.leader) == (True, "madison-1")
        number = submit_file(connection, HELLO, jobs=2, seed=7).dataset
        wait_for("all tasks are complete", lambda: task_counts(connection, number) == {"complete": 4})
        detail = connection.call("GetDataset", control_pb2.GetDatasetRequest(dataset=str(number)))
        assert [(site.site, site.complete) for site in detail.sites] == [("madison", 4)]
        files = connection.call("ListFiles", control_pb2.ListFilesRequest(dataset=str(number), job=-2))
        assert sorted({file.name for file in files.files}) == ["count.txt", "greeting.txt"]
        verified = list(connection.stream("VerifyFiles", control_pb2.VerifyFilesRequest(dataset="1", job=-2)))
        assert len(verified) == 4 and all(reply.good for reply in verified)
        checked = connection.call("CheckCluster", control_pb2.CheckClusterRequest())
        assert list(checked.violations) == []
    assert node.stop() == 0
    assert not (node.data / "node.pid").exists()


def test_a_damaged_copy_is_found_and_named(node: NodeProcess) -> None:
    founded(node)
    with node.connect() as connection:
        number = submit_file(connection, HELLO, jobs=1, seed=7).dataset
        wait_for("all tasks are complete", lambda: task_counts(connection, number) == {"complete": 2})
        row = connection.call("ListFiles", control_pb2.ListFilesRequest(dataset=str(number), job=-2)).files[0]
        blob = node.data / "blobs" / row.sha256[:2] / row.sha256[2:4] / row.sha256
        blob.chmod(0o600)
        blob.write_bytes(blob.read_bytes()[:-1] + b"?")
        replies = connection.stream("VerifyFiles", control_pb2.VerifyFilesRequest(dataset="1", job=-2))
        bad = [reply for reply in replies if not reply.good]
        assert [(reply.file.name, reply.site) for reply in bad] == [(row.name, "madison")]
        assert bad[0].found != row.sha256


def test_pilots_run_on_while_the_node_is_down_and_report_when_it_is_back(node: NodeProcess) -> None:
    founded(node)
    steering, enough = slow(node)
    with node.connect() as connection:
        number = submit_file(connection, steering, jobs=2, seed=7).dataset
        wait_for("both run", lambda: task_counts(connection, number) == {"processing": 2})
    pilots = node.pilots("iceprod_pilot.main")  # With it those that it is just starting, for a moment.
    node.kill()
    assert any(pilot.is_running() for pilot in pilots)
    enough.touch()
    node.start()
    with node.connect() as connection:
        wait_for("both are complete", lambda: task_counts(connection, number) == {"complete": 2})
        tasks = connection.call(
            "ListTasks", control_pb2.ListTasksRequest(dataset=str(number), after_job=-1)
        ).tasks
    assert [task.attempt for task in tasks] == [0, 0]
    assert len(list((node.data / "pilots").iterdir())) == 1, "nothing was submitted twice"


def test_a_pilot_that_is_killed_is_accounted_for_and_its_tasks_run_again(node: NodeProcess) -> None:
    founded(node)
    steering, enough = slow(node)
    with node.connect() as connection:
        number = submit_file(connection, steering, jobs=1, seed=7).dataset
        wait_for("it runs", lambda: task_counts(connection, number) == {"processing": 1})
        for process in node.pilots("iceprod_pilot"):
            with contextlib.suppress(psutil.NoSuchProcess):  # One may have ended just now.
                process.kill()
        enough.touch()
        wait_for("it is complete", lambda: task_counts(connection, number) == {"complete": 1})
        (task,) = connection.call("ListTasks", control_pb2.ListTasksRequest(dataset="1", after_job=-1)).tasks
    assert task.attempt >= 1 and task.failures == 0, "a lost pilot uses up no attempt of the payload"


def call_as(node: NodeProcess, material: TlsMaterial) -> control_pb2.WhoAmIReply:
    channel = blocking_channel(node.address, material, server_name="madison-1.madison.demo")
    try:
        with rpc_errors("madison-1"):
            stub = control_pb2_grpc.ControlStub(channel)
            return stub.WhoAmI(control_pb2.WhoAmIRequest(), timeout=20)
    finally:
        channel.close()


def test_strangers_and_wrong_kinds_of_callers_are_refused(node: NodeProcess, tmp_path: Path) -> None:
    founded(node)
    other = NodeProcess(tmp_path / "other", "madison")
    assert other.command("init").returncode == 0
    with node.connect() as connection:
        wait_for("the founder leads", lambda: leads(connection))
        own = connection.context.tls
        stranger = other.connect().context.tls
        # Another cluster of the same name: its certificates verify under its own root only.
        mixed = TlsMaterial(stranger.certificate_chain_pem, stranger.private_key_pem, own.root_pem)
        for material in (mixed, TlsMaterial.anonymous(own.root_pem)):
            with pytest.raises((NotAllowed, Unavailable)):
                call_as(node, material)
        assert call_as(node, own).role == "administrator"
        channel = blocking_channel(node.address, own, server_name="madison-1.madison.demo")
        with pytest.raises(grpc.RpcError) as caught:
            peer_pb2_grpc.PeerStub(channel).HasBlobs(peer_pb2.HasBlobsRequest(), timeout=20)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        channel.close()


def test_bad_submissions_are_one_clear_error_each(node: NodeProcess) -> None:
    founded(node)
    with node.connect() as connection:
        wait_for("the founder leads", lambda: leads(connection))
        for document, words in (
            (b"", "found"),
            (b"<configuration", "found"),
            (b"{" * 5_000, "found"),
            (b"version: 3.2\ntasks: []\n\xff", "found"),
        ):
            with pytest.raises(Exception, match=words):
                connection.call("Submit", control_pb2.SubmitRequest(document=document, jobs=1))
        listed = connection.call("ListDatasets", control_pb2.ListDatasetsRequest())
        assert not listed.datasets


def one_error(done: object) -> str:
    """The one sentence (and remedy) that a failing command printed; no traceback."""
    stderr: str = done.stderr  # type: ignore[attr-defined]
    errors = [line for line in stderr.splitlines() if line.startswith("iceprod-node: ")]
    assert len(errors) == 1 and "Traceback" not in stderr, stderr
    return errors[0]


def test_a_busy_port_a_held_directory_and_a_second_founding_are_each_one_clear_error(
    node: NodeProcess, tmp_path: Path
) -> None:
    assert node.command("init").returncode == 0
    again = node.command("init")
    assert again.returncode == 2 and "belongs to a node already" in one_error(again)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", node.ports[0]))
        taken.listen()
        busy = node.command("start", "--foreground")
        assert busy.returncode == 2 and f"cannot listen on {node.address}" in one_error(busy)
        background = node.command("start")
        assert background.returncode == 2 and "cannot listen" in one_error(background)
    node.start()
    wait_for("it serves", lambda: "node started" in node.log())
    second = node.command("start", "--foreground")
    assert second.returncode != 0 and "is open in another process" in one_error(second)
    assert node.command("status").returncode == 0
    assert node.command("stop").returncode == 0
    assert node.command("status").returncode == 1


def test_an_unusable_directory_and_a_broken_configuration_are_each_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    unusable = run_command(
        *("init", "--config", str(tmp_path / "a.toml"), "--site", "a", "--cluster", "c"),
        *("--data-dir", str(tmp_path / "file" / "data")),
    )
    assert unusable.returncode == 2 and "cannot make the directory" in one_error(unusable)
    (tmp_path / "b.toml").write_text("[node]\nsite = 'B!'\nlisen = 'x'\n")
    broken = run_command("config", "check", "--config", str(tmp_path / "b.toml"))
    assert broken.returncode == 2
    assert "line 3: node.lisen: there is no such setting; did you mean listen?" in broken.stderr
    assert one_error(run_command("start", "--config", str(tmp_path / "none.toml")))


def test_the_configuration_that_init_writes_is_complete_and_says_what_it_leaves_alone(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    done = run_command(
        *(
            "init",
            "--config",
            str(path),
            "--site",
            "a",
            "--cluster",
            "c",
            "--data-dir",
            str(tmp_path / "data"),
        ),
        *("--listen", "127.0.0.1:15001", "--enrol-listen", "127.0.0.1:15002"),
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(run_command("config", "show", "--config", str(path)).stdout)
    assert (shown["node"]["listen"], shown["queue"]["plugin"]) == ("127.0.0.1:15001", "local")
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    keys = [file for file in (tmp_path / "data").rglob("*.key*") if file.is_file()]
    assert keys and all(file.stat().st_mode & 0o077 == 0 for file in keys)
