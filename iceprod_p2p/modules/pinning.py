"""External modules of a document: which there are, and the document with each named by its content.

Pure: fetching is `modules.external`'s work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.model.external import External, is_external, parse_external
from iceprod_p2p.model.steering import ClassReference, Configuration, Module, Task, Tray
from iceprod_p2p.steering.expand import base_context
from iceprod_p2p.steering.expressions.evaluate import Expander

EXTERNALS_MAX: Final = 32  # Of one dataset.
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


def parts(configuration: Configuration) -> Iterator[Task | Tray | Module]:
    """Yield every task, tray and module, from the top."""
    for task in configuration.tasks:
        yield from parts_of(task)


def parts_of(task: Task) -> Iterator[Task | Tray | Module]:
    """Yield a task, and every tray and module of it."""
    yield task
    for tray in task.trays:
        yield tray
        yield from tray.modules


def externals_of(configuration: Configuration) -> dict[Key, External]:
    """Return every external module of a document; BadInput for too many, or for one that differs between jobs."""
    wanted = dict.fromkeys(_externals(configuration))
    if len(wanted) > EXTERNALS_MAX:
        raise BadInput(
            f"the dataset names {len(wanted)} external modules; at most {EXTERNALS_MAX} are fetched"
        )
    return {key: parse_external(*key[:2]) for key in wanted}


def _externals(configuration: Configuration) -> Iterator[Key]:
    for task in configuration.tasks:
        expander = expander_of(configuration, task)
        for part in parts_of(task):
            for reference in part.classes:
                if is_external(expanded(expander, reference.src)):
                    yield _key(expander, reference.src, reference.revision, reference.sha256)
            if isinstance(part, Module) and is_external(expanded(expander, part.src)):
                yield _key(expander, part.src, "", "")


def _key(expander: Expander, src: str, revision: str, sha256: str) -> Key:
    found = tuple(expanded(expander, text) for text in (src, revision, sha256))
    unknown = next((text for text in found if "$" in text), "")
    if unknown:
        raise BadInput(
            f"the external module {unknown[:200]!r} is not the same for all jobs",
            remedy="name it by steering parameters and options alone: it is fetched once, at submission",
        )
    return found[0], found[1], found[2]


def expander_of(configuration: Configuration, task: Task) -> Expander:
    """Return what expands a task's texts with what is the same for all jobs."""
    context = base_context(configuration, args={}, system={}, options={}, environ={}, seed=0)
    values = {parameter.name: parameter.value for parameter in task.parameters}
    return Expander(replace(context, scopes=(("task.parameters", values),)))


def expanded(expander: Expander, text: str) -> str:
    """Return a text expanded; what only a job knows stays as it stands."""
    if "$" not in text and "\\" not in text:
        return text
    return str(expander.expand(text, "software", as_text=True).value)


def pinned_document(configuration: Configuration, found: Mapping[Key, Pinned]) -> Configuration:
    """Return the document with each external source named by its content."""

    def tasks() -> Iterator[Task]:
        for task in configuration.tasks:
            expander = expander_of(configuration, task)

            def classes(part: Part, expander: Expander = expander) -> Part:
                return replace(part, classes=tuple(reference(one, expander) for one in part.classes))

            def module(one: Module, expander: Expander = expander) -> Module:
                if is_external(expanded(expander, one.src)):
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
        if not is_external(expanded(expander, one.src)):
            return one
        pinned = found[_key(expander, one.src, one.revision, one.sha256)]
        return replace(one, src=pinned.src, revision=pinned.revision, sha256=pinned.sha256)

    return replace(configuration, tasks=tuple(tasks()))
