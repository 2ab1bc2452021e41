"""Parameters that refer to themselves are faults of a file, with their place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from iceprod_p2p.steering.read import check


def faults_of(
    *,
    steering: dict[str, Any] | None = None,
    system: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    task: dict[str, Any] | None = None,
    tray: dict[str, Any] | None = None,
    module: dict[str, Any] | None = None,
) -> list[tuple[str, str]]:
    modules = [{"src": "x", "parameters": module or {}}]
    document = {
        "format": "iceprod-p2p/1",
        "options": options or {},
        "steering": {"parameters": steering or {}, "system": system or {}},
        "tasks": [
            {"name": "a", "parameters": task or {}, "trays": [{"parameters": tray or {}, "modules": modules}]}
        ],
    }
    checked = check(json.dumps(document, indent=1).encode(), name="x.json")
    assert all(fault.line and fault.column for fault in checked.faults), "every fault has its place"
    return [(fault.path, fault.found.partition(": ")[2]) for fault in checked.faults]


S = "steering.parameters"
T = "tasks[0].parameters"
Y = "tasks[0].trays[0].parameters"
M = "tasks[0].trays[0].modules[0].parameters"


@pytest.mark.parametrize(
    ("parts", "ways"),
    [
        ({"steering": {"a": "x$steering(a)"}}, [f"{S}.a -> {S}.a"]),
        ({"steering": {"a": "$(b)", "b": ["$sprintf('%s', $(a))"]}}, [f"{S}.a -> {S}.b -> {S}.a"]),
        ({"steering": {"a": {"x": {"$(a)": 1}}}}, [f"{S}.a -> {S}.a"]),
        (
            {"steering": {"a": "$(a)", "b": "$(c)", "c": "$(b) $(a)"}},
            [f"{S}.a -> {S}.a", f"{S}.b -> {S}.c -> {S}.b"],
        ),
        ({"options": {"a": "$options(b)", "b": "$args(a)"}}, ["options.a -> options.b -> options.a"]),
        ({"system": {"a": "$system(a)"}}, ["steering.system.a -> steering.system.a"]),
        ({"task": {"a": "$(a)"}}, [f"{T}.a -> {T}.a"]),
        ({"tray": {"a": "$(b)"}, "module": {"b": "$(a)"}}, [f"{M}.b -> {Y}.a -> {M}.b"]),
        ({"steering": {"a": "$(b)"}, "module": {"b": "$steering(a)"}}, [f"{M}.b -> {S}.a -> {M}.b"]),
    ],
)
def test_a_cycle_is_a_fault_that_names_the_way_around(parts: dict[str, Any], ways: list[str]) -> None:
    assert [way for _path, way in faults_of(**parts)] == ways


@pytest.mark.parametrize(
    "parts",
    [
        {"steering": {"a": "$(b) $(b)", "b": "$(c)", "c": "1"}},
        {"steering": {"file": "base"}, "tray": {"file": "$steering(file).i3"}},
        {"steering": {"a": "\\$(a)"}},
        {"steering": {"a": "$metadata(a) $environ(a) $system(a)"}, "system": {"a": "1"}},
        {"options": {"seed": "$args(seed)", "job": "$(job)"}},
        {"task": {"b": "$(c)"}, "module": {"c": "$(d)", "d": "1"}},
        {"steering": {"a": "$(gone)"}},
        {"steering": {"a": "a $ ( $(", "b": "(b)"}},
    ],
)
def test_what_is_no_cycle_is_no_fault(parts: dict[str, Any]) -> None:
    assert faults_of(**parts) == []


def test_a_long_cycle_is_shown_in_short() -> None:
    steering = {f"p{n}": f"$(p{(n + 1) % 2_000})" for n in range(2_000)}
    ((path, way),) = faults_of(steering=steering)
    assert path == f"{S}.p0"
    assert way.endswith(f"-> ... -> {S}.p0 (2000 in all)") and len(way) < 400


def test_a_ring_of_thousands_of_parameters_is_named() -> None:
    ring = {f"p{number}": f"$(p{(number + 1) % 4_000})" for number in range(4_000)}
    ((path, way),) = faults_of(steering=ring)
    assert path == f"{S}.p0" and way.endswith("(4000 in all)")
