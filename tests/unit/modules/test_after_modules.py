"""Modules for what comes after jobs and datasets: merge, catalogue, and telling people, against real servers."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from iceprod_p2p.base.errors import BadInput, NotFound, Unavailable
from iceprod_p2p.modules.base import IPModule
from iceprod_p2p.modules.context import SiteRefused
from iceprod_p2p.modules.protocol import Answer, SiteCall
from iceprod_p2p.modules.registry import create


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(name: str, **parameters: Any) -> IPModule:
    module = create(name)
    module.pause_s = 0.01  # type: ignore[attr-defined]
    for parameter, value in parameters.items():
        module.SetParameter(parameter, value)
    assert isinstance(module, IPModule)
    return module


def run(name: str, **parameters: Any) -> dict[str, Any]:
    stats: dict[str, Any] = {}
    assert made(name, **parameters).Execute(stats) == 0
    return stats


# Merging.


def test_gathered_files_are_merged_in_the_order_of_their_jobs(here: Path) -> None:
    for job, text in ((10, "c"), (2, "b"), (0, "a")):
        (here / "inputs" / f"{job:08d}" / "deep").mkdir(parents=True)
        (here / "inputs" / f"{job:08d}" / "deep" / "part.txt").write_text(text)
    assert run("Merge", outfile="out/all.txt") == {"files_merged": 3, "bytes_merged": 3}
    assert Path("out/all.txt").read_text() == "abc"
    run("Merge", infiles="inputs/0000000*/deep/*.txt", outfile="few.txt", format="lines")
    assert Path("few.txt").read_text() == "a\nb\n"


def test_tables_keep_one_heading_and_refuse_another(here: Path) -> None:
    Path("a.csv").write_text("run,events\n1,5\n")
    Path("b.csv").write_text("run,events\r\n2,7")
    stats = run("Merge", infiles=["a.csv", "b.csv"], outfile="all.csv", format="csv")
    assert stats["rows_merged"] == 2 and Path("all.csv").read_text() == "run,events\n1,5\n2,7\n"
    Path("c.csv").write_text("run,hits\n3,1\n")
    with pytest.raises(BadInput, match=r"c\.csv has the heading"):
        run("Merge", infiles=["a.csv", "c.csv"], outfile="bad.csv", format="csv")
    assert not Path("bad.csv").exists() and not Path("bad.csv.partial").exists()


def test_arrays_are_joined_end_to_end(here: Path) -> None:
    numpy = pytest.importorskip("numpy")
    for index in range(3):
        numpy.savez(f"{index}.npz", x=numpy.arange(index + 1), y=numpy.ones((index + 1, 2)))
    assert run("Merge", infiles="?.npz", outfile="all.npz", format="npz")["rows_merged"] == 6
    with numpy.load("all.npz") as merged:
        assert merged["x"].tolist() == [0, 0, 1, 0, 1, 2] and merged["y"].shape == (6, 2)
    numpy.savez("odd.npz", z=numpy.ones(1))
    with pytest.raises(BadInput, match=r"odd\.npz has the arrays"):
        run("Merge", infiles=["0.npz", "odd.npz"], outfile="bad.npz", format="npz")


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(NotFound, match="gone"):
        run("Merge", infiles=["gone-*.txt"])
    with pytest.raises(BadInput, match="no format"):
        run("Merge", format="xml")


# The catalogue.


def test_a_catalogue_lists_what_the_site_knows_page_by_page() -> None:
    entries = [
        {"dataset": 1, "job": job, "name": f"{job}.npz", "size_bytes": 10, "sha256": "ab", "kind": kind}
        for job, kind in ((0, "permanent"), (1, "permanent"), (2, "job_temp"))
    ]
    asked = []

    def ask(call: SiteCall) -> Answer:
        asked.append(call.argument)
        assert isinstance(call.argument, dict)
        if call.argument["after"] is None:
            return Answer({"files": entries[:1], "after": [0, "0.npz"]})
        return Answer({"files": entries[1:], "after": None})

    module = made("Catalogue", pattern="*.npz", metadata={"run": 7})
    module.context.ask = ask
    stats: dict[str, Any] = {}
    module.Execute(stats)
    assert stats == {"files_catalogued": 2, "bytes_catalogued": 20}
    document = json.loads(Path("catalogue.json").read_text())
    assert [file["name"] for file in document["files"]] == ["0.npz", "1.npz"]
    assert (document["metadata"], document["count"], len(asked)) == ({"run": 7}, 2, 2)


def test_without_a_site_there_is_no_catalogue() -> None:
    with pytest.raises(SiteRefused, match="without a site"):
        run("Catalogue")


# Mail, to a real server.


class Inbox:
    """A handler of aiosmtpd: keeps messages, and says busy as often as it is told to."""

    def __init__(self) -> None:
        self.messages: list[tuple[list[str], bytes]] = []
        self.busy = 0

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("nobody@"):
            return "550 no such person"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.busy:
            self.busy -= 1
            return "451 come back later"
        self.messages.append((list(envelope.rcpt_tos), envelope.content))
        return "250 OK"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def served(context: ssl.SSLContext, authority: trustme.CA) -> ssl.SSLContext:
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture
def trusted(here: Path, authority: trustme.CA) -> str:
    authority.cert_pem.write_to_path("ca.pem")
    Path("password").write_text("secret\n")
    return "ca.pem"


def mail_server(inbox: Inbox, **options: Any) -> Iterator[str]:
    controller = Controller(inbox, hostname="127.0.0.1", port=0, ready_timeout=60.0, **options)

    def reach() -> None:  # The controller's own would call port 0.
        assert controller.server is not None
        socket.create_connection(controller.server.sockets[0].getsockname()).close()

    controller._trigger_server = reach  # type: ignore[method-assign]
    controller.start()
    try:
        assert controller.server is not None
        yield f"127.0.0.1:{controller.server.sockets[0].getsockname()[1]}"
    finally:
        controller.stop()


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def smtp(inbox: Inbox) -> Iterator[str]:
    yield from mail_server(inbox)


def mail(server: str, /, **more: Any) -> dict[str, Any]:
    given = {"email": ["ada@example.org", "bo@example.org"], "sender": "iceprod@example.org"}
    return run("Notify", **{**given, "smtp": server, "subject": "Dataset 7 is complete", **more})


def test_people_are_told_by_mail_after_a_server_that_was_busy(inbox: Inbox, smtp: str) -> None:
    Path("summary.txt").write_text("12 events\n")
    inbox.busy = 2
    assert mail(smtp, text="Done.\n", text_file="summary.txt") == {"mails_sent": 2}
    ((recipients, content),) = inbox.messages
    message = message_from_bytes(content)
    assert recipients == ["ada@example.org", "bo@example.org"]
    assert (message["Subject"], message["From"]) == ("Dataset 7 is complete", "iceprod@example.org")
    assert message.get_payload() == "Done.\r\n12 events\r\n"
    inbox.busy = 9
    with pytest.raises(Unavailable, match="not reached in 2 attempts: it said 451 'come back later'"):
        mail(smtp, attempts=2)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"email": ["ada@example.org\nBcc: all@example.org"]}, "is no mail address"),
        ({"sender": ""}, "is no mail address"),
        ({"subject": "a\nX-Evil: 1"}, "not one printable line"),
        ({"email": ["nobody@example.org"]}, "takes nothing for"),
        ({"email": []}, "nobody was named"),
        ({"text": "x" * 200_000}, "more than 100000 characters"),
        ({"smtp": "nowhere"}, "is no mail server"),
    ],
)
def test_what_can_never_be_sent_is_said_so(inbox: Inbox, smtp: str, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        mail(smtp, **wrong)
    assert not inbox.messages


def test_a_mail_server_that_wants_tls_and_a_login_gets_them(
    inbox: Inbox, authority: trustme.CA, trusted: str
) -> None:
    def login(server: SMTP, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        good = (data.login, data.password) == (b"iceprod", b"secret")
        return AuthResult(success=good, handled=False)

    context = served(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), authority)
    options = {
        "tls_context": context,
        "require_starttls": True,
        "auth_required": True,
        "authenticator": login,
    }
    for address in mail_server(inbox, **options):
        secure = {"security": "starttls", "ca_file": trusted, "user": "iceprod", "password_file": "password"}
        assert mail(address, **secure) == {"mails_sent": 2}
        with pytest.raises(BadInput, match=r"certificate of 127\.0\.0\.1 is not good"):
            mail(address, **{**secure, "ca_file": ""})
        Path("password").write_text("wrong")
        with pytest.raises(BadInput, match="refused: 535"):
            mail(address, **secure)
    assert len(inbox.messages) == 1


# A web hook, over https.


class Hook(BaseHTTPRequestHandler):
    """Answers with the codes it is given, then with 200; keeps what it was told."""

    codes: list[int]
    told: list[tuple[dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        code = self.codes.pop(0) if self.codes else 200
        if code == 200:
            self.told.append((dict(self.headers), body))
        self.send_response(code)
        if code == 302:
            self.send_header("Location", "https://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_args: Any) -> None:
        return


@pytest.fixture
def hook(authority: trustme.CA) -> Iterator[type[Hook]]:
    handler = type("OneHook", (Hook,), {"codes": [], "told": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    context = served(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), authority)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    handler.url = f"https://127.0.0.1:{server.server_address[1]}/hook"  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield handler
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_a_web_hook_is_called_with_what_happened_signed(
    hook: Any, trusted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICEPROD_DATASET", "7")
    hook.codes = [503, 429]
    given = {"webhook": hook.url, "ca_file": trusted, "secret_file": "password", "data": {"events": 12}}
    assert run("Notify", **given, text="Done.") == {"hooks_called": 1}
    ((headers, body),) = hook.told
    told = json.loads(body)
    assert (told["text"], told["data"], told["dataset"]) == ("Done.", {"events": 12}, "7")
    signature = "sha256=" + hmac.new(b"secret", body, hashlib.sha256).hexdigest()
    assert headers["X-Iceprod-Signature"] == signature


@pytest.mark.parametrize(("codes", "said"), [([404], "refused: 404"), ([302], "refused: 302")])
def test_a_web_hook_that_says_no_is_not_asked_again(
    hook: Any, trusted: str, codes: list[int], said: str
) -> None:
    hook.codes = list(codes)
    with pytest.raises(BadInput, match=said):
        run("Notify", webhook=hook.url, ca_file=trusted)
    assert not hook.told


def test_web_hooks_are_https_with_a_good_certificate(hook: Any) -> None:
    with pytest.raises(BadInput, match="is no https address"):
        run("Notify", webhook=hook.url.replace("https", "http"))
    with pytest.raises(BadInput, match="certificate of the web hook"):
        run("Notify", webhook=hook.url)
    assert not hook.told
