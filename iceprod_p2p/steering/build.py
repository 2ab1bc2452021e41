"""Nodes to the tree: one function per kind of element, the same for all three syntaxes.

Here is what a file's *form* must be; what its values must mean together (names, dependencies, amounts) is for
`validate`.
"""

from __future__ import annotations

import re
from typing import Final

from iceprod_p2p.model.steering import (
    After,
    BatchOptions,
    Configuration,
    Environment,
    Module,
    Parameter,
    ParameterType,
    Steering,
    Task,
    Tray,
    Value,
)
from iceprod_p2p.steering.build_files import read_classes, read_data, read_projects, read_resources
from iceprod_p2p.steering.build_parts import read_metadata, read_requirements
from iceprod_p2p.steering.faults import FaultList
from iceprod_p2p.steering.fields import Dialect, Fields, Reading
from iceprod_p2p.steering.nodes import Node, NodeCount, Place
from iceprod_p2p.steering.values import make_parameter

FORMAT: Final = "iceprod-p2p/1"  # The name of our own JSON and YAML form.

_TYPES: Final = {kind.value: kind for kind in ParameterType}
_TYPES_OF_OLD: Final = {
    "str": ParameterType.STRING,
    "str_list": ParameterType.STRING_LIST,
}  # In IceProd 2's files.
_LEGACY: Final = ("data", "resources", "classes", "projects")
_STEERING: Final = ("parameters", "batchsys", "data")
_STEERING_OURS: Final = (*_STEERING, "system", "resources", "types")
_TRAY: Final = ("name", "iterations", "parameters", "modules")
_SOFTWARE: Final = ("environment", "metaproject")
_TRAY_OURS: Final = (*_TRAY, *_LEGACY, *_SOFTWARE, "types")
_MODULE: Final = (
    *("name", "parameters", "src", "running_class", "args", "env_shell", "env_clear", "configs"),
)
_MODULE_OURS: Final = (*_MODULE, *_LEGACY, *_SOFTWARE, "class", "types")


def build(
    node: Node, dialect: Dialect, faults: FaultList, count: NodeCount
) -> tuple[Configuration, dict[str, Place]]:
    """Return the tree and the place of every part by its path.  Faults are collected, never raised."""
    reading = Reading(faults, dialect, count, {})
    return _configuration(Fields(node, "", reading)), reading.places


def _configuration(fields: Fields) -> Configuration:
    strict = fields.reading.dialect.strict
    for name in ("version", "description") if strict else ():
        if name not in fields.content:
            fields.reading.faults.say(
                fields.node.place, "the file", f'no "{name}"', f'"{name}" must be there'
            )
    fields.take("format")
    fields.take("types")
    version = _number_text(fields, "version", default="3.2")
    return Configuration(
        version=version,
        description=fields.text("description"),
        parent_id=_parent_id(fields),
        iceprod_version=_number_text(fields, "iceprod_version"),
        categories=fields.texts("categories"),
        options=_parameters(fields, "options"),
        steering=_steering(fields),
        tasks=tuple(
            _task(Fields(node, path, fields.reading)) for path, node in fields.items("tasks", required=strict)
        ),
        metadata=read_metadata(fields),
        extra=fields.extra(),  # Last: what nothing above has asked for.
    )


def _number_text(fields: Fields, name: str, default: str = "") -> str:
    node = fields.take(name)
    if node is None or node.content == "":
        return default
    if isinstance(node.content, (int, float)) and not isinstance(node.content, bool):
        return repr(node.content)
    if isinstance(node.content, str):
        return node.content
    fields.wrong(node, fields.at(name), "a number such as 3.2")
    return default


def _parent_id(fields: Fields) -> int | str | None:
    node = fields.take("parent_id")
    if node is None or node.content == "":
        return None
    content = node.content
    if isinstance(content, str):
        return int(content) if re.fullmatch(r"0|[1-9][0-9]{0,17}", content) else content
    if isinstance(content, int) and not isinstance(content, bool):
        return content
    fields.wrong(node, fields.at("parent_id"), "the id of a dataset")
    return None


def _steering(fields: Fields) -> Steering:
    node = fields.take("steering")
    if node is None:
        return Steering()
    inner = Fields(node, "steering", fields.reading)
    inner.unknown(_STEERING if fields.reading.dialect.strict else _STEERING_OURS)
    return Steering(
        parameters=_parameters(inner, "parameters"),
        system=_parameters(inner, "system"),
        batchsys=_batchsys(inner),
        resources=read_resources(inner),
        data=read_data(inner),
    )


