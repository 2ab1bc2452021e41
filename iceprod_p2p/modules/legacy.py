"""Lets modules written for IceProd 1 and 2 import what they were written for.

`import ipmodule`, `from ipmodule import IPBaseClass`, `from iceprod.modules import ipmodule` and
`from icecube.simprod.ipmodule import …` all give this library's classes, in the child process alone.  Where
the real package is installed (a tray's software environment), the real one is used.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from iceprod_p2p.modules.base import IPModule, Statistics
from iceprod_p2p.modules.parameters import ParameterSpec, parameter_type

SHIMS = ("ipmodule", "iceprod.modules.ipmodule", "icecube.simprod.ipmodule")


class IPBaseClass(IPModule):
    """The old name of IPModule.  `if not IPBaseClass.Execute(self, stats): return 0` works as it did."""

    parser: Any = None

    def __getattr__(self, name: str) -> Any:
        """Give a parameter as an attribute, as one generation of the old class did."""
        parameters = self.__dict__.get("parameters", {})
        if name in parameters:
            return parameters[name]
        raise AttributeError(f"{type(self).__name__} has neither attribute nor parameter {name!r}")

    def _declared(self, name: str) -> ParameterSpec:
        # Old modules also declare by writing into `self.parameters`.
        key = name.lower()
        if key not in self._specs and key in self.parameters:
            self.AddParameter(name, "", self.parameters[key])
        return super()._declared(name)

    def SetParser(self, parser: Any) -> None:
        """Keep an expression parser.  Values arrive already expanded, so none is needed."""
        self.parser = parser

    def Finish(self, stats: Statistics | None = None) -> Any:
        """Tidy up; old modules call it without statistics too."""
        return 0


class ParsingModule(IPBaseClass):
    """The old base of modules that also parse command lines: a parameter may not be declared twice."""

    def __init__(self, opt_parser: Any = None) -> None:
        self._opt_parser = opt_parser
        super().__init__()

    def AddParameter(self, name: str, description: str, default: Any, explicit_type: Any = None) -> None:
        """Declare a parameter; see `IPModule.AddParameter`.

        Types of optparse that are unknown here mean text.
        """
        kind = {"choice": "string", "long": "int"}.get(str(explicit_type), explicit_type)
        super().AddParameter(name, description, default, parameter_type(kind))


class FromOptionParser(IPBaseClass):
    """An optparse parser and `main(options, stats)` as a module: every option is a parameter."""

    def __init__(self, parser: Any, main: Callable[[dict[str, Any], Statistics], Any]) -> None:
        super().__init__()
        self.main = main
        helps = {option.dest: option.help or "" for option in parser.option_list if option.dest}
        self._options: Mapping[str, Any] = dict(parser.defaults)
        for name, value in self._options.items():
            self.AddParameter(name, helps.get(name, ""), value)

    def Execute(self, stats: Statistics) -> Any:
        """Call `main` with the options as a dictionary; its None means 0."""
        if not super().Execute(stats):
            return 0
        code = self.main({name: self.GetParameter(name) for name in self._options}, stats)
        return 0 if code is None else code


def install() -> None:
    """Make the old names importable in this process; a package that is really there is left alone."""
    for name in SHIMS:
        if _is_installed(name.partition(".")[0]):
            continue
        parent = name.rpartition(".")[0]
        module = _shim(name)
        while parent:
            package = sys.modules.get(parent) or _package(parent)
            setattr(package, module.__name__.rpartition(".")[2], module)
            module, parent = package, parent.rpartition(".")[0]


def _shim(name: str) -> ModuleType:
    module = ModuleType(name, __doc__)
    for attribute in (IPBaseClass, IPModule, ParsingModule, FromOptionParser):
        setattr(module, attribute.__name__, attribute)
    sys.modules[name] = module
    return module


def _package(name: str) -> ModuleType:
    package = ModuleType(name)
    package.__path__ = []
    sys.modules[name] = package
    return package


def _is_installed(name: str) -> bool:
    if name in sys.modules:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
