"""The plugin of docs/plugins.md is complete and works, in the lines that the page prints."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from iceprod_p2p.grids import base
from iceprod_p2p.grids.errors import GridDown, GridError
from tests.unit.grids.recordings import FakeCommands

PAGE = Path(__file__).parents[3] / "docs" / "plugins.md"


@pytest.fixture
def toy(tmp_path: Path) -> tuple[base.Grid, FakeCommands]:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    module = ModuleType("toy_grid")
    exec(compile(code, str(PAGE), "exec"), module.__dict__)  # noqa: S102  # It is our own page.
    fake = FakeCommands(tmp_path)
    return module.ToyGrid.from_options({"bin_directory": str(tmp_path)}), fake


def request(root: Path, name: str) -> base.GridRequest:
    return base.GridRequest(base.Tag("madison", name), "/opt/pilot", f"{root}/{name}", walltime_s=90)


def test_it_submits_and_tells_a_refusal_from_silence(
    toy: tuple[base.Grid, FakeCommands], tmp_path: Path
) -> None:
    grid, fake = toy
    fake.answer("toysub", "17\n")
    fake.answer("toysub", complaint="no such project\n", code=2, when=".b ")
    fake.answer("toysub", complaint="lost the answer\n", code=1, when=".c ")
    results = grid.submit([request(tmp_path, name) for name in "abcd"])
    kinds = [base.Submitted, base.NotSubmitted, base.Unclear, base.Unclear]
    assert [type(result) for result in results] == kinds
    assert fake.calls("toysub")[0][-1] == "2" and "exec /opt/pilot" in fake.inputs("toysub")[0]
    fake.answer("toysub", complaint="cannot connect to toyd\n", code=1)
    with pytest.raises(GridDown):
        grid.submit([request(tmp_path, "e")])


def test_it_tells_states_ends_and_ours_from_strangers(toy: tuple[base.Grid, FakeCommands]) -> None:
    grid, fake = toy
    fake.answer(
        "toystat",
        "1 iceprod.madison.a R node3 0\n2 iceprod.madison.b E node3 4\n3 other Q - 0\n4 iceprod.madison.c Z - 0\n",
    )
    fake.answer("toydel")
    assert grid.status(["1", "3", "9"]) == {"1": base.Running("node3"), "3": base.Queued()}
    assert grid.history(["1", "2"]) == {"2": base.History("2", base.Completed(4), host="node3")}
    assert grid.find_by_tag([base.Tag("madison", "b")])[base.Tag("madison", "b")].grid_job_id == "2"
    assert [job.grid_job_id for job in grid.clean_queue("madison", [base.Tag("madison", "a")])] == ["4"]
    assert fake.calls("toydel") == [["4"]]
    fake.answer("toystat", "what is this\n")
    with pytest.raises(GridError, match="unknown form"):
        grid.status(["1"])
