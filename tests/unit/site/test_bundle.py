"""What a pilot bundle holds: everything that any of the pilot's modules imports, and none of the node."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from iceprod_p2p.site import bundle

IMPORTS = """
import importlib, pathlib, sys
here = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(here))
for package in ("iceprod_pilot", "iceprod_p2p/modules", "iceprod_p2p/steering", "iceprod_p2p/transfers"):
    for path in sorted((here / package).glob("*.py")):
        if path.stem not in ("__init__", "yaml_reader", "yaml_writer", "xml_reader", "xml_writer", "npz"):
            importlib.import_module(f"{package.replace('/', '.')}.{path.stem}")
strange = [m.__file__ for m in list(sys.modules.values()) if "site-packages" in (getattr(m, "__file__", "") or "")]
sys.exit(f"from elsewhere: {strange}" if strange else 0)
"""


def test_every_module_of_the_pilot_is_imported_from_the_bundle_alone(tmp_path: Path) -> None:
    bundle.write_directory(bundle.gather(), tmp_path / "bundle")
    line = [os.path.realpath(sys.executable), "-I", "-S", "-c", IMPORTS, str(tmp_path / "bundle")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=240, env={}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_nothing_of_the_node_is_carried() -> None:
    names = bundle.gather().files
    assert "iceprod_p2p/base/clock.py" in names and "iceprod_pilot/main.py" in names
    assert not [
        name for name in names if name.startswith(("iceprod_p2p/raft", "iceprod_p2p/ledger", "iceprod_cli"))
    ]
    assert not [name for name in names if name.endswith((".pyc", ".pyi"))]
