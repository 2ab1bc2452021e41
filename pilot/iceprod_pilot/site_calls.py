"""A running module's calls to its site: bounded in size and rate, answered one at a time, never in the way of limits.

`record_file` is the pilot's own: it makes a file an output of the task.  Every other method goes to a node with the
attempt's passkey.  A refusal is an answer: the module decides what it means.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgpack  # type: ignore[import-untyped,unused-ignore]

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import BadInput, IceProdError
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.modules.protocol import CALL_BYTES_MAX, Answer, Message, Progress, SiteCall, encode_answer
from iceprod_p2p.wire.pb import pilot_pb2
from iceprod_pilot.attempt import Attempt
from iceprod_pilot.link import patiently
from iceprod_pilot.plan import Move
from iceprod_pilot.source import Source
from iceprod_pilot.workspace import TaskDirectory, inside

CALLS_PER_S: Final = 10.0  # For as long as it likes; a burst of CALLS_BURST before that.
CALLS_BURST: Final = 50.0
ANSWER_S: Final = 30.0  # Nodes that are silent for so long have refused.
RECORDED_MAX: Final = 200
KINDS: Final = ("permanent", "job_temp", "dataset_temp", "site_temp")
_LOG = get_logger("pilot.calls")


class SiteCalls:
    """The calls of one attempt's modules.  `begin` and `answered` are for the thread that watches the module.

    `descriptor` is readable when an answer is there.  `recorded` lists the outputs that modules have added.
    """

    def __init__(self, source: Source, attempt: Attempt, directory: TaskDirectory, clock: Clock) -> None:
        self._source = source
        self._attempt = attempt
        self._directory = directory
        self._clock = clock
        self._room = CALLS_BURST
        self._counted_at_s = clock.monotonic_s()
        self._lock = threading.Lock()
        self._answer: Answer | None = None
        self._open = True
        self._busy = False
        self.recorded: list[Move] = []
        self.descriptor: Final = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def begin(self, call: SiteCall) -> None:
        """Take a call; its answer comes by `descriptor`, at once or later."""
        if self._busy:
            return  # Whoever sends a second call before the answer to the first speaks against the protocol.
        self._busy = True
        if not self._may():
            self._say(
                Answer(refusal=f"too many calls: at most {CALLS_PER_S:.0f} a second; do more with each call")
            )
        elif call.method == "record_file":
            self._say(_answered(lambda: self._record(call.argument)))
        else:
            threading.Thread(target=self._ask, args=(call,), name="site-call", daemon=True).start()

    def hear(self, message: Message) -> None:
        """Hear what a module says: its progress is told in the pilot's exchanges, its calls are answered."""
        if isinstance(message, Progress):
            self._attempt.progress = (message.fraction, message.note)
        elif isinstance(message, SiteCall):
            self.begin(message)

    def answered(self) -> bytes | None:
        """Return the frame of the answer that has come; None when there is none."""
        with self._lock:
            answer, self._answer = self._answer, None
            if answer is None:
                return None
            os.eventfd_read(self.descriptor)
            self._busy = False
        try:
            return encode_answer(answer)
        except BadInput:
            return encode_answer(Answer(refusal=f"the site's answer has more than {CALL_BYTES_MAX} bytes"))

    def close(self) -> None:
        """Give the descriptor back; an answer that comes later is dropped."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self.descriptor)

    def _may(self) -> bool:
        now_s = self._clock.monotonic_s()
        self._room = min(CALLS_BURST, self._room + (now_s - self._counted_at_s) * CALLS_PER_S)
        self._counted_at_s = now_s
        if self._room < 1.0:
            return False
        self._room -= 1.0
        return True

    def _ask(self, call: SiteCall) -> None:
        self._say(_answered(partial(self._asked, call)))

    def _asked(self, call: SiteCall) -> Any:
        order = self._attempt.order
        request = pilot_pb2.SiteCall(
            ref=order.ref, passkey=order.passkey, method=call.method, argument=msgpack.packb(call.argument)
        )
        end_s = self._clock.monotonic_s() + ANSWER_S

        def give_up(seconds: float) -> bool:
            return self._attempt.cancel.wait(seconds) or self._clock.monotonic_s() > end_s

        reply = patiently(partial(self._source.call_site, request), stop=give_up, what="call of a module")
        return msgpack.unpackb(reply.value, raw=False, strict_map_key=True)

    def _record(self, argument: Any) -> None:
        given = argument if isinstance(argument, dict) else {}
        path, name, kind = (
            given.get(word, default) for word, default in (("path", ""), ("name", ""), ("kind", "permanent"))
        )
        if not all(isinstance(word, str) and word for word in (path, name)) or "://" in name:
            raise BadInput("record_file takes the path and the logical name of a file")
        if kind not in KINDS:
            raise BadInput(f"a file is of one of the kinds {', '.join(KINDS)}, not {str(kind)[:40]!r}")
        inside(self._directory.work, path)
        if len(self.recorded) >= RECORDED_MAX:
            raise BadInput(f"at most {RECORDED_MAX} files may be recorded so")
        if any(name == move.remote and path != move.local for move in self.recorded):
            raise BadInput(f"another file was recorded as {name[:200]!r}")
        self.recorded = [move for move in self.recorded if move.remote != name]
        self.recorded.append(Move(remote=name, local=path, kind=kind))

    def _say(self, answer: Answer) -> None:
        with self._lock:
            if self._open:
                self._answer = answer
                os.eventfd_write(self.descriptor, 1)


def added(outputs: Sequence[Move], recorded: Sequence[Move]) -> list[Move]:
    """Return the outputs of a task with those that its modules have added; what the steering file says comes first."""
    known = {move.remote for move in outputs}
    return [*outputs, *(move for move in recorded if move.remote not in known)]


def _answered(do: Callable[[], Any]) -> Answer:
    """Do something and return its value, or why there is none."""
    try:
        return Answer(do())
    except IceProdError as refusal:
        return Answer(refusal=str(refusal)[:2_000])
    except Exception as fault:
        _LOG.warning("call of a module failed", fault=f"{type(fault).__name__}: {fault}")
        return Answer(refusal=f"the call failed: {type(fault).__name__}")
