"""`iceprod run-local`: one job without a cluster, by the code that pilots run."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.integration.archives import tarball

EXAMPLES = Path(__file__).parents[3] / "examples"
HELLO = EXAMPLES / "hello" / "hello.yaml"


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "iceprod_cli.main", "run-local", *words]


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), cwd=cwd, capture_output=True, text=True, timeout=240)


def steering(directory: Path, *tasks: dict[str, Any]) -> str:
    path = directory / "steering.yaml"
    path.write_text(yaml.safe_dump({"description": "a test", "tasks": list(tasks)}))
    return str(path)


def task(name: str, command: str, **more: Any) -> dict[str, Any]:
    needs = {"cpu": 1, "memory": 0.3, "disk": 0.1, "time": 0.1}
    module = {
        "name": name,
        "class": "Executable",
        "parameters": {"executable": "sh", "arguments": ["-c", command]},
    }
    return {"name": name, "requirements": needs, "trays": [{"modules": [module]}], **more}


def lives(pid: int) -> bool:
    """Whether a process runs; one that is dead and unburied does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_job_runs_with_its_files_statistics_and_log(tmp_path: Path) -> None:
    ended = run(str(HELLO), "--job", "3", "--log", "-o", "json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    greet, count = answer["tasks"]
    assert (answer["job"], answer["ok"]) == (3, True)
    assert greet["statistics"] == {"lines_written": 3.0}
    assert count["statistics"] == {"lines_counted": 3.0, "words_counted": 12.0}
    assert (tmp_path / "job-3" / "count.txt").read_text() == "3 lines, 12 words\n"
    assert "wrote 3 lines to greeting.txt" in ended.stderr
    assert os.listdir(tmp_path / "job-3") == ["count.txt"]  # Nothing in between is left.


def test_keep_leaves_what_is_between_tasks_and_task_runs_only_what_it_waits_for(tmp_path: Path) -> None:
    ended = run(str(HELLO), "--task", "greet", "--keep", "--out", "here", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "greet: complete" in ended.stdout and "count" not in ended.stdout
    kept = tmp_path / "here" / ".iceprod" / "job_temp" / "greeting.txt"
    assert kept.read_text().splitlines() == ["hello from job 0"] * 3


def test_a_task_that_fails_ends_the_run_with_its_reason_and_last_words(tmp_path: Path) -> None:
    file = steering(tmp_path, task("first", "echo so far; exit 3"), task("then", "true", depends=["first"]))
    ended = run(file, cwd=tmp_path)
    assert ended.returncode == 1
    assert "first: failed (payload)" in ended.stdout and "so far" in ended.stdout
    assert "then" not in ended.stdout


def test_limits_hold_as_they_do_at_a_site(tmp_path: Path) -> None:
    hungry = task("hungry", "exec python3 -c 'x = bytearray(600 << 20); import time; time.sleep(200)'")
    ended = run(steering(tmp_path, hungry), "-o", "json", cwd=tmp_path)
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["tasks"][0]["reason"] == "memory"


def test_tasks_after_the_job_and_the_dataset_come_last_and_read_what_a_pattern_finds(tmp_path: Path) -> None:
    def writes(name: str) -> list[dict[str, Any]]:
        return [{"movement": "output", "local": name}]

    def reads(pattern: str) -> list[dict[str, Any]]:
        return [{"movement": "input", "remote": pattern, "local": "parts"}]

    file = steering(
        tmp_path,
        task("all", "ls parts/*/* > all.txt", after="dataset", data=reads("*.txt") + writes("all.txt")),
        task("job", "cat parts/* > job.txt", after="job", data=reads("?.txt") + writes("job.txt")),
        task("a", "echo one > a.txt", data=writes("a.txt")),
        task("b", "echo two > b.txt", data=writes("b.txt")),
    )
    ended = run(file, "--job", "4", "-o", "json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [one["task"] for one in json.loads(ended.stdout)["tasks"]] == ["a", "b", "job", "all"]
    out = tmp_path / "job-4"
    assert (out / "job.txt").read_text() == "one\ntwo\n"
    assert (out / "all.txt").read_text().split() == [
        f"parts/00000004/{name}" for name in ("a.txt", "b.txt", "job.txt")
    ]


@pytest.mark.parametrize("words", [["--task", "gone"], ["--system", "no-equals"]])
def test_a_wrong_word_is_one_clear_error(tmp_path: Path, words: list[str]) -> None:
    ended = run(str(HELLO), *words, cwd=tmp_path)
    assert ended.returncode != 0 and "error:" in ended.stderr and "Traceback" not in ended.stderr


def test_an_interrupt_ends_the_task_and_everything_it_started(tmp_path: Path) -> None:
    file = steering(tmp_path, task("long", f"echo $$ > {tmp_path}/pid; exec sleep 600"))
    process = subprocess.Popen(command(file), cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE)
    pid_file = tmp_path / "pid"
    end_s = time.monotonic() + 120
    while not pid_file.exists() or not pid_file.read_text().strip():
        assert time.monotonic() < end_s and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(120) == 130
    end_s = time.monotonic() + 60  # Its guard may have the last word.
    while lives(int(pid_file.read_text())):
        assert time.monotonic() < end_s, "what it started outlives it"
        time.sleep(0.05)


def test_system_parameters_are_those_that_a_site_would_set(tmp_path: Path) -> None:
    file = steering(tmp_path, task("say", "echo scratch is $system(scratch)"))
    ended = run(file, "--system", "scratch=/here", "--log", cwd=tmp_path)
    assert "scratch is /here" in ended.stderr, ended.stderr


def test_unmonitored_jobs_go_through_a_grid_plugin_and_are_gathered_from_their_files(tmp_path: Path) -> None:
    script = "test $args(job) != 1 || exit 3; echo $args(job) > n.txt"
    file = steering(tmp_path, task("make", script, data=[{"movement": "output", "local": "n.txt"}]))
    iceprod = [sys.executable, "-m", "iceprod_cli.main"]
    local = ["--grid", "local", "--grid-option", "slots=2", "--grid-option", "linger_s=0.5", "--dir", "jobs"]
    words = ["submit", file, "--jobs", "3", "--unmonitored", *local]
    ended = subprocess.run([*iceprod, *words], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert "3 grid jobs submitted" in ended.stdout
    words = ["unmonitored", "jobs", "--wait", "-o", "json"]
    ended = subprocess.run([*iceprod, *words], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    rows = json.loads(ended.stdout)
    assert ended.returncode == 6, ended.stderr  # One of them failed.
    assert [row["state"] for row in rows] == ["complete", "failed", "complete"], rows
    assert (tmp_path / "jobs" / "job-2" / "out" / "n.txt").read_text() == "2\n"
    assert rows[0]["tasks"][0]["task"] == "make"


@pytest.mark.parametrize("syntax", ["xml", "yaml", "json"])
def test_the_physics_chain_runs_alike_in_all_three_syntaxes(tmp_path: Path, syntax: str) -> None:
    missing = [name for name in ("numpy", "chromo", "nuflux") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the extra [examples] is not installed: {', '.join(missing)} missing")
    ended = run(
        *(str(EXAMPLES / "physics" / f"physics.{syntax}"), "--job", "3", "--seed", "7", "-o", "json"),
        *("--gpus", "1"),
        cwd=tmp_path,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    tasks = json.loads(ended.stdout)["tasks"]
    assert [one["task"] for one in tasks][-1] == "merge" and len(tasks) == 7
    found = sha256((tmp_path / "job-3" / "merged.npz").read_bytes()).hexdigest()
    assert found == tasks[-1]["files"][0]["sha256"]
    assert MERGED.setdefault("sha256", found) == found  # Equal whatever the syntax.


MERGED: dict[str, str] = {}


def test_software_of_a_cluster_can_be_given_as_a_tarball(tmp_path: Path) -> None:
    (tmp_path / "tool.tar.gz").write_bytes(tarball({"tool-1/bin/who": "#!/bin/sh\necho the tool\n"}))
    (tmp_path / "use.sh").write_text("#!/bin/sh\nwho > who.txt\n")
    steering = tmp_path / "use.yaml"
    steering.write_text(
        "tasks:\n- name: use\n  environment: {software: tool, version: '1'}\n"
        "  data: [{type: permanent, movement: output, local: who.txt}]\n"
        "  trays: [{modules: [{src: use.sh}]}]\n"
    )
    words = [
        sys.executable,
        "-m",
        "iceprod_cli.main",
        "run-local",
        str(steering),
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(
        [*words, "--software", f"tool/1={tmp_path}/tool.tar.gz"],
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "out" / "who.txt").read_text() == "the tool\n"
    missing = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert missing.returncode == 1 and "comes from the cluster" in missing.stdout
