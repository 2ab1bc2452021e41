"""Platforms as people write them, and which build a machine can run."""

from __future__ import annotations

from hashlib import sha256

import pytest

from iceprod_p2p.base.machine import systems_of, this_machine
from iceprod_p2p.model.software import (
    Build,
    Host,
    NotAPlatform,
    Platform,
    attributes_of,
    best_build,
    misfits,
    parse_platform,
    within,
)

HOST = Host(frozenset({"linux", "rhel", "rhel_9", "almalinux", "almalinux_9"}), "x86_64", "glibc2.34", "3.11")


def build(platform: str) -> Build:
    return Build(parse_platform(platform), sha256(platform.encode()).hexdigest(), 1)


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux-x86_64-glibc2.28-py3.11", Platform("linux", "x86_64", "glibc2.28", "3.11")),
        ("py3.11-glibc2.28-x86_64", Platform("", "x86_64", "glibc2.28", "3.11")),
        ("RHEL_9_x86_64", Platform("RHEL_9", "x86_64")),
        ("Ubuntu_22.04_aarch64", Platform("Ubuntu_22.04", "aarch64")),
        ("linux-amd64-musl1.2", Platform("linux", "x86_64", "musl1.2")),
        ("arm64", Platform("", "aarch64")),
        ("any", Platform()),
        ("", Platform()),
    ],
)
def test_a_platform_is_read_whatever_the_order_of_its_parts(text: str, platform: Platform) -> None:
    assert parse_platform(text) == platform
    assert parse_platform(platform.text) == platform


@pytest.mark.parametrize(
    "text", ["linux-windows", "x86_64-aarch64", "a b", "x/y", "../..", "$(os)", "x" * 200]
)
def test_what_is_no_platform_is_refused_with_the_part_that_is_wrong(text: str) -> None:
    with pytest.raises(NotAPlatform):
        parse_platform(text)


@pytest.mark.parametrize(
    ("platform", "why"),
    [
        ("any", ()),
        ("linux-x86_64-glibc2.34-py3.11", ()),
        ("RHEL_9_x86_64", ()),
        ("linux-x86_64-glibc2.17", ()),
        ("glibc2.4", ()),
        ("glibc2.36", ("it needs glibc2.36",)),
        ("musl1.2", ("it needs musl1.2",)),
        ("aarch64-py3.12", ("it is for aarch64", "it needs Python 3.12")),
        ("Debian_12", ("it is for Debian_12",)),
    ],
)
def test_a_build_says_why_it_cannot_run(platform: str, why: tuple[str, ...]) -> None:
    assert misfits(parse_platform(platform), HOST) == why


def test_the_build_made_most_closely_for_the_machine_is_chosen_whatever_the_order() -> None:
    names = [
        "any",
        "linux-x86_64",
        "x86_64-glibc2.17",
        "x86_64-glibc2.28",
        "x86_64-glibc2.28-py3.11",
        "RHEL_9_x86_64",
    ]
    builds = [build(name) for name in names]
    for left in range(len(builds), 0, -1):
        several = builds[:left]
        best = best_build(several, HOST)
        assert best == best_build(several[::-1], HOST)
    assert best_build(builds, HOST) == build("RHEL_9_x86_64")
    assert best_build(builds[:5], HOST) == build("x86_64-glibc2.28-py3.11")
    assert best_build(builds[:4], HOST) == build("x86_64-glibc2.28")
    assert best_build([build("aarch64")], HOST) is None


def test_a_platform_that_is_asked_for_leaves_only_builds_with_all_its_parts() -> None:
    builds = [build("linux-x86_64-py3.11"), build("linux-x86_64-py3.12"), build("any")]
    assert within(parse_platform("py3.12"), builds) == (builds[1],)
    assert within(Platform(), builds) == tuple(builds)
    assert within(parse_platform("LINUX"), builds) == tuple(builds[:2])


def test_sites_are_asked_for_what_every_build_needs() -> None:
    assert attributes_of([build("linux-x86_64-py3.11"), build("aarch64-py3.11")]) == (
        "arch=aarch64|x86_64",
        "python=3.11",
    )
    assert attributes_of([build("x86_64"), build("any")]) == ()
    assert attributes_of([]) == ()


def test_a_machine_goes_by_every_name_of_its_system() -> None:
    alma = systems_of({"ID": "almalinux", "ID_LIKE": "rhel centos fedora", "VERSION_ID": "9.4"})
    assert {"linux", "almalinux", "almalinux_9", "rhel", "rhel_9"} <= alma and "fedora_9" not in alma
    assert systems_of({}) == {"linux"}
    here = this_machine()
    assert "linux" in here.systems and here.arch and here.python.startswith("3.")
