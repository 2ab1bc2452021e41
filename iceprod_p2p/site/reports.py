"""A pilot's report becomes a command: the passkey is checked here, at the edge, and everything else by the
ledger.

Signature, audience and time (the ledger's) are checked before anything is proposed; attempt, holder and state
are checked once more when the command is applied, on every node alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.ledger.commands import Command, CopyTask, FailTask, FinishTask, GiveBack, TaskRef
from iceprod_p2p.model.files import FileEntry
from iceprod_p2p.model.identity import Identity
from iceprod_p2p.model.states import FailReason
from iceprod_p2p.security import passkeys
from iceprod_p2p.security.passkeys import Operation, PasskeyKey, SignedHere
from iceprod_p2p.site.consensus import stable_task_request_id
from iceprod_p2p.wire import translate
from iceprod_p2p.wire.pb import common_pb2, pilot_pb2

REASON_LENGTH_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Edge:
    """What passkeys are checked against at one moment."""

    cluster: str
    now_ms: int  # Ledger time.
    keys: Mapping[str, PasskeyKey]
    signed_here: SignedHere | None = None

    def claims(self, passkey: bytes, ref: TaskRef, identity: Identity) -> passkeys.Claims:
        """Return what a passkey says; PasskeyRefused unless it lets this pilot report on this attempt."""
        return passkeys.verify(
            passkey,
            self.keys,
            cluster=self.cluster,
            now_ms=self.now_ms,
            operation=Operation.REPORT,
            holder=identity.key_digest,
            task=(ref.dataset, ref.job, ref.task, ref.attempt),
            signed_here=self.signed_here,
        )


@dataclass(frozen=True, slots=True)
class Proposed:
    """A report, checked: the command to propose and the files that must be held before it may be."""

    report_id: int
    command: Command
    request_id: bytes
    files: tuple[FileEntry, ...] = ()


def read_report(report: pilot_pb2.Report, identity: Identity, edge: Edge, *, here: str) -> Proposed:
    """Check one report; `here` is the site of this node, where its files are held.

    PasskeyRefused for its passkey, BadInput for its content.
    """
    ref = ref_of(report.ref)
    claims = edge.claims(report.passkey, ref, identity)
    request_id = stable_task_request_id(ref, "report", identity.key_digest.hex(), report.report_id)
    match report.WhichOneof("what"):
        case "copying":
            return Proposed(report.report_id, CopyTask(ref, identity.key_digest), request_id)
        case "finished":
            return _finished(report, ref, identity, request_id, here)
        case "failed":
            return _failed(report, ref, identity, request_id, claims.site)
        case "given_back":
            reason = report.given_back.reason[:REASON_LENGTH_MAX]
            command = GiveBack(claims.site, (ref,), translate.text(reason, "a reason", REASON_LENGTH_MAX))
            return Proposed(report.report_id, command, request_id)
        case _:
            raise BadInput(f"report {report.report_id} says nothing", remedy="upgrade the node or the pilot")


def ref_of(message: common_pb2.TaskRef) -> TaskRef:
    """Read one attempt."""
    return TaskRef(message.dataset, message.job, message.task, message.attempt)


def ref_to(ref: TaskRef) -> common_pb2.TaskRef:
    """Write one attempt."""
    return common_pb2.TaskRef(dataset=ref.dataset, job=ref.job, task=ref.task, attempt=ref.attempt)


def _finished(
    report: pilot_pb2.Report, ref: TaskRef, identity: Identity, request_id: bytes, here: str
) -> Proposed:
    what = report.finished
    files = translate.files_from(what.files)
    command = FinishTask(
        ref=ref,
        holder=identity.key_digest,
        site=here,
        statistics=translate.statistics_from(what.statistics),
        files=files,
        usage=translate.usage_from(what.usage),
    )
    return Proposed(report.report_id, command, request_id, files)


def _failed(
    report: pilot_pb2.Report, ref: TaskRef, identity: Identity, request_id: bytes, site: str
) -> Proposed:
    what = report.failed
    files = translate.files_from(what.files)
    try:
        reason = FailReason(what.reason)
    except ValueError:
        raise BadInput(f"{what.reason[:40]!r} is no reason to fail for", remedy="upgrade the node") from None
    command = FailTask(
        ref=ref,
        holder=identity.key_digest,
        site=site,
        reason=reason,
        message=translate.message_tail(what.message),
        exit_code=what.exit_code,
        usage=translate.usage_from(what.usage),
        files=files,
    )
    return Proposed(report.report_id, command, request_id, files)
