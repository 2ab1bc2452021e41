"""`iceprod steering`: check, show, expand and convert steering files; needs no cluster."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import click
from rich.console import Console

from iceprod_cli.output.show import Column, safe, say, show_object, table
from iceprod_cli.session import Session, output_options, pass_session
from iceprod_p2p.base.command_help import CommandGroup
from iceprod_p2p.base.errors import BadInput, NotFound
from iceprod_p2p.model.steering import Configuration, Value
from iceprod_p2p.modules.registry import BUILT_IN, installed_names
from iceprod_p2p.steering import commands
from iceprod_p2p.steering.limits import FILE_BYTES_MAX, REQUEST_BYTES_MAX
from iceprod_p2p.steering.read import SYNTAXES, read

BATCH = click.option(
    "--batch",
    type=click.Path(path_type=Path),
    help="answer each JSON line of this file (- for stdin) with one",
)
STDIN = Path("-")


@click.group(cls=CommandGroup)
def steering() -> None:
    """Check, show, expand and convert steering files; needs no cluster."""


@steering.command("check")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@BATCH
@output_options
@pass_session
def check_(session: Session, file: Path | None, batch: Path | None) -> None:
    """List every fault of a steering FILE with its place, and what no job could resolve.

    Exit code 0 when it is valid, 1 when it has faults, 3 when it is not there.  A line of a batch is
    {"file": PATH} or {"text": TEXT, "name": NAME}.
    """
    if batch is not None:
        _only(batch=batch, file=file)
        return _answer_lines(batch, lambda request: _checked(**_text_of(request)))
    answer = _checked(_content(_given(file)), _name(_given(file)))

    def people(_: Console) -> None:
        for fault in answer["faults"]:
            say(safe(_fault_line(fault)))
        for warning in answer["warnings"]:
            say(f"warning: {safe(warning)}")
        if answer["valid"]:
            say(f"{safe(answer['file'])} is valid")

    show_object(session.style, answer, people=people, name="file")
    if not answer["valid"]:
        raise click.exceptions.Exit(1)


@steering.command("expand")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--expr", help="this expression instead of a file")
@click.option("--context", "context_file", type=click.Path(path_type=Path), help="a JSON object of names")
@click.option("--job", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="which job")
@click.option("--jobs", type=click.IntRange(1, 2**63 - 1), default=1, show_default=True, help="of how many")
@click.option("--task", default="", help="only this task")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="the dataset's")
@BATCH
@output_options
@pass_session
def expand_(
    session: Session,
    file: Path | None,
    expr: str | None,
    context_file: Path | None,
    job: int,
    jobs: int,
    task: str,
    seed: int,
    batch: Path | None,
) -> None:
    """Show what an expression means, or the tasks of one job of FILE as a pilot runs them.

    The context has any of args, steering, system, options, metadata, environ.  A line of a batch is
    {"expr": TEXT, "context": {...}}, or {"file": PATH, "job": N, "task": NAME, "context": {...}} with "text" and
    "name" instead of "file" as it likes; "id" is repeated in the answer.
    """
    if batch is not None:
        _only(batch=batch, file=file, expr=expr, context=context_file)
        return _answer_lines(batch, _expanded)
    context: Value = commands.parse_request(_content(context_file, REQUEST_BYTES_MAX)) if context_file else {}
    if expr is not None:
        _only(expr=expr, file=file)
        answer = commands.expression_answer(expr, context)
        return show_object(session.style, answer, people=lambda _: _print_value(answer), name="value")
    configuration = read(_content(_given(file)), name=_name(_given(file)))
    answer = commands.job_answer(
        configuration, job=job, jobs=max(jobs, job + 1), seed=seed, task=task, site=context
    )
    show_object(session.style, answer, people=lambda _: _print_tasks(answer), name="job")
    if any("error" in known for known in answer["tasks"]):
        raise click.exceptions.Exit(1)


@steering.command("convert")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--to", "syntax", type=click.Choice(SYNTAXES), required=True, help="the syntax to write")
def convert_(file: Path, syntax: str) -> None:
    """Write a steering FILE in another syntax to stdout; nothing of it is lost but comments."""
    text = commands.convert_text(_content(file), name=_name(file), syntax=syntax)
    click.echo(safe(text) if sys.stdout.isatty() else text, nl=False)


@steering.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@output_options
@pass_session
def show_(session: Session, file: Path) -> None:
    """Show in short what a steering FILE makes: parameters, and tasks with what they need and run."""
    document = commands.show_answer(read(_content(file), name=_name(file)))
    show_object(session.style, document, people=lambda out: _print_dataset(out, document), name="description")


def _checked(text: bytes | str, name: str) -> commands.Answer:
    return commands.check_answer(text, name=name, classes=tuple(BUILT_IN), installed=installed_names)


def _expanded(request: commands.Request) -> Mapping[str, Any]:
    context = request.get("context") or {}
    if "expr" in request:
        return commands.expression_answer(request["expr"], context)
    given = _text_of(request)
    configuration: Configuration = read(given["text"], name=given["name"])
    job, jobs, seed = (_whole(request, name, least) for name, least in (("job", 0), ("jobs", 1), ("seed", 0)))
    task = request.get("task") or ""
    if not isinstance(task, str):
        raise BadInput("task is the name of a task")
    return commands.job_answer(
        configuration, job=job, jobs=max(jobs, job + 1), seed=seed, task=task, site=context
    )


def _whole(request: commands.Request, name: str, least: int) -> int:
    value = request.get(name, least)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        raise BadInput(f"{name} is a whole number of {least} or more")
    return value


def _text_of(request: commands.Request) -> dict[str, Any]:
    """Return text and name of the steering file that a line of a batch names or holds."""
    file, text, name = (request.get(key) for key in ("file", "text", "name"))
    if isinstance(file, str) and text is None:
        return {"text": _content(Path(file)), "name": file}
    if isinstance(text, str) and file is None:
        return {"text": text, "name": name if isinstance(name, str) and name else "steering"}
    raise BadInput(
        "a line names a file or holds a text", remedy='{"file": PATH} or {"text": TEXT, "name": NAME}'
    )


def _given(file: Path | None) -> Path:
    if file is None:
        raise click.UsageError("name a steering FILE, or give --batch")
    return file


def _name(file: Path) -> str:
    """Return a file's name as it may be printed: bytes that are no text are replaced."""
    return os.fsencode(file).decode("utf-8", "replace")


