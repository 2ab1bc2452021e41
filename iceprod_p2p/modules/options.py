"""Programs with option parsers as modules: their options become parameters.

`module_of(parser, run)` makes a module of an `argparse` or `optparse` parser and the function that takes its result:

    parser = ArgumentParser(description="Count events.")
    parser.add_argument("--infile", default="events.txt", help="file to read")
    CountEvents = module_of(parser, count_events)

`OptionScript` runs a script that parses its own command line, with an option for each parameter it is given.
"""

from __future__ import annotations

import argparse
import optparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.modules.base import IPModule, Statistics
from iceprod_p2p.modules.command import argument_text, argument_words, run_command, script_argv
from iceprod_p2p.modules.statistics import clip

Parser = argparse.ArgumentParser | optparse.OptionParser
Run = Callable[[Any], Any]
_LISTS: Final = {int: "int_list", float: "float_list", None: "string_list", str: "string_list"}
_KINDS: Final = {
    int: "int",
    float: "float",
    str: "string",
    "int": "int",
    "float": "float",
    "string": "string",
}


def module_of(parser: Parser, run: Run) -> type[IPModule]:
    """Return a module whose parameters are the options of `parser`, and whose work is ``run(options)``.

    `run` gets what the parser would give (a namespace); it returns a code, or a mapping of statistics.  BadInput for
    an option that has no long name.
    """
    declared = [*_argparse(parser)] if isinstance(parser, argparse.ArgumentParser) else [*_optparse(parser)]
    values_type: Any = argparse.Namespace if isinstance(parser, argparse.ArgumentParser) else optparse.Values

    class OptionsModule(IPModule):
        __doc__ = parser.description or getattr(run, "__doc__", None) or ""

        def __init__(self) -> None:
            super().__init__()
            for name, help_text, default, kind in declared:
                self.AddParameter(name, help_text, default, kind)

        def Execute(self, stats: Statistics) -> Any:
            """Run the function with the parameters as its options."""
            options = values_type()
            for name, *_ in declared:
                setattr(options, name, self.GetParameter(name))
            result = run(options)
            if isinstance(result, Mapping):
                stats.update(result)
                return 0
            return result

    OptionsModule.__name__ = OptionsModule.__qualname__ = getattr(run, "__name__", "OptionsModule")
    return OptionsModule


def _argparse(parser: argparse.ArgumentParser) -> list[tuple[str, str, Any, str | None]]:
    found = []
    for action in parser._actions:
        if action.dest in (argparse.SUPPRESS, "help") or isinstance(action, argparse._HelpAction):
            continue
        if isinstance(action, argparse._SubParsersAction):
            raise BadInput(
                "a parser of commands cannot be one module", remedy="make a module of each command"
            )
        kind: str | None = "bool" if isinstance(action.const, bool) else None
        if kind is None:
            many = action.nargs in ("*", "+") or isinstance(action, argparse._AppendAction)
            kind = (_LISTS if many else _KINDS).get(action.type or str)  # type: ignore[arg-type]
        default = [] if kind and kind.endswith("_list") and action.default is None else action.default
        found.append((action.dest, _help(action.help), default, None if default is None else kind))
    return found


def _optparse(parser: optparse.OptionParser) -> list[tuple[str, str, Any, str | None]]:
    found = []
    options = [
        *parser.option_list,
        *(option for group in parser.option_groups for option in group.option_list),
    ]
    for option in options:
        if option.dest is None:
            continue
        default = parser.defaults.get(option.dest)
        kind: str | None = _KINDS.get(option.type or "")
        if option.action in ("store_true", "store_false"):
            kind, default = "bool", bool(default)
        elif option.action == "append":
            kind, default = "string_list", default or []
        found.append((option.dest, _help(option.help), default, None if default is None else kind))
    return found


def _help(text: str | None) -> str:
    return "" if text in (None, argparse.SUPPRESS) else " ".join(str(text).split())


class OptionScript(IPModule):
    """Run a script that parses its own options: each entry of `options` becomes one.

    true gives ``--name`` alone, false and null nothing, a list the option once for each item.
    """

    def __init__(self) -> None:
        super().__init__()
        self.AddParameter(
            "script", "the script, beside the steering file or in the work directory", "", "string"
        )
        self.AddParameter("options", "options by name: {name: value}", {}, "json")
        self.AddParameter("arguments", "words that follow the options", "")
        self.AddParameter("joined", "write --name=value as one word", True, "bool")

    def Execute(self, stats: Statistics) -> int:
        """Run it to its end; its exit code is the module's."""
        options = self.GetParameter("options")
        if not isinstance(options, dict):
            raise BadInput(f"options are {clip(options)}, not an object of names and values")
        words = option_words(options, joined=self.GetParameter("joined"))
        words += argument_words(self.GetParameter("arguments"))
        argv = script_argv(Path(self.GetParameter("script")), list(words))
        code, statistics = run_command(argv, work_dir=Path.cwd())
        stats.update(statistics)
        return code


def option_words(options: Mapping[str, Any], *, joined: bool = True) -> list[str]:
    """Return the words of options; names of one letter get one dash.  BadInput for a name that is none."""
    words: list[str] = []
    for name, value in options.items():
        if not name or name.startswith("-") or "=" in name or not name.isprintable() or " " in name:
            raise BadInput(f"{clip(name)} cannot be the name of an option")
        flag = f"-{name}" if len(name) == 1 else f"--{name}"
        for item in value if isinstance(value, list) else [value]:
            if item is None or item is False:
                continue
            if item is True:
                words.append(flag)
            elif joined and len(name) > 1:
                words.append(f"{flag}={argument_text(item)}")
            else:
                words += [flag, argument_text(item)]
    return words
