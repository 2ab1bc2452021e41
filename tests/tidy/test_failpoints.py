"""Failpoints stand around every durable step, each name once in the list and used in the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from iceprod_p2p.base import failpoints

PACKAGE = Path(failpoints.__file__).parents[1]
DURABLE = {"fsync", "replace", "rename", "commit", "swap"}  # Methods and functions that make a change last.
WITHOUT = {  # Durable steps that no failpoint stands around, and why none is needed.
    "client/contexts.py": "a person's own files; written again by logging in again",
    "grids/psij_bridge.py": "a process for one call: the node's own failpoints stand around it",
    "site/bundle.py": "what pilots are made of; made again by the same command",
    "store/generation.py": "LMDB's transactions: a checkpoint, a snapshot and a swap pass theirs where they are used",
    "store/transactions.py": "the steps of a transaction pass theirs where it is used",
    "transfers/": "as for modules: a copy is renamed whole or made anew",
    "modules/": "on the worker node: a pilot that dies begins its task anew",
}


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if "wire/pb/" not in name and name != "base/failpoints.py":
            yield name, ast.parse(path.read_text())


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def passed(tree: ast.AST) -> list[str]:
    found = []
    for call in calls(tree):
        if isinstance(call.func, ast.Name) and call.func.id == "passing":
            (name,) = call.args
            assert isinstance(name, ast.Constant), "a failpoint is named by a word, so that it can be found"
            found.append(str(name.value))
    return found


def is_durable(call: ast.Call) -> bool:
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr not in DURABLE:
        return False
    of = function.value.id if isinstance(function.value, ast.Name) else ""
    # `replace` of a text or of a record has two arguments or names; that of a path or of `os` has paths.
    return function.attr != "replace" or of == "os" or (len(call.args) == 1 and not call.keywords)


def test_each_name_is_used_at_one_place_and_each_use_has_a_name() -> None:
    used = [name for _, tree in trees() for name in passed(tree)]
    assert sorted(used) == sorted(failpoints.NAMES)


def test_every_file_that_takes_a_durable_step_passes_a_failpoint() -> None:
    bare = [
        name
        for name, tree in trees()
        if any(is_durable(call) for call in calls(tree))
        and not passed(tree)
        and not name.startswith(tuple(WITHOUT))
    ]
    assert not bare, f"durable steps without a failpoint (base/failpoints.py; or name it in WITHOUT): {bare}"
