"""The tree as XML: IceProd's elements and attributes, and our own ones where the DTD has none."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from iceprod_p2p.model.steering import (
    After,
    BatchOptions,
    ClassReference,
    Configuration,
    Data,
    Environment,
    MetadataField,
    Module,
    Parameter,
    ParameterType,
    Project,
    Requirements,
    Resource,
    Steering,
    Task,
    Tray,
    Value,
)
from iceprod_p2p.steering.values import to_json, to_text

_LINES = {"\n": "&#10;", "\t": "&#9;", "\r": "&#13;"}


def to_xml(configuration: Configuration) -> str:
    """Return the document as text."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', *_configuration(configuration), ""]
    return "\n".join(lines)


def _element(name: str, attributes: dict[str, str | None], *children: str, text: str = "") -> Iterator[str]:
    shown = "".join(
        f" {key}={quoteattr(value, _LINES)}" for key, value in attributes.items() if value is not None
    )
    if text:
        yield f"<{name}{shown}>{escape(text, {chr(13): '&#13;'})}</{name}>"
    elif children:
        yield f"<{name}{shown}>"
        for child in children:
            yield f"  {child}"
        yield f"</{name}>"
    else:
        yield f"<{name}{shown}/>"


def _given(**attributes: str) -> dict[str, str | None]:
    return {name: value or None for name, value in attributes.items()}


def _configuration(configuration: Configuration) -> Iterator[str]:
    children: list[str] = []
    if configuration.description:
        children += _element("description", {}, text=configuration.description)
    for category in configuration.categories:
        children += _element("category", {}, text=category)
    if configuration.metadata is not None:
        parts = (("DIF", configuration.metadata.dif), ("Plus", configuration.metadata.plus))
        inner = [line for name, fields in parts if fields for line in _metadata(MetadataField(name, fields))]
        children += _element("DIF_Plus", {}, *inner)
    if configuration.options:
        children += _element("options", {}, *_parameters(configuration.options))
    children += _steering(configuration.steering)
    for task in configuration.tasks:
        children += _task(task)
    children += _named_json("extra", configuration.extra)
    parent = configuration.parent_id
    attributes = {
        "version": configuration.version,
        "iceprod_version": configuration.iceprod_version or None,
        "parentid": None if parent is None else str(parent),
    }
    return _element("configuration", attributes, *children)


def _metadata(field: MetadataField) -> Iterator[str]:
    if isinstance(field.value, str):
        return _element(field.name, {}, text=field.value)
    return _element(field.name, {}, *(line for inner in field.value for line in _metadata(inner)))


def _parameters(parameters: tuple[Parameter, ...]) -> Iterator[str]:
    for parameter in parameters:
        kind = None if parameter.type is ParameterType.ANY else parameter.type.value
        yield from _element(
            "parameter", {"name": parameter.name, "type": kind, "value": parameter_text(parameter)}
        )


def parameter_text(parameter: Parameter) -> str:
    """Return a parameter's value as the text that reads back to it."""
    if parameter.type is ParameterType.JSON:
        return to_json(parameter.value)
    if isinstance(parameter.value, bool):
        return "true" if parameter.value else "false"
    return to_text(parameter.value)


def _steering(steering: Steering) -> Iterator[str]:
    children = list(_parameters(steering.parameters))
    if steering.system:
        children += _element("system", {}, *_parameters(steering.system))
    children += _batchsys(steering.batchsys)
    children += _files(steering.resources, steering.data)
    if children:
        yield from _element("steering", {}, *children)


def _batchsys(systems: tuple[BatchOptions, ...]) -> Iterator[str]:
    for system in systems:
        yield from _element("batchsys", {"name": system.name}, *_parameters(system.parameters))


