"""Where a node lets itself be sent: public addresses alone, whatever the disguise, and quickly."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time

import pytest

from iceprod_p2p.base.errors import BadInput, IceProdError, NotAllowed
from iceprod_p2p.model.external import parse_external
from iceprod_p2p.modules import outbound
from iceprod_p2p.modules.outbound import OutboundPolicy, parse_networks, resolve
from tests.security.cost import bounded

PRIVATE = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "017700000001",
    "0",
    "0.0.0.0",
    "localhost",
    "localhost.",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "192.0.0.192",
    "168.63.129.16",
    "192.0.2.1",
    "198.18.0.1",
    "203.0.113.7",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "[::1]",
    "[::]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:10.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a00:1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::a00:1]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]",
    "[2001:0:7f00:1::]",
    "[fe80::1]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[2001:db8::1]",
    "[100::1]",
]


@pytest.mark.parametrize("host", PRIVATE)
@pytest.mark.parametrize("scheme", ["https", "git+https"])
def test_what_is_not_public_is_refused_at_once(scheme: str, host: str) -> None:
    begin_s = time.monotonic()
    external = parse_external(f"{scheme}://{host}/module.py")
    with pytest.raises(NotAllowed) as refused:
        resolve(external.host, external.port, OutboundPolicy())
    took_s = time.monotonic() - begin_s
    assert took_s < 5.0, "the bar is 50 ms; a loaded machine gets more"
    assert "may not be connected to" in refused.value.message and refused.value.remedy


def test_the_whole_table_takes_far_less_than_50_ms_for_each_address() -> None:
    with bounded(cpu_s=0.03 * len(PRIVATE)):
        for host in PRIVATE:
            external = parse_external(f"https://{host}/module.py")
            with pytest.raises(NotAllowed):
                resolve(external.host, external.port, OutboundPolicy())


@pytest.mark.parametrize(
    "src",
    [
        "http://example.org/m.py",
        "file:///etc/passwd",
        "gopher://example.org/m.py",
        "ftp://example.org/m.py",
        "git://example.org/r.git",
        "git+ssh://git@example.org/r.git",
        "git+http://example.org/r.git",
        "git+file:///srv/r.git",
        "https://user:secret@example.org/m.py",
        "https://example.org@10.0.0.1/m.py",
        "https://example.org/m.py\r\nHost: evil",
        "https://example.org/a b.py",
        "https:///m.py",
        "https://[::1/m.py",
        "https://[fe80::1%25eth0]/m.py",
        "https://exam_ple..org:99999/m.py",
        "https://example.org/",
        "https://example.org/..",
        "https://example.org/m.py;rm",
        "git+https://example.org/r.git@--upload-pack=evil",
        "git+https://example.org/r.git@a..b",
        "git+https://example.org/r.git#../../etc/passwd",
        "git+https://example.org/r.git#--output=x",
        "https://example.org/" + "a" * 3_000 + ".py",
    ],
)
def test_what_is_no_address_of_a_module_is_refused_before_anybody_is_asked(src: str) -> None:
    with pytest.raises(BadInput):
        parse_external(src)


def test_addresses_are_taken_apart() -> None:
    file = parse_external("https://Example.ORG:8443/a/module.py?raw=1")
    assert (file.host, file.port, file.file_name) == ("example.org", 8443, "module.py")
    assert (
        file.url == "https://Example.ORG:8443/a/module.py?raw=1" and not file.is_git and not file.is_archive
    )
    whole = parse_external("git+https://github.com/icecube/tools.git@v1.2")
    assert (whole.url, whole.revision) == ("https://github.com/icecube/tools.git", "v1.2")
    assert whole.file_name == "tools.tar.gz" and whole.is_archive and whole.path == ""
    part = parse_external("git+https://github.com/icecube/tools#python/count.py", "main")
    assert (part.revision, part.path, part.file_name) == ("main", "python/count.py", "count.py")


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8", "2002:808:808::1"]
)
def test_public_addresses_may_be_connected_to(address: str) -> None:
    assert OutboundPolicy().judge(ipaddress.ip_address(address)) == ""


def test_a_site_may_allow_networks_of_its_own_and_hosts_alone() -> None:
    policy = OutboundPolicy(networks=parse_networks(["127.0.0.0/8", "::1", "10.1.0.0/16"]))
    assert resolve("127.0.0.1", 443, policy) == (ipaddress.ip_address("127.0.0.1"),)
    assert policy.judge(ipaddress.ip_address("10.1.2.3")) == ""
    assert policy.judge(ipaddress.ip_address("10.2.0.1")) and policy.judge(
        ipaddress.ip_address("169.254.169.254")
    )
    assert policy.judge(ipaddress.ip_address("::ffff:10.2.0.1"))
    only = OutboundPolicy(hosts=("*.github.com",), networks=policy.networks)
    with pytest.raises(NotAllowed, match="does not fetch from"):
        resolve("example.org", 443, only)
    with pytest.raises(NotAllowed, match="fetches no external modules"):
        resolve("github.com", 443, OutboundPolicy(enabled=False))


def test_a_name_that_is_public_in_part_only_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(socket.AF_INET, 1, 6, "", (address, 443)) for address in ("93.184.216.34", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: answers)
    with pytest.raises(NotAllowed, match=r"127\.0\.0\.1 is an address of the node itself"):
        resolve("rebind.example.org", 443, OutboundPolicy())


def test_a_name_server_that_never_answers_costs_its_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    silence = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: [][silence.wait(200) :])
    begin_s = time.monotonic()
    try:
        with pytest.raises(IceProdError, match="no answer in time"):
            resolve("slow.example.org", 443, OutboundPolicy(), timeout_s=0.2)
    finally:
        silence.set()
    assert time.monotonic() - begin_s < 100


def test_the_connection_goes_to_the_judged_address_not_to_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers otherwise the next moment is never asked again."""
    policy = OutboundPolicy(networks=parse_networks(["127.0.0.0/8"]))
    with socket.create_server(("127.0.0.1", 0)) as server:
        addresses = resolve("127.0.0.1", 443, policy)

        def never(*_: object, **__: object) -> None:
            raise AssertionError("a name was resolved again")

        monkeypatch.setattr(socket, "getaddrinfo", never)
        with outbound.connect(addresses, server.getsockname()[1], timeout_s=5, policy=policy) as connection:
            assert connection.getpeername()[0] == "127.0.0.1"
