"""Snapshots: the replicated tables, sent page by page to a follower whose entries are gone, installed whole.

The sender copies its store off the engine's thread and reads pages of sorted pairs from the copy; it
sends what the receiver pulls, so a lost page or link costs one time-out, and neither side holds more than
a few pages.  The receiver fills a store beside its own and checks the SHA-256 of all pairs; only then it
adds its *own* term, vote, identity and the part of its log that follows, and swaps.  The donor's term,
vote and log never travel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from typing import Any

from iceprod_p2p.base.errors import IceProdError, IntegrityError
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.raft.context import Context
from iceprod_p2p.raft.journal import (
    BASE_KEY,
    KEY,
    META_END,
    PLACE_KEY,
    STATE_KEY,
    Base,
    HardState,
    Row,
    pack_row,
    seal,
    unpack_row,
    unseal,
)
from iceprod_p2p.raft.messages import SnapshotDone, SnapshotOffer, SnapshotPage, SnapshotPull
from iceprod_p2p.raft.ports import Copy, CopyJob, Snapshot, Store
from iceprod_p2p.raft.replication import Progress

log = get_logger("raft")

TABLES_END = b"\xff" * 512  # After every key: keys are at most 511 bytes.
COPY_IDLE_S = 60.0  # A copy that nobody has pulled from for so long is deleted.


def pairs_digest(snapshot: Snapshot) -> tuple[bytes, int]:
    """Return SHA-256 and number of all pairs of the replicated tables."""
    total, count = sha256(), 0
    for key, value in snapshot.ledger.scan(b"\x00", TABLES_END):
        total.update(b"%b%b%b%b" % (KEY.pack(len(key)), key, KEY.pack(len(value)), value))
        count += 1
    return total.digest(), count


def copy_in_place(make: Callable[[], Any], take: Callable[[Any], None]) -> None:
    """Copy the store at once, on the caller's thread: for tests and the simulation."""
    try:
        take(make())
    except IceProdError as error:
        take(error)


@dataclass(slots=True)
class _Donation:
    """A copy that can be pulled: the tables as of `index`."""

    copy: Copy
    snapshot_id: bytes
    index: int
    index_term: int
    digest: bytes
    sha256: bytes
    pair_count: int
    used_s: float = 0.0


def _prepare(copy: Copy) -> _Donation:
    """Find out what a copy holds; slow, so done where the copy was made."""
    with copy.read() as snapshot:
        sealed = snapshot.meta.get(STATE_KEY)
        assert sealed is not None, "a store that never committed anything is not copied"
        index = unseal("state", sealed, HardState).applied
        sealed_base = snapshot.meta.get(BASE_KEY)
        base = Base() if sealed_base is None else unseal("base", sealed_base, Base)
        term, digest = base.term, base.digest
        if index != base.index:
            value = snapshot.log.get(KEY.pack(index))
            if value is None:
                raise IntegrityError(f"entry {index} is missing in a copy of the store")
            row = unpack_row(index, value)
            term, digest = row.term, row.digest
        total, count = pairs_digest(snapshot)
    # The same tables have the same name, so a receiver resumes with another leader where it stopped.
    name = blake2b(b"%b%b%b%b" % (KEY.pack(index), KEY.pack(term), digest, total), digest_size=16).digest()
    return _Donation(copy, name, index, term, digest, total, count)


