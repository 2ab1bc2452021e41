"""Backups: the replicated tables as one file, from a running cluster or from what is left of a node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import iceprod_p2p
from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.base.errors import ConfigError, IceProdError
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.apply import apply
from iceprod_p2p.raft.backup import apply_rest, position
from iceprod_p2p.raft.journal import Base
from iceprod_p2p.raft.node import RaftNode
from iceprod_p2p.raft.ports import KeyValue
from iceprod_p2p.security.certificates import certificate_from_der, fingerprint
from iceprod_p2p.site.founding import RAFT_DIRECTORY
from iceprod_p2p.store.backup_file import BackupHeader, BackupNode, new_backup, write_backup
from iceprod_p2p.store.environment import Environment
from iceprod_p2p.store.verify import verify_store

TABLES_END: Final = b"\xff" * 512
log = get_logger("backup")


class Backups:
    """Makes backups of a running node's tables; used on the event loop only."""

    def __init__(
        self, *, raft: RaftNode, environment: Environment, node_id: Callable[[], str], clock: Clock
    ) -> None:
        self._raft = raft
        self._environment = environment
        self._node_id = node_id
        self._clock = clock

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield a backup file that holds everything acknowledged before the call.

        Unavailable without a quorum.  The tables are copied beside the store first, so the cluster works on.
        """
        await self._raft.barrier()
        copy = await asyncio.to_thread(self._environment.copy)
        try:
            with copy.read() as snapshot:
                header = header_of(
                    snapshot.ledger, position(snapshot), made_by=self._node_id(), clock=self._clock
                )
                pieces = write_backup(header, snapshot.ledger.scan(b"\x00", TABLES_END))
                while piece := await asyncio.to_thread(next, pieces, b""):
                    yield piece
            log.info("backup made", index=header.index)
        finally:
            await asyncio.to_thread(copy.close)


def header_of(kv: KeyValue, at: Base, *, made_by: str, clock: Clock) -> BackupHeader:
    """Return what a backup of these tables says of itself."""
    settings, root = queries.settings(kv), queries.root_certificate(kv)
    if settings is None or root is None:
        raise IceProdError("the tables hold no cluster, so there is nothing to back up")
    nodes = tuple(
        BackupNode(
            row.member.node_id,
            row.member.site,
            str(row.member.role),
            row.member.address,
            row.enrol_address,
            row.server_name,
        )
        for row in queries.nodes(kv)
    )
    return BackupHeader(
        cluster=settings.cluster,
        epoch=settings.epoch,
        ledger_version=queries.version(kv),
        root_fingerprint=fingerprint(certificate_from_der(root)),
        index=at.index,
        term=at.term,
        log_digest=at.digest.hex(),
        ledger_time_ms=queries.ledger_time_ms(kv),
        made_ms=clock.wall_ms(),
        made_by=made_by,
        program=iceprod_p2p.__version__,
        nodes=nodes,
    )


def backup_of_stopped(config: SiteConfig, path: Path, clock: Clock) -> BackupHeader:
    """Write a backup of what a stopped node has, the rest of its log included; StoreLocked while it runs.

    The node's own directory is read and left as it is, even if it may not vote any more.
    """
    node = config.node
    if not (node.data_dir / RAFT_DIRECTORY).is_dir():
        raise ConfigError(f"there is nothing of a cluster in {node.data_dir}")
    verify_store(node.data_dir / RAFT_DIRECTORY).raise_first(node.data_dir / RAFT_DIRECTORY)
    store = Environment(node.data_dir / RAFT_DIRECTORY, may_be_copy=True)
    try:
        transaction = store.write()
        try:
            at = apply_rest(transaction, apply=apply)
            header = header_of(transaction.ledger, at, made_by=node.id, clock=clock)
            with new_backup(path) as file:
                for piece in write_backup(header, transaction.ledger.scan(b"\x00", TABLES_END)):
                    file.write(piece)
        finally:
            transaction.abort()
    finally:
        store.close()
    return header
