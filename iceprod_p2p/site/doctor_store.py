"""What `iceprod-node doctor` finds in a node's store: damage, an old copy, other modes, another state than the rest."""

from __future__ import annotations

import stat
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.raft.founding import check_state
from iceprod_p2p.site.findings import Finding, Verdict
from iceprod_p2p.site.founding import RAFT_DIRECTORY
from iceprod_p2p.site.node_keys import NodeKeys, has_keys
from iceprod_p2p.site.process import running_pid
from iceprod_p2p.site.succession import pending
from iceprod_p2p.store.environment import look_into
from iceprod_p2p.store.place import is_placed
from iceprod_p2p.store.verify import Verified, verify, verify_store
from iceprod_p2p.wire.calls import call_blocking
from iceprod_p2p.wire.channel import blocking_channel
from iceprod_p2p.wire.pb import common_pb2, peer_pb2, peer_pb2_grpc

REJOIN: Final = "take part again under a new node id: iceprod-node rejoin"
ASK_S: Final = 1.5
LOOKS: Final = 20  # Nodes apply the same entry a moment apart: look until some are at one index.
LIVE_LOOKS: Final = 50  # A busy node may write two states while one is opened.
PARTS: Final = ("raft", "blobs", "pilots", "grid")


def look_at_store(config: SiteConfig) -> Iterator[Finding]:
    """Read the whole store, running or not; nothing is changed."""
    node = config.node
    root = node.data_dir / RAFT_DIRECTORY
    begun = pending(node.data_dir)
    if begun is not None:
        yield Finding(
            Verdict.BAD,
            "store",
            f"node {begun.old} is being replaced by {begun.new}, and that was interrupted",
            f"go on with it: iceprod-node {begun.command}",
        )
        return
    if not root.is_dir() and not has_keys(node.data_dir):
        return  # It belongs to no cluster, which is said elsewhere.
    if not root.is_dir():
        yield Finding(Verdict.BAD, "store", f"there is no {root}", REJOIN)
        return
    is_live = running_pid(config) is not None
    verified = _verify_live(root) if is_live else verify_store(root)
    for fault in verified.faults:
        yield Finding(Verdict.BAD, "store", fault, REJOIN)
    if verified.faults:
        return
    with look_into(root, is_live=is_live) as (snapshot, path, _):
        is_placed(snapshot.meta, path)
        entries = check_state(snapshot, node.id)
    words = f"{verified.records} records on {verified.pages} pages and {entries} entries of the log are whole"
    yield Finding(Verdict.GOOD, "store", words)


def _verify_live(root: Path) -> Verified:
    """Verify the state that a reader holds while the node writes on."""
    verified = Verified()
    for _ in range(LIVE_LOOKS):
        with look_into(root, is_live=True) as (_, path, number):
            verified = verify(path, transaction=number)
        if verified.pages:
            break
    return verified


def look_at_modes(data_dir: Path) -> Iterator[Finding]:
    """Nobody but the owner may write any part of the data directory."""
    for part in (data_dir / name for name in PARTS):
        for entry in (part, *(sorted(part.iterdir()) if part.is_dir() else ())):
            mode = stat.S_IMODE(entry.lstat().st_mode) if entry.exists() else 0
            if mode & 0o022 and not entry.is_symlink():
                words = f"{entry} has mode {mode:04o}, so others may change it"
                yield Finding(Verdict.BAD, "files", words, f"chmod go-w {entry}")


def common_digests(nodes: Sequence[common_pb2.NodeAddress], keys: NodeKeys) -> Finding:
    """Say whether the nodes that answer have the same state at an index at which most of them were seen."""
    if len(nodes) < 2:
        return Finding(Verdict.GOOD, "digests", "there is no other node to compare with")
    seen: dict[int, dict[str, str]] = defaultdict(dict)
    for _ in range(LOOKS):
        for node in nodes:
            row = _ask(node, keys)
            if row is not None:
                seen[row[0]][node.node_id] = row[1]
        if any(len(digests) == len(nodes) for digests in seen.values()):
            break
        time.sleep(0.05)
    for index, digests in sorted(seen.items()):
        if len(set(digests.values())) > 1:
            return _differing(index, digests, keys.node_id)
    index, digests = max(seen.items(), key=lambda item: (len(item[1]), item[0]), default=(0, {}))
    if len(digests) < 2:
        return Finding(Verdict.WARNING, "digests", "no two nodes were seen at one index", "look again")
    return Finding(Verdict.GOOD, "digests", f"{len(digests)} nodes have the same state at entry {index}")


def _differing(index: int, digests: dict[str, str], own: str) -> Finding:
    usual, count = Counter(digests.values()).most_common(1)[0]
    odd = sorted(name for name, digest in digests.items() if digest != usual)
    if 2 * count <= len(digests):
        words = f"at entry {index} no majority has one state: {digests}"
        return Finding(Verdict.BAD, "digests", words, "stop writing and ask for help")
    words = f"at entry {index} {', '.join(odd)} differs from the {count} others"
    return Finding(
        Verdict.BAD, "digests", words, REJOIN if own in odd else f"at {odd[0]}: iceprod-node rejoin"
    )


def _ask(node: common_pb2.NodeAddress, keys: NodeKeys) -> tuple[int, str] | None:
    channel = blocking_channel(node.address, keys.tls, server_name=node.server_name)
    try:
        stub = peer_pb2_grpc.PeerStub(channel)
        row = call_blocking(stub.GetMember, peer_pb2.GetMemberRequest(), timeout_s=ASK_S, peer=node.node_id)
        return row.digest_index, row.digest
    except IceProdError:
        return None
    finally:
        channel.close()
