"""A batch system that is described by data: the example of docs/grids/declarative.md on scripted commands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.grids.base import (
    Completed,
    Grid,
    GridRequest,
    Held,
    NotSubmitted,
    Queued,
    Removed,
    Running,
    Submitted,
    Tag,
    Unclear,
)
from iceprod_p2p.grids.errors import GridDown, GridError
from iceprod_p2p.grids.registry import create
from tests.unit.grids.recordings import FakeCommands

PAGE = Path(__file__).parents[3] / "docs" / "grids" / "declarative.md"
LIST = """\
ID   NAME               STATE HOST CODE
1 iceprod.madison.a PEND - - waiting for licences
2 iceprod.madison.b RUN n7 -
3 iceprod.madison.c EXIT n7 3
4 iceprod.lyon.d KILLED n8 -
5 stranger HOLD - - by operator
6 iceprod.madison.e FROZEN - -
"""


def options() -> dict[str, Any]:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    found: dict[str, Any] = tomllib.loads(example)["queue"]["options"]
    return found


@pytest.fixture
def fake(tmp_path: Path) -> FakeCommands:
    directory = tmp_path / "bin"
    directory.mkdir()
    made = FakeCommands(directory)
    made.answer("blist", LIST)
    return made


def grid(fake: FakeCommands, **more: object) -> Grid:
    return create("declarative", {**options(), "bin_directory": str(fake.directory), **more})


def request(root: Path, name: str = "j", **more: Any) -> GridRequest:
    return GridRequest(Tag("madison", name), "/bin/pwd", f"{root}/{name}", **more)


def test_empty_amounts_leave_their_item_out_and_values_are_not_cut(fake: FakeCommands) -> None:
    plugin = grid(fake, submit=["bsubmit", "-q {queue}", "--minutes={minutes}", "-o {stdout}"])
    asked = request(Path("/a b"), walltime_s=90, extra_lines=("--project x",))
    line = plugin.write_config(asked).arguments
    assert line == ("bsubmit", "--minutes=2", "-o", "/a b/j/grid.out", "--project", "x")
    assert plugin.write_config(request(Path("/a"), queue="long")).arguments[1:3] == ("-q", "long")


def test_submission_tells_kinds_of_trouble(fake: FakeCommands, tmp_path: Path) -> None:
    fake.answer("bsubmit", "Job <17> is submitted to queue <long>.\n")
    fake.answer("bsubmit", complaint="No such queue\n", code=255, when=".b ")
    fake.answer("bsubmit", complaint="Request timed out\n", code=255, when=".c ")
    results = grid(fake).submit([request(tmp_path, name) for name in "abc"])
    assert results[0] == Submitted(Tag("madison", "a"), "17")
    assert results[1] == NotSubmitted(Tag("madison", "b"), "No such queue")
    assert isinstance(results[2], Unclear)
    fake.answer("bsubmit", complaint="cannot connect to the batch daemon\n", code=1)
    with pytest.raises(GridDown):
        grid(fake).submit([request(tmp_path, "d")])
    assert f"cd {tmp_path}/a || exit 1" in fake.inputs("bsubmit")[0]


def test_a_script_by_file_is_written_before_it_is_named(fake: FakeCommands, tmp_path: Path) -> None:
    fake.answer("bsubmit", "Job <17> is submitted\n")
    grid(fake, submit=["bsubmit {script}"]).submit([request(tmp_path)])
    path = Path(fake.calls("bsubmit")[0][0])
    assert path.read_text().endswith("exec /bin/pwd\n") and fake.inputs("bsubmit") == [""]


def test_states_ends_and_tags_are_read(fake: FakeCommands) -> None:
    plugin = grid(fake)
    assert plugin.status([str(n) for n in range(9)]) == {
        "1": Queued("waiting for licences"),
        "2": Running("n7"),
        "5": Held("by operator"),
        "6": Queued("FROZEN"),
    }
    ends = plugin.history(["2", "3", "4"])
    assert ends["3"].state == Completed(3) and ends["3"].host == "n7"
    assert isinstance(ends["4"].state, Removed) and "2" not in ends
    assert {job.grid_job_id for job in plugin.our_jobs("madison")} == {"1", "2", "3", "6"}


def test_orphans_are_removed_and_unknown_ones_are_no_error(fake: FakeCommands) -> None:
    fake.answer("bkill", complaint="Job <2>: No matching job found\n", code=255)
    plugin = grid(fake)
    known = [Tag("madison", "a"), Tag("madison", "e")]
    assert [job.grid_job_id for job in plugin.clean_queue("madison", known)] == ["2"]
    assert fake.calls("bkill") == [["2"]]
    fake.answer("bkill", complaint="not yours\n", code=1)
    with pytest.raises(GridError, match="not yours"):
        plugin.remove(["2"])
    fake.answer("blist", complaint="cannot connect to the batch daemon\n", code=1)
    with pytest.raises(GridDown):
        plugin.status(["1"])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"submit_id": "(?P<id>"}, "submit_id is no regular expression"),
        ({"submit_id": "x"}, "submit_id finds no id"),
        ({"status_line": "(?P<id>x)(?P<state>y)"}, "status_line finds no name"),
        ({"states": {"RUN": "working"}}, "states names working"),
        ({"submit": ["bsubmit", "{colour}"]}, "unknown placeholders"),
        ({"remove": ["bkill"]}, "remove needs"),
        ({"submit": []}, "submit is empty"),
    ],
)
def test_a_description_that_cannot_work_is_refused_at_once(
    fake: FakeCommands, wrong: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        grid(fake, **wrong)
