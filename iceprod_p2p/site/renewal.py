"""Keys and certificates of a node made anew in time, or when an administrator asks, while calls go on.

Nothing is ever replaced at once.  A new authority is made by the root, listed in the ledger, and used when every node
that answers has it; the one before stays listed until all that it vouched for has ended.  A new root is vouched for by
the one before it: what it made is shown with that word, so those who know the old root alone believe it too.  The
old root ends when no listed authority needs it any more.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from cryptography import x509

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import ConfigError, IceProdError, Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.commands_trust import AddAuthority, RetireAuthority
from iceprod_p2p.model.identity import PEOPLE
from iceprod_p2p.model.trust import Renewal
from iceprod_p2p.security.ca import Authority, follow_root
from iceprod_p2p.security.certificates import (
    authority_claim,
    chain_from_pem,
    is_signed_by,
    make_request,
    renewal_due_ms,
    to_der,
    to_pem,
)
from iceprod_p2p.security.keyfiles import write_public
from iceprod_p2p.security.trust import read_issuer, succeeding_roots
from iceprod_p2p.site import key_turns
from iceprod_p2p.site.administrator import renew_administrator
from iceprod_p2p.site.consensus import Consensus, applied
from iceprod_p2p.site.issuing import ask_root
from iceprod_p2p.site.key_turns import Retiring
from iceprod_p2p.site.listed import Listed, ListedReader
from iceprod_p2p.site.node_keys import (
    AUTHORITY,
    KEYS,
    PASSPHRASE_VARIABLE,
    NodeKeys,
    issue_node,
    read_passphrase,
)
from iceprod_p2p.site.peers import Peers
from iceprod_p2p.wire.pb import common_pb2, control_pb2

RETIRING: Final = "retiring.json"
MARGIN_MS: Final = 5_000  # Beyond the life of what an authority vouched for.
SETTLE_S: Final = 10.0  # How long a node that answers may lag before it is no longer waited for.
SETTLE_PAUSE_S: Final = 0.1
FRESH_S: Final = 0.6  # Other nodes read the ledger's facts anew within half of this.
log = get_logger("renewal")

Ask = Callable[[common_pb2.NodeAddress], Awaitable[control_pb2.MemberStatus]]


class KeyHolder(Protocol):
    """The node as far as its keys go."""

    def keys(self) -> NodeKeys:
        """The present keys."""
        ...

    def take_keys(self, keys: NodeKeys) -> None:
        """Go on with other keys: every connection from now on uses them."""
        ...


class KeyRenewal:
    """A role: used on the event loop only; writes files on threads."""

    def __init__(
        self,
        node: KeyHolder,
        *,
        data_dir: Path,
        consensus: Consensus,
        nodes: Callable[[], Sequence[common_pb2.NodeAddress]],
        peers: Peers,
        ask: Ask,
        introduce: Callable[[], Awaitable[None]],
        pilot_lifetime_ms: int,
        person_lifetime_ms: int,
        vouches: bool,
        clock: Clock,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """`introduce` tells the ledger this node's certificate; `vouches` says whether it shall vouch for people."""
        self._node = node
        self._data_dir = data_dir
        self._consensus = consensus
        self._nodes = nodes
        self._peers = peers
        self._ask = ask
        self._introduce = introduce
        self._lifetime_ms = {False: pilot_lifetime_ms, True: person_lifetime_ms}
        self._vouches = vouches
        self._clock = clock
        self._environ = environ
        self._retiring = key_turns.load_retiring(data_dir / KEYS / RETIRING)
        self._reader = ListedReader(consensus.view)
        self._trouble: dict[str, str] = {}

    def problems(self) -> list[str]:
        """Return what keeps certificates from being made anew, one sentence each."""
        return list(self._trouble.values())

    async def step(self) -> None:
        """Do what is due; cheap when nothing is."""
        keys = self._node.keys()
        listed = await asyncio.to_thread(self._reader.look, keys)
        if listed is None:
            return
        await self._learn_roots(listed)
        await self._tried("root", self._renew_root(listed))
        await self._tried("site", self._renew_authority(keys.site, listed))
        if (self._vouches and listed.votes) or keys.people is not None:
            await self._tried("people", self._renew_authority(PEOPLE, listed))
        await self._tried("node", self._renew_own(listed))
        await self._tried("retiring", self._retire(listed))
        await asyncio.to_thread(self._renew_administrator)

    def _renew_administrator(self) -> None:
        keys = self._node.keys()
        if keys.people is None or to_der(keys.people.certificate) in {r.certificate for r in self._retiring}:
            return
        with self._consensus.view() as kv:
            renew_administrator(
                self._data_dir,
                keys.people,
                keys.root_pem,
                now_ms=self._clock.wall_ms(),
                stands=lambda name: queries.person(kv, name) is not None,
            )

    async def _tried(self, what: str, work: Awaitable[None]) -> None:
        """Let one part fail without the others: it is tried again, and said meanwhile."""
        try:
            await work
        except IceProdError as failure:
            if self._trouble.get(what) != failure.message:
                log.warning("renewal cannot go on", what=what, why=failure.message)
            done = "end" if what == "retiring" else "be made anew"
            self._trouble[what] = f"the {what} certificate cannot {done}: {failure.message}"
        else:
            self._trouble.pop(what, None)

    # Roots.

    async def _learn_roots(self, listed: Listed) -> None:
        """Believe the roots that stand, as far as those believed until now vouch for them."""
        keys = self._node.keys()
        known = chain_from_pem(keys.root_pem)
        roots = succeeding_roots(known, listed.roots, listed.above)
        if roots == known:
            return
        root_pem = to_pem(*roots)
        await asyncio.to_thread(write_public, self._data_dir / KEYS / "root.pem", root_pem)
        self._node.take_keys(replace(keys, root_pem=root_pem))
        log.info("roots of the cluster changed", roots=len(roots))

    async def _renew_root(self, listed: Listed) -> None:
        keys, stem = self._node.keys(), self._data_dir / AUTHORITY / "root"
        if keys.root is None:
            if keys.root_is_locked and (Renewal.ROOT, "") in listed.asked:
                raise ConfigError(
                    "the key of the root is locked by its passphrase",
                    remedy=f"start the node with {PASSPHRASE_VARIABLE} naming the file that holds it",
                )
            return
        begun = await asyncio.to_thread(key_turns.next_chain, stem)
        asked = (Renewal.ROOT, "") in listed.asked
        due = asked or self._clock.wall_ms() >= renewal_due_ms(keys.root.certificate)
        if not begun and not (due and len(listed.roots) == 1):
            return
        passphrase = await asyncio.to_thread(self._passphrase, stem)
        key = await asyncio.to_thread(lambda: key_turns.next_key(stem, passphrase=passphrase))
        if not begun:
            following = follow_root(keys.root, key, now_ms=self._clock.wall_ms())
            begun = (following.certificate, *following.above)
            await asyncio.to_thread(key_turns.keep_next_chain, stem, begun)
        certificate, *above = begun
        await self._propose(AddAuthority(keys.node_id, "", to_der(certificate), to_der(above[0])))
        await asyncio.to_thread(key_turns.take_turn, stem, to_pem(*begun))
        root = Authority(keys.cluster, "", certificate, key, tuple(above))
        self._node.take_keys(replace(self._node.keys(), root=root))
        log.info("a new root takes its turn", node=keys.node_id)

    def _passphrase(self, stem: Path) -> bytes | None:
        if b"ENCRYPTED" not in stem.with_suffix(".key").read_bytes():
            return None
        return read_passphrase(Path(self._environ[PASSPHRASE_VARIABLE]))

    # Authorities.

    async def _renew_authority(self, scope: str, listed: Listed) -> None:
        keys, stem = self._node.keys(), self._stem(scope)
        present = keys.people if scope == PEOPLE else keys.authority
        own = listed.people if scope == PEOPLE else listed.site
        if scope == PEOPLE and present is not None and not listed.votes:
            return  # Not, or no longer, a voter: what it vouched for ends by itself.
        if scope == PEOPLE and present is None and not self._may_begin_to_vouch(listed):
            return
        if present is not None and to_der(present.certificate) not in own:
            await self._propose(AddAuthority(keys.node_id, scope, to_der(present.certificate)))
        begun = await asyncio.to_thread(key_turns.next_chain, stem)
        newest = chain_from_pem(keys.root_pem)[-1]
        if begun and not is_signed_by(begun[0], newest):
            await asyncio.to_thread(key_turns.forget_next, stem)  # Another root has taken its turn meanwhile.
            begun = ()
        if not begun and present is not None and not self._is_due(scope, present, listed.asked, newest):
            return
        key = await asyncio.to_thread(key_turns.next_key, stem)
        if not begun:
            request = make_request(key, authority_claim(scope, keys.cluster))
            begun = await self._issued(request, scope)
            if not key_turns.is_key_of(key, begun[0]):
                raise Unavailable("the certificate that came is for another key", remedy="it is asked again")
            read_issuer(to_der(begun[0]), scope=scope, cluster=keys.cluster)
            await asyncio.to_thread(key_turns.keep_next_chain, stem, begun)
        await self._propose(AddAuthority(keys.node_id, scope, to_der(begun[0])))
        await self._settle()
        if present is not None:
            await self._retire_later(scope, to_der(present.certificate))
        await asyncio.to_thread(key_turns.take_turn, stem, to_pem(*begun))
        authority = Authority(keys.cluster, scope, begun[0], key, begun[1:])
        keys = self._node.keys()
        if scope == PEOPLE:
            self._node.take_keys(replace(keys, people=authority))
        else:
            self._node.take_keys(replace(keys, authority=authority))
        log.info("a new authority takes its turn", scope=scope)
        await self._introduce()

    def _may_begin_to_vouch(self, listed: Listed) -> bool:
        """Whether a first authority for people may be listed here.

        While none is listed, as after an upgrade, the founder's counts all the same: the first other one that is
        listed would shut out everybody whom that one let in.  So this node waits for it, unless it is asked.
        """
        return (
            listed.others_vouch
            or bool(listed.people)
            or (Renewal.PEOPLE, self._node.keys().node_id) in listed.asked
        )

    def _is_due(
        self,
        scope: str,
        present: Authority,
        asked: frozenset[tuple[str, str]],
        newest: x509.Certificate,
    ) -> bool:
        kind = Renewal.PEOPLE if scope == PEOPLE else Renewal.SITE
        return (
            (kind, self._node.keys().node_id) in asked
            or self._clock.wall_ms() >= renewal_due_ms(present.certificate)
            or not is_signed_by(present.certificate, newest)
        )

    async def _issued(self, request: bytes, scope: str) -> tuple[x509.Certificate, ...]:
        """Return the root's certificate for an authority, with what stands above it."""
        keys = self._node.keys()
        if keys.root is not None:
            certificate = keys.root.issue_authority(request, scope=scope, now_ms=self._clock.wall_ms())
            return (certificate, *keys.root.above)
        return await ask_root(self._peers, request, scope)

    def _stem(self, scope: str) -> Path:
        if scope == PEOPLE:
            return self._data_dir / AUTHORITY / "people"
        return self._data_dir / KEYS / "authority"

    async def _settle(self) -> None:
        """Wait until every node that answers knows what this one does, so that none refuses what is new."""
        with self._consensus.view() as kv:
            index = queries.applied_index(kv)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + SETTLE_S
        own = self._node.keys().node_id
        while loop.time() < until_s:
            others = [node for node in self._nodes() if node.node_id != own]
            rows = await asyncio.gather(*(self._ask(node) for node in others))
            if all(not row.reachable or row.failed or row.applied_index >= index for row in rows):
                break
            await asyncio.sleep(SETTLE_PAUSE_S)
        await asyncio.sleep(FRESH_S)

    # The node's own certificate.

    async def _renew_own(self, listed: Listed) -> None:
        keys, stem = self._node.keys(), self._data_dir / KEYS / "node"
        now_ms = self._clock.wall_ms()
        asked = (Renewal.NODE, keys.node_id) in listed.asked
        stranger = not is_signed_by(keys.certificate, keys.authority.certificate)
        if not (asked or stranger or now_ms >= renewal_due_ms(keys.certificate)):
            return
        await asyncio.to_thread(key_turns.forget_next, stem)
        key = await asyncio.to_thread(key_turns.next_key, stem)
        chain_pem = issue_node(keys.authority, key, keys.node_id, now_ms=now_ms)
        await asyncio.to_thread(key_turns.take_turn, stem, chain_pem)
        self._node.take_keys(replace(self._node.keys(), node_key=key, node_chain_pem=chain_pem))
        log.info("own certificate renewed", node=keys.node_id)
        await self._introduce()

    # The end of what came before.

    async def _retire_later(self, scope: str, der: bytes) -> None:
        if any(entry.certificate == der for entry in self._retiring):
            return
        until_ms = self._clock.wall_ms() + self._lifetime_ms[scope == PEOPLE] + MARGIN_MS
        await self._keep([*self._retiring, Retiring(scope, der, until_ms)])

    async def _keep(self, retiring: Sequence[Retiring]) -> None:
        self._retiring = list(retiring)
        await asyncio.to_thread(key_turns.save_retiring, self._data_dir / KEYS / RETIRING, self._retiring)

    async def _retire(self, listed: Listed) -> None:
        keys = self._node.keys()
        present = {to_der(authority.certificate) for authority in (keys.authority, keys.people) if authority}
        known = {entry.certificate for entry in self._retiring}
        left_behind = [
            (keys.site, der) for der in listed.idle
        ]  # By lost nodes, or turns that were cut short.
        if keys.people is not None or listed.others_vouch:
            left_behind += [(PEOPLE, der) for der in listed.people]
        for scope, der in left_behind:
            if der not in present | known and not key_turns.next_chain(self._stem(scope)):
                await self._retire_later(scope, der)
        for entry in tuple(self._retiring):
            if self._clock.wall_ms() >= entry.until_ms and entry.certificate not in present:
                if entry.certificate in {*listed.site, *listed.people} - {*listed.others}:
                    await self._propose(RetireAuthority(keys.node_id, entry.scope, entry.certificate))
                    log.info("an authority stands no more", scope=entry.scope)
                await self._keep([other for other in self._retiring if other != entry])
        if keys.root is not None and len(listed.roots) > 1:
            newest = listed.roots[-1]
            if all(is_signed_by(certificate, newest) for certificate in listed.needed):
                await self._propose(RetireAuthority(keys.node_id, "", to_der(listed.roots[0])))
                log.info("the root before stands no more")

    async def _propose(self, command: AddAuthority | RetireAuthority) -> None:
        outcome = await self._consensus.propose(command, actor=f"node:{command.node_id}")
        applied(outcome)
