"""Runs one module as a child process: started, watched, measured, ended.  The only place that starts payloads.

The child leads a session of its own, has the environment it is given and no descriptor beside standard ones and its
two private pipes, and writes stdout and stderr to the task's log.  The calling thread watches it: its end, its
messages, the limits of its task, and the switch that ends the attempt.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.model.states import FailReason
from iceprod_p2p.modules.protocol import Message, MessageReader, ProtocolError, Result
from iceprod_pilot import processes
from iceprod_pilot.attempt import Cancel, Cancelled, TaskFailure
from iceprod_pilot.guard import Guard
from iceprod_pilot.processes import MIB, Process
from iceprod_pilot.workspace import TaskDirectory

SAMPLE_FIRST_S: Final = 0.05
SAMPLE_MAX_S: Final = 0.5  # What a payload can allocate in this time is what it can overshoot.
DISK_SAMPLE_S: Final = 2.0
DISK_SAMPLE_SHARE: Final = 20  # Measuring the disk takes at most one part in so many of the time.
PIPE_BYTES: Final = 65_536
PEAKS_MAX: Final = 64  # Processes of one task whose peak of memory is asked for.


@dataclass(frozen=True, slots=True)
class Limits:
    """What a task may use: monotonic time of its end, MiB of memory of all its processes, MiB of disk; 0: no limit."""

    ends_at_s: float
    memory_mib: int
    disk_mib: int
    walltime_s: int = 0


@dataclass(slots=True)
class Meter:
    """What a task has used so far, over all its modules."""

    cpu_ms: int = 0
    memory_peak_mib: int = 0
    disk_peak_mib: int = 0


@dataclass(frozen=True, slots=True)
class Command:
    """What to start.  With `request` (a frame of `modules.protocol`) it is a module's process and answers by pipe."""

    argv: Sequence[str]
    environ: Mapping[str, str]
    request: bytes | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: `exit_code` as shells say (128 + n after signal n), and its Result if it sent one."""

    exit_code: int
    result: Result | None


class Runner:
    """Runs modules of one task, one after the other, on the calling thread."""

    def __init__(
        self,
        directory: TaskDirectory,
        limits: Limits,
        *,
        cancel: Cancel,
        guard: Guard,
        clock: Clock,
        hears: Hears | None = None,
    ) -> None:
        """`hears` is told what modules say before their result, and answers their calls."""
        self.meter = Meter()
        self._hears = hears
        self._directory = directory
        self._limits = limits
        self._cancel = cancel
        self._guard = guard
        self._clock = clock

    def run(self, command: Command) -> Ended:
        """Run a child to its end.

        TaskFailure when it cannot be started, breaks a limit or speaks against the protocol; Cancelled when the
        attempt was ended.  Whatever happens, none of its processes is left when this returns or raises.
        """
        self._cancel.check()
        descriptors = _Descriptors()
        try:
            child = _Child(command, self._directory, self._guard, descriptors)
            try:
                self._watch(child, descriptors)
            finally:
                usage = child.end(self._guard)
                own_ms = int((usage.ru_utime + usage.ru_stime) * 1_000)
                self.meter.cpu_ms += max(own_ms, child.cpu_ms)
                self._meter_memory(child, usage)
        finally:
            descriptors.close()
        self._check_disk()
        return Ended(child.exit_code, child.finish())

    def _watch(self, child: _Child, descriptors: _Descriptors) -> None:
        poller = select.poll()
        for descriptor in (self._cancel.descriptor, child.pidfd, *child.readable()):
            poller.register(descriptor, select.POLLIN)
        for descriptor in child.writable():
            poller.register(descriptor, select.POLLOUT)
        if self._hears is not None:
            poller.register(self._hears.descriptor, select.POLLIN)
        interval_s = SAMPLE_FIRST_S
        sample_at_s = self._clock.monotonic_s() + interval_s
        disk_at_s = self._clock.monotonic_s() + DISK_SAMPLE_S
        while True:
            now_s = self._clock.monotonic_s()
            wait_s = min(sample_at_s, self._limits.ends_at_s) - now_s
            ready = {descriptor for descriptor, _ in poller.poll(max(0.0, wait_s) * 1_000)}
            if self._cancel.ending is not None:
                raise Cancelled(self._cancel.ending)
            for descriptor in child.attend(ready):
                poller.unregister(descriptor)
                if descriptor not in child.kept:
                    descriptors.close(descriptor)
            self._listen(child)
            if child.pidfd in ready:
                return
            now_s = self._clock.monotonic_s()
            if now_s >= self._limits.ends_at_s:
                raise TaskFailure(
                    FailReason.WALLTIME,
                    f"it ran longer than the {self._limits.walltime_s} s the task asked for",
                )
            if now_s >= sample_at_s:
                self._check_memory(child)
                interval_s = min(SAMPLE_MAX_S, interval_s * 2)
                sample_at_s = now_s + interval_s
            if now_s >= disk_at_s:
                self._check_disk()
                took_s = self._clock.monotonic_s() - now_s
                disk_at_s = now_s + max(DISK_SAMPLE_S, took_s * DISK_SAMPLE_SHARE)

    def _listen(self, child: _Child) -> None:
        """Pass on what the child has said, and to it what answers it."""
        said, hears = child.take(), self._hears
        if hears is None:
            return
        for message in said:
            hears.hear(message)
        frame = hears.answered()
        if frame is not None:
            child.answer(frame)

    def _check_memory(self, child: _Child) -> None:
        used_mib = child.sample(self._guard)
        self.meter.memory_peak_mib = max(self.meter.memory_peak_mib, used_mib)
        if 0 < self._limits.memory_mib < used_mib:
            raise TaskFailure(
                FailReason.MEMORY,
                f"its processes used {used_mib} MiB of memory, more than the {self._limits.memory_mib} MiB asked for",
            )

    def _check_disk(self) -> None:
        used_mib = self._directory.used_mib()
        self.meter.disk_peak_mib = max(self.meter.disk_peak_mib, used_mib)
        if 0 < self._limits.disk_mib < used_mib:
            raise TaskFailure(
                FailReason.DISK,
                f"its files took {used_mib} MiB of disk, more than the {self._limits.disk_mib} MiB asked for",
            )

    def _meter_memory(self, child: _Child, usage: resource.struct_rusage) -> None:
        # A child that is started by vfork inherits the pilot's own peak in this number: below that it says nothing.
        own_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_024
        child_mib = usage.ru_maxrss // 1_024
        peak_mib = child_mib if child_mib > own_mib else child.peak_mib
        self.meter.memory_peak_mib = max(self.meter.memory_peak_mib, peak_mib)


class Hears(Protocol):
    """Who listens to modules; used on the thread that watches them."""

    @property
    def descriptor(self) -> int:
        """Readable when there is an answer."""
        ...

    def hear(self, message: Message) -> None:
        """Hear what a module says before its result."""
        ...

    def answered(self) -> bytes | None:
        """Return the frame of an answer to its call, once."""
        ...


class _Descriptors:
    """Open file descriptors; each is closed exactly once, for its number may be another file's a moment later."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def keep(self, descriptor: int) -> int:
        self._open.add(descriptor)
        return descriptor

    def close(self, *descriptors: int) -> None:
        for descriptor in descriptors or tuple(self._open):
            if descriptor in self._open:
                self._open.discard(descriptor)
                os.close(descriptor)


