"""What a site asks of a batch system: one grid job, under a tag of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.base.ids import is_name

TAG_VARIABLE = "ICEPROD_GRID_TAG"  # In every grid job's environment: marks its processes as ours.
TAG_PATTERN = re.compile(r"iceprod\.([A-Za-z0-9][A-Za-z0-9_-]{0,62})\.([A-Za-z0-9][A-Za-z0-9_-]{0,62})")
PRIORITY_MAX = 100
TEXT_MAX = 32_768  # One argument or value; Linux allows 128 KiB, batch systems less.
HOST_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")
VARIABLE_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


@dataclass(frozen=True, slots=True, order=True)
class Tag:
    """Our name for one grid job: who submitted it and the owner's own id for it, both names as `is_name` allows.

    `owner` tells one node of one cluster from all others, also from those whose site has the same name and that
    use the same account of the same batch system: what an owner does not know of its own is its orphan.

    As text ``iceprod.<owner>.<grid job>``: a legal job name in every batch system that we know, at most 135
    characters.
    """

    owner: str
    grid_job: str

    def __post_init__(self) -> None:
        if not (is_name(self.owner) and is_name(self.grid_job)):
            raise BadInput(
                f"a grid job cannot be tagged {self.owner!r}, {self.grid_job!r}",
                remedy="use letters, digits, '_' and '-', at most 63, for its owner and for the grid job",
            )

    def __str__(self) -> str:
        return f"iceprod.{self.owner}.{self.grid_job}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what `str` wrote; None for anything else, such as the name of a stranger's job."""
        match = TAG_PATTERN.fullmatch(text)
        return cls(match[1], match[2]) if match else None


@dataclass(frozen=True, slots=True)
class GridRequest:
    """One grid job to submit.  Raises BadInput for text that could not stand in a submit file or a wrong
    number.

    `work_directory` is the grid job's own: the plugin makes it if need be and puts standard output and error
    there (`stdout_path`, `stderr_path`).  `files_in` are absolute paths on this host that shall lie, under
    their last names, in the directory where the executable starts.  `environment` is added to what the system
    gives; nothing of the node's own environment is passed.  `priority` runs from -100 to 100, 0 is usual,
    more is sooner.  `memory_mib`, `disk_mib` and `walltime_s` are limits and requests at once; 0 leaves the
    system's default.  `extra_lines` go to the system as they are (directives without their prefix:
    ``--constraint=avx2``).

    With `carry`, worker nodes do not see this host's files: the system, or the script itself, brings `files_in`
    to a directory there that is the grid job's alone, and `work_directory` is this host's only.
    """

    tag: Tag
    executable: str
    work_directory: str
    arguments: tuple[str, ...] = ()
    files_in: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    queue: str = ""
    priority: int = 0
    walltime_s: int = 0
    cores: int = 1
    memory_mib: int = 0
    disk_mib: int = 0
    gpus: int = 0
    extra_lines: tuple[str, ...] = ()
    exclude_hosts: tuple[str, ...] = ()
    carry: bool = False

    def __post_init__(self) -> None:
        faults = tuple(_request_faults(self))
        if faults:
            raise BadInput(f"grid job {self.tag} cannot be submitted: {'; '.join(faults)}")

    @property
    def stdout_path(self) -> str:
        """Where the plugin puts the grid job's standard output."""
        return f"{self.work_directory}/grid.out"

    @property
    def stderr_path(self) -> str:
        """Where the plugin puts the grid job's standard error."""
        return f"{self.work_directory}/grid.err"

    def full_environment(self) -> dict[str, str]:
        """Return `environment` with the tag in it, as every plugin passes it on."""
        return {**self.environment, TAG_VARIABLE: str(self.tag)}


def is_host(text: str) -> bool:
    """Return whether `text` may name a host to a batch system, to which brackets and commas mean something."""
    return HOST_PATTERN.fullmatch(text) is not None


def _request_faults(request: GridRequest) -> list[str]:
    faults = []
    for name in ("executable", "work_directory"):
        if not getattr(request, name).startswith("/"):
            faults.append(f"{name} {getattr(request, name)!r} is not an absolute path")
    if any(not path.startswith("/") for path in request.files_in):
        faults.append("a path in files_in is not absolute")
    names = [path.rsplit("/", 1)[-1] for path in request.files_in]
    if len(set(names)) != len(names):
        faults.append("two of files_in have the same last name")
    lines = (
        request.executable,
        request.work_directory,
        request.queue,
        *request.files_in,
        *request.extra_lines,
    )
    if any(ord(letter) < 32 or ord(letter) == 127 for line in lines for letter in line):
        faults.append("a path, queue or extra line holds a control character")
    if not all(is_host(host) for host in request.exclude_hosts):
        faults.append("a host to avoid has no name that a host could have")
    for text in (*request.arguments, *request.environment.values(), *lines):
        if "\0" in text or len(text) > TEXT_MAX:
            faults.append(f"a text holds NUL or more than {TEXT_MAX} characters")
            break
    wrong = sorted(name for name in request.environment if not VARIABLE_PATTERN.fullmatch(name))
    if wrong:
        faults.append(f"{wrong[0]!r} cannot name an environment variable")
    if not -PRIORITY_MAX <= request.priority <= PRIORITY_MAX:
        faults.append(f"priority {request.priority} is not within -{PRIORITY_MAX} to {PRIORITY_MAX}")
    if request.cores < 1 or min(request.walltime_s, request.memory_mib, request.disk_mib, request.gpus) < 0:
        faults.append("cores must be at least 1, other amounts at least 0")
    return faults
