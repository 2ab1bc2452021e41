"""The one door to grid plugins: built-in ones and those of other packages (entry-point group
`iceprod_p2p.grids`).
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.base.settings import Faults, read_section
from iceprod_p2p.base.toml_lines import Path as KeyPath
from iceprod_p2p.grids.base import Grid

GROUP: Final = "iceprod_p2p.grids"
BUILT_IN: Final[Mapping[str, str]] = {
    "arc": "iceprod_p2p.grids.arc:ArcGrid",
    "cream": "iceprod_p2p.grids.gateways:CreamGrid",
    "declarative": "iceprod_p2p.grids.declarative:DeclarativeGrid",
    "edg": "iceprod_p2p.grids.gateways:EdgGrid",
    "glite": "iceprod_p2p.grids.gateways:GliteGrid",
    "gram": "iceprod_p2p.grids.gram:GramGrid",
    "htcondor": "iceprod_p2p.grids.htcondor:HtcondorGrid",
    "htcondor-ce": "iceprod_p2p.grids.htcondor_ce:HtcondorCeGrid",
    "local": "iceprod_p2p.grids.local:LocalGrid",
    "pbs": "iceprod_p2p.grids.pbs:PbsGrid",
    "psij": "iceprod_p2p.grids.psij:PsijGrid",
    "sge": "iceprod_p2p.grids.sge:SgeGrid",
    "slurm": "iceprod_p2p.grids.slurm:SlurmGrid",
}


def names() -> tuple[str, ...]:
    """Return the names of all plugins that are installed, sorted; loads none."""
    return tuple(sorted({*BUILT_IN, *(entry.name for entry in entry_points(group=GROUP))}))


def load(name: str) -> type[Grid]:
    """Return the class of plugin `name`; raises ConfigError when it is unknown, cannot be imported or is no
    Grid.

    A built-in name cannot be taken over by another package.
    """
    if name in BUILT_IN:
        entry = EntryPoint(name, BUILT_IN[name], GROUP)
    else:
        found = [entry for entry in entry_points(group=GROUP) if entry.name == name]
        if not found:
            near = get_close_matches(name, names(), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"there is no grid plugin {name!r}{hint}", remedy=f"installed: {', '.join(names())}"
            )
        entry = found[0]
    try:
        plugin = getattr(import_module(entry.module), entry.attr)
    except (ImportError, AttributeError) as broken:
        raise ConfigError(
            f"grid plugin {name!r} ({entry.value}) cannot be loaded: {broken}",
            remedy="install its package again or correct its entry point",
        ) from broken
    if not (isinstance(plugin, type) and issubclass(plugin, Grid)):
        raise ConfigError(
            f"grid plugin {name!r} ({entry.value}) is not a subclass of iceprod_p2p.grids.base.Grid"
        )
    return plugin


def create(name: str, options: Mapping[str, object], *, lines: Mapping[KeyPath, int] | None = None) -> Grid:
    """Make plugin `name`; ConfigError names every wrong option, with its line where `lines` knows the file's.

    Asks the batch system nothing.
    """
    plugin = load(name)
    faults = Faults(lines or {})
    values = read_section(plugin.OPTIONS, options, ("queue", "options"), faults)
    if faults.found:
        raise ConfigError(
            f"the options of grid plugin {name!r} are wrong:",
            faults=faults.sentences() if lines else tuple(text for _, text in faults.found),
            remedy="known: " + ", ".join(setting.name for setting in plugin.OPTIONS),
        )
    return plugin.from_options(values)
