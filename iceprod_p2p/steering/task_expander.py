"""Walk through one task from outside in, with the context of every level."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.model.steering import (
    ClassReference,
    Configuration,
    Data,
    DataType,
    Environment,
    Module,
    Parameter,
    ParameterType,
    Project,
    Resource,
    Task,
    Tray,
    Value,
)
from iceprod_p2p.steering.expanded import ExpandedModule, ExpandedParameter, ExpandedTask, ExpandedTray
from iceprod_p2p.steering.expressions.budget import Budget
from iceprod_p2p.steering.expressions.context import Context
from iceprod_p2p.steering.expressions.evaluate import Expander, Expansion, Problem
from iceprod_p2p.steering.limits import DOCUMENT_WORK_MAX, ITERATIONS_MAX, MODULE_RUNS_MAX
from iceprod_p2p.steering.needs import needs
from iceprod_p2p.steering.values import NotThatType, convert, split_list, to_text, with_unit

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_UNSAFE_LOCAL: Final = re.compile(r"(^|/)\.\.(/|$)|^/|[\x00-\x1f\x7f]")
_NUMERIC: Final = (ParameterType.INT, ParameterType.FLOAT, ParameterType.DOUBLE)

PROBE_WORK: Final = 8  # Of a text beside its phrases, while probing: about a microsecond each.

Parts = TypeVar("Parts", Resource, ClassReference, Project, Environment)


def values_of(parameters: tuple[Parameter, ...]) -> dict[str, Value]:
    """Return the values by name."""
    return {parameter.name: parameter.value for parameter in parameters}


@dataclass(slots=True)
class Level:
    """One level of the tree while it is expanded: its context, and the files seen so far from outside in."""

    path: str
    context: Context
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(slots=True)
class TaskExpander:
    """Expands one task.  Used once; `document` bounds the work of all its texts, and may be shared by many tasks.

    Raises BadInput at the first thing that cannot run; while probing it notes a problem where it can go on.
    """

    configuration: Configuration
    task: Task
    index: int
    context: Context
    probing: bool = False  # Collect what is wrong instead of raising, and look at one iteration only.
    problems: dict[Problem, None] = field(default_factory=dict)
    document: Budget = field(default_factory=lambda: Budget(DOCUMENT_WORK_MAX))
    expander: Expander = field(default_factory=lambda: Expander(Context()))

    def task_expanded(self) -> ExpandedTask:
        task, path = self.task, f"tasks[{self.index}]"
        steering = self.configuration.steering
        level = self.enter(Level("steering", self.context))
        resources = self.resources(steering.resources, "steering")
        data, level = self.data(steering.data, level)
        level = self.enter(self.inside(level, path, task.parameters))
        parameters = self.parameters(task.parameters, path)
        inner_data, level = self.data(task.data, level)
        requirements = needs(task.requirements, self.expander, f"{path}.requirements")
        batchsys = self.batchsys(path)
        resources += self.resources(task.resources, path)
        container = self.text(task.container, f"{path}.container")
        environment = self.environment(task.environment, path)
        classes = self.parts(task.classes, f"{path}.classes")
        projects = self.parts(task.projects, f"{path}.projects")
        return ExpandedTask(
            name=task.name,
            index=self.index,
            args=dict(self.context.args),
            requirements=requirements,
            container=container,
            environment=environment,
            batchsys=batchsys,
            parameters=parameters,
            resources=resources,
            data=data + inner_data,
            classes=classes,
            projects=projects,
            trays=self.trays(level),
            problems=tuple(self.problems),
        )

    def enter(self, level: Level) -> Level:
        """Expand what follows in the context of `level`."""
        if self.probing:
            self.document.spend(2 * PROBE_WORK)
        names = {"input": " ".join(level.inputs), "output": " ".join(level.outputs)}
        level.context = replace(level.context, args={**names, **level.context.args, **names})
        self.expander = Expander(level.context, document=self.document)
        return level

    def refuse(self, place: str, found: str, why: str) -> None:
        """Raise BadInput; while probing note a problem."""
        if not self.probing:
            raise BadInput(f"{place}: {found[:80]!r} {why}")
        self.problems[Problem(place, 1, found[:80], why)] = None

    def inside(self, level: Level, path: str, parameters: tuple[Parameter, ...], **args: Value) -> Level:
        scopes = ((f"{path}.parameters", values_of(parameters)), *level.context.scopes)
        context = replace(level.context, scopes=scopes, args={**level.context.args, **args})
        return Level(path, context, level.inputs, level.outputs)

    def trays(self, level: Level) -> tuple[ExpandedTray, ...]:
        found: list[ExpandedTray] = []
        runs = 0
        for index, tray in enumerate(self.task.trays):
            path = f"{level.path}.trays[{index}]"
            iterations = self.iterations(tray, level, path)
            runs += iterations * len(tray.modules)
            if runs > MODULE_RUNS_MAX:
                raise BadInput(f"{path}: the task runs more than {MODULE_RUNS_MAX} modules")
            for iteration in range(iterations):
                found.append(self.tray(tray, level, index, iteration))
        return tuple(found)

    def iterations(self, tray: Tray, level: Level, path: str) -> int:
        if isinstance(tray.iterations, int):
            value: Value = tray.iterations
        else:
            self.enter(self.inside(level, path, tray.parameters))
            value = self.note(self.expander.expand(tray.iterations, f"{path}.iterations"))
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= ITERATIONS_MAX:
            self.refuse(f"{path}.iterations", str(value), f"is no whole number from 0 to {ITERATIONS_MAX}")
            return 1
        return min(value, 1) if self.probing else value

    def tray(self, tray: Tray, outer: Level, index: int, iteration: int) -> ExpandedTray:
        path = f"{outer.path}.trays[{index}]"
        level = self.enter(self.inside(outer, path, tray.parameters, tray=index, iter=iteration))
        if self.probing:
            self.parameters(tray.parameters, path)  # Else each module's `inherited` has them.
        data, level = self.data(tray.data, level)
        return ExpandedTray(
            name=tray.name or f"tray_{index}",
            index=index,
            iteration=iteration,
            environment=self.environment(tray.environment, path),
            resources=self.resources(tray.resources, path),
            data=data,
            classes=self.parts(tray.classes, f"{path}.classes"),
            projects=self.parts(tray.projects, f"{path}.projects"),
            modules=tuple(
                self.module(module, tray, level, number) for number, module in enumerate(tray.modules)
            ),
        )

    def module(self, module: Module, tray: Tray, outer: Level, index: int) -> ExpandedModule:
        path = f"{outer.path}.modules[{index}]"
        level = self.enter(self.inside(outer, path, module.parameters))
        data, level = self.data(module.data, level)
        own = {parameter.name for parameter in module.parameters}
        return ExpandedModule(
            name=module.name or f"module_{index}",
            index=index,
            class_name=self.text(module.class_name, f"{path}.class"),
            src=self.text(module.src, f"{path}.src"),
            args=self.args(module.args, f"{path}.args"),
            env_shell=self.text(module.env_shell, f"{path}.env_shell"),
            env_clear=module.env_clear,
            environment=self.environment(module.environment, path),
            parameters=self.parameters(module.parameters, path),
            inherited=self.inherited(tray, outer, own),
            resources=self.resources(module.resources, path),
            data=data,
            classes=self.parts(module.classes, f"{path}.classes"),
            projects=self.parts(module.projects, f"{path}.projects"),
            configs=self.configs(module.configs, f"{path}.configs"),
        )

    def inherited(self, tray: Tray, outer: Level, own: set[str]) -> tuple[ExpandedParameter, ...]:
        found: dict[str, ExpandedParameter] = {}
        if self.probing:
            return ()
        for path, parameters in (
            (outer.path, tray.parameters),
            (f"tasks[{self.index}]", self.task.parameters),
            ("steering", self.configuration.steering.parameters),
        ):
            wanted = tuple(known for known in parameters if known.name not in own and known.name not in found)
            found.update((known.name, known) for known in self.parameters(wanted, path))
        return tuple(found.values())

    def note(self, expansion: Expansion) -> Value:
        if self.probing:
            self.document.spend(PROBE_WORK)
        self.problems.update(dict.fromkeys(expansion.problems))
        return expansion.value

    def text(self, text: str, place: str) -> str:
        if "$" not in text and "\\" not in text:
            return text
        return str(self.note(self.expander.expand(text, place, as_text=True)))

    def args(
        self, args: str | list[Value] | dict[str, Value], place: str
    ) -> str | list[Value] | dict[str, Value]:
        """Return a module's arguments: a text stays one unless it is a list or object as a whole."""
        if isinstance(args, str):
            value = self.note(self.expander.expand(args, place))
            return value if isinstance(value, (list, dict)) else self.text(args, place)
        if isinstance(args, list):
            return [
                self.text(item, f"{place}[{index}]")
                if isinstance(item, str)
                else self.note(self.expander.expand(item, f"{place}[{index}]"))
                for index, item in enumerate(args)
            ]
        return self.configs(args, place)

    def configs(self, values: dict[str, Value], place: str) -> dict[str, Value]:
        return {
            self.text(name, f"{place}.{name}"): self.note(self.expander.expand(value, f"{place}.{name}"))
            for name, value in values.items()
        }

    def batchsys(self, path: str) -> dict[str, dict[str, Value]]:
        found: dict[str, dict[str, Value]] = {}
        steering = (("steering.batchsys", system) for system in self.configuration.steering.batchsys)
        own = ((f"{path}.batchsys", system) for system in self.task.batchsys)
        for place, system in (*steering, *own):
            options = found.setdefault(system.name, {})
            for option in system.parameters:
                expansion = self.expander.expand(option.value, f"{place}.{system.name}.{option.name}")
                options[option.name] = self.note(expansion)
        return found

    def parameters(self, parameters: tuple[Parameter, ...], path: str) -> tuple[ExpandedParameter, ...]:
        return tuple(self.parameter(known, f"{path}.parameters.{known.name}") for known in parameters)

    def parameter(self, parameter: Parameter, place: str) -> ExpandedParameter:
        kind = parameter.type
        as_text = kind is ParameterType.STRING
        expansion = self.expander.expand(parameter.value, place, as_text=as_text)
        value = self.note(expansion)
        unit = ""
        if isinstance(value, str) and kind in _NUMERIC:
            value, unit = with_unit(value)
        if not expansion.resolved:
            return ExpandedParameter(parameter.name, kind, value, unit)
        try:
            if kind.is_list and isinstance(value, str):
                value = split_list(value)
            return ExpandedParameter(parameter.name, kind, convert(value, kind), unit)
        except NotThatType as bad:
            self.refuse(place, str(value), f"is not {bad} (type {kind})")
            return ExpandedParameter(parameter.name, kind, value, unit)

    def data(self, data: tuple[Data, ...], level: Level) -> tuple[tuple[Data, ...], Level]:
        """Return files with their final names, and the level whose `$(input)` and `$(output)` include them."""
        if not data:
            return (), level
        found = tuple(self.data_item(item, f"{level.path}.data[{index}]") for index, item in enumerate(data))
        inputs = tuple(item.local for item in found if item.movement.value != "output")
        outputs = tuple(item.local for item in found if item.movement.value != "input")
        wider = Level(level.path, level.context, inputs + level.inputs, outputs + level.outputs)
        return found, self.enter(wider)

    def data_item(self, item: Data, place: str) -> Data:
        remote = self.text(item.remote, f"{place}.remote")
        local = self.text(item.local, f"{place}.local") or posixpath.basename(remote)
        if not local or _UNSAFE_LOCAL.search(local):
            self.refuse(f"{place}.local", local, "is no name inside the job's directory")
        base = self.storage(item.type, place)
        if base and not _URL.match(remote):
            remote = posixpath.join(base, remote or local)
        return replace(
            item, remote=remote, local=local, checksum=self.text(item.checksum, f"{place}.checksum")
        )

    def storage(self, kind: DataType, place: str) -> str:
        """Return the URL under which files of one kind are kept, when the options name one."""
        options = self.context.options
        for name in (kind.value, "data_url" if kind is DataType.PERMANENT else ""):
            if name and options.get(name):
                return self.text(to_text(options[name]), f"options.{name}")
        return ""

    def resources(self, resources: tuple[Resource, ...], path: str) -> tuple[Resource, ...]:
        return self.parts(resources, f"{path}.resources")

    def environment(self, environment: Environment | None, path: str) -> Environment | None:
        return self.parts((environment,), f"{path}.environment")[0] if environment is not None else None

    def parts(self, parts: tuple[Parts, ...], place: str) -> tuple[Parts, ...]:
        """Return parts that consist of texts with each text expanded."""
        found: list[Parts] = []
        for index, part in enumerate(parts):
            texts: dict[str, Any] = {
                name: self.text(getattr(part, name), f"{place}[{index}].{name}")
                for name in part.__slots__
                if type(getattr(part, name)) is str
            }
            found.append(replace(part, **texts))
        return tuple(found)
