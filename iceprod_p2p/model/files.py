"""Records of files that tasks wrote: immutable once their task's `finished` was accepted."""

from __future__ import annotations

import msgspec

from iceprod_p2p.model.bounds import Amount, FileName, HexDigest, Line, Word

WHOLE_DATASET = -1  # The `job` of a file that belongs to the dataset, not to one of its jobs.


class FileEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One output of one task attempt.

    `name` is the logical name inside its job (or dataset); `sha256` is 64 hexadecimal digits and addresses the
    content in every site's store; `checksums` holds others by algorithm name where the storage wants them; `urls`
    are copies outside the built-in stores.
    """

    name: FileName
    size_bytes: Amount
    sha256: HexDigest
    kind: Word = "job_temp"  # permanent | job_temp | dataset_temp | site_temp | log
    checksums: dict[Word, Word] = {}
    urls: tuple[Line, ...] = ()


def is_pattern(name: str) -> bool:
    """Return whether a logical name stands for all files whose names match it."""
    return "*" in name or "?" in name


def matches(pattern: str, name: str) -> bool:
    """Return whether a logical name matches: ``*`` is any text, ``?`` any character, neither a slash.

    Takes time proportional to both lengths multiplied, whatever they hold.
    """
    wanted, found = pattern.split("/"), name.split("/")
    return len(wanted) == len(found) and all(map(_part_matches, wanted, found))


def _part_matches(pattern: str, text: str) -> bool:
    at = here = mark = 0
    star = -1
    while here < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, mark = at, here
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", text[here]):
            at, here = at + 1, here + 1
        elif star >= 0:  # Let the last star take one character more.
            mark += 1
            at, here = star + 1, mark
        else:
            return False
    return not pattern[at:].strip("*")
