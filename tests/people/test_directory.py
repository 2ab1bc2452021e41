"""Passwords and groups of a real OpenLDAP server: who is let in, what is refused, and how it fails."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from iceprod_p2p.base.config_people import DirectoryConfig
from iceprod_p2p.base.errors import ConfigError, IceProdError, NotAllowed, Unavailable
from iceprod_p2p.model.person import Role
from iceprod_p2p.security.authenticators import Login
from iceprod_p2p.security.directory import DirectoryServer
from tests.people.directory_system import PASSWORD, SEARCHER, SUFFIX, DirectorySystem

BY_TEMPLATE = {"user_dn": f"uid={{name}},ou=people,{SUFFIX}"}
BY_SEARCH = {"user_base": SUFFIX, "bind_dn": SEARCHER}
ROLES = {"simprod": "production", "operators": "operator"}


def server(system: DirectorySystem, **given: Any) -> DirectoryServer:
    """An authenticator for the running server."""
    values: dict[str, Any] = {
        "url": system.url,
        "ca_file": str(system.ca_file),
        "user_dn": "",
        "user_base": "",
        "user_filter": "(uid={name})",
        "name_attribute": "uid",
        "bind_dn": "",
        "bind_password_file": str(system.password_file) if given.get("bind_dn") else "",
        "group_base": f"ou=groups,{SUFFIX}",
        "group_filter": "(|(member={dn})(uniqueMember={dn})(memberUid={name}))",
        "timeout_s": 30,
        "roles": ROLES,
    }
    return DirectoryServer(DirectoryConfig(**{**values, **given}))


@pytest.mark.parametrize("way", [BY_TEMPLATE, BY_SEARCH], ids=["template", "search"])
@pytest.mark.parametrize("scheme", ["ldaps", "start-tls"])
def test_the_right_password_gives_groups_and_the_highest_role(
    directory_system: DirectorySystem, way: dict[str, str], scheme: str
) -> None:
    url = directory_system.url if scheme == "ldaps" else directory_system.plain_url
    asked = server(directory_system, url=url, **way)
    assert asked.authenticate("paul", PASSWORD) == Login(
        "paul", ("simprod",), Role.PRODUCTION, role_is_given=True
    )
    mary = Login("mary", ("operators", "simprod"), Role.OPERATOR, role_is_given=True)
    assert asked.authenticate("mary", PASSWORD) == mary
    assert asked.authenticate("ann", PASSWORD) == Login("ann", (), None, role_is_given=True)


@pytest.mark.parametrize("way", [BY_TEMPLATE, BY_SEARCH], ids=["template", "search"])
@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("paul", ""),  # RFC 4513, 5.1.2: the server would call this an anonymous success.
        ("paul", PASSWORD + " "),
        ("paul", "x" * 100_000),
        ("paul", "\0" + PASSWORD),
        ("paul", "\udcff"),
        ("", PASSWORD),
        ("nobody", PASSWORD),
        ("*", PASSWORD),
        ("pau*", PASSWORD),
        ("PAUL", PASSWORD),  # One entry to the server, but another person to the ledger.
        ("paul)(uid=*", PASSWORD),
        ("paul,ou=people", PASSWORD),
        ("paul\0", PASSWORD),
        ("a" * 5_000, PASSWORD),
    ],
)
def test_everything_else_is_one_refusal_that_tells_nothing(
    directory_system: DirectorySystem, way: dict[str, str], name: str, password: str
) -> None:
    with pytest.raises(NotAllowed, match=r"^wrong name or password"):
        server(directory_system, **way).authenticate(name, password)


def test_what_a_filter_or_a_name_in_the_tree_could_be_bent_with_is_escaped(
    directory_system: DirectorySystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if such names were allowed: they name nobody, and find nobody else."""
    monkeypatch.setattr("iceprod_p2p.security.directory.is_person_name", lambda name: True)
    for way in (BY_TEMPLATE, BY_SEARCH):
        for name in (
            "*",
            "pau*",
            "paul)(uid=*",
            "paul,ou=people",
            "*)(|(uid=paul",
            "paul+cn=paul",
            " paul",
            "#70",
        ):
            with pytest.raises(NotAllowed, match=r"^wrong name or password"):
                server(directory_system, **way).authenticate(name, PASSWORD)


