"""One HTTP request of the standard library, made fit for storage: bounded in time, with ``Expect: 100-continue``.

Redirects are followed for every method that storage systems redirect (a head node sends a PUT on to the server that
has room); never from https to anything else, never with credentials of another server.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import IO, Any, Final

from iceprod_p2p.base.errors import BadInput, IceProdError, NotAllowed, NotFound, Unavailable
from iceprod_p2p.transfers.limits import Limits, Watch

CONTINUE_WAIT_S: Final = 1.0  # Old servers never say it.
INTERIM_BYTES_MAX: Final = 65_536
PASSING_CODES: Final = frozenset({408, 409, 423, 425, 429, 500, 502, 503, 504})
_REDIRECTS: Final = frozenset({301, 302, 307, 308})
Authorize = Callable[[str], Mapping[str, str]]


class Answered(Unavailable):
    """The server answered, with a code that may pass."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Link:
    """The connection under way, to be broken off from another thread."""

    def __init__(self) -> None:
        self._sock: socket.socket | None = None

    def use(self, sock: socket.socket) -> None:
        """Remember the socket that is used now."""
        self._sock = sock

    def break_off(self) -> None:
        """Make every call on the socket return now."""
        sock = self._sock
        if sock is not None:
            try:
                # Of the plain socket: TLS would want to say good-bye first.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                return


class _Replayed:
    """A socket whose first bytes were read already."""

    def __init__(self, head: bytes, sock: socket.socket) -> None:
        self._head = head
        self._sock = sock

    def makefile(self, mode: str) -> IO[bytes]:
        return io.BufferedReader(_Raw(self._head, self._sock.makefile("rb", buffering=0)))

    def close(self) -> None:
        self._sock.close()


class _Raw(io.RawIOBase):
    def __init__(self, head: bytes, rest: Any) -> None:
        super().__init__()
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._head:
            size = min(len(buffer), len(self._head))
            buffer[:size] = self._head[:size]
            self._head = self._head[size:]
            return size
        found: int = self._rest.readinto(buffer)
        return found

    def close(self) -> None:
        self._rest.close()
        super().close()


class _Careful(http.client.HTTPConnection):
    """Asks before it sends a body, so that a redirect or refusal does not cost the sending."""

    link: Link
    _asks = False
    _early: bytes = b""

    def connect(self) -> None:
        super().connect()
        self.link.use(self.sock)

    def putheader(self, header: Any, *values: Any) -> None:
        self._asks = self._asks or header == "Expect"
        super().putheader(header, *values)

    def endheaders(self, message_body: Any = None, *, encode_chunked: bool = False) -> None:
        if message_body is None:
            super().endheaders(None, encode_chunked=encode_chunked)
            return
        super().endheaders(None)
        if not self._asks or self._may_go_on():
            while data := message_body.read(self.blocksize):
                self.send(data)

    def getresponse(self) -> http.client.HTTPResponse:
        if self._early:
            self.sock = _Replayed(self._early, self.sock)
        return super().getresponse()

    def _may_go_on(self) -> bool:
        waiting = getattr(self.sock, "pending", int)()
        if not waiting and not select.select([self.sock], [], [], CONTINUE_WAIT_S)[0]:
            return True
        head = b""
        while b"\r\n\r\n" not in head and len(head) < INTERIM_BYTES_MAX:
            piece = self.sock.recv(1)
            if not piece:
                break
            head += piece
        if head.startswith((b"HTTP/1.1 100", b"HTTP/1.0 100")):
            return True
        self._early = head
        return False


class _CarefulTls(_Careful, http.client.HTTPSConnection):
    def connect(self) -> None:
        http.client.HTTPSConnection.connect(self)
        self.link.use(self.sock)


