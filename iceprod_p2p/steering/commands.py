"""What `iceprod steering` answers, as plain dictionaries: no cluster, no files, no output of its own.

Each answer is JSON data with documented keys.  A request that cannot be answered raises BadInput; `answered` turns
that into an answer with ``error``, so that one bad line of a batch does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

from iceprod_p2p.base.errors import BadInput, IceProdError
from iceprod_p2p.model.steering import Configuration, Value
from iceprod_p2p.steering.expand import expand_task, job_arguments, unresolved
from iceprod_p2p.steering.expressions.context import Context
from iceprod_p2p.steering.expressions.evaluate import expand
from iceprod_p2p.steering.faults import SUGGESTIONS_MAX, nearest, quoted
from iceprod_p2p.steering.json_reader import count_values
from iceprod_p2p.steering.limits import (
    CONTEXT_DEPTH_MAX,
    CONTEXT_NODES_MAX,
    FAULTS_MAX,
    REQUEST_BYTES_MAX,
    TEXT_CHARS_MAX,
)
from iceprod_p2p.steering.metadata import metadata_table
from iceprod_p2p.steering.read import check, read
from iceprod_p2p.steering.texts import FORBIDDEN
from iceprod_p2p.steering.values import NotThatType, parse_json, to_text
from iceprod_p2p.steering.write import write

TABLES: Final = ("args", "steering", "system", "options", "metadata", "environ")
_STEERING_PARTS: Final = ("parameters", "system", "batchsys", "resources", "data")

Answer: TypeAlias = "dict[str, Any]"
Request: TypeAlias = "dict[str, Value]"


def check_answer(
    text: bytes | str,
    *,
    name: str,
    classes: Sequence[str] = (),
    installed: Callable[[], Sequence[str]] = tuple,
) -> Answer:
    """Return ``valid`` and ``faults`` of a file, its ``syntax``, and ``warnings``: phrases that no job resolves.

    `classes` are the short names of modules that are known here, and `installed` gives further ones, for which it is
    asked when one is needed: a module that is called by another name, which the file does not bring along, is a
    warning too.  Without `classes` nothing is said of them.
    """
    checked = check(text, name=name)
    valid = not checked.faults and checked.configuration is not None
    warnings: list[str] = []
    if valid and checked.configuration:
        warnings += unknown_classes(checked.configuration, classes, installed) if classes else ()
        warnings += map(str, unresolved(checked.configuration))
    return {
        "valid": valid,
        "faults": [fault.as_dict() for fault in checked.faults],
        "warnings": warnings,
        "syntax": checked.syntax,
        "file": name,
    }


def unknown_classes(
    configuration: Configuration, known: Sequence[str], installed: Callable[[], Sequence[str]]
) -> list[str]:
    """Return a warning for each short name of a module class that is neither known nor brought by the file."""
    found: list[str] = []
    more: Sequence[str] | None = None
    for number, task in enumerate(configuration.tasks):
        for index, tray in enumerate(task.trays):
            for order, module in enumerate(tray.modules):
                name = module.class_name
                brought = [item.name for item in (*task.classes, *tray.classes, *module.classes)]
                if not name.isidentifier() or module.src or name in (*known, *brought):
                    continue
                more = installed() if more is None else more
                if name in more:
                    continue
                path = f"tasks[{number}].trays[{index}].modules[{order}].class"
                hint = nearest(name, known) if len(found) < SUGGESTIONS_MAX else ""
                meant = f": did you mean {hint}?" if hint else ""
                found.append(f"{path}: no module is called {quoted(name)} here{meant}")
                if len(found) >= FAULTS_MAX:
                    return found
    return found


def expression_answer(expression: Value, context: Value) -> Answer:
    """Return ``value`` and ``resolved`` of an expression, and under ``problems`` why phrases stay as they stand.

    Raises BadInput when the context is no object of the tables args, steering, system, options, metadata, environ.
    """
    _refuse_characters(expression)
    expansion = expand(expression, context_of(context))
    return {
        "value": expansion.value,
        "resolved": expansion.resolved,
        "problems": [str(problem) for problem in expansion.problems],
    }


def context_of(given: Value) -> Context:
    """Return the context that a JSON object describes.

    ``steering`` is a table of names, or a steering as in a file, with ``parameters`` and ``system`` inside;
    ``metadata`` is a table of names, or has ``dif`` and ``plus`` inside.
    """
    if not isinstance(given, dict):
        raise BadInput("a context is an object", remedy=f"give a JSON object with any of {', '.join(TABLES)}")
    _refuse_characters(given)
    tables: dict[str, dict[str, Value]] = {}
    for name, table in given.items():
        if name not in TABLES:
            raise BadInput(f"a context has no {name[:40]!r}", remedy=f"use any of {', '.join(TABLES)}")
        if table is not None and not isinstance(table, dict):
            raise BadInput(f"{name} of a context is an object of names and values")
        tables[name] = dict(table or {})
    steering, system = tables.get("steering", {}), tables.get("system", {})
    if steering and all(part in _STEERING_PARTS for part in steering):
        inner, parameters = steering.get("system"), steering.get("parameters")
        system = {**(inner if isinstance(inner, dict) else {}), **system}
        steering = {**(parameters if isinstance(parameters, dict) else {}), **steering}
    return Context(
        args=tables.get("args", {}),
        steering=steering,
        system=system,
        options=tables.get("options", {}),
        metadata=metadata_table(tables.get("metadata", {})),
        environ=tables.get("environ", {}),
    )


def job_answer(
    configuration: Configuration, *, job: int, jobs: int, seed: int, task: str, site: Value
) -> Answer:
    """Return ``tasks``: each task of one job, or the one called `task`, as a pilot would run it.

    `site` is a context: what the site and the submission add to the document.  A task that cannot run is an object
    with ``name`` and ``error``.  Raises BadInput when no task is called so.
    """
    given = context_of(site)
    names = [known.name for known in configuration.tasks]
    if task and task not in names:
        raise BadInput(f"no task is called {task[:80]!r}", remedy=f"the tasks are {', '.join(names)[:400]}")
    tasks: list[Value] = []
    for index, name in enumerate(names):
        if task and name != task:
            continue
        args = job_arguments(
            dataset=0,
            job=job,
            jobs=jobs,
            task=name,
            task_index=index,
            seed=seed,
        )
        try:
            expanded = expand_task(
                configuration,
                index,
                args={**args, **given.args},
                system=given.system,
                options=given.options,
                environ={key: to_text(value) for key, value in given.environ.items()},
                seed=seed,
            )
        except BadInput as bad:
            tasks.append({"name": name, "index": index, "error": bad.message})
        else:
            tasks.append(_plain(expanded))
    return {"job": job, "tasks": tasks}


def convert_text(text: bytes | str, *, name: str, syntax: str) -> str:
    """Return a steering file in another syntax.  Raises SteeringError with every fault of the file."""
    return write(read(text, name=name), syntax)


def show_answer(configuration: Configuration) -> Answer:
    """Return what a dataset is in short: its description, parameters, and tasks with what they need and run."""
    return {
        "description": configuration.description,
        "version": configuration.version,
        "categories": list(configuration.categories),
        "options": {known.name: known.value for known in configuration.options},
        "parameters": {known.name: known.value for known in configuration.steering.parameters},
        "tasks": [
            {
                "name": task.name,
                "depends": list(task.depends),
                "after": task.after.value,
                "requirements": {
                    name: value
                    for name, value in _plain(task.requirements).items()
                    if value not in (None, "", [], {})
                },
                "modules": [
                    module.class_name or module.src for tray in task.trays for module in tray.modules
                ],
                "inputs": [
                    data.remote or data.local for data in task.data if data.movement.value != "output"
                ],
                "outputs": [
                    data.remote or data.local for data in task.data if data.movement.value != "input"
                ],
            }
            for task in configuration.tasks
        ],
    }


def parse_request(line: bytes | str) -> Request:
    """Return the JSON object of one line.  Raises BadInput when it is none, too long, too deep or too full."""
    if len(line) > REQUEST_BYTES_MAX:
        raise BadInput(f"the JSON text is longer than {REQUEST_BYTES_MAX} bytes")
    try:
        text = line.decode("utf-8-sig") if isinstance(line, bytes) else line
        if count_values(text, CONTEXT_NODES_MAX) > CONTEXT_NODES_MAX:  # Before any is made.
            raise BadInput(f"the data have more than {CONTEXT_NODES_MAX} parts")
        request = parse_json(text)
    except UnicodeDecodeError as bad:
        raise BadInput(f"the text is not UTF-8 at byte {bad.start}") from bad
    except NotThatType as bad:
        raise BadInput(f"the text is not JSON: {str(bad.__cause__)[:120]}") from bad
    if not isinstance(request, dict):
        raise BadInput("the text is JSON, but no object", remedy='write {"name": value, ...}')
    _bounded(request)
    return request


def answered(
    lines: Iterable[bytes], answer: Callable[[Request], Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield one answer for each line that is not blank, in order; ``id`` of a request is repeated in its answer.

    What `answer` raises becomes ``error`` with the ``line``, counted from 1.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        echo: dict[str, Any] = {}
        try:
            request = parse_request(line)
            if "id" in request:
                echo["id"] = request["id"]
            yield {**echo, **answer(request)}
        except IceProdError as bad:
            yield {**echo, "error": str(bad), "line": number}


def _bounded(value: Value) -> None:
    """Refuse data that are nested too deeply or have too many parts."""
    for _part in _parts(value):
        pass


def _refuse_characters(value: Value) -> None:
    """Refuse what no steering file may hold: control characters, half characters, and those that mark escapes."""
    for part in _parts(value):
        if not isinstance(part, str):
            continue
        if len(part) > TEXT_CHARS_MAX:
            raise BadInput(f"a text of {len(part)} characters is longer than {TEXT_CHARS_MAX}")
        if bad := FORBIDDEN.search(part):
            raise BadInput(f"the character U+{ord(bad.group()):04X} may not be in steering text")


def _parts(value: Value) -> Iterator[Value]:
    """Yield a value and everything in it, names included.  Raises BadInput when it is too deep or too much."""
    level: list[Value] = [value]
    seen = 0
    for _depth in range(CONTEXT_DEPTH_MAX):
        yield from level
        inner: list[Value] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item)
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        seen += len(inner)
        if seen > CONTEXT_NODES_MAX:
            raise BadInput(f"the data have more than {CONTEXT_NODES_MAX} parts")
        if not inner:
            return
        level = inner
    raise BadInput(f"the data are nested deeper than {CONTEXT_DEPTH_MAX}")


def _plain(value: Any) -> Any:
    """Return dataclasses and enumerations as JSON data."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "__struct_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    return value
