"""Takes a dataset in: the document is checked, spread to other nodes, and only then is its one log entry
proposed.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol

from iceprod_p2p.base.config_blobs import BlobsConfig
from iceprod_p2p.base.config_external import ExternalConfig
from iceprod_p2p.base.errors import BadInput, NotAllowed, Unavailable
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.commands import RecordBlob, SubmitDataset
from iceprod_p2p.ledger.limits import ATTEMPTS_MAX, DATASET_JOBS_MAX, PRIORITY_MAX
from iceprod_p2p.ledger.versions import NAMED_BLOBS
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.person import Role
from iceprod_p2p.model.steering import Configuration
from iceprod_p2p.site.consensus import Consensus, applied, stable_request_id
from iceprod_p2p.site.file_service import FileService
from iceprod_p2p.site.preparation import Preparation, named_blobs
from iceprod_p2p.steering.limits import FILE_BYTES_MAX
from iceprod_p2p.steering.plan import closing_shapes, task_shapes
from iceprod_p2p.steering.read import read
from iceprod_p2p.steering.write import canonical
from iceprod_p2p.wire.pb import control_pb2
from iceprod_p2p.wire.translate import text

BLOBS_MAX: Final = 256
SUBMIT_S: Final = 20.0
_BLOB: Final = re.compile(rb"iceprod://sha256/([0-9a-f]{64})(?![0-9a-f])")
log = get_logger("submission")


class SubmissionView(Protocol):
    """What is read of the ledger."""

    def person(self, name: str) -> tuple[Role | None, tuple[str, ...]]:
        """A person's role and groups."""
        ...

    def sites(self) -> tuple[str, ...]:
        """The names of all sites."""
        ...


@dataclass(frozen=True, slots=True)
class Checked:
    """A submission that can be made as far as it tells itself: the document and its tasks."""

    configuration: Configuration
    shapes: tuple[TaskShape, ...]
    closing: tuple[TaskShape, ...]
    jobs: int
    warnings: tuple[str, ...]


class Submission:
    """Used on the event loop only."""

    def __init__(
        self,
        *,
        node_id: str,
        files: FileService,
        consensus: Consensus,
        cluster: SubmissionView,
        external: ExternalConfig = ExternalConfig(),
        copies: BlobsConfig,
    ) -> None:
        self._copies = copies
        self._node_id = node_id
        self._files = files
        self._consensus = consensus
        self._cluster = cluster
        self._preparation = Preparation(files=files, consensus=consensus, config=external)

    async def submit(
        self, request: control_pb2.SubmitRequest, person: str, request_id: bytes
    ) -> control_pb2.SubmitReply:
        """Submit one dataset for `person`; a repeat with the same request id gives the first one's number."""
        # Reading a long document takes a while, and pilots wait for this loop.
        checked = await asyncio.to_thread(check_submission, request)
        self._check_person(request, person)
        names = [shape.name for shape in (*checked.shapes, *checked.closing)]
        warnings = [*checked.warnings, *self._site_warnings(request)]
        configuration, pinned = await self._preparation.pin(checked.configuration, dry_run=request.dry_run)
        places = {task.name: index for index, task in enumerate(configuration.tasks)}
        software = self._preparation.software
        shapes = await asyncio.to_thread(software, configuration, checked.shapes, places)
        closing = await asyncio.to_thread(software, configuration, checked.closing, places)
        if request.dry_run:
            return control_pb2.SubmitReply(warnings=warnings, task_names=names, jobs=checked.jobs)
        content, blobs = await asyncio.to_thread(document_of, configuration)
        for blob in blobs:
            await self._files.ensure(blob)
        document = await self._files.put_bytes(content)
        copies = 0
        for blob in (document, *blobs):
            copies = await self.spread(blob, request_id)
        passing("submit.propose.before")
        command = SubmitDataset(
            steering_sha256=document,
            jobs=checked.jobs,
            shapes=shapes,
            seed=request.seed if request.seed_given else _seed_of(request_id),
            owner=person,
            group=request.group,
            alias=request.alias,
            description=request.description,
            category=request.category,
            priority=request.priority if request.priority_given else 500,
            sites_allowed=tuple(sorted(set(request.sites_allowed))),
            sites_excluded=tuple(sorted(set(request.sites_excluded))),
            attempts_max=request.attempts_max or 3,
            closing=closing,
            blobs=blobs if self._names_blobs() else (),
        )
        outcome = await self._consensus.propose(
            command, actor=f"person:{person}", request_id=request_id, timeout_s=SUBMIT_S
        )
        number = applied(outcome, remedy="correct the submission and repeat it").number
        passing("submit.propose.after")
        log.info("dataset submitted", dataset=number, owner=person, jobs=checked.jobs, copies=copies)
        return control_pb2.SubmitReply(
            dataset=number,
            warnings=warnings,
            task_names=names,
            jobs=checked.jobs,
            blob_copies=copies,
            pinned=[one.sentence for one in pinned],
        )

    def _names_blobs(self) -> bool:
        """Return whether all nodes read what a dataset needs; while some do not, no blob is ever forgotten."""
        with self._consensus.view() as kv:
            return queries.version(kv) >= NAMED_BLOBS

    async def spread(self, blob: str, request_id: bytes) -> int:
        """Give a blob to other nodes and record who holds it; return how many do, this one included."""
        others = await self._files.spread(blob, copies=self._copies.copies)
        if len(others) < min(self._copies.copies_least, self._copies.copies, self._files.others):
            raise Unavailable(
                f"the dataset's document was given to {len(others) or 'no'} other node(s), so it could be lost",
                remedy="see `iceprod cluster status`, and submit again when another node can be reached",
            )
        holders = (self._node_id, *others)
        command = RecordBlob(blob, self._files.size_bytes(blob), holders)
        outcome = await self._consensus.propose(
            command,
            actor=f"node:{self._node_id}",
            request_id=stable_request_id("blob", request_id.hex(), blob, *holders),
        )
        applied(outcome)
        return len(holders)

    def _check_person(self, request: control_pb2.SubmitRequest, person: str) -> None:
        role, groups = self._cluster.person(person)
        if request.group and request.group not in groups and role not in (Role.OPERATOR, Role.ADMINISTRATOR):
            raise NotAllowed(
                f"{person} is not in group {request.group!r}",
                remedy=f"use one of: {', '.join(groups) or 'none'}",
            )

    def _site_warnings(self, request: control_pb2.SubmitRequest) -> list[str]:
        known = self._cluster.sites()
        named = sorted({*request.sites_allowed, *request.sites_excluded})
        return [f"there is no site {site!r} now" for site in named if site not in known]


