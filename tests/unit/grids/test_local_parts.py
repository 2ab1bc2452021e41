"""The local grid's decisions: who starts, which limit is broken, what the disk says about a grid job."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iceprod_p2p.grids import local_processes as processes
from iceprod_p2p.grids.local_limits import broken_limit, disk_mib
from iceprod_p2p.grids.local_slots import Slots, next_to_start
from iceprod_p2p.grids.local_spawn import niceness
from iceprod_p2p.grids.local_spool import Alive, End, JobFile, Spool, SpoolOptions, Verdict, Waiting
from iceprod_p2p.grids.local_watch import Supervisor

OPTIONS = SpoolOptions(
    slots=4, memory_mib=0, gpus=("0", "1"), nice=0, grace_s=1, interval_s=1, linger_s=1, keep_s=60
)


def job(
    name: str = "iceprod.s.j",
    *,
    sequence: int = 0,
    priority: int = 0,
    cores: int = 1,
    memory_mib: int = 0,
    gpus: int = 0,
    walltime_s: int = 0,
    disk: int = 0,
) -> JobFile:
    return JobFile(
        name, sequence, priority, ("/bin/true",), "/tmp", {}, walltime_s, cores, memory_mib, disk, gpus
    )


JOBS = st.lists(
    st.builds(
        job,
        sequence=st.integers(0, 50),
        priority=st.integers(-2, 2),
        cores=st.integers(1, 4),
        memory_mib=st.integers(0, 500),
        gpus=st.integers(0, 2),
    ),
    max_size=12,
).map(lambda jobs: {f"j{number}": entry for number, entry in enumerate(jobs)})


@given(JOBS, st.sampled_from([0, 600]))
def test_what_starts_together_never_takes_more_than_there_is(
    jobs: dict[str, JobFile], memory_mib: int
) -> None:
    chosen = next_to_start(Slots(4, memory_mib or None, ("0", "1")), jobs)
    assert sum(jobs[name].cores for name, _ in chosen) <= 4
    given_out = [gpu for _, gpus in chosen for gpu in gpus]
    assert len(given_out) == len(set(given_out)) == sum(jobs[name].gpus for name, _ in chosen)
    assert not memory_mib or sum(jobs[name].memory_mib for name, _ in chosen) <= memory_mib


@given(JOBS)
def test_an_empty_machine_always_starts_something(jobs: dict[str, JobFile]) -> None:
    assert bool(next_to_start(Slots.free(OPTIONS, []), jobs)) == bool(jobs)


def test_priority_goes_first_then_submission_and_nobody_passes_a_large_one() -> None:
    jobs = {
        "late": job(sequence=3),
        "large": job(sequence=2, cores=4),
        "early": job(sequence=1),
        "urgent": job(sequence=9, priority=50),
    }
    assert [name for name, _ in next_to_start(Slots(4, None, ()), jobs)] == ["urgent", "early"]


def test_gpus_of_running_grid_jobs_are_not_given_again() -> None:
    slots = Slots.free(OPTIONS, [(job(gpus=1), ("0",))])
    assert (slots.cores, slots.gpus) == (3, ("1",))
    assert next_to_start(slots, {"a": job(gpus=1), "b": job(gpus=1, sequence=1)}) == [("a", ("1",))]


@pytest.mark.parametrize(
    ("elapsed_s", "memory_mib", "disk", "kind"),
    [(10, 100, 50, None), (10.5, 100, 50, "walltime"), (1, 101, 0, "memory"), (1, 1, 51, "disk")],
)
def test_a_limit_is_broken_only_above_it(
    elapsed_s: float, memory_mib: int, disk: int, kind: str | None
) -> None:
    verdict = broken_limit(
        job(walltime_s=10, memory_mib=100, disk=50), elapsed_s=elapsed_s, memory_mib=memory_mib, disk_mib=disk
    )
    assert (verdict.kind if verdict else None) == kind
    assert broken_limit(job(), elapsed_s=1e9, memory_mib=10**6, disk_mib=10**6) is None


def test_low_priority_is_nicer_and_high_priority_is_not_rude() -> None:
    assert [niceness(priority, 2) for priority in (100, 0, -10, -100)] == [2, 2, 4, 19]


def test_a_directory_is_measured_by_what_it_takes_on_disk(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "file").write_bytes(os.urandom(3 << 20))
    (tmp_path / "ring").symlink_to(tmp_path)
    assert 3 <= disk_mib(str(tmp_path)) <= 4
    assert disk_mib(str(tmp_path / "nothing")) == 0


def test_a_process_name_with_brackets_and_spaces_does_not_confuse() -> None:
    line = "42 (a) b (c) S 1 42 7 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 12345 1000 5 0 0"
    process = processes.parse_stat(line)
    assert (process.pid, process.parent, process.session, process.start_ticks) == (42, 1, 7, 12345)
    assert (process.state, process.cpu_ticks, process.rss_bytes) == ("S", 100, 5 * processes.PAGE_BYTES)
    with pytest.raises(ValueError, match="no line"):
        processes.parse_stat("nonsense")


def test_a_pid_with_another_start_time_is_another_process() -> None:
    me = processes.read_process(os.getpid())
    assert me is not None
    assert processes.is_alive(me.pid, me.start_ticks)
    assert not processes.is_alive(me.pid, me.start_ticks - 1)


def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool")
    made.create()
    return made


def running_file(*, pid: int, start_ticks: int, boot: str | None = None) -> str:
    fields = ["0"] * 50
    fields[0] = "S"
    fields[19] = str(start_ticks)
    return f"{pid} (sh) {' '.join(fields)}\n{processes.boot_id() if boot is None else boot}\n"


def test_a_tag_enters_the_spool_once(tmp_path: Path) -> None:
    there = spool(tmp_path)
    assert there.add(job()) and not there.add(job(priority=9))
    found = there.request("iceprod.s.j")
    assert found is not None and found.priority == 0
    assert isinstance(there.look("iceprod.s.j"), Waiting)
    assert there.look("iceprod.s.other") is None
    assert there.ids() == ["iceprod.s.j"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"exit": "3\n"}, End(3, None)),
        ({"exit": ""}, End(None, None, "its first process was killed and left no exit code")),
        ({"exit": "1"}, End(None, None, "its first process was killed and left no exit code")),
        ({}, End(None, None, "its first process was killed and left no exit code")),
        (
            {"verdict.json": '{"kind": "memory", "reason": "r"}', "exit": "143\n"},
            End(143, Verdict("memory", "r")),
        ),
        ({"end.json": '{"exit_code": 5, "verdict": null, "cpu_s": 1.5}'}, End(5, None, cpu_s=1.5)),
    ],
)
def test_the_end_follows_from_the_disk_when_the_first_process_is_gone(
    tmp_path: Path, files: dict[str, str], expected: End
) -> None:
    there = spool(tmp_path)
    there.add(job())
    directory = there.directory("iceprod.s.j")
    # This test's own pid with another start time: a pid that was given to somebody else.
    (directory / "running").write_text(running_file(pid=os.getpid(), start_ticks=1))
    for name, text in files.items():
        (directory / name).write_text(text)
    assert there.look("iceprod.s.j") == expected


def test_a_restart_of_the_machine_ends_what_ran(tmp_path: Path) -> None:
    there = spool(tmp_path)
    there.add(job())
    me = processes.read_process(os.getpid())
    assert me is not None
    running = there.directory("iceprod.s.j") / "running"
    running.write_text(running_file(pid=me.pid, start_ticks=me.start_ticks))
    assert isinstance(there.look("iceprod.s.j"), Alive)
    running.write_text(running_file(pid=me.pid, start_ticks=me.start_ticks, boot="another-boot"))
    assert there.look("iceprod.s.j") == End(None, None, "the machine was restarted")


def test_a_shell_that_is_just_writing_counts_as_running(tmp_path: Path) -> None:
    there = spool(tmp_path)
    there.add(job())
    (there.directory("iceprod.s.j") / "running").touch()
    assert there.look("iceprod.s.j") == Alive(None)


def test_a_request_of_another_version_is_not_read(tmp_path: Path) -> None:
    there = spool(tmp_path)
    there.add(job())
    path = there.directory("iceprod.s.j") / "request.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    assert there.request("iceprod.s.j") is None


def ended(tmp_path: Path) -> Spool:
    there = spool(tmp_path)
    there.add(job())
    (there.directory("iceprod.s.j") / "running").write_text(running_file(pid=os.getpid(), start_ticks=1))
    (there.directory("iceprod.s.j") / "exit").write_text("0\n")
    return there


def test_what_is_dropped_is_gone_whole_though_somebody_writes_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = ended(tmp_path)
    supervisor = Supervisor(there, OPTIONS)
    write = there.write_end
    tried = []

    def late(grid_job_id: str, end: End) -> None:  # The supervisor notes an end after the drop.
        there.drop(grid_job_id)
        tried.append(grid_job_id)
        write(grid_job_id, end)

    monkeypatch.setattr(there, "write_end", late)
    supervisor.turn()
    supervisor.turn()
    assert tried == ["iceprod.s.j"] and supervisor.idle
    assert there.look("iceprod.s.j") is None and there.ids() == [] and list(there.jobs.iterdir()) == []


def test_what_a_dying_process_left_of_a_dropped_grid_job_is_cleared(tmp_path: Path) -> None:
    there = spool(tmp_path)
    (there.jobs / ".dropped-17-iceprod.s.j").mkdir()
    (there.jobs / ".dropped-17-iceprod.s.j" / "exit").touch()
    assert there.ids() == []
    Supervisor(there, OPTIONS).turn()
    assert list(there.jobs.iterdir()) == []


def test_leftovers_are_killed_until_none_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a leftover started while it was looked for is seen at the second look."""
    supervisor = Supervisor(ended(tmp_path), OPTIONS)
    me = processes.read_process(os.getpid())
    assert me is not None
    looks = [[replace(me, pid=1001)], [replace(me, pid=1001), replace(me, pid=1002)]]
    sent: list[int] = []

    def members(leaders: dict[int, str], marks: Collection[str]) -> dict[str, list[processes.Process]]:
        return dict.fromkeys(marks, looks.pop(0) if len(looks) > 1 else looks[0])

    def send(found: Collection[processes.Process], number: signal.Signals) -> None:
        assert number is signal.SIGKILL
        sent.extend(process.pid for process in found)

    monkeypatch.setattr(supervisor.kinship, "members", members)
    monkeypatch.setattr(processes, "send", send)
    supervisor.turn()
    assert sent == [1001, 1002] and supervisor.idle
