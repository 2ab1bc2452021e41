"""Small helpers between tasks: joining files, and waiting for files that something else writes."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from iceprod_p2p.base.clock import Clock, SystemClock
from iceprod_p2p.base.errors import NotFound, Unavailable
from iceprod_p2p.modules.base import IPModule, Statistics

POLL_S = 0.5


class Concatenate(IPModule):
    """Join files, in the order given, into one."""

    def __init__(self) -> None:
        super().__init__()
        self.AddParameter("infiles", "files to read, in order", [], "string_list")
        self.AddParameter("outfile", "file to write", "merged", "string")

    def Execute(self, stats: Statistics) -> int:
        """Write the output whole or not at all; NotFound, naming it, when an input is missing."""
        inputs = [Path(name) for name in self.GetParameter("infiles")]
        missing = [str(path) for path in inputs if not path.is_file()]
        if missing:
            raise NotFound(f"these files are missing: {', '.join(missing)}")
        output = Path(self.GetParameter("outfile"))
        partial = output.with_name(output.name + ".partial")
        with partial.open("wb") as target:
            for path in inputs:
                with path.open("rb") as source:
                    shutil.copyfileobj(source, target)
        partial.replace(output)
        stats["files_merged"] = len(inputs)
        stats["bytes_merged"] = output.stat().st_size
        return 0


class WaitForFiles(IPModule):
    """Wait until files exist: for data that something outside the production delivers."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__()
        self.clock = clock or SystemClock()
        self.AddParameter("files", "files to wait for", [], "string_list")
        self.AddParameter("timeout", "longest time to wait, in seconds", 600.0, "float")

    def Execute(self, stats: Statistics) -> int:
        """Return when all are there; Unavailable, naming those that are not, after the timeout."""
        paths = [Path(name) for name in self.GetParameter("files")]
        timeout_s = self.GetParameter("timeout")
        started_s = self.clock.monotonic_s()
        while missing := [str(path) for path in paths if not path.exists()]:
            waited_s = self.clock.monotonic_s() - started_s
            if waited_s >= timeout_s:
                raise Unavailable(
                    f"after {timeout_s:g} s these files are still missing: {', '.join(missing)}"
                )
            self.context.progress(0.0, f"waiting for {len(missing)} files")
            time.sleep(min(POLL_S, timeout_s - waited_s))
        stats["files_found"] = len(paths)
        return 0
