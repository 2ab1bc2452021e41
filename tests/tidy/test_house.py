"""The house checks itself: sizes, words, doors, freshness of what is generated."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINES_MAX = 400
FUNCTION_LINES_MAX = 90


def _tracked(*patterns: str) -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return [ROOT / name for name in listing.stdout.splitlines() if (ROOT / name).is_file()]


SOURCES = [
    path
    for path in _tracked("*.py")
    if "tests" not in path.relative_to(ROOT).parts and "wire/pb" not in path.as_posix()
]


def test_no_source_file_grows_past_the_limit() -> None:
    long = {
        str(p.relative_to(ROOT)): n for p in SOURCES if (n := len(p.read_text().splitlines())) > LINES_MAX
    }
    assert not long, f"split these by idea (limit {LINES_MAX} lines): {long}"


def test_functions_fit_a_screen_or_two() -> None:
    long = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} ({length} lines)")
    assert not long, "\n".join(long)


def test_no_unfinished_lines_and_no_shells() -> None:
    banned = re.compile(
        r"\b(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError"
        r"|shell=True|yaml\.load\(|verify=False|\bpickle\.(loads?|dumps?)\("
    )
    hits = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if banned.search(line)
    ]
    assert not hits, "\n".join(hits)


def test_every_module_and_public_class_and_function_says_what_it_promises() -> None:
    silent = []
    for path in SOURCES:
        text = path.read_text()
        tree = ast.parse(text)
        name = path.relative_to(ROOT)
        if text.strip() and not ast.get_docstring(tree):
            silent.append(str(name))
        for node in tree.body:
            public = isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            if public and not node.name.startswith("_") and not ast.get_docstring(node):
                silent.append(f"{name}:{node.lineno} {node.name}")
    assert not silent, "\n".join(silent)


def test_every_package_is_listed_in_setup_cfg() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = set()
    for base, prefix in (("iceprod_p2p", ""), ("pilot", "pilot/"), ("cli", "cli/")):
        for path in (ROOT / base).rglob("__init__.py"):
            package = path.parent.relative_to(ROOT).as_posix().removeprefix(prefix)
            found.add(package.replace("/", "."))
    assert listed == found, f"not listed: {found - listed}; listed but absent: {listed - found}"


def test_generated_wire_code_is_fresh(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is part of the dev extra")
    spec = importlib.util.spec_from_file_location("generate", ROOT / "protos" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.generate(tmp_path)
    committed = ROOT / "iceprod_p2p" / "wire" / "pb"
    for path in sorted(tmp_path.iterdir()):
        assert (committed / path.name).read_text() == path.read_text(), (
            f"run `make protos`: {path.name} is old"
        )
    names = {path.name for path in committed.glob("*_pb2*")}
    assert names == {path.name for path in tmp_path.iterdir()}


def test_single_doors_are_the_only_users_of_what_they_guard() -> None:
    doors = {
        r"\btime\.time(_ns)?\(|datetime\.now\(": {"iceprod_p2p/base/clock.py"},
        r"_SyncObj__": {"iceprod_p2p/raft/syncobj.py"},
        r"\bimport secrets\b|\bos\.urandom\(": {"iceprod_p2p/security"},
    }
    hits = []
    for path in SOURCES:
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(("benchmarks/", "examples/", "protos/")):
            continue
        for pattern, allowed in doors.items():
            if not any(name.startswith(door) for door in allowed) and re.search(pattern, path.read_text()):
                hits.append(f"{name}: {pattern}")
    assert not hits, "\n".join(hits)
