"""Which event moves which state, as tables: the only place where a state is chosen.

Code names events.  A pair that is not in a table is refused, and nothing changes.  `docs/states.md` is drawn
from here.

Two events may follow each other at once: RESUME and RESET lead to `waiting`, and PARENTS_DONE from there to
`ready` when no parent is unfinished.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from iceprod_p2p.ledger.commands import Verb
from iceprod_p2p.model.states import DatasetState, JobState, TaskState
from iceprod_p2p.model.states import TaskEvent as E
from iceprod_p2p.model.states import TaskState as S

TASK: Final[Mapping[tuple[TaskState, E], TaskState]] = {
    (S.WAITING, E.PARENTS_DONE): S.READY,
    (S.READY, E.CLAIM): S.CLAIMED,
    (S.CLAIMED, E.QUEUE): S.QUEUED,
    (S.CLAIMED, E.START): S.PROCESSING,
    (S.QUEUED, E.START): S.PROCESSING,
    (S.PROCESSING, E.COPY): S.COPYING,
    (S.PROCESSING, E.FINISH): S.COMPLETE,  # A task without outputs has nothing to copy.
    (S.COPYING, E.FINISH): S.COMPLETE,
    # What goes wrong while a site holds it.
    **{(held, E.FAIL): S.ERROR for held in (S.CLAIMED, S.QUEUED, S.PROCESSING, S.COPYING)},
    **{(held, E.EXHAUST): S.FAILED for held in (S.CLAIMED, S.QUEUED, S.PROCESSING, S.COPYING)},
    **{(held, E.LOSE): S.READY for held in (S.CLAIMED, S.QUEUED, S.PROCESSING, S.COPYING)},
    **{(held, E.GIVE_BACK): S.READY for held in (S.CLAIMED, S.QUEUED, S.PROCESSING, S.COPYING)},
    (S.ERROR, E.RETRY): S.READY,
    # What people ask for.
    **{
        (state, E.SUSPEND): S.SUSPENDED
        for state in (S.WAITING, S.READY, S.CLAIMED, S.QUEUED, S.PROCESSING, S.COPYING, S.ERROR)
    },
    (S.SUSPENDED, E.RESUME): S.WAITING,
    **{(state, E.RESET): S.WAITING for state in TaskState},
    **{(state, E.ABORT): S.ABORTED for state in TaskState if state not in (S.COMPLETE, S.ABORTED)},
}

# A job rolls up from its tasks: what holds for any of them, the gravest first; all complete is the rest.
JOB_ABORTED: Final = 8
JOB_FAILED: Final = 4
JOB_SUSPENDED: Final = 2
JOB_ACTIVE: Final = 1


def job_state(kinds: int) -> JobState:
    """Return the state of a job whose tasks are of these kinds (JOB_* bits, 0: all are complete)."""
    if kinds & JOB_ABORTED:
        return JobState.ABORTED
    if kinds & JOB_FAILED:
        return JobState.ERRORS
    if kinds & JOB_SUSPENDED:
        return JobState.SUSPENDED
    return JobState.PROCESSING if kinds & JOB_ACTIVE else JobState.COMPLETE


JOB: Final[Mapping[int, JobState]] = {kinds: job_state(kinds) for kinds in range(16)}

# What a person may ask of a dataset in each state; the new state follows from its jobs (`rules.datasets.roll_up`).
DATASET_VERBS: Final[Mapping[DatasetState, frozenset[Verb]]] = {
    DatasetState.PROCESSING: frozenset(
        {Verb.SUSPEND, Verb.RESUME, Verb.RESET, Verb.RESET_FAILED, Verb.ABORT, Verb.TRUNCATE}
    ),
    DatasetState.SUSPENDED: frozenset(
        {Verb.RESUME, Verb.RESET, Verb.RESET_FAILED, Verb.ABORT, Verb.TRUNCATE}
    ),
    DatasetState.ERRORS: frozenset(
        {Verb.SUSPEND, Verb.RESUME, Verb.RESET, Verb.RESET_FAILED, Verb.ABORT, Verb.TRUNCATE}
    ),
    DatasetState.COMPLETE: frozenset({Verb.RESET, Verb.DELETE}),
    DatasetState.TRUNCATED: frozenset({Verb.RESET, Verb.DELETE}),
    DatasetState.ABORTED: frozenset({Verb.RESET, Verb.DELETE}),
    DatasetState.WAITING: frozenset(),
}
