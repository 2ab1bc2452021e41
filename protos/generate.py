"""Generate the committed code under iceprod_p2p/wire/pb from protos/*.proto (`make protos`).

The import lines are rewritten to be relative, because protoc writes absolute ones.  A test regenerates into a
scratch directory and compares, so edit the .proto files only.
"""

from __future__ import annotations

import re
import sys
from importlib.resources import files
from pathlib import Path

PROTOS = Path(__file__).resolve().parent
TARGET = PROTOS.parent / "iceprod_p2p" / "wire" / "pb"


def generate(target: Path) -> None:
    """Write one `_pb2.py`, `_pb2.pyi` and, for services, `_pb2_grpc.py` per proto into `target`."""
    from grpc_tools import protoc

    target.mkdir(parents=True, exist_ok=True)
    sources = sorted(PROTOS.glob("*.proto"))
    outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    well_known = str(files("grpc_tools") / "_proto")
    arguments = ["protoc", f"-I{PROTOS}", f"-I{well_known}", *outputs, *map(str, sources)]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc refused the protos; its message stands above")
    for path in target.glob("*_pb2*.py*"):
        text = path.read_text()
        if path.name.endswith("_grpc.py") and "add_" not in text:
            path.unlink()
            continue
        path.write_text(re.sub(r"^import (\w+_pb2) as", r"from . import \1 as", text, flags=re.MULTILINE))


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
