"""External modules from a real https server and real repositories on loopback, which the policy of the test allows."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from iceprod_p2p.base.errors import BadInput, NotAllowed, NotFound, Unavailable
from iceprod_p2p.model.external import parse_external
from iceprod_p2p.modules.external import Bounds, fetch
from iceprod_p2p.modules.outbound import OutboundPolicy, parse_networks
from tests.integration.archives import tarball
from tests.integration.https_server import HttpsServer, cut_short, drip, endless

MODULE = b"def run(): return 1\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpsServer]:
    server = HttpsServer(tmp_path_factory.mktemp("https"))
    server.files["module.py"] = MODULE
    yield server
    server.close()


@pytest.fixture
def policy(server: HttpsServer) -> OutboundPolicy:
    return OutboundPolicy(networks=parse_networks(["127.0.0.0/8", "::1"]), ca_file=str(server.ca_file))


def get(
    src: str,
    policy: OutboundPolicy,
    target: Path,
    *,
    size: int = 1_000_000,
    time_s: float = 120.0,
    revision: str = "",
) -> str:
    return fetch(
        parse_external(src, revision),
        target,
        policy=policy,
        bounds=Bounds(size_bytes_max=size, time_s=time_s),
    )


def test_a_file_is_fetched_as_it_is(server: HttpsServer, policy: OutboundPolicy, tmp_path: Path) -> None:
    assert get(server.url("module.py"), policy, tmp_path / "m") == server.url("module.py")
    assert (tmp_path / "m").read_bytes() == MODULE


def test_loopback_is_refused_unless_the_site_allows_it(server: HttpsServer, tmp_path: Path) -> None:
    asked = len(server.asked)
    for src in (server.url("module.py"), f"git+https://localhost:{server.port}/tools.git"):
        with pytest.raises(NotAllowed, match="the node itself"):
            get(src, OutboundPolicy(ca_file=str(server.ca_file)), tmp_path / "m")
    assert len(server.asked) == asked and not (tmp_path / "m").exists()


def test_a_server_that_is_not_who_it_should_be_is_refused(server: HttpsServer, tmp_path: Path) -> None:
    policy = OutboundPolicy(networks=parse_networks(["127.0.0.0/8", "::1"]))
    with pytest.raises(Unavailable, match="is not who it should be"):
        get(server.url("module.py"), policy, tmp_path / "m")


@pytest.mark.parametrize(
    ("aim", "error", "words"),
    [
        ("/module.py", None, ""),
        ("module.py", None, ""),
        ("https://10.0.0.1/module.py", NotAllowed, "private"),
        ("https://169.254.169.254/latest/meta-data", NotAllowed, "local link"),
        ("https://[::ffff:10.0.0.1]/m.py", NotAllowed, "private"),
        ("http://localhost/module.py", BadInput, "not fetched by"),
        ("file:///etc/passwd", BadInput, "not fetched by"),
        ("/around", BadInput, "redirects more than"),
    ],
)
def test_redirects_are_judged_like_any_address(
    aim: str,
    error: type[Exception] | None,
    words: str,
    server: HttpsServer,
    policy: OutboundPolicy,
    tmp_path: Path,
) -> None:
    server.redirects["around"] = aim
    if error is None:
        get(server.url("around"), policy, tmp_path / "m")
        assert (tmp_path / "m").read_bytes() == MODULE
        return
    with pytest.raises(error, match=words):
        get(server.url("around"), policy, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_what_takes_too_long_or_is_too_large_or_ends_early_is_given_up(
    server: HttpsServer, policy: OutboundPolicy, tmp_path: Path
) -> None:
    server.special.update({"drip.py": drip(20), "endless.py": endless, "short.py": cut_short})
    server.files["large.py"] = b"x" * 5_000
    begin_s = time.monotonic()
    with pytest.raises(Unavailable, match="takes too long"):
        get(server.url("drip.py"), policy, tmp_path / "m", time_s=0.5)
    assert time.monotonic() - begin_s < 10
    for name in ("endless.py", "large.py"):
        with pytest.raises(BadInput, match="larger than the 1000 bytes"):
            get(server.url(name), policy, tmp_path / "m", size=1_000)
    with pytest.raises(Unavailable, match=r"too early|broke off"):
        get(server.url("short.py"), policy, tmp_path / "m")
    with pytest.raises(NotFound):
        get(server.url("nothing.py"), policy, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_an_archive_that_pilots_would_refuse_is_refused_at_once(
    server: HttpsServer, policy: OutboundPolicy, tmp_path: Path
) -> None:
    server.files["good.tar.gz"] = tarball({"pkg/__init__.py": ""})
    server.files["evil.tar.gz"] = tarball({"../evil": ""})
    get(server.url("good.tar.gz"), policy, tmp_path / "m")
    with pytest.raises(BadInput, match="lies outside it"):
        get(server.url("evil.tar.gz"), policy, tmp_path / "m")


def test_files_and_trees_of_a_repository_are_fetched_at_a_revision(
    server: HttpsServer, policy: OutboundPolicy, tmp_path: Path
) -> None:
    files = {"count/__init__.py": "N = 7\n", "count/deep.py": "", "run.py": "print(1)\n"}
    commit = server.repository("tools", files, tag="v1")
    src = f"git+https://localhost:{server.port}/tools.git"
    assert get(f"{src}@v1#run.py", policy, tmp_path / "file") == commit
    assert (tmp_path / "file").read_text() == "print(1)\n"
    assert get(src, policy, tmp_path / "whole") == commit
    assert get(src, policy, tmp_path / "again", revision=commit) == commit
    with tarfile.open(tmp_path / "whole") as tar:
        assert {"count/__init__.py", "count/deep.py", "run.py"} <= set(tar.getnames())
    digests = {sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("whole", "again")}
    assert len(digests) == 1, "the same commit gives the same bytes"
    get(f"{src}#count", policy, tmp_path / "part", revision="main")
    with tarfile.open(tmp_path / "part") as tar:
        assert {"__init__.py", "deep.py"} <= set(tar.getnames())


def test_what_a_repository_lacks_is_named(
    server: HttpsServer, policy: OutboundPolicy, tmp_path: Path
) -> None:
    server.repository("few", {"a.py": "x" * 5_000})
    src = f"git+https://localhost:{server.port}/few.git"
    with pytest.raises(NotFound, match="has no revision 'v9'"):
        get(f"{src}@v9", policy, tmp_path / "m")
    with pytest.raises(NotFound, match=r"has no 'b\.py'"):
        get(f"{src}#b.py", policy, tmp_path / "m")
    with pytest.raises(BadInput, match="larger than the 1000 bytes"):
        get(f"{src}#a.py", policy, tmp_path / "m", size=1_000)
    with pytest.raises(Unavailable, match="git could not fetch"):
        get(f"git+https://localhost:{server.port}/none.git", policy, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_repository_that_redirects_is_not_followed(
    server: HttpsServer, policy: OutboundPolicy, tmp_path: Path
) -> None:
    server.redirects["moved.git/info/refs"] = "https://10.0.0.1/tools.git/info/refs?service=git-upload-pack"
    with pytest.raises(Unavailable, match="git could not fetch"):
        get(f"git+https://localhost:{server.port}/moved.git", policy, tmp_path / "m")


def test_a_repository_that_takes_too_long_is_given_up(
    server: HttpsServer, policy: OutboundPolicy, tmp_path: Path
) -> None:
    server.special["slow.git/info/refs"] = drip(20)
    begin_s = time.monotonic()
    with pytest.raises(Unavailable, match="takes too long"):
        get(f"git+https://localhost:{server.port}/slow.git", policy, tmp_path / "m", time_s=1.0)
    assert time.monotonic() - begin_s < 10


STEERING = """
tasks:
- name: count
  classes: [{{name: counting, src: {archive}, sha256: {digest}}}]
  trays:
  - modules:
    - {{class: counting.Count, src: {file}}}
