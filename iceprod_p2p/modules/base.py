"""IPModule: the base class of modules, with the interface physicists know from IceProd.

    class CountLines(IPModule):
        \"\"\"Count the lines of a file.\"\"\"

        def __init__(self):
            super().__init__()
            self.AddParameter("infile", "file to read", "events.txt")

        def Execute(self, stats):
            if not super().Execute(stats):
                return 0
            stats["lines"] = sum(1 for _ in open(self.GetParameter("infile")))
            return 0

Method names are those of IceProd (arXiv:1311.5904, section 3), so that old modules keep working; new ones
may prefer a typed function (`iceprod_p2p.modules.function`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, MutableMapping
from typing import Any

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.modules.context import ModuleContext
from iceprod_p2p.modules.parameters import ParameterSpec, inferred_type, parameter_type
from iceprod_p2p.modules.statistics import clip

Statistics = MutableMapping[str, Any]


class IPModule:
    """A module: parameters declared in `__init__`, work done in `Execute`.

    Parameter names do not depend on case.  Every module has the parameter `execute`; when it is false the
    framework runs neither `Execute` nor `Finish`.  CPU, real and system time are measured by the framework.
    """

    def __init__(self) -> None:
        self.status = 0
        self.configured = False
        self.context = ModuleContext()
        self.logger = logging.getLogger(f"iceprod.{type(self).__name__}")
        # Old classes call __init__ of several bases, or read `parameters` and `description` directly.
        if "_specs" not in self.__dict__:
            self._specs: dict[str, ParameterSpec] = {}
            self.parameters: dict[str, Any] = {}
            self.description: dict[str, str] = {}
            self.AddParameter("execute", "whether to run this module at all", True, "bool")

    def AddParameter(self, name: str, description: str, default: Any, type: Any = None) -> None:
        """Declare a parameter.

        `type` is one of the steering file's types ("int", "float_list", "json", …) or a Python type; a
        value is then converted to it or refused.  Without it any value is taken.  A second declaration
        replaces the first.
        """
        kind = parameter_type(type)
        spec = ParameterSpec(
            name=name,
            description=description,
            type=kind or inferred_type(default),
            default=default,
            strict=kind is not None,
        )
        self._specs[name.lower()] = spec
        self.parameters[name.lower()] = default
        self.description[name.lower()] = description

    def GetParameter(self, name: str) -> Any:
        """Return a parameter's value; BadInput when it was never declared."""
        self._declared(name)
        return self.parameters[name.lower()]

    def SetParameter(self, name: str, value: Any) -> None:
        """Set a declared parameter; BadInput when it was not declared or `value` does not suit its type."""
        self.parameters[name.lower()] = self._declared(name).convert(value)

    def SetParameters(self, *pairs: tuple[str, Any]) -> IPModule:
        """Set several parameters, given as (name, value) pairs; return the module itself."""
        for name, value in pairs:
            self.SetParameter(name, value)
        return self

    def ShowParameters(self) -> list[tuple[str, Any, str]]:
        """Return (name, value, description) of every parameter, in the order of declaration."""
        return [(spec.name, self.parameters[key], spec.description) for key, spec in self._specs.items()]

    def parameter_specs(self) -> tuple[ParameterSpec, ...]:
        """Return every declared parameter, in the order of declaration."""
        return tuple(self._specs.values())

    def Configure(self, tray: Any = None) -> None:
        """Take note that every parameter is set; called once before `Execute`."""
        self.configured = True

    def Execute(self, stats: Statistics) -> Any:
        """Do the work; fill `stats` in place with finite numbers; return 0 when all went well.

        This one only tells a subclass whether to go on: the value of the parameter `execute`.
        """
        return bool(self.GetParameter("execute"))

    def Finish(self, stats: Statistics) -> Any:
        """Tidy up after a good `Execute`; return 0 when all went well."""
        return 0

    def PrintStats(self, stats: Statistics) -> None:
        """Write the statistics to the log, one line each."""
        self.logger.info("statistics of %s:", type(self).__name__)
        for name, value in stats.items():
            self.logger.info("%s = %s", name, value)

    def _declared(self, name: str) -> ParameterSpec:
        spec = self._specs.get(name.lower())
        if spec is None:
            raise BadInput(
                f"{type(self).__name__} has no parameter {clip(name)}",
                remedy=nearest(name, [known.name for known in self._specs.values()]),
            )
        return spec


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a remedy for a wrong name: the name that was probably meant, or all that there are."""
    import difflib  # only wrong names pay for this import

    names = sorted(known)
    by_lower = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1)
    if close:
        return f"did you mean {by_lower[close[0]]!r}?"
    return "there is: " + ", ".join(names) if names else "there are none"
