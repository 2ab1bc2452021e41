"""Every line that the documentation and the help tell people to type is one that the commands understand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from iceprod_cli.main import cli
from iceprod_pilot.main import argument_parser

from iceprod_p2p.daemon import main as node_main

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
COMMANDS = {"iceprod": cli, "iceprod-node": node_main}
CALL = re.compile(r"(?:^|[\s;|(&])(?:\S*/)?(iceprod(?:-node|-pilot)?)(?=\s+[a-z-])((?:'[^']*'|[^;|&`)>'])*)")
QUOTED = re.compile(r"`((?:\S*/)?iceprod(?:-node|-pilot)? [^`]+)`")
PLACEHOLDER = re.compile(r"[A-Z]{2,}|^[A-Z]$|[…\[\]|$<>]|\.\.\.")


def written(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each line to type, and whether it is a whole one (in a block) or mentioned in a sentence."""
    text = re.sub(r"\\\n\s*", "", text)
    is_fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            is_fenced = not is_fenced
        elif is_fenced or line.startswith("    "):
            code = re.split(r"\s#(?:\s|$)", line)[0].strip().removeprefix("$ ")
            if re.match(r"(?:for |(?:\S*/)?iceprod)", code):
                for call in CALL.finditer(code):
                    yield call[1] + call[2], True
        else:
            for quoted in QUOTED.finditer(line):
                for call in CALL.finditer(quoted[1]):
                    yield call[1] + call[2], False


def fault_of(line: str, *, whole: bool) -> str:
    """Return why the commands would refuse a line, empty when they would not."""
    line = re.sub(r"'[^']*…[^']*'", "X", line)
    if "'" not in line:
        line = re.sub(r"\[(-{0,2}[A-Za-z][A-Za-z .-]*)\]", r"\1", line)  # What may be left out.
    try:
        name, *words = shlex.split(line)
    except ValueError as fault:
        return str(fault)
    if name == "iceprod-pilot":
        known = argument_parser()._option_string_actions
        return next((f"no option {word}" for word in words if word.startswith("-") and word not in known), "")
    command: click.Command = COMMANDS[name]
    context = click.Context(command, info_name=name)
    try:
        while isinstance(command, click.Group):
            given, words, _ = command.make_parser(context).parse_args(words)
            if not words or given.get("help") is True:
                return ""
            if PLACEHOLDER.search(words[0]):
                return ""
            if words[0].isupper() or "|" in words:
                return ""
            below = command.get_command(context, words[0])
            if below is None:
                return f"{name} has no command {words[0]}"
            context = click.Context(below, info_name=words[0], parent=context)
            command, words = below, words[1:]
        given, rest, _ = command.make_parser(context).parse_args(words)
    except click.UsageError as fault:
        return fault.message
    if rest:
        return f"too much: {' '.join(rest)}"
    for parameter in command.params:
        value = given.get(parameter.name or "")
        is_given = isinstance(value, str)
        if parameter.required and whole and (value == () or not isinstance(value, str | tuple)):
            return f"{parameter.human_readable_name} is missing"
        if is_given and not PLACEHOLDER.search(str(value)):
            try:
                if isinstance(parameter.type, click.Choice | click.IntRange | click.FloatRange):
                    parameter.type.convert(value, parameter, context)
            except click.BadParameter as fault:
                return fault.message
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_line_of_the_documentation_is_understood(page: Path) -> None:
    faults = [
        f"{page.name}: {line.strip()}: {fault}"
        for line, whole in written(page.read_text())
        if (fault := fault_of(line, whole=whole))
    ]
    assert not faults, "\n".join(faults)


def commands(
    command: click.Command, context: click.Context, path: str
) -> Iterator[tuple[str, click.Command]]:
    """Yield every command below one, by what is typed for it."""
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, click.Context(below, info_name=name, parent=context), f"{path} {name}")


EVERY = {
    path: command
    for name, root in COMMANDS.items()
    for path, command in commands(root, click.Context(root, info_name=name), name)
}


@pytest.mark.parametrize("path", EVERY)
def test_help_says_what_a_command_does_and_what_each_option_means(path: str) -> None:
    command = EVERY[path]
    assert command.help or command.short_help, f"{path} says nothing"
    silent = [
        option.opts[-1]
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden and not option.help
    ]
    assert not silent, f"{path}: {', '.join(silent)} without a word"
    lines = [line for line in (command.epilog or "").splitlines() if "iceprod" in line]
    faults = [
        f"{line}: {fault}"
        for line, whole in written("\n".join(lines))
        if (fault := fault_of(line, whole=True))
    ]
    assert not faults, "\n".join(faults)


def test_a_line_that_nothing_understands_is_found() -> None:
    for line, words in {
        "iceprod datset list": "no command datset",
        "iceprod dataset list --stat failed": "--stat",
        "iceprod file get": "missing",
        "iceprod dataset list -o jsn": "jsn",
        "iceprod dataset show 1 2": "too much",
        "iceprod-node doctor --jsn": "--jsn",
        "iceprod-pilot --confg x": "--confg",
    }.items():
        assert words in fault_of(line, whole=True), line
    assert not fault_of("iceprod --context demo/ dataset show 1", whole=True)
