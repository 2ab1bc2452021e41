"""What pilots are started with, where worker nodes see the node's directory and where they do not."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from iceprod_p2p.base import config as site_config
from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.grids.base import GridRequest
from iceprod_p2p.grids.files import shell_script
from iceprod_p2p.grids.registry import create
from iceprod_p2p.site.node import make_grid
from iceprod_p2p.site.pilot_files import PilotKit
from tests.unit.site.one_ledger import NOW_MS, OneLedger


def configuration(directory: Path, queue: str = "", kind: str = "") -> SiteConfig:
    return site_config.parse(
        f'[node]\nsite = "madison"\nid = "madison-1"\ncluster = "ice"\ndata_dir = "{directory}"\n'
        f'[queue]\nplugin = "slurm"\n{queue}\n[[queue.class]]\nname = "cpu"\n{kind}\n'
    )


@pytest.fixture(scope="module")
def root_pem() -> bytes:
    ledger = OneLedger()
    ledger.found()
    return ledger.keys.root_pem


def prepared(config: SiteConfig, root_pem: bytes) -> tuple[GridRequest, dict[str, object]]:
    kit = PilotKit(config, root_pem)
    kind = config.queue.classes[0]
    _, request = kit.prepare("p-1", kind, config.node.data_dir / "pilots" / "p-1", [], now_ms=NOW_MS)
    return request, json.loads((config.node.data_dir / "pilots" / "p-1" / "pilot.json").read_text())


def test_where_all_is_shared_the_nodes_python_reads_the_nodes_files(tmp_path: Path, root_pem: bytes) -> None:
    request, content = prepared(configuration(tmp_path), root_pem)
    assert request.executable == sys.executable and not request.carry and request.files_in == ()
    assert content["secret_file"] == f"{tmp_path}/pilots/p-1/secret" and content["scratch"] is True


def test_where_nothing_is_shared_bundle_configuration_and_secret_travel(
    tmp_path: Path, root_pem: bytes
) -> None:
    request, content = prepared(configuration(tmp_path, "shared_directory = false"), root_pem)
    assert request.carry and request.executable == "/usr/bin/python3"
    assert [os.path.basename(path) for path in request.files_in] == ["pilot.json", "secret", "pilot.pyz"]
    assert request.arguments == ("pilot.pyz", "--config", "pilot.json")
    assert "PYTHONPATH" not in request.environment
    assert content["secret_file"] == "secret" and content["work_dir"] == "$SCRATCH/work"
    assert str(tmp_path) not in json.dumps(content)


def test_a_bundle_that_worker_nodes_have_is_not_carried(tmp_path: Path, root_pem: bytes) -> None:
    lines = 'shared_directory = false\nworker_bundle = "/cvmfs/x/pilot.pyz"\nworker_python = "/opt/python3"'
    request, _ = prepared(configuration(tmp_path, lines), root_pem)
    assert [os.path.basename(path) for path in request.files_in] == ["pilot.json", "secret"]
    assert (request.executable, request.arguments[0]) == ("/opt/python3", "/cvmfs/x/pilot.pyz")


def test_a_script_that_carries_files_lays_them_down_for_its_user_alone(
    tmp_path: Path, root_pem: bytes
) -> None:
    lines = 'shared_directory = false\nworker_bundle = "/cvmfs/x/pilot.pyz"\nworker_python = "/bin/ls"'
    request, _ = prepared(configuration(tmp_path, lines), root_pem)
    script = tmp_path / "script"
    script.write_text(shell_script(request))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    os.spawnve(os.P_WAIT, "/bin/sh", ["sh", str(script)], {"TMPDIR": str(scratch), "PATH": "/usr/bin:/bin"})
    (place,) = scratch.iterdir()
    assert place.stat().st_mode & 0o077 == 0
    for path in request.files_in:
        copy = place / os.path.basename(path)
        assert copy.read_bytes() == Path(path).read_bytes() and copy.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("plugin", ["local", "slurm", "sge", "pbs", "htcondor"])
def test_a_site_needs_no_options_for_the_usual_plugins(tmp_path: Path, plugin: str) -> None:
    config = site_config.parse(
        f'[node]\nsite = "madison"\nid = "madison-1"\ncluster = "ice"\ndata_dir = "{tmp_path}"\n'
        f'[queue]\nplugin = "{plugin}"\n'
    )
    assert make_grid(config).capabilities().jobs_per_submit >= 1
    assert list(tmp_path.iterdir()) == []


def test_a_class_beyond_the_local_grid_is_found_without_submitting(tmp_path: Path) -> None:
    config = configuration(tmp_path, kind="slots = 3\ncpus = 2\n")
    grid = create("local", {"spool": str(tmp_path / "spool"), "slots": 4})
    (told,) = PilotKit(config, b"").misfits(grid)
    assert "class cpu" in told and "6 cores" in told and "4 slots" in told
    assert not (tmp_path / "spool").exists()
