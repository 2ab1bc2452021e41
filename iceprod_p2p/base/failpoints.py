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
    "store.current.before": "the new generation is synced, CURRENT names the old one",
    "store.current.after": "CURRENT names the new generation, the old one is still there",
    "node.found.before": "a founder's keys are made, its first entry is not written",
    "node.found.after": "the first entry is on the disk, the keys are not",
    "node.join.before": "the cluster has admitted the node, its store is not prepared",
    "node.join.after": "the store is prepared, the certificate is not written",
}
"""Name -> where it stands.  Other parts add theirs with `declare`."""


class _Armed:
    """One failpoint that is on."""

    def __init__(self, action: str, passes: int) -> None:
        self.action = action
        self.passes = passes


def declare(name: str, where: str) -> None:
    """Add a name, at import of the part that passes it; AssertionError when it is taken."""
    assert NAMES.setdefault(name, where) == where, f"failpoint {name} is declared twice"


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
        armed[name] = _Armed(action, int(passes or 1))
    return armed


_armed: Final = parse(os.environ.get(VARIABLE, ""))


def passing(name: str) -> None:
    """Pass a failpoint: nothing happens, unless this name is on."""
    if _armed and name in _armed:
        _act(name, _armed[name])


def _act(name: str, point: _Armed) -> None:
    assert name in NAMES, f"failpoint {name} was never declared"
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
