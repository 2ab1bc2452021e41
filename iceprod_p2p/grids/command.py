"""The one door to the commands of batch systems: argument lists, time limits, bounded output, a set
environment.

A call blocks; a node makes it in a worker thread.  Commands run in a process group of their own, so that a
time-out ends what they started too.  There is no shell anywhere.
"""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Final, Self

from iceprod_p2p.base.clock import Clock, SystemClock
from iceprod_p2p.grids.errors import GridDown, GridError, GridTimeout

OUTPUT_BYTES_MAX: Final = 64 << 20  # `squeue --json` of 20,000 jobs is 50 MB.
SAID_MAX: Final = 500  # Characters of a command's complaint in an error.
KILL_AFTER_S: Final = 2.0
USUAL_VARIABLES: Final = frozenset({"HOME", "KRB5CCNAME", "LOGNAME", "PATH", "TZ", "USER"})
PRIVATE_PREFIXES: Final = ("ICEPROD_", "PYTHON", "VIRTUAL_ENV", "LC_", "LANG")


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended."""

    arguments: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """What the command complained about, on one short line."""
        text = self.stderr.strip() or self.stdout.strip() or "nothing"
        return " / ".join(text.split("\n"))[:SAID_MAX]


@dataclass(frozen=True, slots=True)
class Commands:
    """Runs the commands of one batch system.

    `bin_directory` is looked at instead of PATH: PBS-like names clash between systems.  `environment` is
    added to the node's own, of which our settings and Python's are left out, and all but `inherited` where
    that is given: some systems hand the environment of their submission command to the grid job.  Messages
    are asked for in English.
    """

    bin_directory: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0
    output_bytes_max: int = OUTPUT_BYTES_MAX
    clock: Clock = field(default_factory=SystemClock)
    inherited: frozenset[str] | None = None

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Make it of a plugin's options `bin_directory`, `environment` and `timeout_s`."""
        return cls(
            bin_directory=str(options["bin_directory"]),
            environment=dict(options["environment"]),  # type: ignore[call-overload]
            timeout_s=float(str(options["timeout_s"])),
        )

    def run(
        self,
        arguments: Sequence[str],
        *,
        stdin: str = "",
        timeout_s: float | None = None,
        cwd: str | None = None,
    ) -> CommandResult:
        """Run a command to its end, whatever its exit code.

        Raises GridTimeout when it takes longer than `timeout_s`, GridDown when it is not there or cannot be
        run, GridError when it prints too much.
        """
        line = (self._path(arguments[0]), *arguments[1:])
        try:
            process = subprocess.Popen(
                line,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment(),
                cwd=cwd,
                start_new_session=True,
            )
        except OSError as broken:
            raise GridDown(
                f"{arguments[0]} cannot be run: {broken.strerror or broken}",
                command=shlex.join(line),
                remedy="install the batch system's commands or set bin_directory",
            ) from broken
        with process:
            try:
                out, err = self._converse(
                    process, stdin.encode(), self.timeout_s if timeout_s is None else timeout_s
                )
            finally:
                _end(process)
        return CommandResult(line, process.returncode, out, err)

    def succeed(self, arguments: Sequence[str], *, stdin: str = "", timeout_s: float | None = None) -> str:
        """Run a command that has to end with 0 and return its output; raises GridError that says what it
        said.
        """
        result = self.run(arguments, stdin=stdin, timeout_s=timeout_s)
        if result.exit_code != 0:
            raise failure(result)
        return result.stdout

    def _path(self, name: str) -> str:
        return os.path.join(self.bin_directory, name) if self.bin_directory and "/" not in name else name

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(PRIVATE_PREFIXES) and (self.inherited is None or name in self.inherited)
        }
        if self.bin_directory:
            kept["PATH"] = self.bin_directory + os.pathsep + kept.get("PATH", os.defpath)
        return {**kept, "LC_ALL": "C", **self.environment}

    def _converse(self, process: subprocess.Popen[bytes], stdin: bytes, timeout_s: float) -> tuple[str, str]:
        """Feed and drain the command until both outputs end or a limit is passed."""
        deadline_s = self.clock.monotonic_s() + timeout_s
        assert process.stdin and process.stdout and process.stderr
        output: dict[IO[bytes], bytearray] = {process.stdout: bytearray(), process.stderr: bytearray()}
        left = memoryview(stdin)
        with selectors.DefaultSelector() as ready:
            for stream in (process.stdin, process.stdout, process.stderr):
                os.set_blocking(stream.fileno(), False)
            for stream in output:
                ready.register(stream, selectors.EVENT_READ)
            if left:
                ready.register(process.stdin, selectors.EVENT_WRITE)
            else:
                process.stdin.close()
            while ready.get_map():
                remaining_s = deadline_s - self.clock.monotonic_s()
                if remaining_s <= 0:
                    raise _late(process, timeout_s)
                for key, _ in ready.select(remaining_s):
                    if key.fileobj is process.stdin:
                        left = _feed(process.stdin, left)
                        if not left:
                            ready.unregister(process.stdin)
                            process.stdin.close()
                    else:
                        self._drain(process, ready, key, output)
        try:
            process.wait(max(0.0, deadline_s - self.clock.monotonic_s()))
        except subprocess.TimeoutExpired as late:
            raise _late(process, timeout_s) from late
        return output[process.stdout].decode("utf-8", "replace"), output[process.stderr].decode(
            "utf-8", "replace"
        )

    def _drain(
        self,
        process: subprocess.Popen[bytes],
        ready: selectors.BaseSelector,
        key: selectors.SelectorKey,
        output: dict[IO[bytes], bytearray],
    ) -> None:
        chunk = os.read(key.fd, 1 << 16)
        if not chunk:
            ready.unregister(key.fileobj)
            return
        kept = next(buffer for stream, buffer in output.items() if stream is key.fileobj)
        kept += chunk
        if len(kept) > self.output_bytes_max:
            line = shlex.join(map(str, _line(process)))
            raise GridError(
                f"{line.split()[0]} printed more than {self.output_bytes_max >> 20} MiB",
                command=line,
                remedy="ask it for fewer jobs, or lower the site's queue length",
            )


def failure(result: CommandResult, *, down: bool = False, remedy: str = "") -> GridError:
    """Return the error for a command that ended badly; GridDown when its system cannot be reached."""
    name = os.path.basename(result.arguments[0])
    kind = GridDown if down else GridError
    return kind(
        f"{name} ended with {result.exit_code} and said: {result.said}",
        command=shlex.join(result.arguments),
        remedy=remedy,
    )


def _feed(stream: IO[bytes], left: memoryview) -> memoryview:
    try:
        return left[os.write(stream.fileno(), left[: 1 << 16]) :]
    except BrokenPipeError:  # It ended without reading; its exit code will tell.
        return left[:0]


def _line(process: subprocess.Popen[bytes]) -> Sequence[str]:
    return process.args if isinstance(process.args, list | tuple) else (str(process.args),)


def _late(process: subprocess.Popen[bytes], timeout_s: float) -> GridTimeout:
    line = shlex.join(map(str, _line(process)))
    return GridTimeout(
        f"{os.path.basename(line.split()[0])} gave no answer in {timeout_s:g} s",
        command=line,
        remedy="check the batch system, or raise timeout_s of this grid",
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command and all of its process group; after its regular end there is nothing left to do."""
    if process.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(KILL_AFTER_S)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
