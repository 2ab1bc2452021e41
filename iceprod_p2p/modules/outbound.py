"""Connections to addresses that somebody else chose: only to where they may lead, and to no other place meanwhile.

A name is resolved once.  Each address that comes out is judged, also those hidden in an IPv6 address, and a connection
is made to a judged address itself, so that a name server which answers otherwise the next moment changes nothing.
Source: OWASP, Server-Side Request Forgery Prevention; RFC 6890, RFC 4291, RFC 6052, RFC 3056, RFC 4380.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from iceprod_p2p.base.errors import BadInput, NotAllowed, Unavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

RESOLVE_S: Final = 10.0
ADDRESSES_MAX: Final = 8
_NAT64: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")  # Deprecated, and still understood by some.
# Protocol assignments, relays that are no more, and the metadata of a cloud behind an address that looks public.
_RESERVED: Final = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")))
_SITE_LOCAL: Final = ipaddress.IPv6Network("fec0::/10")


@dataclass(frozen=True, slots=True)
class OutboundPolicy:
    """Where a site lets its node connect to for others: public addresses, and the networks that it names.

    `hosts` are patterns such as ``*.github.com``; empty means every host.  `ca_file` holds authorities to trust
    instead of the system's.
    """

    enabled: bool = True
    networks: tuple[Network, ...] = ()
    hosts: tuple[str, ...] = ()
    ca_file: str = ""

    def judge_host(self, host: str) -> None:
        """Raise NotAllowed for a host that the site does not let others name."""
        if not self.enabled:
            raise NotAllowed(
                "this site fetches no external modules", remedy="put the module beside the steering file"
            )
        if self.hosts and not any(fnmatchcase(host.lower(), pattern.lower()) for pattern in self.hosts):
            raise NotAllowed(
                f"this site does not fetch from {host!r}", remedy=f"allowed are: {', '.join(self.hosts)}"
            )

    def judge(self, address: Address) -> str:
        """Return why an address may not be connected to, empty when it may."""
        for inner in (address, *_hidden(address)):
            if any(inner.version == network.version and inner in network for network in self.networks):
                continue
            kind = _kind(inner)
            if kind:
                return f"{address} is {kind}" if inner == address else f"{address} stands for {inner}, {kind}"
        return ""


def resolve(
    host: str, port: int, policy: OutboundPolicy, *, timeout_s: float = RESOLVE_S
) -> tuple[Address, ...]:
    """Return the addresses of a host, each judged.

    NotAllowed when one of them may not be connected to: a name that is public in part only is not public.
    Unavailable when the name cannot be resolved in time.
    """
    policy.judge_host(host)
    addresses = _look_up(host, port, timeout_s)
    for address in addresses:
        why = policy.judge(address)
        if why:
            raise NotAllowed(
                f"{host!r} may not be connected to: {why}",
                remedy="name a public host, or ask the site to allow the network in [external] of its site.toml",
            )
    return addresses


def connect(
    addresses: Sequence[Address], port: int, *, timeout_s: float, policy: OutboundPolicy
) -> socket.socket:
    """Return a TCP connection to the first judged address that answers; Unavailable when none does."""
    fault = "no address"
    for address in addresses[:ADDRESSES_MAX]:
        why = policy.judge(address)
        if why:
            raise NotAllowed(why)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect((str(address), port))
        except OSError as failure:
            connection.close()
            fault = failure.strerror or str(failure)
            continue
        return connection
    raise Unavailable(f"cannot connect to {', '.join(map(str, addresses))} port {port}: {fault}")


def tls_context(policy: OutboundPolicy) -> ssl.SSLContext:
    """Return a context that verifies servers; BadInput when the site's file of authorities cannot be read."""
    try:
        context = ssl.create_default_context(cafile=policy.ca_file or None)
    except OSError as fault:
        raise BadInput(f"the file of authorities {policy.ca_file!r} cannot be read: {fault}") from fault
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def parse_networks(words: Iterable[str]) -> tuple[Network, ...]:
    """Read networks such as ``10.1.0.0/16`` and ``::1``; ValueError names the first that is none."""
    return tuple(ipaddress.ip_network(word) for word in words)


def _look_up(host: str, port: int, timeout_s: float) -> tuple[Address, ...]:
    found: list[Address] = []
    fault: list[str] = []

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        except (OSError, UnicodeError) as failure:
            fault.append(str(getattr(failure, "strerror", None) or failure))
            return
        for *_, target in answers:
            found.append(ipaddress.ip_address(str(target[0]).partition("%")[0]))

    # The resolver keeps to no time limit of ours; a late answer is left behind.
    thread = threading.Thread(target=ask, name="resolve", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not found:
        raise Unavailable(f"the host {host!r} cannot be found: {fault[0] if fault else 'no answer in time'}")
    return tuple(dict.fromkeys(found))


def _hidden(address: Address) -> tuple[Address, ...]:
    """Return the IPv4 addresses that an IPv6 address stands for, by whichever scheme."""
    if address.version == 4:
        return ()
    found: list[Address] = []
    if address.ipv4_mapped is not None:
        found.append(address.ipv4_mapped)
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found += address.teredo
    last = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if any(address in network for network in _NAT64):
        found.append(last)
    if address in _COMPATIBLE and int(address) > 1:
        found.append(last)
    return tuple(found)


def _kind(address: Address) -> str:
    """Return what keeps an address from being a public one; empty for a public one."""
    if address.is_loopback:
        return "an address of the node itself"
    if address.is_unspecified:
        return "no address of a host"
    if address.is_link_local:
        return "an address of the local link, where machines keep their metadata"
    if address.is_multicast:
        return "a multicast address"
    if address.version == 6 and (address.ipv4_mapped is not None or address in _NAT64[0]):
        return ""  # What it stands for is judged by itself.
    if address.version == 6 and (address in _SITE_LOCAL or address in _COMPATIBLE):
        return "an address of a private network"
    if address.version == 4 and any(address in network for network in _RESERVED):
        return "a reserved address"
    return "" if address.is_global else "an address of a private or reserved network"
