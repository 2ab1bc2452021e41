"""Every story in tests/golden/scenarios comes out as it is written; `make bless` writes what the ledger does now."""

from __future__ import annotations

import ast
import os
import re
import sys
from pathlib import Path

import pytest

from tests.ledger_scenarios import ARROW, replay

ROOT = Path(__file__).resolve().parents[3]
SCENARIOS = sorted((ROOT / "tests/golden/scenarios").glob("*.txt"))
LEDGER = ROOT / "iceprod_p2p/ledger"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_line_comes_out_as_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = path.read_text()
    assert text.startswith("# "), "a scenario begins by saying what it shows"

    def bound(name: str, value: int) -> None:
        modules = [module for name, module in sys.modules.items() if name.startswith("iceprod_p2p.ledger")]
        known = [module for module in modules if hasattr(module, name)]
        assert known, f"the ledger has no limit {name}"
        for module in known:
            monkeypatch.setattr(module, name, value)

    played = replay(text, bound)
    if os.environ.get("ICEPROD_BLESS") == "1":
        path.write_text(played)
    else:
        assert played == text


def _refusals() -> list[tuple[str, re.Pattern[str]]]:
    """Every sentence with which a rule refuses, as a pattern, with where it stands."""
    found = []
    for path in sorted([*LEDGER.glob("rules/*.py"), LEDGER / "requests.py", LEDGER / "codec.py"]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refused":
                code, detail = node.args
                assert isinstance(code, ast.Attribute)
                pattern = f"refused  {code.attr.lower()}: {_pattern(detail)}"
                found.append((f"{path.name}:{node.lineno}", re.compile(pattern)))
    return found


def _pattern(detail: ast.expr) -> str:
    if isinstance(detail, ast.Constant):
        return re.escape(detail.value)
    if isinstance(detail, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else None for part in detail.values)
        return "".join(".*" if part is None else re.escape(str(part)) for part in parts)
    return ".*"


def test_every_refusal_of_every_command_is_told_in_a_scenario() -> None:
    told = [
        line.split(ARROW, 1)[1]
        for path in SCENARIOS
        for line in path.read_text().splitlines()
        if ARROW in line
    ]
    missing = [
        f"{where}: {pattern.pattern}"
        for where, pattern in _refusals()
        if not any(pattern.search(outcome) for outcome in told)
    ]
    assert not missing, "\n".join(missing)
