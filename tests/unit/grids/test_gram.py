"""The GRAM plugin on a globusrun that prints what the real one printed, and the script around a grid job for real."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.grids import gram_spool as spool
from iceprod_p2p.grids import gram_text as text
from iceprod_p2p.grids.base import (
    Completed,
    Failed,
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
from iceprod_p2p.grids.command import Commands
from iceprod_p2p.grids.errors import GridDown
from iceprod_p2p.grids.gram import GramGrid
from iceprod_p2p.grids.registry import create
from tests.unit.grids.recordings import FakeCommands, said

pytestmark = pytest.mark.timeout(300)
SERVICE = "localhost:21119/jobmanager:/O=Test/CN=Pilot One"
ID = "https://localhost:20480/17370935607563140466/72057598265955242/"
OTHER = "https://localhost:20480/1/2/"


def until(holds: Callable[[], Any], what: str) -> None:
    deadline_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.02)


class Element:
    """A plugin on scripted commands, with a clock that is set by hand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin").mkdir()
        self.fake = FakeCommands(root / "bin")
        self.clock = ManualClock()
        self.fake.answer("globusrun", said("gram", "globusrun -a"), when="-a ")
        self.fake.answer("globusrun", said("gram", "globusrun -F"), when="-F ")
        self.says("ACTIVE")

    def says(self, word: str) -> None:
        self.fake.answer("globusrun", f"{word}\n", when="-status ")

    def grid(self, *, beat_s: float = 20.0) -> GramGrid:
        commands = Commands(bin_directory=str(self.root / "bin"))
        return GramGrid(SERVICE, self.root / "spool", commands, beat_s=beat_s, lost_s=300.0, clock=self.clock)

    def request(self, name: str, script: str = "true", **more: Any) -> GridRequest:
        return GridRequest(Tag("madison", name), "/bin/sh", str(self.root / name), ("-c", script), **more)

    def place(self, request: GridRequest) -> Path:
        return self.root / "spool" / str(request.tag)

    def start(self, request: GridRequest, contact: str = ID) -> subprocess.Popen[str]:
        """Do what GRAM does with a grid job."""
        return subprocess.Popen(
            ("/bin/sh", str(self.place(request) / text.SCRIPT_NAME)),
            env={"PATH": os.environ["PATH"], "GLOBUS_GRAM_JOB_CONTACT": contact},
            cwd=request.work_directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, request: GridRequest, contact: str = ID) -> tuple[int, str]:
        process = self.start(request, contact)
        out, _ = process.communicate(timeout=60)
        return process.returncode, out


@pytest.fixture
def element(tmp_path: Path) -> Element:
    return Element(tmp_path)


def test_the_description_asks_for_what_was_asked_for(element: Element) -> None:
    asked = element.request(
        "j", cores=4, walltime_s=61, memory_mib=2_000, queue='a"b', extra_lines=("(project=ice)",)
    )
    config = element.grid().write_config(asked)
    place = element.place(asked)
    assert config.arguments == ("globusrun", "-F", "-r", SERVICE, "-f", f"{place}/gram.rsl")
    assert config.text == (
        f'&(executable="/bin/sh")(arguments="{place}/gram.sh")(directory="{asked.work_directory}")'
        f'(stdout="{asked.stdout_path}")(stderr="{asked.stderr_path}")(jobType=single)'
        '(count=4)(hostCount=1)(maxWallTime=2)(maxMemory=2000)(queue="a""b")(project=ice)\n'
    )
    assert element.grid().impossible(asked) == ""
    assert "shared_directory" in element.grid().impossible(element.request("k", carry=True))


def test_a_submission_is_taken_refused_unclear_or_the_system_is_down(element: Element) -> None:
    asked = element.request("j")
    assert element.grid().submit([asked]) == [Submitted(asked.tag, ID)]
    (again,) = element.grid().submit([asked])
    assert isinstance(again, NotSubmitted) and "before" in again.reason

    def answers(number: int, code: int) -> None:
        element.fake.answer("globusrun", said("gram", "globusrun -F", number=number), code=code, when="-F ")

    for number, code, words in ((2, 1, '"nonsense" is not supported'), (3, 255, "cannot parse RSL")):
        answers(number, code)
        (refused,) = element.grid().submit([element.request("refused")])
        assert (
            isinstance(refused, NotSubmitted) and words in refused.reason and "Syntax" not in refused.reason
        )
    for number, code in ((4, 12), (5, 93), (5, 254)):
        answers(number, code)
        with pytest.raises(GridDown):
            element.grid().submit([element.request("down")])
    assert sorted(os.listdir(element.root / "spool")) == [str(asked.tag)]
    answers(4, 10)
    (unclear,) = element.grid().submit([element.request("unclear")])
    assert isinstance(unclear, Unclear)
    assert element.grid().find_by_tag([unclear.tag]) == {}
    assert sorted(os.listdir(element.root / "spool")) == [str(asked.tag)]


