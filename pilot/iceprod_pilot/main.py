"""``iceprod-pilot --config FILE``: the entry point on worker nodes."""

from __future__ import annotations

import argparse
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from iceprod_p2p import __version__
from iceprod_p2p.base import logs
from iceprod_p2p.base.clock import SystemClock
from iceprod_p2p.base.errors import IceProdError
from iceprod_pilot import config, guard, platform, probe
from iceprod_pilot.lifecycle import Pilot


def argument_parser() -> argparse.ArgumentParser:
    """Return what reads the command line of `iceprod-pilot`."""
    parser = argparse.ArgumentParser(
        prog="iceprod-pilot", description="Run tasks of an IceProd site on this machine."
    )
    parser.add_argument("--config", type=Path, required=True, help="the JSON file that the site's node wrote")
    parser.add_argument("--probe", action="store_true", help="look at this worker node, run nothing, and end")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one pilot to its end; return its exit code (docs/pilot.md lists them)."""
    options = argument_parser().parse_args(argv)
    os.umask(0o077)
    try:
        settings = config.load(options.config, os.environ)
        logs.configure(style="json" if settings.log_style == "json" else "text", level=settings.log_level)
        guard.protect_this_process()
        # A core file would hold the pilot's key, or gigabytes of a payload's memory.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if options.probe:
            return probe.probe(settings, os.environ, SystemClock())
        logs.get_logger("pilot").info(
            "pilot starts", pilot=settings.pilot, site=settings.site, **platform.facts()
        )
        return Pilot(settings, clock=SystemClock(), environ=os.environ).run()
    except IceProdError as failure:
        print(f"iceprod-pilot: {failure}", file=sys.stderr)
        return failure.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
