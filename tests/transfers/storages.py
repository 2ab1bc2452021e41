"""Real storage servers of our own: nginx with WebDAV, XRootD with its HTTP door, GridFTP, and an S3 service.

Each is started once, on loopback and free ports, with certificates of an authority made for the purpose, as an ordinary
user where the tests run as root.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from iceprod_cli.free_ports import free_ports
from jwt.algorithms import ECAlgorithm

from iceprod_p2p.transfers.credentials import Credential
from tests.grids.daemons import Daemons, until
from tests.grids.users import USER, user_ids

TOKEN = "token-of-the-tests"
S3_KEYS = ("key-of-the-tests", "secret-of-the-tests")


def need(*commands: str) -> None:
    """Skip the test aloud where a server is missing; in continuous integration that is a failure."""
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    missing = [name for name in commands if shutil.which(name, path=path) is None]
    if not missing:
        return
    said = f"{', '.join(missing)} not installed; run tests/transfers/install.sh"
    if os.environ.get("CI"):
        pytest.fail(said)
    pytest.skip(said)


@dataclass
class Ground:
    """Where the servers live: a directory that their user can enter, certificates, and their processes."""

    root: Path
    daemons: Daemons
    user: str | None
    certificates: Path = field(init=False)

    def __post_init__(self) -> None:
        self.certificates = self.root / "certificates"

    def own(self, *paths: Path) -> None:
        """Give paths, and what is in them, to the servers' user."""
        if self.user is None:
            return
        uid, gid = user_ids(self.user)
        for path in paths:
            for entry in (path, *path.rglob("*")):
                os.chown(entry, uid, gid)

    def directory(self, name: str) -> Path:
        """Make a directory of the servers."""
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        self.own(path)
        return path


def ground(root: Path) -> Ground:
    """Make the directory's contents that all share."""
    user = USER if os.getuid() == 0 else None
    logs = root / "logs"
    logs.mkdir()
    made = Ground(root, Daemons(logs, {}), user)
    _certificates(made)
    return made


