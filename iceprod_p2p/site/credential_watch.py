"""The credential by which a site submits: how long it lasts is watched, and a configured command renews it in time.

The file is somebody else's: an x509 proxy or a token that a person, a cron job or the command makes.  Nothing of its
content is logged.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.config import QueueConfig
from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.grids.command import Commands
from iceprod_p2p.security.credentials import read_credential

COMMAND_S: Final = 120.0  # A renewal asks a service far away, and answers no questions.
WARN_AGAIN_S: Final = 3_600.0
log = get_logger("credential")


@dataclass(frozen=True, slots=True)
class CredentialState:
    """What is known of the file; `left_s` is None for a token that does not say, and without a file."""

    words: str
    left_s: float | None = None
    trouble: str = ""


def credential_state(queue: QueueConfig, clock: Clock) -> CredentialState:
    """Look at the file now; reads it, changes nothing."""
    try:
        credential = read_credential(Path(queue.credential).expanduser())
    except IceProdError as fault:
        return CredentialState("", None, f"the credential cannot be used: {fault.message}")
    if not credential.expires_ms:
        return CredentialState(f"{credential.kind} without an end")
    left_s = (credential.expires_ms - clock.wall_ms()) / 1_000
    words = f"{credential.kind}, {_spoken(left_s)} left"
    if left_s <= 0:
        return CredentialState(words, left_s, f"the credential {queue.credential} has ended")
    if left_s < queue.credential_renew_s:
        return CredentialState(words, left_s, f"the credential {queue.credential} ends in {_spoken(left_s)}")
    return CredentialState(words, left_s)


class CredentialWatch:
    """The role; `step` is called by one task of the event loop, and does nothing at a site without a credential."""

    def __init__(self, queue: QueueConfig, clock: Clock) -> None:
        self._clock = clock
        self._warned_s = float("-inf")
        self._trouble = self._failure = ""
        self.use(queue)

    def use(self, queue: QueueConfig) -> None:
        """Go on with a changed configuration."""
        self._queue = queue
        self._commands = Commands(timeout_s=COMMAND_S)

    def problems(self) -> list[str]:
        """Return what was wrong at the last look, one sentence each."""
        return [text for text in (self._trouble, self._failure) if text]

    async def step(self) -> None:
        """Look at the file, and renew it when its time comes."""
        if not self._queue.credential:
            self._trouble = self._failure = ""
            return
        state = await asyncio.to_thread(credential_state, self._queue, self._clock)
        if state.trouble and self._queue.credential_command:
            self._failure = await asyncio.to_thread(self._renew)
            state = await asyncio.to_thread(credential_state, self._queue, self._clock)
        if not state.trouble:
            self._failure = ""
        self._trouble = state.trouble
        if self.problems() and self._clock.monotonic_s() - self._warned_s >= WARN_AGAIN_S:
            self._warned_s = self._clock.monotonic_s()
            log.warning("credential for submission in trouble", why="; ".join(self.problems()))

    def _renew(self) -> str:
        """Run the command; return what went wrong, empty when it ended well."""
        try:
            self._commands.succeed(self._queue.credential_command)
        except IceProdError as failure:
            return f"the command that renews the credential failed: {failure.message}"
        log.info("credential renewed", command=self._queue.credential_command[0])
        return ""


def _spoken(seconds: float) -> str:
    minutes = int(max(0.0, seconds) // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
