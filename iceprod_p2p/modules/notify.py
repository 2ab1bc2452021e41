"""Notify: tell people that something is done, by e-mail or by a call of a web hook.

Used in tasks that come after a job or a dataset; like every task it runs once for the ledger, and may, after a fault
of a worker node, tell twice.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import smtplib
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, TypeVar

from iceprod_p2p.base.errors import BadInput, Unavailable
from iceprod_p2p.modules.base import IPModule, Statistics
from iceprod_p2p.modules.statistics import clip

TEXT_CHARS_MAX: Final = 100_000
RECIPIENTS_MAX: Final = 50
TIMEOUT_S: Final = 30.0
PAUSE_S: Final = 1.0  # Before the second attempt; doubled for each further one.
REPLY_BYTES_MAX: Final = 64 * 1024
T = TypeVar("T")


class Notify(IPModule):
    """Send an e-mail, or call a web hook over https with JSON, or both."""

    def __init__(self) -> None:
        super().__init__()
        self.AddParameter("email", "addresses to write to", [], "string_list")
        self.AddParameter("sender", "address that it comes from", "", "string")
        self.AddParameter("smtp", "host:port of the mail server", "localhost:25", "string")
        self.AddParameter("security", "of the mail server: none, starttls or tls", "none", "string")
        self.AddParameter("user", "name to log in with at the mail server", "", "string")
        self.AddParameter("password_file", "file of the worker node with its password", "", "string")
        self.AddParameter("webhook", "https address to call", "", "string")
        self.AddParameter(
            "secret_file", "file with a secret to sign the call with (HMAC-SHA-256)", "", "string"
        )
        self.AddParameter("ca_file", "authorities to trust instead of the worker node's", "", "string")
        self.AddParameter("subject", "one line", "IceProd: a task has ended", "string")
        self.AddParameter("text", "what to say", "", "string")
        self.AddParameter("text_file", "file whose content follows the text", "", "string")
        self.AddParameter("data", "what the web hook is sent beside subject and text", {}, "json")
        self.AddParameter("attempts", "how often to try", 4, "int")
        self.pause_s = PAUSE_S

    def Execute(self, stats: Statistics) -> int:
        """Tell; Unavailable when nobody would listen, BadInput for what can never be sent."""
        subject, text = self.GetParameter("subject"), self._text()
        if not subject.isprintable() or len(subject) > 300:
            raise BadInput(f"the subject {clip(subject)} is not one printable line")
        if not self.GetParameter("email") and not self.GetParameter("webhook"):
            raise BadInput("nobody was named to tell", remedy="set email or webhook")
        if self.GetParameter("email"):
            message = self._message(subject, text)
            self._try("the mail server", lambda: self._mail(message))
            stats["mails_sent"] = len(self.GetParameter("email"))
        if self.GetParameter("webhook"):
            request = self._request(subject, text)
            self._try("the web hook", lambda: self._post(request))
            stats["hooks_called"] = 1
        return 0

    def _text(self) -> str:
        text: str = self.GetParameter("text")
        if self.GetParameter("text_file"):
            path = Path(self.GetParameter("text_file"))
            with path.open("r", encoding="utf-8", errors="replace") as file:
                text += file.read(TEXT_CHARS_MAX + 1)
        if len(text) > TEXT_CHARS_MAX:
            raise BadInput(f"the text has more than {TEXT_CHARS_MAX} characters", remedy="send a summary")
        return text

    def _try(self, whom: str, tell: Callable[[], T]) -> T:
        """Tell, again after a pause while that may help."""
        pause_s, attempts = self.pause_s, max(1, self.GetParameter("attempts"))
        for attempt in range(1, attempts + 1):
            try:
                return tell()
            except Unavailable as failure:
                self.logger.info("attempt %d: %s", attempt, failure.message)
                if attempt == attempts:
                    raise Unavailable(
                        f"{whom} was not reached in {attempts} attempts: {failure.message}"
                    ) from None
                time.sleep(pause_s)
                pause_s *= 2
        raise AssertionError("a loop of at least one attempt ends inside")

    # Mail.

    def _message(self, subject: str, text: str) -> EmailMessage:
        recipients, sender = self.GetParameter("email"), self.GetParameter("sender")
        if len(recipients) > RECIPIENTS_MAX:
            raise BadInput(f"at most {RECIPIENTS_MAX} addresses may be told, not {len(recipients)}")
        for address in (*recipients, sender):
            # Anything else could add lines of its own to the head of the message.
            if (
                address.count("@") != 1
                or not address.isprintable()
                or any(c in address for c in " ,;<>\"'()")
            ):
                raise BadInput(f"{clip(address)} is no mail address", remedy="write name@host")
        message = EmailMessage()
        message["Subject"], message["From"], message["To"] = subject, sender, ", ".join(recipients)
        message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain=sender.partition("@")[2])
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        return message

    def _mail(self, message: EmailMessage) -> None:
        host, _, port = self.GetParameter("smtp").rpartition(":")
        security = self.GetParameter("security")
        if not host or not port.isdigit() or security not in ("none", "starttls", "tls"):
            raise BadInput(
                f"{clip(self.GetParameter('smtp'))} with security {clip(security)} is no mail server",
                remedy="smtp is host:port, security one of none, starttls, tls",
            )
        try:
            with self._connected(host, int(port), security) as server:
                if self.GetParameter("user"):
                    server.login(self.GetParameter("user"), _secret(self.GetParameter("password_file")))
                refused = server.send_message(message)
        except smtplib.SMTPResponseException as answer:
            said = _words(answer.smtp_error)
            if 400 <= answer.smtp_code < 500:
                raise Unavailable(f"it said {answer.smtp_code} {said}") from answer
            raise BadInput(f"the mail server refused: {answer.smtp_code} {said}") from answer
        except smtplib.SMTPRecipientsRefused as answer:
            raise BadInput(f"the mail server takes nothing for {clip(sorted(answer.recipients))}") from answer
        except ssl.SSLCertVerificationError as wrong:
            raise BadInput(f"the certificate of {host} is not good: {wrong.verify_message}") from wrong
        except (OSError, smtplib.SMTPException) as fault:
            raise Unavailable(f"{host}:{port}: {fault or type(fault).__name__}") from fault
        if refused:
            raise BadInput(f"the mail server takes nothing for {clip(sorted(refused))}; others were told")

    def _connected(self, host: str, port: int, security: str) -> smtplib.SMTP:
        if security == "tls":
            return smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_S, context=self._trust())
        server = smtplib.SMTP(host, port, timeout=TIMEOUT_S)
        if security == "starttls":
            try:
                server.starttls(context=self._trust())
            except BaseException:
                server.close()
                raise
        return server

    # Web hook.

    def _request(self, subject: str, text: str) -> urllib.request.Request:
        url = self.GetParameter("webhook")
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or not url.isprintable() or " " in url:
            raise BadInput(f"{clip(url)} is no https address", remedy="what is told goes over https only")
        told = {name: os.environ.get(f"ICEPROD_{name.upper()}", "") for name in ("dataset", "job", "task")}
        body = json.dumps(
            {"subject": subject, "text": text, "data": self.GetParameter("data"), **told}, allow_nan=False
        ).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "iceprod-p2p"}
        if self.GetParameter("secret_file"):
            key = _secret(self.GetParameter("secret_file")).encode()
            headers["X-IceProd-Signature"] = "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()
        return urllib.request.Request(url, data=body, headers=headers, method="POST")

    def _post(self, request: urllib.request.Request) -> None:
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=self._trust()), _NoRedirect(), urllib.request.ProxyHandler({})
        )
        try:
            with opener.open(request, timeout=TIMEOUT_S) as reply:
                reply.read(REPLY_BYTES_MAX)
        except urllib.error.HTTPError as answer:
            if answer.code in (408, 425, 429) or answer.code >= 500:
                raise Unavailable(f"it said {answer.code}") from answer
            raise BadInput(f"the web hook refused: {answer.code} {clip(answer.reason)}") from answer
        except (OSError, HTTPException) as fault:
            why = getattr(fault, "reason", fault)
            if isinstance(why, ssl.SSLCertVerificationError):
                raise BadInput(
                    f"the certificate of the web hook is not good: {why.verify_message}"
                ) from fault
            raise Unavailable(f"{why or type(fault).__name__}") from fault

    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.GetParameter("ca_file") or None)
        except (OSError, ssl.SSLError) as wrong:
            raise BadInput(f"ca_file {clip(self.GetParameter('ca_file'))} cannot be used: {wrong}") from wrong


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What is told to one address is not told to another."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


def _secret(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as wrong:
        raise BadInput(f"the secret in {clip(path)} cannot be read: {type(wrong).__name__}") from wrong


def _words(text: object) -> str:
    return clip(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)
