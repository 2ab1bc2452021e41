"""A task of one job with everything known: what a pilot runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from iceprod_p2p.model.resources import Requirements
from iceprod_p2p.model.steering import (
    ClassReference,
    Data,
    Environment,
    ParameterType,
    Project,
    Resource,
    Value,
)
from iceprod_p2p.steering.expressions.evaluate import Problem


@dataclass(frozen=True, slots=True)
class ExpandedParameter:
    """A parameter in its type; `unit` is what stood after ``@``, and empty mostly."""

    name: str
    type: ParameterType
    value: Value
    unit: str = ""


@dataclass(frozen=True, slots=True)
class ExpandedModule:
    """One run of a module.

    `parameters` are the module's own; `inherited` are those of tray, task and steering that it does not set itself,
    the nearest of each name: a class takes from them what it declares.
    """

    name: str
    index: int
    class_name: str
    src: str
    args: str | list[Value] | dict[str, Value]
    env_shell: str
    env_clear: bool
    environment: Environment | None
    parameters: tuple[ExpandedParameter, ...]
    inherited: tuple[ExpandedParameter, ...]
    resources: tuple[Resource, ...]
    data: tuple[Data, ...]
    classes: tuple[ClassReference, ...]
    projects: tuple[Project, ...]
    configs: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExpandedTray:
    """One iteration of a tray."""

    name: str
    index: int
    iteration: int
    environment: Environment | None
    resources: tuple[Resource, ...]
    data: tuple[Data, ...]
    classes: tuple[ClassReference, ...]
    projects: tuple[Project, ...]
    modules: tuple[ExpandedModule, ...]


@dataclass(frozen=True, slots=True)
class ExpandedTask:
    """One task of one job.

    `data` and `resources` are those of the steering and the task; trays and modules have their own.  `args` are the
    job arguments; `batchsys` are options by batch system.  `problems` lists the phrases that stayed as they stand.
    """

    name: str
    index: int
    args: dict[str, Value]
    requirements: Requirements
    container: str
    environment: Environment | None
    batchsys: dict[str, dict[str, Value]]
    parameters: tuple[ExpandedParameter, ...]
    resources: tuple[Resource, ...]
    data: tuple[Data, ...]
    classes: tuple[ClassReference, ...]
    projects: tuple[Project, ...]
    trays: tuple[ExpandedTray, ...]
    problems: tuple[Problem, ...] = ()

    def all_data(self) -> tuple[Data, ...]:
        """Return the files of the task, its trays and its modules in order, without repeats."""
        found = dict.fromkeys(self.data)
        for tray in self.trays:
            found.update(dict.fromkeys(tray.data))
            for module in tray.modules:
                found.update(dict.fromkeys(module.data))
        return tuple(found)
