"""Plugins are found by name; every wrong option is named; strangers cannot take a built-in name."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.grids import registry
from iceprod_p2p.grids.base import Grid
from iceprod_p2p.grids.local import LocalGrid


def offer(monkeypatch: pytest.MonkeyPatch, *entries: EntryPoint) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [e for e in entries if e.group == group])


def test_every_built_in_plugin_loads() -> None:
    for name in registry.BUILT_IN:
        assert issubclass(registry.load(name), Grid)


def test_the_local_grid_is_made_from_its_options(tmp_path: Path) -> None:
    grid = registry.create("local", {"spool": str(tmp_path / "s"), "slots": 3, "gpus": ["0", "1"]})
    assert isinstance(grid, LocalGrid)
    assert (grid.options.slots, grid.options.gpus, grid.options.grace_s) == (3, ("0", "1"), 10.0)
    assert not (tmp_path / "s").exists(), "making a plugin touches nothing"


def test_every_wrong_option_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        registry.create("local", {"slots": 0, "gpu": "all", "gpus": "0"})
    text = str(caught.value)
    assert len(caught.value.faults) == 4
    for part in ("slots", "gpu:", "gpus", "spool must be given", "known: spool, slots"):
        assert part in text


def test_an_unknown_plugin_is_refused_with_those_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, EntryPoint("cray", "cray_grid:Grid", registry.GROUP))
    with pytest.raises(ConfigError, match=r"no grid plugin 'lsf' \(installed: .*cray, .*local"):
        registry.create("lsf", {})


def test_another_package_brings_a_plugin_but_cannot_take_a_built_in_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "other_grid.py").write_text(
        "from iceprod_p2p.grids.local import LocalGrid\nclass OtherGrid(LocalGrid):\n    pass\nNUMBER = 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    offer(
        monkeypatch,
        EntryPoint("other", "other_grid:OtherGrid", registry.GROUP),
        EntryPoint("local", "other_grid:OtherGrid", registry.GROUP),
        EntryPoint("number", "other_grid:NUMBER", registry.GROUP),
        EntryPoint("broken", "nowhere_to_be_found:Grid", registry.GROUP),
    )
    assert registry.load("other").__name__ == "OtherGrid"
    assert registry.load("local") is LocalGrid
    with pytest.raises(ConfigError, match="is not a subclass"):
        registry.load("number")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        registry.load("broken")
    sys.modules.pop("other_grid", None)
