"""Makes a dataset whole before it is taken in: external modules fetched and pinned, its software known.

After this a job needs nothing from outside the cluster: the document names everything by its SHA-256.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from iceprod_p2p.base.config_external import ExternalConfig
from iceprod_p2p.base.errors import BadInput, IceProdError, IntegrityError
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger import queries
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.model.external import External, is_external, parse_external
from iceprod_p2p.model.software import NotAPlatform, attributes_of, parse_platform, within
from iceprod_p2p.model.steering import (
    ClassReference,
    Configuration,
    Environment,
    Module,
    Task,
    Tray,
)
from iceprod_p2p.modules.external import Bounds, fetch
from iceprod_p2p.modules.outbound import OutboundPolicy, parse_networks
from iceprod_p2p.site.consensus import Consensus
from iceprod_p2p.site.file_service import FileService
from iceprod_p2p.steering.expand import base_context
from iceprod_p2p.steering.expressions.evaluate import Expander

EXTERNALS_MAX: Final = 32  # Of one dataset.
FETCHES_AT_ONCE: Final = 4  # Of one node.
MIB: Final = 1024 * 1024
log = get_logger("preparation")
Key = tuple[str, str, str]  # Source, revision, promised SHA-256.
Part = TypeVar("Part", Task, Tray, Module)


@dataclass(frozen=True, slots=True)
class Pinned:
    """An external module as it was fetched: what was asked for, what that came to, and its content."""

    src: str
    revision: str
    exactly: str
    sha256: str
    file_name: str

    @property
    def sentence(self) -> str:
        """What people are told."""
        at = f" at {self.revision}" if self.revision else ""
        return f"{self.src}{at}: {self.exactly}, SHA-256 {self.sha256}"


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
        wanted = await asyncio.to_thread(lambda: dict.fromkeys(_externals(configuration)))
        if len(wanted) > EXTERNALS_MAX:
            raise BadInput(
                f"the dataset names {len(wanted)} external modules; at most {EXTERNALS_MAX} are fetched"
            )
        parsed = {key: parse_external(*key[:2]) for key in wanted}
        if dry_run or not wanted:
            for external in parsed.values():
                self._policy.judge_host(external.host)
            return configuration, []
        found = await asyncio.gather(*(self._fetched(key, parsed[key]) for key in wanted))
        by_key = dict(zip(wanted, found, strict=True))
        return await asyncio.to_thread(_pinned, configuration, by_key), list(found)

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
    for part in _parts(configuration):
        found.update(one.sha256 for one in part.classes if one.sha256)
        environment = part.environment
        if environment is not None and environment.sha256 and not environment.software:
            found.add(environment.sha256)
    return {digest for digest in found if "$" not in digest}


def _parts(configuration: Configuration) -> Iterator[Task | Tray | Module]:
    for task in configuration.tasks:
        yield from _parts_of(task)


def _parts_of(task: Task) -> Iterator[Task | Tray | Module]:
    yield task
    for tray in task.trays:
        yield tray
        yield from tray.modules


def _environments(configuration: Configuration, task: Task) -> Iterator[Environment]:
    """Yield every environment that some module of a task runs in, with what is the same for all jobs filled in."""
    expander = _expander(configuration, task)
    for tray in task.trays:
        for module in tray.modules:
            nearest = module.environment or tray.environment or task.environment
            if nearest is not None:
                texts = {name: _expanded(expander, getattr(nearest, name)) for name in Environment.__slots__}
                yield Environment(**texts)


def _externals(configuration: Configuration) -> Iterator[Key]:
    for task in configuration.tasks:
        expander = _expander(configuration, task)
        for part in _parts_of(task):
            for reference in part.classes:
                if is_external(_expanded(expander, reference.src)):
                    yield _key(expander, reference.src, reference.revision, reference.sha256)
            if isinstance(part, Module) and is_external(_expanded(expander, part.src)):
                yield _key(expander, part.src, "", "")


def _key(expander: Expander, src: str, revision: str, sha256: str) -> Key:
    found = tuple(_expanded(expander, text) for text in (src, revision, sha256))
    unknown = next((text for text in found if "$" in text), "")
    if unknown:
        raise BadInput(
            f"the external module {unknown[:200]!r} is not the same for all jobs",
            remedy="name it by steering parameters and options alone: it is fetched once, at submission",
        )
    return found[0], found[1], found[2]


def _expander(configuration: Configuration, task: Task) -> Expander:
    context = base_context(configuration, args={}, system={}, options={}, environ={}, seed=0)
    values = {parameter.name: parameter.value for parameter in task.parameters}
    return Expander(replace(context, scopes=(("task.parameters", values),)))


def _expanded(expander: Expander, text: str) -> str:
    if "$" not in text and "\\" not in text:
        return text
    return str(expander.expand(text, "software", as_text=True).value)


def _pinned(configuration: Configuration, found: Mapping[Key, Pinned]) -> Configuration:
    """Return the document with each external source named by its content."""

    def tasks() -> Iterator[Task]:
        for task in configuration.tasks:
            expander = _expander(configuration, task)

            def classes(part: Part, expander: Expander = expander) -> Part:
                return replace(part, classes=tuple(reference(one, expander) for one in part.classes))

            def module(one: Module, expander: Expander = expander) -> Module:
                if is_external(_expanded(expander, one.src)):
                    pinned = found[_key(expander, one.src, "", "")]
                    if parse_external(pinned.src).is_archive:
                        raise BadInput(
                            f"the module source {pinned.src[:200]} is an archive",
                            remedy="name a file of it, or name it in `classes`",
                        )
                    one = replace(one, src=f"iceprod://sha256/{pinned.sha256}/{pinned.file_name}")
                return classes(one, expander)

            trays = tuple(
                replace(classes(tray), modules=tuple(module(one) for one in tray.modules))
                for tray in task.trays
            )
            yield replace(classes(task), trays=trays)

    def reference(one: ClassReference, expander: Expander) -> ClassReference:
        if not is_external(_expanded(expander, one.src)):
            return one
        pinned = found[_key(expander, one.src, one.revision, one.sha256)]
        return replace(one, src=pinned.src, revision=pinned.revision, sha256=pinned.sha256)

    return replace(configuration, tasks=tuple(tasks()))
