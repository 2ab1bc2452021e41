"""`iceprod-node rejoin`: a site's node comes back under a new id, with the keys and blobs that are still good.

The site's issuing key, or the cluster's root key at the founder's, lets it in through any other node; where
both are gone an invitation does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.base.errors import ConfigError, IntegrityError, Unavailable
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.client.contexts import CONTEXT_FILE, load_context, save_nodes
from iceprod_p2p.client.enrolment import enrol_call, find_root, node_entries
from iceprod_p2p.ledger import versions
from iceprod_p2p.raft.founding import owner_of, prepare_joiner
from iceprod_p2p.security.certificates import chain_from_pem, fingerprint
from iceprod_p2p.security.enrolment import Invitation, sign_readmission
from iceprod_p2p.security.random import new_request_id
from iceprod_p2p.site import succession
from iceprod_p2p.site.founding import RAFT_DIRECTORY
from iceprod_p2p.site.joining import join_cluster
from iceprod_p2p.site.known_nodes import note_nodes, noted_nodes
from iceprod_p2p.site.node_keys import KEYS, NodeKeys, has_keys
from iceprod_p2p.site.readmission import words_of
from iceprod_p2p.site.succession import NEXT, Succession
from iceprod_p2p.store.blobs import BlobStore
from iceprod_p2p.store.environment import Environment
from iceprod_p2p.wire.channel import TlsMaterial
from iceprod_p2p.wire.pb import common_pb2, enrol_pb2

READMIT_S: Final = 40.0  # The ledger must commit, perhaps after an election and another change of the voters.
ADMIN_DIRECTORY: Final = "admin"  # The first administrator's context, in the founder's data directory.
log = get_logger("rejoin")


@dataclass(frozen=True, slots=True)
class Rejoined:
    """Who followed whom, and what became of the blobs."""

    succession: Succession
    blobs_kept: int
    blobs_damaged: int


def rejoin(
    config: SiteConfig,
    clock: Clock,
    *,
    replaces: str,
    node_id: str = "",
    invitation: Invitation | None = None,
    through: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Rejoined:
    """Come back as a new node of the same site; blocking, and it may be repeated after any interruption.

    `through` are enrolment addresses of other nodes, beside those that this one has noted.  ConfigError when
    the keys that are needed are not here, or the directory is in use; NotAllowed or Refused as the cluster
    says; Unavailable when no other node can be reached, or they have no quorum.
    """
    with succession.held(config):
        begun = succession.begin(config, "rejoin", old=replaces, new=node_id)
        if not begun.admitted:
            with succession.given_up_when_refused(config):
                if invitation is not None:
                    begun, nodes = _use_invitation(config, begun, invitation, clock)
                else:
                    nodes = _ask_to_be_readmitted(config, begun, clock, through, environ)
            note_nodes(config.node.data_dir / NEXT, nodes)
            begun = replace(begun, admitted=True)
            succession.note(config.node.data_dir, begun)
            tell_context(config, nodes)
    passing("node.rejoin.admitted")
    succession.finish(config, begun)
    return Rejoined(begun, *_look_at_blobs(config))


def _use_invitation(
    config: SiteConfig, begun: Succession, invitation: Invitation, clock: Clock
) -> tuple[Succession, tuple[common_pb2.NodeAddress, ...]]:
    directory = config.node.data_dir / NEXT
    if not begun.invited:  # Forget what was made without one.
        for name in (KEYS, RAFT_DIRECTORY):
            shutil.rmtree(directory / name, ignore_errors=True)
        begun = replace(begun, invited=True)
        succession.note(config.node.data_dir, begun)
    if has_keys(directory):  # The invitation was accepted, and the next line was never reached.
        return begun, ()
    joined = join_cluster(succession.at_next(config, begun), invitation, clock, replaces=begun.old)
    return begun, joined.nodes


def _ask_to_be_readmitted(
    config: SiteConfig,
    begun: Succession,
    clock: Clock,
    through: Sequence[str],
    environ: Mapping[str, str],
) -> tuple[common_pb2.NodeAddress, ...]:
    node = config.node
    keys = succession.next_keys(config, begun, now_ms=clock.wall_ms(), environ=environ)
    _prepare_store(config, begun)
    passing("node.rejoin.before")
    addresses = list(dict.fromkeys([*through, *_noted_addresses(config)]))
    if not addresses:
        raise ConfigError(
            "no other node of the cluster is known here",
            remedy="name the enrolment port of one: iceprod-node rejoin --through HOST:PORT",
        )
    request = enrol_pb2.ReadmitRequest(
        site=node.site,
        node_id=begun.new,
        replaces=begun.old,
        address=node.advertise,
        enrol_address=node.advertise_enrol,
        node_chain_pem=keys.node_chain_pem,
        passkey_key_id=begun.new,
        passkey_public_key=keys.signer.public_key,
        version_least=versions.VERSION_LEAST,
        version_most=versions.VERSION_MOST,
    )
    request.signature = sign_readmission(keys.node_key, cluster=node.cluster, words=words_of(request))
    return tuple(_call_any(addresses, keys, request).nodes)


def _call_any(
    addresses: Iterable[str], keys: NodeKeys, request: enrol_pb2.ReadmitRequest
) -> enrol_pb2.JoinReply:
    """Ask one node after the other; what a node that answers refuses is final."""
    silent: list[str] = []
    root_fingerprint = fingerprint(chain_from_pem(keys.root_pem)[0])
    for address in addresses:
        try:
            root = find_root(address, root_fingerprint)
            tls = TlsMaterial.anonymous(keys.root_pem)
            reply: enrol_pb2.JoinReply = enrol_call(
                address, tls, root.server_name, "Readmit", request, timeout_s=READMIT_S
            )
            return reply
        except Unavailable as fault:
            silent.append(fault.message)
    raise Unavailable(
        f"no other node could readmit this one: {'; '.join(silent)}",
        remedy="start a majority of the voters; if they are lost for good: iceprod-node restore",
    )


def _noted_addresses(config: SiteConfig) -> list[str]:
    node = config.node
    entries = list(noted_nodes(node.data_dir))
    if (node.data_dir / ADMIN_DIRECTORY / CONTEXT_FILE).exists():
        entries += load_context(f"{node.data_dir / ADMIN_DIRECTORY}/").nodes
    return [
        entry.enrol_address
        for entry in entries
        if entry.enrol_address and entry.enrol_address != node.advertise_enrol
    ]


def _prepare_store(config: SiteConfig, begun: Succession) -> None:
    store = Environment(config.node.data_dir / NEXT / RAFT_DIRECTORY)
    try:
        if owner_of(store) is None:
            prepare_joiner(store, begun.new, incarnation=new_request_id())
    finally:
        store.close()


def tell_context(config: SiteConfig, nodes: Sequence[common_pb2.NodeAddress]) -> None:
    """Let the first administrator's context know the nodes that there are now."""
    directory = config.node.data_dir / ADMIN_DIRECTORY
    if nodes and (directory / CONTEXT_FILE).exists():
        context = load_context(f"{directory}/")
        save_nodes(directory, cluster=context.cluster, person=context.person, nodes=node_entries(nodes))


def _look_at_blobs(config: SiteConfig) -> tuple[int, int]:
    """Read every blob again; delete those that are damaged: they are fetched from other nodes when needed."""
    if not (config.node.data_dir / "blobs").is_dir():
        return 0, 0
    store = BlobStore(config.node.data_dir / "blobs")
    kept = damaged = 0
    for blob in store:
        try:
            store.verify(blob.digest)
            kept += 1
        except IntegrityError as fault:
            log.warning("damaged blob deleted", why=fault.message)
            store.delete(blob.digest)
            damaged += 1
    return kept, damaged
