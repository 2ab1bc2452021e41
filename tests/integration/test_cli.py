"""Every command of `iceprod` against one real node: tables, machine forms, selectors, exit codes, one clear error."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from iceprod_p2p.ledger.versions import VERSION_LEAST, VERSION_MOST
from tests.integration.command_line import CommandLine, Said
from tests.integration.node_processes import ROOT, NodeProcess, wait_for

HELLO = ROOT / "examples" / "hello" / "hello.yaml"
NAP = """\
version: 3.2
description: Sleep for a long while
tasks:
  - name: nap
    requirements: {cpu: 1, memory: 0.1, disk: 0.1, time: 0.1}
    trays: [{modules: [{name: nap, src: nap.sh, args: "300"}]}]
  - name: wake
    depends: [nap]
    requirements: {cpu: 1, memory: 0.1, disk: 0.1, time: 0.1}
    trays: [{modules: [{name: wake, src: nap.sh, args: "0"}]}]
"""
BROKEN = """\
version: 3.2
description: Fail at once, and say why
tasks:
  - name: broken
    requirements: {cpu: 1, memory: 0.1, disk: 0.1, time: 0.1}
    trays: [{modules: [{name: broken, src: broken.sh}]}]
"""
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    one = NodeProcess(tmp_path_factory.mktemp("cli") / "madison", "madison", slots=2, idle_end_s=600)
    done = one.command("init")
    assert done.returncode == 0, done.stderr
    one.start()
    yield one
    one.end()


@pytest.fixture(scope="module")
def iceprod(node: NodeProcess) -> CommandLine:
    """The command line of the first administrator."""
    command = CommandLine(node.directory / "config", f"{node.data / 'admin'}/")
    wait_for("the founder leads", lambda: command.process("cluster", "status").code == 0)
    return command


@pytest.fixture(scope="module")
def hello(iceprod: CommandLine) -> str:
    """A complete dataset of three jobs of two tasks, and its number."""
    said = iceprod(
        "submit", str(HELLO), "--jobs", "3", "--name", "hello", "--seed", "5", "--wait", "-o", "name"
    )
    return said.stdout.strip()


@pytest.fixture(scope="module")
def broken(iceprod: CommandLine, node: NodeProcess) -> str:
    """A dataset whose only task fails for good at its first attempt."""
    (node.directory / "broken.yaml").write_text(BROKEN)
    (node.directory / "broken.sh").write_text("#!/bin/sh\necho out of ice\nexit 7\n")
    steering = str(node.directory / "broken.yaml")
    said = iceprod("submit", steering, "--jobs", "1", "--attempts", "1", "-o", "name")
    iceprod("dataset", "watch", said.stdout.strip(), "--interval", "0.2", code=6)
    return said.stdout.strip()


@pytest.fixture
def nap(iceprod: CommandLine, node: NodeProcess) -> Iterator[str]:
    """A dataset of forty jobs that sleep, of which some run; aborted in the end."""
    (node.directory / "nap.yaml").write_text(NAP)
    (node.directory / "nap.sh").write_text('#!/bin/sh\nexec sleep "$1"\n')
    said = iceprod("submit", str(node.directory / "nap.yaml"), "--jobs", "40", "-o", "name")
    number = said.stdout.strip()
    wait_for("something runs", lambda: counts(iceprod, number).get("processing"))
    yield number
    if number in iceprod("dataset", "list", "-o", "name").stdout.split():
        iceprod("dataset", "abort", number, "--yes")


def counts(iceprod: CommandLine, dataset: str) -> dict[str, int]:
    """Tasks by state, those that are not zero."""
    tasks: dict[str, int] = iceprod("dataset", "show", dataset, "--query", "tasks").document
    return {state: count for state, count in tasks.items() if count}


def states(iceprod: CommandLine, selector: str, *more: str) -> dict[str, str]:
    """The states of the selected tasks."""
    return {
        row["task"]: row["state"] for row in iceprod("task", "list", selector, *more, "-o", "json").document
    }


# Forms of output.

LISTS = {
    ("dataset", "list"): ("DATASET", "dataset"),
    ("job", "list", "hello"): ("JOB", "job"),
    ("task", "list", "hello"): ("TASK", "task"),
    ("file", "list", "hello"): ("FILE", "id"),
    ("site", "list"): ("SITE", "site"),
    ("cluster", "members"): ("NODE", "node_id"),
    ("audit",): ("INDEX", "index"),
    ("modules", "list"): ("MODULE", "name"),
    ("dataset", "stats", "hello"): ("TASK", "name"),
}


@pytest.mark.parametrize("command", LISTS, ids=" ".join)
def test_lists_come_as_table_json_jsonl_csv_and_names_with_the_same_rows(
    iceprod: CommandLine, hello: str, command: tuple[str, ...]
) -> None:
    heading, key = LISTS[command]
    table = iceprod(*command).stdout.splitlines()
    rows = iceprod(*command, "-o", "json").document
    assert table[0].startswith(heading) and len(table) == len(rows) + 1
    assert rows and all(isinstance(row, dict) and key in row for row in rows)
    lines = iceprod(*command, "-o", "jsonl").documents
    assert [line[key] for line in lines] == [row[key] for row in rows]
    cells = list(csv.DictReader(io.StringIO(iceprod(*command, "-o", "csv").stdout)))
    assert [cell[key] for cell in cells] == [str(row[key]) for row in rows]
    names = iceprod(*command, "-o", "name").stdout.split("\n")
    assert names == [*(str(row[key]) for row in rows), ""]
    wide = iceprod(*command, "-o", "wide").stdout.splitlines()
    assert len(wide) == len(rows) + 1 and len(wide[0].split()) >= len(table[0].split())
    assert iceprod(*command, "--query", f"[].{key}").document == [row[key] for row in rows]


OBJECTS = {
    ("dataset", "show", "hello"): "dataset",
    ("job", "show", "hello.1"): "job",
    ("task", "show", "hello.1.count"): "task",
    ("site", "show", "madison"): "site",
    ("cluster", "status"): "cluster",
    ("cluster", "check"): "violations",
    ("modules", "inspect", "Transfer"): "name",
    ("whoami",): "name",
}


@pytest.mark.parametrize("command", OBJECTS, ids=" ".join)
def test_single_things_come_for_people_and_as_documents(
    iceprod: CommandLine, hello: str, command: tuple[str, ...]
) -> None:
    key = OBJECTS[command]
    assert iceprod(*command).stdout.strip()
    document = iceprod(*command, "-o", "json").document
    assert key in document
    assert [set(line) for line in iceprod(*command, "-o", "jsonl").documents] == [set(document)]
    assert iceprod(*command, "-o", "name").stdout == f"{document[key]}\n"
    (cells,) = csv.DictReader(io.StringIO(iceprod(*command, "-o", "csv").stdout))
    assert set(cells) == set(document)
    assert iceprod(*command, "--query", key).document == document[key]


def test_a_query_that_is_no_jmespath_is_a_usage_error(iceprod: CommandLine) -> None:
    said = iceprod("site", "list", "--query", "[[", code=2)
    assert "is not a JMESPath expression" in said.stderr and said.stdout == ""


def test_colour_is_only_where_it_is_asked_for(iceprod: CommandLine, hello: str) -> None:
    assert "\x1b[" not in iceprod("dataset", "list").stdout
    assert "\x1b[" in iceprod("dataset", "list", "--color", "always").stdout
    assert "\x1b[" not in iceprod("dataset", "list", "--color", "never").stdout


# Submission.


def test_submit_says_what_was_taken_in_and_a_dry_run_takes_in_nothing(
    iceprod: CommandLine, hello: str
) -> None:
    before = iceprod("dataset", "list", "-o", "name").stdout
    dry = iceprod("submit", str(HELLO), "--jobs", "1000000000", "--dry-run")
    assert "can be submitted: 1000000000 jobs of 2 tasks (greet, count)" in dry.stdout
    assert iceprod("dataset", "list", "-o", "name").stdout == before


def test_submit_takes_every_option_that_a_dataset_has(iceprod: CommandLine, hello: str) -> None:
    said = iceprod(
        *("submit", str(HELLO), "--jobs", "2", "--name", "rich", "--description", "all options"),
        *("--priority", "0.25", "--sites", "madison", "--exclude", "", "--seed", "99", "--attempts", "4"),
        *("--wait", "-o", "json"),
    )
    assert said.document["jobs"] == 2 and said.document["task_names"] == ["greet", "count"]
    shown = iceprod("dataset", "show", "rich", "-o", "json").document
    assert {key: shown[key] for key in ("alias", "description", "priority", "seed", "attempts_max")} == {
        "alias": "rich",
        "description": "all options",
        "priority": 250,
        "seed": 99,
        "attempts_max": 4,
    }
    assert (shown["sites_allowed"], shown["sites_excluded"], shown["owner"]) == (["madison"], [], "admin")


def test_a_taken_alias_is_refused_with_the_ledgers_word(iceprod: CommandLine, hello: str) -> None:
    error = iceprod("submit", str(HELLO), "--jobs", "1", "--name", "hello", code=1).error()
    assert "another dataset has the alias 'hello'" in error and "code: exists" in error


@pytest.mark.parametrize(
    "options",
    [("--jobs", "0"), ("--jobs", "1", "--priority", "2"), ("--jobs", "x"), (), ("--jobs", "1", "-o", "xml")],
)
def test_wrong_options_are_usage_errors(iceprod: CommandLine, options: tuple[str, ...]) -> None:
    said = iceprod("submit", str(HELLO), *options, code=2)
    assert "Usage: " in said.stderr and "Error: " in said.stderr


# Datasets.


def test_a_dataset_is_called_by_number_or_alias_and_shows_what_it_did(
    iceprod: CommandLine, hello: str
) -> None:
    shown = iceprod("dataset", "show", hello, "-o", "json").document
    assert shown["state"] == "complete" and shown["tasks_total"] == 6 and shown["done"] == "100.0 %"
    assert iceprod("dataset", "show", "hello", "--query", "dataset").document == int(hello)
    assert [(t["name"], t["counts"]["complete"]) for t in shown["task_names"]] == [("greet", 3), ("count", 3)]
    assert [(s["site"], s["complete"]) for s in shown["sites"]] == [("madison", 6)]
    text = iceprod("dataset", "show", hello).stdout
    assert f"dataset {hello} (hello): complete" in text and "3 jobs, 6 tasks, 100.0 % done" in text


def test_statistics_are_those_that_the_scripts_reported(iceprod: CommandLine, hello: str) -> None:
    rows = iceprod("dataset", "stats", "hello", "-o", "json").document
    found = {row["name"]: (row["task"], row["count"], row["sum"], row["average"]) for row in rows}
    assert found["lines_written"] == ("greet", 3, 9, 3)
    assert found["words_counted"] == ("count", 3, 36, 12)
    assert all(row["standard_deviation"] == 0 for row in rows if row["name"] == "lines_written")


def test_lists_can_be_filtered_and_limited(iceprod: CommandLine, hello: str, broken: str) -> None:
    assert iceprod("dataset", "list", "--state", "errors", "-o", "name").stdout.split() == [broken]
    assert iceprod("dataset", "list", "--owner", "nobody", "-o", "json").document == []
    assert len(iceprod("dataset", "list", "--limit", "1", "-o", "json").document) == 1
    assert states(iceprod, "hello", "--name", "greet") == {f"{hello}.{n}.0": "complete" for n in range(3)}
    assert states(iceprod, "hello", "--state", "failed") == {}
    assert len(states(iceprod, "hello", "--limit", "4")) == 4
    assert len(states(iceprod, "hello", "--site", "madison")) == 6
    assert states(iceprod, "hello", "--site", "elsewhere") == {}
    assert iceprod("job", "list", f"{broken}", "--state", "complete", "-o", "json").document == []


def test_suspend_and_resume_keep_tasks_from_starting_and_let_them_go_on(
    iceprod: CommandLine, nap: str
) -> None:
    iceprod("dataset", "suspend", nap)
    wait_for("it is suspended", lambda: counts(iceprod, nap).get("suspended"))
    assert iceprod("dataset", "show", nap, "--query", "state").document == "suspended"
    assert "iceprod" in iceprod("task", "explain", f"{nap}.39.nap").stdout, "it says what to type next"
    iceprod("dataset", "resume", nap)
    assert iceprod("dataset", "show", nap, "--query", "state").document == "processing"
    wait_for("none is suspended", lambda: "suspended" not in counts(iceprod, nap))


def test_destructive_verbs_ask_and_no_terminal_means_no(iceprod: CommandLine, nap: str) -> None:
    for verb in ("reset", "abort", "truncate", "delete"):
        said = iceprod("dataset", verb, nap, code=2)
        assert "Give --yes" in said.stderr
    for thing, selector in (("job", f"{nap}.0"), ("task", f"{nap}.0.nap")):
        assert "Give --yes" in iceprod(thing, "abort", selector, code=2).stderr
    assert "Give --yes" in iceprod("site", "ban", "madison", code=2).stderr
    assert counts(iceprod, nap).get("processing")


def test_truncate_drops_the_jobs_that_have_not_started_and_abort_ends_the_rest(
    iceprod: CommandLine, nap: str
) -> None:
    iceprod("dataset", "truncate", nap, "--yes")
    after = counts(iceprod, nap)
    assert after.get("aborted") and after.get("processing")
    iceprod("dataset", "abort", nap, "--yes")
    wait_for("all is aborted", lambda: counts(iceprod, nap) == {"aborted": 80})
    assert iceprod("dataset", "watch", nap, code=6).stdout.strip().endswith("aborted")
    iceprod("dataset", "delete", nap, "--yes")
    assert "there is no dataset" in iceprod("dataset", "show", nap, code=3).error()
    assert nap not in iceprod("dataset", "list", "-o", "name").stdout.split()


def test_set_changes_what_may_change_and_nothing_else(iceprod: CommandLine, nap: str) -> None:
    iceprod(
        *("dataset", "set", nap, "--priority", "0.9", "--alias", "siesta", "--description", "after lunch"),
        *("--attempts", "7", "--exclude", "madison"),
    )
    shown = iceprod("dataset", "show", "siesta", "-o", "json").document
    assert [shown[key] for key in ("priority", "description", "attempts_max", "sites_excluded")] == [
        *(900, "after lunch", 7, ["madison"])
    ]
    iceprod("dataset", "set", nap, "--exclude", "")
    assert iceprod("dataset", "show", nap, "--query", "sites_excluded").document == []
    assert "is not in the range" in iceprod("dataset", "set", nap, "--priority", "7", code=2).stderr
    assert "no site" in iceprod("dataset", "set", nap, "--sites", "atlantis", code=3).error()


def test_a_failed_dataset_tells_why_and_can_be_reset(iceprod: CommandLine, broken: str) -> None:
    assert counts(iceprod, broken) == {"failed": 1}
    text = iceprod("task", "explain", f"{broken}.0.broken").stdout
    assert "failed" in text and "next: iceprod " in text
    shown = iceprod("task", "show", f"{broken}.0.0", "-o", "json").document
    assert (shown["name"], shown["state"], shown["failures"]) == ("broken", "failed", 1)
    assert "out of ice" in iceprod("task", "logs", f"{broken}.0.broken").stdout
    iceprod("dataset", "reset", broken, "--failed", "--yes")
    iceprod("dataset", "watch", broken, "--interval", "0.2", code=6)
    again = iceprod("task", "show", f"{broken}.0.0", "-o", "json").document
    assert again["state"] == "failed" and again["attempt"] > shown["attempt"]


def test_watch_gives_up_after_its_time(iceprod: CommandLine, nap: str) -> None:
    said = iceprod("dataset", "watch", nap, "--interval", "0.2", "--timeout", "1", code=6)
    assert "processing" in said.stdout and 1 <= said.seconds < 60
    assert "/80 tasks" in said.stderr, "a line now and then where nobody watches"


# Jobs, tasks, selectors.


def test_selectors_choose_jobs_ranges_lists_and_tasks(iceprod: CommandLine, hello: str) -> None:
    def found(selector: str) -> list[str]:
        return [task.partition(".")[2] for task in states(iceprod, selector)]

    assert found("hello.1") == ["1.0", "1.1"]
    assert found("hello.0-1") == ["0.0", "0.1", "1.0", "1.1"]
    assert found("hello.0,2") == ["0.0", "0.1", "2.0", "2.1"]
    assert found("hello.*") == found("hello") == [f"{j}.{t}" for j in range(3) for t in range(2)]
    assert found("hello.1-2.count") == ["1.1", "2.1"]
    assert found(f"{hello}.*.greet") == ["0.0", "1.0", "2.0"]
    jobs = iceprod("job", "list", "hello.1-2", "-o", "name").stdout.split()
    assert jobs == [f"{hello}.1", f"{hello}.2"]


@pytest.mark.parametrize("selector", ["hello.x", "hello.3-1", ".1", "-1", "hello.1,,2", "he!lo", "1" * 40])
def test_wrong_selectors_say_which_part_is_wrong(iceprod: CommandLine, hello: str, selector: str) -> None:
    said = iceprod("task", "list", "--", selector, code=3 if selector == "1" * 40 else 2)
    assert "try: " in said.error()


def test_jobs_are_suspended_resumed_reset_and_aborted(iceprod: CommandLine, nap: str) -> None:
    iceprod("job", "suspend", f"{nap}.38-39")
    assert set(states(iceprod, f"{nap}.38-39").values()) <= {"suspended"}
    iceprod("job", "resume", f"{nap}.38-39")
    assert "suspended" not in states(iceprod, f"{nap}.38-39").values()
    iceprod("job", "abort", f"{nap}.38", f"{nap}.39", "--yes")
    assert set(states(iceprod, f"{nap}.38-39").values()) == {"aborted"}
    iceprod("job", "reset", f"{nap}.39", "--yes")
    assert "aborted" not in states(iceprod, f"{nap}.39").values()
    assert iceprod("job", "show", f"{nap}.38", "--query", "state").document == "aborted"


def test_tasks_are_controlled_one_by_one(iceprod: CommandLine, nap: str) -> None:
    iceprod("task", "suspend", f"{nap}.39.nap")
    assert states(iceprod, f"{nap}.39") == {f"{nap}.39.0": "suspended", f"{nap}.39.1": "waiting"}
    iceprod("task", "resume", f"{nap}.39.0")
    running = next(task for task, state in states(iceprod, nap).items() if state == "processing")
    before = iceprod("task", "show", running, "--query", "attempt").document
    iceprod("task", "reset", running, "--yes")
    assert iceprod("task", "show", running, "--query", "attempt").document > before
    iceprod("task", "abort", f"{nap}.37.wake", "--yes")
    assert states(iceprod, f"{nap}.37.wake") == {f"{nap}.37.1": "aborted"}


def test_verbs_that_would_touch_more_than_was_named_are_refused(iceprod: CommandLine, nap: str) -> None:
    assert "every job" in iceprod("job", "suspend", nap, code=2).error()
    assert "names no task" in iceprod("task", "suspend", f"{nap}.1", code=2).error()
    assert "names a task" in iceprod("job", "suspend", f"{nap}.1.nap", code=2).error()
    assert "names jobs" in iceprod("dataset", "suspend", f"{nap}.1", code=2).error()
    assert set(counts(iceprod, nap)) <= {"processing", "waiting", "ready", "queued", "claimed"}


NOT_THERE: dict[tuple[str, ...], str] = {
    ("dataset", "show", "4711"): "there is no dataset",
    ("dataset", "suspend", "4711"): "there is no dataset",
    ("dataset", "watch", "no-such-alias"): "there is no dataset",
    ("job", "show", "hello.77"): "there is no job",
    ("job", "suspend", "hello.77"): "has no job",
    ("task", "show", "hello.77.greet"): "has no task",
    ("task", "show", "hello.0.stir"): "has no task",
    ("task", "suspend", "hello.0.stir"): "has no task",
    ("file", "get", "hello.0/no-such-file"): "there is no file",
    ("site", "show", "atlantis"): "there is no site",
    ("site", "drain", "atlantis"): "there is no site",
    ("cluster", "promote", "atlantis-1"): "there is no node",
    ("cluster", "remove", "atlantis-1", "--yes"): "no node",
    ("context", "use", "atlantis"): "there is no context",
    ("context", "remove", "atlantis"): "there is no context",
}


@pytest.mark.parametrize("command", NOT_THERE, ids=" ".join)
def test_what_is_not_there_is_one_clear_error_with_exit_code_3(
    iceprod: CommandLine, hello: str, command: tuple[str, ...]
) -> None:
    assert NOT_THERE[command] in iceprod(*command, code=3).error()


# Files and logs.


def test_a_log_holds_what_the_payload_printed(iceprod: CommandLine, hello: str) -> None:
    assert "wrote 3 lines to greeting.txt" in iceprod("task", "logs", "hello.2.greet").stdout


def test_files_are_listed_verified_and_fetched_with_their_checksum(
    iceprod: CommandLine, hello: str, tmp_path: Path
) -> None:
    rows = iceprod("file", "list", "hello", "-o", "json").document
    kinds = {row["kind"] for row in rows}
    assert {"job_temp", "permanent"} <= kinds and all(row["sites"] == ["madison"] for row in rows)
    permanent = iceprod("file", "list", "hello.1", "--kind", "permanent", "-o", "json").document
    assert [row["id"] for row in permanent] == [f"{hello}.1/count.txt"]
    target = tmp_path / "count.txt"
    said = iceprod("file", "get", f"{hello}.1/count.txt", "--to", str(target))
    assert target.read_text() == "3 lines, 12 words\n" and permanent[0]["sha256"] in said.stdout
    assert hashlib.sha256(target.read_bytes()).hexdigest() == permanent[0]["sha256"]
    every = tmp_path / "every"
    jobs = len(iceprod("job", "list", "hello", "-o", "json").document)
    assert f"{jobs} files below {every}" in iceprod("file", "get", "hello", "--to", str(every)).stdout
    assert (every / "job-1" / "count.txt").read_text() == target.read_text()
    again = iceprod("file", "get", "hello.0-1", "--to", str(every))
    assert "2 files below" in again.stdout and "2 of them were there" in again.stdout
    assert "0 bad" in iceprod("file", "verify", "hello").stdout
    assert all(row["good"] for row in iceprod("file", "verify", "hello.0", "-o", "json").document)


def test_a_damaged_copy_fails_verification_and_is_never_fetched(
    iceprod: CommandLine, node: NodeProcess, hello: str, tmp_path: Path
) -> None:
    (row,) = iceprod("file", "list", "hello.2", "--kind", "permanent", "-o", "json").document
    blob = node.data / "blobs" / row["sha256"][:2] / row["sha256"][2:4] / row["sha256"]
    good = blob.read_bytes()
    blob.chmod(0o600)
    try:
        blob.write_bytes(b"8" + good[1:])
        table = iceprod("file", "verify", "hello.2", code=1).stdout
        assert f"{hello}.2/count.txt" in table and "1 bad" in table
        target = tmp_path / "count.txt"
        said = iceprod.process("file", "get", f"{hello}.2/count.txt", "--to", str(target))
        assert said.code in (1, 3, 5) and said.error() and not list(tmp_path.iterdir()), said
    finally:
        blob.write_bytes(good)


def test_a_place_that_cannot_be_written_is_one_clear_error(
    iceprod: CommandLine, hello: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    error = iceprod(
        "file", "get", f"{hello}.1/count.txt", "--to", str(tmp_path / "file" / "x"), code=2
    ).error()
    assert "cannot write" in error and "choose another place with --to" in error


# Sites and the cluster.


def test_a_drained_site_claims_nothing_until_it_is_resumed(iceprod: CommandLine, hello: str) -> None:
    iceprod("site", "drain", "madison", "--reason", "new floor")
    assert iceprod("site", "show", "madison", "--query", "state").document == "draining"
    iceprod("site", "resume", "madison")
    assert iceprod("site", "show", "madison", "--query", "state").document == "active"
    words = [row["what"] for row in iceprod("audit", "-o", "json").document]
    assert any("drain" in word and "new floor" in word for word in words), words[-5:]


def test_the_audit_tells_who_did_what(iceprod: CommandLine, hello: str) -> None:
    rows = iceprod("audit", "-o", "json").document
    assert any(row["actor"] == "person:admin" and "ubmit" in row["what"] for row in rows)
    later = iceprod("audit", "--after", str(rows[0]["index"]), "-o", "json").document
    assert [row["index"] for row in later][: len(rows) - 1] == [row["index"] for row in rows[1:]]
    assert len(iceprod("audit", "--limit", "1", "-o", "json").document) == 1


def test_cluster_status_check_and_members_agree(iceprod: CommandLine, node: NodeProcess, hello: str) -> None:
    status = iceprod("cluster", "status", "-o", "json").document
    assert (status["health"], status["leader"], status["digests_equal"]) == ("healthy", node.node_id, True)
    (member,) = iceprod("cluster", "members", "-o", "json").document
    assert (member["role"], member["address"], member["standing"]) == ("voter", node.address, "leader")
    assert member["certificate_days"] > 80 and member["disk_free_bytes"] > 0 and len(member["digest"]) == 64
    assert "0 violations at index" in iceprod("cluster", "check").stdout


def test_the_version_of_the_ledger_is_shown_and_cannot_be_raised_beyond_what_nodes_read(
    iceprod: CommandLine, node: NodeProcess
) -> None:
    assert f"ledger version {VERSION_MOST}" in iceprod("cluster", "status").stdout
    (member,) = iceprod("cluster", "members", "-o", "json").document
    assert (member["version_least"], member["version_most"]) == (VERSION_LEAST, VERSION_MOST)
    assert "Give --yes" in iceprod("cluster", "raise-version", code=2).stderr
    already = f"the cluster's ledger is at version {VERSION_MOST} already"
    assert already in iceprod("cluster", "raise-version", "--yes").stdout
    refused = iceprod("cluster", "raise-version", "--to", "9", "--yes", code=1).error()
    assert f"node {node.node_id} of site madison reads ledger version" in refused


def is_led_by(iceprod: CommandLine, node_id: str) -> bool:
    """Ask that a node leads, and whether it does: one that is slow to answer is refused, or soon deposed."""
    arguments = ("cluster", "transfer-leader", node_id)
    asked = iceprod.process(*arguments)
    assert asked.code in (0, 1, 5), asked
    return asked.code == 0 and iceprod("cluster", "status", "--query", "leader").document == node_id


def test_a_second_node_is_invited_promoted_led_by_and_removed(
    iceprod: CommandLine, node: NodeProcess, tmp_path: Path
) -> None:
    line = iceprod("cluster", "invite", "geneva", "--minutes", "5").stdout.strip()
    assert line.startswith("iceprod-node join ")
    newcomer = NodeProcess(tmp_path / "geneva", "geneva", slots=1)
    try:
        done = newcomer.command("join", line.split()[-1])
        assert done.returncode == 0, done.stderr
        newcomer.start()

        def member() -> dict[str, Any]:
            rows = iceprod("cluster", "members", "-o", "json").document
            return next(row for row in rows if row["site"] == "geneva")

        assert "cannot lead" in iceprod("cluster", "transfer-leader", "geneva-1", code=1).error()
        promoted = iceprod("cluster", "promote", "geneva-1", "--wait", "90").stdout
        assert "node geneva-1 is a voter" in promoted and "2 voters survive the loss of none" in promoted
        wait_for("it votes", lambda: member()["role"] == "voter")
        assert "is a voter already" in iceprod("cluster", "promote", "geneva-1").stdout
        wait_for("it leads", lambda: is_led_by(iceprod, "geneva-1"))
        there = CommandLine(iceprod.config, iceprod.context, "geneva")
        assert there("whoami", "--query", "node_id").document == "geneva-1"
        assert {row["site"] for row in iceprod("site", "list", "-o", "json").document} == {
            "geneva",
            "madison",
        }
        wait_for("the founder leads", lambda: is_led_by(iceprod, "madison-1"))
        assert "Give --yes" in iceprod("cluster", "remove", "geneva-1", code=2).stderr
        assert "1 voter survives" in iceprod("cluster", "remove", "geneva-1", "--yes").stdout
        wait_for("it is gone", lambda: len(iceprod("cluster", "members", "-o", "json").document) == 1)
    finally:
        newcomer.end()
    wait_for("the founder is well alone", lambda: iceprod.process("cluster", "status").code == 0)


# Contexts.


def test_contexts_are_imported_listed_used_and_removed(node: NodeProcess, hello: str, tmp_path: Path) -> None:
    command = CommandLine(tmp_path / "config")
    admin = str(node.data / "admin")
    assert "imported" in command("context", "import", admin, "work").stdout
    assert command("whoami", "--query", "name").document == "admin", "the first one is in use at once"
    command("context", "import", admin)
    rows = {row["name"]: row["current"] for row in command("context", "list", "-o", "json").document}
    assert rows == {"demo": False, "work": True}
    command("context", "use", "demo")
    assert command("context", "list", "--query", "[?current].name").document == ["demo"]
    command("context", "remove", "work")
    assert command("context", "list", "-o", "name").stdout == "demo\n"
    keys = list((tmp_path / "config").rglob("*.key.pem"))
    assert len(keys) == 1 and keys[0].stat().st_mode & 0o077 == 0
    assert command("dataset", "list", "-o", "name").stdout


def test_a_node_can_be_asked_by_id_site_and_address_and_an_unknown_one_is_named(
    iceprod: CommandLine, node: NodeProcess, hello: str
) -> None:
    for name in (node.node_id, node.site, node.address):
        command = CommandLine(iceprod.config, iceprod.context, name)
        assert command("whoami", "--query", "node_id").document == node.node_id
    error = CommandLine(iceprod.config, iceprod.context, "atlantis")("whoami", code=5).error()
    assert "knows no node 'atlantis'" in error and node.node_id in error


def test_stale_reads_answer_like_others_on_a_quiet_cluster(iceprod: CommandLine, hello: str) -> None:
    assert states(iceprod, "hello", "--stale") == states(iceprod, "hello")


# The program itself.

PYTHONS_OWN = (
    "asyncio, email.mime.text, http.client, sqlite3, unittest.mock, xml.dom.minidom"  # About 110 ms.
)


def test_help_is_quick(iceprod: CommandLine) -> None:
    """Within 200 ms of CPU; on a slow machine, within twice what some modules of Python itself need there."""

    def cpu_s(*words: str) -> float:
        """The best of three: a busy machine has cold caches."""
        spent = []
        for _ in range(3):
            before = os.times()
            subprocess.run([sys.executable, *words], capture_output=True, timeout=60, check=True)
            after = os.times()
            user = after.children_user - before.children_user
            spent.append(user + after.children_system - before.children_system)
        return min(spent)

    assert "Commands" in iceprod("--help").stdout
    assert cpu_s("-m", "iceprod_cli.main", "--help") < max(0.2, 2 * cpu_s("-c", f"import {PYTHONS_OWN}"))


def groups() -> list[tuple[str, ...]]:
    """Every command and subcommand."""
    import click
    from iceprod_cli.main import cli

    context = click.Context(cli)
    found: list[tuple[str, ...]] = []
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        found.append((name,))
        if isinstance(command, click.Group):
            found += [(name, sub) for sub in command.list_commands(context)]
    return found


@pytest.mark.parametrize("command", groups(), ids=" ".join)
def test_every_command_explains_itself(iceprod: CommandLine, command: tuple[str, ...]) -> None:
    text = iceprod(*command, "--help").stdout
    assert text.startswith("Usage: ") and "  " in text
    summary = text.split("\n\n")[1].strip()
    assert summary and summary[-1] in ".:)", f"{command}: {summary!r}"


def test_a_mistyped_command_is_a_usage_error_with_the_nearest_name(iceprod: CommandLine) -> None:
    said = iceprod("datset", "list", code=2)
    assert "Did you mean 'dataset'?" in said.stderr
    assert "No such command" in iceprod("dataset", "lst", code=2).stderr


def test_a_closed_pipe_ends_a_command_without_a_word(iceprod: CommandLine, hello: str) -> None:
    command = [sys.executable, "-m", "iceprod_cli.main", "--context", iceprod.context, "audit", "-o", "jsonl"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 141 and "Traceback" not in said and "Exception" not in said, said


def test_an_interrupt_ends_a_command_with_130(iceprod: CommandLine, nap: str) -> None:
    command = [
        sys.executable,
        "-m",
        "iceprod_cli.main",
        "--context",
        iceprod.context,
        "dataset",
        "watch",
        nap,
    ]
    process = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline(), "it has begun to watch"
    process.send_signal(2)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in said


def test_the_dataset_that_was_complete_still_is_and_the_ledger_is_sound(
    iceprod: CommandLine, hello: str
) -> None:
    said: Said = iceprod("cluster", "check")
    assert "0 violations" in said.stdout
    assert counts(iceprod, "hello") == {"complete": 6}
