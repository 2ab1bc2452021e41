"""Where the names of expressions are found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from iceprod_p2p.model.steering import Value

Values: TypeAlias = Mapping[str, Value]
NONE: Final[Values] = {}

LOOKUPS: Final = ("", "args", "steering", "system", "options", "metadata", "environ")


class Found(NamedTuple):
    """A name that was found: in which scope, and its value as written."""

    scope: str
    value: Value


@dataclass(frozen=True, slots=True)
class Context:
    """Everything that expressions may refer to.

    `scopes` are the parameters of module, tray and task, nearest first, each with its name.  `metadata` is one flat
    table of names.  `seed` is the dataset's, from which `$choice` draws together with the arguments `job` and `task`
    and with `place`, the path of the text in the tree.
    """

    args: Values = field(default_factory=dict)
    options: Values = field(default_factory=dict)
    steering: Values = field(default_factory=dict)
    system: Values = field(default_factory=dict)
    metadata: Values = field(default_factory=dict)
    environ: Values = field(default_factory=dict)
    scopes: tuple[tuple[str, Values], ...] = ()
    seed: int = 0
    place: str = ""

    def find(self, lookup: str, name: str) -> Found | None:
        """Return what `$lookup(name)` refers to; None when it is not known here.

        `$(name)` takes the nearest: module, tray, task, steering, arguments, options.  Arguments and options stand in
        for each other, as they are one table in IceProd.
        """
        match lookup:
            case "":
                searched = (
                    *self.scopes,
                    ("steering", self.steering),
                    ("args", self.args),
                    ("options", self.options),
                )
            case "args":
                searched = (("args", self.args), ("options", self.options))
            case "options":
                searched = (("options", self.options), ("args", self.args))
            case "steering":
                searched = (("steering", self.steering),)
            case "system":
                searched = (("system", self.system),)
            case "metadata":
                searched = (("metadata", self.metadata),)
            case _:
                searched = (("environ", self.environ),)
        for scope, values in searched:
            if name in values:
                return Found(scope, values[name])
        return None