def _task(fields: Fields) -> Task:
    strict = fields.reading.dialect.strict
    if strict and "name" not in fields.content:
        fields.reading.faults.say(fields.node.place, fields.path, 'no "name"', 'a "name" for every task')
    default = "" if strict else f"task_{fields.path.removeprefix('tasks[').removesuffix(']')}"
    fields.take("types")
    return Task(
        name=fields.text("name", default) or default,
        depends=_depends(fields),
        after=fields.word("after", After, After.PARENTS),
        requirements=read_requirements(fields),
        batchsys=_batchsys(fields),
        parameters=_parameters(fields, "parameters"),
        trays=tuple(
            _tray(Fields(node, path, fields.reading))
            for path, node in fields.items("trays", at_least=1, required=True)
        ),
        resources=read_resources(fields),
        data=read_data(fields),
        classes=read_classes(fields),
        projects=read_projects(fields),
        task_files=fields.boolean("task_files", default=False),
        container=fields.text("container"),
        environment=_environment(fields),
        token_scopes=_token_scopes(fields),
        extra=fields.extra(),  # Last: what nothing above has asked for.
    )


def _depends(fields: Fields) -> tuple[str, ...]:
    names: list[str] = []
    for path, node in fields.items("depends"):
        content = node.content
        if isinstance(content, str):
            names.append(content)
        elif isinstance(content, int) and not isinstance(content, bool) and not fields.reading.dialect.strict:
            names.append(str(content))
        else:
            fields.wrong(node, path, "the name of a task")
        fields.reading.places[path] = node.place
    return tuple(names)


def _token_scopes(fields: Fields) -> dict[str, str]:
    scopes: dict[str, str] = {}
    node = fields.content.get("token_scopes")
    wanted = fields.reading.dialect.schema == "3.2" and fields.boolean("task_files", default=False)
    if wanted and (node is None or node.content == {}):
        place = fields.node.place if node is None else node.place
        fields.reading.faults.say(
            place, fields.at("token_scopes"), "no scope", "token_scopes when task_files is true"
        )
    for prefix, path, item, _place in fields.entries("token_scopes"):
        if not isinstance(item.content, str):
            fields.wrong(item, path, "scopes as one text")
        elif wanted and len(item.content) < 10:
            fields.reading.faults.add(item.place, path, item.content, "at least 10 characters of scopes")
        else:
            scopes[prefix] = item.content
    return scopes


def _tray(fields: Fields) -> Tray:
    dialect = fields.reading.dialect
    fields.unknown({"3.2": _TRAY, "3.1": (*_TRAY, *_LEGACY)}.get(dialect.schema, _TRAY_OURS))
    return Tray(
        name=fields.text("name"),
        iterations=_iterations(fields),
        environment=_environment(fields),
        parameters=_parameters(fields, "parameters"),
        modules=tuple(
            _module(Fields(node, path, fields.reading))
            for path, node in fields.items("modules", at_least=1, required=True)
        ),
        resources=read_resources(fields),
        data=read_data(fields),
        classes=read_classes(fields),
        projects=read_projects(fields),
    )


def _iterations(fields: Fields) -> int | str:
    node = fields.take("iterations")
    if node is None or (node.content == "" and not fields.reading.dialect.strict):
        return 1
    content = node.content
    if isinstance(content, float) and content.is_integer():
        return int(content)
    if isinstance(content, int) and not isinstance(content, bool):
        return content
    if isinstance(content, str) and not fields.reading.dialect.strict:
        if re.fullmatch(r"[+-]?[0-9]{1,18}", content.strip()):
            return int(content)
        if "$" in content:
            return content
    fields.wrong(node, fields.at("iterations"), "a whole number")
    return 1


def _environment(fields: Fields) -> Environment | None:
    """Return the software of a task, tray or module; IceProd's `metaproject` names it by name and version."""
    if fields.reading.dialect.strict:
        return None  # Its schema has none: there it is an unknown name, or kept as it is.
    key, node = fields.first(*_SOFTWARE)
    if node is None:
        return None
    inner = Fields(node, fields.at(key), fields.reading)
    if key == "metaproject":
        inner.unknown(("name", "version", "platform"))
        return Environment(inner.text("name"), inner.text("version"), inner.text("platform"))
    inner.unknown(Environment.__slots__)
    return Environment(**{name: inner.text(name) for name in Environment.__slots__})


