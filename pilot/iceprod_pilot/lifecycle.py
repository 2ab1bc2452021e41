"""The pilot's life: enrol, exchange reports for orders, and end when idle, drained, out of time or told to.

One loop on the main thread speaks with the nodes and looks at the clocks; slots run tasks on threads of their own and
wake the loop when they have something to report.
"""

from __future__ import annotations

import os
import queue
import signal
from collections.abc import Mapping
from types import FrameType
from typing import Final

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import IceProdError, Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.model.states import FailReason
from iceprod_p2p.wire.pb import pilot_pb2
from iceprod_pilot import platform
from iceprod_pilot.attempt import Attempt, Ending
from iceprod_pilot.bundle_main import SCRATCH_VARIABLE
from iceprod_pilot.config import PilotConfig
from iceprod_pilot.enrolment import Credentials, enrol
from iceprod_pilot.environment import gpu_names
from iceprod_pilot.exchange import Exchanger
from iceprod_pilot.guard import Guard
from iceprod_pilot.isolation import make_isolation
from iceprod_pilot.link import Link, node_of
from iceprod_pilot.nodes import NodeBook, Route
from iceprod_pilot.report import Journal
from iceprod_pilot.slots import Slots
from iceprod_pilot.staging import Staging
from iceprod_pilot.task import TaskRunner
from iceprod_pilot.workspace import Workspace

_LOG = get_logger("pilot")

EXIT_OK: Final = 0
EXIT_NOT_ALLOWED: Final = 4
EXIT_UNREACHABLE: Final = 5
EXIT_TERMINATED: Final = 143  # 128 + SIGTERM: told twice to end, so it ended at once.

ENROL_PAUSE_FIRST_S: Final = 0.2
ENROL_PAUSE_MAX_S: Final = 2.0
SWEEP_S: Final = 2.0
RENEW_RETRY_S: Final = 30.0
REPORT_SHARE: Final = 0.25  # Of the grace, kept for the last reports.
HOUSEKEEPING_S: Final = 1.0  # The loop looks at clocks at least so often.


