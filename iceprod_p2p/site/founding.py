"""The first node of a cluster: every key, the first log entry, and the first administrator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.ledger import versions
from iceprod_p2p.ledger.apply import apply
from iceprod_p2p.ledger.codec import encode_entry
from iceprod_p2p.ledger.commands import AddNode, Command, FoundCluster, Proposal, SetPerson
from iceprod_p2p.ledger.commands_trust import AddAuthority
from iceprod_p2p.ledger.outcome import Refused
from iceprod_p2p.model.identity import PEOPLE, is_person_name
from iceprod_p2p.model.person import Role
from iceprod_p2p.model.site import Member, MemberRole
from iceprod_p2p.raft.founding import found
from iceprod_p2p.security.certificates import chain_from_pem, expires_ms, fingerprint, to_der
from iceprod_p2p.security.keyfiles import make_private_directory
from iceprod_p2p.security.random import new_request_id
from iceprod_p2p.site.administrator import LIFETIME_MS
from iceprod_p2p.site.issued import FILE, IssuedCertificates
from iceprod_p2p.site.node_keys import AUTHORITY, NodeKeys, found_keys, has_keys, issue_person, save_keys
from iceprod_p2p.store.environment import Environment

RAFT_DIRECTORY: Final = "raft"


@dataclass(frozen=True, slots=True)
class Founded:
    """What founding made: the node's keys, and the administrator's name, chain and key (PEM)."""

    keys: NodeKeys
    administrator: str
    chain_pem: bytes
    key_pem: bytes


def found_cluster(
    config: SiteConfig,
    clock: Clock,
    *,
    hand_over: Callable[[Founded], None],
    root_passphrase: bytes | None = None,
) -> Founded:
    """Found a cluster whose only member is this node; ConfigError when the data directory is in use already.

    The node's certificate is written last, after `hand_over` has kept what the administrator gets: a founding that
    was interrupted leaves a directory that is refused by name and can be removed, never one that half works.
    """
    node = config.node
    if has_keys(node.data_dir):
        raise ConfigError(
            f"{node.data_dir} belongs to a node already", remedy="choose another data_dir, or start that node"
        )
    administrator = config.people.administrator
    if not is_person_name(administrator):
        raise ConfigError(
            f"people.administrator {administrator!r} cannot name a person",
            remedy="use letters, digits and '_.@-'",
        )
    make_private_directory(node.data_dir)
    now_ms = clock.wall_ms()
    keys, signing_key = found_keys(cluster=node.cluster, site=node.site, node_id=node.id, now_ms=now_ms)
    assert keys.people is not None
    chain_pem, key_pem = issue_person(keys.people, administrator, now_ms=now_ms, lifetime_ms=LIFETIME_MS)
    passing("node.found.before")
    _write_first_entry(config, keys, administrator)
    passing("node.found.after")
    make_private_directory(node.data_dir / AUTHORITY)
    certificate = chain_from_pem(chain_pem)[0]
    IssuedCertificates(node.data_dir / AUTHORITY / FILE).note(
        administrator, fingerprint(certificate), expires_ms=expires_ms(certificate), now_ms=now_ms
    )
    founded = Founded(keys, administrator, chain_pem, key_pem)
    hand_over(founded)
    save_keys(node.data_dir, keys, signing_key, root_passphrase=root_passphrase)
    return founded


def _write_first_entry(config: SiteConfig, keys: NodeKeys, administrator: str) -> None:
    store = Environment(config.node.data_dir / RAFT_DIRECTORY)
    try:
        outcomes = found(
            store,
            keys.node_id,
            encode_entry([_proposal(command, keys) for command in _genesis(config, keys, administrator)]),
            apply=apply,
            incarnation=new_request_id(),
        )
    finally:
        store.close()
    refused = [outcome.detail for outcome in outcomes if isinstance(outcome, Refused)]
    if refused:
        raise ConfigError(
            f"the first entry was refused: {'; '.join(refused)}", remedy="remove the data directory"
        )


def _genesis(config: SiteConfig, keys: NodeKeys, administrator: str) -> list[Command]:
    assert keys.root is not None and keys.people is not None
    node = config.node
    return [
        FoundCluster(
            node.cluster,
            to_der(keys.root.certificate),
            int(node.site_grace_s * 1_000),
            versions.VERSION_MOST,
        ),
        AddNode(
            member=Member(keys.node_id, keys.site, node.advertise, MemberRole.VOTER),
            issuing_certificate=to_der(keys.authority.certificate),
            certificate_fingerprint=bytes.fromhex(fingerprint(keys.certificate)),
            passkey_key_id=keys.signer.key_id,
            passkey_public_key=keys.signer.public_key,
            enrol_address=node.advertise_enrol,
            server_name=keys.server_name,
            version_least=versions.VERSION_LEAST,
            version_most=versions.VERSION_MOST,
        ),
        AddAuthority(keys.node_id, PEOPLE, to_der(keys.people.certificate)),
        SetPerson(administrator, Role.ADMINISTRATOR),
    ]


def _proposal(command: Command, keys: NodeKeys) -> Proposal:
    return Proposal(new_request_id(), 0, f"node:{keys.node_id}", command)
