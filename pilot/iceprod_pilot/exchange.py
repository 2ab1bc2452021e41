"""The exchanges with a node: reports and free room out, acknowledgements, orders and stops in.

One is under way at a time.  It is repeated as it is until some node answers it, so that orders cannot get lost on the
way; reports that come up meanwhile go with the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import NotAllowed, Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.wire.pb import pilot_pb2
from iceprod_pilot.attempt import Attempt, Ending, Phase
from iceprod_pilot.config import PilotConfig
from iceprod_pilot.link import Link
from iceprod_pilot.platform import WallTime, host
from iceprod_pilot.report import Journal, Ref
from iceprod_pilot.slots import Slots
from iceprod_pilot.staging import Staging
from iceprod_pilot.workspace import Workspace

_LOG = get_logger("pilot.exchange")

POLL_MIN_S: Final = 0.2
POLL_MAX_S: Final = 60.0
POLL_FIRST_S: Final = 1.0  # Until a node has said how often to call.
SPACING_S: Final = 0.02  # Between two exchanges, so that many short tasks share one.
SPACING_MAX_S: Final = 0.1  # While work for longer lies ready, more of them do.
SPACING_SHARE: Final = 0.25  # Of the time for which work lies ready.
RETRY_FIRST_S: Final = 0.2
RETRY_MAX_S: Final = 2.0
RETRY_SHARE: Final = (
    0.25  # Or of the poll: a node with so many pilots turns a crowd away that comes back at once.
)


class Exchanger:
    """Speaks with the nodes for the pilot; used on the main thread, but for `say`.

    `ending` is empty until the pilot is ending: then no room is offered, and orders that come all the same are given
    back.
    """

    def __init__(
        self,
        config: PilotConfig,
        *,
        link: Link,
        journal: Journal,
        slots: Slots,
        staging: Staging,
        workspace: Workspace,
        walltime: WallTime,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self._config = config
        self._host = host()
        self._link = link
        self._journal = journal
        self._slots = slots
        self._staging = staging
        self._workspace = workspace
        self._walltime = walltime
        self._clock = clock
        self._wake = wake
        self.ending = ""
        self.told_ending = False  # A node has heard that the pilot is ending.
        self.drain_asked = False
        self.last_answer_s = clock.monotonic_s()
        self._repeat: pilot_pb2.ExchangeRequest | None = None
        self._poll_s = POLL_FIRST_S
        self._poll_at_s = self._not_before_s = clock.monotonic_s()
        self._retry_s = RETRY_FIRST_S
        # The newest report in the exchange under way, and in any that was answered.
        self._offered = self._sent = 0
        self._carrier: threading.Thread | None = None
        self._closed = False

    @property
    def failing(self) -> bool:
        """Whether the last exchange was not answered."""
        return self._retry_s > RETRY_FIRST_S

    def due_s(self) -> float:
        """When to call next: at once with something to say, else at the poll; never before a pause is over."""
        parting = bool(self.ending) and not self.told_ending and not self._slots.busy
        urgent = parting or self._journal.newest > self._sent
        return max(self._not_before_s, 0.0 if urgent else self._poll_at_s)

    def exchange(self) -> None:
        """Call once and do what the reply says.  A failure sets a pause and is otherwise no matter."""
        request = self._repeat = self._repeat or self._request()
        started_s = self._clock.monotonic_s()
        try:
            reply = self._link.exchange(request)
        except (Unavailable, NotAllowed) as failure:
            self._not_before_s = self._clock.monotonic_s() + self._retry_s
            self._retry_s = min(max(RETRY_MAX_S, RETRY_SHARE * self._poll_s), self._retry_s * 2)
            _LOG.debug("exchange failed", why=failure.message)
            self._carry(request.reports)
            return
        self._repeat = None
        now_s = self._clock.monotonic_s()
        self._retry_s, self.last_answer_s = RETRY_FIRST_S, now_s
        if reply.poll_ms:
            self._poll_s = min(POLL_MAX_S, max(POLL_MIN_S, reply.poll_ms / 1_000))
        self._poll_at_s = now_s + self._poll_s
        self.told_ending = self.told_ending or request.ending
        self._sent = self._offered
        self._take(reply)
        ready_s = self._slots.ready_s() * SPACING_SHARE
        self._not_before_s = started_s + min(SPACING_MAX_S, max(SPACING_S, ready_s))
        answered = {ack.report_id for ack in reply.acks}
        self._carry([report for report in request.reports if report.report_id not in answered])

    def say(self, report: pilot_pb2.Report) -> None:
        """Keep a report and have it sent; from any thread."""
        self._journal.add(report)
        self._wake()

    def give_back(self, attempt: Attempt) -> None:
        """Return an attempt that has not started."""
        report = attempt.report()
        report.given_back.reason = self.ending
        attempt.cancel.close()
        self.say(report)

    def close(self) -> None:
        """Let go of what is under way beside exchanges."""
        self._closed = True

    def _request(self) -> pilot_pb2.ExchangeRequest:
        reports, self._offered = self._journal.batch()
        request = pilot_pb2.ExchangeRequest(
            host=self._host,
            ending=bool(self.ending),
            resource_class=self._config.resource_class,
            exchange_id=self._journal.next_exchange_id(),
            reports=reports,
        )
        for attempt in self._slots.attempts():
            order = attempt.order
            fraction, note = attempt.progress
            request.running.add(
                ref=order.ref,
                passkey=order.passkey,
                phase=attempt.phase.value,
                progress=fraction,
                note=note,
            )
        # What is done and cannot be said in this exchange must be named, or the node takes it for lost.
        said = {report.report_id for report in reports}
        for report in self._journal.pending():
            if report.report_id not in said:
                request.running.add(ref=report.ref, passkey=report.passkey, phase=Phase.STAGING_OUT.value)
        if not self.ending:
            request.free.CopyFrom(self._free())
        return request

    def _free(self) -> pilot_pb2.Free:
        free = self._slots.free()
        free.attributes.extend(self._config.attributes)
        free.disk_mib = min(free.disk_mib, self._workspace.free_mib())
        left_s = self._walltime.left_s()
        # 0 means that nothing limits it.
        free.walltime_s = 0 if left_s is None else max(1, int(left_s - self._config.grace_s))
        return free

    def _take(self, reply: pilot_pb2.ExchangeReply) -> None:
        refusals = {ack.report_id: ack for ack in reply.acks if not ack.accepted}
        for report in self._journal.settle(ack.report_id for ack in reply.acks):
            ack = refusals.get(report.report_id)
            if ack is not None:
                ref = Ref.of(report.ref)
                _LOG.info("report refused", task=str(ref), refusal=ack.refusal, detail=ack.detail)
                self._stop(ref)
        for message in reply.stop:
            _LOG.info("task stopped", task=str(Ref.of(message)))
            self._stop(Ref.of(message))
        if reply.orders:
            self._take_orders(reply.orders)
        self.drain_asked = self.drain_asked or reply.drain

    def _take_orders(self, orders: Iterable[pilot_pb2.Order]) -> None:
        # A task leaves the slots when its report stands in the journal: looked at in this order, none is missed.
        known = self._slots.refs()
        known.update(Ref.of(report.ref) for report in self._journal.pending())
        new: list[pilot_pb2.Order] = []
        for order in orders:
            ref = Ref.of(order.ref)
            if ref not in known:
                known.add(ref)
                new.append(order)
                continue
            attempt = self._slots.find(ref)
            if attempt is not None:  # Else it is done and its report on the way.
                attempt.order.passkey = order.passkey
        self._journal.accept(new)
        if not self.ending:
            self._slots.accept(*map(Attempt, new))
            return
        for order in new:
            self.give_back(Attempt(order))

    def _stop(self, ref: Ref) -> None:
        """End an attempt that is no longer this pilot's and forget what was to be said about it."""
        self._journal.drop(ref)
        waiting = self._slots.remove(ref)
        if waiting is not None:
            waiting.cancel.close()
            return
        attempt = self._slots.find(ref)
        if attempt is not None:
            attempt.cancel.throw(Ending.STOP)

    def _carry(self, reports: Sequence[pilot_pb2.Report]) -> None:
        """Bring the outputs of reports that were not taken to the node that was just called.

        A node takes a report only when it holds its files; the one they were uploaded to may be gone.  On a thread
        of its own, so that exchanges go on; a node that holds a file already says so at once.
        """
        files = [entry for report in reports for entry in (*report.finished.files, *report.failed.files)]
        digests = sorted({entry.sha256 for entry in files})
        node = self._link.partner
        if not digests or node is None or (self._carrier is not None and self._carrier.is_alive()):
            return

        def carry() -> None:
            self._staging.carry(digests, node, wait=lambda _: self._closed)
            self._wake()

        self._carrier = threading.Thread(target=carry, name="carrier", daemon=True)
        self._carrier.start()
