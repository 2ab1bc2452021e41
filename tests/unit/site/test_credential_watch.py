"""The credential for submission: watched, renewed by a command, and told of when it ends."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import pytest

from iceprod_p2p.base import config as site_config
from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.site.credential_watch import CredentialWatch, credential_state
from iceprod_p2p.site.doctor import Verdict, examine
from iceprod_p2p.site.node import make_grid

NOW_S = 1_800_000_000


def token(path: Path, left_s: int) -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": NOW_S + left_s, "sub": "pilots"}).encode()).decode()
    path.write_text(f"e30.{claims.rstrip('=')}.c2ln")
    path.chmod(0o600)


def configuration(directory: Path, *, command: str = "", plugin: str = "slurm") -> SiteConfig:
    return site_config.parse(
        f'[node]\nsite = "madison"\nid = "madison-1"\ncluster = "ice"\ndata_dir = "{directory}/data"\n'
        f'[queue]\nplugin = "{plugin}"\ncredential = "{directory}/token"\n{command}\n'
        f"credential_renew_s = 600\n"
    )


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(wall_ms=NOW_S * 1_000)


async def test_a_credential_that_lasts_is_left_alone(tmp_path: Path, clock: ManualClock) -> None:
    token(tmp_path / "token", 7_200)
    config = configuration(tmp_path, command='credential_command = ["/bin/false"]')
    watch = CredentialWatch(config.queue, clock)
    await watch.step()
    assert watch.problems() == []
    assert credential_state(config.queue, clock).words == "token, 2 h 0 min left"


async def test_one_that_ends_soon_is_renewed_by_the_command(tmp_path: Path, clock: ManualClock) -> None:
    token(tmp_path / "token", 300)
    token(tmp_path / "new", 7_200)
    line = f'credential_command = ["/bin/cp", "-p", "{tmp_path}/new", "{tmp_path}/token"]'
    watch = CredentialWatch(configuration(tmp_path, command=line).queue, clock)
    await watch.step()
    assert watch.problems() == []
    assert (tmp_path / "token").read_text() == (tmp_path / "new").read_text()


async def test_without_a_command_or_with_one_that_fails_the_trouble_is_told(
    tmp_path: Path, clock: ManualClock
) -> None:
    token(tmp_path / "token", 300)
    watch = CredentialWatch(configuration(tmp_path).queue, clock)
    await watch.step()
    (told,) = watch.problems()
    assert "ends in 5 min" in told
    line = f'credential_command = ["{sys.executable}", "-c", "raise SystemExit(\'no passphrase\')"]'
    watch.use(configuration(tmp_path, command=line).queue)
    await watch.step()
    assert any("no passphrase" in problem for problem in watch.problems())
    clock.advance(400)
    await watch.step()
    assert any("has ended" in problem for problem in watch.problems())
    token(tmp_path / "token", 10_000)
    await watch.step()
    assert watch.problems() == []


def test_a_file_that_others_may_read_or_that_is_missing_is_a_finding(
    tmp_path: Path, clock: ManualClock
) -> None:
    config = configuration(tmp_path)
    assert "cannot be used" in credential_state(config.queue, clock).trouble
    token(tmp_path / "token", 300)
    (tmp_path / "token").chmod(0o644)
    assert "others may read" in credential_state(config.queue, clock).trouble
    (tmp_path / "token").chmod(0o600)
    (finding,) = [entry for entry in examine(config, clock) if entry.what == "credential"]
    assert finding.verdict is Verdict.WARNING and "5 min" in finding.words


def test_plugins_and_their_commands_are_told_where_it_is(tmp_path: Path) -> None:
    commands = make_grid(configuration(tmp_path))._commands  # type: ignore[attr-defined]
    assert commands.environment["X509_USER_PROXY"] == f"{tmp_path}/token"
    with pytest.raises(ConfigError, match="url"):
        make_grid(configuration(tmp_path, plugin="arc"))
