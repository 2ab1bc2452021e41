"""CREAM, gLite and EDG: what is said to their commands, and what is read of what their clients printed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from iceprod_p2p.grids.base import (
    Completed,
    Failed,
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
from iceprod_p2p.grids.errors import GridDown
from iceprod_p2p.grids.registry import create
from tests.unit.grids.recordings import FakeCommands

CE = "ce.example.org:8443"
CREAM_IDS = [f"https://{CE}/CREAM{number}" for number in range(100, 107)]
LB_IDS = [f"https://lb.example.org:9000/{letter}BubkFFKhnSQ6CjiLUY8Q" for letter in "abcdefg"]


def cream_record(number: int, *lines: str, tag: str = "") -> str:
    """One job as ``glite-ce-job-status --level 2`` prints it."""
    jdl = f'[ Executable = "grid.sh"; Environment = {{ "ICEPROD_GRID_TAG={tag}" }} ]' if tag else "[ ]"
    body = "".join(f"\t{line}\n" for line in (*lines, f"JDL            = [{jdl}]"))
    history = (
        "\tJob status changes:\n\t-------------------\n\tStatus         = [REGISTERED] - [Tue 13 Nov] (1)\n"
    )
    return f"******  JobID=[{CREAM_IDS[number]}]\n{body}\n{history}\n"


CREAM_LIST = "\n".join(
    (
        cream_record(0, "Current Status = [IDLE]", "Grid JobID     = [N/A]", tag="iceprod.madison.a"),
        cream_record(
            1, "Current Status = [REALLY-RUNNING]", "Worker Node    = [wn7]", tag="iceprod.madison.b"
        ),
        cream_record(
            2,
            "Current Status = [DONE-OK]",
            "ExitCode       = [3]",
            "Worker Node    = [wn8]",
            tag="iceprod.madison.c",
        ),
        cream_record(
            3,
            "Current Status = [DONE-FAILED]",
            "ExitCode       = [N/A]",
            "FailureReason  = [reason=999]",
            tag="iceprod.madison.d",
        ),
        cream_record(
            4, "Current Status = [ABORTED]", "FailureReason  = [BLAH error: no queue]", tag="iceprod.lyon.e"
        ),
        cream_record(5, "Current Status = [CANCELLED]", "ExitCode       = []", tag="iceprod.madison.f"),
        cream_record(6, "Current Status = [HELD]"),
    )
)


def lb_record(
    number: int, status: str, *lines: str, tag: str = "", host: str = "ce.example.org:2119/x"
) -> str:
    """One job as ``glite-wms-job-status -v 3`` and ``edg-job-status -v 2`` print it."""
    jdl = f'Jdl:  [ Environment = {{ "ICEPROD_GRID_TAG={tag}" }}; ]\n' if tag else ""
    return (
        "*************************************************************\nBOOKKEEPING INFORMATION:\n\n"
        f"Status info for the Job : {LB_IDS[number]}\nCurrent Status:     {status}\n"
        + "".join(f"{line}\n" for line in lines)
        + f"Destination:        {host}\nSubmitted:          Thu Apr 17 20:59:31 2014 CEST\n{jdl}"
        + "*************************************************************\n\n"
    )


LB_LIST = "".join(
    (
        lb_record(0, "Scheduled", "Status Reason:      unavailable", tag="iceprod.madison.a"),
        lb_record(1, "Running", "Status Reason:      unavailable", tag="iceprod.madison.b"),
        lb_record(2, "Done (Success)", "Exit code:          0", tag="iceprod.madison.c"),
        lb_record(3, "Done (Exit Code !=0)", "Exit code:          4", tag="iceprod.madison.d"),
        lb_record(4, "Aborted", "Status Reason:      hit job retry count (3)", tag="iceprod.lyon.e"),
        lb_record(5, "Cancelled", tag="iceprod.madison.f"),
        lb_record(6, "Waiting"),
    )
)
WMS_SUBMIT = (
    "\nConnecting to the service https://wms.example.org:7443/glite_wms_wmproxy_server\n\n"
    "====================== glite-wms-job-submit Success ======================\n\n"
    "The job has been successfully submitted to the WMProxy\nYour job identifier is:\n\n"
    f"{LB_IDS[0]}\n\n==========================================================================\n"
)
EDG_SUBMIT = (
    "\n*****************************************************************************\n"
    "                               JOB SUBMIT OUTCOME\n"
    " The job has been successfully submitted to the Network Server.\n"
    " Use edg-job-status command to check job current status. Your job identifier (edg_jobId) is:\n\n"
    f" - {LB_IDS[0]}\n\n*****************************************************************************\n"
)


@pytest.fixture
def fake(tmp_path: Path) -> FakeCommands:
    directory = tmp_path / "bin"
    directory.mkdir()
    return FakeCommands(directory)


def made(fake: FakeCommands, name: str) -> Grid:
    options: dict[str, Any] = {"bin_directory": str(fake.directory)}
    return create(name, {**options, "endpoint": f"{CE}/cream-pbs-long"} if name == "cream" else options)


def request(root: Path, name: str = "a", **more: Any) -> GridRequest:
    carried = root / "pilot.json"
    carried.write_text("{}")
    return GridRequest(
        Tag("madison", name),
        "/usr/bin/python3",
        f"{root}/{name}",
        ("pilot.pyz", "--config", "pilot.json"),
        files_in=(str(carried),),
        carry=True,
        **more,
    )


def test_cream_gets_a_description_by_file_and_a_script_that_carries_everything(
    fake: FakeCommands, tmp_path: Path
) -> None:
    fake.answer("glite-ce-job-submit", f"{CREAM_IDS[0]}\n")
    asked = request(tmp_path, cores=4, walltime_s=90, extra_lines=('CeRequirements = "other.X == 1";',))
    (result,) = made(fake, "cream").submit([asked])
    assert result == Submitted(asked.tag, CREAM_IDS[0])
    place = f"{tmp_path}/a"
    assert fake.calls("glite-ce-job-submit") == [["-a", "-r", f"{CE}/cream-pbs-long", f"{place}/grid.job"]]
    jdl = Path(place, "grid.job").read_text()
    for line in (
        f'InputSandbox = {{"{place}/grid.sh"}};',
        'Environment = {"ICEPROD_GRID_TAG=iceprod.madison.a"};',
        "CpuNumber = 4;",
        'CeRequirements = "other.X == 1";',
    ):
        assert line in jdl.splitlines(), jdl
    script = Path(place, "grid.sh").read_text()
    assert "base64 -d >pilot.json" in script and "exec /usr/bin/python3 pilot.pyz" in script


@pytest.mark.parametrize(
    ("name", "command", "printed", "line"),
    [
        ("glite", "glite-wms-job-submit", WMS_SUBMIT, ["--noint", "-a", "-r", "ce/q"]),
        ("edg", "edg-job-submit", EDG_SUBMIT, ["--noint", "--nolisten", "-r", "ce/q"]),
    ],
)
def test_the_brokers_ids_are_found_among_their_other_addresses(
    fake: FakeCommands, tmp_path: Path, name: str, command: str, printed: str, line: list[str]
) -> None:
    fake.answer(command, printed)
    asked = request(tmp_path, queue="ce/q", walltime_s=3_600)
    assert made(fake, name).submit([asked]) == [Submitted(asked.tag, LB_IDS[0])]
    assert fake.calls(command) == [[*line, f"{tmp_path}/a/grid.job"]]
    jdl = Path(tmp_path, "a", "grid.job").read_text()
    assert "Requirements = other.GlueCEPolicyMaxWallClockTime >= 60;" in jdl


def test_creams_words_become_states_ends_and_tags(fake: FakeCommands) -> None:
    fake.answer("glite-ce-job-status", CREAM_LIST)
    grid = made(fake, "cream")
    assert grid.status(CREAM_IDS) == {
        CREAM_IDS[0]: Queued("IDLE"),
        CREAM_IDS[1]: Running("wn7"),
        CREAM_IDS[6]: Held("HELD"),
    }
    ends = grid.history(CREAM_IDS)
    assert (ends[CREAM_IDS[2]].state, ends[CREAM_IDS[2]].host) == (Completed(3), "wn8")
    assert ends[CREAM_IDS[3]].state == Failed("reason=999")
    assert ends[CREAM_IDS[4]].state == Failed("BLAH error: no queue")
    assert isinstance(ends[CREAM_IDS[5]].state, Removed) and CREAM_IDS[0] not in ends
    assert {job.grid_job_id for job in grid.our_jobs("madison")} == {CREAM_IDS[n] for n in (0, 1, 2, 3, 5)}
    assert fake.calls("glite-ce-job-status")[0] == ["--level", "2", "--all", "--endpoint", CE]


@pytest.mark.parametrize(("name", "command"), [("glite", "glite-wms-job"), ("edg", "edg-job")])
def test_the_brokers_words_become_states_ends_and_tags(fake: FakeCommands, name: str, command: str) -> None:
    fake.answer(f"{command}-status", LB_LIST)
    fake.answer(f"{command}-cancel", "Job(s) cancelled\n")
    grid = made(fake, name)
    assert grid.status(LB_IDS) == {
        LB_IDS[0]: Queued("unavailable"),
        LB_IDS[1]: Running("ce.example.org:2119/x"),
        LB_IDS[6]: Queued("Waiting"),
    }
    ends = grid.history(LB_IDS)
    assert [ends[LB_IDS[n]].state for n in (2, 3, 4)] == [
        Completed(0),
        Completed(4),
        Failed("hit job retry count (3)"),
    ]
    assert isinstance(ends[LB_IDS[5]].state, Removed)
    assert [job.grid_job_id for job in grid.clean_queue("madison", [Tag("madison", "a")])] == [LB_IDS[1]]
    assert fake.calls(f"{command}-cancel") == [["--noint", LB_IDS[1]]]


def test_trouble_is_told_apart_and_ended_ones_are_purged(fake: FakeCommands, tmp_path: Path) -> None:
    grid = made(fake, "cream")
    fault = "FATAL - Received NULL fault; the error is due to another cause: FaultString=[{}] - FaultDetail=[{}]\n"
    fake.answer("glite-ce-job-submit", complaint=fault.format("", "Connection refused"), code=1)
    with pytest.raises(GridDown):
        grid.submit([request(tmp_path, "b")])
    fake.answer("glite-ce-job-submit", complaint=fault.format("connection error", ""), code=1)
    assert isinstance(grid.submit([request(tmp_path, "c")])[0], Unclear)
    fake.answer("glite-ce-job-submit", complaint="FATAL - the queue is not published\n", code=1)
    assert isinstance(grid.submit([request(tmp_path, "d")])[0], NotSubmitted)
    fake.answer("glite-ce-job-purge", complaint="job not found\n", code=1)
    grid.forget([CREAM_IDS[2]])
    assert fake.calls("glite-ce-job-purge") == [["--noint", CREAM_IDS[2]]]
    fake.answer("glite-ce-job-status", "")
    assert grid.status(CREAM_IDS) == {} and grid.history(CREAM_IDS) == {}


def test_what_a_gateway_cannot_run_is_known_without_asking(fake: FakeCommands, tmp_path: Path) -> None:
    shared = GridRequest(Tag("madison", "a"), "/bin/true", f"{tmp_path}/a")
    for name in ("cream", "glite", "edg"):
        grid = made(fake, name)
        assert "shared_directory" in grid.impossible(shared)
        assert grid.impossible(request(tmp_path)) == "" and "GPUs" in grid.impossible(
            request(tmp_path, gpus=1)
        )


def test_long_lists_are_read_in_a_moment(fake: FakeCommands) -> None:
    fake.answer("glite-ce-job-status", CREAM_LIST * 300)
    began_s = time.process_time()
    assert len(made(fake, "cream").status(CREAM_IDS)) == 3
    assert time.process_time() - began_s < 10
