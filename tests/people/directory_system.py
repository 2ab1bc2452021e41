"""A real OpenLDAP server on loopback for tests: its own configuration, database, authority and processes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from iceprod_cli.free_ports import free_ports

SUFFIX = "dc=ice,dc=example"
PASSWORD = "correct horse battery"
SEARCHER = f"cn=searcher,{SUFFIX}"
SEARCHERS_PASSWORD = "looks people up"
_SLAPD = shutil.which("slapd", path=f"/usr/sbin:/sbin:{os.environ.get('PATH', '')}")


def entries() -> str:
    """The tree: four people, two of one uid in different branches, and groups by member and by memberUid."""
    people = [
        ("paul", "people"),
        ("mary", "people"),
        ("ann", "people"),
        ("twin", "people"),
        ("twin", "guests"),
    ]
    text = f"""\
dn: {SUFFIX}
objectClass: dcObject
objectClass: organization
dc: ice
o: Ice

dn: {SEARCHER}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: searcher
userPassword: {SEARCHERS_PASSWORD}

"""
    for unit in ("people", "guests", "groups"):
        text += f"dn: ou={unit},{SUFFIX}\nobjectClass: organizationalUnit\nou: {unit}\n\n"
    for number, (uid, unit) in enumerate(people):
        text += (
            f"dn: uid={uid},ou={unit},{SUFFIX}\nobjectClass: inetOrgPerson\nuid: {uid}\ncn: {uid}\nsn: {uid}\n"
            f"employeeNumber: {number}\nuserPassword: {PASSWORD}\n\n"
        )
    members = f"member: uid=paul,ou=people,{SUFFIX}\n"
    text += f"dn: cn=simprod,ou=groups,{SUFFIX}\nobjectClass: groupOfNames\ncn: simprod\n{members}"
    text += f"member: uid=mary,ou=people,{SUFFIX}\n\n"
    text += f"dn: cn=operators,ou=groups,{SUFFIX}\nobjectClass: posixGroup\ncn: operators\n"
    text += "gidNumber: 7\nmemberUid: mary\n\n"
    return text


@dataclass
class DirectorySystem:
    """One slapd; `start` and `stop` by process id, the same database each time."""

    directory: Path
    ports: list[int] = field(default_factory=lambda: free_ports(2))
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.authority = trustme.CA()
        self.ca_file = self.directory / "ca.pem"
        self.password_file = self.directory / "searcher"

    @property
    def url(self) -> str:
        """Where it speaks TLS from the first byte."""
        return f"ldaps://localhost:{self.ports[0]}"

    @property
    def plain_url(self) -> str:
        """Where TLS is to be started."""
        return f"ldap://localhost:{self.ports[1]}"

    def make(self) -> None:
        """Write configuration, certificates and the tree."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        certificate = self.authority.issue_cert("localhost")
        certificate.private_key_pem.write_to_path(str(self.directory / "key.pem"))
        certificate.cert_chain_pems[0].write_to_path(str(self.directory / "cert.pem"))
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(SEARCHERS_PASSWORD + "\n")
        (self.directory / "database").mkdir(mode=0o700)
        (self.directory / "tree.ldif").write_text(entries())
        (self.directory / "slapd.conf").write_text(f"""\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
pidfile {self.directory}/slapd.pid
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCACertificateFile {self.ca_file}
TLSCertificateFile {self.directory}/cert.pem
TLSCertificateKeyFile {self.directory}/key.pem
security simple_bind=128
database mdb
suffix "{SUFFIX}"
directory {self.directory}/database
access to attrs=userPassword by anonymous auth by * none
access to dn.subtree="ou=people,{SUFFIX}" by dn.exact="{SEARCHER}" read by self read by anonymous auth by * none
access to * by users read by anonymous auth by * none
""")
        assert _SLAPD is not None
        loaded = subprocess.run(
            [
                _SLAPD,
                "-T",
                "add",
                "-f",
                str(self.directory / "slapd.conf"),
                "-l",
                str(self.directory / "tree.ldif"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert loaded.returncode == 0, loaded.stderr

    def start(self) -> None:
        """Start it and wait until it listens."""
        assert _SLAPD is not None
        with (self.directory / "slapd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    _SLAPD,
                    *("-f", str(self.directory / "slapd.conf")),
                    *("-h", f"ldaps://127.0.0.1:{self.ports[0]}/ ldap://127.0.0.1:{self.ports[1]}/"),
                    *("-d", "0"),  # In the foreground, saying nothing.
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 90
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.ports[1]), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, (self.directory / "slapd.log").read_text()
                assert self.process.poll() is None, (self.directory / "slapd.log").read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None


def have_slapd() -> bool:
    """Whether OpenLDAP's server is installed."""
    return _SLAPD is not None