class Pilot:
    """One pilot, built from its configuration; `run` is its whole life and may be called once, on the main thread."""

    def __init__(self, config: PilotConfig, *, clock: Clock, environ: Mapping[str, str]) -> None:
        self._config = config
        self._clock = clock
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._walltime = platform.WallTime(config.walltime_s, clock, environ)
        self._journal = Journal(config.state_path)
        self._book = NodeBook(config.state_path / "nodes.json", config.nodes)
        self._route = Route(
            self._book,
            home_site=config.site,
            pilot=config.pilot,
            silence_s=config.silence_s,
            clock=clock,
        )
        self._credentials = Credentials(config, clock)
        self._link = Link(self._book, self._route, self._credentials, clock, site=config.site)
        self._workspace = Workspace(config.work_path, config.pilot)
        self._guard = Guard(self._workspace.path, environ.get(SCRATCH_VARIABLE, ""))
        staging = Staging(self._link, config.cache_path, cache_mib=config.cache_mib)
        self._tasks = TaskRunner(
            config,
            link=self._link,
            staging=staging,
            workspace=self._workspace,
            guard=self._guard,
            clock=clock,
            environ=environ,
            say=lambda report: self._exchanger.say(report),
            isolation=make_isolation(config, environ),
        )
        self._slots = Slots(
            slots=config.slots,
            cpus=config.cpus,
            gpus=gpu_names(config.gpus, environ),
            memory_mib=config.memory_mib,
            disk_mib=config.disk_mib,
            run=self._run_attempt,
            clock=clock,
        )
        self._exchanger = Exchanger(
            config,
            link=self._link,
            journal=self._journal,
            slots=self._slots,
            staging=staging,
            workspace=self._workspace,
            walltime=self._walltime,
            clock=clock,
            wake=lambda: self._wake.put(None),
        )
        self._terms = 0
        self._drain_asked = False
        self._evict_at_s: float | None = None
        self._end_at_s: float | None = None
        self._idle_since_s = clock.monotonic_s()
        self._sweep_at_s = self._idle_since_s + SWEEP_S

    def run(self) -> int:
        """Live; return the exit code.  Raises IceProdError when it cannot enrol."""
        self._listen_to_signals()
        try:
            if self._enrol():
                self._settle_past_life()
                return self._live()
            return EXIT_OK
        finally:
            self._shut_down()

    def _enrol(self) -> bool:
        """Get a certificate; returns False when the pilot was told to end meanwhile."""
        began_s, pause_s = self._clock.monotonic_s(), ENROL_PAUSE_FIRST_S
        while not self._credentials.enrolled:
            try:
                told = enrol(self._config, self._credentials, self._route.ordered(), host=platform.host())
                self._book.learn(node_of(address) for address in told)
            except Unavailable as silent:
                if self._clock.monotonic_s() - began_s > self._config.lost_end_s:
                    raise
                _LOG.info("not enrolled yet", why=silent.message, pause_s=pause_s)
                self._sleep(pause_s)
                pause_s = min(ENROL_PAUSE_MAX_S, pause_s * 2)
            if self._terms:
                return False
        return True

    def _settle_past_life(self) -> None:
        """Say of every order of an earlier life that it came to nothing: its processes died with that life."""
        for order in self._journal.unsettled():
            report = pilot_pb2.Report(ref=order.ref, passkey=order.passkey)
            report.failed.reason = FailReason.EVICTED
            report.failed.message = "the pilot was started anew while this task was running"
            self._journal.add(report)

    def _live(self) -> int:
        exchanger = self._exchanger
        self._idle_since_s = self._clock.monotonic_s()  # Who was not let in for long has not been idle.
        while True:
            self._look_at_clocks()
            if self._clock.monotonic_s() >= exchanger.due_s():
                exchanger.exchange()
            code = self._end_code()
            if code is not None:
                unsent = self._journal.pending_count
                _LOG.info("pilot ends", why=exchanger.ending, exit_code=code, unsent=unsent)
                return code
            self._sleep(min(HOUSEKEEPING_S, max(0.0, exchanger.due_s() - self._clock.monotonic_s())))

    def _run_attempt(self, attempt: Attempt) -> None:
        """Perform an attempt on a slot's thread and keep its report.  The one place that catches everything."""
        try:
            report = self._tasks.perform(attempt)
        except Exception as failure:
            _LOG.error("task failed unexpectedly", task=str(attempt.ref), exc_info=failure)
            report = attempt.report()
            report.failed.reason = FailReason.SOFTWARE
            report.failed.message = f"the pilot itself failed: {type(failure).__name__}: {failure}"[:4_096]
        if report is None or attempt.cancel.ending is Ending.STOP:
            self._journal.drop(attempt.ref)
        else:
            self._exchanger.say(report)
        attempt.cancel.close()
        self._wake.put(None)

    def _look_at_clocks(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._slots.busy or self._journal.pending_count:
            self._idle_since_s = now_s
        self._see_whether_to_end(now_s)
        if self._evict_at_s is not None and now_s >= self._evict_at_s:
            self._evict_at_s = None
            for attempt in self._slots.attempts():
                attempt.cancel.throw(Ending.EVICT)
        if self._credentials.enrolled and self._credentials.renewal_due():
            self._renew()
        if now_s >= self._sweep_at_s:
            self._sweep_at_s = now_s + SWEEP_S
            self._guard.sweep()

    def _see_whether_to_end(self, now_s: float) -> None:
        left_s = self._walltime.left_s()
        if self._end_at_s is not None:
            return
        if self._terms:
            self._begin_ending("terminated", grace_s=self._config.grace_s)
        elif left_s is not None and left_s <= self._config.grace_s:
            self._begin_ending("walltime", grace_s=max(0.0, left_s))
        elif self._exchanger.ending:
            return
        elif self._drain_asked or self._exchanger.drain_asked:
            self._begin_ending("drained")
        elif now_s - self._idle_since_s >= self._config.idle_end_s:
            self._begin_ending("idle")

    def _begin_ending(self, why: str, *, grace_s: float | None = None) -> None:
        """Take no more work, give back what has not started; with a grace, evict and end when it is over."""
        _LOG.info("pilot is ending", why=why, running=self._slots.running)
        self._exchanger.ending = why
        if grace_s is not None:
            now_s = self._clock.monotonic_s()
            self._evict_at_s = now_s + grace_s * (1 - REPORT_SHARE)
            self._end_at_s = now_s + grace_s
        for attempt in self._slots.withdraw():
            self._exchanger.give_back(attempt)

    def _end_code(self) -> int | None:
        """Return the exit code when the pilot is done."""
        exchanger, now_s = self._exchanger, self._clock.monotonic_s()
        refused = self._link.refused_everywhere()
        if refused:
            exchanger.ending = f"no node accepts this pilot: {refused}"
            return EXIT_NOT_ALLOWED
        if self._end_at_s is not None and now_s >= self._end_at_s:
            return EXIT_UNREACHABLE if self._journal.pending_count else EXIT_OK
        if not self._slots.busy and now_s - exchanger.last_answer_s >= self._config.lost_end_s:
            exchanger.ending = "no node has answered for too long"
            return EXIT_UNREACHABLE
        if not exchanger.ending or self._slots.busy or self._journal.pending_count:
            return None
        # With nothing owed, telling the node of the end is a courtesy: one try must do.
        return EXIT_OK if exchanger.told_ending or exchanger.failing else None

    def _renew(self) -> None:
        try:
            self._link.renew()
        except IceProdError as failure:
            _LOG.warning("certificate not renewed yet", why=failure.message)
            self._credentials.postpone_renewal(RENEW_RETRY_S)

    def _sleep(self, seconds: float) -> None:
        """Wait until woken or so long; takes all wake-ups that have gathered."""
        try:
            self._wake.get(timeout=seconds) if seconds > 0 else self._wake.get_nowait()
            while True:
                self._wake.get_nowait()
        except queue.Empty:
            return

    def _listen_to_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, self._on_terminate)
        signal.signal(signal.SIGUSR1, self._on_drain)

    def _on_terminate(self, _number: int, _frame: FrameType | None) -> None:
        self._terms += 1
        if self._terms > 1:
            os._exit(EXIT_TERMINATED)  # The guard process kills what runs and clears the work directory.
        self._wake.put(None)

    def _on_drain(self, _number: int, _frame: FrameType | None) -> None:
        self._drain_asked = True
        self._wake.put(None)

    def _shut_down(self) -> None:
        self._exchanger.close()
        for attempt in self._slots.attempts():
            attempt.cancel.throw(Ending.EVICT)
        self._slots.wait_idle(3.0)
        self._slots.close()
        self._link.close()
        self._tasks.close()
        self._guard.sweep()
        self._workspace.close()
        self._guard.close()
