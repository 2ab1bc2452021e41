"""The tree as plain JSON data: the shape of our JSON and YAML files.  What is at its default is left out."""

from __future__ import annotations

import re

from iceprod_p2p.model.steering import (
    After,
    BatchOptions,
    ClassReference,
    Configuration,
    Data,
    Environment,
    Metadata,
    MetadataField,
    Module,
    Parameter,
    Requirements,
    Resource,
    Steering,
    Task,
    Transfer,
    Tray,
    Value,
)
from iceprod_p2p.steering.build import FORMAT
from iceprod_p2p.steering.values import implied_type

Plain = dict[str, Value]


def to_plain(configuration: Configuration) -> Plain:
    """Return the whole tree as JSON data."""
    plain: Plain = {"format": FORMAT, "version": _version(configuration.version)}
    _texts(plain, configuration, "description")
    if configuration.parent_id is not None:
        plain["parent_id"] = configuration.parent_id
    if configuration.iceprod_version:
        plain["iceprod_version"] = _version(configuration.iceprod_version)
    if configuration.categories:
        plain["categories"] = list(configuration.categories)
    if configuration.metadata is not None:
        plain["metadata"] = _metadata(configuration.metadata)
    types: Plain = {}
    _parameters(plain, types, "options", configuration.options)
    if types:
        plain["types"] = types
    if steering := _steering(configuration.steering):
        plain["steering"] = steering
    plain["tasks"] = [_task(task) for task in configuration.tasks]
    _extra(plain, configuration.extra)
    return plain


def _version(text: str) -> Value:
    """Return a version as a number where that says the same."""
    if re.fullmatch(r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,8})?", text):
        number: int | float = float(text) if "." in text else int(text)
        if repr(number) == text:
            return number
    return text


def _texts(plain: Plain, node: object, *names: str) -> None:
    for name in names:
        value = getattr(node, name)
        if value:
            plain[name] = value


def _parameters(plain: Plain, types: Plain, block: str, parameters: tuple[Parameter, ...]) -> None:
    if parameters:
        plain[block] = {parameter.name: parameter.value for parameter in parameters}
        declared: Plain = {
            parameter.name: parameter.type.value
            for parameter in parameters
            if parameter.type is not implied_type(parameter.value)
        }
        if declared:
            types[block] = declared


def _batchsys(plain: Plain, types: Plain, systems: tuple[BatchOptions, ...]) -> None:
    if not systems:
        return
    options: Plain = {}
    declared: Plain = {}
    for system in systems:
        options[system.name] = {}
        _parameters(options, declared, system.name, system.parameters)
    plain["batchsys"] = options
    if declared:
        types["batchsys"] = declared


def _steering(steering: Steering) -> Plain:
    plain: Plain = {}
    types: Plain = {}
    _parameters(plain, types, "parameters", steering.parameters)
    _parameters(plain, types, "system", steering.system)
    _batchsys(plain, types, steering.batchsys)
    _files(plain, steering.resources, steering.data)
    if types:
        plain["types"] = types
    return plain


def _files(plain: Plain, resources: tuple[Resource, ...], data: tuple[Data, ...]) -> None:
    if resources:
        plain["resources"] = [_resource(resource) for resource in resources]
    if data:
        plain["data"] = [_data_item(item) for item in data]


def _transfer(plain: Plain, transfer: Transfer) -> None:
    if transfer is not Transfer.TRUE:
        plain["transfer"] = False if transfer is Transfer.FALSE else "maybe"


def _resource(resource: Resource) -> Plain:
    plain: Plain = {}
    _texts(plain, resource, "remote", "local", "compression", "arch", "checksum")
    _transfer(plain, resource.transfer)
    return plain


def _data_item(item: Data) -> Plain:
    plain: Plain = {"type": item.type.value, "movement": item.movement.value}
    _texts(plain, item, "remote", "local", "compression", "shared", "checksum")
    _transfer(plain, item.transfer)
    return plain


