"""`iceprod modules`: list and inspect the modules that a steering file may name."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from iceprod_cli.output.show import Column, safe, show_object, show_rows, table
from iceprod_cli.session import Session, output_options, pass_session
from iceprod_p2p.base.command_help import CommandGroup
from iceprod_p2p.modules.parameters import ParameterSpec
from iceprod_p2p.modules.registry import ModuleSpec, inspect_module, list_modules


@click.group(cls=CommandGroup)
def modules() -> None:
    """List and inspect modules; needs no cluster."""


def _row(spec: ModuleSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "origin": spec.origin,
        "summary": spec.fault or spec.description.partition("\n")[0],
        "description": spec.description,
        "fault": spec.fault,
        "parameters": [_parameter(parameter) for parameter in spec.parameters],
    }


def _parameter(spec: ParameterSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "type": str(spec.type) if spec.type else "any",
        "default": None if spec.required else spec.default,
        "required": spec.required,
        "unit": spec.unit,
        "description": spec.description,
    }


@modules.command("list")
@output_options
@pass_session
def list_(session: Session) -> None:
    """List the built-in modules and those that installed packages offer."""
    columns = [Column("name", "module"), Column("origin", "origin"), Column("summary", "what it does")]
    show_rows(session.style, map(_row, list_modules()), columns, name="name")


@modules.command()
@click.argument("name")
@click.option("--src", default="", help="a Python file that defines the class; the file is run")
@output_options
@pass_session
def inspect(session: Session, name: str, src: str) -> None:
    """Show a module's parameters with types, defaults and descriptions."""
    document = _row(inspect_module(name, src))

    def people(out: Console) -> None:
        out.print(f"{document['name']} ({document['origin']})", style="bold", markup=False)
        out.print(safe(document["description"]) + "\n", markup=False)
        columns = [
            Column("name", "parameter"),
            Column("type", "type"),
            Column("default", "default", repr),
            Column("unit", "unit"),
            Column("description", "description"),
        ]
        out.print(table(document["parameters"], columns))

    show_object(session.style, document, people=people, name="name")
