"""The contract between a site and its batch system (arXiv:1311.5904, 3.2.1: WriteConfig, Submit,
CheckJobStatus, Remove, CleanQ).

A grid job is what the batch system runs: always one of our pilots.  Every grid job carries a `Tag`, and the
caller writes the tag down before it submits: after a crash between submission and note, `find_by_tag` tells
whether the system has the job, so none is lost and none is submitted twice.

Every method that talks to the system blocks and may be called from any thread, one call at a time per plugin
object.  `write_config` is pure.  A plugin knows nothing of tasks, claims or the ledger.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self, TypeAlias

from iceprod_p2p.base.settings import Setting
from iceprod_p2p.grids.request import TAG_VARIABLE, GridRequest, Tag

__all__ = [
    "TAG_VARIABLE",
    "Capabilities",
    "Completed",
    "Failed",
    "Grid",
    "GridJobStatus",
    "GridRequest",
    "GridState",
    "Held",
    "History",
    "NotSubmitted",
    "Queued",
    "Removed",
    "Running",
    "SubmitConfig",
    "SubmitResult",
    "Submitted",
    "Tag",
    "Unclear",
    "Vanished",
    "is_final",
]


@dataclass(frozen=True, slots=True)
class Queued:
    """Waiting in the batch system; `reason` as the system gives it."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """On a worker node, or about to start or to end there."""

    host: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """Waiting for a person: the system will not start it as it is."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Completed:
    """The executable ended by itself with `exit_code` (128 + n after signal n)."""

    exit_code: int


@dataclass(frozen=True, slots=True)
class Removed:
    """Taken away by us or by an operator."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The batch system ended it or could not run it: a limit, a lost node, a missing executable."""

    reason: str


@dataclass(frozen=True, slots=True)
class Vanished:
    """Unknown to the queue in two polls in a row and to the history: nobody can say how it ended."""


GridState: TypeAlias = Queued | Running | Held | Completed | Removed | Failed | Vanished


def is_final(state: GridState) -> bool:
    """Return whether a grid job in `state` will never change again."""
    return isinstance(state, Completed | Removed | Failed | Vanished)


@dataclass(frozen=True, slots=True)
class GridJobStatus:
    """One grid job as the system tells it; `tag` is None where the system does not carry it."""

    grid_job_id: str
    tag: Tag | None
    state: GridState


@dataclass(frozen=True, slots=True)
class History:
    """How one grid job ended; what the system does not record is None."""

    grid_job_id: str
    state: GridState
    exit_code: int | None = None
    reason: str = ""
    host: str = ""
    walltime_s: float | None = None
    cpu_s: float | None = None
    memory_mib: int | None = None


@dataclass(frozen=True, slots=True)
class Submitted:
    """The batch system has taken the request."""

    tag: Tag
    grid_job_id: str


@dataclass(frozen=True, slots=True)
class NotSubmitted:
    """The batch system refused the request; repeating it unchanged will be refused again."""

    tag: Tag
    reason: str


@dataclass(frozen=True, slots=True)
class Unclear:
    """The system failed or was silent: look with `find_by_tag` before the request is repeated."""

    tag: Tag
    reason: str


SubmitResult: TypeAlias = Submitted | NotSubmitted | Unclear


@dataclass(frozen=True, slots=True)
class SubmitConfig:
    """What a request becomes: the command line and the text that goes to it as submit file or script."""

    arguments: tuple[str, ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a plugin's system can do, so that a site can plan with it."""

    jobs_per_submit: int = 1  # In one call of `submit`, without one call of the system for each.
    history: bool = True  # Exit codes survive the end of the grid job.
    transfers_files: bool = False  # `files_in` reach worker nodes that share no file system with this host.
    enforces: frozenset[str] = frozenset()  # Of "walltime", "memory", "disk".
    gpus: bool = False


class Grid(ABC):
    """One batch system (or one queue of it).  A plugin writes the abstract methods; the others have good
    defaults.
    """

    OPTIONS: ClassVar[tuple[Setting, ...]] = ()

    @classmethod
    @abstractmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Make a plugin from options that `registry.create` has checked against `OPTIONS`."""

    @abstractmethod
    def capabilities(self) -> Capabilities:
        """Return what the system can do; asks nobody."""

    @abstractmethod
    def write_config(self, request: GridRequest) -> SubmitConfig:
        """Return what would be submitted; pure."""

    @abstractmethod
    def submit(self, requests: Sequence[GridRequest]) -> list[SubmitResult]:
        """Submit and return one result per request, in order.

        Raises GridDown only when nothing at all was submitted; trouble with single requests is in their
        results.
        """

    @abstractmethod
    def status(self, grid_job_ids: Collection[str]) -> dict[str, GridState]:
        """Return the state of each grid job that the system lists now, in few calls of the system for all.

        An id that the system does not list is absent: it may be too new or too old.  `polling.poll` decides.
        Raises GridError, GridDown or GridTimeout: then nothing is known about any of them.
        """

    @abstractmethod
    def history(self, grid_job_ids: Collection[str]) -> dict[str, History]:
        """Return how each ended, as far as the system remembers; running ones are absent."""

    @abstractmethod
    def remove(self, grid_job_ids: Collection[str]) -> None:
        """Ask the system to end these; returns when it has noted that.  Ids that have ended or are unknown
        are no error.  The end shows in `status` or `history` a little later.
        """

    @abstractmethod
    def our_jobs(self, owner: str) -> list[GridJobStatus]:
        """Return all grid jobs that carry a tag of `owner`, by tag; finished ones as far as the system keeps
        them.  Others may submit under the same account: theirs are not among them.
        """

    def find_by_tag(self, tags: Collection[Tag]) -> dict[Tag, GridJobStatus]:
        """Return the grid jobs with these tags; a tag that is absent was not submitted."""
        wanted = set(tags)
        found: dict[Tag, GridJobStatus] = {}
        for owner in sorted({tag.owner for tag in wanted}):
            for job in self.our_jobs(owner):
                if job.tag in wanted and job.tag is not None:
                    found[job.tag] = job
        return found

    def clean_queue(self, owner: str, known: Collection[Tag]) -> list[GridJobStatus]:
        """Remove orphans: live grid jobs with a tag of `owner` that it does not know.  Return what was removed.

        `known` must hold every tag that was ever noted before a submission, or a young grid job dies.
        """
        kept = set(known)
        orphans = [job for job in self.our_jobs(owner) if job.tag not in kept and not is_final(job.state)]
        if orphans:
            self.remove([job.grid_job_id for job in orphans])
        return orphans

    def forget(self, grid_job_ids: Collection[str]) -> None:  # noqa: B027  # Most systems keep nothing.
        """Drop what the plugin keeps about these: their ends are noted."""

    def impossible(self, request: GridRequest) -> str:
        """Return why the system can never run such a request, as far as that is known without asking it; empty
        when nothing speaks against it.
        """
        return ""

    def check(self) -> str:
        """Return one line about the system (its version); raises GridError where it cannot be used.

        Submits nothing.
        """
        return type(self).__name__
