"""A node says which versions of the ledger its program reads, whenever the ledger has it otherwise."""

from __future__ import annotations

from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger import versions
from iceprod_p2p.ledger.commands import AnnounceVersions
from iceprod_p2p.ledger.records import NodeRecord
from iceprod_p2p.site.consensus import Consensus, applied

log = get_logger("releases")


async def announce_versions(consensus: Consensus, record: NodeRecord) -> None:
    """Announce this program's versions if `record`, this node's own in the ledger, has others.

    Unavailable when there is no quorum in time; whoever calls it comes again.
    """
    own = (versions.VERSION_LEAST, versions.VERSION_MOST)
    if (record.version_least, record.version_most) == own:
        return
    node_id = record.member.node_id
    applied(await consensus.propose(AnnounceVersions(node_id, *own), actor=f"node:{node_id}"))
    log.info("versions announced", node=node_id, least=own[0], most=own[1])