def test_a_grid_job_runs_once_and_writes_down_how_it_ended(element: Element) -> None:
    odd = "a  b'\"$x;\\"
    script = 'printf "%s" "$ODD"; pwd; exit 3'
    asked = element.request("j", script, environment={"ODD": odd})
    element.grid().submit([asked])
    first, second = element.start(asked), element.start(asked, OTHER)
    ends = sorted((one.communicate(timeout=60)[0], one.returncode) for one in (first, second))
    assert ends == [("", 75), (f"{odd}{asked.work_directory}\n", 3)]
    assert element.run(asked) == (75, "")
    grid = element.grid()
    assert grid.status([ID]) == {}
    end = grid.history([ID])[ID]
    assert (end.state, end.exit_code, end.host) == (Completed(3), 3, os.uname().nodename)
    assert end.walltime_s is not None and 0 <= end.walltime_s < 300
    assert grid.our_jobs("elsewhere") == [] and len(grid.our_jobs("madison")) == 1
    grid.forget([ID])
    assert grid.history([ID]) == {} and not element.place(asked).exists()


def test_it_outlives_signals_and_keeps_the_exit_code_of_what_it_runs(element: Element) -> None:
    killed, told = element.request("killed", "kill -KILL $$"), element.request("told", "sleep 0.7; exit 9")
    element.grid().submit([killed, told])
    assert element.run(killed)[0] == 137
    process = element.start(told)
    until((element.place(told) / "start").exists, "it has started")
    for _ in range(5):
        if (element.place(told) / "alive").exists():  # Its traps are set before.
            process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    process.communicate(timeout=60)
    assert process.returncode == 9
    assert (element.place(told) / "end").read_text().splitlines()[0] == "9"


def test_it_gives_signs_of_life_and_ends_when_it_is_asked_to_by_a_file(element: Element) -> None:
    trap = "trap 'echo told; exit 4' TERM; echo ready; while :; do sleep 0.05; done"
    asked = element.request("j", trap)
    grid = element.grid(beat_s=0.2)
    grid.submit([asked])
    process = element.start(asked)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    alive = element.place(asked) / "alive"
    until(alive.exists, "a sign of life")
    first_ns = alive.stat().st_mtime_ns
    until(lambda: alive.stat().st_mtime_ns != first_ns, "another one")
    assert grid.status([ID]) == {ID: Running(os.uname().nodename)}
    element.fake.answer("globusrun", said("gram", "globusrun -k"), code=79, when="-k ")
    grid.remove([ID])  # GRAM does not know it.
    out, _ = process.communicate(timeout=60)
    assert out == "told\n" and process.returncode == 4
    assert isinstance(grid.history([ID])[ID].state, Removed)
    grid.remove([ID])


def test_after_a_crash_before_the_note_what_has_started_is_found_and_what_has_not_never_runs(
    element: Element,
) -> None:
    started, waiting = element.request("started", "echo ran; exit 2"), element.request("waiting", "echo ran")
    element.grid().submit([started, waiting])
    for asked in (started, waiting):
        (element.place(asked) / "contact").unlink()
    copy = (element.place(waiting) / text.SCRIPT_NAME).read_text()
    assert element.run(started, OTHER) == (2, "ran\n")
    found = element.grid().find_by_tag([started.tag, waiting.tag])
    assert {tag: (job.grid_job_id, job.state) for tag, job in found.items()} == {
        started.tag: (OTHER, Completed(2))
    }
    assert not element.place(waiting).exists()
    late = subprocess.run(("/bin/sh", "-c", copy), capture_output=True, text=True, timeout=60)
    assert (late.returncode, late.stdout) == (75, "")  # Its batch system had read the script before.


def test_of_the_grid_job_and_the_node_that_gives_it_up_exactly_one_succeeds(element: Element) -> None:
    for number in range(12):
        asked = element.request(f"j{number}", "echo ran")
        element.grid().submit([asked])
        process = element.start(asked)
        if number % 3:
            time.sleep(number * 0.001)
        given_up = spool.give_up(element.place(asked))
        out, _ = process.communicate(timeout=60)
        assert (out == "ran\n") is not given_up and process.returncode == (75 if given_up else 0)
        assert spool.give_up(element.place(asked)) is given_up, "once decided, it stays"


def test_a_second_submission_under_a_tag_that_was_given_up_runs_once(element: Element) -> None:
    asked = element.request("j", "echo ran")
    element.grid().submit([asked])
    (element.place(asked) / "contact").unlink()
    grid = element.grid()
    assert grid.find_by_tag([asked.tag]) == {}
    assert grid.submit([asked]) == [Submitted(asked.tag, ID)]
    assert element.run(asked, OTHER) == (0, "ran\n")  # The request that was late takes the new place,
    assert element.run(asked, ID) == (75, "")  # and the new one finds it taken.
    assert grid.history([ID])[ID].state == Completed(0)


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("UNSUBMITTED", Queued),
        ("PENDING", Queued),
        ("SUSPENDED", Held),
        ("ACTIVE", Running),
        ("STAGE_OUT", Running),
        ("FAILED", Failed),
        ("SOMETHING", Queued),
    ],
)
def test_gram_is_believed_about_those_that_do_not_tell_by_themselves(
    element: Element, word: str, state: type
) -> None:
    grid = element.grid()
    grid.submit([element.request("j")])
    element.says(word)
    (job,) = grid.our_jobs("madison")
    assert isinstance(job.state, state)


