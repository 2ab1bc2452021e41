"""What the janitor may take away: blobs that no record names, and what ended pilots left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

ORPHAN_AGE_S = (
    86_400  # An upload is recorded within seconds; a day covers every stalled submission and report.
)
PILOT_KEPT_S = 3_600  # Logs of an ended pilot stay for an operator to read.
LOST_PILOT_KEPT_S = 86_400  # A pilot that nobody can account for may still report from its directory.


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """One blob of this node's store and how long nobody has touched it."""

    sha256: str
    size_bytes: int
    idle_s: float


class Ending(StrEnum):
    """How a pilot's grid job stands."""

    LIVE = "live"
    ENDED = "ended"
    UNKNOWN = "unknown"  # It vanished: nobody can say.


@dataclass(frozen=True, slots=True)
class PilotDirectory:
    """What one pilot's directory holds on: `ended_s` ago its grid job ended (0 while live)."""

    pilot: str
    ending: Ending
    ended_s: float


def orphan_blobs(blobs: Iterable[StoredBlob], recorded: Callable[[str], bool]) -> list[str]:
    """Return the digests of old blobs that no ledger record names; `recorded` is asked only about old
    ones.
    """
    return [blob.sha256 for blob in blobs if blob.idle_s > ORPHAN_AGE_S and not recorded(blob.sha256)]


@dataclass(frozen=True, slots=True)
class Use:
    """One file record that names some content: where it stands, and whether nobody can read it any more."""

    dataset: int
    job: int
    name: str
    spent: bool


@dataclass(frozen=True, slots=True)
class Content:
    """Some content of this node's store: how long nobody touched it, and who needs it.

    `kept`: it is a blob of a dataset or of software.  `uses` are all file records that name it.
    """

    sha256: str
    idle_s: float
    kept: bool
    uses: tuple[Use, ...]


def spent_content(found: Iterable[Content], *, grace_s: float) -> list[Content]:
    """Return content that was recorded for temporary files alone, all of which have served, and is not new.

    What no record names is for `orphan_blobs`.
    """
    return [
        content
        for content in found
        if content.idle_s >= grace_s
        and not content.kept
        and content.uses
        and all(use.spent for use in content.uses)
    ]


def cache_victims(blobs: Iterable[StoredBlob], size_bytes_max: int) -> list[str]:
    """Return what to drop from a cache so that it fits `size_bytes_max`: the longest untouched first."""
    newest_first = sorted(blobs, key=lambda blob: (blob.idle_s, blob.sha256))
    kept_bytes = 0
    victims = []
    for blob in newest_first:
        kept_bytes += blob.size_bytes
        if kept_bytes > size_bytes_max:
            victims.append(blob.sha256)
    return victims


def old_pilot_directories(directories: Iterable[PilotDirectory]) -> list[str]:
    """Return the pilots whose directories have served."""
    kept_s = {Ending.ENDED: PILOT_KEPT_S, Ending.UNKNOWN: LOST_PILOT_KEPT_S}
    return [
        entry.pilot
        for entry in directories
        if entry.ending is not Ending.LIVE and entry.ended_s > kept_s[entry.ending]
    ]
