"""`make sbom`: write the software bill of materials (CycloneDX 1.6, JSON) of what node, pilot and CLI need.

The list is read from what is installed here, and holds the package and everything it requires, directly or
through others, but no tool of development.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = "iceprod-p2p"


def runtime_names(package: str = PACKAGE) -> set[str]:
    """Return the canonical names of `package` and of all that it requires on this platform, extras apart."""
    found: set[str] = set()
    waiting = [Requirement(package)]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # Wanted on other platforms only.
        found.add(name)
        extras = requirement.extras or {""}
        for line in requires:
            child = Requirement(line)
            if child.marker is None or any(child.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(child)
    return found


def bill_of_materials() -> dict[str, Any]:
    """Return the bill as a document; components are sorted, and nothing in it depends on when it was made."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "sbom.json"
        command = [
            *(sys.executable, "-m", "cyclonedx_py", "environment", sys.executable),
            *("--output-format", "JSON", "--spec-version", "1.6", "--output-reproducible"),
            *("--output-file", str(path)),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        document: dict[str, Any] = json.loads(path.read_text())
    wanted = runtime_names()
    kept = [part for part in document["components"] if canonicalize_name(part["name"]) in wanted]
    references = {part["bom-ref"] for part in kept}
    document["components"] = sorted(kept, key=lambda part: str(part["name"]).lower())
    document["dependencies"] = [
        {**entry, "dependsOn": [ref for ref in entry.get("dependsOn", []) if ref in references]}
        for entry in document.get("dependencies", [])
        if entry["ref"] in references
    ]
    for part in document["components"]:  # Where it is installed here is nobody's business.
        part.pop("externalReferences", None)
    return document


def main(arguments: list[str]) -> int:
    """Write the bill to the path given, or to standard output."""
    text = json.dumps(bill_of_materials(), indent=2, sort_keys=True) + "\n"
    if arguments:
        Path(arguments[0]).write_text(text)
        print(f"wrote {arguments[0]}")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