def _classes(plain: Plain, node: Task | Tray | Module) -> None:
    if node.classes:
        plain["classes"] = [_class(reference) for reference in node.classes]
    if node.projects:
        plain["projects"] = [
            {"class": project.class_name, **({"name": project.name} if project.name else {})}
            for project in node.projects
        ]


def _class(reference: ClassReference) -> Plain:
    plain: Plain = {"name": reference.name}
    _texts(plain, reference, "src", "resource_name", "libs", "env_vars", "revision", "sha256", "recursive")
    return plain


def _requirements(needs: Requirements) -> Plain:
    plain: Plain = {}
    for name in ("cpu", "gpu", "memory", "disk", "time"):
        if getattr(needs, name) is not None:
            plain[name] = getattr(needs, name)
    if needs.os:
        plain["os"] = list(needs.os)
    _texts(plain, needs, "arch", "site")
    if needs.attributes:
        plain["attributes"] = list(needs.attributes)
    _extra(plain, needs.extra)
    return plain


def _extra(plain: Plain, extra: dict[str, Value]) -> None:
    if extra:
        plain["extra"] = dict(extra)


def _environment(plain: Plain, environment: Environment | None) -> None:
    if environment is not None:
        inner: Plain = {}
        _texts(inner, environment, *Environment.__slots__)
        plain["environment"] = inner


def _task(task: Task) -> Plain:
    plain: Plain = {"name": task.name}
    types: Plain = {}
    if task.depends:
        plain["depends"] = list(task.depends)
    if task.after is not After.PARENTS:
        plain["after"] = task.after.value
    if requirements := _requirements(task.requirements):
        plain["requirements"] = requirements
    _batchsys(plain, types, task.batchsys)
    _texts(plain, task, "container", "task_files")
    _environment(plain, task.environment)
    if task.token_scopes:
        plain["token_scopes"] = dict(task.token_scopes)
    _parameters(plain, types, "parameters", task.parameters)
    _files(plain, task.resources, task.data)
    _classes(plain, task)
    if types:
        plain["types"] = types
    plain["trays"] = [_tray(tray) for tray in task.trays]
    _extra(plain, task.extra)
    return plain


def _tray(tray: Tray) -> Plain:
    plain: Plain = {}
    types: Plain = {}
    _texts(plain, tray, "name")
    if tray.iterations != 1:
        plain["iterations"] = tray.iterations
    _environment(plain, tray.environment)
    _parameters(plain, types, "parameters", tray.parameters)
    _files(plain, tray.resources, tray.data)
    _classes(plain, tray)
    if types:
        plain["types"] = types
    plain["modules"] = [_module(module) for module in tray.modules]
    return plain


def _module(module: Module) -> Plain:
    plain: Plain = {}
    types: Plain = {}
    _texts(plain, module, "name")
    if module.class_name:
        plain["class"] = module.class_name
    _texts(plain, module, "src")
    if module.args != "":
        plain["args"] = module.args
    _texts(plain, module, "env_shell")
    if not module.env_clear:
        plain["env_clear"] = False
    _environment(plain, module.environment)
    _parameters(plain, types, "parameters", module.parameters)
    _files(plain, module.resources, module.data)
    _classes(plain, module)
    if module.configs:
        plain["configs"] = dict(module.configs)
    if types:
        plain["types"] = types
    return plain


def _metadata(metadata: Metadata) -> Plain:
    return {
        name: _metadata_fields(fields)
        for name, fields in (("DIF", metadata.dif), ("Plus", metadata.plus))
        if fields
    }


def _metadata_fields(fields: tuple[MetadataField, ...]) -> Plain:
    by_name: dict[str, list[Value]] = {}
    for field in fields:
        value: Value = field.value if isinstance(field.value, str) else _metadata_fields(field.value)
        by_name.setdefault(field.name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in by_name.items()}
