"""A module's calls to its site, from its own process over the private pipes to whoever answers."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from iceprod_pilot.attempt import Attempt
from iceprod_pilot.guard import Guard
from iceprod_pilot.runner import Command, Ended, Limits, Runner
from iceprod_pilot.site_calls import CALLS_BURST, SiteCalls, added
from iceprod_pilot.workspace import TaskDirectory, Workspace

from iceprod_p2p.base.clock import ManualClock, SystemClock
from iceprod_p2p.base.errors import NotFound, Refused
from iceprod_p2p.modules.protocol import ModuleRequest, encode_request
from iceprod_p2p.wire.pb import common_pb2, pilot_pb2

CLOCK = SystemClock()
CHILD = (sys.executable, "-P", "-m", "iceprod_p2p.modules.child")
ENVIRON = {"PATH": "/usr/bin:/bin"}
MODULE = """
from iceprod_p2p.modules import IPModule
from iceprod_p2p.modules.context import SiteRefused

class Calls(IPModule):
    def Execute(self, stats):
        context = self.context
        {body}
        return 0
"""


class Site:
    """Answers `double` and `big`; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[pilot_pb2.SiteCall] = []

    def call_site(self, request: pilot_pb2.SiteCall) -> pilot_pb2.SiteAnswer:
        self.asked.append(request)
        argument = msgpack.unpackb(request.argument)
        if request.method == "double":
            return pilot_pb2.SiteAnswer(value=msgpack.packb(argument * 2))
        if request.method == "big":
            return pilot_pb2.SiteAnswer(value=msgpack.packb("x" * 100_000))
        if request.method == "gone":
            raise Refused("stale_attempt", "this attempt is no longer the pilot's")
        raise NotFound(f"site madison has no method {request.method!r}", remedy="it has: double")


@pytest.fixture
def directory(tmp_path: Path) -> TaskDirectory:
    return Workspace(tmp_path, "p-unit").open_task("1.0.0-0")


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guard]:
    guard = Guard(tmp_path / "guarded")
    yield guard
    guard.close()


class Play:
    """Runs a module whose Execute has the given lines."""

    def __init__(self, directory: TaskDirectory, guard: Guard) -> None:
        self.directory, self.guard, self.site = directory, guard, Site()
        order = pilot_pb2.Order(ref=common_pb2.TaskRef(dataset=1, job=2), passkey=b"KEY")
        self.attempt = Attempt(order)
        # Time stands still for the count of calls: however slowly they come, none is made good by waiting.
        self.calls = SiteCalls(self.site, self.attempt, directory, ManualClock())  # type: ignore[arg-type]

    def run(self, *lines: str) -> Ended:
        (self.directory.work / "calls.py").write_text(MODULE.format(body="\n        ".join(lines)))
        request = ModuleRequest(work_dir=str(self.directory.work), class_name="Calls", src="calls.py")
        limits = Limits(CLOCK.monotonic_s() + 200, 0, 0)
        runner = Runner(
            self.directory,
            limits,
            cancel=self.attempt.cancel,
            guard=self.guard,
            clock=CLOCK,
            hears=self.calls,
        )
        ended = runner.run(Command(CHILD, ENVIRON, encode_request(request)))
        assert ended.result is not None
        return ended

    def statistics(self, *lines: str) -> dict[str, Any]:
        result = self.run(*lines).result
        assert result is not None and result.ok, self.directory.log.read_text()
        return dict(result.statistics)


@pytest.fixture
def play(directory: TaskDirectory, guard: Guard) -> Iterator[Play]:
    play = Play(directory, guard)
    yield play
    play.calls.close()


def test_a_call_carries_the_passkey_and_brings_the_answer(play: Play) -> None:
    found = play.statistics(
        'stats["a"] = context.call_site("double", 21)',
        'stats["n"] = len(context.call_site("double", [1, "x"]))',
    )
    assert found == {"a": 42.0, "n": 4.0}
    assert [(call.method, call.passkey, call.ref.job) for call in play.site.asked] == [
        ("double", b"KEY", 2)
    ] * 2


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ('context.call_site("unknown")', "has no method 'unknown' (it has: double)"),
        ('context.call_site("gone")', "no longer the pilot's"),
        ('context.call_site("big")', "has more than 49152 bytes"),
        ('context.call_site("double", "x" * 60_000)', "more than the 49152 allowed"),
        ('context.record_file("../../secret")', "not a file name inside the task's directory"),
        ('context.record_file("a", kind="odd")', "one of the kinds"),
    ],
)
def test_a_refusal_says_why_and_the_module_decides(play: Play, call: str, said: str) -> None:
    result = play.run(call).result
    assert result is not None and not result.ok and result.error is not None
    assert said in result.error.message
    found = play.statistics(
        *("from iceprod_p2p.base.errors import IceProdError", "try:", f"    {call}"),
        *("except IceProdError:", '    stats["refused"] = 1'),
    )
    assert found == {"refused": 1.0}


def test_more_calls_than_allowed_are_refused_not_carried(play: Play) -> None:
    found = play.statistics(
        *("told = 0", "for n in range(200):", "    try:", '        context.call_site("double", n)'),
        *("    except SiteRefused as refusal:", '        assert "too many calls" in str(refusal)'),
        *("        told += 1", 'stats["refused"] = told'),
    )
    assert found["refused"] + len(play.site.asked) == 200
    assert len(play.site.asked) == CALLS_BURST


def test_files_that_a_module_records_join_the_outputs_of_the_steering_file(play: Play) -> None:
    play.statistics(
        *('context.record_file("plot.png")', 'context.record_file("plot.png")'),
        'context.record_file("run/part.npz", "parts/7.npz", "dataset_temp")',
    )
    recorded = [(move.remote, move.local, move.kind) for move in play.calls.recorded]
    assert recorded == [
        ("plot.png", "plot.png", "permanent"),
        ("parts/7.npz", "run/part.npz", "dataset_temp"),
    ]
    assert added(play.calls.recorded[:1], play.calls.recorded) == play.calls.recorded


def test_progress_reaches_the_attempt(play: Play) -> None:
    play.statistics('context.progress(0.5, "half way")', 'context.call_site("double", 1)')
    assert play.attempt.progress == (0.5, "half way")


def test_a_module_that_waits_for_an_answer_is_still_held_to_its_limits(play: Play, guard: Guard) -> None:
    """The thread that carries the call is not the one that watches."""
    release = threading.Event()
    play.site.call_site = lambda request: release.wait(30)  # type: ignore[method-assign,assignment,return-value]
    from iceprod_pilot.attempt import TaskFailure

    limits = Limits(CLOCK.monotonic_s() + 2, 0, 0, 2)
    runner = Runner(
        play.directory, limits, cancel=play.attempt.cancel, guard=guard, clock=CLOCK, hears=play.calls
    )
    (play.directory.work / "calls.py").write_text(MODULE.format(body='context.call_site("double", 1)'))
    request = ModuleRequest(work_dir=str(play.directory.work), class_name="Calls", src="calls.py")
    try:
        with pytest.raises(TaskFailure, match="longer than the 2 s"):
            runner.run(Command(CHILD, ENVIRON, encode_request(request)))
    finally:
        release.set()
