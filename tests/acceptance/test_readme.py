"""The README's own commands, typed by a newcomer: a clean clone, an empty home, a bare search path."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.checkout import ROOT, Done, Newcomer

BAR_S = 300  # Within five minutes on a bare machine with two free cores, set-up included.
PATIENCE_S = 1_000  # What this test allows, for a machine that is busy with other things too.
TASKS = ("cosmic_rays", "neutrinos", "combine", "photons", "detector_a", "detector_b", "merge")
JOBS = 40

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(2_400)]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    one = Newcomer.with_clone(tmp_path_factory.mktemp("newcomer"))
    yield one
    one.end_all()


@pytest.fixture(scope="module")
def demo(newcomer: Newcomer) -> Done:
    """`make demo`, the first thing that a newcomer types, with nothing set up before."""
    assert not (newcomer.directory / ".venv").exists()
    return newcomer.run("make", "demo", timeout_s=PATIENCE_S)


def commands_of_readme() -> list[str]:
    """The lines of the README's code blocks."""
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    return [line.partition("#")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_make_demo_is_the_first_command_of_the_readme_and_make_test_the_second() -> None:
    assert commands_of_readme()[:2] == ["make demo", "make test"]


def test_make_demo_sets_everything_up_and_runs_the_production_to_its_end(
    demo: Done, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(f"\nmake demo from a clean clone: {demo.seconds:.0f} s with set-up (the bar is {BAR_S} s)")
    assert demo.code == 0, demo.said
    assert "every task completed once and every checksum verifies" in demo.stdout
    assert "Traceback" not in demo.stdout + demo.stderr, demo.said


def test_the_demo_runs_forty_jobs_of_seven_tasks_and_its_tables_add_up(demo: Done) -> None:
    lines = [line.split() for line in demo.stdout.splitlines()]
    for name in TASKS:
        assert [name, str(JOBS)] in lines, demo.said
    assert re.search(rf"{JOBS} jobs, {JOBS * len(TASKS)} tasks, 100\.0 % done", demo.stdout), demo.said
    rows = [line for line in lines if len(line) == 4 and line[0] in ("madison", "zeuthen", "uppsala")]
    by_site = {row[0]: (int(row[1]), int(row[2])) for row in rows if all(n.isdigit() for n in row[1:])}
    assert set(by_site) == {"madison", "zeuthen", "uppsala"}
    assert sum(complete for complete, _ in by_site.values()) == JOBS * len(TASKS)
    assert sum(held for _, held in by_site.values()) == 0


def test_every_job_crosses_sites_and_every_stored_copy_is_read_again(demo: Done) -> None:
    assert f"{JOBS} of {JOBS} jobs had a parent and a child at different sites" in demo.stdout
    read = re.search(
        r"checksums: (\d+) stored copies of (\d+) files \(.*\) read again, (\d+) bad", demo.stdout
    )
    assert read is not None, demo.said
    copies, files, bad = map(int, read.groups())
    assert files == JOBS * len(TASKS) and copies > files and bad == 0
    assert "files fetched from other sites" in demo.stdout


def test_the_demo_ends_with_a_healthy_cluster_of_three_voters(demo: Done) -> None:
    assert re.search(r"cluster demo: healthy, leader \S+, term \d+, epoch 1, digests equal", demo.stdout), (
        demo.said
    )
    members = [line.split() for line in demo.stdout.splitlines() if re.match(r"\S+-1\s.* voter ", line)]
    assert sorted(words[3] for words in members) == ["leader", "up", "up"]
    assert len({words[7] for words in members}) == 1, "the digests are printed equal"


def test_the_demo_leaves_no_process_behind(demo: Done, newcomer: Newcomer) -> None:
    assert newcomer.wait_until_quiet(timeout_s=60) == []


def test_the_demo_writes_nothing_outside_its_directory(demo: Done, newcomer: Newcomer) -> None:
    caches = {".cache"}  # pip's own.
    assert {path.name for path in newcomer.home.iterdir()} <= caches
    done = newcomer.run("git", "status", "--porcelain")
    assert done.code == 0 and done.stdout == "", done.said


def test_what_the_readme_says_to_type_afterwards_works_on_a_cluster_that_was_kept(
    demo: Done, newcomer: Newcomer
) -> None:
    kept = newcomer.run("make", "demo", "DEMO_OPTIONS=--keep --jobs 6", timeout_s=PATIENCE_S)
    try:
        assert kept.code == 0, kept.said
        typed = [line for line in commands_of_readme() if "--context demo-data" in line]
        assert len(typed) >= 3
        answers = {}
        for line in typed:
            answers[line] = newcomer.run(*shlex.split(line), timeout_s=180)
            assert answers[line].code == 0, f"{line}: {answers[line].said}"
        said = "".join(done.stdout for done in answers.values())
        assert "cluster demo: healthy" in said
        assert "dataset 1 (demo): complete" in said
        assert "1.5.6 (merge) was completed by " in said
        for line in [line for line in commands_of_readme() if "iceprod-node stop" in line]:
            stopped = newcomer.run(*shlex.split(line), timeout_s=180)
            assert stopped.code == 0, f"{line}: {stopped.said}"
        assert newcomer.wait_until_quiet(timeout_s=60) == []
    finally:
        newcomer.end_all()


def test_the_same_seed_gives_identical_files_and_another_seed_others(
    demo: Done, newcomer: Newcomer, tmp_path: Path
) -> None:
    def sums(seed: int, word: str) -> list[str]:
        path = tmp_path / word
        done = newcomer.run(
            ".venv/bin/iceprod",
            *("demo", "--jobs", "2", "--seed", str(seed), "--directory", str(newcomer.directory / word)),
            *("--checksums", str(path)),
            timeout_s=PATIENCE_S,
        )
        assert done.code == 0, done.said
        return path.read_text().splitlines()

    first, again, other = sums(7, "first"), sums(7, "again"), sums(8, "other")
    assert len(first) == 2 * len(TASKS)
    assert first == again
    assert {line.split()[1] for line in other} == {line.split()[1] for line in first}
    assert not set(first) & set(other), "another seed draws other random numbers in every task"


def test_the_demo_refuses_a_directory_that_it_did_not_make(demo: Done, newcomer: Newcomer) -> None:
    (newcomer.directory / "precious").mkdir()
    (newcomer.directory / "precious" / "thesis.tex").write_text("years of work")
    done = newcomer.run(".venv/bin/iceprod", "demo", "--directory", "precious", timeout_s=60)
    assert done.code == 2 and "is not empty and was not made by a demo" in done.stderr, done.said
    assert (newcomer.directory / "precious" / "thesis.tex").read_text() == "years of work"


def test_an_unfit_python_is_named_before_anything_is_made(newcomer: Newcomer, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text(
        '#!/bin/sh\ncase "$*" in\n  *version_info*) exit 1;;\n  --version) echo Python 3.9.2;;\n'
        f'  *) exec {sys.executable} "$@";;\nesac\n'
    )
    old.chmod(0o755)
    done = newcomer.run("make", "demo", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}", timeout_s=60)
    assert done.code != 0 and "needs Python 3.11 or newer; found: Python 3.9.2" in done.stdout + done.stderr
    assert not (tmp_path / "venv").exists()


def test_the_context_of_the_demo_is_for_its_owner_alone(demo: Done, newcomer: Newcomer) -> None:
    admin = newcomer.directory / "demo-data" / "madison" / "data" / "admin"
    assert (admin / "person.key.pem").stat().st_mode & 0o077 == 0
    assert [node["site"] for node in json.loads((admin / "context.json").read_text())["nodes"]] == [
        *("madison", "zeuthen", "uppsala")
    ]
