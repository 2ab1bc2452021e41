"""The reference: what a sequence of claims and reports may do to each task, far simpler than the ledger.

It hears every agreed entry once, in order, with its outcomes, and says when the ledger let through what it must
not: an attempt claimed twice, a start by who does not hold it, a result of a stale attempt, a second completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from iceprod_p2p.ledger import commands as c
from iceprod_p2p.ledger.codec import Damaged, decode_entry
from iceprod_p2p.ledger.outcome import Applied
from tests.simulation.world import Violation

Task = tuple[int, int, int]


@dataclass(slots=True)
class _Known:
    """What is known of one task."""

    attempt: int = -1  # The last attempt that was granted.
    site: str = ""
    holder: bytes = b""  # Who was handed the last attempt.
    ended: bool = False  # The last attempt has ended by a report.
    finished: int = -1  # The attempt that completed it.
    finished_at: int = 0
    statistics: dict[str, float] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)  # Attempts whose failure was accepted.


class TaskModel:
    """Follows the agreed entries."""

    def __init__(self) -> None:
        self._tasks: dict[Task, _Known] = {}
        self._requests: set[bytes] = set()
        self._resets: dict[int, list[tuple[int, int, int]]] = {}  # Dataset -> (place, first job, last job).
        self._numbers: dict[str, int] = {}
        self._following: dict[int, int] = {}  # Dataset -> the one that follows it.
        self._position = 0  # Counts commands, not entries: one entry holds several.
        self.grants = self.finishes = self.refused_stale = 0

    def follow(self, index: int, entry: bytes, outcomes: Sequence[Any], now: float) -> None:
        """Hear one agreed entry."""
        for proposal, outcome in zip(decode_entry(entry), outcomes, strict=True):
            if isinstance(proposal, Damaged) or proposal.request_id in self._requests:
                continue
            if not isinstance(proposal.command, c.Tick):
                self._requests.add(proposal.request_id)
            self._position += 1
            if isinstance(outcome, Applied):
                self._applied(self._position, proposal.command, outcome)
            elif outcome.code == "stale_attempt":
                self.refused_stale += 1

    def _applied(self, at: int, command: Any, outcome: Applied) -> None:
        match command:
            case c.Claim():
                for grant in outcome.grants:
                    self._granted(at, (grant.dataset, grant.job, grant.task), grant.attempt, command.site)
            case c.StartTasks():
                started = {(g.dataset, g.job, g.task, g.attempt) for g in outcome.grants}
                for start in command.starts:
                    if (start.ref.dataset, start.ref.job, start.ref.task, start.ref.attempt) in started:
                        self._started(command.site, start)
            case c.FinishTask():
                self._finished(at, command)
            case c.FailTask():
                self._over(command.ref, command.holder)
            case c.ControlDataset(verb=c.Verb.RESET | c.Verb.RESET_FAILED):
                self._reset(at, command.dataset, 0, 1 << 40)
            case c.ControlTasks(verb=c.Verb.RESET | c.Verb.RESET_FAILED):
                self._reset(at, command.dataset, command.first_job, command.last_job)
            case c.AddJobs():
                self._reset(at, self._following.get(command.dataset, 0), 0, 1 << 40)
            case c.SubmitDataset():
                if command.closing:
                    self._following[outcome.number] = outcome.number + 1
                number = self._numbers.setdefault(command.description, outcome.number)
                if number != outcome.number:
                    raise Violation(
                        f"{command.description!r} became dataset {number} and dataset {outcome.number}"
                    )

    def _reset(self, at: int, dataset: int, first: int, last: int) -> None:
        """Note a reset; what follows the dataset is void as well."""
        self._resets.setdefault(dataset, []).append((at, first, last))
        if dataset in self._following:
            self._resets.setdefault(self._following[dataset], []).append((at, 0, 1 << 40))

    def _granted(self, at: int, task: Task, attempt: int, site: str) -> None:
        known = self._tasks.setdefault(task, _Known())
        if attempt <= known.attempt:
            raise Violation(
                f"task {task} at attempt {attempt} was granted to {site}; "
                f"{known.site} had been granted attempt {known.attempt}"
            )
        if known.finished >= 0:
            if not self._was_reset(task, known.finished_at):
                raise Violation(
                    f"task {task} was complete at attempt {known.finished} and granted again to {site}"
                )
            known.finished = -1
        known.attempt, known.site, known.holder, known.ended = attempt, site, b"", False
        self.grants += 1

    def _was_reset(self, task: Task, since: int) -> bool:
        return any(
            at > since and first <= task[1] <= last for at, first, last in self._resets.get(task[0], ())
        )

    def _started(self, site: str, start: c.TaskStart) -> None:
        ref = start.ref
        known = self._tasks.get((ref.dataset, ref.job, ref.task), _Known())
        if ref.attempt != known.attempt or site != known.site or known.ended:
            raise Violation(
                f"{site} started {ref} which {known.site or 'nobody'} holds at attempt {known.attempt}"
                + (", which has ended" if known.ended else "")
            )
        if known.holder not in (b"", start.holder):
            raise Violation(f"{ref} was handed to two pilots")
        known.holder = start.holder

    def _finished(self, at: int, command: c.FinishTask) -> None:
        ref = command.ref
        known = self._tasks.get((ref.dataset, ref.job, ref.task), _Known())
        if ref.attempt != known.attempt:
            raise Violation(f"a result of {ref} was accepted; the task is at attempt {known.attempt}")
        if command.holder != known.holder:
            raise Violation(f"a result of {ref} was accepted from a pilot that does not hold it")
        if known.finished == ref.attempt:
            if known.statistics != command.statistics:
                raise Violation(f"two different results of {ref} were accepted")
            return
        if known.ended:
            raise Violation(f"a result of {ref} was accepted after that attempt had failed")
        known.finished, known.finished_at = ref.attempt, at
        known.statistics = dict(command.statistics)
        self.finishes += 1

    def _over(self, ref: c.TaskRef, holder: bytes) -> None:
        known = self._tasks.get((ref.dataset, ref.job, ref.task), _Known())
        if ref.attempt < known.attempt:
            if ref.attempt not in known.failed:  # If it is, this is the same report once more.
                raise Violation(f"a failure of {ref} was accepted; the task is at attempt {known.attempt}")
            return
        if holder and holder != known.holder:
            raise Violation(f"a failure of {ref} was accepted from a pilot that does not hold it")
        if known.finished == ref.attempt and not known.ended:
            raise Violation(f"{ref} failed after it was complete")
        known.ended = True
        known.failed.add(ref.attempt)

    def results(self) -> dict[Task, tuple[int, dict[str, float]]]:
        """Return the attempt and the statistics that completed each task, as far as no reset is known of."""
        return {
            task: (known.finished, known.statistics)
            for task, known in self._tasks.items()
            if known.finished >= 0
        }
