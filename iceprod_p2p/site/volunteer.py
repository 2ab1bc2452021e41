"""The volunteer: asks the ledger for tasks that this site can start soon (arXiv:1311.5904, 3.2).

`plans/claims.py` decides what to offer.  Nothing is proposed while nothing that could fit is ready: a claim
that is granted nothing would cost a log entry for each site and second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger.commands import Claim
from iceprod_p2p.ledger.outcome import Applied
from iceprod_p2p.model.resources import Offer, Requirements
from iceprod_p2p.site.capacity import Capacity
from iceprod_p2p.site.consensus import Consensus
from iceprod_p2p.site.plans.claims import LIMIT_MAX, plan_offers
from iceprod_p2p.site.stock import Stock

# What is ready and not granted to this site: locality, or the shares of others, keep it for a while.
EMPTY_PAUSE_S_MAX: Final = 5.0
TAKEOVER_PAUSE_S: Final = 60.0  # How often an idle site asks for what others claimed and have not started.
log = get_logger("volunteer")


class VolunteerView(Protocol):
    """What is read of the ledger."""

    def knows(self, node_id: str) -> bool:
        """Whether the ledger lists this node."""
        ...

    def draining(self, site: str) -> bool:
        """Whether the site takes no new work."""
        ...

    def held(self, site: str) -> Counter[Requirements]:
        """How many tasks the site holds, by what they need."""
        ...

    def idle_claims_elsewhere(self, site: str) -> bool:
        """Whether other sites hold tasks that they have not started."""
        ...

    def ready_mark(self, offers: Sequence[Offer]) -> int:
        """A number that is 0 when nothing ready fits the offers, and changes when what is ready changes."""
        ...


class Volunteer:
    """The role; `step` is called by one task of the event loop."""

    def __init__(
        self,
        *,
        site: str,
        node_id: str,
        ahead: float,
        pause_s: float,
        capacity: Capacity,
        stock: Stock,
        consensus: Consensus,
        cluster: VolunteerView,
        clock: Clock,
        has_disk: Callable[[], bool],
        granted: Callable[[], None],
    ) -> None:
        """`pause_s` is how long nothing is asked for after a claim that brought nothing; it doubles up to 5
        s.
        """
        self._site = site
        self._node_id = node_id
        self._ahead = ahead
        self._capacity = capacity
        self._stock = stock
        self._consensus = consensus
        self._cluster = cluster
        self._clock = clock
        self._has_disk = has_disk
        self._granted = granted
        self._pause_s_least = self._pause_s = pause_s
        self._passed_over: tuple[int, float] | None = None  # The mark that brought nothing, and until when.

    def use(self, ahead: float) -> None:
        """Go on with another share of tasks claimed beyond free slots."""
        self._ahead = ahead

    async def step(self) -> None:
        """Claim once, if there is room and something to claim."""
        if (
            not self._cluster.knows(self._node_id)
            or self._cluster.draining(self._site)
            or not self._has_disk()
        ):
            return
        offers = plan_offers(self._capacity.classes(), self._cluster.held(self._site), ahead=self._ahead)
        if not offers:
            return
        mark = self._cluster.ready_mark(offers)
        if not mark and not self._cluster.idle_claims_elsewhere(self._site):
            return
        if self._is_passed_over(mark):
            return
        limit = min(LIMIT_MAX, sum(offer.slots for offer in offers))
        outcome = await self._consensus.propose(
            Claim(self._site, offers, limit), actor=f"node:{self._node_id}", timeout_s=5.0
        )
        if isinstance(outcome, Applied) and outcome.grants:
            passing("volunteer.claim.after")
            self._pause_s = self._pause_s_least
            self._passed_over = None
            self._stock.refresh()
            self._granted()
            log.info("tasks claimed", count=len(outcome.grants), offered=limit)
            return
        pause_s = self._pause_s if mark else TAKEOVER_PAUSE_S
        self._passed_over = (mark, self._clock.monotonic_s() + pause_s)
        self._pause_s = min(EMPTY_PAUSE_S_MAX, self._pause_s * 2)
        log.debug("nothing granted", outcome=str(outcome))

    def _is_passed_over(self, mark: int) -> bool:
        if self._passed_over is None:
            return False
        seen, until_s = self._passed_over
        return mark == seen and self._clock.monotonic_s() < until_s