class _Child:
    """The process and its pipes."""

    def __init__(
        self, command: Command, directory: TaskDirectory, guard: Guard, descriptors: _Descriptors
    ) -> None:
        self.cpu_ms = 0
        self.peak_mib = 0
        self.exit_code = -1
        self._seen: dict[int, Process] = {}
        self._reader = MessageReader()
        self._said: list[Message] = []
        self.kept: set[int] = set()  # Descriptors that stay open though there is nothing to wait for.
        self._broken: ProtocolError | None = None
        self._to_send = memoryview(command.request or b"")
        self._request_fd = self._result_fd = -1
        self._descriptors = descriptors
        argv, theirs = list(command.argv), []
        log_fd = descriptors.keep(os.open(directory.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        if command.request is not None:
            request_read, self._request_fd = map(descriptors.keep, os.pipe2(os.O_CLOEXEC))
            self._result_fd, result_write = map(descriptors.keep, os.pipe2(os.O_CLOEXEC))
            theirs = [request_read, result_write]
            argv += ["--request-fd", str(request_read), "--result-fd", str(result_write)]
            os.set_blocking(self._request_fd, False)
            os.set_blocking(self._result_fd, False)
        self._process = guard.spawn(
            lambda: _start(argv, directory.work, command.environ, log_fd=log_fd, pass_fds=theirs)
        )
        descriptors.close(log_fd, *theirs)
        self.pid = self._process.pid
        self.pidfd = descriptors.keep(os.pidfd_open(self.pid))

    def readable(self) -> list[int]:
        """Descriptors to be read."""
        return [self._result_fd] if self._result_fd >= 0 else []

    def writable(self) -> list[int]:
        """Descriptors to be written."""
        return [self._request_fd] if self._request_fd >= 0 else []

    def attend(self, ready: set[int]) -> list[int]:
        """Read and write what is ready; return the descriptors that are done with."""
        done = []
        if self._request_fd in ready and self._request_fd not in self.kept and not self._send():
            done.append(self._request_fd)
            self.kept.add(self._request_fd)  # Answers go the same way.
        if self._result_fd in ready and not self._receive():
            done.append(self._result_fd)
            self._result_fd = -1
        return done

    def take(self) -> list[Message]:
        """Return what it has said since the last time, without its result."""
        said, self._said = self._said, []
        return [message for message in said if not isinstance(message, Result)]

    def answer(self, frame: bytes) -> None:
        """Write an answer; it fits into the pipe, which is empty while the child waits for it."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._request_fd, frame)

    def sample(self, guard: Guard) -> int:
        """Look at all processes; return their resident memory in MiB."""
        tree = guard.tree(self.pid)
        inside = {process.pid for process in tree}
        for left in (process for pid, process in self._seen.items() if pid not in inside):
            now = processes.read_process(left.pid)
            if now is not None and now.started == left.started and now.state not in "ZX":
                tree.append(now)  # It has left its parent and lives on: still this task's.
        self._seen = {process.pid: process for process in tree}
        self.cpu_ms = max(self.cpu_ms, sum(process.cpu_ms for process in tree))
        # The first process may be one that only waits for the payload.
        peaks = (processes.resident_peak_mib(process.pid) for process in tree[:PEAKS_MAX])
        self.peak_mib = max(self.peak_mib, processes.resident_peak_mib(self.pid), *peaks)
        return -(-sum(process.resident_bytes for process in tree) // MIB)

    def end(self, guard: Guard) -> resource.struct_rusage:
        """Kill what is left of it, reap it, and return what it used."""
        first = processes.read_process(self.pid)
        if first is not None and first.state not in "ZX":
            # What has left its session since the last look is below it for as long as it lives, and no longer.
            self._seen.update((process.pid, process) for process in processes.descendants(self.pid))
        # Before it is reaped nobody else can bear its number, so this signal cannot go astray.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self.exit_code = _shell_code(self._process.returncode)
        known = [process for process in self._seen.values() if process.pid != self.pid]
        if known or _group_lives(self.pid):
            guard.kill_tree(self.pid, known=known)
        guard.ended(self.pid)
        if self._result_fd >= 0:
            self._receive()
        return usage

    def finish(self) -> Result | None:
        """Return the Result; TaskFailure when what came is not in the protocol."""
        try:
            if self._broken is not None:
                raise self._broken
            return self._reader.finish()
        except ProtocolError as wrong:
            raise TaskFailure(
                FailReason.PAYLOAD,
                f"the module's process broke off: {wrong.message}",
                task_exit_code=self.exit_code,
            ) from wrong

    def _send(self) -> bool:
        try:
            self._to_send = self._to_send[os.write(self._request_fd, self._to_send[:PIPE_BYTES]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False  # It ended before it read; its end tells more.
        return bool(self._to_send)

    def _receive(self) -> bool:
        while True:
            try:
                data = os.read(self._result_fd, PIPE_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            if self._broken is None:
                try:
                    self._said += self._reader.feed(data)
                except ProtocolError as wrong:
                    self._broken = wrong


def _start(
    argv: Sequence[str], cwd: Path, environ: Mapping[str, str], *, log_fd: int, pass_fds: Sequence[int]
) -> subprocess.Popen[bytes]:
    try:
        # Without a function to run before exec, Python starts it by vfork: a large pilot starts children as
        # fast as a small one.
        return subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            close_fds=True,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    except FileNotFoundError as missing:
        raise TaskFailure(
            FailReason.PAYLOAD, f"there is no program {argv[0]!r}", task_exit_code=127
        ) from missing
    except (OSError, ValueError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else str(fault)
        raise TaskFailure(
            FailReason.PAYLOAD, f"{argv[0]!r} could not be started: {why}", task_exit_code=126
        ) from fault


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _shell_code(code: int) -> int:
    return code if code >= 0 else 128 - code
