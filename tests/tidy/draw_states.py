"""Draws docs/states.md from the transition tables: run it after a change of `ledger/transitions.py`.

python -m tests.tidy.draw_states
"""

from __future__ import annotations

from pathlib import Path

from iceprod_p2p.ledger.transitions import (
    DATASET_VERBS,
    JOB,
    JOB_ABORTED,
    JOB_ACTIVE,
    JOB_FAILED,
    JOB_SUSPENDED,
    TASK,
)
from iceprod_p2p.model.states import DatasetState, TaskEvent, TaskState

PAGE = Path(__file__).parents[2] / "docs" / "states.md"
MEANING = {
    TaskEvent.PARENTS_DONE: "every parent is complete",
    TaskEvent.CLAIM: "a site's claim was granted",
    TaskEvent.QUEUE: "the site's grid accepted a pilot for it",
    TaskEvent.START: "it was handed to a pilot, and its passkey bound",
    TaskEvent.COPY: "the payload ended well; outputs are on their way",
    TaskEvent.FINISH: "its result was accepted",
    TaskEvent.FAIL: "the payload's fault; an attempt is used up",
    TaskEvent.EXHAUST: "the payload's fault at the last attempt, or too many attempts lost by sites",
    TaskEvent.LOSE: "the site's fault, or its time ran out",
    TaskEvent.GIVE_BACK: "the site returned it, or an idle site took it over",
    TaskEvent.RETRY: "the pause after a failure is over",
    TaskEvent.SUSPEND: "a person suspended it",
    TaskEvent.RESUME: "a person resumed it; `ready` at once if its parents are complete",
    TaskEvent.RESET: "a person reset it, or what it was made from; `ready` at once if its parents are complete",
    TaskEvent.ABORT: "a person aborted it",
}


def draw() -> str:
    """Return the page."""
    lines = [
        "# States of tasks, jobs and datasets",
        "",
        "Drawn from `iceprod_p2p/ledger/transitions.py` by `python -m tests.tidy.draw_states`; do not edit by hand.",
        "",
        "## Tasks",
        "",
        "What usually happens:",
        "",
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> waiting",
        *_arrows(),
        "    complete --> [*]",
        "```",
        "",
        "Every pair of state and event that is allowed; any other is refused, and nothing changes:",
        "",
        "| event | means | from | to |",
        "|---|---|---|---|",
        *_rows(),
        "",
        "Leaving a site's hands, and every reset, raises the attempt: the passkey of the old one is worthless.",
        "",
        "## Jobs",
        "",
        "A job's state follows from its tasks; the first line that holds counts.",
        "",
        "| some task is | the job is |",
        "|---|---|",
        f"| `aborted` | `{JOB[JOB_ABORTED]}` |",
        f"| `failed` | `{JOB[JOB_FAILED]}` |",
        f"| `suspended` | `{JOB[JOB_SUSPENDED]}` |",
        f"| neither complete nor one of these | `{JOB[JOB_ACTIVE]}` |",
        f"| (all are complete) | `{JOB[0]}` |",
        "",
        "## Datasets",
        "",
        "A dataset's state follows from its jobs and from what people asked for. What they may ask:",
        "",
        "| state | verbs |",
        "|---|---|",
        *(f"| `{state}` | {_words(sorted(DATASET_VERBS[state]))} |" for state in DatasetState),
        "",
    ]
    return "\n".join(lines)


USUAL = (
    TaskEvent.PARENTS_DONE,
    TaskEvent.CLAIM,
    TaskEvent.QUEUE,
    TaskEvent.START,
    TaskEvent.COPY,
    TaskEvent.FINISH,
    TaskEvent.FAIL,
    TaskEvent.EXHAUST,
    TaskEvent.LOSE,
    TaskEvent.RETRY,
)


def _arrows() -> list[str]:
    return [
        f"    {state} --> {target}: {event}"
        for event in USUAL
        for (state, when), target in TASK.items()
        if when is event
    ]


def _rows() -> list[str]:
    found = []
    for event in TaskEvent:
        targets: dict[TaskState, list[TaskState]] = {}
        for state in TaskState:
            if (state, event) in TASK:
                targets.setdefault(TASK[state, event], []).append(state)
        for target, states in targets.items():
            every = "every state" if len(states) == len(TaskState) else _words(states)
            found.append(f"| `{event}` | {MEANING[event]} | {every} | `{target}` |")
    return found


def _words(words: list) -> str:  # type: ignore[type-arg]
    return ", ".join(f"`{word}`" for word in words)


if __name__ == "__main__":
    PAGE.write_text(draw(), encoding="utf-8")
