"""The modern form of a module: a function whose typed parameters are the module's parameters.

    @module_function
    def simulate(
        *,
        events: Annotated[int, "events to generate"] = 100,
        energy_min: Annotated[float, "lowest energy", Unit("GeV")] = 1e3,
        context: ModuleContext,
    ) -> dict[str, float]:
        \"\"\"Simulate events.\"\"\"
        ...
        return {"events": events}

The decorator checks the signature at once and changes nothing else: the function stays a function.  What it
returns, a mapping of statistics or None, is the module's result; a failure is an exception.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.modules.base import IPModule, Statistics
from iceprod_p2p.modules.context import ModuleContext
from iceprod_p2p.modules.parameters import ParameterSpec, parameter_type

MARK = "__iceprod_parameters__"

Function = TypeVar("Function", bound=Callable[..., Mapping[str, float] | None])


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of a parameter, for people: ``Annotated[float, Unit("GeV")]``."""

    symbol: str


def module_function(function: Function) -> Function:
    """Mark `function` as a module; BadInput when a parameter lacks a type that steering files know."""
    setattr(function, MARK, _specs(function))
    return function


def is_module_function(candidate: object) -> bool:
    """Return whether `candidate` was marked by `module_function`."""
    return inspect.isfunction(candidate) and hasattr(candidate, MARK)


def as_module(function: Callable[..., Any]) -> IPModule:
    """Return a marked function as an IPModule, so that both forms run by the same code."""
    return FunctionModule(function)


class FunctionModule(IPModule):
    """A marked function behind the interface of IPModule."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.logger = self.logger.getChild(function.__name__)
        self._required: set[str] = set()
        for spec in getattr(function, MARK):
            self._specs[spec.name.lower()] = spec
            self.parameters[spec.name.lower()] = spec.default
            self.description[spec.name.lower()] = spec.description
            if spec.required:
                self._required.add(spec.name.lower())

    def SetParameter(self, name: str, value: Any) -> None:
        """Set a declared parameter; see `IPModule.SetParameter`."""
        super().SetParameter(name, value)
        self._required.discard(name.lower())

    def Execute(self, stats: Statistics) -> int:
        """Call the function; BadInput when a parameter without default was not set."""
        if self._required:
            raise BadInput(f"{self.function.__name__} needs a value for {', '.join(sorted(self._required))}")
        values = {spec.name: self.parameters[spec.name.lower()] for spec in getattr(self.function, MARK)}
        context_name = _context_parameter(self.function)
        if context_name:
            values[context_name] = self.context
        result = self.function(**values)
        if result is not None:
            stats.update(result)
        return 0


def _specs(function: Callable[..., Any]) -> tuple[ParameterSpec, ...]:
    hints = get_type_hints(function, include_extras=True)
    specs = []
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name)
        if hint is ModuleContext:
            continue
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise BadInput(f"{function.__name__}: parameter {parameter.name!r} cannot be given by name")
        if hint is None:
            raise BadInput(f"{function.__name__}: parameter {parameter.name!r} has no type annotation")
        specs.append(_spec(parameter, hint))
    return tuple(specs)


def _spec(parameter: inspect.Parameter, hint: Any) -> ParameterSpec:
    kind: Any = hint
    extras: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        kind, *rest = get_args(hint)
        extras = tuple(rest)
    required = parameter.default is parameter.empty
    return ParameterSpec(
        name=parameter.name,
        description=next((extra for extra in extras if isinstance(extra, str)), ""),
        type=parameter_type(kind),
        default=None if required else parameter.default,
        required=required,
        strict=True,
        unit=next((extra.symbol for extra in extras if isinstance(extra, Unit)), ""),
    )


def _context_parameter(function: Callable[..., Any]) -> str | None:
    hints = get_type_hints(function)
    return next((name for name, hint in hints.items() if hint is ModuleContext and name != "return"), None)
