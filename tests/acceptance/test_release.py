"""A release's bill of materials, and an audit that sees old packages even without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from release import audit, sbom

pytestmark = pytest.mark.timeout(900)  # Minutes, where everything else of a machine is at work, too.


def test_the_bill_is_a_document_of_versions() -> None:
    document = sbom.bill_of_materials()
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    others = [part for part in document["components"] if part["name"] != sbom.PACKAGE]
    assert all(part["version"] and part["purl"].startswith("pkg:pypi/") for part in others)
    assert len(others) + 1 == len(sbom.runtime_names())


def test_without_a_network_the_audit_still_sees_an_old_package(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, version in (("PyYAML", "5.3"), ("msgpack", "1.1.0")):
        facts = tmp_path / f"{name}-{version}.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    assert audit.main(["--offline", "--path", str(tmp_path)]) == 1
    said = capfd.readouterr()
    assert "CVE-2020-14343" in said.out and "msgpack" not in said.out
    assert audit.main(["--offline"]) == 0, "nothing is known against what we depend on"
