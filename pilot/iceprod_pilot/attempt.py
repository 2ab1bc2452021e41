"""One attempt at one task as the pilot holds it: its order, how far it is, and the word that ends it early."""

from __future__ import annotations

import os
import select
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.model.states import FailReason
from iceprod_p2p.wire.pb import pilot_pb2
from iceprod_pilot.report import Ref


class Phase(StrEnum):
    """What an attempt is doing; the words travel in every exchange."""

    WAITING = "waiting"
    STAGING_IN = "staging_in"
    RUNNING = "running"
    STAGING_OUT = "staging_out"


class Ending(StrEnum):
    """Why an attempt is ended from outside."""

    STOP = "stop"  # It is no longer this pilot's: say nothing about it.
    EVICT = "evict"  # The pilot has to go: say so.


class TaskFailure(IceProdError):
    """An attempt ends without its result: `reason` says whose fault it was."""

    def __init__(self, reason: FailReason, message: str, *, task_exit_code: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.task_exit_code = task_exit_code


class Cancelled(Exception):
    """An attempt was ended from outside."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.value)
        self.ending = ending


class Cancel:
    """A switch that one thread throws and another waits for, alone or together with file descriptors."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ending: Ending | None = None
        self.descriptor: Final = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._open = True

    @property
    def ending(self) -> Ending | None:
        """Why the attempt must end, if it must."""
        return self._ending

    def throw(self, ending: Ending) -> None:
        """End the attempt; a stop overrules an eviction, never the other way round."""
        with self._lock:
            if self._ending is not Ending.STOP:
                self._ending = ending
            if self._open:
                os.eventfd_write(self.descriptor, 1)

    def check(self) -> None:
        """Raise Cancelled when the switch was thrown."""
        if self._ending is not None:
            raise Cancelled(self._ending)

    def wait(self, seconds: float) -> bool:
        """Wait so long or until the switch is thrown; return whether it was."""
        poller = select.poll()
        poller.register(self.descriptor, select.POLLIN)
        poller.poll(seconds * 1_000)
        return self._ending is not None

    def close(self) -> None:
        """Give the descriptor back; the switch then stays as it is."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self.descriptor)


@dataclass(slots=True)
class Attempt:
    """An accepted order.  `order` is replaced when the same attempt is ordered again with a fresh passkey."""

    order: pilot_pb2.Order
    gpus: tuple[str, ...] = ()
    phase: Phase = Phase.WAITING
    progress: tuple[float, str] = (-1.0, "")  # What its module said last: from 0 to 1, and a note.
    cancel: Cancel = field(default_factory=Cancel)
    ref: Ref = field(init=False)  # Which attempt of which task this is.

    def __post_init__(self) -> None:
        self.ref = Ref.of(self.order.ref)

    def report(self) -> pilot_pb2.Report:
        """Return a report about this attempt that says nothing yet."""
        return pilot_pb2.Report(ref=self.order.ref, passkey=self.order.passkey)