class SnapshotSender:
    """The leader's side.  Copies are made by `copy_job`, which may answer from another thread."""

    def __init__(self, context: Context, store: Store, copy_job: CopyJob, wake: Callable[[], None]) -> None:
        self._context = context
        self._store = store
        self._copy_job = copy_job
        self._wake = wake
        self._donation: _Donation | None = None
        self._copying = False
        self._arrived: deque[_Donation | IceProdError] = deque()
        self._offered_s: dict[str, float] = {}

    @property
    def needed_from(self) -> int | None:
        """The index from which on entries must be kept for a transfer under way, or None."""
        return None if self._donation is None else self._donation.index

    def offer(self, peer: str, progress: Progress) -> None:
        """Offer the tables to a follower, again from time to time until it has pulled them."""
        context = self._context
        if context.now_s - self._offered_s.get(peer, -1e9) < context.settings.snapshot_retry_s:
            return
        donation = self._donation
        if donation is None or donation.index < context.journal.base.index:
            self._begin_copy()
            return
        self._offered_s[peer] = context.now_s
        progress.snapshot_index = donation.index
        donation.used_s = context.now_s
        context.send_at_once(
            peer,
            SnapshotOffer(
                context.core.term, donation.snapshot_id, donation.index, donation.index_term, donation.digest
            ),
        )

    def on_pull(self, sender: str, message: SnapshotPull) -> None:
        """Send the next pages that a receiver asks for."""
        context, donation = self._context, self._donation
        if donation is None or message.snapshot_id != donation.snapshot_id:
            return
        donation.used_s = self._offered_s[sender] = context.now_s
        after = message.after
        with donation.copy.read() as snapshot:
            for number in range(message.page, message.page + context.settings.snapshot_pages_in_flight):
                pairs, last = self._page(snapshot, after)
                total = donation.sha256 if last else b""
                page = SnapshotPage(donation.snapshot_id, number, pairs, last, total, donation.pair_count)
                context.send_at_once(sender, page)
                if last:
                    return
                after = pairs[-1][0]

    def _page(self, snapshot: Snapshot, after: bytes) -> tuple[list[tuple[bytes, bytes]], bool]:
        pairs: list[tuple[bytes, bytes]] = []
        room = self._context.settings.snapshot_page_bytes
        for key, value in snapshot.ledger.scan(after + b"\x00" if after else b"\x00", TABLES_END):
            if room <= 0:
                return pairs, False
            pairs.append((key, value))
            room -= len(key) + len(value)
        return pairs, True

    def on_timer(self) -> None:
        """Take copies that are ready, and delete one that nobody uses any more."""
        context = self._context
        while self._arrived:
            found = self._arrived.popleft()
            self._copying = False
            if isinstance(found, IceProdError):
                log.error("cannot copy the store for a snapshot", node=context.node_id, error=str(found))
                self._offered_s.clear()
                continue
            self._close()
            found.used_s = context.now_s
            self._donation = found
            self._offered_s.clear()
        if self._donation is not None and context.now_s - self._donation.used_s > COPY_IDLE_S:
            self._close()

    def end(self) -> None:
        """Lead no more: a copy is kept until it is idle, in case this node leads again."""
        self._offered_s.clear()

    def close(self) -> None:
        """Delete what is held."""
        self._close()

    def _close(self) -> None:
        if self._donation is not None:
            self._donation.copy.close()
            self._donation = None

    def _begin_copy(self) -> None:
        if not self._copying:
            self._copying = True
            self._copy_job(self._make_donation, self._take)

    def _make_donation(self) -> Any:
        passing("raft.snapshot.copy.before")
        copy = self._store.copy()
        passing("raft.snapshot.copy.after")
        try:
            return _prepare(copy)
        except BaseException:
            copy.close()
            raise

    def _take(self, result: Any) -> None:
        self._arrived.append(result)
        self._wake()


@dataclass(slots=True)
class _Incoming:
    """A snapshot that is arriving."""

    offer: SnapshotOffer
    staging: Any
    donor: str
    page: int = 0
    after: bytes = b""
    total: Any = field(default_factory=sha256)
    count: int = 0
    asked_until: int = 0
    early: dict[int, SnapshotPage] = field(default_factory=dict)  # Never more than one pull's pages.
    heard_s: float = 0.0  # When a page came, or was asked for.
    page_s: float = 0.0  # When the last page came.
    complete: bool = False


