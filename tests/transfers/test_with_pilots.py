"""Real pilots with real storage servers: inputs verified before a task runs, outputs stored, nothing secret told."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.transfers.credentials import Credential
from tests.integration.pilot_fakes import FakeCluster, document
from tests.integration.test_pilot import cluster, data, failed, start, task
from tests.transfers import storages
from tests.transfers.proxies import write_proxy

__all__ = ["cluster", "start"]
WAIT_S = 60.0  # GridFTP makes keys for every connection, which busy machines do slowly.


def credentials_file(path: Path, *entries: Credential) -> str:
    """Write the site's file."""
    lines = []
    for entry in entries:
        lines.append("[[server]]")
        for field in dataclasses.fields(entry):
            value = getattr(entry, field.name)
            if value != field.default:
                lines.append(f"{field.name} = {json.dumps(list(value) if field.name == 'urls' else value)}")
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize("kind", ["https", "gsiftp", "root", "s3"])
def test_a_task_reads_and_writes_by_url(
    servers: Any, tmp_path: Path, cluster: FakeCluster, start: Any, kind: str
) -> None:
    place = servers.place(kind)
    place.write("in/events", b"photons")
    md5 = hashlib.md5(b"photons").hexdigest()
    inputs = [
        data(place.url("in/events"), "input", local="events", checksum=f"md5:{md5}"),
        data(place.url("out/result å.txt"), "output", local="result", type="permanent"),
    ]
    script = {"script": "#!/bin/sh\ntr a-z A-Z < events > result\n"}
    cluster.order(document(cluster, task("shout", script, data=inputs)), disk_mib=64)
    start(transfer_credentials=credentials_file(tmp_path / "credentials.toml", place.credentials()))
    cluster.until(lambda: cluster.accepted, what="a report", seconds=WAIT_S)
    (report,) = cluster.accepted
    assert report.WhichOneof("what") == "finished", report
    assert place.read("out/result å.txt") == b"PHOTONS"
    (entry,) = [entry for entry in report.finished.files if entry.kind == "permanent"]
    assert list(entry.urls) == [place.url("out/result å.txt")]
    assert entry.sha256 == hashlib.sha256(b"PHOTONS").hexdigest()
    adler32 = f"{zlib.adler32(b'PHOTONS'):08x}"
    assert dict(entry.checksums) == {"md5": hashlib.md5(b"PHOTONS").hexdigest(), "adler32": adler32}


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
@pytest.mark.parametrize("where", ["url", "job"])
def test_an_input_that_is_not_as_promised_stops_the_task_before_it_runs(
    servers: Any, tmp_path: Path, cluster: FakeCluster, start: Any, algorithm: str, where: str
) -> None:
    place = servers.place("https")
    place.write("spoilt", b"something else")
    cluster.record(1, "spoilt", b"something else")
    promised = hashlib.new(algorithm, b"what was promised").hexdigest()
    found = hashlib.new(algorithm, b"something else").hexdigest()
    name = place.url("spoilt") if where == "url" else "spoilt"
    inputs = [data(name, "input", local="events", checksum=f"{algorithm}:{promised}")]
    ran = tmp_path / "ran"
    script = {"script": f"#!/bin/sh\ntouch {ran}\n"}
    cluster.order(document(cluster, task("read", script, data=inputs)))
    start(transfer_credentials=credentials_file(tmp_path / "credentials.toml", place.credentials()))
    failure = failed(cluster)
    assert failure.reason == "input_checksum"
    assert name in failure.message and promised in failure.message and found in failure.message
    assert not ran.exists()


def test_a_transfer_module_moves_blobs_and_urls_where_the_site_lets_it(
    servers: Any, tmp_path: Path, cluster: FakeCluster, start: Any
) -> None:
    place = servers.place("https")
    credential = dataclasses.replace(place.credentials(), token=storages.TOKEN)
    blob = cluster.put(b"of the cluster")
    steps: list[dict[str, Any]] = [
        {
            "class": "Transfer",
            "parameters": {"source": f"iceprod://sha256/{blob}/x", "destination": place.url("private/y")},
        },
        {"class": "Transfer", "parameters": {"source": place.url("private/y"), "destination": "back"}},
    ]
    cluster.order(document(cluster, task("move", *steps, data=[data("back", "output")])))
    pilot = start(
        transfer_credentials=credentials_file(tmp_path / "credentials.toml", credential),
        transfer_for_modules=True,
    )
    cluster.until(lambda: cluster.accepted, what="a report", seconds=WAIT_S)
    (report,) = cluster.accepted
    assert report.WhichOneof("what") == "finished", report
    files = {entry.name: entry for entry in report.finished.files}
    assert cluster.blobs[files["back"].sha256] == place.read("private/y") == b"of the cluster"
    said = pilot.log.read_bytes() + str(cluster.accepted).encode() + b"".join(cluster.blobs.values())
    assert storages.TOKEN.encode() not in said


