"""Scenarios: stories of a ledger as text, one command and its outcome per line, replayed on the real rules.

    submit jobs=1                 -> applied  dataset 1 processing
    claim site=madison            -> applied  1.0.0 claimed by madison, attempt 0
    + claim site=desy             -> applied  nothing                     (in the same entry as the line above)
    tick +2h                      -> applied  1.0.0 ready, attempt 1
    look task=1.0.0               -> ready, attempt 1, 1 losses

After `->` stands what came of it: the outcome, then every task and dataset whose state changed.  `found sites=a,b`
makes a cluster with nodes n0, n1, ...; `by=ada` lets a person ask; `request=x` names a request, so that a second line
with the same name is a retry; `made=-5m` dates it; `bytes` applies raw MessagePack given as JSON; `bound A=2` sets a
limit of the ledger for the scenario.  Every invariant is checked after every entry.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.commands import Claim, Command, Proposal, Tick
from iceprod_p2p.ledger.outcome import Applied, Outcome, Refused
from tests.ledger_in_hand import LedgerInHand
from tests.ledger_looks import look, needs_text
from tests.ledger_words import WORDS, Options, digest, duration_ms, read_line, start_tasks

ARROW = " -> "
WIDTH_MAX = 62  # Longer commands push their own arrow to the right.
TASKS_SHOWN = 6


@dataclass
class Scene:
    """One scenario under way."""

    bound: Callable[[str, int], None]
    ledger: LedgerInHand = field(default_factory=LedgerInHand)
    requests: dict[str, Proposal] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)
    datasets: dict[int, str] = field(default_factory=dict)

    def play(self, lines: list[str]) -> list[str]:
        """Apply the lines of one entry, or do what the one word says; return what came of each."""
        word, options = read_line(lines[0])
        if word == "bound":
            ((name, value),) = options.take_all().items()
            self.bound(name, int(value))
            return ["set"]
        if word == "found":
            self.ledger.found(*options.names("sites"), grace_ms=options.time_ms("grace", "10m"))
            texts = [f"{len(queries.members(self.ledger.kv))} nodes"]
        elif word in ("look", "explain", "holder"):
            texts = [look(self.ledger.kv, word, options)]
        elif word == "bytes":
            entry = msgspec.msgpack.encode(json.loads(options.text("json"), object_hook=_bytes))
            outcomes = self.ledger.raw(entry)
            texts = ["; ".join(_outcome_text(outcome, None) for outcome in outcomes)]
        else:
            return self._entry([read_line(line) for line in lines])
        options.close()
        self._changes()
        return texts

    def _entry(self, lines: list[tuple[str, Options]]) -> list[str]:
        proposals = [self._proposal(word, options) for word, options in lines]
        for _, options in lines:
            options.close()
        outcomes = self.ledger.propose(proposals)
        self.ledger.now_ms = queries.ledger_time_ms(self.ledger.kv)
        texts = [
            _outcome_text(outcome, proposal.command)
            for outcome, proposal in zip(outcomes, proposals, strict=True)
        ]
        changes = [change for change in self._changes() if change not in texts[-1]]
        last = outcomes[-1]
        if isinstance(last, Applied) and last.grants and not changes:  # A retry: granted before.
            changes = [
                ", ".join(f"{g.dataset}.{g.job}.{g.task}@{g.attempt}" for g in last.grants) + " granted"
            ]
        texts[-1] = "  ".join([texts[-1], "; ".join(changes)]).rstrip()
        return texts

    def _proposal(self, word: str, o: Options) -> Proposal:
        name = o.text("request", "")
        if name in self.requests:
            o.take_all()
            return self.requests[name]
        actor = f"person:{o.text('by')}" if o.has("by") else o.text("actor", "node:n0")
        proposal = self.ledger.proposal(self._command(word, o), actor=actor)
        if o.has("made"):
            made = o.text("made")
            shift_ms = duration_ms(made[1:])
            made_at_ms = self.ledger.now_ms + (shift_ms if made[0] == "+" else -shift_ms)
            proposal = msgspec.structs.replace(proposal, made_at_ms=made_at_ms)
        if name:
            proposal = msgspec.structs.replace(proposal, request_id=digest(name)[:16])
            self.requests[name] = proposal
        return proposal

    def _command(self, word: str, o: Options) -> Command:
        if word == "tick":
            return Tick(o.number("term", self.ledger.term), self.ledger.now_ms + o.time_ms("after"))
        if word == "start":
            return start_tasks(o, self.ledger.now_ms)
        if word not in WORDS:
            raise ValueError(f"no such word: {word}")
        return WORDS[word](o)

    def _changes(self) -> list[str]:
        """Which tasks and datasets changed since the line before, in words."""
        kv, changes = self.ledger.kv, []
        tasks: dict[str, str] = {}
        datasets: dict[int, str] = {}
        for row in queries.datasets(kv, limit=20).rows:
            datasets[row.dataset] = str(row.state)
            for task in queries.tasks(kv, row.dataset, limit=60).rows:
                held = f" by {task.site}" if task.state == "claimed" else ""
                needs = needs_text(task.requirements) if task.failures else ""
                more = f", needs {needs}" if needs else ""
                name = f"{task.dataset}.{task.job}.{task.task}"
                tasks[name] = f"{task.state}{held}, attempt {task.attempt}{more}"
        moved: dict[str, list[str]] = {}
        for name, text in tasks.items():
            if name in self.tasks and text != self.tasks[name]:
                moved.setdefault(text, []).append(name)
        for text, names in moved.items():
            shown = ", ".join(names[:TASKS_SHOWN])
            rest = f" and {len(names) - TASKS_SHOWN} more" if len(names) > TASKS_SHOWN else ""
            changes.append(f"{shown}{rest} {text}")
        for number, state in datasets.items():
            if number in self.datasets and state != self.datasets[number]:
                changes.append(f"dataset {number} {state}")
        self.tasks, self.datasets = tasks, datasets
        return changes


def _bytes(value: dict[str, str]) -> bytes:
    return bytes.fromhex(value["hex"])


def _outcome_text(outcome: Outcome, command: Command | None) -> str:
    if isinstance(outcome, Refused):
        return f"refused  {outcome.code}: {outcome.detail}"
    assert isinstance(outcome, Applied)
    words = list(outcome.notes)
    if isinstance(command, Claim) and not outcome.grants:
        words.append("nothing")
    return f"applied  {'; '.join(words)}".rstrip()


def replay(text: str, bound: Callable[[str, int], None]) -> str:
    """Play a scenario and return its text with what came of each line; ValueError names a line that makes no sense."""
    scene = Scene(bound)
    lines = [_Line(number, line) for number, line in enumerate(text.splitlines(), 1)]
    entry: list[_Line] = []
    for line in [*lines, _Line(0, "")]:
        if entry and not line.command.startswith("+ "):
            _play(scene, entry)
            entry = []
        if line.command:
            entry.append(line)
    return "\n".join(_aligned(lines)) + "\n"


class _Line:
    def __init__(self, number: int, text: str) -> None:
        self.number = number
        self.text = text.rstrip()
        said = not self.text or self.text.startswith("#")
        self.command = "" if said else " ".join(self.text.split(ARROW)[0].split())
        self.outcome = ""


def _play(scene: Scene, entry: list[_Line]) -> None:
    commands = [line.command.removeprefix("+ ") for line in entry]
    commands = [
        command.replace("tick +", "tick after=", 1) if command.startswith("tick +") else command
        for command in commands
    ]
    try:
        texts = scene.play(commands)
    except (ValueError, KeyError, AssertionError) as fault:
        raise ValueError(f"line {entry[0].number}: {entry[0].command}: {fault}") from fault
    for line, text in zip(entry, texts, strict=True):
        line.outcome = text


def _aligned(lines: list[_Line]) -> list[str]:
    width = max((len(line.command) for line in lines if len(line.command) <= WIDTH_MAX), default=0)
    return [
        f"{line.command:<{width}}{ARROW}{line.outcome}".rstrip() if line.command else line.text
        for line in lines
    ]
