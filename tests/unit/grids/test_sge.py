"""The Grid Engine plugin on recorded output of Son of Grid Engine 8.1.9, and on scripted commands."""

from __future__ import annotations

import subprocess
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.grids import sge_text as text
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
from iceprod_p2p.grids.errors import GridDown, GridError
from iceprod_p2p.grids.files import shell_script
from iceprod_p2p.grids.registry import create
from iceprod_p2p.grids.sge import SgeGrid
from tests.unit.grids.recordings import FakeCommands, said

OPTIONS = text.SgeOptions()
RUNNING = ("r", "hr", "t", "Rr", "Rt", "s", "ts", "S", "tS", "T", "tT", "Rs", "RS", "dr", "dt", "dRr", "z")
NOBODY = "<job_info><queue_info/><job_info/></job_info>"


def request(root: Path | str = "/work", name: str = "j", **more: Any) -> GridRequest:
    return GridRequest(Tag("madison", name), "/opt/pilot", f"{root}/{name}", **more)


def listed(*jobs: tuple[str, str, str]) -> str:
    entries = "".join(
        f"<job_list><JB_job_number>{number}</JB_job_number><JB_name>{name}</JB_name><state>{letters}</state>"
        "<queue_name>all.q@n7</queue_name></job_list>"
        for number, name, letters in jobs
    )
    return f"<job_info><queue_info>{entries}</queue_info></job_info>"


@pytest.fixture
def fake(tmp_path: Path) -> FakeCommands:
    directory = tmp_path / "bin"
    directory.mkdir()
    made = FakeCommands(directory)
    made.answer("qstat", NOBODY)
    made.answer("qacct", complaint="error: job id 1 not found\n", code=1)
    return made


def grid(fake: FakeCommands, clock: ManualClock | None = None) -> SgeGrid:
    return SgeGrid(Commands(bin_directory=str(fake.directory)), OPTIONS, clock=clock)


def test_amounts_become_resources_per_slot() -> None:
    asked = request(
        cores=4,
        memory_mib=4_001,
        gpus=2,
        walltime_s=61,
        disk_mib=10,
        queue="long",
        priority=-5,
        exclude_hosts=("a", "b"),
    )
    line = text.arguments(asked, text.SgeOptions(disk_resource="scratch"))
    pairs = list(pairwise(line))
    for pair in (
        ("-N", "iceprod.madison.j"),
        ("-pe", "smp"),
        ("smp", "4"),
        ("-q", "long"),
        ("-p", "-50"),
        ("-l", "h_rt=61"),
        ("-l", "h_vmem=1001M"),
        ("-l", "gpu=1"),
        ("-l", "scratch=3M"),
        ("-l", "hostname=!(a|b)"),
        ("-w", "e"),
        ("-r", "n"),
    ):
        assert pair in pairs, pair
    per_job = text.arguments(asked, text.SgeOptions(gpu_per_slot=False))
    assert ("-l", "gpu=2") in list(pairwise(per_job))


def test_a_priority_above_the_usual_needs_permission() -> None:
    assert "-p" not in text.arguments(request(priority=9), OPTIONS)
    assert "90" in text.arguments(request(priority=9), text.SgeOptions(priority_most=1_000))


