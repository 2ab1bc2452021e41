"""Network addresses as people write them: ``host:port``, ``10.1.2.3:4410``, ``[2001:db8::1]:4410``."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from iceprod_p2p.base.errors import BadInput

_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")


class Address(NamedTuple):
    """A host (name, IPv4 or IPv6 without brackets) and a TCP port, 0 meaning any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the address can be reached from this machine alone."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str, *, may_be_any_port: bool = False) -> Address:
    """Read ``host:port``; BadInput otherwise.  Port 0 is accepted only where `may_be_any_port` (a
    listener).
    """
    remedy = "write it as host:port, e.g. node1.example.org:4410 or [2001:db8::1]:4410"
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise BadInput(f"address {text[:300]!r} has no port", remedy=remedy)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ipv6(host):
            raise BadInput(f"address {text[:300]!r} holds no IPv6 address in its brackets", remedy=remedy)
    elif _HOST.fullmatch(host) is None:
        raise BadInput(f"address {text[:300]!r} holds no host name", remedy=remedy)
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5 and int(port_text) <= 65_535):
        raise BadInput(f"address {text[:300]!r} has no port between 1 and 65535", remedy=remedy)
    if int(port_text) == 0 and not may_be_any_port:
        raise BadInput(f"address {text[:300]!r} has port 0, which cannot be dialled", remedy=remedy)
    return Address(host, int(port_text))


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return "%" not in host  # A zone is meaningful on one machine only.


def host_of(peer: str) -> str:
    """Return the caller's host of what gRPC calls a peer: ``ipv4:10.1.2.3:40000``."""
    return peer.partition(":")[2].rpartition(":")[0]
