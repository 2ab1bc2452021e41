"""What applying one command gave: `Applied`, or `Refused` with a stable code. Both are values, replicated as such."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from iceprod_p2p.model.resources import Requirements


class Refusal(StrEnum):
    """Why the ledger said no; clients may branch on these words, so none is ever renamed."""

    NOT_FOUND = "not_found"
    EXISTS = "exists"
    WRONG_STATE = "wrong_state"
    STALE_ATTEMPT = "stale_attempt"
    NOT_HOLDER = "not_holder"
    WRONG_SITE = "wrong_site"
    CONFLICT = "conflict"
    LIMIT = "limit"
    NOT_ALLOWED = "not_allowed"
    MALFORMED = "malformed"
    UNKNOWN_COMMAND = "unknown_command"
    EXPIRED = "expired"
    STALE_TERM = "stale_term"
    BUSY = "busy"  # Another membership change is still under way.


class Grant(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One task granted by a claim: the site holds it at this attempt."""

    dataset: int
    job: int
    task: int
    attempt: int
    requirements: Requirements


class Applied(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """The command took effect once; `notes` say how, one short clause each.

    `number` is the dataset number of a submission, `grants` the tasks of a claim; both empty otherwise.
    """

    notes: tuple[str, ...] = ()
    number: int = 0
    grants: tuple[Grant, ...] = ()


class Refused(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """Nothing was changed; `detail` is one sentence for people."""

    code: Refusal
    detail: str = ""


Outcome = Applied | Refused
