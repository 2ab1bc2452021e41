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
