"""The plugin for Globus GRAM5: `globusrun` of the Grid Community Toolkit, and a spool that worker nodes see.

GRAM lists no jobs, carries no names of ours, tells no exit codes, and calls DONE what has ended, what never was and
what it has lost.  So what has to be sure is decided by files in the spool, shared with worker nodes (`gram_spool.py`):

- A grid job takes itself by linking `start` in its place before it runs anything, and the node gives one up by a link
  of the same name.  One of them succeeds.  So one place never runs twice, and what was given up never runs.
- A grid job writes GRAM's name for it into `start`, touches `alive` while it runs, and writes its exit code at its end.

A crash of the node, wherever it happens, loses no grid job and starts none twice:

- before the place is made: GRAM was never asked, and the tag is not found;
- from then until GRAM's name is noted: `find_by_tag` looks at the place.  Has the grid job started, it is found, with
  GRAM's name from `start`.  Otherwise it is given up and its place dropped: the tag is not found, and what GRAM may
  still start, be it a request that is on its way yet, ends by itself and has run nothing;
- after that: it is found by its place.

DONE is believed at once where GRAM has removed the grid job; else of one that did not start only after giving it up,
and of one that runs only when `alive` has stood still for `lost_s`, by this node's own clock that never jumps.  A job
manager that is lost (GRAM then forgets its jobs, which run on) thus costs nothing but the word; such grid jobs are
removed by a file that they look for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Final, Self, TypeVar

from iceprod_p2p.base.clock import Clock, SystemClock
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.base.settings import Setting
from iceprod_p2p.grids import gram_spool as spool
from iceprod_p2p.grids import gram_text as text
from iceprod_p2p.grids.base import (
    Capabilities,
    Completed,
    Failed,
    Grid,
    GridJobStatus,
    GridRequest,
    GridState,
    History,
    NotSubmitted,
    Queued,
    Removed,
    Running,
    SubmitConfig,
    SubmitResult,
    Submitted,
    Unclear,
    is_final,
)
from iceprod_p2p.grids.command import Commands, failure
from iceprod_p2p.grids.errors import GridDown
from iceprod_p2p.grids.files import shell_script
from iceprod_p2p.grids.gram_spool import Record
from iceprod_p2p.grids.submitting import submit_each

AT_ONCE: Final = 4  # `globusrun` knows one job a call, and a removal takes GRAM five seconds.
FRESH_BEATS: Final = 3
DOUBT_S: Final = 10.0  # How long GRAM says DONE of one that has not started, before it is given up.
REMEDY: Final = "try `globusrun -a -r CONTACT`; see the proxy with `grid-proxy-info`"
Item = TypeVar("Item")
Result = TypeVar("Result")
log = get_logger("grid.gram")


class GramGrid(Grid):
    """One service of one gatekeeper."""

    OPTIONS: ClassVar[tuple[Setting, ...]] = (
        Setting("contact", "text", None, "of the service: host:2119/jobmanager-pbs, or with :subject"),
        Setting("spool", "path", None, "directory that worker nodes see; one per node"),
        Setting("bin_directory", "path", "", "where globusrun is; empty: in PATH"),
        Setting("environment", "table", {}, "for globusrun, such as X509_CERT_DIR"),
        Setting("timeout_s", "number", 60.0, "for one command", 1, 3_600),
        Setting("beat_s", "number", 20.0, "between signs of life of a grid job", 0.2, 600),
        Setting(
            "lost_s", "number", 300.0, "without one, when GRAM no longer knows it, it has ended", 1, 86_400
        ),
    )

    def __init__(
        self,
        contact: str,
        place: Path,
        commands: Commands,
        *,
        beat_s: float = 20.0,
        lost_s: float = 300.0,
        clock: Clock | None = None,
    ) -> None:
        self._contact = contact
        self._spool = place
        self._commands = commands
        self._beat_s = beat_s
        self._lost_s = max(lost_s, FRESH_BEATS * beat_s)
        self._clock = clock or SystemClock()
        self._beats: dict[
            str, tuple[int, float]
        ] = {}  # The last sign of life, and when this node saw it first.
        self._over_s: dict[str, float] = {}  # Since when GRAM calls one over that has not started.

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Make the plugin; asks nobody."""
        commands = Commands.from_options(options)
        return cls(
            str(options["contact"]),
            Path(str(options["spool"])).expanduser().absolute(),
            commands,
            beat_s=float(str(options["beat_s"])),
            lost_s=float(str(options["lost_s"])),
        )

    def capabilities(self) -> Capabilities:
        """Return what GRAM passes on; what is enforced is up to the batch system behind it."""
        return Capabilities(enforces=frozenset({"walltime"}))

    def impossible(self, request: GridRequest) -> str:
        """Return why a request cannot run: it tells of itself by files."""
        return "a grid job in GRAM tells of itself by files: shared_directory = true" if request.carry else ""

    def write_config(self, request: GridRequest) -> SubmitConfig:
        """Return globusrun's command line and the RSL that it reads."""
        place = self._place(request)
        line = ("globusrun", "-F", "-r", self._contact, "-f", str(place / text.RSL_NAME))
        return SubmitConfig(line, text.rsl(request, place))

    def submit(self, requests: Sequence[GridRequest]) -> list[SubmitResult]:
        """Submit one by one."""
        return submit_each(requests, self._submit_one)

    def status(self, grid_job_ids: Collection[str]) -> dict[str, GridState]:
        """Return the states of those that live; one call for each that waits, and one for all of the others."""
        states = self._states(grid_job_ids)
        return {name: state for name, (_, state) in states.items() if not is_final(state)}

    def history(self, grid_job_ids: Collection[str]) -> dict[str, History]:
        """Return the ends, as grid jobs wrote them down, until they are forgotten."""
        states = self._states(grid_job_ids)
        return {name: _history(record, state) for name, (record, state) in states.items() if is_final(state)}

    def remove(self, grid_job_ids: Collection[str]) -> None:
        """Give up those that have not started and let GRAM end the others: TERM, and KILL 5 s later."""
        wanted = set(grid_job_ids)
        live = [one for one in self._records() if one.grid_job_id in wanted and one.exit_code is None]
        if not live:
            return
        self._ping()
        self._many(self._remove_one, live)

    def our_jobs(self, owner: str) -> list[GridJobStatus]:
        """Return an owner's grid jobs in the spool; what was cut off in its submission is found or given up."""
        ours = [record for record in self._records() if record.tag.owner == owner]
        kept = [record for record in ours if not self._is_cut_off(record) and not self._is_old(record)]
        states = self._states([record.grid_job_id for record in kept])
        return [
            GridJobStatus(name, states[name][0].tag, states[name][1])
            for name in (record.grid_job_id for record in kept)
            if name in states
        ]

    def forget(self, grid_job_ids: Collection[str]) -> None:
        """Drop the places of ended ones."""
        wanted = set(grid_job_ids)
        for record in self._records():
            if record.grid_job_id in wanted:
                spool.drop(record.place)
                self._beats.pop(record.grid_job_id, None)
                self._over_s.pop(record.grid_job_id, None)

    def check(self) -> str:
        """Return the job manager's version; raises GridError where the spool cannot be used."""
        try:
            self._spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as broken:
            raise _unreadable(self._spool, broken) from broken
        result = self._commands.run(("globusrun", "-j", "-r", self._contact))
        if result.exit_code:
            raise failure(result, down=True, remedy=REMEDY)
        return f"GRAM at {self._contact}: {' '.join(result.stdout.split())}"

    def _submit_one(self, request: GridRequest) -> SubmitResult:
        if request.carry:
            return NotSubmitted(request.tag, self.impossible(request))
        place = self._place(request)
        config = self.write_config(request)
        try:
            place.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            return NotSubmitted(request.tag, f"it was submitted before: {place}")
        (place / text.INNER_NAME).write_text(shell_script(request))
        (place / text.SCRIPT_NAME).write_text(text.script(place, beat_s=self._beat_s))
        (place / text.RSL_NAME).write_text(config.text)
        result = self._commands.run(config.arguments)
        contact = text.submitted_contact(result.stdout)
        if contact:
            return _noted(request, place, contact)
        told = result.exit_code in text.REFUSED_CODES or result.exit_code in text.DOWN_CODES
        if not told or not self._give_up(place):
            return Unclear(request.tag, text.refusal(result))
        spool.drop(place)
        if result.exit_code in text.DOWN_CODES:
            raise failure(result, down=True, remedy=REMEDY)
        return NotSubmitted(request.tag, text.refusal(result))

    def _states(self, grid_job_ids: Collection[str]) -> dict[str, tuple[Record, GridState]]:
        """Return what is known of each; GRAM is asked for those that do not tell by themselves."""
        wanted = set(grid_job_ids)
        found = {one.grid_job_id: one for one in self._records() if one.grid_job_id in wanted}
        open_ = {name: one for name, one in found.items() if one.exit_code is None and not one.given_up}
        asked = [one for name, one in open_.items() if not self._is_fresh(name, one)]
        if open_:
            self._ping()
        words = dict(zip((one.grid_job_id for one in asked), self._many(self._word, asked), strict=True))
        states = {}
        for name, before in found.items():
            # Read after GRAM was asked: what it calls over has written down before how it ended.
            record = self._read(before) if name in words else before
            if record is not None:
                states[name] = self._state(name, record, words.get(name, "ACTIVE"))
        return states

    def _state(self, name: str, record: Record, word: str) -> tuple[Record, GridState]:
        gone = word in (text.OVER, text.GAVE_UP)
        if record.exit_code is not None:
            taken = record.removed or record.stopping
            return record, Removed("removed by this site") if taken else Completed(record.exit_code)
        if record.removed and (gone or record.given_up):
            return record, Removed("removed by this site")
        if record.given_up:
            return record, Failed("GRAM ended it before it began")
        if not gone:
            self._over_s.pop(name, None)
            return record, _with_host(text.STATES.get(word, Queued(f"GRAM says {word}")), record)
        if record.started:
            if self._stands_still_s(name, record) < self._lost_s:
                return record, Running(record.host)
            return record, Failed(
                "it no longer gives signs of life, and GRAM does not know it: killed, or its host is lost"
            )
        now_s = self._clock.monotonic_s()
        if word == text.OVER and now_s - self._over_s.setdefault(name, now_s) < DOUBT_S:
            return record, Queued("GRAM says that it is over, but it has not started")
        if self._give_up(record.place):
            return record, Failed("GRAM ended it before it began")
        return record, Running()  # It has just started.

    def _remove_one(self, record: Record) -> None:
        given_up = not record.started and self._give_up(record.place)
        if given_up:
            _mark(record, "removed")
        if not text.is_contact(record.contact):
            _mark(record, "stop")
            return
        result = self._commands.run(("globusrun", "-k", record.contact))
        if result.exit_code == 0:
            _mark(record, "removed")
        elif result.exit_code in text.GONE_CODES:
            if not given_up and self._read(record) is not None:
                _mark(record, "stop")
                log.info("grid job that GRAM does not know asked to end", grid_job=record.grid_job_id)
        else:
            raise failure(result, down=result.exit_code in text.DOWN_CODES, remedy=REMEDY)

    def _word(self, record: Record) -> str:
        """Return GRAM's word for one; DONE where it cannot be asked for."""
        if not text.is_contact(record.contact):
            return text.OVER
        return self._commands.succeed(("globusrun", "-status", record.contact)).strip()

    def _ping(self) -> None:
        """Raise GridDown unless the gatekeeper answers and knows us: of jobs it would just say DONE."""
        result = self._commands.run(("globusrun", "-a", "-r", self._contact))
        if result.exit_code:
            raise failure(result, down=True, remedy=REMEDY)

    def _is_cut_off(self, record: Record) -> bool:
        """Give up one whose submission nobody knows the end of, unless it has started; return whether it was."""
        if record.contact or record.started:
            return False
        if not self._give_up(record.place):
            return False
        spool.drop(record.place)
        return True

    def _is_old(self, record: Record) -> bool:
        """Drop one that has ended long ago and that nobody asked for: an orphan; return whether it was."""
        over = record.exit_code is not None or record.given_up
        try:
            old = over and self._clock.wall_ms() / 1_000 - record.place.stat().st_mtime > spool.KEEP_S
        except OSError:
            return True
        if old:
            spool.drop(record.place)
        return old

    def _is_fresh(self, name: str, record: Record) -> bool:
        """Whether one that runs has given a sign of life lately, so that nobody has to be asked."""
        if not record.started or record.removed or record.stopping:
            return False
        return self._stands_still_s(name, record) < FRESH_BEATS * self._beat_s

    def _stands_still_s(self, name: str, record: Record) -> float:
        now_s = self._clock.monotonic_s()
        beat_ns, since_s = self._beats.get(name, (-1, now_s))
        if beat_ns != record.beat_ns:
            since_s = now_s
            self._beats[name] = (record.beat_ns, now_s)
        return now_s - since_s

    def _give_up(self, place: Path) -> bool:
        """Keep the grid job of a place from ever starting; return whether that succeeded."""
        try:
            return spool.give_up(place)
        except FileNotFoundError:
            return True  # There is no place any more, and so nothing that could run.
        except OSError as broken:
            raise _unreadable(place, broken) from broken

    def _records(self) -> list[Record]:
        try:
            return list(spool.records(self._spool))
        except OSError as broken:
            raise _unreadable(self._spool, broken) from broken

    def _read(self, record: Record) -> Record | None:
        try:
            return spool.read(record.tag, record.place)
        except OSError as broken:
            raise _unreadable(record.place, broken) from broken

    def _place(self, request: GridRequest) -> Path:
        return self._spool / str(request.tag)

    def _many(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="gram") as some:
            return list(some.map(work, items))


