"""A store that is larger than its site wants lets go what others have, longest unread first, and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.base.config_blobs import BlobsConfig
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.commands import Heartbeat, RecordBlob, RecordReplicas, RecordVerification, ReplicaRef
from iceprod_p2p.ledger.commands_blobs import DropBlobs
from iceprod_p2p.ledger.outcome import Refusal, Refused
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.files import FileEntry
from iceprod_p2p.model.site import SiteCounts
from iceprod_p2p.site.trimmer import UNREAD_S, Trimmer
from iceprod_p2p.store.blobs import BlobStore
from tests.ledger_in_hand import LedgerInHand

NOW_S = int(time.time())
LARGE = 600 * 1024  # Two of them are more than a MiB.


class Node:
    """The node of madison: the ledger is `hand`, and desy wrote the files `0` to `4`, of which copies are here."""

    def __init__(self, directory: Path, sites: tuple[str, ...] = ("madison", "desy")) -> None:
        self.hand = LedgerInHand()
        self.hand.found(*sites)
        self.blobs = BlobStore(directory)
        self.clock = ManualClock(wall_ms=NOW_S * 1_000)
        self.size_mib = 1
        self.size_max_mib = 0
        self.is_old = False  # A cluster that not every node's program can read in full.
        self.meanwhile: Callable[[], object] = lambda: None
        self.hand.submit(jobs=5, shapes=(TaskShape("make"),))
        self.digests = [self.made(number) for number in range(5)]
        self.trimmer = Trimmer(
            site="madison",
            node_id="n0",
            blobs=self.blobs,
            cluster=self,
            consensus=self,  # type: ignore[arg-type]
            size_mib=lambda: self.size_mib,
            copies=lambda: 1,
            executor=ThreadPoolExecutor(1),
            clock=self.clock,
            size_max_mib=lambda: self.size_max_mib,
        )

    def made(self, number: int, *, at: str = "desy") -> str:
        content = bytes([number]) * LARGE
        digest = sha256(content).hexdigest()
        (ref,) = self.hand.claim(at)
        self.hand.start(at, ref)
        self.hand.finish(ref, at, files=(FileEntry(str(number), LARGE, digest, "permanent"),))
        self.hand.done(RecordReplicas("madison", (ReplicaRef(1, number, str(number)),)))
        self.read_at(self.stored(content), number)
        return digest

    def stored(self, content: bytes) -> Path:
        with self.blobs.writer() as writer:
            writer.write(content)
            blob = writer.commit()
        return self.blobs.path(blob.digest)

    def read_at(self, path: Path, minutes: int) -> None:
        at_s = NOW_S - UNREAD_S - 3_600 + 60 * minutes
        os.utime(path, (at_s, at_s))

    def lent(self, digest: str, site: str) -> tuple[ReplicaRef, ...]:
        return queries.lent(self.hand.kv, digest, site)

    def spare(self, digest: str, node_id: str, keep: int) -> bool:
        holders = queries.spare_holders(self.hand.kv, digest)
        return node_id not in holders[:keep] and len(holders) >= keep

    def holds(self, site: str, digest: str) -> bool:
        return site in queries.holders(self.hand.kv, digest).sites

    async def propose(self, command: Any, **_: Any) -> Any:
        if isinstance(command, DropBlobs) and self.is_old:
            return Refused(Refusal.WRONG_STATE, "DropBlobs needs ledger version 2")
        outcome = self.hand.do(command)
        self.meanwhile()
        return outcome

    def here(self) -> list[int]:
        return [number for number, digest in enumerate(self.digests) if self.blobs.has(digest)]

    def sites(self, number: int) -> tuple[str, ...]:
        return queries.holders(self.hand.kv, self.digests[number]).sites


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_the_longest_unread_copies_go_until_the_store_fits(node: Node) -> None:
    with node.blobs.open(node.digests[0]) as file:
        file.read(1)  # Read now, so it is the newest.
    await node.trimmer.step()
    assert node.here() == [0]
    assert node.sites(0) == ("desy", "madison") and node.sites(1) == ("desy",)
    node.size_mib = 0
    await node.trimmer.step()
    assert node.here() == [0], "without a limit nothing goes"


async def test_a_store_that_fits_keeps_all(node: Node) -> None:
    node.size_mib = 3
    await node.trimmer.step()
    assert node.here() == [0, 1, 2, 3, 4]


async def test_what_others_do_not_have_or_somebody_needs_here_stays(node: Node) -> None:
    node.hand.done(RecordBlob(node.digests[0], LARGE, ("n0",)))  # Also a document or software.
    node.hand.done(RecordVerification(ReplicaRef(1, 1, "1"), "desy", ""))  # The writer has lost it.
    await node.trimmer.step()
    assert node.here() == [0, 1] and node.sites(1) == ("madison",)


async def test_nothing_goes_while_the_writer_is_silent(node: Node) -> None:
    node.hand.tick(10_000_000)
    await node.trimmer.step()
    assert node.here() == [0, 1, 2, 3, 4]


async def test_own_files_stay_whoever_else_has_them(node: Node) -> None:
    own = sha256(b"\x00" * LARGE).hexdigest()
    assert queries.lent(node.hand.kv, own, "madison") and not queries.lent(node.hand.kv, own, "desy")


async def test_software_that_enough_others_hold_goes_and_the_first_holders_keep_it(tmp_path: Path) -> None:
    node = Node(tmp_path, sites=("madison", "desy", "uppsala"))
    extra = b"software" * (LARGE // 4)
    digest = sha256(extra).hexdigest()
    node.read_at(node.stored(extra), 0)
    node.size_mib = 2
    for number, site in enumerate(("madison", "desy", "uppsala")):
        node.hand.done(Heartbeat(site, f"n{number}", SiteCounts()), actor=f"node:n{number}")
    node.hand.done(RecordBlob(digest, len(extra), ("n0", "n1", "n2")))
    assert not node.spare(digest, "n0", 2) and node.spare(digest, "n2", 2) and not node.spare(digest, "n2", 3)
    node.trimmer._node_id = "n2"
    await node.trimmer.step()
    assert not node.blobs.has(digest) and queries.holders(node.hand.kv, digest).node_ids == ("n0", "n1")


async def test_copies_go_while_the_cluster_is_at_a_version_that_knows_no_dropped_blobs(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path, sites=("madison", "desy", "uppsala"))
    extra = b"software" * (LARGE // 8)
    node.read_at(node.stored(extra), -1)
    for number, site in enumerate(("madison", "desy", "uppsala")):
        node.hand.done(Heartbeat(site, f"n{number}", SiteCounts()), actor=f"node:n{number}")
    node.hand.done(RecordBlob(sha256(extra).hexdigest(), len(extra), ("n0", "n1", "n2")))
    node.trimmer._node_id, node.is_old = "n2", True
    await node.trimmer.step()
    assert node.here() == [4] and node.blobs.has(sha256(extra).hexdigest())


async def test_a_copy_that_was_read_or_written_while_the_ledger_agreed_stays(node: Node) -> None:
    written = node.blobs.path(node.digests[0])
    node.meanwhile = lambda: os.utime(written, (NOW_S, NOW_S))
    await node.trimmer.step()
    assert node.here() == [0, 4]


async def test_temporary_files_of_others_go_under_pressure_and_the_sites_own_stay(node: Node) -> None:
    """Own ones go when nobody can read them any more, which the janitor sees to."""
    node.hand.submit(jobs=1, shapes=(TaskShape("make"),))
    (ref,) = node.hand.claim("madison")
    node.hand.start("madison", ref)
    content = b"own" * LARGE
    digest = sha256(content).hexdigest()
    node.hand.finish(ref, "madison", files=(FileEntry("t", len(content), digest, "site_temp"),))
    node.read_at(node.stored(content), 0)  # The longest unread of all.
    await node.trimmer.step()
    assert node.here() == [] and node.blobs.has(digest)
    assert queries.holders(node.hand.kv, digest).sites == ("madison",)


async def test_a_store_full_of_the_sites_own_files_takes_no_new_work_until_there_is_room(node: Node) -> None:
    own = node.stored(bytes(3 * 2**20))
    node.read_at(own, 0)
    node.size_max_mib = 4
    await node.trimmer.step()
    assert node.here() == [] and not node.trimmer.is_over and node.trimmer.problems() == []
    node.size_max_mib = 2
    await node.trimmer.step()
    assert node.trimmer.is_over and own.exists()
    (problem,) = node.trimmer.problems()
    assert "3 MiB" in problem and "size_max_mib 2: no new work" in problem
    node.blobs.delete(own.name)
    await node.trimmer.step()
    assert not node.trimmer.is_over and node.trimmer.problems() == []


@pytest.mark.parametrize(
    ("size", "size_max", "trimmed"), [(0, 0, 0), (3, 0, 3), (0, 5, 5), (3, 5, 3), (5, 3, 3)]
)
def test_copies_are_let_go_from_the_smaller_of_both_bounds_on(size: int, size_max: int, trimmed: int) -> None:
    assert BlobsConfig(size_mib=size, size_max_mib=size_max).trimmed_mib == trimmed
