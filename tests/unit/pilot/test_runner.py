"""A module's process: started clean, watched, limited, and gone with everything it started."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from iceprod_pilot import processes
from iceprod_pilot.attempt import Cancel, Cancelled, Ending, TaskFailure
from iceprod_pilot.guard import Guard
from iceprod_pilot.runner import Command, Limits, Runner
from iceprod_pilot.surroundings import CHILD
from iceprod_pilot.workspace import TaskDirectory, Workspace

from iceprod_p2p.base.clock import SystemClock
from iceprod_p2p.model.states import FailReason
from iceprod_p2p.modules.protocol import ModuleRequest, encode_request

ENVIRON = {"PATH": "/usr/bin:/bin"}
CLOCK = SystemClock()


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guard]:
    guard = Guard(tmp_path / "guarded")
    yield guard
    guard.close()


@pytest.fixture
def directory(tmp_path: Path) -> TaskDirectory:
    return Workspace(tmp_path, "p-unit").open_task("1.0.0-0")


def runner(
    directory: TaskDirectory,
    guard: Guard,
    *,
    seconds: float = 120,
    memory_mib: int = 0,
    disk_mib: int = 0,
    cancel: Cancel | None = None,
) -> Runner:
    limits = Limits(CLOCK.monotonic_s() + seconds, memory_mib, disk_mib, int(seconds))
    return Runner(directory, limits, cancel=cancel or Cancel(), guard=guard, clock=CLOCK)


def shell(text: str, **environ: str) -> Command:
    return Command(["/bin/sh", "-c", text], {**ENVIRON, **environ})


def python(text: str) -> Command:
    return Command([sys.executable, "-c", text], ENVIRON)


def gone(pid: int) -> bool:
    process = processes.read_process(pid)
    return process is None or process.state in "ZX"


def wait_gone(pid: int) -> None:
    end_s = time.monotonic() + 60
    while not gone(pid):
        assert time.monotonic() < end_s, f"process {pid} is still there"
        time.sleep(0.02)


def test_exit_codes_are_those_of_a_shell(directory: TaskDirectory, guard: Guard) -> None:
    run = runner(directory, guard)
    assert run.run(Command(["/bin/true"], ENVIRON)).exit_code == 0
    assert run.run(shell("exit 3")).exit_code == 3
    assert run.run(shell("kill -SEGV $$")).exit_code == 139


def test_output_goes_to_the_log_and_the_directory_is_the_tasks(
    directory: TaskDirectory, guard: Guard
) -> None:
    runner(directory, guard).run(shell("pwd; echo trouble >&2"))
    assert directory.log.read_text() == f"{directory.work}\ntrouble\n"


def test_a_child_has_its_environment_and_no_descriptor_of_the_pilot(
    directory: TaskDirectory, guard: Guard, tmp_path: Path
) -> None:
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        runner(directory, guard).run(shell("env | sort; ls -l /proc/self/fd"))
    log = directory.log.read_text()
    assert "secret" not in log and "socket" not in log
    names = {line.partition("=")[0] for line in log.splitlines() if "=" in line}
    assert names <= {"PATH", "PWD", "_", "SHLVL", "OLDPWD"}


def test_a_class_answers_by_pipe_and_prints_to_the_log(directory: TaskDirectory, guard: Guard) -> None:
    (directory.work / "mod.py").write_text(
        "from iceprod_p2p.modules import IPModule\n"
        "class Count(IPModule):\n"
        "    def Execute(self, stats):\n"
        "        print('hello from the module')\n"
        "        stats['events'] = 42\n"
        "        return 0\n"
    )
    request = encode_request(ModuleRequest(work_dir=str(directory.work), class_name="Count", src="mod.py"))
    ended = runner(directory, guard).run(Command((sys.executable, *CHILD), ENVIRON, request))
    assert ended.exit_code == 0 and ended.result is not None
    assert dict(ended.result.statistics) == {"events": 42.0}
    assert "hello from the module" in directory.log.read_text()


def test_a_large_request_does_not_block(directory: TaskDirectory, guard: Guard) -> None:
    (directory.work / "mod.py").write_text("def size(text):\n    return {'size': len(text)}\n")
    request = encode_request(
        ModuleRequest(
            work_dir=str(directory.work),
            class_name="size",
            src="mod.py",
            parameters={"text": "x" * 3_000_000},
        )
    )
    ended = runner(directory, guard).run(Command((sys.executable, *CHILD), ENVIRON, request))
    assert ended.result is not None and ended.result.statistics == {"size": 3_000_000.0}


def test_wall_time_is_a_limit(directory: TaskDirectory, guard: Guard) -> None:
    began_s = time.monotonic()
    with pytest.raises(TaskFailure, match="longer than") as failure:
        runner(directory, guard, seconds=0.4).run(shell("sleep 240"))
    assert failure.value.reason is FailReason.WALLTIME
    assert time.monotonic() - began_s < 120


def test_memory_of_the_whole_tree_is_a_limit(directory: TaskDirectory, guard: Guard) -> None:
    grow = f"{sys.executable} -c 'import time; x = bytearray(150_000_000); time.sleep(100)' & wait"
    run = runner(directory, guard, memory_mib=100)
    with pytest.raises(TaskFailure, match="MiB of memory") as failure:
        run.run(shell(grow))
    assert failure.value.reason is FailReason.MEMORY
    assert run.meter.memory_peak_mib > 100


def test_disk_is_a_limit(directory: TaskDirectory, guard: Guard) -> None:
    run = runner(directory, guard, disk_mib=5)
    with pytest.raises(TaskFailure, match="MiB of disk") as failure:
        run.run(shell("head -c 20000000 /dev/urandom > big; exit 0"))
    assert failure.value.reason is FailReason.DISK
    assert run.meter.disk_peak_mib > 5  # It may have been seen while it grew.


def test_use_is_measured(directory: TaskDirectory, guard: Guard) -> None:
    run = runner(directory, guard)
    work = "import os, time; x = bytearray(120_000_000); s = sum(range(5_000_000))"
    wait = "while not os.path.exists('seen'): time.sleep(0.01)"
    ended = threading.Event()

    def let_it_end_when_it_was_looked_at() -> None:
        while run.meter.memory_peak_mib <= 100 and not ended.wait(0.01):
            pass
        (directory.work / "seen").touch()

    watcher = threading.Thread(target=let_it_end_when_it_was_looked_at)
    watcher.start()
    try:
        run.run(python(f"{work}\n{wait}"))
    finally:
        ended.set()
        watcher.join()
    assert 100 < run.meter.memory_peak_mib < 400
    assert 30 < run.meter.cpu_ms < 60_000


def test_what_a_module_leaves_running_is_ended_with_it(directory: TaskDirectory, guard: Guard) -> None:
    runner(directory, guard).run(shell("sleep 60 & echo $! > pid; exit 0"))
    wait_gone(int((directory.work / "pid").read_text()))


def test_a_stop_ends_the_whole_tree_at_once(directory: TaskDirectory, guard: Guard) -> None:
    cancel, pid, stopped = Cancel(), directory.work / "pid", threading.Event()

    def stop_when_all_have_started() -> None:
        while not (pid.exists() and pid.read_text()) and not stopped.wait(0.01):
            pass
        cancel.throw(Ending.STOP)

    stopper = threading.Thread(target=stop_when_all_have_started)
    stopper.start()
    began_s = time.monotonic()
    # The grandchild leaves session and group: it is found by descent.
    try:
        with pytest.raises(Cancelled) as cancelled:
            runner(directory, guard, cancel=cancel).run(
                shell("setsid sh -c 'echo $$ > pid; exec sleep 240' & trap '' TERM; sleep 240")
            )
    finally:
        stopped.set()
        stopper.join()
    assert cancelled.value.ending is Ending.STOP
    assert time.monotonic() - began_s < 120
    wait_gone(int(pid.read_text()))


def test_a_program_that_does_not_exist_is_a_failure_of_the_task(
    directory: TaskDirectory, guard: Guard
) -> None:
    with pytest.raises(TaskFailure, match="no program") as failure:
        runner(directory, guard).run(Command(["/no/such/program"], ENVIRON))
    assert failure.value.task_exit_code == 127


def test_a_child_that_speaks_no_protocol_fails_its_task(directory: TaskDirectory, guard: Guard) -> None:
    talk = [sys.executable, "-c", "import sys, os; os.write(int(sys.argv[-1]), b'nonsense' * 100)"]
    with pytest.raises(TaskFailure, match="broke off"):
        runner(directory, guard).run(Command(talk, ENVIRON, b""))


def test_descriptors_do_not_leak(directory: TaskDirectory, guard: Guard) -> None:
    run = runner(directory, guard)
    run.run(Command(["/bin/true"], ENVIRON))
    gc.collect()  # What earlier tests left open may go in between, and is none of ours.
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        run.run(Command(["/bin/true"], ENVIRON))
        run.run(Command([sys.executable, "-c", ""], ENVIRON, b""))
    assert len(os.listdir("/proc/self/fd")) <= before
