"""Versions of the ledger: which commands, fields and rules every member of a cluster knows.

A cluster is at one version, which stands in its tables and only grows, by `RaiseVersion`.  A program reads versions
`VERSION_LEAST` to `VERSION_MOST`, and each node announces that range.  Three gates keep an old program from
meeting what it cannot read:

- nothing newer than the cluster's version is proposed (`needed`, asked by `raft.node`);
- what is newer all the same is read exactly as an old program reads it (`codec.decode_entry`), so that
  programs of both versions apply the same;
- the version is raised only to what every node has announced, a newcomer that cannot read it is not admitted, and a
  program that meets tables of a version it cannot read stops by name (`check`).

So a cluster is upgraded node by node, and each node may go back, until somebody raises the version.

Whoever adds a command after a release gives it the next version here; likewise a field at the end of a command, or of
a record: in an older cluster its rows are written without it, as old programs write them, or the members' digests of
one state would differ.
A rule that changes asks `Tables.version`.  New words of an enumeration, and fields inside of nested records,
cannot be cut off for old programs: they come with a new command, or a new field, that only new programs read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from iceprod_p2p.base.errors import IceProdError

_Of = TypeVar("_Of", int, str)

VERSION_LEAST: Final = 1  # The oldest version of a cluster that this program can take part in.
VERSION_MOST: Final = 3  # The newest one.

# Version 2: authorities that take turns, people who leave, datasets that change hands; software by name, blobs that are
# counted and forgotten, datasets that follow others, copies at URLs that are read again, temporary files that served.
# From here on a dataset names the blobs that it needs, so that others can be forgotten.
NAMED_BLOBS: Final = 2
SPENT_FILES: Final = 2  # From here on temporary files that have served are let go.
# Version 3: nodes tell which authorities they use, administrators end those that nobody uses; retired roots are
# remembered by name alone, administrators and those who were shut out are counted.
AUTHORITIES_TOLD: Final = 3

# The number of a command -> the version that brought it.  Those not named here are as old as the ledger.
COMMANDS_SINCE: Final[dict[int, int]] = {
    15: 2,  # AddAuthority
    16: 2,  # RetireAuthority
    17: 2,  # AskRenewal
    18: 2,  # RemovePerson
    19: 3,  # EndAuthority
    63: 2,  # DropBlobs
    64: 2,  # ForgetBlobs
    70: 2,  # PublishSoftware
    71: 2,  # RetireSoftware
}

# The number of a command and the place of a field (1 is the first) -> the version that brought the field.
FIELDS_SINCE: Final[dict[tuple[int, int], int]] = {
    (6, 5): 3,  # RenewNode.authority
    (6, 6): 3,  # RenewNode.people
    (20, 15): 2,  # SubmitDataset.closing
    (20, 16): 2,  # SubmitDataset.blobs
    (24, 8): 2,  # SetDataset.owner
    (24, 9): 2,  # SetDataset.group
    (60, 4): 2,  # RecordReplicas.spent
    (61, 4): 2,  # RecordVerification.url
}

# A record's kind and the place of a field in it (1 is the first) -> the version that brought the field.
ROW_FIELDS_SINCE: Final[dict[tuple[str, int], int]] = {
    ("Cluster", 17): 3,  # administrators
    ("Cluster", 18): 3,  # shut_out
    ("Cluster", 19): 3,  # refusals
}


class ProgramTooOld(IceProdError):
    """This program cannot take part in a cluster of this version; its node's data are whole."""


def check(version: int) -> None:
    """Raise ProgramTooOld unless this program can read a cluster of this version."""
    if not VERSION_LEAST <= version <= VERSION_MOST:
        raise ProgramTooOld(
            f"the cluster's ledger is at version {version}, but this program reads {own_range()}",
            remedy="install the release that the other nodes run (`iceprod cluster status` names it) and start again",
        )


def own_range() -> str:
    """Return the versions that this program reads, in words."""
    return in_words(VERSION_LEAST, VERSION_MOST)


def in_words(least: int, most: int) -> str:
    """Return a range of versions in words."""
    return f"version {least}" if least == most else f"versions {least} to {most}"


def number_of(command: Any) -> int:
    """Return the number of a command."""
    number = command.__struct_config__.tag
    assert isinstance(number, int), "every command has a number"
    return number


def since(number: int) -> int:
    """Return the version that brought the command with this number."""
    return COMMANDS_SINCE.get(number, 1)


def fields_known(number: int, version: int) -> int | None:
    """Return how many fields of a command a program of `version` knows; None: all."""
    return _known(FIELDS_SINCE, number, version)


def row_fields_known(kind: str, version: int) -> int | None:
    """Return how many fields of a record, by the name of its class, a program of `version` writes; None: all."""
    return _known(ROW_FIELDS_SINCE, kind, version)


def _known(since: Mapping[tuple[_Of, int], int], of: _Of, version: int) -> int | None:
    places = [place for (one, place), brought in since.items() if one == of and brought > version]
    return min(places) - 1 if places else None


def needed(command: Any) -> int:
    """Return the version at which a cluster must be for `command` as it is, its fields' values included."""
    number = number_of(command)
    version = since(number)
    for (of, place), brought in FIELDS_SINCE.items():
        if of == number and not _is_default(command, place):
            version = max(version, brought)
    return version


def _is_default(command: Any, place: int) -> bool:
    kind = type(command)
    fields, defaults = kind.__struct_fields__, kind.__struct_defaults__
    at = place - 1 - (len(fields) - len(defaults))
    assert at >= 0, f"field {place} of {kind.__name__} came later, so it must have a default"
    return bool(getattr(command, fields[place - 1]) == defaults[at])
