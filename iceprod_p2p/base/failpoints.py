"""Failpoints: named places around durable steps where a test can end, stop or fail the process.

Off unless the environment variable ``ICEPROD_FAILPOINTS`` is set when the process starts; then it names what
happens where, separated by commas:

    raft.commit.after=kill           the process ends at once, as by SIGKILL
    blob.rename.before=kill:3        at the third pass
    raft.commit.before=error         OSError(EIO), as from a bad disk
    raft.tick.begin=stop             SIGSTOP

Every name in use is listed in `NAMES` with what it stands before or after, and in docs/reliability.md; an unknown
name in the variable is refused at import.  A name costs one look into an empty dictionary when nothing is set.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import Final

from iceprod_p2p.base.errors import ConfigError

VARIABLE: Final = "ICEPROD_FAILPOINTS"
ACTIONS: Final = frozenset({"kill", "stop", "error"})
NAMES: Final = {
    "raft.tick.begin": "a tick has its transaction, nothing is done yet",
    "raft.append.before": "a follower is about to add a leader's entries to its log",
    "raft.append.after": "they are in the transaction, not committed",
    "raft.truncate.before": "a follower is about to drop entries that conflict with the leader's",
    "raft.truncate.after": "they are dropped in the transaction, not committed",
    "raft.vote.after": "a vote is in the transaction, not committed",
    "raft.apply.before": "an entry is about to be applied",
    "raft.apply.after": "it is applied in the transaction, not committed",
    "raft.members.after": "a change of members was adopted, not committed",
    "raft.compact.after": "old entries are dropped in the transaction, not committed",
    "raft.commit.before": "everything of a tick is in its transaction",
    "raft.commit.after": "it is on the disk; votes, answers and results have not left",
    "raft.release.after": "votes and answers have left, results have not been handed out",
    "raft.snapshot.copy.before": "a leader is about to copy its store for a snapshot",
    "raft.snapshot.copy.after": "the copy is made, not offered",
    "raft.snapshot.page.after": "a follower has stored one page of a snapshot beside its own tables",
    "raft.snapshot.install.before": "a whole, checked snapshot is about to be completed with the own log",
    "raft.snapshot.swap.before": "it is complete, not yet the store in use",
    "raft.snapshot.swap.after": "it is the store in use, nobody was told",
    "raft.create.before": "a founder's or joiner's first transaction is written, not committed",
    "raft.create.after": "it is on the disk, nothing else of the founding or joining is",
    "store.flush.before": "a commit is written to the write-ahead log, not flushed",
    "store.checkpoint.before": "a turn of the write-ahead log is over, its commits are not in the pages",
    "store.checkpoint.after": "they are in the pages, durably; readers still use the layer in memory",
    "store.current.before": "the new generation is synced, CURRENT names the old one",
    "store.rename.before": "the new CURRENT is synced beside the old one",
    "store.rename.after": "it has the old one's place, the directory is not synced",
    "store.current.after": "CURRENT names the new generation, the old one is still there",
    "blob.sync.before": "a blob's bytes are written, not synced",
    "blob.rename.before": "they are synced, the blob has no name yet",
    "blob.rename.after": "it has its name, its directories are not synced",
    "blob.sync.after": "the blob is durable, nobody was told",
    "blob.delete.before": "a blob that no record names is about to be removed",
    "file.rename.before": "a key, certificate or record is synced beside the old one",
    "file.rename.after": "it has the old one's place, the directory is not synced",
    "issued.note.before": "a person's certificate is issued, not noted",
    "issued.note.after": "it is noted, not handed out",
    "node.found.before": "a founder's keys are made, its first entry is not written",
    "node.found.after": "the first entry is on the disk, the keys are not",
    "node.join.before": "the cluster has admitted the node, its store is not prepared",
    "node.join.after": "the store is prepared, the certificate is not written",
    "node.keys.before": "everything of a new node is written but its own certificate",
    "node.keys.after": "that is written too, nobody was told",
    "enrol.join.before": "an invitation is good, the ledger was not asked",
    "enrol.join.after": "the ledger has admitted the node, it was not told",
    "enrol.pilot.before": "a pilot's secret is good, its use is not noted",
    "enrol.pilot.after": "it is noted, the pilot has no certificate",
    "submit.propose.before": "a document is on enough nodes, there is no dataset",
    "submit.propose.after": "the dataset is in the ledger, its submitter was not told",
    "volunteer.claim.after": "the ledger has granted a claim, the site's stock does not know",
    "keeper.note.before": "a pilot's secret and settings are written, its grid job is not noted",
    "keeper.submit.before": "grid jobs are noted, the batch system was not asked",
    "keeper.submit.after": "the batch system has them, their ids are not noted",
    "keeper.note.after": "their ids are noted",
    "keeper.find.before": "a noted grid job was found by its tag, its id is not noted",
    "keeper.remove.before": "the batch system is about to be told to remove grid jobs",
    "keeper.remove.after": "it was told, their ends are not noted",
    "keeper.end.before": "a grid job has ended, this is not noted",
    "keeper.end.after": "it is noted, what the pilot ran is not looked after",
    "keeper.forget.before": "ends are noted, the batch system still remembers the grid jobs",
    "lost.settle.before": "tasks of a lost pilot are reported, this is not noted",
    "local.add.before": "the local grid has a request on disk, it is no grid job yet",
    "local.add.after": "it is a grid job, the keeper was not told",
    "pilot.start.before": "tasks are signed for a pilot, the ledger was not asked",
    "pilot.start.after": "the ledger has them started, the pilot was not told",
    "pilot.report.before": "a report is good and its files are here, the ledger was not asked",
    "pilot.report.after": "the ledger has it, the pilot was not told",
    "node.rejoin.before": "the next node's keys and store are made, nobody was asked",
    "node.rejoin.admitted": "the cluster has admitted the next node, nothing is in its place",
    "node.restore.before": "a backup's tables are written, no node owns them yet",
    "backup.rename.before": "a backup is written and read again, it has no name yet",
    "node.succession.raft": "the old store is set aside, the new one is not in its place",
    "node.succession.keys": "the store is in its place, the keys are not",
    "node.turn.between": "a renewed certificate is in its place, its key is still named the next one",
    "node.succession.config": "store and keys are in their places, site.toml names the old node",
}
"""Name -> where it stands."""


class _Armed:
    """One failpoint that is on."""

    def __init__(self, action: str, passes: int) -> None:
        self.action = action
        self.passes = passes


def parse(text: str) -> dict[str, _Armed]:
    """Read the variable; ConfigError names what is wrong."""
    armed = {}
    for part in filter(None, (word.strip() for word in text.split(","))):
        name, _, rest = part.partition("=")
        action, _, passes = rest.partition(":")
        if action not in ACTIONS or (passes and not (passes.isdigit() and int(passes))):
            raise ConfigError(
                f"{VARIABLE} says {part!r}", remedy=f"NAME=ACTION or NAME=ACTION:PASSES, {sorted(ACTIONS)}"
            )
        if name not in NAMES:
            raise ConfigError(
                f"{VARIABLE} names {name!r}, which is no failpoint", remedy=f"one of {sorted(NAMES)}"
            )
        armed[name] = _Armed(action, int(passes or 1))
    return armed


_armed: Final = parse(
    os.environ.pop(VARIABLE, "")
)  # For this process alone: those it starts do not inherit it.


def passing(name: str) -> None:
    """Pass a failpoint: nothing happens, unless this name is on."""
    if _armed and name in _armed:
        _act(name, _armed[name])


def _act(name: str, point: _Armed) -> None:
    point.passes -= 1
    if point.passes:
        return
    os.write(2, f"failpoint {name}: {point.action}\n".encode())
    match point.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()  # The signal is on its way; nothing more of this thread may run.
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case _:
            raise OSError(errno.EIO, f"failpoint {name}")
