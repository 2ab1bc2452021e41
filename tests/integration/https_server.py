"""A real https server on loopback: files, redirects, misbehaviour, and git repositories by `git http-backend`."""

from __future__ import annotations

import os
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import trustme


class HttpsServer:
    """Serves `files` by path and repositories below `repositories`; `close` ends it."""

    def __init__(self, directory: Path) -> None:
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.special: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []
        self.repositories = directory / "repositories"
        self.repositories.mkdir(parents=True)
        self.ca_file = directory / "ca.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def url(self, path: str) -> str:
        return f"https://localhost:{self.port}/{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def repository(self, name: str, files: dict[str, str], *, tag: str = "") -> str:
        """Make a repository with one commit and return the commit."""
        work = self.repositories / f".{name}"
        git(self.repositories, "init", "--quiet", "--initial-branch=main", str(work))
        for path, text in files.items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).write_text(text)
        git(work, "add", "-A")
        git(work, "commit", "--quiet", "-m", "files")
        if tag:
            git(work, "tag", tag)
        git(self.repositories, "clone", "--quiet", "--bare", str(work), f"{name}.git")
        git(self.repositories / f"{name}.git", "config", "uploadpack.allowAnySHA1InWant", "true")
        return git(work, "rev-parse", "HEAD").strip()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        path = urlsplit(request.path).path.lstrip("/")
        self.asked.append(path)
        if path in self.special:
            self.special[path](request)
        elif path in self.redirects:
            request.send_response(302)
            request.send_header("Location", self.redirects[path])
            request.send_header("Content-Length", "0")
            request.end_headers()
        elif path in self.files:
            request.send_response(200)
            request.send_header("Content-Length", str(len(self.files[path])))
            request.end_headers()
            request.wfile.write(self.files[path])
        elif ".git/" in path:
            self._git_backend(request, path)
        else:
            request.send_response(404)
            request.send_header("Content-Length", "0")
            request.end_headers()

    def _git_backend(self, request: BaseHTTPRequestHandler, path: str) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        environ = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.repositories),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": f"/{path}",
            "QUERY_STRING": urlsplit(request.path).query,
            "REQUEST_METHOD": request.command,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
        }
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=environ, capture_output=True, timeout=120, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
        request.send_response(int(headers.pop("Status", "200 OK").split()[0]))
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)


def git(directory: Path, *words: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "safe.directory=*"]
    done = subprocess.run(
        ["git", *identity, *words],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"},  # Nobody's signatures and hooks.
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def drip(seconds: float) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answer one byte now and then for so long."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100000")
        request.end_headers()
        end_s = time.monotonic() + seconds
        try:
            while time.monotonic() < end_s:
                request.wfile.write(b"x")
                request.wfile.flush()
                time.sleep(0.05)
        except OSError:
            pass

    return answer


def endless(request: BaseHTTPRequestHandler) -> None:
    """Send without end and without saying how much."""
    request.send_response(200)
    request.send_header("Connection", "close")
    request.end_headers()
    request.close_connection = True
    try:
        while True:
            request.wfile.write(b"x" * 65_536)
    except OSError:
        pass


def cut_short(request: BaseHTTPRequestHandler) -> None:
    """Promise more than is sent."""
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b"half")
    request.close_connection = True