def test_done_without_a_start_is_believed_after_a_while_and_then_for_good(element: Element) -> None:
    asked = element.request("j", "echo ran")
    grid = element.grid()
    grid.submit([asked])
    element.says("DONE")
    assert isinstance(grid.status([ID])[ID], Queued)
    element.clock.advance(9.0)
    assert isinstance(grid.status([ID])[ID], Queued)
    element.clock.advance(2.0)
    assert grid.status([ID]) == {}
    assert isinstance(grid.history([ID])[ID].state, Failed)
    assert element.run(asked) == (75, "")
    element.says("PENDING")
    assert isinstance(grid.history([ID])[ID].state, Failed)


def test_done_of_one_that_runs_is_believed_when_it_gives_no_signs_of_life(element: Element) -> None:
    asked = element.request("j")
    grid = element.grid()
    grid.submit([asked])
    place = element.place(asked)
    (place / "start").write_text(f"started\n{ID}\nnode3\n1700000000\n")
    (place / "alive").touch()
    element.says("DONE")
    assert grid.status([ID]) == {ID: Running("node3")}
    element.clock.advance(299.0)
    assert grid.status([ID]) == {ID: Running("node3")}
    os.utime(place / "alive", (5, 5))  # Any change is a sign: hosts' clocks differ.
    assert grid.status([ID]) == {ID: Running("node3")}
    element.clock.advance(299.0)
    assert grid.status([ID]) == {ID: Running("node3")}
    element.clock.advance(2.0)
    end = grid.history([ID])[ID]
    assert isinstance(end.state, Failed) and "signs of life" in end.reason and end.host == "node3"
    (place / "end").write_text("0\n1700000100\n")  # Late, but true.
    assert grid.history([ID])[ID].walltime_s == 100.0


def test_what_gram_has_removed_is_removed_as_soon_as_it_is_done(element: Element) -> None:
    waits, runs = element.request("waits", "echo ran"), element.request("runs")
    grid = element.grid()
    grid.submit([waits])
    element.fake.answer("globusrun", "GRAM Job submission successful\n" + OTHER + "\n", when="-F ")
    grid.submit([runs])
    (element.place(runs) / "start").write_text(f"started\n{OTHER}\nnode3\n1700000000\n")
    element.fake.answer("globusrun", "", when="-k ")
    grid.remove([ID, OTHER, "999999"])
    removals = [call[1] for call in element.fake.calls("globusrun") if call[0] == "-k"]
    assert sorted(removals) == sorted([ID, OTHER])
    assert element.run(waits) == (75, ""), "what had not started will not"
    assert isinstance(grid.history([ID])[ID].state, Removed)
    assert grid.status([OTHER]) == {OTHER: Running("node3")}, "GRAM says that it is still there"
    element.says("DONE")
    assert isinstance(grid.history([OTHER])[OTHER].state, Removed)


def test_an_orphan_is_removed_and_its_place_goes_a_week_later(element: Element) -> None:
    asked = element.request("j", "exit 1")
    grid = element.grid()
    grid.submit([asked])
    element.fake.answer("globusrun", "", when="-k ")
    assert [job.tag for job in grid.clean_queue("madison", [])] == [asked.tag]
    assert element.run(asked) == (75, "")
    assert grid.clean_queue("madison", []) == []
    week_ago_s = element.clock.wall_ms() / 1_000 - 8 * 86_400
    os.utime(element.place(asked), (week_ago_s, week_ago_s))
    assert grid.our_jobs("madison") == [] and not element.place(asked).exists()


def test_a_gatekeeper_that_is_away_leaves_everything_unknown_but_what_is_written_down(
    element: Element,
) -> None:
    ended, waits = element.request("ended"), element.request("waits")
    grid = element.grid()
    grid.submit([ended])
    element.fake.answer("globusrun", "GRAM Job submission successful\n" + OTHER + "\n", when="-F ")
    grid.submit([waits])
    assert element.run(ended)[0] == 0
    away = said("gram", "globusrun -a", number=1)
    element.fake.answer("globusrun", "", complaint=away, code=1, when="-a ")
    assert grid.history([ID])[ID].state == Completed(0)
    for attempt in (
        lambda: grid.status([OTHER]),
        lambda: grid.remove([OTHER]),
        lambda: grid.our_jobs("madison"),
    ):
        with pytest.raises(GridDown, match="Authentication test failure"):
            attempt()


def test_the_check_names_the_version_and_makes_the_spool(element: Element) -> None:
    element.fake.answer("globusrun", said("gram", "globusrun -j"), when="-j ")
    assert "15.8" in element.grid().check() and (element.root / "spool").is_dir()
    blocked = element.root / "blocked"
    blocked.touch()
    grid = create("gram", {"contact": SERVICE, "spool": str(blocked / "spool")})
    with pytest.raises(GridDown, match="spool"):
        grid.check()
