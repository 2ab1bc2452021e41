"""Slurm through slurmrestd: what is asked and read, on answers of Slurm 22.05, and on the form of newer APIs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.grids import slurm_rest_text as rest
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
from iceprod_p2p.grids.errors import GridDown, GridError, GridTimeout
from iceprod_p2p.grids.registry import create
from iceprod_p2p.grids.slurm import SlurmGrid
from iceprod_p2p.grids.slurm_text import SlurmOptions

TOKEN = "eyJhbGciOiJIUzI1NiJ9.e30.c2ln"


def job(number: int, state: str, *, reason: str = "None", exit_code: int = 0, **more: Any) -> dict[str, Any]:
    """One job as v0.0.38 lists it."""
    usual = {
        "name": f"iceprod.madison.j{number}",
        "nodes": "",
        "user_name": "ice",
        "start_time": 0,
        "end_time": 0,
    }
    return {
        "job_id": number,
        "job_state": state,
        "state_reason": reason,
        "exit_code": exit_code,
        **usual,
        **more,
    }


LIST = {
    "errors": [],
    "jobs": [
        job(1, "PENDING", reason="Resources"),
        job(2, "RUNNING", nodes="n1", start_time=100),
        job(3, "PENDING", reason="JobHeldUser"),
        job(4, "FAILED", reason="NonZeroExitCode", exit_code=768, nodes="n1", start_time=100, end_time=103),
        job(5, "CANCELLED", reason="JobHeldUser"),
        job(6, "TIMEOUT", reason="TimeLimit", exit_code=15, nodes="n2"),
        job(7, "RUNNING", user_name="stranger", nodes="n1"),
        job(8, "FAILED", reason="NonZeroExitCode", exit_code=9, nodes="n1"),
    ],
}


class Slurmrestd(BaseHTTPRequestHandler):
    """Answers by script; notes how it was asked."""

    answers: ClassVar[dict[str, tuple[int, Any]]] = {}
    asked: ClassVar[list[tuple[str, dict[str, str], Any]]] = []

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        call = f"{self.command} {self.path}"
        self.asked.append((call, dict(self.headers), body))
        status, document = self.answers.get(call, (500, {"errors": [{"error": "Unspecified error"}]}))
        if status == 0:
            self.connection.close()
            return
        content = document.encode() if isinstance(document, str) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def service(tmp_path: Path) -> Iterator[dict[str, tuple[int, Any]]]:
    Slurmrestd.answers, Slurmrestd.asked = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slurmrestd)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    Slurmrestd.answers["port"] = (server.server_port, None)
    yield Slurmrestd.answers
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def grid(service: dict[str, tuple[int, Any]], tmp_path: Path) -> SlurmGrid:
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(TOKEN)
    port = service["port"][0]
    made = create(
        "slurm",
        {"rest": f"http://127.0.0.1:{port}", "rest_user": "ice", "rest_token": str(token), "timeout_s": 5},
    )
    assert isinstance(made, SlurmGrid)
    return made


def request(root: Path | str = "/work", name: str = "j", **more: Any) -> GridRequest:
    return GridRequest(Tag("madison", name), "/opt/pilot", f"{root}/{name}", **more)


def test_amounts_become_fields_in_the_words_of_each_version() -> None:
    asked = request(
        cores=3,
        memory_mib=700,
        gpus=2,
        walltime_s=61,
        queue="main",
        priority=-7,
        exclude_hosts=("n1",),
        disk_mib=5,
        extra_lines=("--account=ice", "constraint=avx2", "hold", "--time-min 3"),
    )
    options = SlurmOptions(gres="gpu:a100", notice_s=30)
    old = rest.submission(asked, options, "v0.0.38")["job"]
    assert old["no_requeue"] and old["gres"] == "gpu:a100:2" and old["signal"] == "B:TERM@30"
    assert (old["time_limit"], old["memory_per_node"], old["nice"], old["nodes"]) == (2, 700, 70, 1)
    assert (old["account"], old["constraints"], old["hold"], old["time_min"]) == ("ice", "avx2", True, 3)
    assert "excluded_nodes" not in old and "requeue" not in old
    new = rest.submission(asked, options, "v0.0.41")["job"]
    assert new["requeue"] is False and new["tres_per_node"] == "gres/gpu:a100:2"
    assert new["excluded_nodes"] == ["n1"] and new["environment"][0].startswith("PATH=")
    assert new["time_limit"] == {"set": True, "infinite": False, "number": 2}
    carried = rest.submission(request(carry=True), SlurmOptions(), "v0.0.38")["job"]
    assert carried["current_working_directory"] == "/" and carried["standard_output"] == "/dev/null"


def test_the_list_becomes_states_and_ends_of_ones_own(grid: SlurmGrid, service: Any) -> None:
    service["GET /slurm/v0.0.38/jobs"] = (200, LIST)
    ids = [str(number) for number in range(1, 9)]
    assert grid.status(ids) == {"1": Queued("Resources"), "2": Running("n1"), "3": Held("JobHeldUser")}
    ends = grid.history(ids)
    assert ends["4"].state == Completed(3) and (ends["4"].host, ends["4"].walltime_s) == ("n1", 3.0)
    assert isinstance(ends["5"].state, Removed) and isinstance(ends["6"].state, Failed)
    assert ends["8"].state == Completed(137) and "7" not in ends
    assert {one.grid_job_id for one in grid.our_jobs("madison")} == set(ids) - {"7"}
    headers = Slurmrestd.asked[0][1]
    assert (headers["X-SLURM-USER-NAME"], headers["X-SLURM-USER-TOKEN"]) == ("ice", TOKEN)


def test_newer_forms_of_numbers_states_and_exit_codes_are_read() -> None:
    def wrapped(value: int) -> dict[str, Any]:
        return {"set": True, "infinite": False, "number": value}

    code = {"status": ["ERROR"], "return_code": wrapped(3), "signal": {"id": {"set": False, "number": 0}}}
    entry = job(4, "x", nodes="n1", start_time=wrapped(100), end_time=wrapped(103))
    (one,) = rest.jobs({"jobs": [{**entry, "job_state": ["FAILED"], "exit_code": code}]}, "ice")
    assert one.state == Completed(3) and one.history is not None and one.history.walltime_s == 3.0
    with pytest.raises(GridError, match="unknown form"):
        rest.jobs({"jobs": None}, "ice")


def test_the_accounting_is_asked_for_those_that_are_listed_no_more(grid: SlurmGrid, service: Any) -> None:
    service["GET /slurm/v0.0.38/jobs"] = (200, {"jobs": []})
    base = {"name": "iceprod.madison.j9", "nodes": "n1", "time": {"elapsed": 4}, "job_id": 9}
    bad = {"status": "SUCCESS", "return_code": 0}
    failed = {**base, "state": {"current": "FAILED"}, "exit_code": bad}
    service["GET /slurmdb/v0.0.38/job/9"] = (200, {"jobs": [failed]})
    end = grid.history(["9"])["9"]
    assert isinstance(end.state, Failed) and "not told" in end.reason and end.walltime_s == 4.0
    done = {**failed, "state": {"current": "COMPLETED"}}
    service["GET /slurmdb/v0.0.38/job/9"] = (200, {"jobs": [done]})
    assert grid.history(["9", "10"]) == {"9": grid.history(["9"])["9"]}
    service["GET /slurmdb/v0.0.38/jobs?job_name=iceprod.madison.j9"] = (200, {"jobs": [done]})
    tag = Tag("madison", "j9")
    assert grid.find_by_tag([tag, Tag("madison", "never")])[tag].state == Completed(0)


def test_submission_tells_kinds_of_trouble(grid: SlurmGrid, service: Any, tmp_path: Path) -> None:
    call = "POST /slurm/v0.0.38/job/submit"
    service[call] = (200, {"errors": [{"error_code": 2042, "error": "held"}], "job_id": 17})
    assert grid.submit([request(tmp_path)]) == [Submitted(Tag("madison", "j"), "17")]
    body = Slurmrestd.asked[-1][2]
    assert body["script"].startswith("#!/bin/sh") and body["job"]["name"] == "iceprod.madison.j"
    refusal = {"errors": [{"error_code": 2000, "error": "Invalid partition name specified"}]}
    service[call] = (500, refusal)
    assert grid.submit([request(tmp_path)]) == [
        NotSubmitted(Tag("madison", "j"), "Invalid partition name specified")
    ]
    service[call] = (
        500,
        {"errors": [{"error_code": 1800, "error": "Socket timed out on send/recv operation"}]},
    )
    assert isinstance(grid.submit([request(tmp_path)])[0], Unclear)
    away = "Unable to contact slurm controller (connect failure)"
    service[call] = (500, {"errors": [{"error_code": 1800, "error": away}]})
    with pytest.raises(GridDown):
        grid.submit([request(tmp_path)])
    service[call] = (0, None)
    assert isinstance(grid.submit([request(tmp_path)])[0], Unclear), "it may have been taken"


def test_removal_minds_unknown_ones_not_and_silence_is_no_answer(grid: SlurmGrid, service: Any) -> None:
    service["DELETE /slurm/v0.0.38/job/1"] = (
        500,
        {"errors": [{"error_number": 2017, "error": "Invalid job id"}]},
    )
    grid.remove(["1"])
    with pytest.raises(GridError):
        grid.remove(["2"])
    service["DELETE /slurm/v0.0.38/job/3"] = (0, None)
    with pytest.raises(GridTimeout):
        grid.remove(["3"])
    service["GET /slurm/v0.0.38/jobs"] = (
        500,
        {"errors": [{"error_number": -1, "error": "Unspecified error"}]},
    )
    with pytest.raises(GridDown, match="token"):
        grid.status(["1"])
    service["GET /slurm/v0.0.38/jobs"] = (401, "Authentication failure")
    with pytest.raises(GridError, match="refused"):
        grid.status(["1"])


def test_check_names_the_version_and_asks_as_a_look_would(grid: SlurmGrid, service: Any) -> None:
    meta = {"Slurm": {"release": "22.05.8"}}
    service["GET /slurm/v0.0.38/ping"] = (200, {"meta": meta, "pings": [{"ping": "UP"}]})
    service["GET /slurm/v0.0.38/jobs"] = (200, LIST)
    assert "Slurm 22.05.8, user ice" in grid.check()
    service["GET /slurm/v0.0.38/ping"] = (200, {"meta": meta, "pings": [{"ping": "DOWN"}]})
    with pytest.raises(GridDown):
        grid.check()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rest": "http://slurm.example.org:6820"}, "in the open"),
        ({"rest": "ftp://slurm"}, "no address"),
        ({"rest": "unix:socket"}, "no address"),
        ({"rest": "unix:///run/slurmrestd", "rest_version": "v0.0.12"}, "not known"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        create("slurm", options)


def test_nobody_there_is_down(tmp_path: Path) -> None:
    with pytest.raises(GridDown, match="cannot be reached"):
        create("slurm", {"rest": f"unix://{tmp_path}/none"}).status(["1"])
