"""The states and events of tasks, jobs and datasets, as words.

Which event moves which state lives in `ledger/transitions.py`, and nowhere else.
"""

from __future__ import annotations

from enum import StrEnum


class TaskState(StrEnum):
    """Where one task of one job stands; the paper's QUEUEING is `claimed`."""

    WAITING = "waiting"  # A parent is unfinished.
    READY = "ready"  # Any site may claim it.
    CLAIMED = "claimed"  # A site holds it.
    QUEUED = "queued"  # The holder's grid accepted a pilot that may take it.
    PROCESSING = "processing"  # A pilot runs it; its passkey is bound.
    COPYING = "copying"  # Its outputs are on their way.
    COMPLETE = "complete"
    ERROR = "error"  # This attempt failed; it is ready again after a pause.
    FAILED = "failed"  # Its attempts are used up; a person resets it.
    SUSPENDED = "suspended"
    ABORTED = "aborted"


HELD_STATES = (TaskState.CLAIMED, TaskState.QUEUED, TaskState.PROCESSING, TaskState.COPYING)
FINAL_TASK_STATES = (TaskState.COMPLETE, TaskState.FAILED, TaskState.ABORTED)


class TaskEvent(StrEnum):
    """What can happen to a task."""

    PARENTS_DONE = "parents_done"
    CLAIM = "claim"
    QUEUE = "queue"
    START = "start"
    COPY = "copy"
    FINISH = "finish"
    FAIL = "fail"  # The payload's fault: an attempt is used up.
    EXHAUST = "exhaust"  # The payload's fault, and it was the last attempt.
    LOSE = "lose"  # The node's or site's fault, or a lease ran out.
    GIVE_BACK = "give_back"
    RETRY = "retry"  # The pause after an error is over.
    SUSPEND = "suspend"
    RESUME = "resume"
    RESET = "reset"
    ABORT = "abort"


class JobState(StrEnum):
    """A job's state, rolled up from its tasks."""

    PROCESSING = "processing"
    SUSPENDED = "suspended"
    ERRORS = "errors"
    COMPLETE = "complete"
    ABORTED = "aborted"


class DatasetState(StrEnum):
    """A dataset's state, rolled up from its jobs and what people asked for."""

    PROCESSING = "processing"
    SUSPENDED = "suspended"
    ERRORS = "errors"
    COMPLETE = "complete"
    TRUNCATED = "truncated"
    ABORTED = "aborted"
    WAITING = "waiting"  # It follows another dataset, which is not complete and goes on.


class SiteState(StrEnum):
    """What a site may do: `active` claims and runs; `draining` finishes what it holds; `banned` may do nothing."""

    ACTIVE = "active"
    DRAINING = "draining"
    BANNED = "banned"


class FailReason(StrEnum):
    """Why an attempt ended without its result; decides whose fault it was."""

    PAYLOAD = "payload"  # A module returned an error or raised.
    OUTPUT_MISSING = "output_missing"
    INPUT_CHECKSUM = "input_checksum"
    INPUT_MISSING = "input_missing"
    BAD_STEERING = "bad_steering"
    MEMORY = "memory"  # Used more than the task asked for.
    DISK = "disk"
    WALLTIME = "walltime"
    PILOT_LOST = "pilot_lost"
    EVICTED = "evicted"
    STORAGE = "storage"
    SOFTWARE = "software"  # The site could not provide the environment.
    GRID = "grid"  # The batch system failed or killed the pilot.


NODE_FAULTS = frozenset(
    {
        FailReason.PILOT_LOST,
        FailReason.EVICTED,
        FailReason.STORAGE,
        FailReason.SOFTWARE,
        FailReason.GRID,
        FailReason.INPUT_MISSING,
    }
)
RESOURCE_FAULTS = frozenset({FailReason.MEMORY, FailReason.DISK, FailReason.WALLTIME})
