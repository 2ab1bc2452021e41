"""Every plugin has its page for operators: every option, its limits, and what was tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from iceprod_p2p.grids import registry

PAGES = Path(__file__).parents[3] / "docs" / "grids"


@pytest.mark.parametrize("name", sorted(registry.BUILT_IN))
def test_the_page_of_a_plugin_names_its_options_limits_and_tests(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text()
    missing = [
        setting.name
        for setting in registry.load(name).OPTIONS
        if f"`{setting.name}`" not in page and f"{setting.name} =" not in page
    ]
    assert not missing, f"docs/grids/{name}.md does not name {missing}"
    assert f'plugin = "{name}"' in page, "an example to begin with"
    assert "imits" in page and "Tested" in page
    assert f"({name}.md)" in (PAGES / "README.md").read_text(), "the list of all"
