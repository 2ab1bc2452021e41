"""What the pilots that call this node said last: kept in memory, rebuilt by their next calls after a restart.

Heartbeats of single pilots never enter the log.  From here come the site's counts, the slots that the
volunteer may fill, the attempts of other sites that this node vouches for, and the pilots that have fallen
silent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.ledger.commands import TaskRef
from iceprod_p2p.site.plans.orders import Room

PILOTS_MAX = 200_000  # Ten times what one node is made for; beyond it somebody is making pilots up.


@dataclass(slots=True)
class PilotNote:
    """One pilot's last call; times are monotonic seconds.

    `given` holds attempts that were handed out and not yet named in a call: they are not lost, they are on
    their way.
    """

    pilot: str
    holder: bytes
    site: str
    host: str = ""
    resource_class: str = ""
    seen_s: float = 0.0
    room: Room = field(default_factory=lambda: Room(0, 0, 0, 0, 0, 0))
    running: frozenset[TaskRef] = frozenset()
    given: dict[TaskRef, float] = field(default_factory=dict)
    ending: bool = False
    progress: dict[TaskRef, tuple[float, str]] = field(default_factory=dict)  # As modules say.
    waiting: int = 0  # Calls of it that wait for work now.

    def holds(self, ref: TaskRef) -> bool:
        """Return whether the pilot works on an attempt, or is about to."""
        return ref in self.running or ref in self.given


class PilotBoard:
    """All pilots that call this node; used on the event loop only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._notes: dict[bytes, PilotNote] = {}
        self._newest: dict[str, PilotNote] = {}  # By the pilot's name.
        self._vouched: dict[TaskRef, float] = {}

    def __len__(self) -> int:
        return len(self._notes)

    def note(self, *, pilot: str, holder: bytes, site: str) -> PilotNote:
        """Return the note of a pilot that calls now, by its key: made when it is new."""
        note = self._notes.get(holder)
        if note is None:
            if len(self._notes) >= PILOTS_MAX:
                self.forget_silent(60.0)
            note = self._notes[holder] = self._newest[pilot] = PilotNote(pilot, holder, site)
        note.seen_s = self._clock.monotonic_s()
        note.site = site
        return note

    def said(self, note: PilotNote, *, running: Iterable[TaskRef], room: Room) -> None:
        """Take down what a pilot says of itself; attempts given long ago that it never named were not
        received.
        """
        note.running = frozenset(running)
        note.room = room
        for ref in [ref for ref in note.given if ref in note.running]:
            del note.given[ref]

    def progress(self, ref: TaskRef) -> tuple[float, str] | None:
        """Return how far a running attempt is, from 0 to 1, with its module's note; None when it has not said."""
        said = (note.progress.get(ref) for note in self._notes.values() if note.progress)
        return next((progress for progress in said if progress is not None), None)

    def gave(self, note: PilotNote, refs: Iterable[TaskRef]) -> None:
        """Note attempts that are on their way to a pilot."""
        now_s = self._clock.monotonic_s()
        note.given.update((ref, now_s) for ref in refs)

    def pilots(self) -> list[PilotNote]:
        """Return every pilot that has called and was not forgotten."""
        return list(self._notes.values())

    def by_name(self, pilot: str) -> PilotNote | None:
        """Return the note of a pilot under the key that it took last."""
        return self._newest.get(pilot)

    def by_holder(self, holder: bytes) -> PilotNote | None:
        """Return the pilot with this key."""
        return self._notes.get(holder)

    def vouch(self, refs: Iterable[TaskRef]) -> None:
        """Note attempts of other sites whose pilot reports here."""
        now_s = self._clock.monotonic_s()
        self._vouched.update((ref, now_s) for ref in refs)

    def vouched(self, *, within_s: float) -> tuple[TaskRef, ...]:
        """Return the attempts to vouch for; those not heard of for `within_s` are dropped."""
        now_s = self._clock.monotonic_s()
        self._vouched = {ref: at for ref, at in self._vouched.items() if now_s - at <= within_s}
        return tuple(sorted(self._vouched, key=lambda ref: (ref.dataset, ref.job, ref.task, ref.attempt)))

    def now_s(self) -> float:
        """Return the time by which `seen_s` is counted."""
        return self._clock.monotonic_s()

    def silent_s(self, note: PilotNote) -> float:
        """Return how long a pilot has not called."""
        return self._clock.monotonic_s() - note.seen_s

    def overdue(self, note: PilotNote, ref: TaskRef, *, after_s: float) -> bool:
        """Return whether a pilot that goes on calling has evidently never received an attempt given to it.

        Unknown attempts (given by an earlier life of this node, or by another node) count from the pilot's
        own words alone, so they are overdue at once; the caller looks twice.
        """
        if ref in note.running:
            return False
        given_s = note.given.get(ref)
        return given_s is None or self._clock.monotonic_s() - given_s > after_s

    def forget_silent(self, after_s: float) -> list[PilotNote]:
        """Drop pilots that have not called for `after_s` and return them."""
        silent = [note for note in self._notes.values() if self.silent_s(note) > after_s]
        for note in silent:
            self.forget(note.holder)
        return silent

    def forget(self, holder: bytes) -> None:
        """Drop one pilot."""
        note = self._notes.pop(holder, None)
        if note is not None and self._newest.get(note.pilot) is note:
            del self._newest[note.pilot]