def test_two_entries_for_one_name_are_nobody(directory_system: DirectorySystem) -> None:
    with pytest.raises(NotAllowed, match="wrong name"):
        server(directory_system, **BY_SEARCH).authenticate("twin", PASSWORD)
    narrow = {**BY_SEARCH, "user_base": f"ou=people,{SUFFIX}"}
    assert server(directory_system, **narrow).authenticate("twin", PASSWORD).name == "twin"


def test_a_server_of_another_authority_or_name_gets_no_password(
    directory_system: DirectorySystem, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(str(stranger))
    by_address = directory_system.url.replace("localhost", "127.0.0.1")
    for given in ({"ca_file": str(stranger)}, {"url": by_address}, {"ca_file": ""}):
        with pytest.raises(Unavailable, match="the directory server cannot be asked"):
            server(directory_system, **BY_TEMPLATE, **given).authenticate("paul", PASSWORD)


def test_a_password_never_travels_without_tls(tmp_path: Path) -> None:
    """A server that speaks no TLS hears nothing of the password, whatever it answers."""
    heard = bytearray()
    for scheme in ("ldap", "ldaps"):
        with listener(heard, answer=b"0\x0c\x02\x01\x01a\x07\n\x01\x00\x04\x00\x04\x00") as port:
            asked = DirectoryServer(config(tmp_path, f"{scheme}://localhost:{port}"))
            with pytest.raises(Unavailable):
                asked.authenticate("paul", PASSWORD)
    assert heard and PASSWORD.encode() not in heard and b"paul" not in heard


def test_a_server_that_is_down_or_silent_costs_bounded_time(
    directory_system: DirectorySystem, tmp_path: Path
) -> None:
    directory_system.stop()
    try:
        with pytest.raises(Unavailable, match="cannot be asked"):
            server(directory_system, **BY_TEMPLATE).authenticate("paul", PASSWORD)
    finally:
        directory_system.start()
    assert server(directory_system, **BY_TEMPLATE).authenticate("paul", PASSWORD).name == "paul"
    for scheme in ("ldap", "ldaps"):
        with listener(bytearray(), answer=b"") as port:
            began = time.monotonic()
            with pytest.raises(Unavailable):
                DirectoryServer(config(tmp_path, f"{scheme}://localhost:{port}")).authenticate(
                    "paul", PASSWORD
                )
            assert time.monotonic() - began < 30


def test_a_wrong_searcher_is_the_operators_fault_and_not_the_persons(
    directory_system: DirectorySystem, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("not it\n")
    with pytest.raises(Unavailable, match="invalidCredentials"):
        server(directory_system, **BY_SEARCH, bind_password_file=str(wrong)).authenticate("paul", PASSWORD)
    wrong.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read"):
        server(directory_system, **BY_SEARCH, bind_password_file=str(wrong)).authenticate("paul", PASSWORD)


def test_a_role_that_is_none_is_named(directory_system: DirectorySystem) -> None:
    with pytest.raises(ConfigError, match=r"directory\.roles: 'king', for 'simprod', is no role"):
        server(directory_system, **BY_TEMPLATE, roles={"simprod": "king"})
    with pytest.raises(IceProdError):
        server(directory_system, **BY_TEMPLATE, ca_file="/nonexistent/ca.pem").authenticate("paul", PASSWORD)


def config(directory: Path, url: str) -> DirectoryConfig:
    """A configuration for servers that answer nothing right."""
    authority = directory / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    return DirectoryConfig(
        url=url,
        ca_file=str(authority),
        user_dn=BY_TEMPLATE["user_dn"],
        user_base="",
        user_filter="(uid={name})",
        name_attribute="uid",
        bind_dn="",
        bind_password_file="",
        group_base="",
        group_filter="(member={dn})",
        timeout_s=1,
        roles={},
    )


@contextmanager
def listener(heard: bytearray, *, answer: bytes) -> Iterator[int]:
    """A port that takes what it is told and says `answer` to the first of it."""
    door = socket.create_server(("127.0.0.1", 0))
    open_ones: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                caller, _ = door.accept()
            except OSError:
                return
            open_ones.append(caller)
            caller.settimeout(5)
            try:
                heard.extend(caller.recv(65_536))
                if answer:
                    caller.sendall(answer)
                    heard.extend(caller.recv(65_536))
            except OSError:
                continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield door.getsockname()[1]
    finally:
        door.shutdown(socket.SHUT_RDWR)
        door.close()
        for caller in open_ones:
            caller.close()
        thread.join(10)