def test_a_module_that_the_site_does_not_let_has_no_credentials(
    servers: Any, tmp_path: Path, cluster: FakeCluster, start: Any
) -> None:
    place = servers.place("https")
    place.write("private/secret", b"secret")
    credential = dataclasses.replace(place.credentials(), token=storages.TOKEN)
    step = {"class": "Transfer", "parameters": {"source": place.url("private/secret"), "destination": "x"}}
    cluster.order(document(cluster, task("move", step)))
    start(transfer_credentials=credentials_file(tmp_path / "credentials.toml", credential))
    assert "not trusted" in failed(cluster).message


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('[[server]]\nurls = ["https://x/"]\ntoken = "t-1234"\nmode = 1\n', "there is no such setting"),
        ("token = ", "is not TOML"),
        (None, "can be read by others"),
    ],
)
def test_a_wrong_file_of_credentials_is_the_sites_fault_and_says_nothing_secret(
    tmp_path: Path, cluster: FakeCluster, start: Any, wrong: str | None, said: str
) -> None:
    path = tmp_path / "credentials.toml"
    path.write_text(wrong or "")
    path.chmod(0o600 if wrong else 0o644)
    cluster.order(
        document(cluster, task("read", {"src": "/bin/true"}, data=[data("https://x/y", "input", local="y")]))
    )
    start(transfer_credentials=str(path))
    failure = failed(cluster)
    assert failure.reason == "storage" and said in failure.message and "t-1234" not in failure.message


def test_what_the_site_hands_out_serves_pilot_and_modules_is_private_and_goes_with_the_pilot(
    servers: Any, tmp_path: Path, cluster: FakeCluster, start: Any
) -> None:
    site = tmp_path / "site"  # No worker node sees this.
    site.mkdir()
    token, proxy = site / "token", site / "x509up"
    token.write_text(storages.TOKEN)
    token.chmod(0o600)
    write_proxy(proxy, servers.ground.certificates / "pilot.pem", lifetime_s=3_600)
    dav, grid = servers.place("https"), servers.place("gsiftp")
    grid.write("handed", b"photons")
    cluster.credentials = credentials_file(
        site / "transfers.toml",
        dataclasses.replace(dav.credentials(), token_file=str(token)),
        dataclasses.replace(grid.credentials(), x509_proxy=str(proxy), client_certificate="", client_key=""),
    )
    steps = (
        {"script": "#!/bin/sh\nstat -c '%a %n' $(dirname $ICEPROD_TRANSFER_CREDENTIALS)/* > modes\n"},
        {
            "class": "Transfer",
            "parameters": {"source": "events", "destination": dav.url("private/handed")},
        },
    )
    moves = [data(grid.url("handed"), "input", local="events"), data("modes", "output")]
    cluster.order(document(cluster, task("move", *steps, data=moves)))
    pilot = start(transfer_handed=True, transfer_for_modules=True)
    cluster.until(lambda: cluster.accepted, what="a report", seconds=WAIT_S)
    (report,) = cluster.accepted
    assert report.WhichOneof("what") == "finished", report
    assert dav.read("private/handed") == b"photons"
    files = {entry.name: entry for entry in report.finished.files}
    modes = [line.split() for line in cluster.blobs[files["modes"].sha256].decode().splitlines()]
    assert len(modes) == 4 and {mode for mode, _ in modes} == {"600"}, modes
    assert not any(str(site) in path for _, path in modes)
    cluster.drain = True
    assert pilot.wait() == 0
    assert not any(Path(path).exists() for _, path in modes)
    secrets = (storages.TOKEN.encode(), b"PRIVATE KEY", proxy.read_bytes()[:200])
    said = pilot.log.read_bytes() + str(cluster.accepted).encode() + b"".join(cluster.blobs.values())
    assert not any(secret in said for secret in secrets)
