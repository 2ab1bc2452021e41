"""The Slurm plugin through slurmrestd: the same promises as by its commands, told by one list of jobs.

`slurm` with the option `rest` becomes this.  One call lists every job that Slurm knows, ended ones for MinJobAge;
later the accounting is asked for single ones.
"""

from __future__ import annotations

import json
import pwd
from collections.abc import Collection, Mapping, Sequence
from os import getuid
from typing import Any, Final, Self

from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.grids import slurm_rest_text as rest
from iceprod_p2p.grids import slurm_text as text
from iceprod_p2p.grids.base import (
    Grid,
    GridJobStatus,
    GridRequest,
    History,
    NotSubmitted,
    SubmitConfig,
    SubmitResult,
    Submitted,
    Tag,
    Unclear,
    is_final,
)
from iceprod_p2p.grids.errors import GridDown, GridError
from iceprod_p2p.grids.slurm import SlurmGrid
from iceprod_p2p.grids.slurm_http import REMEDY, SlurmAnswer, SlurmHttp
from iceprod_p2p.grids.submitting import submit_each

UNSPECIFIED: Final = -1  # What slurmrestd makes of a controller that is away, and of a token that it refuses.


class SlurmRestGrid(SlurmGrid):
    """One Slurm cluster, spoken to by its REST interface."""

    def __init__(self, http: SlurmHttp, options: text.SlurmOptions, *, version: str, user: str) -> None:
        self._http = http
        self._options = options
        self._version = version
        self._user = user

    @classmethod
    def of(cls, options: Mapping[str, Any], slurm: text.SlurmOptions) -> Self:
        """Make the plugin from the options of `slurm`; ConfigError for what cannot be."""
        version = str(options["rest_version"])
        if version not in rest.VERSIONS:
            raise ConfigError(
                f"rest_version {version!r} is not known", remedy=f"one of {', '.join(rest.VERSIONS)}"
            )
        user = str(options["rest_user"]) or pwd.getpwuid(getuid()).pw_name
        token = str(options["rest_token"]) or str(options["environment"].get("BEARER_TOKEN_FILE", ""))
        http = SlurmHttp(
            str(options["rest"]),
            user=user,
            token=token,
            authorities=str(options["rest_authorities"]),
            timeout_s=float(options["timeout_s"]),
        )
        return cls(http, slurm, version=version, user=user)

    def write_config(self, request: GridRequest) -> SubmitConfig:
        """Return the call and its body."""
        body = rest.submission(request, self._options, self._version)
        return SubmitConfig(
            ("POST", f"{self._http.url}{self._path('slurm', 'job/submit')}"), json.dumps(body)
        )

    def submit(self, requests: Sequence[GridRequest]) -> list[SubmitResult]:
        """Submit one by one."""
        return submit_each(requests, self._submit_one)

    def history(self, grid_job_ids: Collection[str]) -> dict[str, History]:
        """Return the ends that the list of jobs knows, and for the others what the accounting says of each."""
        wanted = {name for name in grid_job_ids if name.isdigit()}
        if not wanted:
            return {}
        listed = self._squeue()
        ends = {job.grid_job_id: job.history for job in listed if job.history and job.grid_job_id in wanted}
        for name in sorted(wanted - {job.grid_job_id for job in listed}):
            for job in self._accounted(f"job/{name}"):
                if job.grid_job_id == name and job.history is not None:
                    ends[name] = job.history
        return ends

    def remove(self, grid_job_ids: Collection[str]) -> None:
        """Cancel one by one; running ones get TERM, and KILL after the site's KillWait."""
        for name in sorted(name for name in grid_job_ids if name.isdigit()):
            answer = self._http.call("DELETE", self._path("slurm", f"job/{name}"), changes=True)
            if answer.status != 200 and not rest.error_numbers(answer.document) & rest.INVALID_ID:
                raise self._failure(answer)

    def find_by_tag(self, tags: Collection[Tag]) -> dict[Tag, GridJobStatus]:
        """Return the grid jobs with these tags, ended ones as far back as the accounting tells."""
        found = Grid.find_by_tag(self, tags)
        for tag in sorted(set(tags) - set(found)):
            for job in self._accounted(f"jobs?job_name={tag}"):
                if job.tag == tag and is_final(job.state):
                    found[tag] = GridJobStatus(job.grid_job_id, tag, job.state)
        return found

    def check(self) -> str:
        """Return Slurm's version, once the controller answers, and by which API."""
        answer = self._asked(self._path("slurm", "ping"))
        meta = answer.document.get("meta")
        told = meta.get("Slurm", meta.get("slurm")) if isinstance(meta, Mapping) else None
        release = told.get("release", "") if isinstance(told, Mapping) else ""
        pings = answer.document.get("pings") or ()
        if not any(
            isinstance(ping, Mapping) and ping.get("ping", ping.get("pinged")) == "UP" for ping in pings
        ):
            raise GridDown("slurmrestd reaches no slurmctld", command=answer.call, remedy=REMEDY)
        self._squeue()
        return f"slurmrestd {self._version} at {self._http.url}, Slurm {release}, user {self._user}"

    def _submit_one(self, request: GridRequest) -> SubmitResult:
        body = rest.submission(request, self._options, self._version)
        if len(body["script"]) >= self._options.script_mib_max << 20:
            return NotSubmitted(request.tag, text.TOO_LONG.format(mib=len(body["script"]) >> 20))
        answer = self._http.call("POST", self._path("slurm", "job/submit"), body, changes=True)
        grid_job_id = rest.submitted_id(answer.document)
        if grid_job_id is not None:
            return Submitted(request.tag, grid_job_id)
        error = self._failure(answer)
        if isinstance(error, GridDown):
            raise error
        said = rest.complaint(answer.document)
        if not said or text.SILENT.search(said):
            return Unclear(request.tag, error.message)
        return NotSubmitted(request.tag, said)

    def _squeue(self, *more: str) -> list[text.SlurmJob]:
        """Return every job of this user that Slurm lists, ended ones too."""
        return rest.jobs(self._asked(self._path("slurm", "jobs")).document, self._user)

    def _accounted(self, what: str) -> list[text.SlurmJob]:
        """Ask the accounting; a cluster without any knows nothing."""
        answer = self._http.call("GET", self._path("slurmdb", what))
        return rest.accounted(answer.document) if answer.status == 200 else []

    def _asked(self, path: str) -> SlurmAnswer:
        answer = self._http.call("GET", path)
        if answer.status != 200:
            raise self._failure(answer, asks=True)
        return answer

    def _path(self, service: str, what: str) -> str:
        return f"/{service}/{self._version}/{what}"

    def _failure(self, answer: SlurmAnswer, *, asks: bool = False) -> GridError:
        """Return the error; GridDown where nothing can have been changed."""
        said = rest.complaint(answer.document) or answer.said
        silent = UNSPECIFIED in rest.error_numbers(answer.document) or text.SILENT.search(said) is not None
        kind = GridDown if text.DOWN.search(said) or (asks and silent) else GridError
        return kind(
            f"{answer.call} was answered {answer.status}: {said}",
            command=answer.call,
            remedy=f"{REMEDY}; is the token in date?",
        )