def _only(**given: Any) -> None:
    """Refuse words of the command line that exclude each other: the first and any further one."""
    first, *others = [name for name, value in given.items() if value is not None]
    if others:
        raise click.UsageError(f"{first} and {others[0]} exclude each other")


def _content(file: Path, bytes_max: int = FILE_BYTES_MAX) -> bytes:
    """Return a file's bytes, and at most one more than it may have.  Raises NotFound or BadInput."""
    try:
        with _opened(file) as stream:
            return stream.read(bytes_max + 1)
    except FileNotFoundError as absent:
        raise NotFound(f"there is no file {_name(file)}") from absent
    except (OSError, ValueError) as bad:
        why = bad.strerror if isinstance(bad, OSError) and bad.strerror else str(bad)
        raise BadInput(f"{_name(file)!r} cannot be read: {why}") from bad


def _opened(file: Path) -> AbstractContextManager[BinaryIO]:
    return nullcontext(sys.stdin.buffer) if file == STDIN else file.open("rb")


def _answer_lines(batch: Path, answer: Callable[[commands.Request], Mapping[str, Any]]) -> None:
    try:
        with _opened(batch) as stream:
            for found in commands.answered(_lines(stream), answer):
                click.echo(json.dumps(found, allow_nan=False))
    except FileNotFoundError as absent:
        raise NotFound(f"there is no file {_name(batch)}") from absent
    except OSError as bad:
        raise BadInput(f"{_name(batch)!r} cannot be read: {bad.strerror}") from bad


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield lines; of one that is too long only its beginning, which is then refused."""
    while line := stream.readline(REQUEST_BYTES_MAX + 1):
        yield line
        while len(line) > REQUEST_BYTES_MAX and not line.endswith(b"\n"):
            line = stream.readline(REQUEST_BYTES_MAX + 1)


def _fault_line(fault: Mapping[str, Any]) -> str:
    place = f"{fault['file']}:{fault['line']}:{fault['column']}" if fault["line"] else fault["file"]
    path = f" {fault['path']}:" if fault["path"] else ""
    hint = f"; did you mean {fault['suggestion']}?" if fault["suggestion"] else ""
    return f"{place}:{path} found {fault['found']}; allowed: {fault['allowed']}{hint}"


def _print_value(answer: Mapping[str, Any]) -> None:
    value = answer["value"]
    say(safe(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))
    for problem in answer["problems"]:
        say(f"warning: {safe(problem)}", err=True)


def _print_tasks(answer: Mapping[str, Any]) -> None:
    for task in answer["tasks"]:
        say(f"task {safe(task['name'])} of job {answer['job']}")
        if "error" in task:
            say(f"  cannot run: {safe(task['error'])}")
            continue
        for data in task["data"]:
            say(f"  {data['movement']:<7} {safe(data['local'])} {safe(data['remote'])}")
        for tray in task["trays"]:
            say(f"  tray {safe(tray['name'])}, iteration {tray['iteration']}")
            for module in tray["modules"]:
                say(f"    {safe(module['name'])}: {safe(module['class_name'] or module['src'])}")
                if module["args"]:
                    say(f"      args = {safe(json.dumps(module['args'], ensure_ascii=False))}")
                for known in module["parameters"]:
                    shown = json.dumps(known["value"], ensure_ascii=False)
                    say(f"      {safe(known['name'])} = {safe(shown)} {safe(known['unit'])}".rstrip())
        for problem in task["problems"]:
            say("  warning: " + safe("{place}:{column}: {phrase} {reason}".format(**problem)))


def _print_dataset(out: Console, document: Mapping[str, Any]) -> None:
    say(safe(document["description"] or "a dataset without description"))
    for name, value in document["parameters"].items():
        say(f"  {safe(name)} = {safe(json.dumps(value, ensure_ascii=False))}")
    columns = [
        Column("name", "task"),
        Column("depends", "waits for", ", ".join),
        Column("requirements", "needs", lambda needs: " ".join(f"{k}={v}" for k, v in needs.items())),
        Column("modules", "modules", ", ".join),
        Column("inputs", "reads", ", ".join, wide=True),
        Column("outputs", "writes", ", ".join),
    ]
    out.print(table(document["tasks"], columns))
