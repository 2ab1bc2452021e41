"""How much one caller may ask for: calls per second and calls at once, for each identity by itself.

A caller that asks for more is told when to come back; everybody else is served as before.  Who has no
certificate yet is known by the host alone, which may stand for a whole cluster behind one address.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.model.identity import IdentityKind

log = get_logger("allowances")

REPORT_S: Final = 60.0  # Refusals of one caller are logged so often, with their number.
CALLERS_MAX: Final = 20_000  # Remembered; the ones that called longest ago are forgotten first.


@dataclass(frozen=True, slots=True)
class Allowance:
    """`per_s` calls in the long run, `burst` at once after a pause, `at_once` under way together."""

    per_s: float
    burst: int
    at_once: int


ALLOWANCES: Final = {
    # Nodes move snapshots and blobs for a whole site; their links are single long calls.
    IdentityKind.NODE: Allowance(per_s=2_000, burst=4_000, at_once=512),
    # A pilot of many slots with tasks of a second, each with some files.
    IdentityKind.PILOT: Allowance(per_s=200, burst=1_000, at_once=128),
    # A person's scripts; `iceprod submit` sends each file of a dataset in a call of its own.
    IdentityKind.PERSON: Allowance(per_s=100, burst=1_000, at_once=64),
    # A batch system starts a thousand pilots at once behind one address.
    None: Allowance(per_s=100, burst=2_000, at_once=256),
}


@dataclass(slots=True)
class _Account:
    left: float
    seen_s: float
    under_way: int = 0
    refused: int = 0  # Since the log last spoke of them.
    reported_s: float = -1e9


class Allowances:
    """Counts calls of each caller; used on the event loop only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._accounts: OrderedDict[tuple[IdentityKind | None, str], _Account] = OrderedDict()

    @contextmanager
    def call(self, kind: IdentityKind | None, who: str) -> Iterator[None]:
        """Count a call for as long as the block lasts; Unavailable, with the time to wait, when it is too
        much.
        """
        allowance = ALLOWANCES[kind]
        account = self._account(kind, who, allowance)
        if account.under_way >= allowance.at_once:
            self._refused(account, kind, who)
            raise Unavailable(
                f"{account.under_way} calls of {who} are under way already, which is the most at once",
                remedy="wait for some of them",
                retry_after_s=1.0,
            )
        if account.left < 1:
            self._refused(account, kind, who)
            raise Unavailable(
                f"{who} calls more than {allowance.per_s:.0f} times per second",
                remedy="call less often",
                retry_after_s=max(0.1, (1 - account.left) / allowance.per_s),
            )
        account.left -= 1
        account.under_way += 1
        try:
            yield
        finally:
            account.under_way -= 1

    def _refused(self, account: _Account, kind: IdentityKind | None, who: str) -> None:
        account.refused += 1
        now_s = self._clock.monotonic_s()
        if now_s - account.reported_s >= REPORT_S:
            log.warning("calls refused: too many", who=who, kind=kind and kind.value, calls=account.refused)
            account.refused, account.reported_s = 0, now_s

    def _account(self, kind: IdentityKind | None, who: str, allowance: Allowance) -> _Account:
        now_s = self._clock.monotonic_s()
        account = self._accounts.get((kind, who))
        if account is None:
            self._forget()
            account = self._accounts[kind, who] = _Account(allowance.burst, now_s)
            return account
        self._accounts.move_to_end((kind, who))
        account.left = min(allowance.burst, account.left + (now_s - account.seen_s) * allowance.per_s)
        account.seen_s = now_s
        return account

    def _forget(self) -> None:
        while len(self._accounts) >= CALLERS_MAX:
            idle = (who for who, account in self._accounts.items() if not account.under_way)
            longest_ago = next(idle, None)
            if longest_ago is None:
                return  # All of them call right now; `calls_max` bounds how many that can be.
            del self._accounts[longest_ago]
