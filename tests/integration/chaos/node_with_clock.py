"""`iceprod-node` whose wall clock a test can set: what the program itself reads, through its one door for the time.

CHAOS_CLOCK=FILE python -m tests.integration.chaos.node_with_clock start --foreground --config site.toml
"""

from __future__ import annotations

import os
from pathlib import Path

from iceprod_p2p.base.clock import SystemClock
from iceprod_p2p.daemon import main

VARIABLE = "CHAOS_CLOCK"
_true_ms = SystemClock.wall_ms


def _wall_ms(self: SystemClock) -> int:
    return _true_ms(self) + int(Path(os.environ[VARIABLE]).read_text()) * 1_000


if __name__ == "__main__":
    SystemClock.wall_ms = _wall_ms  # type: ignore[method-assign]
    main()
