"""Credentials that a site hands out: with the files they name, fetched anew, private; faults named without secrets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from iceprod_pilot.storage_credentials import REFRESH_S, StorageCredentials

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.base.errors import ConfigError, Unavailable
from iceprod_p2p.site import handed_credentials as handing
from iceprod_p2p.site.handed_credentials import handed_credentials
from iceprod_p2p.transfers.credentials import Credential, load
from iceprod_p2p.wire.pb import pilot_pb2


def site_file(directory: Path) -> Path:
    (directory / "token").write_text("word")
    (directory / "token").chmod(0o600)
    path = directory / "transfers.toml"
    path.write_text(
        f'[[server]]\nurls = ["https://a/", "davs://a/x"]\ntoken_file = "{directory}/token"\nread_back = false\n'
        '[[server]]\nurls = ["s3://b"]\naccess_key = "k\\"\\\\"\nsecret_key = "å"\nca_directory = "/etc/ca"\n'
    )
    path.chmod(0o600)
    return path


def test_a_file_arrives_as_it_was_with_the_files_that_it_names(tmp_path: Path) -> None:
    source = site_file(tmp_path)
    reply = pilot_pb2.CredentialsReply.FromString(handed_credentials(str(source)).SerializeToString())
    there = StorageCredentials("", fetch=lambda: reply, directory=tmp_path / "p", clock=ManualClock())
    found, meant = load(Path(there.path())).entries, load(source).entries
    assert [dataclasses.replace(entry, token_file="") for entry in found] == [
        dataclasses.replace(entry, token_file="") for entry in meant
    ]
    assert found[0].token_file != meant[0].token_file and found[0].bearer() == "word"
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "p").iterdir()} == {0o600}
    assert (tmp_path / "p").stat().st_mode & 0o777 == 0o700
    there.close()
    assert not (tmp_path / "p").exists()


def test_it_is_fetched_anew_before_it_is_old_and_kept_while_nobody_answers(tmp_path: Path) -> None:
    clock, answers = ManualClock(), [b"one", b"", b"two"]

    def fetch() -> pilot_pb2.CredentialsReply:
        if not (token := answers.pop(0)):
            raise Unavailable("nobody is there")
        server = pilot_pb2.StorageCredential(urls=["https://a/"], files={"token_file": token})
        return pilot_pb2.CredentialsReply(servers=[server])

    def token() -> str:
        return load(Path(there.path())).entries[0].bearer()

    there = StorageCredentials("", fetch=fetch, directory=tmp_path / "p", clock=clock)
    assert (token(), token(), there.generation) == ("one", "one", 1)
    clock.advance(REFRESH_S)
    assert (token(), there.generation) == ("one", 1)
    assert (token(), there.generation) == ("two", 2) and not answers


def test_where_nothing_is_handed_out_the_sites_own_path_is_used(tmp_path: Path) -> None:
    assert (
        StorageCredentials("/x.toml", fetch=None, directory=tmp_path, clock=ManualClock()).path() == "/x.toml"
    )


@pytest.mark.parametrize("wrong", ["missing", "large"])
def test_a_file_that_cannot_travel_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    source = site_file(tmp_path)
    if wrong == "missing":
        (tmp_path / "token").unlink()
    monkeypatch.setattr(handing, "FILES_BYTES_MAX", 3 if wrong == "large" else 99)
    with pytest.raises(ConfigError, match=f"{tmp_path}/token") as refused:
        handed_credentials(str(source))
    assert "word" not in str(refused.value)


def test_nothing_of_a_credential_is_forgotten_on_the_way() -> None:
    known = {field.name for field in dataclasses.fields(Credential)}
    assert known >= set(handing.FILE_FIELDS) and {"urls", "read_back"} <= known
    assert all(isinstance(getattr(Credential(), name), str) for name in known - {"urls", "read_back"})
