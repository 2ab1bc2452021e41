"""Hands claimed tasks to pilots: set aside, signed for, started in the ledger, and only then told.

A pilot repeats an exchange until it is answered.  What was given in one exchange is remembered, so a repeat
gets the same orders: the same command with the same request id is proposed again, and the ledger applies it
once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import Unavailable
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger.commands import StartTasks, TaskRef, TaskStart
from iceprod_p2p.ledger.outcome import Applied
from iceprod_p2p.model.identity import Identity
from iceprod_p2p.security.passkeys import PasskeySigner, SignedHere
from iceprod_p2p.security.random import new_passkey_id, new_request_id
from iceprod_p2p.site.consensus import Consensus
from iceprod_p2p.site.plans.orders import Candidate, Room
from iceprod_p2p.site.reports import ref_to
from iceprod_p2p.site.stock import Stock
from iceprod_p2p.wire.pb import pilot_pb2
from iceprod_p2p.wire.translate import requirements_to

EXCHANGES_KEPT: Final = 4  # Per pilot; it has one under way, or two.
PILOTS_KEPT: Final = 20_000
REFUSED_PAUSE_S: Final = (
    10.0  # A host that is shut out must not cost a log entry with each of its pilots' calls.
)
log = get_logger("orders")


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """What an order says of its dataset."""

    steering_sha256: str
    task_names: tuple[str, ...]
    jobs: int
    seed: int
    follows: int = 0  # The dataset that it follows; `jobs` are then that one's.


class OrderView(Protocol):
    """What is read of the ledger to write orders."""

    def time_ms(self) -> int:
        """Ledger time."""
        ...

    def dataset_facts(self, dataset: int) -> DatasetFacts | None:
        """What an order says of its dataset; None when it was deleted."""
        ...


@dataclass(slots=True)
class _Given:
    command: StartTasks
    request_id: bytes
    orders: dict[TaskRef, pilot_pb2.Order]
    settled: bool = False
    started: list[pilot_pb2.Order] = field(default_factory=list)


class Orders:
    """Gives orders of one site; used on the event loop only."""

    def __init__(
        self,
        *,
        site: str,
        stock: Stock,
        consensus: Consensus,
        cluster: OrderView,
        signer: Callable[[], PasskeySigner],
        lifetime_ms: int,
        system: Mapping[str, str],
        environment: Mapping[str, str],
        clock: Clock,
    ) -> None:
        self._site = site
        self._stock = stock
        self._consensus = consensus
        self._cluster = cluster
        self._signer = signer
        self._lifetime_ms = lifetime_ms
        self.use(system, environment)
        self._clock = clock
        self._refused_until_s: dict[bytes, float] = {}
        self._given: OrderedDict[bytes, OrderedDict[int, _Given]] = OrderedDict()
        self.signed = SignedHere()

    def use(self, system: Mapping[str, str], environment: Mapping[str, str]) -> None:
        """Go on with changed values of the site; orders that were given keep theirs."""
        self._system, self._environment = dict(system), dict(environment)

    async def give(
        self, identity: Identity, host: str, room: Room, exchange_id: int
    ) -> list[pilot_pb2.Order]:
        """Return the orders of one exchange, started in the ledger; Unavailable when that is not known in
        time.
        """
        exchanges = self._given.get(identity.key_digest)
        earlier = exchanges.get(exchange_id) if exchanges else None
        if earlier is not None and not earlier.settled:
            return await self._start(earlier)
        if earlier is not None and earlier.started:
            return earlier.started
        if self._clock.monotonic_s() < self._refused_until_s.get(identity.key_digest, 0.0):
            return []
        chosen = self._stock.take(room)
        if not chosen:
            return []
        given = self._sign(chosen, identity, host)
        self._remember(identity.key_digest, exchange_id, given)
        return await self._start(given)

    def forget(self, holder: bytes) -> None:
        """Drop what is remembered of a pilot that is gone."""
        self._refused_until_s.pop(holder, None)
        for given in self._given.pop(holder, {}).values():
            if not given.settled:
                self._stock.release(given.orders, gone=False)

    async def _start(self, given: _Given) -> list[pilot_pb2.Order]:
        passing("pilot.start.before")
        try:
            outcome = await self._consensus.propose(
                given.command, actor=self._actor(given), request_id=given.request_id
            )
        except Unavailable:
            # It may yet be applied, so these tasks stay set aside: the pilot's repeat asks for them again.
            raise
        passing("pilot.start.after")
        started: set[TaskRef] = set()
        if isinstance(outcome, Applied):
            started = {TaskRef(g.dataset, g.job, g.task, g.attempt) for g in outcome.grants}
        else:
            log.warning("orders refused by the ledger", code=str(outcome.code), detail=outcome.detail)
        if not started and given.command.starts:
            holder = given.command.starts[0].holder
            self._refused_until_s[holder] = self._clock.monotonic_s() + REFUSED_PAUSE_S
        if not given.settled:
            given.settled = True
            given.started = [order for ref, order in given.orders.items() if ref in started]
            self._stock.release(given.orders, gone=True)
        return given.started

    def _sign(self, chosen: Sequence[Candidate], identity: Identity, host: str) -> _Given:
        signer, now_ms = self._signer(), self._cluster.time_ms()
        public_key = signer.public_key
        facts_of = {number: self._cluster.dataset_facts(number) for number in {e.ref.dataset for e in chosen}}
        starts: list[TaskStart] = []
        orders: dict[TaskRef, pilot_pb2.Order] = {}
        for entry in chosen:
            ref = entry.ref
            facts = facts_of[ref.dataset]
            if facts is None:
                continue
            passkey_id = new_passkey_id()
            passkey = signer.sign(
                dataset=ref.dataset,
                job=ref.job,
                task=ref.task,
                attempt=ref.attempt,
                pilot=identity.name,
                holder=identity.key_digest,
                passkey_id=passkey_id,
                now_ms=now_ms,
                lifetime_ms=self._lifetime_ms,
            )
            self.signed.add(passkey, public_key)
            starts.append(
                TaskStart(
                    ref=ref,
                    passkey_id=passkey_id,
                    key_id=signer.key_id,
                    holder=identity.key_digest,
                    pilot=identity.name,
                    host=host,
                    expires_ms=now_ms + self._lifetime_ms,
                )
            )
            orders[ref] = self._order(entry, facts, passkey)
        return _Given(StartTasks(self._site, tuple(starts)), new_request_id(), orders)

    def _order(self, entry: Candidate, facts: DatasetFacts, passkey: bytes) -> pilot_pb2.Order:
        return pilot_pb2.Order(
            ref=ref_to(entry.ref),
            passkey=passkey,
            steering_sha256=facts.steering_sha256,
            task_name=facts.task_names[entry.ref.task],
            jobs=facts.jobs,
            follows=facts.follows,
            seed=facts.seed,
            requirements=requirements_to(entry.need),
            system=self._system,
            environment=self._environment,
        )

    def _remember(self, holder: bytes, exchange_id: int, given: _Given) -> None:
        exchanges = self._given.setdefault(holder, OrderedDict())
        self._given.move_to_end(holder)
        exchanges[exchange_id] = given
        while len(exchanges) > EXCHANGES_KEPT:
            exchanges.popitem(last=False)
        while len(self._given) > PILOTS_KEPT:
            self._given.popitem(last=False)

    def _actor(self, given: _Given) -> str:
        return f"node:{self._signer().key_id}"