class SnapshotReceiver:
    """The follower's side: pulls, checks, and installs between two ticks."""

    def __init__(self, context: Context, store: Store) -> None:
        self._context = context
        self._store = store
        self._incoming: _Incoming | None = None

    @property
    def is_complete(self) -> bool:
        """Return whether a whole, checked snapshot waits to be installed."""
        return self._incoming is not None and self._incoming.complete

    @property
    def is_receiving(self) -> bool:
        """Return whether a snapshot is on its way."""
        return self._incoming is not None

    def on_offer(self, sender: str, message: SnapshotOffer) -> None:
        """The current leader has tables for us: pull them, unless they are no news."""
        context, incoming = self._context, self._incoming
        if message.index <= context.core.commit:
            self.discard()
            commit, state = context.core.commit, context.journal.state
            state.acked = max(state.acked, commit)
            done = SnapshotDone(context.core.term, message.snapshot_id, commit, context.session)
            context.hold(sender, done)
            return
        if incoming is not None and incoming.offer.snapshot_id == message.snapshot_id:
            incoming.donor = sender
        elif incoming is not None and (incoming.complete or self._still_comes(incoming, sender)):
            return
        else:
            self.discard()
            self._incoming = _Incoming(message, self._store.stage(), sender, page_s=context.now_s)
            log.info("receives a snapshot", node=context.node_id, index=message.index, donor=sender)
        self._pull()

    def _still_comes(self, incoming: _Incoming, sender: str) -> bool:
        """Return whether a leader of before still sends its tables: as committed as the present one's, and begun.

        What they lack by then, the present leader sends as entries, or else offers its own tables again.
        """
        patience_s = 2 * self._context.settings.snapshot_retry_s
        return incoming.donor != sender and self._context.now_s - incoming.page_s < patience_s

    def on_page(self, sender: str, message: SnapshotPage) -> None:
        """Write one page beside the store in use; pages of the present pull may overtake each other."""
        incoming = self._incoming
        if incoming is None or incoming.complete or sender != incoming.donor:
            return
        expected = incoming.page <= message.page < incoming.asked_until
        if message.snapshot_id != incoming.offer.snapshot_id or not expected:
            return
        incoming.heard_s = incoming.page_s = self._context.now_s
        incoming.early[message.page] = message
        while incoming.page in incoming.early:
            page = incoming.early.pop(incoming.page)
            if not self._write_page(incoming, page) or (page.last and not self._is_whole(incoming, page)):
                self.discard()
                return
            incoming.page += 1
            incoming.complete = page.last
            if page.last:
                return
        if incoming.page >= incoming.asked_until:
            self._pull()

    def _is_whole(self, incoming: _Incoming, page: SnapshotPage) -> bool:
        if (incoming.total.digest(), incoming.count) == (page.sha256, page.pair_count):
            return True
        log.error("a snapshot is not what was promised", node=self._context.node_id, donor=incoming.donor)
        return False

    def _write_page(self, incoming: _Incoming, message: SnapshotPage) -> bool:
        transaction = incoming.staging.write()
        for key, value in message.pairs:
            if not incoming.after < key or len(key) > 511:
                transaction.abort()
                node = self._context.node_id
                log.error("a snapshot's keys are out of order", node=node, donor=incoming.donor)
                return False
            incoming.after = key
            transaction.ledger.put(key, value)
            incoming.total.update(b"%b%b%b%b" % (KEY.pack(len(key)), key, KEY.pack(len(value)), value))
        incoming.count += len(message.pairs)
        transaction.commit()
        passing("raft.snapshot.page.after")
        return True

    def on_timer(self) -> None:
        """Pull again when pages stay away."""
        incoming, context = self._incoming, self._context
        if incoming is None or incoming.complete:
            return
        if incoming.offer.index <= context.core.commit:
            self.discard()
        elif context.now_s - incoming.heard_s >= context.settings.snapshot_retry_s:
            self._pull()

    def next_deadline_s(self) -> float:
        """Return when pages are asked for again."""
        incoming = self._incoming
        if incoming is None or incoming.complete:
            return float("inf")
        return incoming.heard_s + self._context.settings.snapshot_retry_s

    def install(self) -> SnapshotDone | None:
        """Put the complete snapshot in place of the store, between two ticks; durable when this returns.

        Returns what to tell the donor, or None when the log has overtaken the snapshot meanwhile.
        """
        incoming, context = self._incoming, self._context
        assert incoming is not None and incoming.complete, "only a whole snapshot is installed"
        offer, journal = incoming.offer, context.journal
        if offer.index <= context.core.commit:
            self.discard()
            return None
        passing("raft.snapshot.install.before")
        transaction = incoming.staging.write()
        with self._store.read() as own:
            for key, value in own.meta.scan(b"", META_END):  # Identity, session, what peers promised.
                if key not in (STATE_KEY, BASE_KEY, PLACE_KEY):
                    transaction.meta.put(key, value)
            kept = 0
            for index, row in self._kept_suffix(own, offer):
                transaction.log.put(KEY.pack(index), pack_row(index, row))
                kept += 1
        state = HardState(journal.state.term, journal.state.vote, offer.index, offer.index)
        if journal.state.term >= offer.index_term:
            state.acked = max(journal.state.acked, offer.index)
        state.term = max(state.term, offer.index_term)
        transaction.meta.put(STATE_KEY, seal(state))
        transaction.meta.put(BASE_KEY, seal(Base(offer.index, offer.index_term, offer.digest)))
        transaction.commit()
        self._incoming = None
        passing("raft.snapshot.swap.before")
        self._store.swap(incoming.staging)
        passing("raft.snapshot.swap.after")
        with self._store.read() as installed:
            journal.load(installed)
        context.core.reload()
        context.durable_index = journal.last_index
        log.info("snapshot in place", node=context.node_id, index=offer.index, kept_entries=kept)
        return SnapshotDone(context.core.term, offer.snapshot_id, offer.index, context.session)

    def _kept_suffix(self, own: Snapshot, offer: SnapshotOffer) -> Iterator[tuple[int, Row]]:
        """Walk this node's entries after the snapshot, if its log agrees with the snapshot's end."""
        journal = self._context.journal
        if journal.term_at(offer.index) != offer.index_term or journal.digest_at(offer.index) != offer.digest:
            return
        for index in range(offer.index + 1, journal.last_index + 1):
            value = own.log.get(KEY.pack(index))
            if value is None:
                raise IntegrityError(f"entry {index} of the log is missing")
            yield index, unpack_row(index, value)

    def discard(self) -> None:
        """Drop a snapshot that is not (or no longer) wanted."""
        if self._incoming is not None:
            self._incoming.staging.discard()
            self._incoming = None

    def _pull(self) -> None:
        incoming, context = self._incoming, self._context
        assert incoming is not None
        incoming.heard_s = context.now_s
        incoming.asked_until = incoming.page + context.settings.snapshot_pages_in_flight
        pull = SnapshotPull(incoming.offer.snapshot_id, incoming.page, incoming.after)
        context.send_at_once(incoming.donor, pull)