def _files(resources: tuple[Resource, ...], data: tuple[Data, ...]) -> Iterator[str]:
    for resource in resources:
        texts = _given(
            remote=resource.remote,
            local=resource.local,
            compression=resource.compression,
            arch=resource.arch,
            checksum=resource.checksum,
        )
        yield from _element("resource", {**texts, "transfer": _unless(resource.transfer.value, "true")})
    for item in data:
        texts = _given(
            remote=item.remote, local=item.local, compression=item.compression, checksum=item.checksum
        )
        kind = {"type": item.type.value, "movement": item.movement.value}
        shared = "true" if item.shared else None
        transfer = _unless(item.transfer.value, "true")
        yield from _element("data", {**kind, **texts, "transfer": transfer, "shared": shared})


def _unless(value: str, default: str) -> str | None:
    return None if value == default else value


def _classes(classes: tuple[ClassReference, ...], projects: tuple[Project, ...]) -> Iterator[str]:
    for reference in classes:
        texts = _given(
            src=reference.src,
            resource_name=reference.resource_name,
            recursive="true" if reference.recursive else "",
            libs=reference.libs,
            env_vars=reference.env_vars,
            revision=reference.revision,
            sha256=reference.sha256,
        )
        yield from _element("class", {"name": reference.name, **texts})
    for project in projects:
        yield from _element("project", {"class": project.class_name, "name": project.name or None})


def _environment(environment: Environment | None) -> Iterator[str]:
    if environment is not None:
        texts = {name: getattr(environment, name) or None for name in Environment.__slots__}
        yield from _element("environment", texts)


def _requirements(needs: Requirements) -> Iterator[str]:
    amounts = {
        name: None if (value := getattr(needs, name)) is None else to_text(value)
        for name in ("cpu", "gpu", "memory", "disk", "time")
    }
    children = [line for name in needs.os for line in _element("os", {"name": name})]
    children += [line for name in needs.attributes for line in _element("attribute", {"name": name})]
    children += _named_json("extra", needs.extra)
    attributes = {**amounts, **_given(arch=needs.arch, site=needs.site)}
    if children or any(value is not None for value in attributes.values()):
        yield from _element("requirements", attributes, *children)


def _named_json(element: str, values: dict[str, Value]) -> Iterator[str]:
    for name, value in values.items():
        yield from _element(element, {"name": name}, text=to_json(value))


def _task(task: Task) -> Iterator[str]:
    children = [*_requirements(task.requirements), *_environment(task.environment)]
    children += _batchsys(task.batchsys)
    for prefix, scopes in task.token_scopes.items():
        children += _element("token_scope", {"prefix": prefix, "scopes": scopes})
    children += _parameters(task.parameters)
    children += _files(task.resources, task.data)
    children += _classes(task.classes, task.projects)
    for tray in task.trays:
        children += _tray(tray)
    children += _named_json("extra", task.extra)
    attributes = {
        "name": task.name,
        "depends": ",".join(task.depends) or None,
        "after": None if task.after is After.PARENTS else task.after.value,
        "container": task.container or None,
        "task_files": "true" if task.task_files else None,
    }
    return _element("task", attributes, *children)


def _tray(tray: Tray) -> Iterator[str]:
    children = list(_environment(tray.environment))
    children += _parameters(tray.parameters)
    children += _files(tray.resources, tray.data)
    children += _classes(tray.classes, tray.projects)
    for module in tray.modules:
        children += _module(module)
    iterations = None if tray.iterations == 1 else str(tray.iterations)
    return _element("tray", {"name": tray.name or None, "iter": iterations}, *children)


def _module(module: Module) -> Iterator[str]:
    children = [*_environment(module.environment), *_parameters(module.parameters)]
    children += _files(module.resources, module.data)
    children += _classes(module.classes, module.projects)
    children += _named_json("config", module.configs)
    is_text = isinstance(module.args, str)
    attributes = {
        **_given(name=module.name),
        "class": module.class_name or None,
        **_given(src=module.src),
        "args": (module.args or None) if isinstance(module.args, str) else to_json(module.args),
        "args_type": None if is_text else "json",
        **_given(env_shell=module.env_shell),
        "env_clear": None if module.env_clear else "false",
    }
    return _element("module", attributes, *children)
