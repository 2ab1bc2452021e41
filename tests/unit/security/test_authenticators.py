"""Local accounts: right passwords only, nothing told about names, files that stay private."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from iceprod_p2p.base.errors import BadInput, ConfigError, NotAllowed
from iceprod_p2p.security.authenticators import LocalAccounts, Login

PASSWORD = "correct horse ½"


@pytest.fixture
def accounts(tmp_path: Path) -> LocalAccounts:
    accounts = LocalAccounts(tmp_path / "accounts")
    accounts.set_password("ada", PASSWORD, groups=("simprod", "cosmic"))
    return accounts


def test_the_right_password_is_accepted_and_is_not_in_the_file(
    accounts: LocalAccounts, tmp_path: Path
) -> None:
    assert accounts.authenticate("ada", PASSWORD) == Login("ada", ("cosmic", "simprod"))
    content = (tmp_path / "accounts").read_bytes()
    assert b"horse" not in content
    assert stat.S_IMODE((tmp_path / "accounts").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("ada", ""),
        ("ada", "correct horse"),
        ("ada", PASSWORD + " "),
        ("ada", PASSWORD + "\0"),
        ("ada", "x" * 100_000),
        ("ada", "\udcff"),
        ("Ada", PASSWORD),
        ("bob", PASSWORD),
        ("", PASSWORD),
        ("ada scrypt:15:AA==:AA==", PASSWORD),
    ],
)
def test_anything_else_is_refused_in_the_same_words(
    accounts: LocalAccounts, name: str, password: str
) -> None:
    with pytest.raises(NotAllowed) as refused:
        accounts.authenticate(name, password)
    assert refused.value.message == "wrong name or password"


def test_passwords_change_and_groups_stay(accounts: LocalAccounts) -> None:
    accounts.set_password("ada", "another password")
    assert accounts.authenticate("ada", "another password").groups == ("cosmic", "simprod")
    with pytest.raises(NotAllowed):
        accounts.authenticate("ada", PASSWORD)
    assert accounts.names() == ("ada",)
    assert accounts.remove("ada") and not accounts.remove("ada")
    with pytest.raises(NotAllowed):
        accounts.authenticate("ada", "another password")


def test_unfit_names_and_passwords_are_not_stored(accounts: LocalAccounts) -> None:
    for name, password, groups in [
        ("a b", PASSWORD, ()),
        ("a\nroot", PASSWORD, ()),
        ("bob", "short", ()),
        ("bob", "x" * 300, ()),
        ("bob", PASSWORD, ("x,y",)),
    ]:
        with pytest.raises(BadInput):
            accounts.set_password(name, password, groups=groups)
    assert accounts.names() == ("ada",)


def test_open_or_damaged_files_are_refused(accounts: LocalAccounts, tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    good = path.read_text()
    for content in (
        "ada\n",
        "ada scrypt:99:AA==:AA==\n",
        "ada scrypt:15:x\n",
        "ada plain:15:AA==:AA==\n",
        "\xff\n",
    ):
        path.write_text(content)
        with pytest.raises(ConfigError, match="accounts"):
            accounts.authenticate("ada", PASSWORD)
    path.write_text(good)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read"):
        accounts.authenticate("ada", PASSWORD)
