"""The checkers of chaos runs: each sees the fault it claims to see."""

from __future__ import annotations

from typing import Any

import pytest

from iceprod_p2p.ledger.codec import encode_entry
from iceprod_p2p.ledger.commands import (
    AddNode,
    Claim,
    FinishTask,
    FoundCluster,
    Proposal,
    SubmitDataset,
    TaskRef,
    Tick,
)
from iceprod_p2p.ledger.outcome import Applied
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.resources import Offer
from iceprod_p2p.model.site import Member, MemberRole
from tests.integration.chaos.history import Call, History, Truth, check, merge_traces

MEMBER = Member("n0", "madison", "127.0.0.1:1", MemberRole.VOTER)
COMMANDS: tuple[Any, ...] = (
    FoundCluster("ice", b"root"),
    AddNode(MEMBER, b"ca", bytes(32), "key", bytes(32)),
    Tick(1, 1_000),
    SubmitDataset("5" * 64, 3, (TaskShape("alone"),), 7, "ada"),
    Claim("madison", (Offer("std", 9),), 2),
    Claim("madison", (Offer("std", 9),), 1),
)


def request(number: int) -> bytes:
    return number.to_bytes(16, "big")


def sound() -> tuple[History, Truth]:
    trace = [
        (n, 1, encode_entry([Proposal(request(n), 0 if n < 4 else 1_000, "node:n0", command)]))
        for n, command in enumerate(COMMANDS, 1)
    ]
    truth, faults = merge_traces({"a": trace, "b": trace[:4]})
    assert faults == []
    truth.replay()
    calls = [
        Call(request(n), command, n - 0.5, float(n), truth.outcomes[request(n)][2])
        for n, command in enumerate(COMMANDS, 1)
        if not isinstance(command, Tick)  # Told by members, not by clients.
    ]
    return History(calls), truth


def test_a_sound_history_is_found_sound() -> None:
    assert check(*sound(), {1: {"a"}}) == []


def lose(history: History, truth: Truth) -> None:
    del truth.outcomes[request(4)]


def answer_wrongly(history: History, truth: Truth) -> None:
    history.calls[2].outcome = Applied(("another answer",), 9)


def reorder(history: History, truth: Truth) -> None:
    history.calls[-1].began_s, history.calls[-1].ended_s = 0.0, 0.1


def grant_twice(history: History, truth: Truth) -> None:
    history.calls[-1].outcome = history.calls[-2].outcome


def finish_twice(history: History, truth: Truth) -> None:
    for attempt in (0, 1):
        ref = TaskRef(1, 0, 0, attempt)
        history.calls.append(Call(request(90 + attempt), FinishTask(ref, b"h" * 32, "x"), 7, 8, Applied()))


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lose, "acknowledged and is nowhere"),
        (answer_wrongly, "was answered"),
        (reorder, "but stands after it"),
        (grant_twice, "granted to two claims"),
        (finish_twice, "finished by two attempts"),
    ],
)
def test_a_fault_in_the_answers_is_seen(break_it: Any, words: str) -> None:
    history, truth = sound()
    break_it(history, truth)
    assert any(words in fault for fault in check(history, truth, {}))


def test_two_leaders_of_a_term_are_seen() -> None:
    assert any("had the leaders" in fault for fault in check(*sound(), {3: {"a", "b"}}))


def test_members_that_apply_different_entries_are_seen() -> None:
    one = [(1, 1, b"x")]
    assert "another entry 1" in merge_traces({"a": one, "b": [(1, 1, b"y")]})[1][0]
    assert "nobody applied" in merge_traces({"a": [(2, 1, b"x")]})[1][0]


def test_a_command_that_is_applied_twice_is_seen() -> None:
    _, truth = sound()
    again = Proposal(request(5), 1_000, "node:n0", COMMANDS[3])
    truth.entries[7] = (1, encode_entry([again]))
    twice = Truth(truth.entries)
    twice.replay()
    assert twice.applied_twice == []  # The ledger remembers the request, so its first outcome comes again.
    forgetful = Truth(dict(truth.entries))
    forgetful.outcomes[request(5)] = (1, 0, Applied(("something else",)))
    forgetful.replay()
    assert forgetful.applied_twice