def _module(fields: Fields) -> Module:
    dialect = fields.reading.dialect
    fields.unknown({"3.2": _MODULE, "3.1": (*_MODULE, *_LEGACY)}.get(dialect.schema, _MODULE_OURS))
    class_key, class_node = fields.first("class", "running_class")
    class_name = ""
    if class_node is not None:
        if isinstance(class_node.content, str):
            class_name = class_node.content
        else:
            fields.wrong(class_node, fields.at(class_key), "the name of a class")
    return Module(
        name=fields.text("name"),
        class_name=class_name,
        src=fields.text("src"),
        args=_args(fields),
        env_shell=fields.text("env_shell"),
        env_clear=fields.boolean("env_clear", default=True),
        environment=_environment(fields),
        parameters=_parameters(fields, "parameters"),
        resources=read_resources(fields),
        data=read_data(fields),
        classes=read_classes(fields),
        projects=read_projects(fields),
        configs=fields.plain_object("configs"),
    )


def _args(fields: Fields) -> str | list[Value] | dict[str, Value]:
    node = fields.take("args")
    if node is None:
        return ""
    value = node.plain()
    if isinstance(value, (str, dict)):
        return value
    if not isinstance(value, list):
        fields.wrong(node, fields.at("args"), "a text, a list or an object")
        return ""
    if fields.reading.dialect.strict:
        for path, item in fields.items("args"):
            if not isinstance(item.content, str):
                fields.wrong(item, path, "a text")
    return value


def _parameters(fields: Fields, block: str) -> tuple[Parameter, ...]:
    declared = _types(fields, block)
    return _parameter_list(fields, block, declared)


def _types(fields: Fields, *blocks: str) -> dict[str, Node]:
    """Return the declared types of one block of parameters, from the object `types` beside it."""
    if fields.reading.dialect.strict:
        return {}
    node = fields.content.get("types")
    for block in blocks:
        content = node.content if node is not None else None
        node = content.get(block) if isinstance(content, dict) else None
    if node is None:
        return {}
    if isinstance(node.content, dict):
        return node.content
    fields.wrong(node, ".".join((fields.at("types"), *blocks)), "an object of types by name")
    return {}


def _parameter_list(fields: Fields, block: str, declared: dict[str, Node]) -> tuple[Parameter, ...]:
    parameters: list[Parameter] = []
    for name, path, node, place in fields.entries(block):
        fields.reading.places[path] = place
        kind = _declared_type(fields, path, declared.get(name))
        if kind is not None and kind.is_list and isinstance(node.content, str):
            fields.reading.count.add(node.content.count(","), node.place)
        parameters.append(make_parameter(name, node.plain(), kind))
    names = {parameter.name for parameter in parameters}
    for name, node in declared.items():
        if name not in names:
            fields.reading.faults.say(
                node.place, fields.at("types"), f'a type for "{name[:60]}"', f"names of {fields.at(block)}"
            )
    return tuple(parameters)


def _declared_type(fields: Fields, path: str, node: Node | None) -> ParameterType | None:
    if node is None:
        return None
    if isinstance(node.content, str):
        known = _TYPES.get(node.content) or _TYPES_OF_OLD.get(node.content)
        if known is not None:
            return known
    allowed = ", ".join(_TYPES)
    if node.content == "pickle":
        allowed += " (pickled values can run code and are never read)"
    if isinstance(node.content, str):
        fields.reading.faults.add(node.place, path, node.content, allowed, names=_TYPES)
    else:
        fields.wrong(node, path, allowed)
    return None


def _batchsys(fields: Fields) -> tuple[BatchOptions, ...]:
    systems: list[BatchOptions] = []
    for name, path, node, _place in fields.entries("batchsys"):
        if not isinstance(node.content, dict):
            fields.wrong(node, path, "an object of options")
            continue
        inner = Fields(Node({"parameters": node}, node.place), path, fields.reading)
        systems.append(
            BatchOptions(name, _parameter_list(inner, "parameters", _types(fields, "batchsys", name)))
        )
    return tuple(systems)