def _certificates(made: Ground) -> None:
    need("openssl")
    there = made.certificates
    (there / "ca").mkdir(parents=True)

    def openssl(*words: str) -> str:
        done = subprocess.run(
            ["openssl", *words], cwd=there, check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout.strip()

    openssl(
        *[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-days",
            "30",
            "-subj",
        ],
        "/O=Test/CN=Test CA",
        *["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"],
    )
    (there / "extensions").write_text(
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nkeyUsage=critical,digitalSignature,keyEncipherment\n"
        "extendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=critical,CA:FALSE\n"
    )
    for name, subject in (("host", "/O=Test/CN=localhost"), ("pilot", "/O=Test/CN=Pilot")):
        request = f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj {subject}"
        openssl(*request.split(" "))
        openssl(
            *f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem".split(),
            *["-days", "30", "-extfile", "extensions"],
        )
        (there / f"{name}.key").chmod(0o600)
    for word in ("-subject_hash", "-subject_hash_old"):
        digest = openssl("x509", "-in", "ca.pem", "-noout", word)
        shutil.copy(there / "ca.pem", there / "ca" / f"{digest}.0")
        (there / "ca" / f"{digest}.signing_policy").write_text(
            "access_id_CA X509 '/O=Test/CN=Test CA'\npos_rights globus CA:sign\n"
            "cond_subjects globus '\"/O=Test/*\"'\n"
        )
    made.own(there / "host.key", there / "host.pem")
    _copy_for_root(there)


def _copy_for_root(there: Path) -> None:
    """GridFTP begins as root and takes only keys that are root's."""
    for name in ("host.pem", "host.key"):
        shutil.copyfile(there / name, there / f"root-{name}")
    (there / "root-host.key").chmod(0o600)


def listening(port: int) -> bool:
    """Return whether somebody accepts connections."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Place:
    """A directory of one server, as its tests see it: by URL, and behind its back."""

    name = ""
    scheme = ""

    def __init__(self, made: Ground) -> None:
        self.ground = made
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start the server and wait until it listens."""

    def url(self, name: str, *, port: int | None = None) -> str:
        """Return the URL of a file, perhaps by another port that leads to the same server."""
        return f"{self.scheme}://localhost:{port or self.port}/{urllib.parse.quote(name)}"

    def path(self, name: str) -> Path:
        """Return where the server keeps the file."""
        return self.ground.root / self.name / name

    def write(self, name: str, content: bytes) -> None:
        """Put a file there behind the server's back."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        self.ground.own(self.ground.root / self.name / Path(name).parts[0])

    def read(self, name: str) -> bytes:
        """Return what the server keeps; FileNotFoundError when nothing."""
        return self.path(name).read_bytes()

    def forbid(self, name: str) -> str:
        """Return the URL of a file that is there and may not be read."""
        self.write(name, b"secret")
        self.path(name).chmod(0)
        return self.url(name)

    def credentials(self, port: int | None = None) -> Credential:
        """Return what the pilot must have."""
        return Credential(urls=(self.url("", port=port),))


class LocalPlace(Place):
    """A directory of this machine."""

    name = scheme = "file"

    def start(self) -> None:
        """Nothing runs."""
        self.ground.directory(self.name)

    def url(self, name: str, *, port: int | None = None) -> str:
        """Return the URL of a file."""
        return self.path(name).as_uri()


class NginxPlace(Place):
    """nginx with WebDAV over TLS; below /private only with a token."""

    name = "nginx"
    scheme = "https"

    def start(self) -> None:
        """Start it in the foreground."""
        need("nginx")
        files, state = self.ground.directory(self.name), self.ground.directory("nginx-state")
        certificates = self.ground.certificates
        (self.port,) = free_ports(1)
        configuration = state / "nginx.conf"
        configuration.write_text(
            f"""daemon off; pid {state}/pid; error_log stderr; worker_processes 1;
            load_module /usr/lib/nginx/modules/ngx_http_dav_ext_module.so;
            {f"user {self.ground.user};" if self.ground.user else ""}
            events {{ worker_connections 256; }}
            http {{ access_log off; client_max_body_size 0;
              client_body_temp_path {state}/body; proxy_temp_path {state}/p; fastcgi_temp_path {state}/f;
              uwsgi_temp_path {state}/u; scgi_temp_path {state}/s;
              server {{ listen 127.0.0.1:{self.port} ssl; server_name localhost; root {files};
                ssl_certificate {certificates}/host.pem; ssl_certificate_key {certificates}/host.key;
                location / {{ dav_methods PUT DELETE MKCOL COPY MOVE; dav_ext_methods PROPFIND OPTIONS;
                  min_delete_depth 0; }}
                location /private/ {{ dav_methods PUT DELETE MKCOL;
                  if ($http_authorization != "Bearer {TOKEN}") {{ return 401; }} }}
                location /loop {{ return 302 https://localhost:{self.port}/loop; }}
                location /plain {{ return 302 http://localhost:{self.port}/file; }} }} }}"""
        )
        nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin") or "nginx"
        self.ground.daemons.start(self.name, [nginx, "-c", str(configuration), "-e", "stderr"])
        until(lambda: listening(self.port), "nginx listens")

    def credentials(self, port: int | None = None) -> Credential:
        """Return the authority."""
        ca_file = str(self.ground.certificates / "ca.pem")
        return Credential(urls=(self.url("", port=port),), ca_file=ca_file)


class XrootdPlace(Place):
    """XRootD with checksums, third-party copies and its HTTP door."""

    name = "xrootd"
    scheme = "root"
    https_port = 0

    def start(self) -> None:
        """Start it in the foreground."""
        need("xrootd", "xrdcp", "xrdfs")
        files, state = self.ground.directory(self.name), self.ground.directory(f"{self.name}-state")
        certificates = self.ground.certificates
        self.port, self.https_port = free_ports(2)
        configuration = state / "xrootd.cfg"
        configuration.write_text(
            f"""all.export /
            oss.localroot {files}
            all.adminpath {state}
            all.pidpath {state}
            xrd.port {self.port}
            xrd.tls {certificates}/host.pem {certificates}/host.key
            xrd.tlsca certdir {certificates}/ca
            xrd.protocol http:{self.https_port} libXrdHttp.so
            http.cadir {certificates}/ca
            http.exthandler xrdtpc libXrdHttpTPC.so
            xrootd.chksum max 4 md5 adler32
            ofs.tpc ttl 30 60 pgm {shutil.which("xrdcp")} --server
            {self.rules(state)}
            """
        )
        line = ["xrootd", "-I", "v4", "-c", str(configuration), "-n", self.name]
        line += ["-R", self.ground.user] if self.ground.user else []
        self.ground.daemons.start(self.name, line)
        until(lambda: listening(self.port) and listening(self.https_port), "xrootd listens")

    def rules(self, state: Path) -> str:
        """Return further lines of configuration: here, everybody may do everything."""
        return ""

    def url(self, name: str, *, port: int | None = None) -> str:
        """Return the URL of a file; two slashes begin an absolute path."""
        return f"{self.scheme}://localhost:{port or self.port}//{urllib.parse.quote(name)}"


class SecondXrootdPlace(XrootdPlace):
    """Another one, for copies between two."""

    name = "xrootd-2"


class XrootdTokenPlace(XrootdPlace):
    """One that lets in by WLCG tokens alone, at both doors, with its issuer's keys known beforehand."""

    name = "xrootd-tokens"
    scheme = "roots"
    issuer = "https://tokens.test/"
    audience = "https://wlcg.cern.ch/jwt/v1/any"

    def rules(self, state: Path) -> str:
        """Ask for a token, and do what its scopes allow."""
        self.key = ec.generate_private_key(ec.SECP256R1())
        public = json.loads(ECAlgorithm.to_jwk(self.key.public_key())) | {"kid": "one", "alg": "ES256"}
        known = {"jwks": {"keys": [public]}, "expires": 2**33, "next_update": 2**33}
        (state / "scitokens").mkdir()
        with contextlib.closing(sqlite3.connect(state / "scitokens" / "scitokens_cpp.sqllite")) as cache:
            cache.execute(
                "CREATE TABLE keycache (issuer text UNIQUE PRIMARY KEY NOT NULL, keys text NOT NULL)"
            )
            cache.execute("INSERT INTO keycache VALUES (?, ?)", (self.issuer, json.dumps(known)))
            cache.commit()
        self.ground.own(state)
        self.ground.daemons.environment["XDG_CACHE_HOME"] = str(state)
        tokens = state / "tokens.cfg"
        tokens.write_text(
            f"[Global]\naudience = {self.audience}\n\n[Issuer Test]\nissuer = {self.issuer}\nbase_path = /\n"
        )
        return f"""sec.protocol ztn
            xrootd.seclib libXrdSec.so
            acc.authdb /dev/null
            ofs.authorize 1
            ofs.authlib libXrdAccSciTokens.so config={tokens}
            http.header2cgi Authorization authz"""

    def token(self, scope: str, **claims: object) -> str:
        """Return a token for an hour."""
        now = int(time.time())
        said = {"iss": self.issuer, "sub": "pilot", "aud": self.audience, "jti": str(now)}
        said |= {"iat": now, "nbf": now, "exp": now + 3_600, "wlcg.ver": "1.0", "scope": scope, **claims}
        return jwt.encode(said, self.key, "ES256", headers={"kid": "one"})

    def credentials(self, port: int | None = None) -> Credential:
        """Return the authorities alone."""
        return Credential(urls=(self.url(""),), ca_directory=str(self.ground.certificates / "ca"))


class XrootdHttpsPlace(Place):
    """The HTTP door of an XRootD server."""

    scheme = "davs"

    def __init__(self, behind: XrootdPlace) -> None:
        self.name = behind.name
        super().__init__(behind.ground)
        self.port = behind.https_port

    def credentials(self, port: int | None = None) -> Credential:
        """Return the authority."""
        ca_file = str(self.ground.certificates / "ca.pem")
        return Credential(urls=(self.url("", port=port),), ca_file=ca_file)


class GridftpPlace(Place):
    """GridFTP with the Grid's certificates."""

    name = "gridftp"
    scheme = "gsiftp"

    def start(self) -> None:
        """Start it in the foreground."""
        need("globus-gridftp-server", "globus-url-copy", "gfal-stat")
        self.ground.directory(self.name)
        certificates, state = self.ground.certificates, self.ground.directory(f"{self.name}-state")
        user = self.ground.user or os.environ.get("USER", "nobody")
        gridmap = state / "gridmap"
        gridmap.write_text(f'"/O=Test/CN=Pilot" {user}\n')
        (self.port,) = free_ports(1)
        self.ground.daemons.environment |= {
            "GRIDMAP": str(gridmap),
            "X509_CERT_DIR": str(certificates / "ca"),
            "X509_USER_CERT": str(certificates / "root-host.pem"),
            "X509_USER_KEY": str(certificates / "root-host.key"),
        }
        server = shutil.which("globus-gridftp-server", path="/usr/sbin:/usr/bin") or "globus-gridftp-server"
        line = [server, "-s", "-p", str(self.port), "-control-interface", "127.0.0.1"]
        line += ["-data-interface", "127.0.0.1", "-hostname", "localhost"]
        self.ground.daemons.start(self.name, line)
        until(lambda: listening(self.port), "the GridFTP server listens")

    def url(self, name: str, *, port: int | None = None) -> str:
        """Return the URL of a file."""
        return f"gsiftp://localhost:{port or self.port}{urllib.parse.quote(str(self.path(name)))}"

    def credentials(self, port: int | None = None) -> Credential:
        """Return the pilot's certificate."""
        there = self.ground.certificates
        return Credential(
            urls=(f"gsiftp://localhost:{port or self.port}/",),
            client_certificate=str(there / "pilot.pem"),
            client_key=str(there / "pilot.key"),
            ca_directory=str(there / "ca"),
        )


class SecondGridftpPlace(GridftpPlace):
    """Another one, for copies between two."""

    name = "gridftp-2"


class S3Place(Place):
    """The S3 service of moto, with one bucket."""

    name = "s3"
    scheme = "s3"

    def start(self) -> None:
        """Start it in the foreground; it keeps everything in memory."""
        (self.port,) = free_ports(1)
        line = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.ground.daemons.start(self.name, line)
        until(lambda: listening(self.port), "the S3 service listens")
        self._direct().create_bucket(Bucket="bucket")

    def url(self, name: str, *, port: int | None = None) -> str:
        """Return the URL of an object."""
        return f"s3://bucket/{urllib.parse.quote(name)}"

    def write(self, name: str, content: bytes) -> None:
        """Put an object there."""
        self._direct().put_object(Bucket="bucket", Key=name, Body=content)

    def read(self, name: str) -> bytes:
        """Return an object; FileNotFoundError when there is none."""
        client = self._direct()
        try:
            body: bytes = client.get_object(Bucket="bucket", Key=name)["Body"].read()
        except client.exceptions.NoSuchKey as missing:
            raise FileNotFoundError(name) from missing
        return body

    def credentials(self, port: int | None = None) -> Credential:
        """Return keys and the service's address."""
        return Credential(
            urls=("s3://bucket",),
            endpoint=f"http://localhost:{port or self.port}",
            access_key=S3_KEYS[0],
            secret_key=S3_KEYS[1],
        )

    def _direct(self):  # type: ignore[no-untyped-def]
        return self._client("s3", S3_KEYS)

    def _client(self, service: str, keys: tuple[str, str]):  # type: ignore[no-untyped-def]
        import boto3

        return boto3.client(
            service,
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id=keys[0],
            aws_secret_access_key=keys[1],
        )


class S3KeysPlace(S3Place):
    """The same service, checking keys and policies: the pilot's open what is below `open/`."""

    name = "s3-keys"
    first_actions = 7

    def start(self) -> None:
        """Make two people with keys, and ask everybody for keys from then on."""
        self.admin = S3_KEYS
        self.ground.daemons.environment["INITIAL_NO_AUTH_ACTION_COUNT"] = str(self.first_actions)
        super().start()
        del self.ground.daemons.environment["INITIAL_NO_AUTH_ACTION_COUNT"]
        everything, some = "arn:aws:s3:::*", "arn:aws:s3:::bucket/open/*"
        self.admin, self.pilot = self._person("admin", everything), self._person("pilot", some)

    def _person(self, name: str, what: str) -> tuple[str, str]:
        people = self._client("iam", S3_KEYS)
        people.create_user(UserName=name)
        statement = {"Effect": "Allow", "Action": "s3:*", "Resource": what}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        people.put_user_policy(UserName=name, PolicyName="files", PolicyDocument=policy)
        made = people.create_access_key(UserName=name)["AccessKey"]
        return made["AccessKeyId"], made["SecretAccessKey"]

    def _direct(self):  # type: ignore[no-untyped-def]
        return self._client("s3", self.admin)

    def credentials(self, port: int | None = None) -> Credential:
        """Return the pilot's keys."""
        credential = super().credentials(port)
        return dataclasses.replace(credential, access_key=self.pilot[0], secret_key=self.pilot[1])
