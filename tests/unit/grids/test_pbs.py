"""The PBS plugin on recorded output of OpenPBS 23.06 and of the Torque commands, and on scripted commands."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.grids import pbs_text as text
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
from iceprod_p2p.grids.errors import GridDown, GridError
from iceprod_p2p.grids.pbs import PbsGrid
from iceprod_p2p.grids.registry import create
from tests.unit.grids.recordings import FakeCommands, said

FULL = {"cores": 4, "memory_mib": 4_000, "gpus": 2, "walltime_s": 61, "queue": "long", "priority": -5}


def request(root: Path | str = "/work", name: str = "j", **more: Any) -> GridRequest:
    return GridRequest(Tag("madison", name), "/opt/pilot", f"{root}/{name}", **more)


@pytest.fixture
def fake(tmp_path: Path) -> FakeCommands:
    directory = tmp_path / "bin"
    directory.mkdir()
    return FakeCommands(directory)


def grid(fake: FakeCommands, **options: object) -> PbsGrid:
    made = create("pbs", {"bin_directory": str(fake.directory), **options})
    assert isinstance(made, PbsGrid)
    return made


@pytest.mark.parametrize(
    ("dialect", "resources"),
    [
        (text.OPENPBS, ["select=1:ncpus=4:mem=4000mb:ngpus=2", "walltime=61"]),
        (text.TORQUE, ["nodes=1:ppn=4:gpus=2", "mem=4000mb", "walltime=61"]),
    ],
)
def test_amounts_are_said_in_each_dialect(dialect: str, resources: list[str]) -> None:
    pairs = list(pairwise(text.arguments(request(**FULL), dialect)))
    assert [value for flag, value in pairs if flag == "-l"] == resources
    for pair in (("-q", "long"), ("-p", "-50"), ("-r", "n"), ("-v", "ICEPROD_GRID_TAG=iceprod.madison.j")):
        assert pair in pairs


def test_names_for_torque_are_short() -> None:
    line = text.arguments(request(name="0123456789abcdef0123"), text.TORQUE)
    assert dict(pairwise(line))["-N"] == "p0123456789abcd"


def test_the_script_enters_its_directory_and_leaves_hosts_that_are_shut_out(tmp_path: Path) -> None:
    asked = GridRequest(Tag("s", "j"), "/bin/pwd", str(tmp_path), exclude_hosts=("elsewhere",))
    done = subprocess.run(["/bin/sh"], input=text.script(asked), capture_output=True, text=True, timeout=60)
    assert (done.stdout, Path(asked.stdout_path).read_text().strip()) == ("", str(tmp_path))
    lost = GridRequest(Tag("s", "j"), "/bin/pwd", str(tmp_path / "unseen"))
    done = subprocess.run(["/bin/sh"], input=text.script(lost), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "unseen" in done.stderr
    host = subprocess.run(["hostname"], capture_output=True, text=True).stdout.strip()
    asked = GridRequest(Tag("s", "j"), "/bin/pwd", str(tmp_path), exclude_hosts=(host,))
    done = subprocess.run(["/bin/sh"], input=text.script(asked), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (text.SHUT_OUT, "")


def test_a_carried_one_writes_to_the_log_of_its_worker_node(tmp_path: Path) -> None:
    asked = GridRequest(Tag("s", "j"), "/bin/pwd", str(tmp_path), carry=True)
    written = text.script(asked, f"{tmp_path}/a log-%j.txt")
    environment = {"PBS_JOBID": "17.pbs1", "TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run(["/bin/sh"], input=written, text=True, env=environment, timeout=60, check=True)
    assert (tmp_path / "a log-17.pbs1.txt").read_text().startswith(f"{tmp_path}/iceprod-")
    assert dict(pairwise(text.arguments(asked, text.OPENPBS)))["-e"] == "/dev/null"


def test_recorded_ids_are_read() -> None:
    assert text.submitted_id(said("openpbs", "qsub job.pbs")) == "0.pbs1"
    assert text.submitted_id(said("torque", "qsub job.pbs")) == "1"
    assert text.submitted_id(said("openpbs", "qsub -J 0-3")) is None


def test_the_recorded_end_is_read_with_wrapped_lines() -> None:
    (job,) = text.qstat(said("openpbs", "qstat -x -f 0"), text.OPENPBS)
    assert job.grid_job_id == "0.pbs1" and job.state == Completed(7)
    end = job.history
    assert end is not None and (end.host, end.walltime_s, end.cpu_s, end.memory_mib) == ("pbs1", 1.0, 0.0, 7)


def test_the_recorded_queue_of_torque_is_read() -> None:
    jobs = {job.grid_job_id: job.state for job in text.qstat(said("torque", "qstat -f"), text.TORQUE)}
    assert jobs["1"] == Running("n1") and jobs["2"] == Queued() and len(jobs) == 11


def listed(number: str, letter: str, **more: str) -> str:
    lines = {"Job_Name": "x", "job_state": letter, **more}
    return f"Job Id: {number}\n" + "".join(f"    {name} = {value}\n" for name, value in lines.items()) + "\n"


def test_recorded_pilots_are_read_with_their_tags_and_ends() -> None:
    jobs = text.qstat(said("openpbs-pilots", "qstat -x -f 1 3 4 5"), text.OPENPBS)
    assert [str(job.tag) for job in jobs] == [
        f"iceprod.madison.{name}" for name in ("deleted", "late", "held", "never")
    ]
    deleted, late, held, never = jobs
    assert isinstance(deleted.state, Removed) and deleted.state.reason.endswith("terminated by gridtest@pbs1")
    assert isinstance(late.state, Failed) and "wall time" in late.state.reason
    assert late.history is not None and late.history.host == "pbs1" and late.history.memory_mib == 5
    assert held.state == Removed(), "it was deleted before it ran, of which PBS says nothing"
    assert isinstance(never.state, Held) and "ngpus" in never.state.reason and never.history is None


def test_recorded_unknown_ones_and_arrays_hide_no_known_one() -> None:
    output = said("openpbs-pilots", "qstat -x -f 99999 0")
    states = {job.grid_job_id: job.state for job in text.qstat(output, text.OPENPBS)}
    assert states["0.pbs1"] == Completed(7)
    assert said("openpbs-pilots", "qdel 1", number=1) == "", "a second deletion is no error"


@pytest.mark.parametrize(
    ("dialect", "letter", "more", "state"),
    [
        (text.OPENPBS, "F", {"Exit_status": "271", "comment": "Job run and terminated by u@h"}, Removed),
        (text.OPENPBS, "F", {"comment": "Not Running and terminated by u@h"}, Removed),
        (text.OPENPBS, "F", {"Exit_status": "0", "comment": "Job run and terminated by u@h"}, Removed),
        (text.OPENPBS, "F", {"Exit_status": "-29"}, Failed),
        (text.OPENPBS, "Q", {"comment": "Not Running: Insufficient amount of resource: ncpus"}, Queued),
        (text.OPENPBS, "Q", {"comment": "Can Never Run: Insufficient amount of resource: ncpus"}, Held),
        (text.OPENPBS, "F", {"Exit_status": "-1"}, Failed),
        (text.OPENPBS, "F", {"comment": "job held too often"}, Failed),
        (text.OPENPBS, "F", {"Exit_status": "265"}, Completed),
        (text.TORQUE, "C", {"exit_status": "-11"}, Failed),
        (text.TORQUE, "C", {"exit_status": "0"}, Completed),
        (text.TORQUE, "C", {"exit_status": "271"}, Removed),
        (text.OPENPBS, "H", {}, Held),
        (text.OPENPBS, "E", {}, Running),
        (text.OPENPBS, "S", {}, Running),
        (text.OPENPBS, "W", {}, Queued),
        (text.OPENPBS, "?", {}, Queued),
    ],
)
def test_letters_and_exit_codes_become_states(
    dialect: str, letter: str, more: dict[str, str], state: type
) -> None:
    (job,) = text.qstat(listed("1.pbs1", letter, **more), dialect)
    assert type(job.state) is state
    assert (job.history is not None) == (letter in text.ENDED_LETTERS)


def test_a_signal_of_its_own_is_128_and_more() -> None:
    (job,) = text.qstat(listed("1.pbs1", "F", Exit_status="265"), text.OPENPBS)
    assert job.state == Completed(137)


def test_the_tag_is_found_among_wrapped_variables() -> None:
    wrapped = "PBS_O_HOME=/root,\n\tICEPROD_GRID_TAG=iceprod.madison.p1,PBS_O_LANG=C"
    (job,) = text.qstat(listed("1.pbs1", "R", Variable_List=wrapped, exec_host="n1/0"), text.OPENPBS)
    assert job.tag == Tag("madison", "p1") and job.state == Running("n1")


def test_unknown_and_finished_ones_are_no_error_but_a_server_that_is_away_is(fake: FakeCommands) -> None:
    plugin = grid(fake)
    fake.answer("qstat", listed("1.pbs1", "R"), complaint=said("openpbs", "qstat 99999"), code=153)
    assert plugin.status(["1.pbs1", "99999.pbs1", "nonsense"]) == {"1.pbs1": Running()}
    assert fake.calls("qstat") == [["-x", "-f", "1.pbs1", "99999.pbs1"]]
    fake.answer("qdel", complaint=said("openpbs", "qdel 3 4 5"), code=35)
    plugin.remove(["5.pbs1"])
    away = "Connection refused\nqstat: cannot connect to server pbs1 (errno=111)\n"
    fake.answer("qstat", complaint=away, code=255)
    with pytest.raises(GridDown, match="PBS_SERVER"):
        plugin.status(["1.pbs1"])
    fake.answer("qdel", complaint="qdel: Unauthorized Request\n", code=159)
    with pytest.raises(GridError, match="Unauthorized"):
        plugin.remove(["5.pbs1"])


def test_submission_tells_kinds_of_trouble(fake: FakeCommands, tmp_path: Path) -> None:
    fake.answer("qsub", "17.pbs1\n")
    fake.answer("qsub", complaint="qsub: Unknown queue\n", code=170, when="iceprod.madison.b")
    fake.answer("qsub", complaint="qsub: Premature end of message\n", code=1, when="iceprod.madison.c")
    results = grid(fake).submit([request(tmp_path, name) for name in "abc"])
    assert [type(result) for result in results] == [Submitted, NotSubmitted, Unclear]
    assert results[1].reason == "Unknown queue"  # type: ignore[union-attr]
    fake.answer("qsub", complaint="qsub: cannot connect to server pbs1 (errno=111)\n", code=1)
    with pytest.raises(GridDown):
        grid(fake).submit([request(tmp_path, "d")])


def test_a_server_that_keeps_no_ended_jobs_is_asked_for_the_others(fake: FakeCommands) -> None:
    plugin = grid(fake)
    assert plugin.capabilities().history
    for name, line in (("qstat", "qstat -x -f 10"), ("qselect", "qselect -x")):
        fake.answer(
            name, "1.pbs1\n" if name == "qselect" else listed("1.pbs1", "R", Job_Name="iceprod.madison.p1")
        )
        fake.answer(name, complaint=said("openpbs-forgets", line), when="-x")
    assert plugin.status(["1.pbs1"]) == {"1.pbs1": Running()}
    assert [job.grid_job_id for job in plugin.our_jobs("madison")] == ["1.pbs1"]
    assert not plugin.capabilities().history


def test_ours_are_selected_by_user_and_told_by_tag(fake: FakeCommands) -> None:
    fake.answer("qselect", "1.pbs1\n2.pbs1\n")
    fake.answer("qstat", listed("1.pbs1", "R", Job_Name="iceprod.madison.p1") + listed("2.pbs1", "Q"))
    assert [job.grid_job_id for job in grid(fake).our_jobs("madison")] == ["1.pbs1"]
    assert "-x" in fake.calls("qselect")[0]
    grid(fake, dialect="torque").our_jobs("madison")
    assert "-x" not in fake.calls("qselect")[1] and fake.calls("qstat")[1][0] == "-f"
