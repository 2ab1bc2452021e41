"""Command-line tools of the Grid, each call bounded in time, its words read and its bytes counted.

Arguments go as a list, no shell between; the environment is made anew with the credentials of the server in question;
the tool and all it started are ended when the call is over.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Final

from iceprod_p2p.base.errors import BadInput, Unavailable
from iceprod_p2p.transfers.limits import Limits, Watch
from iceprod_p2p.transfers.storage import Reading, Stat

WORDS_BYTES_MAX: Final = 16_384
_PASSED_ON: Final = (
    "PATH",
    "LD_LIBRARY_PATH",
    "TMPDIR",
    "X509_USER_PROXY",
    "X509_CERT_DIR",
    "GFAL_PYTHONBIN",
)


def tool(name: str, package: str) -> str:
    """Return the path of a tool; BadInput, naming the package that brings it, when it is not installed."""
    path = shutil.which(name)
    if path is None:
        raise BadInput(
            f"this machine has no {name}", remedy=f"install it (Debian: {package}), or use another protocol"
        )
    return path


def environment(own: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a tool: a few variables of ours, and `more`."""
    made = {name: own[name] for name in _PASSED_ON if name in own}
    # A tool must not find keys in somebody's home directory that nobody named.
    return {"PATH": os.defpath, "LC_ALL": "C", "HOME": tempfile.gettempdir(), **made, **more}


class Call:
    """One run of a tool; a context manager.  Its words (standard error, and output unless it is data) are kept."""

    def __init__(
        self, arguments: Sequence[str], more: Mapping[str, str], limits: Limits, what: str, *, data: bool
    ) -> None:
        self._words = bytearray()
        self._process = subprocess.Popen(
            [os.fsencode(argument) for argument in arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if data else subprocess.STDOUT,
            env=environment(os.environ, more),
            start_new_session=True,
        )
        self.watch = Watch(limits, what, self.kill)
        self.watch.__enter__()
        source = self._process.stderr if data else self._process.stdout
        assert source is not None
        self._listener = threading.Thread(target=self._listen, args=(source,), daemon=True)
        self._listener.start()

    @property
    def output(self) -> IO[bytes]:
        """The data that the tool gives."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def words(self) -> str:
        """What the tool said, its last part, printable."""
        text = bytes(self._words).decode("utf-8", "replace")
        return "".join(char if char.isprintable() else " " for char in text).strip()

    @property
    def lines(self) -> list[str]:
        """What the tool said, by line."""
        return bytes(self._words).decode("utf-8", "replace").splitlines()

    def kill(self) -> None:
        """End the tool and what it started."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def finish(self) -> int:
        """Wait for the end and return the exit code; Unavailable when the watch ended it."""
        try:
            if self._process.stderr is None:
                self._listener.join()
            return self._process.wait()
        finally:
            self.close()

    def close(self) -> None:
        """End the tool if it still runs; Unavailable when it was the watch that ended it."""
        self.kill()
        self._process.wait()
        self._listener.join()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self.watch.__exit__(None, None, None)

    def _listen(self, source: IO[bytes]) -> None:
        while data := os.read(source.fileno(), 4_096):
            self._words += data
            del self._words[:-WORDS_BYTES_MAX]


class CommandReading(Reading):
    """A file that a tool writes to its standard output; `judge` raises for an exit code and words that mean failure."""

    def __init__(self, call: Call, stat: Stat, offset: int, judge: object) -> None:
        self._call = call
        self._judge = judge
        self._ended = False
        self.stat = stat
        self.offset = offset

    def read(self, size_bytes: int) -> bytes:
        """Read on; at the end the tool's exit code is looked at."""
        if self._ended:
            return b""
        try:
            data = os.read(self._call.output.fileno(), size_bytes)
        except OSError as broken:
            raise Unavailable(f"reading from the tool failed: {broken.strerror}") from broken
        self._call.watch.moved(len(data))
        if not data:
            self._ended = True
            code = self._call.finish()
            if code and callable(self._judge):
                self._judge(code, self._call.words)
        return data

    def close(self) -> None:
        """End the tool."""
        if not self._ended:
            self._ended = True
            self._call.close()


def run(
    arguments: Sequence[str],
    more: Mapping[str, str],
    limits: Limits,
    what: str,
    *,
    longest_bytes: int = 0,
) -> tuple[int, list[str], str]:
    """Run a tool that moves at most `longest_bytes` without saying how far it is.

    Return its exit code, its lines, and its words as one text.
    """
    patience_s = limits.longest_s(longest_bytes)
    bounds = Limits(timeout_s=patience_s, rate_min_bytes_s=0, wait=limits.wait)
    call = Call(arguments, more, bounds, what, data=False)
    code = call.finish()
    return code, call.lines, call.words