def test_the_script_turns_warnings_into_term_and_keeps_the_exit_code(tmp_path: Path) -> None:
    body = "trap 'trap \"\" TERM; echo told; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    asked = GridRequest(Tag("s", "j"), "/bin/sh", str(tmp_path), ("-c", body))
    for number in (12, 10):
        process = subprocess.Popen(
            ["/bin/sh", "-c", shell_script(asked, forward_signals=True)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        # A warning in the moment between the start of the executable and the trap is lost: say it again.
        for _ in range(2_000):
            process.send_signal(number)
            try:
                process.wait(0.05)
                break
            except subprocess.TimeoutExpired:
                continue
        assert (process.stdout.read(), process.returncode) == ("told\n", 7)
    began_s = time.monotonic()
    quick = GridRequest(Tag("s", "j"), "/bin/sh", str(tmp_path), ("-c", "exit 3"))
    assert subprocess.run(["/bin/sh", "-c", shell_script(quick, forward_signals=True)]).returncode == 3
    assert time.monotonic() - began_s < 120


def test_recorded_ids_and_refusals_are_read() -> None:
    assert text.submitted_id(said("sge", "qsub -terse job.sh")) == "2"
    assert text.submitted_id("warning: no queue yet\n17\n") == "17"
    assert text.submitted_id(said("sge", "qsub job.sh")) is None
    assert text.refusal(" / ".join(said("sge", "qsub -terse -w e").split("\n")[:2])) == "no suitable queues"


def test_recorded_queue_is_read() -> None:
    jobs = {(job.grid_job_id, job.letters): job for job in text.qstat(said("sge", "qstat -u"))}
    assert jobs["5", "r"].state == Running("vm")
    assert jobs["10", "t"].state == Running("vm")
    assert jobs["6", "qw"].state == Queued()
    assert jobs["8", "hqw"].state == Held("on hold")
    assert jobs["8", "hqw"].tag is None


@pytest.mark.parametrize(
    ("letters", "kind"),
    [
        *((word, Queued) for word in ("qw", "Rq")),
        *((word, Held) for word in ("hqw", "hRwq", "Eqw", "Ehqw", "EhRqw")),
        *(
            (word, Running)
            for word in [
                "r",
                "hr",
                "t",
                "Rr",
                "Rt",
                "s",
                "ts",
                "S",
                "tS",
                "T",
                "tT",
                "Rs",
                "Rts",
                "RS",
                "dr",
                "dt",
                "dRr",
                "dS",
                "z",
            ]
        ),
    ],
)
def test_every_state_of_the_manual_has_its_kind(letters: str, kind: type) -> None:
    assert type(text.state_of(letters)) is kind


def test_recorded_accounting_is_read() -> None:
    (killed,) = text.qacct(said("sge", "qacct -j 9"))
    assert killed.state == Removed("killed by signal 9")
    (done,) = text.qacct(said("sge", "qacct -j 1"))
    assert done.state == Completed(3) and done.history is not None
    assert (done.history.host, done.history.walltime_s, done.history.cpu_s) == ("vm", 1.0, 0.009)
    assert done.history.memory_mib == 5
    ended = {job.tag.grid_job: job.state for job in text.qacct(said("sge", "qacct -o root")) if job.tag}
    assert ended.keys() == {"p2", "p5"} and isinstance(ended["p2"], Failed)


@pytest.mark.parametrize(
    ("failed", "kind"),
    [
        ("0", Completed),
        ("15  : in epilog", Completed),
        ("37 : x", Failed),
        ("26 : opening output file", Failed),
        ("100 : x", Removed),
    ],
)
def test_failures_of_the_system_are_told_from_those_of_the_executable(failed: str, kind: type) -> None:
    (job,) = text.qacct(f"====\njobnumber 1\njobname x\nfailed {failed}\nexit_status 1\n")
    assert type(job.state) is kind


def test_no_xml_is_an_error() -> None:
    with pytest.raises(GridError, match="printed no XML"):
        text.qstat("job-ID prior name")


def test_error_states_come_with_their_reason(fake: FakeCommands) -> None:
    fake.answer("qstat", listed(("4", "iceprod.madison.p4", "Eqw")), when="-xml")
    fake.answer("qstat", said("sge", "qstat -j 4"), when="-j 4")
    state = grid(fake).status(["4"])["4"]
    assert state == Held('can\'t open output file "/nonexist/sge.o": No such file or directory')


def test_one_that_just_left_the_queue_counts_as_running_until_the_accounting_has_it(
    fake: FakeCommands,
) -> None:
    clock = ManualClock()
    plugin = grid(fake, clock)
    fake.answer("qstat", listed(("1", "iceprod.madison.a", "r")))
    assert plugin.status(["1", "2"]) == {"1": Running("n7")}
    fake.answer("qstat", NOBODY)
    clock.advance(30)
    assert plugin.status(["1", "2"]) == {"1": Running()}
    fake.answer("qacct", said("sge", "qacct -j 1"), when="-j 1")
    assert plugin.status(["1"]) == {}
    assert plugin.history(["1", "2"])["1"].state == Completed(3)
    fake.answer("qacct", complaint="error: job id 1 not found\n", code=1)
    fresh = grid(fake, clock)
    fake.answer("qstat", listed(("1", "iceprod.madison.a", "r")))
    fresh.status(["1"])
    fake.answer("qstat", NOBODY)
    clock.advance(61)
    assert fresh.status(["1"]) == {} and fresh.history(["1"]) == {}


def test_what_we_removed_is_removed_even_where_nothing_is_accounted(fake: FakeCommands) -> None:
    fake.answer("qdel", 'root has deleted job 7\ndenied: job "8" does not exist\n', code=1)
    plugin = grid(fake)
    plugin.remove(["7", "8"])
    assert plugin.history(["7", "8"]).keys() == {"7"}
    fake.answer("qacct", said("sge", "qacct -j 1"), when="-j 1")
    fake.answer("qdel", "root has registered the job 1 for deletion\n")
    plugin.remove(["1"])
    assert plugin.history(["1"])["1"].state == Removed("removed; it ended with exit code 3")
    plugin.forget(["7", "1"])
    assert plugin.history(["7"]) == {}


def test_many_ends_are_one_look_into_the_accounting(fake: FakeCommands) -> None:
    fake.answer("qacct", said("sge", "qacct -o root"), when="iceprod.*")
    assert grid(fake).history(["2", "3", "4", "5"]).keys() == {"2", "5"}
    assert len(fake.calls("qacct")) == 1


def test_submission_tells_refusal_silence_and_absence(fake: FakeCommands, tmp_path: Path) -> None:
    fake.answer("qsub", "17\n")
    fake.answer(
        "qsub", complaint="Unable to run job: error: no suitable queues\nExiting.\n", code=1, when=".b "
    )
    fake.answer(
        "qsub", complaint="Unable to run job: failed receiving gdi request response\n", code=1, when=".c "
    )
    results = grid(fake).submit([request(tmp_path, name) for name in "abc"])
    assert [type(result) for result in results] == [Submitted, NotSubmitted, Unclear]
    gone = (
        'Unable to run job: unable to send message to qmaster using port 6444 on host "vm": got send error\n'
    )
    fake.answer("qsub", complaint=gone, code=1)
    with pytest.raises(GridDown):
        grid(fake).submit([request(tmp_path, "d")])


def test_options_become_the_plugin() -> None:
    made = create("sge", {"parallel_environment": "omp", "accounting_delay_s": 5})
    assert "omp" in made.write_config(request(cores=2)).arguments