def check_submission(request: control_pb2.SubmitRequest) -> Checked:
    """Check everything that needs no ledger; BadInput (SteeringError with every fault) says what is wrong."""
    if len(request.document) > FILE_BYTES_MAX:
        raise BadInput(f"the document has more than {FILE_BYTES_MAX} bytes", remedy="put data into files")
    configuration = read(request.document, name="the dataset")
    shapes, closing = task_shapes(configuration), closing_shapes(configuration)
    for name in ("alias", "description", "category", "group"):
        text(getattr(request, name), name, 63 if name in ("alias", "group") else 500)
    if request.priority > PRIORITY_MAX:
        raise BadInput(
            f"priority {request.priority} is more than {PRIORITY_MAX}", remedy="0 to 1000; usual is 500"
        )
    if request.attempts_max > ATTEMPTS_MAX:
        raise BadInput(f"attempts_max {request.attempts_max} is more than {ATTEMPTS_MAX}")
    if request.jobs > DATASET_JOBS_MAX:
        raise BadInput(f"{request.jobs} jobs are more than {DATASET_JOBS_MAX}")
    warnings = () if request.jobs else ("the dataset has no jobs yet",)
    return Checked(configuration, shapes, closing, int(request.jobs), warnings)


def document_of(configuration: Configuration) -> tuple[bytes, tuple[str, ...]]:
    """Return the document that is stored, and the blobs that it names, sorted; BadInput when either is too much."""
    document = canonical(configuration)
    if len(document) > FILE_BYTES_MAX:
        raise BadInput(f"the document has more than {FILE_BYTES_MAX} bytes", remedy="put data into files")
    found = {match.decode() for match in _BLOB.findall(document)} | named_blobs(configuration)
    if len(found) > BLOBS_MAX:
        raise BadInput(f"the document names {len(found)} blobs; at most {BLOBS_MAX} may travel with it")
    return document, tuple(sorted(found))


def _seed_of(request_id: bytes) -> int:
    """A seed that a repeat of the same request gives again."""
    return int.from_bytes(sha256(b"seed" + request_id).digest()[:8], "big") >> 1
