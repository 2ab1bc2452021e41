"""Room on the ledger's disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from iceprod_p2p.base.errors import Unavailable
from iceprod_p2p.site.room import require_room

MIB = 2**20


def test_content_is_taken_as_long_as_the_ledger_keeps_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=300 * MIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    require_room(tmp_path, 44 * MIB, least_mib=256)
    with pytest.raises(Unavailable, match="300 MiB left") as refused:
        require_room(tmp_path, 44 * MIB + 1, least_mib=256)
    assert refused.value.remedy
