"""`python -m benchmarks [PART]...`: measure; the tables go into docs/performance.md."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import catchup, etcd, failover, grids, ledger, machine, pilots, report, reports, scale

PARTS = ("ledger", "reports", "scale", "failover", "catchup", "grids", "pilots")
GRID_ROUNDS_MOST = 3


def main(arguments: list[str] | None = None) -> int:
    """Run the parts asked for, all by default."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that what was started is stopped.
    with tempfile.TemporaryDirectory(prefix="iceprod-bench-", dir=options.directory) as directory:
        root = Path(directory)
        about = machine.describe(root)
        for part in options.parts or PARTS:
            say(f"== {part}")
            lines = _measure(part, root / part, options)
            print("\n".join(lines), flush=True)
            if not options.print_only:
                report.put(part, [*about, "", *lines])
    return 0


def _measure(part: str, directory: Path, options: argparse.Namespace) -> list[str]:
    directory.mkdir()
    parts: dict[str, Callable[[], list[str]]] = {
        "ledger": lambda: _ledger(directory, options),
        "reports": lambda: reports.measure(
            directory,
            rounds=min(options.rounds, GRID_ROUNDS_MOST),
            seconds=options.seconds,
            with_peer=etcd.version() is not None,
            say=say,
        ),
        "scale": lambda: scale.measure(
            directory, done=scale.FULL_DONE if options.full else options.done, store=options.filled, say=say
        ),
        "failover": lambda: failover.measure(directory, kills=options.kills, say=say),
        "catchup": lambda: catchup.measure(directory, entries=options.entries, say=say),
        "grids": lambda: grids.measure(
            directory, tasks=options.tasks, rounds=min(options.rounds, GRID_ROUNDS_MOST), say=say
        ),
        "pilots": lambda: pilots.measure(directory, pilots=options.pilots, say=say),
    }
    return parts[part]()


def _ledger(directory: Path, options: argparse.Namespace) -> list[str]:
    version = etcd.version()
    if version is None:
        say(
            "etcd is not installed (Debian: apt-get install etcd-server etcd-client): measured without the peer"
        )
    lines = ledger.measure(
        directory,
        rounds=options.rounds,
        seconds=options.seconds,
        with_peer=version is not None,
        own_load=options.etcd_own_load,
        say=say,
    )
    return [*([f"- etcd {version}", ""] if version else []), *lines]


def say(line: str) -> None:
    """Tell how far the run is, on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=f"{', '.join(PARTS)}; all by default"
    )
    parser.add_argument("--rounds", type=int, default=5, help="ledger: how often each side takes its turn")
    parser.add_argument("--seconds", type=float, default=2.0, help="ledger: how long one turn counts")
    parser.add_argument(
        "--etcd-own-load", action="store_true", help="ledger: also `etcdctl check perf` (1 minute)"
    )
    parser.add_argument(
        "--done", type=int, default=scale.DEFAULT_DONE, help="scale: how many tasks are finished"
    )
    parser.add_argument(
        "--full", action="store_true", help=f"scale: {scale.FULL_DONE:,} tasks are finished (hours)"
    )
    parser.add_argument(
        "--filled",
        type=Path,
        help="scale: a store that `python -m benchmarks.fill` has filled; it is used up",
    )
    parser.add_argument("--kills", type=int, default=20, help="failover: how many leaders are killed")
    parser.add_argument(
        "--entries", type=int, default=catchup.ENTRIES, help="catchup: how many entries the node is behind"
    )
    parser.add_argument("--tasks", type=int, default=3_000, help="grids: how many tasks a round has")
    parser.add_argument(
        "--pilots", type=int, default=pilots.PILOTS, help="pilots: how many are connected to one node"
    )
    parser.add_argument(
        "--directory", type=Path, help="where the stores lie during the run (a real disk, not tmpfs)"
    )
    parser.add_argument("--print-only", action="store_true", help="leave docs/performance.md as it is")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
