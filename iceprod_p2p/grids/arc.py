"""The plugin for NorduGrid ARC: A-REX's REST interface, with an x509 proxy or a token.

ARC carries the files of a grid job to its worker node and takes many grid jobs in one call.  A grid job carries its tag
as its name.  When one has ended, its output is fetched into its work directory; it stays there until the site has noted
the end, and is cleaned then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from iceprod_p2p.base.clock import Clock, SystemClock
from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.base.settings import Setting
from iceprod_p2p.grids import arc_text as text
from iceprod_p2p.grids.base import (
    Capabilities,
    Grid,
    GridJobStatus,
    GridRequest,
    GridState,
    History,
    NotSubmitted,
    SubmitConfig,
    SubmitResult,
    Submitted,
    Tag,
    Unclear,
)
from iceprod_p2p.grids.errors import GridDown, GridError
from iceprod_p2p.grids.files import place_files
from iceprod_p2p.grids.rest import Answer, Rest
from iceprod_p2p.security.credentials import CredentialKind, delegate
from iceprod_p2p.security.random import new_seed

API: Final = "/rest/1.0"
OUTPUT_BYTES_MAX: Final = 1 << 20  # Of a pilot's log; the rest stays where it is, and goes with it.
IDS_PER_CALL: Final = 500
JSON: Final = "application/json"
log = get_logger("grid.arc")


class ArcGrid(Grid):
    """One computing element."""

    OPTIONS: ClassVar[tuple[Setting, ...]] = (
        Setting("url", "text", None, "of A-REX, such as https://ce.example.org/arex"),
        Setting("credential", "path", None, "file with an x509 proxy or a token, 0600"),
        Setting("certificates", "path", "/etc/grid-security/certificates", "directory of authorities"),
        Setting("delegate", "switch", True, "give A-REX a proxy of its own, where the credential is one"),
        Setting("timeout_s", "number", 60.0, "for one call", 1, 3_600),
    )

    def __init__(self, rest: Rest, *, delegates: bool = True, clock: Clock | None = None) -> None:
        self._rest = rest
        self._delegates = delegates
        self._clock = clock or SystemClock()
        self._delegation: tuple[int, str] = (
            0,
            "",
        )  # The end of the credential that it was made from, and its id.
        self._known: dict[str, tuple[Tag | None, str]] = {}  # Tag and work directory, by id.
        self._fetched: set[str] = set()
        self._words: dict[str, str] = {}  # The states of those that have ended, as last listed.

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> Self:
        """Make the plugin; asks nobody."""
        rest = Rest(
            str(options["url"]),
            credential=str(Path(str(options["credential"])).expanduser()),
            certificates=str(options["certificates"]),
            timeout_s=float(str(options["timeout_s"])),
        )
        return cls(rest, delegates=bool(options["delegate"]))

    def capabilities(self) -> Capabilities:
        """Return what ARC can do; what it enforces is up to the batch system behind it."""
        return Capabilities(jobs_per_submit=100, transfers_files=True, enforces=frozenset({"walltime"}))

    def write_config(self, request: GridRequest) -> SubmitConfig:
        """Return the call and the job description."""
        return SubmitConfig(("POST", f"{self._rest.url}{API}/jobs?action=new"), text.description(request))

    def submit(self, requests: Sequence[GridRequest]) -> list[SubmitResult]:
        """Submit all in one call, then bring each one's files."""
        if not requests:
            return []
        for request in requests:
            place_files(request)
        delegation = self._delegated()
        document = text.many([text.description(request, delegation=delegation) for request in requests])
        try:
            answer = self._rest.change(
                "POST", f"{API}/jobs?action=new", document.encode(), content_type="application/rsl"
            )
            rows = text.rows(answer.json(), answer.call)
        except GridDown:
            raise
        except GridError as trouble:
            return [Unclear(request.tag, str(trouble)) for request in requests]
        if len(rows) != len(requests):
            return self._unanswered(requests, answer)
        return [self._submitted(request, row) for request, row in zip(requests, rows, strict=True)]

    def status(self, grid_job_ids: Collection[str]) -> dict[str, GridState]:
        """Return the states of those that live, by one call for each state of ARC and one for all ids."""
        wanted = set(grid_job_ids)
        if not wanted:
            return {}
        words = self._list()
        return {
            name: text.live_state(word)
            for name, word in words.items()
            if name in wanted and word not in text.ENDED
        }

    def history(self, grid_job_ids: Collection[str]) -> dict[str, History]:
        """Return the ends, with two calls for each."""
        wanted = set(grid_job_ids)
        if wanted - set(self._words):
            self._list()
        return {name: self._end(name) for name in sorted(wanted) if name in self._words}

    def remove(self, grid_job_ids: Collection[str]) -> None:
        """Kill; the end shows some seconds later."""
        self._act("kill", grid_job_ids)

    def our_jobs(self, owner: str) -> list[GridJobStatus]:
        """Return an owner's grid jobs, ended ones until they are cleaned; one call for each that is new to us."""
        found = []
        for name, word in self._list().items():
            tag, _ = self._described(name)
            if tag is not None and tag.owner == owner:
                state = self._end(name).state if word in text.ENDED else text.live_state(word)
                found.append(GridJobStatus(name, tag, state))
        return found

    def forget(self, grid_job_ids: Collection[str]) -> None:
        """Clean: their output was fetched when their end was seen."""
        self._act("clean", grid_job_ids)
        for name in grid_job_ids:
            self._fetched.discard(name)
            self._known.pop(name, None)
            self._words.pop(name, None)

    def check(self) -> str:
        """Return the service and what the credential is."""
        count = len(self._ids(f"{API}/jobs"))
        kind = self._rest.credential().kind
        return f"ARC at {self._rest.url} (REST 1.0), credential: {kind}, {count} grid jobs there"

    def _submitted(self, request: GridRequest, row: Mapping[str, Any]) -> SubmitResult:
        if str(row.get("status-code")) != "201" or not row.get("id"):
            return NotSubmitted(request.tag, str(row.get("reason") or row)[:500])
        grid_job_id = str(row["id"])
        self._known[grid_job_id] = (request.tag, request.work_directory)
        try:
            self._put(grid_job_id, text.SCRIPT_NAME, text.script(request).encode())
            for path in request.files_in:
                self._put(grid_job_id, path.rsplit("/", 1)[-1], Path(path))
        except (GridError, OSError) as broken:
            # Without its files it would wait; it is killed where that can be said, else ARC gives it up by itself.
            try:
                self._act("kill", [grid_job_id])
            except GridError as silent:
                log.warning("grid job without its files not killed", grid_job=grid_job_id, why=str(silent))
            return Unclear(request.tag, f"its files could not be brought: {broken}")
        return Submitted(request.tag, grid_job_id)

    def _unanswered(self, requests: Sequence[GridRequest], answer: Answer) -> list[SubmitResult]:
        """One bad description spoils the call: alone it is refused, and among others each is tried alone."""
        if len(requests) == 1:
            return [NotSubmitted(requests[0].tag, f"ARC refused it ({answer.status}): {answer.said}")]
        return [result for request in requests for result in self.submit([request])]

    def _put(self, grid_job_id: str, name: str, content: bytes | Path) -> None:
        answer = self._rest.repeat("PUT", f"{API}/jobs/{grid_job_id}/session/{name}", content)
        if answer.status not in (200, 201, 204):
            raise GridError(f"{answer.call} ended with {answer.status}: {answer.said}", command=answer.call)

    def _act(self, action: str, grid_job_ids: Collection[str]) -> None:
        names = sorted(set(grid_job_ids))
        for start in range(0, len(names), IDS_PER_CALL):
            part = names[start : start + IDS_PER_CALL]
            body = text.job_list(part)
            answer = self._rest.repeat("POST", f"{API}/jobs?action={action}", body, content_type=JSON)
            text.rows(answer.json(), answer.call)

    def _list(self) -> dict[str, str]:
        """Return every grid job of this credential with ARC's word for its state, empty where no list names it."""
        words = dict.fromkeys(self._ids(f"{API}/jobs"), "")
        for word in text.STATES_ASKED:
            for name in self._ids(f"{API}/jobs?state={word}"):
                words[name] = word
        self._words = {name: word for name, word in words.items() if word in text.ENDED}
        return words

    def _ids(self, path: str) -> list[str]:
        answer = self._rest.get(path)
        if answer.status != 200:
            raise GridError(f"{answer.call} ended with {answer.status}: {answer.said}", command=answer.call)
        return text.ids(answer.json(), answer.call)

    def _end(self, name: str) -> History:
        if name not in self._fetched:
            self._fetch_output(name)
            self._fetched.add(name)
        return text.end_of(name, self._words[name], self._told(name, "failed"), self._told(name, "diag"))

    def _told(self, name: str, what: str) -> str:
        answer = self._rest.get(f"{API}/jobs/{name}/diagnose/{what}")
        return answer.body.decode("utf-8", "replace") if answer.status == 200 else ""

    def _described(self, name: str) -> tuple[Tag | None, str]:
        if name not in self._known:
            tag, place = text.described(self._told(name, "description"))
            if tag is None:
                return None, ""  # A stranger's, or one that was not told yet: asked again next time.
            self._known[name] = (tag, place)
        return self._known[name]

    def _fetch_output(self, name: str) -> None:
        _, place = self._described(name)
        if not place or not Path(place).is_dir():
            return
        for output in text.OUTPUTS:
            answer = self._rest.get(f"{API}/jobs/{name}/session/{output}")
            if answer.status == 200:
                Path(place, output).write_bytes(answer.body[-OUTPUT_BYTES_MAX:])

    def _delegated(self) -> str:
        """Return the id of a delegation of the present credential, made anew when that was renewed."""
        if not self._delegates:
            return ""
        credential = self._rest.credential()
        if credential.kind is not CredentialKind.X509 or not credential.key_pem:
            return ""
        if self._delegation[0] == credential.expires_ms:
            return self._delegation[1]
        asked = self._rest.change("POST", f"{API}/delegations?action=new")
        identity = asked.location.rstrip("/").rsplit("/", 1)[-1]
        if asked.status != 201 or not identity:
            raise GridDown(f"{asked.call} ended with {asked.status}: {asked.said}", command=asked.call)
        try:
            signed = delegate(credential, asked.body, serial=new_seed(), now_ms=self._clock.wall_ms())
        except IceProdError as wrong:
            raise GridDown(wrong.message, command=asked.call, remedy=wrong.remedy) from wrong
        put = self._rest.repeat(
            "PUT", f"{API}/delegations/{identity}", signed, content_type="application/x-pem-file"
        )
        if put.status not in (200, 201, 204):
            raise GridDown(f"{put.call} ended with {put.status}: {put.said}", command=put.call)
        self._delegation = (credential.expires_ms, identity)
        return identity
