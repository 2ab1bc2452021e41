"""ARC's texts, and what is known when its service answers, refuses, or falls silent."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from iceprod_p2p.base.errors import ConfigError, IceProdError
from iceprod_p2p.grids import arc_text as text
from iceprod_p2p.grids.arc import ArcGrid
from iceprod_p2p.grids.base import (
    Completed,
    Failed,
    GridRequest,
    Held,
    Queued,
    Removed,
    Running,
    Tag,
    Unclear,
)
from iceprod_p2p.grids.errors import GridDown, GridError
from iceprod_p2p.grids.registry import create
from iceprod_p2p.security.credentials import PROXY_INFORMATION, delegate, read_credential

REQUEST = GridRequest(
    Tag("madison", "p1"),
    "/usr/bin/python3",
    "/data/p1",
    ("pilot.pyz",),
    files_in=("/data/pilot.json", "/data/secret"),
    walltime_s=3_601,
    cores=2,
    memory_mib=3_001,
    disk_mib=1_500,
    queue='odd "queue"',
    carry=True,
)


def test_a_description_holds_what_was_asked_and_is_read_again() -> None:
    written = text.description(REQUEST, delegation="abc")
    for part in (
        '(jobname="iceprod.madison.p1")',
        '(queue="odd ""queue""")',
        '(wallTime="61 minutes")(cpuTime="122 minutes")(count="2")',
        '(memory="1501")(disk="2")',
        '(delegationid="abc")',
        '(inputFiles=("grid.sh" "")("pilot.json" "")("secret" ""))',
    ):
        assert part in written
    assert text.described(written) == (REQUEST.tag, "/data/p1")
    # As A-REX writes one that came together with others.
    again = (
        '&( executable = "x" )( jobname = "iceprod.a.b" )( environment = ("ICEPROD_WORK_DIRECTORY" "/w") )'
    )
    assert text.described(again) == (Tag("a", "b"), "/w")
    assert text.described('&(jobname="a stranger")') == (None, "")
    assert text.many(["&(a=b)"]) == "&(a=b)" and text.many(["&(a=b)", "&(c=d)"]) == "+(&(a=b))(&(c=d))"


def test_lists_of_one_are_read_like_longer_ones_and_others_refused() -> None:
    assert text.ids({"job": {"id": "a", "state": "RUNNING"}}, "GET") == ["a"]
    assert text.ids({"job": [{"id": "a"}, {"id": "b"}]}, "GET") == ["a", "b"]
    assert text.ids(None, "GET") == []
    with pytest.raises(GridError, match="unknown form"):
        text.rows({"job": "none"}, "GET")


@pytest.mark.parametrize(
    ("word", "failed", "state"),
    [
        ("FINISHED", "", Completed(0)),
        ("FAILED", "LRMS error: (7) Job finished with wrong exit code - 7 != 0\n", Completed(7)),
        ("FAILED", "Job is canceled by external request\n", Removed("Job is canceled by external request")),
        ("FAILED", "User did not upload file\n", Failed("User did not upload file")),
    ],
)
def test_ends_are_told_apart(word: str, failed: str, state: object) -> None:
    diagnosis = "nodename=vm\nWallTime=0.57s\nUserTime=1.00s\nKernelTime=0.50s\nMaxResidentMemory=2452kB\n"
    end = text.end_of("j", word, failed, diagnosis)
    assert (end.state, end.host, end.walltime_s, end.cpu_s, end.memory_mib) == (state, "vm", 0.57, 1.5, 3)


def test_states_of_living_ones() -> None:
    words = ("", "PREPARING", "RUNNING", "FINISHING", "HELD")
    kinds = [type(text.live_state(word)) for word in words]
    assert kinds == [Queued, Queued, Running, Running, Held]


def person(directory: Path) -> tuple[Path, x509.Certificate]:
    """Write what a person's proxy is to us: a certificate with its key in one file."""
    key = rsa.generate_private_key(65_537, 2_048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Pilot One")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=3))
        .sign(key, hashes.SHA256())
    )
    path = directory / "proxy.pem"
    form = serialization.PrivateFormat.TraditionalOpenSSL
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + pem)
    path.chmod(0o600)
    return path, certificate


def test_a_delegated_proxy_is_one_step_below_and_ends_no_later(tmp_path: Path) -> None:
    path, certificate = person(tmp_path)
    key = rsa.generate_private_key(65_537, 2_048)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    pem = request.public_bytes(serialization.Encoding.PEM)
    now_ms = int(datetime.now(UTC).timestamp() * 1_000)
    made = x509.load_pem_x509_certificates(delegate(read_credential(path), pem, serial=99, now_ms=now_ms))
    assert len(made) == 2 and made[1] == certificate
    proxy = made[0]
    proxy.verify_directly_issued_by(certificate)
    assert proxy.subject.rdns[:-1] == certificate.subject.rdns
    assert proxy.public_key() == key.public_key()
    assert proxy.not_valid_after_utc <= certificate.not_valid_after_utc
    assert proxy.extensions.get_extension_for_oid(PROXY_INFORMATION).critical
    damaged = pem.replace(pem[200:204], b"AAAA")
    for wrong in (damaged, b"nonsense", pem[:300]):
        with pytest.raises(IceProdError, match="cannot be used"):
            delegate(read_credential(path), wrong, serial=1, now_ms=now_ms)


class Service:
    """A TLS service that answers each request with the next of its lines, or falls silent."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        server = authority.issue_cert("localhost")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.configure_cert(self.context)
        self.authorities = directory / "authorities.pem"
        authority.cert_pem.write_to_path(str(self.authorities))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.answers: list[bytes] = []
        self.asked: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.listener.getsockname()[1]}/arex"

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
                with self.context.wrap_socket(plain, server_side=True) as secure:
                    self.asked.append(secure.recv(65_536))
                    if self.answers:
                        body = self.answers.pop(0)
                        head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
                        secure.sendall(head.encode() + body)
            except OSError:
                if self.listener.fileno() < 0:
                    return


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    made = Service(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    plain = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: plain(cafile=str(made.authorities)))
    yield made
    made.listener.close()


def grid_at(service: Service, directory: Path) -> ArcGrid:
    path, _ = person(directory)
    made = create("arc", {"url": service.url, "credential": str(path), "delegate": False, "timeout_s": 60})
    assert isinstance(made, ArcGrid)
    return made


def test_a_submission_that_is_not_answered_is_unclear_and_is_not_repeated(
    service: Service, tmp_path: Path
) -> None:
    (result,) = grid_at(service, tmp_path).submit([GridRequest(Tag("a", "b"), "/bin/true", f"{tmp_path}/w")])
    assert isinstance(result, Unclear)
    assert len(service.asked) == 1 and b"action=new" in service.asked[0]


def test_a_question_that_is_not_answered_changed_nothing(service: Service, tmp_path: Path) -> None:
    with pytest.raises(GridDown):
        grid_at(service, tmp_path).status(["a"])


def test_nonsense_is_named(service: Service, tmp_path: Path) -> None:
    service.answers = [b"<html>login</html>"]
    with pytest.raises(GridError, match="no JSON"):
        grid_at(service, tmp_path).status(["a"])


def test_an_address_that_is_none_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no address"):
        create("arc", {"url": "http://ce.example.org", "credential": str(tmp_path / "p")})
