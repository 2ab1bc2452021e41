"""The same profile against PySyncObj 0.3.17 as shipped loses what it acknowledged: the harness sees losses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.chaos.stock import lost_by_stock

pytestmark = [pytest.mark.timeout(900)]
ATTEMPTS = 4


async def test_stock_pysyncobj_loses_acknowledged_writes_in_this_profile(tmp_path: Path) -> None:
    for attempt in range(ATTEMPTS):
        acknowledged, lost = await lost_by_stock(tmp_path / str(attempt))
        print(f"stock PySyncObj: {acknowledged} acknowledged, {lost} lost")
        if lost:
            return
    pytest.fail(f"{ATTEMPTS} runs, and stock PySyncObj lost nothing: does the switch still shape the wires?")
