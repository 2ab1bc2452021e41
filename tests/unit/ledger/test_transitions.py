"""The transition tables, pair by pair, against what the rules really do."""

from __future__ import annotations

import pytest

from iceprod_p2p.ledger import commands as c
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.outcome import Applied
from iceprod_p2p.ledger.transitions import DATASET_VERBS, TASK
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.resources import Usage
from iceprod_p2p.model.states import FINAL_TASK_STATES, DatasetState, FailReason, TaskEvent, TaskState
from tests.ledger_in_hand import HOLDER, SLOTS, LedgerInHand

CHAIN = (TaskShape("first"), TaskShape("second", (0,)))


def bring_to(ledger: LedgerInHand, state: TaskState) -> c.TaskRef:
    """Submit one job and bring a task of it to a state; return its present attempt."""
    attempts = 1 if state is TaskState.FAILED else 2
    number = ledger.submit(1, CHAIN, attempts_max=attempts, retry_pause_ms=60_000)
    if state in (TaskState.WAITING,):
        return c.TaskRef(number, 0, 1, 0)
    ref = c.TaskRef(number, 0, 0, 0)
    if state is TaskState.READY:
        return ref
    if state in (TaskState.SUSPENDED, TaskState.ABORTED):
        verb = c.Verb.SUSPEND if state is TaskState.SUSPENDED else c.Verb.ABORT
        ledger.done(c.ControlTasks(number, verb, 0, 0, 0))
        return ref
    assert ledger.claim("madison") == [ref]
    if state is TaskState.CLAIMED:
        return ref
    ledger.done(c.QueueTasks("madison", (ref,)))
    if state is TaskState.QUEUED:
        return ref
    ledger.start("madison", ref)
    if state in (TaskState.ERROR, TaskState.FAILED):
        ledger.done(c.FailTask(ref, HOLDER, "madison", FailReason.PAYLOAD))
        return c.TaskRef(number, 0, 0, 1)
    if state is TaskState.PROCESSING:
        return ref
    ledger.done(c.CopyTask(ref, HOLDER))
    if state is TaskState.COMPLETE:
        ledger.finish(ref, "madison")
    return ref


def state_of(ledger: LedgerInHand, ref: c.TaskRef) -> TaskState:
    row = queries.task(ledger.kv, ref.dataset, ref.job, ref.task)
    assert row is not None
    return row.row.state


COMMANDS = {
    TaskEvent.QUEUE: lambda ref: c.QueueTasks("madison", (ref,)),
    TaskEvent.COPY: lambda ref: c.CopyTask(ref, HOLDER),
    TaskEvent.FINISH: lambda ref: c.FinishTask(ref, HOLDER, "madison", {}, (), Usage(7)),
    TaskEvent.FAIL: lambda ref: c.FailTask(ref, b"", "madison", FailReason.PAYLOAD),
    TaskEvent.LOSE: lambda ref: c.FailTask(ref, b"", "madison", FailReason.EVICTED),
    TaskEvent.GIVE_BACK: lambda ref: c.GiveBack("madison", (ref,)),
    TaskEvent.SUSPEND: lambda ref: c.ControlTasks(ref.dataset, c.Verb.SUSPEND, 0, 0, ref.task),
    TaskEvent.RESUME: lambda ref: c.ControlTasks(ref.dataset, c.Verb.RESUME, 0, 0, ref.task),
    TaskEvent.RESET: lambda ref: c.ControlTasks(ref.dataset, c.Verb.RESET, 0, 0, ref.task),
    TaskEvent.ABORT: lambda ref: c.ControlTasks(ref.dataset, c.Verb.ABORT, 0, 0, ref.task),
    TaskEvent.CLAIM: lambda ref: c.Claim("madison", SLOTS, 1),
}


@pytest.mark.parametrize("state", TaskState)
@pytest.mark.parametrize("event", [*COMMANDS, TaskEvent.START])
def test_every_pair_moves_by_the_table_or_leaves_the_task_unchanged(
    state: TaskState, event: TaskEvent
) -> None:
    ledger = LedgerInHand()
    ledger.found("madison")
    ref = bring_to(ledger, state)
    assert state_of(ledger, ref) is state
    if event is TaskEvent.CLAIM and state is TaskState.WAITING:
        ledger.claim("madison")  # Its parent is what a claim would get.
    if event is TaskEvent.START:
        ledger.do(c.StartTasks("madison", (ledger.start_of(ref),)))
    else:
        ledger.do(COMMANDS[event](ref))
    expected = TASK.get((state, event), state)
    if event in (TaskEvent.RESET, TaskEvent.RESUME) and ref.task == 0 and expected is TaskState.WAITING:
        expected = TaskState.READY  # A root has no parents to wait for.
    assert state_of(ledger, ref) is expected


def test_a_retry_begins_when_its_pause_is_over() -> None:
    ledger = LedgerInHand()
    ledger.found("madison")
    ref = bring_to(ledger, TaskState.ERROR)
    ledger.tick(59_000)
    assert state_of(ledger, ref) is TaskState.ERROR
    ledger.tick(2_000)
    assert state_of(ledger, ref) is TaskState.READY


def test_the_last_attempt_exhausts_a_task() -> None:
    ledger = LedgerInHand()
    ledger.found("madison")
    ref = bring_to(ledger, TaskState.FAILED)
    assert state_of(ledger, ref) is TaskState.FAILED


def test_no_state_is_a_trap() -> None:
    for state in TaskState:
        targets = {target for (start, _), target in TASK.items() if start is state and target is not state}
        assert targets, f"nothing leads out of {state}"


def test_every_state_can_reach_complete() -> None:
    reaching = {TaskState.COMPLETE}
    while True:
        more = {start for (start, _), target in TASK.items() if target in reaching}
        if more <= reaching:
            break
        reaching |= more
    assert reaching == set(TaskState)


def test_only_people_move_a_final_state() -> None:
    people = {TaskEvent.RESET, TaskEvent.ABORT}
    for (state, event), target in TASK.items():
        if state in FINAL_TASK_STATES and target is not state:
            assert event in people


@pytest.mark.parametrize("state", DatasetState)
@pytest.mark.parametrize("verb", c.Verb)
def test_every_dataset_verb_applies_by_the_table_or_is_refused(state: DatasetState, verb: c.Verb) -> None:
    ledger = LedgerInHand()
    ledger.found("madison")
    number = ledger.submit(2, (TaskShape("alone"),), attempts_max=1, closing=(TaskShape("last"),))
    if state is DatasetState.COMPLETE:
        ledger.run("madison", 2)
    elif state is DatasetState.ERRORS:
        for ref in ledger.claim("madison", 2):
            ledger.done(c.FailTask(ref, b"", "madison", FailReason.PAYLOAD))
    elif state is DatasetState.TRUNCATED:
        ledger.run("madison", 1)
        ledger.done(c.ControlDataset(number, c.Verb.TRUNCATE))
    elif state is DatasetState.WAITING:
        number += 1  # The dataset that follows.
    elif state is not DatasetState.PROCESSING:
        ledger.done(c.ControlDataset(number, {"suspended": c.Verb.SUSPEND, "aborted": c.Verb.ABORT}[state]))
    detail = queries.dataset(ledger.kv, number)
    assert detail is not None and detail.row.state is state
    before = queries.content_digest(ledger.kv)
    outcome = ledger.do(c.ControlDataset(number, verb))
    assert isinstance(outcome, Applied) is (verb in DATASET_VERBS[state])
    assert queries.content_digest(ledger.kv) != before  # At least the request is remembered.
