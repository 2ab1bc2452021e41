"""Inputs by a pattern of their names: every file of a job, or of all jobs of the dataset that a task follows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Final

from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.model.states import FailReason
from iceprod_p2p.wire.pb import common_pb2, pilot_pb2
from iceprod_pilot.attempt import Attempt, TaskFailure
from iceprod_pilot.link import patiently
from iceprod_pilot.source import Source

FOUND_MAX: Final = 100_000  # One task that reads more should be several.


def found_files(source: Source, attempt: Attempt, pattern: str) -> Iterator[tuple[str, common_pb2.FileEntry]]:
    """Yield where each file belongs below the directory of the pattern, and what was recorded of it, in order.

    Files of many jobs go into a directory for each job, named by its number in eight digits.  TaskFailure when they
    cannot be looked up or are too many.
    """
    order = attempt.order
    request = pilot_pb2.FindFilesRequest(dataset=order.ref.dataset, job=order.ref.job, pattern=pattern)
    count = 0
    while True:
        try:
            reply = patiently(
                partial(source.find_files, request), stop=attempt.cancel.wait, what="look-up of inputs"
            )
        except IceProdError as failure:
            attempt.cancel.check()
            raise TaskFailure(FailReason.STORAGE, f"inputs could not be looked up: {failure}") from failure
        for found in reply.files:
            count += 1
            if count > FOUND_MAX:
                raise TaskFailure(
                    FailReason.BAD_STEERING, f"{pattern!r} finds more than {FOUND_MAX} files: split the task"
                )
            where = PurePosixPath(found.file.name)
            if order.follows:
                where = PurePosixPath("dataset" if found.job < 0 else f"{found.job:08d}") / where
            yield str(where), found.file
        if not reply.more:
            return
        request.more, request.after_job, request.after_name = True, reply.next_job, reply.next_name
