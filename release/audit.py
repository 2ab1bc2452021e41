"""`make audit`: look for known vulnerabilities in what is installed here, with `pip-audit`.

Where the network answers, pip-audit asks OSV (osv.dev) itself.  Elsewhere, or with `--offline`, a server of
OSV's query call on loopback answers from `advisories.json`, which holds the advisories that matter for the
packages we use, in OSV's format.  Add to it what is announced; the source is named in each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ADVISORIES = Path(__file__).with_name("advisories.json")
BODY_BYTES_MAX = 64 * 1024


def affecting(advisories: list[dict[str, Any]], name: str, version: str) -> list[dict[str, Any]]:
    """Return the advisories (OSV entries) that concern this version of a package of PyPI."""
    return [
        advisory
        for advisory in advisories
        if any(
            affected["package"]["ecosystem"] == "PyPI"
            and canonicalize_name(affected["package"]["name"]) == canonicalize_name(name)
            and any(_within(spread["events"], version) for spread in affected["ranges"])
            for affected in advisory["affected"]
        )
    ]


def _within(events: list[dict[str, str]], version: str) -> bool:
    """Whether a version lies in one of the intervals [introduced, fixed) of a range."""
    try:
        asked = Version(version)
    except InvalidVersion:
        return True  # Nobody can tell, so somebody must look.
    inside = False
    for event in events:
        if "introduced" in event:
            inside = inside or event["introduced"] == "0" or asked >= Version(event["introduced"])
        elif "fixed" in event and asked >= Version(event["fixed"]):
            inside = False
    return inside


@contextmanager
def local_service(path: Path = ADVISORIES) -> Iterator[str]:
    """Answer OSV's query call from a file; gives the address, on loopback."""
    advisories = json.loads(path.read_text())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = min(int(self.headers.get("Content-Length", 0)), BODY_BYTES_MAX)
            query = json.loads(self.rfile.read(length))
            found = affecting(advisories, query["package"]["name"], query.get("version", ""))
            content = json.dumps({"vulns": found} if found else {}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing; pip-audit does."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def audit(*options: str) -> subprocess.CompletedProcess[str]:
    """Run pip-audit with a service chosen by `options`."""
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "-s", "osv", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def main(arguments: list[str]) -> int:
    """Audit; 0 when nothing is known against what is installed, 1 when something is."""
    parser = argparse.ArgumentParser(prog="make audit", description=__doc__)
    parser.add_argument("--offline", action="store_true", help="ask the local advisories alone")
    parser.add_argument(
        "--path", action="append", default=[], help="packages here instead of this environment"
    )
    given = parser.parse_args(arguments)
    where = [word for path in given.path for word in ("--path", path)] or ["--skip-editable"]
    if not given.offline:
        done = audit(*where)
        if done.returncode in (0, 1) and "Traceback" not in done.stderr and "Connection" not in done.stderr:
            sys.stdout.write(done.stdout)
            sys.stderr.write(done.stderr)
            return done.returncode
        print(f"osv.dev does not answer; asking {ADVISORIES.name} instead", file=sys.stderr)
    with local_service() as address:
        done = audit(*where, "--osv-url", address)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
