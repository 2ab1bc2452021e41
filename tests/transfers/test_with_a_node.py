"""The example of off-line processing on a real node and a real server; its stored files verified by address."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.client.submission import submit_file
from iceprod_p2p.wire.pb import control_pb2
from tests.integration.node_processes import ROOT, NodeProcess, task_counts, wait_for
from tests.transfers.test_with_pilots import credentials_file

EXAMPLE = ROOT / "examples/offline"


class OfflineNode(NodeProcess):
    """A node that knows a storage."""

    storage = credentials = ""

    def text(self) -> str:
        return (
            super().text()
            + f'[system]\nparameters = {{ storage = "{self.storage}" }}\n'
            + f'[transfers]\ncredentials = "{self.credentials}"\nhand_out = true\n'
        )


@pytest.fixture
def node(servers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OfflineNode]:
    place = servers.place("https")
    path = tmp_path / "transfers.toml"
    monkeypatch.setattr(OfflineNode, "credentials", credentials_file(path, place.credentials()))
    monkeypatch.setattr(OfflineNode, "storage", place.url("offline").rstrip("/"))
    node = OfflineNode(tmp_path / "madison", "madison")
    yield node
    node.end()


def test_the_offline_example_reads_and_writes_by_url_and_its_files_are_verified_there(
    servers: Any, node: OfflineNode
) -> None:
    place = servers.place("https")
    spec = importlib.util.spec_from_file_location("make_data", EXAMPLE / "make_data.py")
    assert spec is not None and spec.loader is not None
    make_data = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_data)
    for run in make_data.RUNS:
        place.write(f"offline/raw/run_{run}.csv", make_data.raw(run).encode())
    done = node.command("init")
    assert done.returncode == 0, done.stderr
    node.start()
    with node.connect() as connection:
        number = submit_file(connection, EXAMPLE / "offline.yaml", jobs=3, seed=7).dataset
        wait_for(
            "all tasks are complete",
            lambda: task_counts(connection, number) == {"complete": 3},
            timeout_s=180,
        )
        for run in make_data.RUNS:
            rows = list(csv.DictReader(io.StringIO(place.read(f"offline/selected/run_{run}.csv").decode())))
            wanted = list(csv.DictReader(io.StringIO(make_data.raw(run))))
            assert rows == [row for row in wanted if float(row["energy_gev"]) >= 2.5] and len(rows) > 100

        def verified() -> dict[str, tuple[bool, str]]:
            request = control_pb2.VerifyFilesRequest(dataset=str(number), job=-2)
            replies = list(connection.stream("VerifyFiles", request))
            assert all(reply.good for reply in replies if not reply.url)
            return {reply.url[-12:]: (reply.good, reply.found) for reply in replies if reply.url}

        def recorded() -> dict[str, tuple[bool, str]]:
            request = control_pb2.ListFilesRequest(dataset=str(number), job=-2)
            files = connection.call("ListFiles", request).files
            assert all(set(row.checksums) == {"md5", "adler32"} for row in files)
            copies = [copy for row in files for copy in row.url_copies]
            assert all(copy.site == "madison" and copy.verified_ms for copy in copies)
            return {copy.url[-12:]: (copy.good, copy.found_sha256) for copy in copies}

        assert recorded() == {}
        names = [f"run_{run}.csv" for run in make_data.RUNS]
        assert verified() == dict.fromkeys(names, (True, ""))
        assert {name: good for name, (good, _) in recorded().items()} == dict.fromkeys(names, True)
        place.write(f"offline/selected/{names[0]}", b"spoilt")
        place.path(f"offline/selected/{names[1]}").unlink()
        found = verified()
        assert found[names[2]] == (True, "") and found[names[1]] == (False, "")
        assert found[names[0]] == (False, hashlib.sha256(b"spoilt").hexdigest())
        assert recorded()[names[0]] == found[names[0]] and recorded()[names[1]] == (False, "")
        assert recorded()[names[2]][0] is True
