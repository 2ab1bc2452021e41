"""What goes into a bill of materials, and which advisories concern which versions."""

from __future__ import annotations

import json

import pytest

from release import audit, sbom


def test_the_bill_names_what_users_need_and_no_tool_of_ours() -> None:
    names = sbom.runtime_names()
    assert {"iceprod-p2p", "grpcio", "pysyncobj", "lmdb", "cryptography", "msgpack", "cffi"} <= names
    assert not {"pytest", "mypy", "ruff", "trustme", "numpy", "pip"} & names


@pytest.mark.parametrize(
    ("name", "version", "found"),
    [
        ("PyYAML", "5.3.1", ["CVE-2020-14343"]),
        ("pyyaml", "5.4", []),
        ("pyjwt", "1.4", []),
        ("pyjwt", "2.3.9", ["CVE-2022-29217"]),
        ("cryptography", "41.0", ["CVE-2024-26130", "CVE-2023-50782"]),
        ("h2", "not-a-version", ["CVE-2025-57804"]),
        ("unheard-of", "1.0", []),
    ],
)
def test_an_advisory_concerns_the_versions_it_says(name: str, version: str, found: list[str]) -> None:
    advisories = json.loads(audit.ADVISORIES.read_text())
    assert [advisory["id"] for advisory in audit.affecting(advisories, name, version)] == found
