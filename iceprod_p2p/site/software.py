"""Software of the cluster as a node serves it: published by people, listed, retired, and told to pilots.

The tarball of a build is a blob that several nodes hold before the build is registered, so that a name that can be
seen can also be had.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from iceprod_p2p.base.errors import BadInput, NotFound
from iceprod_p2p.ledger import queries, rows
from iceprod_p2p.ledger.commands_software import PublishSoftware, RetireSoftware
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.model.software import (
    VARIABLES_MAX,
    Build,
    BuildKind,
    NotAPlatform,
    Platform,
    is_software_name,
    is_variable_name,
    parse_platform,
)
from iceprod_p2p.site.consensus import Consensus, applied
from iceprod_p2p.site.file_service import FileService
from iceprod_p2p.wire.pb import common_pb2, control_pb2, pilot_pb2
from iceprod_p2p.wire.translate import require_sha256, text

PAGE: Final = 100
PROPOSE_S: Final = 20.0


class SoftwareDesk:
    """Used on the event loop only."""

    def __init__(
        self,
        *,
        files: FileService,
        consensus: Consensus,
        spread: Callable[[str, bytes], Awaitable[int]],
    ) -> None:
        """`spread` gives a blob to other nodes and records who holds it, under the request's id."""
        self._files = files
        self._consensus = consensus
        self._spread = spread

    async def publish(
        self, request: control_pb2.PublishSoftwareRequest, person: str, request_id: bytes
    ) -> control_pb2.ControlReply:
        """Register a build whose tarball was uploaded; NotFound when no node has it."""
        message = request.build
        name, version = software_name(message.name, "software"), software_name(message.version, "a version")
        sha256 = require_sha256(message.sha256)
        await self._files.ensure(sha256)
        build = Build(
            platform=_platform(message),
            sha256=sha256,
            size_bytes=self._files.size_bytes(sha256),
            kind=_kind(message.kind),
            variables=_variables(message),
        )
        copies = await self._spread(sha256, request_id)
        command = PublishSoftware(
            name, version, build, person, text(message.description, "a description", 500)
        )
        outcome = await self._consensus.propose(
            command, actor=f"person:{person}", request_id=request_id, timeout_s=PROPOSE_S
        )
        notes = applied(outcome, remedy="publish it as another version").notes
        return control_pb2.ControlReply(notes=[*notes, f"its tarball is held by {copies} nodes"])

    async def retire(
        self, request: control_pb2.RetireSoftwareRequest, person: str, request_id: bytes
    ) -> control_pb2.ControlReply:
        """Offer builds no longer to new datasets."""
        name, version = software_name(request.name, "software"), software_name(request.version, "a version")
        command = RetireSoftware(name, version, text(request.platform, "a platform", 160), request.forget)
        outcome = await self._consensus.propose(command, actor=f"person:{person}", request_id=request_id)
        return control_pb2.ControlReply(
            notes=applied(outcome, remedy="`iceprod software list` shows what there is").notes
        )


async def software_builds(consensus: Consensus, name: str, version: str) -> pilot_pb2.SoftwareReply:
    """Return every build of a version, for a pilot; NotFound when the ledger knows none."""
    found = _look(consensus, name, version)
    if not found:
        await consensus.barrier()  # This node may lag behind the one that published it.
        found = _look(consensus, name, version)
    if not found:
        raise NotFound(f"there is no software {name[:80]!r} version {version[:80]!r}")
    return pilot_pb2.SoftwareReply(builds=[software_message(row) for row in found])


def _look(consensus: Consensus, name: str, version: str) -> tuple[rows.SoftwareRow, ...]:
    with consensus.view() as kv:
        return queries.software_builds(kv, name, version)


def list_software(kv: KeyValue, request: control_pb2.ListSoftwareRequest) -> control_pb2.ListSoftwareReply:
    """Return one page of builds, by name, version and platform."""
    if request.version:
        name, version = software_name(request.name, "software"), software_name(request.version, "a version")
        found = queries.software_builds(kv, name, version)
        return control_pb2.ListSoftwareReply(builds=[software_message(row) for row in found])
    name = software_name(request.name, "software") if request.name else ""
    parts = tuple(request.after.split(" "))
    after = (parts[0], parts[1], parts[2]) if request.after and len(parts) == 3 else None
    page = queries.software(kv, name, after=after, limit=min(request.limit or PAGE, 1_000))
    return control_pb2.ListSoftwareReply(
        builds=[software_message(row) for row in page.rows], next_after=" ".join(page.next_after or ())
    )


def software_message(row: rows.SoftwareRow) -> common_pb2.SoftwareBuild:
    """A build as it travels."""
    build = row.build
    return common_pb2.SoftwareBuild(
        name=row.name,
        version=row.version,
        os=build.platform.os,
        arch=build.platform.arch,
        libc=build.platform.libc,
        python=build.platform.python,
        platform=build.platform.text,
        sha256=build.sha256,
        size_bytes=build.size_bytes,
        kind=str(build.kind),
        variables=build.variables,
        owner=row.owner,
        description=row.description,
        published_ms=row.published_ms,
        retired=row.retired,
    )


def software_name(value: str, what: str) -> str:
    """Return a name or version; BadInput for one that cannot be."""
    if not is_software_name(value):
        raise BadInput(
            f"{value[:80]!r} cannot name {what}", remedy="use letters, digits and '._+-', at most 63"
        )
    return value


def _platform(message: common_pb2.SoftwareBuild) -> Platform:
    given = Platform(message.os, message.arch, message.libc, message.python)
    written = "-".join(
        part
        for part in (given.os, given.arch, given.libc, f"py{given.python}" if given.python else "")
        if part
    )
    try:
        understood = parse_platform(written)
    except NotAPlatform as wrong:
        raise BadInput(str(wrong)) from wrong
    return msgspec.convert(msgspec.to_builtins(understood), Platform)


def _kind(word: str) -> BuildKind:
    try:
        return BuildKind(word or "tree")
    except ValueError:
        raise BadInput(
            f"{word[:40]!r} is no kind of build", remedy=f"one of: {', '.join(BuildKind)}"
        ) from None


def _variables(message: common_pb2.SoftwareBuild) -> dict[str, str]:
    if len(message.variables) > VARIABLES_MAX:
        raise BadInput(f"a build sets at most {VARIABLES_MAX} environment variables")
    for name, value in message.variables.items():
        if not is_variable_name(name):
            raise BadInput(f"{name[:80]!r} cannot name an environment variable")
        text(value, f"the value of {name}", 512)
    return {name: message.variables[name] for name in sorted(message.variables)}