class _Opener(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Makes the connections of one request; of both kinds, or urllib would add its own beside."""

    def __init__(self, link: Link, context: Callable[[str], ssl.SSLContext]) -> None:
        super().__init__()
        self._link = link
        self._tls = context

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self._go(_Careful, req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self._go(_CarefulTls, req, context=self._tls(req.full_url))

    def _go(
        self, kind: type[_Careful], req: urllib.request.Request, **arguments: Any
    ) -> http.client.HTTPResponse:
        def make(host: str, timeout: float) -> _Careful:
            connection = kind(host, timeout=timeout, blocksize=256 * 1024, **arguments)
            connection.link = self._link
            return connection

        response: http.client.HTTPResponse = self.do_open(make, req)  # type: ignore[arg-type]
        return response


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows within bounds, with the method and body kept, and with the credentials of the new place only."""

    def __init__(self, authorize: Authorize) -> None:
        self._authorize = authorize

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme != "https"):
            raise BadInput(f"{_bare(req.full_url)} redirects to {_bare(newurl)}, which is not encrypted")
        if req.get_method() in ("GET", "HEAD"):
            new = super().redirect_request(req, fp, code, msg, headers, newurl)
        elif code in _REDIRECTS:
            if req.data is not None:
                req.data.seek(0)  # type: ignore[union-attr]
            new = urllib.request.Request(
                newurl, data=req.data, headers=dict(req.headers), method=req.get_method()
            )
        else:
            return None
        if new is not None:
            _add(new, self._authorize(newurl))
        return new


def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    authorize: Authorize,
    context: Callable[[str], ssl.SSLContext],
    limits: Limits,
    link: Link,
    body: IO[bytes] | None = None,
) -> http.client.HTTPResponse:
    """Make a request and return the response, its body unread; errors as `Storage` says."""
    ask = urllib.request.Request(url, data=body, headers=dict(headers), method=method)
    _add(ask, authorize(url))
    opener = urllib.request.build_opener(_Opener(link, context), _Redirects(authorize))
    try:
        response: http.client.HTTPResponse = opener.open(ask, timeout=limits.timeout_s)
        return response
    except urllib.error.HTTPError as answer:
        answer.close()
        raise http_error(method, url, answer.code, answer.reason) from answer
    except (OSError, http.client.HTTPException) as broken:
        reason = getattr(broken, "reason", broken)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise NotAllowed(
                f"the certificate of {_bare(url)} is not trusted: {reason.verify_message}",
                remedy="name its authority with ca_file in the site's file of credentials",
            ) from broken
        raise Unavailable(
            f"{_bare(url)} cannot be reached: {str(reason)[:300] or type(reason).__name__}"
        ) from broken


def whole(
    method: str,
    url: str,
    *,
    limits: Limits,
    read_bytes: int = 65_536,
    body: IO[bytes] | None = None,
    moved: Callable[[Watch], IO[bytes]] | None = None,
    **arguments: Any,
) -> tuple[http.client.HTTPResponse, bytes]:
    """Make a request that is answered with little, under a watch; return response and the first bytes of its body."""
    link = Link()
    with Watch(limits, f"{method} {_bare(url)}", link.break_off) as watch:
        sent = moved(watch) if moved else body
        response = request(method, url, limits=limits, link=link, body=sent, **arguments)
        try:
            return response, response.read(read_bytes)
        except (OSError, http.client.HTTPException) as broken:
            raise Unavailable(f"the answer of {_bare(url)} broke off: {broken}") from broken
        finally:
            response.close()


def http_error(method: str, url: str, code: int, reason: str) -> IceProdError:
    """Return the error for an answer's code."""
    said = f"{_bare(url)} answered {code} {str(reason)[:200]}"
    if code in PASSING_CODES:
        return Answered(said, code)
    if code in (404, 410):
        return NotFound(f"{_bare(url)} does not exist: {code} {str(reason)[:200]}")
    if code in (401, 403):
        return NotAllowed(f"{said}: no permission to {method}")
    if code in _REDIRECTS or code == 303:
        return BadInput(f"{_bare(url)} redirects without end")
    return BadInput(said)


def _add(request_: urllib.request.Request, headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        # Unredirected: they are never copied to the request that follows a redirect.
        request_.add_unredirected_header(name, value)


def _bare(url: str) -> str:
    return url.partition("?")[0][:500]
