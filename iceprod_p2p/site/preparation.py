"""Makes a dataset whole before it is taken in: external modules fetched and pinned, its software known.

After this a job needs nothing from outside the cluster: the document names everything by its SHA-256.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from iceprod_p2p.base.config_external import ExternalConfig
from iceprod_p2p.base.errors import BadInput, IceProdError, IntegrityError
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger import queries
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.external import External
from iceprod_p2p.model.software import NotAPlatform, attributes_of, parse_platform, within
from iceprod_p2p.model.steering import (
    Configuration,
    Environment,
    Task,
)
from iceprod_p2p.modules.external import Bounds, fetch
from iceprod_p2p.modules.outbound import OutboundPolicy, parse_networks
from iceprod_p2p.modules.pinning import (
    Key,
    Pinned,
    expanded,
    expander_of,
    externals_of,
    parts,
    pinned_document,
)
from iceprod_p2p.site.consensus import Consensus
from iceprod_p2p.site.file_service import FileService

FETCHES_AT_ONCE: Final = 4  # Of one node.
MIB: Final = 1024 * 1024
log = get_logger("preparation")


class Preparation:
    """Used on the event loop; fetches run on threads."""

    def __init__(self, *, files: FileService, consensus: Consensus, config: ExternalConfig) -> None:
        self._files = files
        self._consensus = consensus
        self._policy = OutboundPolicy(
            enabled=config.enabled,
            networks=parse_networks(config.networks),
            hosts=config.hosts,
            ca_file=config.ca_file,
        )
        self._bounds = Bounds(config.size_mib * MIB, config.timeout_s)
        self._room = asyncio.Semaphore(FETCHES_AT_ONCE)

    async def pin(self, configuration: Configuration, *, dry_run: bool) -> tuple[Configuration, list[Pinned]]:
        """Return the document with every external module fetched, stored and named by its content.

        With `dry_run` addresses are only checked.  BadInput, NotAllowed, NotFound or Unavailable name the module that
        cannot be had.
        """
        # Long documents take a while, and pilots wait for this loop.
        wanted = await asyncio.to_thread(externals_of, configuration)
        if dry_run or not wanted:
            for external in wanted.values():
                self._policy.judge_host(external.host)
            return configuration, []
        found = await asyncio.gather(*(self._fetched(key, external) for key, external in wanted.items()))
        by_key = dict(zip(wanted, found, strict=True))
        return await asyncio.to_thread(pinned_document, configuration, by_key), list(found)

    def software(
        self, configuration: Configuration, shapes: tuple[TaskShape, ...], tasks: Mapping[str, int]
    ) -> tuple[TaskShape, ...]:
        """Return the shapes with what their software asks of sites; BadInput for software that there is not.

        `tasks` says where in the document the task of each shape stands, by name.  For any thread.
        """
        found = []
        for shape in shapes:
            task = configuration.tasks[tasks[shape.name]]
            words = set(shape.requirements.attributes)
            for environment in _environments(configuration, task):
                words.update(self._attributes(environment, task.name))
            needs = msgspec.structs.replace(shape.requirements, attributes=tuple(sorted(words)))
            found.append(msgspec.structs.replace(shape, requirements=needs))
        return tuple(found)

    def _attributes(self, environment: Environment, task: str) -> tuple[str, ...]:
        """Return the attributes that a site must have for a published version; none for what a job alone knows."""
        name, version = environment.software, environment.version
        if not name or "$" in name + version + environment.platform:
            return ()
        with self._consensus.view() as kv:
            rows = queries.software_builds(kv, name, version)
            others = () if rows else queries.software(kv, name).rows
        offered = [row.build for row in rows if not row.retired]
        if not offered:
            what = "is retired" if rows else "is not there"
            versions = ", ".join(sorted({row.version for row in others if not row.retired})[:8])
            raise BadInput(
                f"task {task!r} needs software {name} {version}, which {what}",
                remedy=f"there are versions {versions}"
                if versions
                else "publish it: iceprod software publish",
            )
        try:
            fitting = within(parse_platform(environment.platform), offered)
        except NotAPlatform as wrong:
            raise BadInput(f"task {task!r}: {wrong}") from wrong
        if not fitting:
            has = ", ".join(build.platform.text for build in offered)
            raise BadInput(
                f"task {task!r} needs software {name} {version} for {environment.platform}: it has {has}",
                remedy="publish such a build, or leave the platform out",
            )
        return attributes_of(fitting)

    async def _fetched(self, key: Key, external: External) -> Pinned:
        src, revision, promised = key
        if promised:
            try:
                await self._files.ensure(promised)
                return Pinned(src, revision, "held already", promised, external.file_name)
            except IceProdError:
                log.debug("pinned module is not held yet", src=src[:200], sha256=promised)
        async with self._room:
            with tempfile.TemporaryDirectory(prefix="iceprod-external-") as scratch:
                path = Path(scratch) / "content"
                exactly = await asyncio.to_thread(
                    fetch, external, path, policy=self._policy, bounds=self._bounds
                )
                digest = await self._files.put_file(path)
        if promised and digest != promised:
            raise IntegrityError(
                f"{src[:200]} has SHA-256 {digest}, not {promised} as the steering file says",
                remedy="name the revision that was meant, or take the sum away",
            )
        log.info("external module fetched", src=src[:200], exactly=exactly[:200], sha256=digest)
        return Pinned(src, revision, exactly, digest, external.file_name)


def named_blobs(configuration: Configuration) -> set[str]:
    """Return the digests that a document names beside those in ``iceprod://`` addresses."""
    found: set[str] = set()
    for part in parts(configuration):
        found.update(one.sha256 for one in part.classes if one.sha256)
        environment = part.environment
        if environment is not None and environment.sha256 and not environment.software:
            found.add(environment.sha256)
    return {digest for digest in found if "$" not in digest}


def _environments(configuration: Configuration, task: Task) -> Iterator[Environment]:
    """Yield every environment that some module of a task runs in, with what is the same for all jobs filled in."""
    expander = expander_of(configuration, task)
    for tray in task.trays:
        for module in tray.modules:
            nearest = module.environment or tray.environment or task.environment
            if nearest is not None:
                texts = {name: expanded(expander, getattr(nearest, name)) for name in Environment.__slots__}
                yield Environment(**texts)