def _noted(request: GridRequest, place: Path, contact: str) -> SubmitResult:
    try:
        spool.write(place / "contact", contact + "\n")
    except OSError as broken:
        return Unclear(request.tag, f"{contact} could not be noted: {broken.strerror or broken}")
    return Submitted(request.tag, contact)


def _with_host(state: GridState, record: Record) -> GridState:
    """Return a state of GRAM's with what the grid job itself says: when it has started, it runs."""
    return Running(record.host) if record.started and isinstance(state, Running | Queued) else state


def _history(record: Record, state: GridState) -> History:
    completed = isinstance(state, Completed)
    return History(
        record.grid_job_id,
        state,
        state.exit_code if isinstance(state, Completed) else None,
        "" if completed else getattr(state, "reason", ""),
        record.host,
        record.walltime_s,
    )


def _mark(record: Record, name: str) -> None:
    """Leave a mark in a place, if it is still there."""
    try:
        (record.place / name).touch()
    except FileNotFoundError:
        return
    except OSError as broken:
        raise _unreadable(record.place, broken) from broken


def _unreadable(place: Path, broken: OSError) -> GridDown:
    return GridDown(
        f"the spool cannot be used: {broken.strerror or broken}: {place}",
        command="globusrun",
        remedy="give the grid a spool that this node and its worker nodes can write",
    )
