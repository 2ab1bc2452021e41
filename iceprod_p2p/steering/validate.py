"""What the parts of a tree must mean together: names, dependencies, amounts, types, files.

`validate` is for a tree made by any means; `read.check` uses the same rules with the places of a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from iceprod_p2p.model.software import NotAPlatform, is_software_name, parse_platform
from iceprod_p2p.model.steering import (
    After,
    BatchOptions,
    Configuration,
    Data,
    Environment,
    Module,
    Movement,
    Parameter,
    ParameterType,
    Requirements,
    Resource,
    Task,
    Tray,
    Value,
)
from iceprod_p2p.steering import amounts
from iceprod_p2p.steering.cycles import parameter_cycles, shown_way
from iceprod_p2p.steering.depends import OtherDataset, cycle, names_of, resolve_depends, too_early
from iceprod_p2p.steering.faults import Fault, FaultList, TooManyFaults, quoted
from iceprod_p2p.steering.hints import unquoted
from iceprod_p2p.steering.limits import ITERATIONS_MAX, NAME_CHARS_MAX, TASKS_MAX
from iceprod_p2p.steering.nodes import NOWHERE, Place
from iceprod_p2p.steering.values import NotThatType, convert, is_expression, with_unit

_UNSAFE_LOCAL: Final = re.compile(r"(^|/)\.\.(/|$)|^/|[\x00-\x1f]")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def validate(configuration: Configuration, *, name: str = "steering") -> list[Fault]:
    """Return every fault of a tree; places are unknown (line 0), paths are not."""
    faults = FaultList(name)
    with suppress(TooManyFaults):
        find_faults(configuration, faults, {})
    return faults.faults


def find_faults(configuration: Configuration, faults: FaultList, places: dict[str, Place]) -> None:
    """Add every fault of meaning to `faults`; `places` tells where the parts of a file stand."""
    _Validator(faults, places).configuration(configuration)


class _Validator:
    def __init__(self, faults: FaultList, places: dict[str, Place]) -> None:
        self.faults = faults
        self.places = places

    def place(self, path: str) -> Place:
        """Return the place of a part, or of the nearest part around it that has one."""
        while path not in self.places and path:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.places.get(path, NOWHERE)

    def told(self, *paths: str) -> bool:
        """Return whether the reader has found a fault here already."""
        return any(fault.path in paths for fault in self.faults.faults)

    def say(self, path: str, found: str, allowed: str, suggestion: str = "") -> None:
        self.faults.say(self.place(path), path, found, allowed, suggestion)

    def add(self, path: str, found: object, allowed: str, names: tuple[str, ...] = ()) -> None:
        self.faults.add(self.place(path), path, found, allowed, names=names)

    def configuration(self, configuration: Configuration) -> None:
        steering = configuration.steering
        self.parameters(configuration.options, "options")
        self.parameters(steering.parameters, "steering.parameters")
        self.parameters(steering.system, "steering.system")
        self.batchsys(steering.batchsys, "steering")
        self.files(steering.resources, steering.data, "steering")
        if len(configuration.tasks) > TASKS_MAX:
            self.say("tasks", f"{len(configuration.tasks)} tasks", f"at most {TASKS_MAX}")
            return
        self.task_names(configuration.tasks)
        self.depends(configuration.tasks)
        if configuration.tasks and all(task.after is After.DATASET for task in configuration.tasks):
            self.say("tasks", "only tasks after the whole dataset", "at least one task for every job")
        for index, task in enumerate(configuration.tasks):
            self.task(task, f"tasks[{index}]")
        for path, way in parameter_cycles(configuration):
            self.say(path, f"a parameter that refers to itself: {way}", "parameters without a cycle")

    def task_names(self, tasks: tuple[Task, ...]) -> None:
        first: dict[str, int] = {}
        for index, task in enumerate(tasks):
            path = f"tasks[{index}].name"
            if not task.name.strip():
                self.say(path, "an empty name", "a name for every task")
            elif "," in task.name:
                self.add(path, task.name, "a name without commas, which separate names in depends")
            elif task.name in first:
                self.add(path, task.name, f"a name that tasks[{first[task.name]}] does not have already")
            first.setdefault(task.name, index)

    def depends(self, tasks: tuple[Task, ...]) -> None:
        names = names_of(tasks)
        parents: list[tuple[int, ...]] = []
        for index, task in enumerate(tasks):
            known: list[int] = []
            for number, written in enumerate(task.depends):
                path = f"tasks[{index}].depends[{number}]"
                found = resolve_depends(written, names)
                if found is None:
                    self.add(
                        path,
                        written,
                        "the name or index of a task of this dataset, or dataset:task",
                        tuple(names),
                    )
                elif isinstance(found, OtherDataset):
                    continue
                elif too_early(tasks, index, found):
                    after = tasks[found].after
                    self.add(
                        path, written, f"a task that does not come after the whole {after}, as that one does"
                    )
                else:
                    known.append(found)
            parents.append(tuple(known))
        around = cycle(parents)
        if around:
            path = f"tasks[{around[0]}].depends"
            way = shown_way([tasks[index].name for index in around])
            self.say(path, f"tasks that wait for each other: {way}", "dependencies without a cycle")

    def task(self, task: Task, path: str) -> None:
        self.name(task.name, f"{path}.name")
        self.requirements(task.requirements, f"{path}.requirements")
        self.environment(task.environment, path)
        self.parameters(task.parameters, f"{path}.parameters")
        self.batchsys(task.batchsys, path)
        self.files(task.resources, task.data, path)
        if not task.trays and not self.told(path, f"{path}.trays"):
            self.say(f"{path}.trays", "no tray", "at least one tray")
        for index, tray in enumerate(task.trays):
            self.tray(tray, f"{path}.trays[{index}]")

    def tray(self, tray: Tray, path: str) -> None:
        self.name(tray.name, f"{path}.name")
        if isinstance(tray.iterations, int) and not 0 <= tray.iterations <= ITERATIONS_MAX:
            self.add(f"{path}.iterations", tray.iterations, f"a whole number from 0 to {ITERATIONS_MAX}")
        self.parameters(tray.parameters, f"{path}.parameters")
        self.files(tray.resources, tray.data, path)
        self.environment(tray.environment, path)
        if not tray.modules and not self.told(path, f"{path}.modules"):
            self.say(f"{path}.modules", "no module", "at least one module")
        for index, module in enumerate(tray.modules):
            self.module(module, f"{path}.modules[{index}]")

    def module(self, module: Module, path: str) -> None:
        self.name(module.name, f"{path}.name")
        self.quotes(module.class_name, f"{path}.class")
        self.quotes(module.src, f"{path}.src")
        if not module.class_name.strip() and not module.src.strip():
            self.say(path, "neither class nor src", "a class (an IPModule) or a src (a script or executable)")
        self.environment(module.environment, path)
        self.parameters(module.parameters, f"{path}.parameters")
        self.files(module.resources, module.data, path)

    def environment(self, environment: Environment | None, path: str) -> None:
        if environment is None:
            return
        here = f"{path}.environment"
        if environment.sha256 and not _SHA256.fullmatch(environment.sha256):
            self.add(f"{here}.sha256", environment.sha256, "64 hexadecimal digits")
        if not (environment.software or environment.sha256 or environment.cvmfs or environment.container):
            self.say(here, "no software", "software, sha256, cvmfs or container")
        if environment.software and not environment.version:
            self.say(here, "no version", f"the version of {environment.software[:60]}")
        for name, value in (("software", environment.software), ("version", environment.version)):
            if value and "$" not in value and not is_software_name(value):
                self.add(f"{here}.{name}", value, "letters, digits and ._+-, at most 63")
        if "$" not in environment.platform:
            try:
                parse_platform(environment.platform)
            except NotAPlatform as wrong:
                self.say(f"{here}.platform", str(wrong), "such as linux-x86_64-glibc2.28-py3.11")

    def name(self, name: str, path: str) -> None:
        if len(name) > NAME_CHARS_MAX:
            self.say(path, f"a name of {len(name)} characters", f"at most {NAME_CHARS_MAX}")
        elif not name.isprintable():
            self.add(path, name, "a name of printable characters")
        self.quotes(name, path)

    def quotes(self, text: str, path: str) -> None:
        """Report quotes as word processors write them: here they would be part of the name."""
        if meant := unquoted(text):
            self.say(
                path, f"typographic quotes around {quoted(meant)}", "straight quotes, or none", meant[:80]
            )

    def requirements(self, needs: Requirements, path: str) -> None:
        rules: tuple[tuple[str, Value, Callable[[Value], int]], ...] = (
            ("cpu", needs.cpu, amounts.count),
            ("gpu", needs.gpu, amounts.count),
            ("memory", needs.memory, amounts.mebibytes),
            ("disk", needs.disk, amounts.mebibytes),
            ("time", needs.time, amounts.seconds),
        )
        for name, value, rule in rules:
            if value is None or is_expression(value):
                continue
            try:
                rule(value)
            except amounts.BadAmount as bad:
                self.add(f"{path}.{name}", value, str(bad))

    def parameters(self, parameters: tuple[Parameter, ...], path: str) -> None:
        seen: set[str] = set()
        for parameter in parameters:
            here = f"{path}.{parameter.name}"
            self.name(parameter.name, here)
            if not parameter.name:
                self.say(path, "a parameter without a name", "a name for every parameter")
            elif parameter.name in seen:
                self.add(here, parameter.name, "each name once")
            seen.add(parameter.name)
            if not value_fits(parameter):
                self.add(here, parameter.value, f"a value of type {parameter.type}")

    def batchsys(self, systems: tuple[BatchOptions, ...], path: str) -> None:
        for system in systems:
            self.parameters(system.parameters, f"{path}.batchsys.{system.name}")

    def files(self, resources: tuple[Resource, ...], data: tuple[Data, ...], path: str) -> None:
        for where, item in _numbered(resources, data, path):
            if not item.remote and not item.local:
                self.say(where, "neither remote nor local", "at least one of the two names")
            if "$" not in item.local and _UNSAFE_LOCAL.search(item.local):
                self.add(f"{where}.local", item.local, "a name inside the job's directory")
            if isinstance(item, Data) and item.shared and item.movement is not Movement.INPUT:
                self.say(f"{where}.shared", "a shared output", "movement input: nobody writes what is shared")


def _numbered(
    resources: tuple[Resource, ...], data: tuple[Data, ...], path: str
) -> Iterator[tuple[str, Resource | Data]]:
    for index, resource in enumerate(resources):
        yield f"{path}.resources[{index}]", resource
    for index, item in enumerate(data):
        yield f"{path}.data[{index}]", item


def value_fits(parameter: Parameter) -> bool:
    """Return whether a value is of its declared type, may become so by expansion, or carries a unit."""
    value, kind = parameter.value, parameter.type
    if kind is ParameterType.ANY or type(value) is _PLAIN.get(kind):
        return True
    if is_expression(value):
        return True
    if isinstance(value, str) and kind.element in _NUMERIC and with_unit(value)[1]:
        try:
            convert(with_unit(value)[0], kind)
        except NotThatType:
            return False
        return True
    try:
        convert(value, kind)
    except NotThatType:
        return False
    return True


_PLAIN: Final = {ParameterType.INT: int, ParameterType.BOOL: bool, ParameterType.STRING: str}
_NUMERIC: Final = (ParameterType.INT, ParameterType.FLOAT, ParameterType.DOUBLE)
