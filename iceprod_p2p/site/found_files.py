"""Files of a dataset by a pattern of their names: what a task that merges or catalogues reads."""

from __future__ import annotations

from typing import Final

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.keys import NAME_BYTES_MAX
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.ledger.rows import FileRow
from iceprod_p2p.model.files import WHOLE_DATASET, FileEntry, matches
from iceprod_p2p.wire.pb import pilot_pb2
from iceprod_p2p.wire.translate import file_to

PAGE: Final = 500
JOB_MAX: Final = 2**32 - 2
LOOK_MAX: Final = 4_000  # File records that one call reads: it takes a few tens of milliseconds.


def find_files(kv: KeyValue, request: pilot_pb2.FindFilesRequest) -> pilot_pb2.FindFilesReply:
    """Return a page of matching files by (job, name); none when there is no such dataset.

    Raises BadInput for a pattern that is longer than any name.
    """
    if len(request.pattern.encode()) > NAME_BYTES_MAX:
        raise BadInput(f"a pattern of file names has at most {NAME_BYTES_MAX} bytes")
    if not all(WHOLE_DATASET <= job < JOB_MAX for job in (request.job, request.after_job)):
        raise BadInput(f"there is no job {request.job} after {request.after_job}")
    detail = queries.dataset(kv, request.dataset)
    if detail is None:
        return pilot_pb2.FindFilesReply()
    follows = detail.row.follows
    number, job = (follows, None) if follows else (request.dataset, request.job)
    after = (request.after_job, request.after_name) if request.more else None
    reply, looked = pilot_pb2.FindFilesReply(), 0
    while looked < LOOK_MAX and len(reply.files) < PAGE:
        page = queries.files(kv, number, job, after=after, limit=PAGE)
        for row in page.rows:
            looked += 1
            after = (row.job, row.name)
            if matches(request.pattern, row.name):
                reply.files.add(dataset=number, job=row.job, file=file_to(_entry(row)))
        if page.next_after is None:
            return reply
        after = page.next_after
    reply.more = True
    reply.next_job, reply.next_name = after or (0, "")
    return reply


def _entry(row: FileRow) -> FileEntry:
    return FileEntry(row.name, row.size_bytes, row.sha256, row.kind, dict(row.checksums), row.urls)
