"""The next release, as far as the ledger goes: its version brings a command, a field of an old one, and a changed rule.

    python -m tests.integration.chaos.next_release CONFIG.json

What a person would write into `ledger/commands.py`, `ledger/versions.py` and `ledger/rules` is put there before
anything has read them; every gate is the project's own.
"""

from __future__ import annotations

import asyncio
import functools
import operator
from typing import Any

import msgspec

from iceprod_p2p.ledger import commands, versions
from iceprod_p2p.model.bounds import Amount, HexDigest, Line, Name

NOTE_LINE = 201
RECORD_BLOB = 62
NOW = versions.VERSION_MOST
NEXT = NOW + 1


class NoteLine(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=NOTE_LINE):
    """A command that the first release does not know."""

    text: Line


class RecordBlob(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=RECORD_BLOB):
    """A command of the first release, with one more field."""

    sha256: HexDigest
    size_bytes: Amount
    node_ids: tuple[Name, ...]
    comment: Line = ""


def bring_in() -> None:
    """Make this process one of the next release; before anything else of the ledger is imported."""
    kept = [kind for kind in commands.Command.__args__ if kind is not commands.RecordBlob]
    setattr(commands, "RecordBlob", RecordBlob)  # noqa: B010
    setattr(commands, "Command", functools.reduce(operator.or_, [*kept, RecordBlob, NoteLine]))  # noqa: B010
    setattr(versions, "VERSION_MOST", NEXT)  # noqa: B010
    versions.COMMANDS_SINCE[NOTE_LINE] = NEXT
    versions.FIELDS_SINCE[RECORD_BLOB, 4] = NEXT

    from iceprod_p2p.ledger.outcome import Applied, Outcome
    from iceprod_p2p.ledger.rules.asked import Asked
    from iceprod_p2p.ledger.rules.table import RULES
    from iceprod_p2p.ledger.tables import Tables

    def note_line(t: Tables, command: NoteLine, asked: Asked) -> Outcome:
        t.kv.put(b"\x7e%d" % asked.entry, command.text.encode())
        return Applied((f"noted: {command.text}",))

    old_submit, old_record = RULES[commands.SubmitDataset], RULES[RecordBlob]

    def record_blob(t: Tables, command: RecordBlob, asked: Asked) -> Outcome:
        outcome = old_record(t, command, asked)
        if isinstance(outcome, Applied) and command.comment:
            return msgspec.structs.replace(outcome, notes=(*outcome.notes, command.comment))
        return outcome

    def submit(t: Tables, command: Any, asked: Asked) -> Outcome:
        outcome = old_submit(t, command, asked)
        if isinstance(outcome, Applied) and t.version >= NEXT:
            return msgspec.structs.replace(
                outcome, notes=(*outcome.notes, "by the rules of the next version")
            )
        return outcome

    RULES.update({NoteLine: note_line, RecordBlob: record_blob, commands.SubmitDataset: submit})


if __name__ == "__main__":
    bring_in()
    from tests.integration.chaos import member

    asyncio.run(member.main())