"""
COUNTING = b"""from iceprod_p2p.modules import IPModule
class Count(IPModule):
    def Execute(self, stats):
        import beside
        stats["found"] = beside.WORD
        return 0
"""


def test_a_job_run_here_fetches_its_external_modules_and_says_what_they_were(
    server: HttpsServer, tmp_path: Path
) -> None:
    server.files["counting.py"] = COUNTING
    packed = tarball({"beside.py": b"WORD = 7\n"})
    server.files["beside.tar.gz"] = packed
    steering = tmp_path / "job.yaml"
    words = {"archive": server.url("beside.tar.gz"), "file": server.url("counting.py")}

    def run(digest: str, *more: str) -> subprocess.CompletedProcess[str]:
        steering.write_text(STEERING.format(**words, digest=digest))
        line = [
            sys.executable,
            "-m",
            "iceprod_cli.main",
            "run-local",
            str(steering),
            "--out",
            str(tmp_path / "out"),
        ]
        return subprocess.run([*line, *more, "-o", "json"], capture_output=True, text=True, timeout=120)

    refused = run(sha256(packed).hexdigest())
    assert refused.returncode == 4 and "the node itself" in refused.stderr, refused
    site = tmp_path / "site.toml"
    site.write_text(f'[external]\nnetworks = ["127.0.0.0/8", "::1"]\nca_file = "{server.ca_file}"\n')
    done = run(sha256(packed).hexdigest(), "--external", str(site))
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["tasks"][0]["statistics"]["found"] == 7
    assert f"counting.py, SHA-256 {sha256(COUNTING).hexdigest()}" in done.stderr
    other = run("0" * 64, "--external", str(site))
    assert other.returncode != 0 and f"has SHA-256 {sha256(packed).hexdigest()}, not 000" in other.stderr
