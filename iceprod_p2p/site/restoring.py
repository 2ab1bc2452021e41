"""`iceprod-node restore`: a cluster begins anew from a backup, on one node, when most of it is lost for good.

The new cluster has the same name, root and people, another epoch, and one node, with a new id.  Every node that
was in the backup is removed from it: whoever comes back with an old directory is no member, and no link or vote
of it counts.  The other sites rejoin, each with a new node.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.base.errors import ConfigError, IceProdError, IntegrityError
from iceprod_p2p.ledger import versions
from iceprod_p2p.ledger.apply import apply
from iceprod_p2p.ledger.codec import encode_entry
from iceprod_p2p.ledger.commands import Proposal
from iceprod_p2p.ledger.commands_replacing import RestoreCluster
from iceprod_p2p.ledger.outcome import Refused
from iceprod_p2p.model.site import Member, MemberRole
from iceprod_p2p.raft.backup import restore as restore_store
from iceprod_p2p.raft.journal import Base
from iceprod_p2p.security.certificates import chain_from_pem, fingerprint, to_der
from iceprod_p2p.security.random import new_request_id
from iceprod_p2p.site import succession
from iceprod_p2p.site.founding import RAFT_DIRECTORY
from iceprod_p2p.site.node_keys import NodeKeys
from iceprod_p2p.site.rejoining import tell_context
from iceprod_p2p.site.succession import NEXT, Succession
from iceprod_p2p.store.backup_file import BackupHeader, BackupNode, BackupReader, open_backup
from iceprod_p2p.store.environment import Environment
from iceprod_p2p.wire.calls import call_blocking
from iceprod_p2p.wire.channel import blocking_channel
from iceprod_p2p.wire.pb import common_pb2, peer_pb2, peer_pb2_grpc

ASK_S: Final = 3.0


def check_backup(config: SiteConfig, path: Path) -> BackupHeader:
    """Read a whole backup and return what it is; ConfigError when it is of another cluster."""
    with open_backup(path) as reader:
        header = reader.check()
    if header.cluster != config.node.cluster:
        raise ConfigError(
            f"{path} is a backup of cluster {header.cluster}, but site.toml names cluster {config.node.cluster}"
        )
    versions.check(header.ledger_version)
    return header


def restore(
    config: SiteConfig,
    path: Path,
    clock: Clock,
    *,
    node_id: str = "",
    environ: Mapping[str, str] = os.environ,
) -> tuple[Succession, BackupHeader]:
    """Begin the cluster anew in this data directory; blocking, and it may be repeated after any interruption.

    ConfigError when the backup is of another cluster, a node of it still leads (a majority lives: rejoin), or
    the keys that are needed are not here; IntegrityError for a damaged backup.
    """
    header = check_backup(config, path)
    with succession.held(config):
        begun = succession.begin(config, "restore", old=config.node.id, new=node_id)
        if not begun.admitted:
            with succession.given_up_when_refused(config):
                keys = succession.next_keys(config, begun, now_ms=clock.wall_ms(), environ=environ)
                if fingerprint(chain_from_pem(keys.root_pem)[0]) != header.root_fingerprint:
                    raise ConfigError(
                        f"{path} is a backup of another cluster of the same name: its root differs"
                    )
                _require_no_leader(header, keys)
                with open_backup(path) as reader:
                    _fill(config, begun, keys, reader)
            begun = replace(begun, admitted=True)
            succession.note(config.node.data_dir, begun)
            tell_context(config, [_address(config, keys)])
    succession.finish(config, begun)
    return begun, header


def _require_no_leader(header: BackupHeader, keys: NodeKeys) -> None:
    """Refuse while a majority lives: two clusters would go on from one past."""
    for node in header.nodes:
        try:
            leads = _leads(node, keys)
        except IceProdError:
            continue  # Silent, or it is another node by now: that is what a restore is for.
        if leads:
            raise ConfigError(
                f"node {node.node_id} of {node.site} leads cluster {header.cluster}: a majority of it lives",
                remedy="nothing is lost; take part again: iceprod-node rejoin",
            )


def _leads(node: BackupNode, keys: NodeKeys) -> bool:
    channel = blocking_channel(node.address, keys.tls, server_name=node.server_name)
    try:
        stub = peer_pb2_grpc.PeerStub(channel)
        row = call_blocking(stub.GetMember, peer_pb2.GetMemberRequest(), timeout_s=ASK_S, peer=node.node_id)
        return bool(row.leader)
    finally:
        channel.close()


def _fill(config: SiteConfig, begun: Succession, keys: NodeKeys, reader: BackupReader) -> None:
    header = reader.header
    directory = config.node.data_dir / NEXT / RAFT_DIRECTORY
    shutil.rmtree(directory, ignore_errors=True)
    at = Base(header.index, header.term, bytes.fromhex(header.log_digest))
    command = _command(config, begun, keys, at)
    proposal = Proposal(new_request_id(), header.ledger_time_ms, f"node:{begun.new}", command)
    store = Environment(directory)
    try:
        outcomes = restore_store(
            store,
            begun.new,
            reader.pairs(),
            at,
            encode_entry([proposal]),
            apply=apply,
            incarnation=new_request_id(),
        )
    finally:
        store.close()
    refused = [outcome.detail for outcome in outcomes if isinstance(outcome, Refused)]
    if refused:
        shutil.rmtree(directory)
        raise IntegrityError(f"the backup's tables do not take this node: {'; '.join(refused)}")


def _command(config: SiteConfig, begun: Succession, keys: NodeKeys, at: Base) -> RestoreCluster:
    node = config.node
    return RestoreCluster(
        member=Member(begun.new, node.site, node.advertise, MemberRole.VOTER),
        issuing_certificate=to_der(keys.authority.certificate),
        certificate_fingerprint=bytes.fromhex(fingerprint(keys.certificate)),
        passkey_key_id=keys.signer.key_id,
        passkey_public_key=keys.signer.public_key,
        enrol_address=node.advertise_enrol,
        server_name=keys.server_name,
        entry=at.index + 1,
        term=at.term + 1,
        epoch_id=new_request_id(),
        version_least=versions.VERSION_LEAST,
        version_most=versions.VERSION_MOST,
        replaces=begun.old,
    )


def _address(config: SiteConfig, keys: NodeKeys) -> common_pb2.NodeAddress:
    node = config.node
    return common_pb2.NodeAddress(
        node_id=keys.node_id,
        site=keys.site,
        address=node.advertise,
        server_name=keys.server_name,
        role=str(MemberRole.VOTER),
        enrol_address=node.advertise_enrol,
    )
