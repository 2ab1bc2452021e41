"""The Slurm plugin on recorded output of Slurm 22.05, and on commands that answer by script."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.grids import slurm_text as text
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
from iceprod_p2p.grids.registry import create
from iceprod_p2p.grids.slurm import SlurmGrid
from tests.unit.grids.recordings import FakeCommands, said

OPTIONS = text.SlurmOptions()
DOWN = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n"


def request(root: Path | str = "/work", name: str = "j", **more: Any) -> GridRequest:
    return GridRequest(Tag("madison", name), "/opt/pilot", f"{root}/{name}", ("--config", "a b"), **more)


def squeue_lines(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


@pytest.fixture
def fake(tmp_path: Path) -> FakeCommands:
    directory = tmp_path / "bin"
    directory.mkdir()
    return FakeCommands(directory)


def grid(fake: FakeCommands, **options: object) -> SlurmGrid:
    made = create("slurm", {"bin_directory": str(fake.directory), "accounting": "no", **options})
    assert isinstance(made, SlurmGrid)
    return made


def test_a_small_request_becomes_a_short_command_line() -> None:
    assert text.arguments(request(), OPTIONS) == (
        "sbatch",
        "--parsable",
        "--job-name=iceprod.madison.j",
        "--chdir=/work/j",
        "--output=/work/j/grid.out",
        "--error=/work/j/grid.err",
        "--no-requeue",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=1",
    )


def test_every_amount_reaches_sbatch_in_its_unit() -> None:
    asked = request(
        "/w%j",
        queue="gpu",
        walltime_s=61,
        cores=4,
        memory_mib=2_000,
        disk_mib=500,
        gpus=2,
        priority=-5,
        exclude_hosts=("n1", "n2"),
    )
    options = text.SlurmOptions(gres="gpu:a100", nice_per_priority=3, request_disk=True, notice_s=30)
    line = text.arguments(asked, options)
    assert set(line[-8:]) == {
        "--partition=gpu",
        "--time=2",
        "--signal=B:TERM@30",
        "--mem=2000M",
        "--tmp=500M",
        "--gres=gpu:a100:2",
        "--nice=15",
        "--exclude=n1,n2",
    }
    assert "--cpus-per-task=4" in line and "--output=/w%%j/j/grid.out" in line


def test_the_script_passes_strange_values_and_extra_lines(tmp_path: Path) -> None:
    value = 'it\'s $HOME;\n`x` "q" ü'
    asked = GridRequest(
        Tag("s", "j"),
        "/bin/sh",
        "/w",
        ("-c", 'printf %s "$ODD|$1|$LANG|${LC_ALL-none}|$ICEPROD_GRID_TAG"', "name", "a 'b'"),
        environment={"ODD": value},
        extra_lines=("--constraint=avx2",),
    )
    script = text.script(asked)
    assert script.splitlines()[:2] == ["#!/bin/sh", "#SBATCH --constraint=avx2"]
    done = subprocess.run(["/bin/sh"], input=script, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{value}|a 'b'|C.UTF-8|none|iceprod.s.j"


@pytest.mark.parametrize(
    ("line", "grid_job_id"), [("2001\n", "2001"), ("2001;ci\n", "2001"), ("", None), ("ok\n", None)]
)
def test_the_id_is_read_with_and_without_a_cluster(line: str, grid_job_id: str | None) -> None:
    assert text.submitted_id(line) == grid_job_id
    assert text.submitted_id(said("slurm", "sbatch --parsable -c 1")) == "2001"


def test_recorded_queue_is_read_with_reasons_hosts_and_strangers() -> None:
    jobs = {job.grid_job_id: job for job in text.squeue(said("slurm", "squeue --noheader"))}
    assert jobs["12"].state == Running("n1") and jobs["12"].tag == Tag("madison", "run")
    assert jobs["13"].state == Held("JobHeldUser")
    assert jobs["14"].state == Queued("Resources")
    assert jobs["14"].name == "a|b" and jobs["14"].tag is None
    assert jobs["9"].state == Failed("BadConstraints")


def test_recorded_accounting_is_read_with_every_kind_of_end() -> None:
    jobs = {job.grid_job_id: job for job in text.sacct(said("slurm", "sacct --noheader"))}
    states = {job.tag.grid_job: job.state for job in jobs.values() if job.tag}
    assert states["three"] == Completed(3)
    assert states["killed"] == Completed(137)
    assert states["fine"] == Completed(0)
    assert states["cancelled"] == Removed("cancelled by 0")
    assert isinstance(states["dir"], Failed) and "work directory" in states["dir"].reason
    assert states["running"] == Running("n1") and jobs["6"].history is None
    assert jobs["7"].history is None
    end = jobs["4"].history
    assert end is not None and (end.host, end.walltime_s, end.exit_code) == ("n1", 2.0, None)


def test_memory_is_the_largest_of_the_steps() -> None:
    lines = "8|COMPLETED|0:0|7|00:03.500||n2|x\n8.batch|COMPLETED|0:0|7|00:03.500|2097152K|n2|batch\n"
    (job,) = text.sacct(lines)
    assert job.history is not None
    assert (job.history.memory_mib, job.history.cpu_s, job.history.walltime_s) == (2_048, 3.5, 7.0)


@pytest.mark.parametrize(
    ("status", "word", "state"),
    [
        (768, "FAILED", Completed(3)),
        (9, "FAILED", Completed(137)),
        (0, "COMPLETED", Completed(0)),
        (9, "TIMEOUT", Failed("its wall time was over (TIMEOUT)")),
        (0, "NODE_FAIL", Failed("its worker node failed (NODE_FAIL)")),
        (2304, "CANCELLED", Removed("cancelled")),
    ],
)
def test_ends_are_known_without_accounting(status: int, word: str, state: object) -> None:
    (job,) = text.squeue(f"5 |{word} |{status} |None |n1 |1:04 |iceprod.s.j\n")
    assert job.state == state and job.history is not None
    assert (job.history.host, job.history.walltime_s) == ("n1", 64.0)


@pytest.mark.parametrize("word", sorted(text.ACTIVE | text.WAITING | text.HELD | set(text.FAILED)))
def test_every_word_of_the_manual_has_its_kind(word: str) -> None:
    state = text.state_of(word, 0, 0)
    kinds = {Running: text.ACTIVE, Queued: text.WAITING, Held: text.HELD, Failed: text.FAILED}
    assert word in kinds[type(state)]


def test_a_word_of_a_newer_slurm_is_no_end() -> None:
    assert text.state_of("FROZEN", 0, 0) == Queued("unknown state FROZEN")


@pytest.mark.parametrize("line", ["garbage", "1|RUNNING|x|None|n1|0:01|name"])
def test_a_line_of_another_form_is_an_error_not_a_missing_job(line: str) -> None:
    with pytest.raises(GridError, match="unknown form"):
        text.squeue(line + "\n")


def test_submission_places_files_and_hands_on_only_a_set_environment(
    fake: FakeCommands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_ACCOUNT", "stray")
    monkeypatch.setenv("NODE_SECRET", "x")
    fake.answer("sbatch", "17\n")
    (tmp_path / "pilot.json").write_text("{}")
    plugin = grid(fake, environment={"SLURM_CONF": "/etc/other"})
    asked = request(tmp_path, files_in=(str(tmp_path / "pilot.json"),))
    assert plugin.submit([asked]) == [Submitted(asked.tag, "17")]
    assert (tmp_path / "j" / "pilot.json").read_text() == "{}"
    assert fake.inputs("sbatch") == [plugin.write_config(asked).text]
    (environment,) = fake.environments("sbatch")
    assert environment["SLURM_CONF"] == "/etc/other"
    assert not {"SBATCH_ACCOUNT", "NODE_SECRET"} & set(environment)


def test_a_refusal_concerns_one_request(fake: FakeCommands, tmp_path: Path) -> None:
    fake.answer("sbatch", "17\n")
    reason = "Batch job submission failed: Invalid partition name specified"
    fake.answer("sbatch", complaint=f"sbatch: error: {reason}\n", code=1, when="--partition=nope")
    first, second = request(tmp_path, "a", queue="nope"), request(tmp_path, "b")
    assert grid(fake).submit([first, second]) == [
        NotSubmitted(first.tag, reason),
        Submitted(second.tag, "17"),
    ]


@pytest.mark.parametrize("complaint", ["(connect failure)", ""])
def test_a_controller_that_is_down_takes_nothing(fake: FakeCommands, tmp_path: Path, complaint: str) -> None:
    fake.answer("sbatch", complaint=f"error: Unable to contact slurm controller{complaint}\n", code=1)
    with pytest.raises(GridDown, match="Unable to contact"):
        grid(fake).submit([request(tmp_path, "a"), request(tmp_path, "b")])
    assert len(fake.calls("sbatch")) == 1


def test_a_silent_controller_leaves_all_the_rest_unclear(fake: FakeCommands, tmp_path: Path) -> None:
    fake.answer("sbatch", "17\n")
    late = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n"
    fake.answer("sbatch", complaint=late, code=1, when=".b ")
    results = grid(fake).submit([request(tmp_path, name) for name in "abc"])
    assert [type(result) for result in results] == [Submitted, Unclear, Unclear]
    assert len(fake.calls("sbatch")) == 2


def test_a_directory_that_cannot_be_made_is_a_refusal(fake: FakeCommands, tmp_path: Path) -> None:
    fake.answer("sbatch", "17\n")
    (tmp_path / "file").touch()
    (result,) = grid(fake).submit([request(tmp_path / "file")])
    assert isinstance(result, NotSubmitted) and "Not a directory" in result.reason


def test_status_is_one_call_for_this_user_and_leaves_ends_to_the_history(fake: FakeCommands) -> None:
    fake.answer(
        "squeue",
        squeue_lines(
            "1|RUNNING|0|None|n1|0:01|iceprod.madison.a",
            "2|FAILED|768|NonZeroExitCode|n1|0:01|iceprod.madison.b",
            "3|PENDING|0|Priority||0:00|other",
        ),
    )
    plugin = grid(fake)
    assert plugin.status(["1", "2", "99"]) == {"1": Running("n1")}
    assert fake.calls("squeue")[0][1] == f"--user={os.getuid()}"
    assert plugin.history(["1", "2", "99"]).keys() == {"2"}
    assert plugin.status([]) == {} and len(fake.calls("squeue")) == 2


def test_a_dead_accounting_hides_no_end_and_invents_none(fake: FakeCommands) -> None:
    fake.answer("sacct", complaint="sacct: error: slurm_persist_conn_open: refused\n", code=1)
    fake.answer("squeue", squeue_lines("2|COMPLETED|0|None|n1|0:01|iceprod.madison.b"))
    plugin = grid(fake, accounting="yes")
    assert plugin.history(["2"])["2"].state == Completed(0)
    with pytest.raises(GridError, match="slurm_persist_conn_open"):
        plugin.history(["2", "77"])


def test_a_failure_whose_exit_code_accounting_has_not_heard_yet_is_asked_of_the_queue(
    fake: FakeCommands,
) -> None:
    fake.answer("sacct", "2|FAILED|0:0|1|00:00:00||n1|iceprod.madison.b\n")
    plugin = grid(fake, accounting="yes")
    for listed, ends in (
        ("2|FAILED|768|NonZeroExitCode|n1|0:01|iceprod.madison.b", [Completed(3)]),
        ("2|COMPLETING|0|None|n1|0:01|iceprod.madison.b", []),
        ("3|PENDING|0|Priority||0:00|other", [Failed("FAILED")]),  # Forgotten: nothing better will come.
    ):
        fake.answer("squeue", squeue_lines(listed))
        assert [end.state for end in plugin.history(["2"]).values()] == ends


def test_accounting_is_asked_for_once(fake: FakeCommands) -> None:
    fake.answer("scontrol", said("slurm", "scontrol show config"))
    fake.answer("squeue", "")
    plugin = grid(fake, accounting="auto")
    assert plugin.history(["1"]) == plugin.history(["1"]) == {}
    assert len(fake.calls("scontrol")) == 1 and not fake.calls("sacct")


def test_a_tag_is_found_in_the_accounting_when_the_queue_forgot_it(fake: FakeCommands) -> None:
    fake.answer("squeue", "")
    fake.answer("sacct", "3|COMPLETED|0:0|0|00:00:00||n1|iceprod.madison.fine\n")
    tag = Tag("madison", "fine")
    found = grid(fake, accounting="yes").find_by_tag([tag, Tag("madison", "other")])
    assert found.keys() == {tag} and found[tag].grid_job_id == "3"


def test_removal_cuts_long_lists_and_minds_no_ended_jobs(fake: FakeCommands) -> None:
    fake.answer(
        "scancel", complaint="scancel: error: Kill job error on job id 5: Invalid job id specified\n", code=1
    )
    grid(fake).remove([str(number) for number in range(1_000)])
    assert [len(call) for call in fake.calls("scancel")] == [401, 401, 201]
    fake.answer("scancel", complaint=DOWN, code=1)
    with pytest.raises(GridDown):
        grid(fake).remove(["1"])


def test_a_silent_queue_is_down_and_says_what_to_do(fake: FakeCommands) -> None:
    fake.answer("squeue", complaint=DOWN, code=1)
    with pytest.raises(GridDown, match=r"squeue ended with 1 and said: .*connect failure.*scontrol ping"):
        grid(fake).status(["1"])
