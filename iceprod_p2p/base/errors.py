"""The exceptions of IceProd P2P: each is a sentence with its remedy.

    IceProdError
    ├── BadInput        what a person or a peer sent cannot be accepted; nothing was changed
    ├── ConfigError     a configuration file has faults; all of them are listed
    ├── Unavailable     the cluster, a node or a service cannot answer now; a repeat is harmless
    │   └── Unreachable there is nobody at its address who speaks with us
    ├── NotAllowed      the caller's identity may not do this
    ├── NotFound        the thing named does not exist
    ├── Refused         the ledger refused a command; nothing was changed
    └── IntegrityError  stored or received bytes are not what was promised

A refusal inside the ledger is a value (`ledger.outcome.Refused`), never one of these: an exception means that the
world outside the ledger failed, and edges turn refusals into `Refused` where a caller expects an exception.
"""

from __future__ import annotations


class IceProdError(Exception):
    """What happened, to what and why, in one sentence; `remedy` says what to do."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class BadInput(IceProdError):
    """What was sent cannot be accepted: it is malformed, too large or contradicts itself."""

    exit_code = 2


class ConfigError(IceProdError):
    """A configuration file has faults; `faults` lists every one of them with its line."""

    exit_code = 2

    def __init__(self, message: str, *, faults: tuple[str, ...] = (), remedy: str = "") -> None:
        super().__init__("\n".join((message, *faults)), remedy=remedy)
        self.faults = faults


class Unavailable(IceProdError):
    """A node, the cluster or a service cannot answer now; the same call may be repeated without harm."""

    exit_code = 5

    def __init__(self, message: str, *, remedy: str = "", retry_after_s: float = 0.5) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_s = retry_after_s


class Unreachable(Unavailable):
    """Nobody at the address speaks with us: less telling than the words of a node that did answer."""


class NotAllowed(IceProdError):
    """The caller's identity is unknown, revoked, or lacks the role for this call."""

    exit_code = 4


class NotFound(IceProdError):
    """The dataset, job, task, file, site or person named does not exist."""

    exit_code = 3


class Refused(IceProdError):
    """The ledger refused a command; `code` is the refusal's stable word."""

    exit_code = 1

    def __init__(self, code: str, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.code = code


class IntegrityError(IceProdError):
    """Bytes on disk or from a peer do not match their recorded checksum."""

    exit_code = 1
