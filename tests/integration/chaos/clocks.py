"""Wall clocks of single processes that a test can set: libfaketime (Debian's package of this name), monotonic clocks
left alone, as they are when somebody sets a machine's time.
"""

from __future__ import annotations

from pathlib import Path

import pytest

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def need_clocks_to_set() -> None:
    """Skip the test aloud where processes cannot be given clocks of their own."""
    if LIBRARY is None:
        pytest.skip("clock jumps need libfaketime: tests/grids/install.sh chaos (Debian, root)")


class WallClock:
    """One process's idea of the time: as far from the true one as `jump` says, from the next look on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.jump(0)

    def jump(self, offset_s: int) -> None:
        """Set the clock so many seconds before (negative) or after the true time."""
        self.offset_s = offset_s
        young = self._path.with_suffix(".new")
        young.write_text(f"{offset_s:+d}\n")
        young.replace(self._path)

    def environment(self) -> dict[str, str]:
        """What a process is started with to go by this clock."""
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
