"""Servers that mean harm or are broken: bounded in time and memory, and nothing secret goes to the wrong one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from iceprod_p2p.base.errors import BadInput, IceProdError, IntegrityError, NotAllowed, Unavailable
from iceprod_p2p.transfers.credentials import Credential, Credentials
from iceprod_p2p.transfers.engine import Transfers
from iceprod_p2p.transfers.limits import Limits
from iceprod_p2p.transfers.registry import Registry
from tests.transfers import storages
from tests.transfers.wires import Answering, drip

MIB = 1024 * 1024
SHORT = Limits(attempts=2, pause_s=0.05, timeout_s=1.0)
PATIENT = Limits(
    attempts=2, pause_s=0.05, timeout_s=30.0
)  # Where all goes well, on a machine that may be busy.
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def answering() -> Iterator[Callable[..., Answering]]:
    """Start servers of one answer."""
    made: list[Answering] = []

    def make(answer: Callable[[socket.socket], None] | bytes) -> Answering:
        made.append(Answering((lambda c: c.sendall(answer)) if isinstance(answer, bytes) else answer))
        return made[-1]

    yield make
    for server in made:
        server.close()


def endless(head: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(b"x" * 65_536)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        drip(b""),
        drip(OK + b"X-A: "),
        drip(OK + b"Content-Length: 100000\r\n\r\n"),
        endless(OK + b"X-A: "),
        OK + b"X-A: 1\r\n" * 100_000 + b"\r\n",
        OK + b"Content-Length: 99999999999999999999999\r\n\r\nshort",
        OK + b"Content-Length: 50\r\n\r\nshort",
        OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
        b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
        lambda connection: time.sleep(60),
    ],
    ids=[
        "line",
        "headers",
        "body",
        "endless",
        "many",
        "huge",
        "short",
        "chunk",
        "ssh",
        "nothing",
        "busy",
        "silent",
    ],
)
def test_a_broken_or_hostile_server_costs_little_time_and_leaves_nothing(answering, tmp_path, answer):
    server = answering(answer)
    began_s = time.monotonic()
    with pytest.raises(IceProdError) as told:
        Transfers().copy(server.url, str(tmp_path / "out"), limits=SHORT)
    assert time.monotonic() - began_s < 30 and not list(tmp_path.iterdir())
    assert len(str(told.value)) < 1_500


def test_a_file_without_end_is_ended_at_the_limit_of_size(answering, tmp_path):
    server = answering(endless(OK + b"\r\n"))
    with pytest.raises(BadInput, match="larger than"):
        Transfers().copy(
            server.url, str(tmp_path / "out"), limits=dataclasses.replace(PATIENT, size_max_bytes=4 * MIB)
        )
    assert not list(tmp_path.iterdir())


def test_a_slow_server_that_does_move_is_waited_for(answering, tmp_path):
    def answer(connection: socket.socket) -> None:
        connection.sendall(OK + b"Content-Length: 40960\r\n\r\n")
        for _ in range(20):
            connection.sendall(b"x" * 2_048)
            time.sleep(0.2)

    limits = dataclasses.replace(
        SHORT, timeout_s=3.0
    )  # Less than all of it takes, far more than a byte does.
    copied = Transfers().copy(answering(answer).url, str(tmp_path / "out"), limits=limits)
    assert copied.attempts == 1 and copied.size_bytes == 40_960


def test_redirects_end_and_never_leave_encryption(servers, transfers, tmp_path):
    place = servers.place("https")
    for name in ("loop", "plain"):
        with pytest.raises(BadInput, match="redirects"):
            transfers(place).copy(place.url(name), str(tmp_path / "out"), limits=PATIENT)


def test_credentials_do_not_follow_a_redirect_to_another_server(answering, tmp_path):
    thief = answering(OK + b"Content-Length: 2\r\n\r\nok")
    head = f"HTTP/1.1 307 Away\r\nLocation: {thief.url}\r\nContent-Length: 0\r\n\r\n".encode()
    honest = answering(head)
    credential = Credential(urls=(honest.url.removesuffix("/file"),), token="precious")
    mover = Transfers(Registry(Credentials([credential])))
    mover.copy(honest.url, str(tmp_path / "out"), limits=PATIENT)
    assert b"Bearer precious" in honest.asked[0]
    assert thief.asked and b"precious" not in b"".join(thief.asked)


def test_an_upload_follows_a_redirect_before_its_bytes_are_sent(answering, tmp_path):
    got: list[bytes] = []

    def take(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = b""
        while len(body) < 3 * MIB and (more := connection.recv(65_536)):
            body += more
        got.append(body)
        connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    holder = answering(take)
    head = answering(f"HTTP/1.1 307 There\r\nLocation: {holder.url}\r\nContent-Length: 0\r\n\r\n".encode())
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3 * MIB))
    credential = Credential(urls=(head.url, holder.url), read_back=False)
    mover = Transfers(Registry(Credentials([credential])))
    with pytest.raises(
        IceProdError
    ):  # The head knows no HEAD but redirects it for ever: the file cannot be seen.
        mover.copy(str(source), head.url, limits=dataclasses.replace(SHORT, attempts=1, timeout_s=4.0))
    assert got and got[0] == source.read_bytes()
    assert len(head.asked[0]) < 2_000


def test_a_server_whose_certificate_nobody_vouches_for_is_refused_at_once(servers, tmp_path):
    place = servers.place("https")
    place.write("plain", b"x")
    with pytest.raises(NotAllowed, match="not trusted"):
        Transfers().copy(place.url("plain"), str(tmp_path / "out"), limits=Limits(pause_s=30))


def test_a_token_opens_what_is_closed_to_others(servers, transfers, tmp_path):
    place = servers.place("https")
    place.write("private/a", b"secret")
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(storages.TOKEN + "\n")
    with pytest.raises(NotAllowed, match="permission"):
        transfers(place).copy(place.url("private/a"), str(tmp_path / "out"), limits=Limits(pause_s=30))
    credential = dataclasses.replace(place.credentials(), urls=(place.url("private"),), token_file=str(token))
    mover = Transfers(Registry(Credentials([place.credentials(), credential])))
    assert mover.copy(place.url("private/a"), str(tmp_path / "out"), limits=PATIENT).size_bytes == 6


def test_what_a_server_says_of_its_file_is_compared_when_nobody_promised_anything(answering, tmp_path):
    wrong = hashlib.sha256(b"another").hexdigest()
    server = answering(OK + f"Digest: sha-256={wrong}\r\nContent-Length: 5\r\n\r\nbytes".encode())
    with pytest.raises(IntegrityError, match=wrong):
        Transfers().copy(server.url, str(tmp_path / "out"), limits=PATIENT)
    assert not list(tmp_path.iterdir())


COPY = """
import json, pathlib, sys
from iceprod_p2p.transfers.credentials import Credential, Credentials
from iceprod_p2p.transfers.engine import Transfers
from iceprod_p2p.transfers.registry import Registry
source, url, target, credential = sys.argv[1:]
fields = json.loads(credential)
mover = Transfers(Registry(Credentials([Credential(**fields | {"urls": tuple(fields["urls"])})])))
up, down = mover.copy(source, url), mover.copy(url, target)
assert up.sums == down.sums and mover.measure(url).sums == up.sums
# Of this program alone: what getrusage says includes the process that started it.
lines = pathlib.Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024)
"""


@pytest.mark.parametrize("kind", ["https", "gsiftp", "s3"])
def test_a_large_file_needs_little_memory(servers, tmp_path, kind):
    place = servers.place(kind)
    source = tmp_path / "source"
    size_mib = 96 if kind == "https" else 64
    with source.open("wb") as file:
        for _ in range(size_mib // 16):
            file.write(os.urandom(16 * MIB))
    credential = json.dumps(dataclasses.asdict(place.credentials()))
    line = [
        sys.executable,
        "-c",
        COPY,
        str(source),
        place.url("large-file"),
        str(tmp_path / "back"),
        credential,
    ]
    done = subprocess.run(line, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").stat().st_size == size_mib * MIB
    memory_mib = int(done.stdout.splitlines()[-1])
    print(f"{kind}: {size_mib} MiB up, down and measured in {memory_mib} MiB of memory")
    assert memory_mib < 128
    source.unlink()
    (tmp_path / "back").unlink()


def test_a_package_may_bring_a_scheme_of_its_own(monkeypatch, tmp_path):
    from importlib import metadata

    from iceprod_p2p.transfers.local import LocalStorage

    class Entry:
        name = "tape"

        def load(self):
            class Tape(LocalStorage):
                schemes = ("tape",)

            return lambda credentials: Tape()

    monkeypatch.setattr(metadata, "entry_points", lambda group: [Entry()] if "transfers" in group else [])
    (tmp_path / "reel").write_bytes(b"old")
    copied = Transfers().copy(f"tape://{tmp_path}/reel", str(tmp_path / "new"), limits=SHORT)
    assert (tmp_path / "new").read_bytes() == b"old" and copied.size_bytes == 3
    with pytest.raises(BadInput, match="scheme that is not known"):
        Transfers().copy("moon://base/x", str(tmp_path / "new"), limits=SHORT)


@pytest.mark.parametrize("url", ["https://me:word@host/x", "https://me@host/x"])
def test_a_url_with_a_name_or_password_is_refused_and_not_repeated(url, tmp_path):
    with pytest.raises(BadInput) as told:
        Transfers().copy(url, str(tmp_path / "x"))
    assert "word" not in str(told.value).replace("password", "")


def test_a_query_is_sent_and_never_shown(answering, tmp_path):
    server = answering(b"HTTP/1.1 404 None\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(IceProdError) as told:
        Transfers().copy(f"{server.url}?signature=precious", str(tmp_path / "x"), limits=SHORT)
    assert b"signature=precious" in server.asked[0] and "precious" not in str(told.value)


def test_nothing_of_a_credential_is_shown():
    secrets = ("token", "password", "session_token", "secret_key", "access_key")
    credential = Credential(urls=("s3://b",), **dict.fromkeys(secrets, "precious"))
    assert "precious" not in repr(credential) and "s3://b" in repr(credential)


def test_a_stopped_transfer_of_a_silent_server_ends_soon(answering, tmp_path):
    server = answering(lambda connection: time.sleep(100))
    began_s = time.monotonic()
    limits = Limits(timeout_s=100, wait=lambda seconds: time.monotonic() - began_s > 0.5)
    with pytest.raises(Unavailable):
        Transfers().copy(server.url, str(tmp_path / "out"), limits=limits)
    assert time.monotonic() - began_s < 30
