"""Who may do what, at real servers: proxies of the Grid, WLCG tokens, keys of S3; refused once, and said clearly."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.base.errors import NotAllowed
from iceprod_p2p.transfers.limits import Limits
from tests.transfers.proxies import write_proxy

SLOW = Limits(pause_s=30)  # A second attempt would be seen.
READ, BOTH = "storage.read:/data", "storage.read:/data storage.modify:/data"


def with_token(place: Any, path: Path, token: str) -> Any:
    """The place's credentials with a token in a file of its owner's."""
    path.write_text(token + "\n")
    path.chmod(0o600)
    return dataclasses.replace(place.credentials(), token_file=str(path))


@pytest.mark.parametrize("door", ["root-tokens", "davs-tokens"])
def test_a_wlcg_token_opens_what_its_scopes_say_and_is_read_anew_for_each_transfer(
    servers: Any, moving: Any, tmp_path: Path, door: str
) -> None:
    place, issuer = servers.place(door), servers.place("root-tokens")
    place.write("data/events", b"photons")
    (tmp_path / "result").write_bytes(b"PHOTONS")
    token = tmp_path / "token"
    mover = moving(with_token(place, token, issuer.token(READ)))
    copied = mover.copy(place.url("data/events"), str(tmp_path / "got"), limits=SLOW)
    assert copied.sha256 == hashlib.sha256(b"photons").hexdigest()
    with pytest.raises(NotAllowed):
        mover.copy(str(tmp_path / "result"), place.url("data/new/result"), limits=SLOW)
    token.write_text(issuer.token(BOTH))  # Renewed by whoever renews tokens here.
    mover.copy(str(tmp_path / "result"), place.url("data/new/result"), limits=SLOW)
    assert place.read("data/new/result") == b"PHOTONS"


@pytest.mark.parametrize("door", ["root-tokens", "davs-tokens"])
@pytest.mark.parametrize("wrong", ["none", "expired", "elsewhere", "anothers"])
def test_a_token_that_does_not_open_is_refused_at_once(
    servers: Any, moving: Any, tmp_path: Path, door: str, wrong: str
) -> None:
    place, issuer = servers.place(door), servers.place("root-tokens")
    place.write("data/closed", b"photons")
    token = {
        "none": "",
        "expired": issuer.token(READ, exp=int(time.time()) - 600, nbf=1, iat=1),
        "elsewhere": issuer.token("storage.read:/other"),
        "anothers": issuer.token(READ, iss="https://other.test/"),
    }[wrong]
    credential = with_token(place, tmp_path / "token", token) if token else place.credentials()
    with pytest.raises(NotAllowed) as refused:
        moving(credential).copy(place.url("data/closed"), str(tmp_path / "got"), limits=SLOW)
    assert token[:40] not in str(refused.value) or not token
    assert not (tmp_path / "got").exists()


def test_a_token_file_that_others_can_read_is_not_used(servers: Any, moving: Any, tmp_path: Path) -> None:
    place = servers.place("https")
    place.write("private/secret", b"secret")
    credential = with_token(place, tmp_path / "token", "word")
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(NotAllowed, match="can be read by others"):
        moving(credential).copy(place.url("private/secret"), str(tmp_path / "got"), limits=SLOW)


def test_a_proxy_certificate_opens_gridftp_and_an_expired_one_does_not(
    servers: Any, moving: Any, tmp_path: Path
) -> None:
    place = servers.place("gsiftp")
    place.write("for-proxies", b"photons")
    proxy = tmp_path / "x509up"
    credential = dataclasses.replace(
        place.credentials(), x509_proxy=str(proxy), client_certificate="", client_key=""
    )
    write_proxy(proxy, servers.ground.certificates / "pilot.pem", lifetime_s=3_600)
    copied = moving(credential).copy(place.url("for-proxies"), str(tmp_path / "got"), limits=SLOW)
    assert copied.sha256 == hashlib.sha256(b"photons").hexdigest()
    moving(credential).copy(str(tmp_path / "got"), place.url("by-proxy"), limits=SLOW)
    assert place.read("by-proxy") == b"photons"
    write_proxy(proxy, servers.ground.certificates / "pilot.pem", lifetime_s=-60)
    with pytest.raises(NotAllowed, match="certificate has expired") as refused:
        moving(credential).copy(place.url("for-proxies"), str(tmp_path / "again"), limits=SLOW)
    assert "renew the site's proxy" in refused.value.remedy


def test_nobody_without_a_certificate_is_let_into_gridftp(servers: Any, moving: Any, tmp_path: Path) -> None:
    place = servers.place("gsiftp")
    place.write("for-some", b"photons")
    credential = dataclasses.replace(place.credentials(), client_certificate="", client_key="")
    with pytest.raises(NotAllowed):
        moving(credential).copy(place.url("for-some"), str(tmp_path / "got"), limits=SLOW)


@pytest.mark.parametrize("wrong", ["policy", "secret", "unknown"])
def test_s3_without_permission_says_so_at_once(servers: Any, moving: Any, tmp_path: Path, wrong: str) -> None:
    place = servers.place("s3-keys")
    place.write("closed/object", b"photons")
    changes = {"policy": {}, "secret": {"secret_key": "x" * 40}, "unknown": {"access_key": "AKIA" + "Q" * 16}}
    credential = dataclasses.replace(place.credentials(), **changes[wrong])
    began_s = time.monotonic()
    mover = moving(credential)
    with pytest.raises(NotAllowed, match="no permission") as refused:
        mover.copy(place.url("closed/object"), str(tmp_path / "got"), limits=SLOW)
    assert credential.secret_key not in str(refused.value)
    (tmp_path / "result").write_bytes(b"PHOTONS")
    with pytest.raises(NotAllowed, match="no permission"):
        mover.copy(str(tmp_path / "result"), place.url("closed/result"), limits=SLOW)
    assert time.monotonic() - began_s < 25 and not (tmp_path / "got").exists()


def test_s3_with_permission_is_read_and_written(servers: Any, moving: Any, tmp_path: Path) -> None:
    place = servers.place("s3-keys")
    place.write("open/object", b"photons")
    mover = moving(place.credentials())
    mover.copy(place.url("open/object"), str(tmp_path / "got"), limits=SLOW)
    mover.copy(str(tmp_path / "got"), place.url("open/result"), limits=SLOW)
    assert place.read("open/result") == b"photons"
