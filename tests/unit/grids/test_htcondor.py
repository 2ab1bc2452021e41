"""The HTCondor plugin on recorded output of HTCondor 23.9, and on scripted commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.grids import htcondor_text as text
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
from iceprod_p2p.grids.htcondor import HtcondorGrid
from iceprod_p2p.grids.registry import create
from tests.unit.grids.recordings import FakeCommands, said


def request(root: Path | str = "/work", name: str = "j", **more: Any) -> GridRequest:
    return GridRequest(Tag("madison", name), "/opt/pilot", f"{root}/{name}", **more)


def ad(number: int, status: int, **more: object) -> dict[str, object]:
    return {
        "ClusterId": number,
        "ProcId": 0,
        "JobStatus": status,
        "IceProdTag": f"iceprod.madison.j{number}",
        **more,
    }


@pytest.fixture
def fake(tmp_path: Path) -> FakeCommands:
    directory = tmp_path / "bin"
    directory.mkdir()
    made = FakeCommands(directory)
    made.answer("condor_q")
    made.answer("condor_history", "[]\n")
    return made


def grid(fake: FakeCommands) -> HtcondorGrid:
    made = create("htcondor", {"bin_directory": str(fake.directory)})
    assert isinstance(made, HtcondorGrid)
    return made


def test_amounts_become_a_submit_description() -> None:
    asked = request(
        cores=4,
        memory_mib=4_000,
        disk_mib=10,
        gpus=2,
        walltime_s=61,
        priority=-5,
        queue="group_icecube",
        files_in=("/etc/a", "/etc/b c"),
        exclude_hosts=("n1", "n2"),
        extra_lines=('+SingularityImage = "x"',),
    )
    lines = text.description(asked, text.HtcondorOptions("yes")).splitlines()
    for line in (
        "executable = /work/j/grid.sh",
        "initialdir = /work/j",
        "request_cpus = 4",
        "request_memory = 4000M",
        "request_disk = 10M",
        "request_gpus = 2",
        "priority = -5",
        "accounting_group = group_icecube",
        "should_transfer_files = yes",
        "transfer_input_files = a, b c",
        'requirements = (TARGET.Machine != "n1") && (TARGET.Machine != "n2")',
        'My.IceProdTag = "iceprod.madison.j"',
        '+SingularityImage = "x"',
    ):
        assert line in lines, line
    assert lines[-1] == "queue 1"
    (removal,) = [line for line in lines if line.startswith("periodic_remove")]
    assert "NumJobStarts > 0" in removal and "> 61" in removal


def test_a_small_request_asks_for_no_more_than_it_needs() -> None:
    written = text.description(request(), text.HtcondorOptions())
    for word in (
        "request_gpus",
        "request_memory",
        "requirements",
        "accounting_group",
        "time()",
        "transfer_input",
    ):
        assert word not in written


def test_recorded_ids_are_read() -> None:
    assert text.submitted_id(said("condor", "condor_submit -terse job.sub")) == "1.0"
    assert text.submitted_id("1.0 - 1.3\n") is None


def test_the_recorded_queue_is_read() -> None:
    jobs = {job.grid_job_id: job for job in text.jobs(said("condor", "condor_q -json"), "condor_q")}
    assert jobs["2.0"].state == Running() and jobs["2.0"].tag is None
    assert jobs["3.0"].state == Queued()
    assert jobs["4.0"].state == Held("submitted on hold at user's request")


def test_the_recorded_history_is_read() -> None:
    jobs = {
        job.grid_job_id: job for job in text.jobs(said("condor", "condor_history -json"), "condor_history")
    }
    assert jobs["1.0"].state == Completed(3)
    assert jobs["2.0"].state == Removed("via condor_rm (by user gridtest)")
    end = jobs["1.0"].history
    assert end is not None and (end.exit_code, end.walltime_s, end.cpu_s) == (3, 1.0, 0.0)


@pytest.mark.parametrize(
    ("entry", "state"),
    [
        (ad(1, 2, RemoteHost="slot1_2@n7.org"), Running("n7.org")),
        (ad(1, 6, RemoteHost="slot1@n7"), Running("n7")),
        (ad(1, 4, ExitBySignal=True, ExitSignal=9), Completed(137)),
        (ad(1, 4, ExitBySignal=False, ExitCode=5), Completed(5)),
        (ad(1, 9), Queued("unknown JobStatus 9")),
    ],
)
def test_attributes_become_states(entry: dict[str, object], state: object) -> None:
    (job,) = text.jobs(json.dumps([entry]), "condor_q")
    assert job.state == state and job.tag == Tag("madison", "j1")


def test_what_a_rule_removed_has_failed() -> None:
    reason = "The job attribute PeriodicRemove expression '(JobStatus == 1)' evaluated to TRUE"
    (ours,) = text.jobs(json.dumps([ad(1, 3, RemoveReason=reason)]), "condor_history")
    assert isinstance(ours.state, Failed) and "wall time" in ours.state.reason
    rule = "The system macro SYSTEM_PERIODIC_REMOVE expression 'x' evaluated to TRUE"
    (pool,) = text.jobs(json.dumps([ad(1, 3, RemoveReason=rule)]), "condor_history")
    assert isinstance(pool.state, Failed) and "rule of the pool" in pool.state.reason


@pytest.mark.parametrize(
    "output", ["not json", '[{"ClusterId": 1}]', '[{"ClusterId": "x", "ProcId": 0, "JobStatus": 1}]']
)
def test_something_else_is_an_error_not_an_empty_queue(output: str) -> None:
    with pytest.raises(GridError, match="unknown form"):
        text.jobs(output, "condor_q")


def test_submission_writes_the_script_and_tells_kinds_of_trouble(fake: FakeCommands, tmp_path: Path) -> None:
    fake.answer("condor_submit", "7.0 - 7.0\n")
    asked = request(tmp_path, environment={"A": "x\ny"})
    assert grid(fake).submit([asked]) == [Submitted(asked.tag, "7.0")]
    assert 'export A=x"$LF"y\n' in (tmp_path / "j" / "grid.sh").read_text()
    assert fake.calls("condor_submit") == [["-terse", "-"]]
    fake.answer("condor_submit", complaint="\nERROR: Invalid accounting group\n", code=1)
    (refusal,) = grid(fake).submit([request(tmp_path, "b")])
    assert refusal == NotSubmitted(Tag("madison", "b"), "Invalid accounting group")
    fake.answer("condor_submit", complaint="ERROR: Failed to commit job submission into the queue.\n", code=1)
    assert isinstance(grid(fake).submit([request(tmp_path, "c")])[0], Unclear)
    fake.answer("condor_submit", complaint="ERROR: Can't find address of local schedd\n", code=1)
    with pytest.raises(GridDown):
        grid(fake).submit([request(tmp_path, "d")])


def test_one_that_is_being_removed_counts_as_running_until_it_has_left(fake: FakeCommands) -> None:
    plugin = grid(fake)
    fake.answer("condor_q", json.dumps([ad(1, 3, RemoveReason="via condor_rm")]))
    assert plugin.status(["1.0"]) == {"1.0": Running()} and plugin.history(["1.0"]) == {}
    fake.answer("condor_q")
    fake.answer("condor_history", json.dumps([ad(1, 3, RemoveReason="via condor_rm")]))
    assert plugin.status(["1.0"]) == {} and plugin.history(["1.0"])["1.0"].state == Removed("via condor_rm")
    assert "(ClusterId == 1 && ProcId == 0)" in fake.calls("condor_history")[-1]


def test_tags_are_found_in_the_queue_and_in_the_history(fake: FakeCommands) -> None:
    fake.answer("condor_q", json.dumps([ad(1, 1)]))
    fake.answer("condor_history", json.dumps([ad(2, 4, ExitCode=0)]), when="iceprod.madison.j2")
    tags = [Tag("madison", name) for name in ("j1", "j2", "j3")]
    assert {tag.grid_job: job.grid_job_id for tag, job in grid(fake).find_by_tag(tags).items()} == {
        "j1": "1.0",
        "j2": "2.0",
    }


def test_removal_minds_unknown_ones_not_but_a_schedd_that_is_away(fake: FakeCommands) -> None:
    fake.answer("condor_rm", complaint=said("condor", "condor_rm 99999"), code=1)
    grid(fake).remove(["99999.0", "nonsense"])
    assert fake.calls("condor_rm") == [["99999.0"]]
    fake.answer("condor_rm", complaint="ERROR: Can't find address of local schedd\n", code=1)
    with pytest.raises(GridDown, match="condor_schedd"):
        grid(fake).remove(["1.0"])


def test_a_computing_element_is_asked_by_name_with_a_token_and_told_what_its_routes_read(
    fake: FakeCommands, tmp_path: Path
) -> None:
    options = {"bin_directory": str(fake.directory), "endpoint": "ce.example.org"}
    element = create("htcondor-ce", {**options, "environment": {"BEARER_TOKEN_FILE": "/t"}})
    asked = request(tmp_path, cores=4, memory_mib=4_000, walltime_s=61, queue="long", carry=True)
    where = ("-pool", "ce.example.org:9619", "-name", "ce.example.org")
    config = element.write_config(asked)
    assert config.arguments == ("condor_submit", *where, "-spool", "-terse", "-")
    for line in (
        "+Owner = undefined",
        "+xcount = 4",
        "+maxMemory = 4000",
        "+maxWallTime = 2",
        '+remote_queue = "long"',
    ):
        assert line in config.text.splitlines()
    assert "accounting_group" not in config.text and "should_transfer_files = yes" in config.text
    element.status(["1.0"])
    (environment,) = fake.environments("condor_q")
    assert environment["_CONDOR_SEC_CLIENT_AUTHENTICATION_METHODS"] == "SCITOKENS,SSL"
    assert environment["BEARER_TOKEN_FILE"] == "/t" and fake.calls("condor_q")[0][:4] == list(where)
    assert "shared_directory" in element.impossible(request()) and not element.impossible(asked)
