"""Faults of steering files: every one of them at once, each with its place and the nearest right name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.steering.limits import FAULTS_MAX

FOUND_CHARS_MAX = 80  # What was found is quoted up to here: a fault is a line, not a dump.
PATH_CHARS_MAX = 400  # Names in a path may be long.
NAMES_COMPARED_MAX = (
    100  # Names among which the nearest is sought, and faults that get a suggestion: both keep
)
SUGGESTIONS_MAX = 50  # a file full of wrong names as cheap as a file with one.


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: where (line and column from 1; 0 is unknown), what was found, what is allowed, what to write."""

    file: str
    line: int
    column: int
    path: str
    found: str
    allowed: str
    suggestion: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        path = f" {self.path}:" if self.path else ""
        hint = f"; did you mean {self.suggestion}?" if self.suggestion else ""
        return f"{place}:{path} found {self.found}; allowed: {self.allowed}{hint}"

    def as_dict(self) -> dict[str, str | int]:
        """Return the fields by name, as `steering check -o json` prints them."""
        return asdict(self)


class SteeringError(BadInput):
    """A steering file that cannot be used; `faults` has every fault found in it."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        shown = "\n".join(str(fault) for fault in faults)
        super().__init__(shown, remedy="`iceprod steering check FILE` lists the faults of a file")
        self.faults = faults


class TooManyFaults(Exception):
    """A file has more faults than are listed; reading stops.  Only `check` and `validate` see it."""


def quoted(value: object) -> str:
    """Return a value as a fault shows it: short, with control characters escaped."""
    text = value if isinstance(value, str) else repr(value)
    if len(text) > FOUND_CHARS_MAX:
        text = text[: FOUND_CHARS_MAX - 3] + "..."
    return f'"{printable(text)}"' if isinstance(value, str) else printable(text)


def printable(text: str) -> str:
    """Return a text with characters that no terminal shows escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return the allowed name that looks most like `name`; empty when none is near."""
    names = list(allowed)[:NAMES_COMPARED_MAX]
    short = name[:64]
    lower = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(short.lower(), list(lower), n=1, cutoff=0.6)
    if close:
        return lower[close[0]]
    longer = [known for known in names if len(name) > 1 and known.lower().startswith(short.lower())]
    return longer[0] if len(longer) == 1 else ""  # "iter" is near iterations, though it is much shorter.


class FaultList:
    """Collects the faults of one file, at most FAULTS_MAX of them."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[Fault] = []

    def add(
        self, place: tuple[int, int], path: str, found: object, allowed: str, *, names: Iterable[str] = ()
    ) -> None:
        """Add one fault; `names` are the right names among which the nearest is suggested."""
        wanted = isinstance(found, str) and len(self.faults) < SUGGESTIONS_MAX
        suggestion = nearest(str(found), names) if wanted else ""
        self.say(place, path, quoted(found), allowed, suggestion)

    def say(self, place: tuple[int, int], path: str, found: str, allowed: str, suggestion: str = "") -> None:
        """Add one fault whose `found` is a phrase of ours and needs no quotes.  Raises TooManyFaults at the bound."""
        if len(self.faults) >= FAULTS_MAX:
            raise TooManyFaults(f"more than {FAULTS_MAX} faults")
        if len(path) > PATH_CHARS_MAX:
            path = f"{path[: PATH_CHARS_MAX // 2]}...{path[-PATH_CHARS_MAX // 2 :]}"
        texts = (printable(text) for text in (path, found, allowed, suggestion))
        self.faults.append(Fault(self.file, *place, *texts))
