"""A token issuer on loopback for tests: an https server with its keys, and tokens signed by them."""

from __future__ import annotations

import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "https://iceprod.demo"


class Issuer:
    """Serves discovery and keys; `tokens` are made with any key, known to it or not."""

    def __init__(self, directory: Path) -> None:
        self.authority = trustme.CA()
        self.ca_file = directory / "issuer-ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        self.keys: dict[str, Any] = {"rsa-1": rsa.generate_private_key(65537, 2048)}
        self.asked: list[str] = []
        self.documents: dict[str, bytes] = {}
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                content = issuer.answer(self.path)
                self.send_response(302 if content.startswith(b"->") else 200 if content else 404)
                if content.startswith(b"->"):
                    self.send_header("Location", content[2:].decode())
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Say nothing."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("localhost").configure_cert(context)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def answer(self, path: str) -> bytes:
        """What it says at a path, or at the address as a whole; nothing: 404; `->URL`: a redirection."""
        path = path.removeprefix(self.url)  # Some clients ask for the whole address (RFC 9112, 3.2.2).
        if path in self.documents:
            return self.documents[path]
        if path == "/.well-known/openid-configuration":
            return json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/keys"}).encode()
        if path == "/keys":
            return json.dumps({"keys": [public_key(name, key) for name, key in self.keys.items()]}).encode()
        return b""

    def token(self, *, key_id: str = "rsa-1", key: Any = None, algorithm: str = "", **claims: Any) -> str:
        """A token of paul for an hour, with `claims` in addition or instead; None leaves one out."""
        key = key or self.keys[key_id]
        now = int(time.time())
        said = {
            "iss": self.url,
            "sub": "paul",
            "aud": AUDIENCE,
            "iat": now,
            "nbf": now,
            "exp": now + 3_600,
            "wlcg.ver": "1.0",
            "scope": "openid iceprod",
            "wlcg.groups": ["/simprod", "/icecube/ops"],
            **claims,
        }
        said = {name: value for name, value in said.items() if value is not None}
        chosen = algorithm or ("RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256")
        return jwt.encode(said, key, algorithm=chosen, headers={"kid": key_id})

    def close(self) -> None:
        """End it."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


def public_key(name: str, key: Any) -> dict[str, Any]:
    """A key as JWKS."""
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": name, "use": "sig"}


def new_ec_key() -> Any:
    """A P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())
