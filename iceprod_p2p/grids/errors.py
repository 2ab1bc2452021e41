"""What goes wrong at a batch system: which command, what it said, what to do.

GridError       the batch system or its command failed; nothing else is known
├── GridDown    the system cannot be reached now; nothing was changed, the same call may be repeated
└── GridTimeout the command gave no answer in time; what it did is unknown, find out by tag
"""

from __future__ import annotations

from iceprod_p2p.base.errors import IceProdError


class GridError(IceProdError):
    """A batch system refused or failed; `command` is what was run, as a person would type it."""

    exit_code = 5

    def __init__(self, message: str, *, command: str = "", remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.command = command


class GridDown(GridError):
    """The batch system cannot be reached now: nothing was changed."""


class GridTimeout(GridError):
    """The batch system gave no answer in time: a submission may or may not have happened."""
