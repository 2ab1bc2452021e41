"""How soon a pilot calls again whose call was not answered."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from iceprod_pilot.exchange import RETRY_MAX_S, Exchanger
from iceprod_pilot.report import Journal
from iceprod_pilot.slots import Slots

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.base.errors import Unavailable
from iceprod_p2p.wire.pb import pilot_pb2


class Line:
    """Answers with `poll_ms`, or not at all."""

    partner = None

    def __init__(self) -> None:
        self.poll_ms, self.silent = 0, False

    def exchange(self, request: pilot_pb2.ExchangeRequest) -> pilot_pb2.ExchangeReply:
        if self.silent:
            raise Unavailable("no answer")
        return pilot_pb2.ExchangeReply(poll_ms=self.poll_ms)


@pytest.mark.parametrize(("poll_s", "longest_s"), [(0.5, RETRY_MAX_S), (20.0, 5.0)])
def test_a_pilot_of_a_large_crowd_comes_back_more_slowly(
    tmp_path: Path, poll_s: float, longest_s: float
) -> None:
    clock, line = ManualClock(), Line()
    nothing: Any = SimpleNamespace(free_mib=lambda: 100, left_s=lambda: None)
    config: Any = SimpleNamespace(resource_class="cpu", attributes=(), grace_s=1.0)
    slots = Slots(slots=1, cpus=1, gpus=(), memory_mib=64, disk_mib=64, run=lambda attempt: None, clock=clock)
    link: Any = line
    exchanger = Exchanger(
        config,
        link=link,
        journal=Journal(tmp_path),
        slots=slots,
        staging=nothing,
        workspace=nothing,
        walltime=nothing,
        clock=clock,
        wake=lambda: None,
    )
    line.poll_ms = int(1_000 * poll_s)
    exchanger.exchange()
    line.silent = True
    pauses = []
    for _ in range(7):
        clock.advance(30.0)
        exchanger.exchange()
        pauses.append(exchanger.due_s() - clock.monotonic_s())
    assert pauses == pytest.approx([min(0.2 * 2**n, longest_s) for n in range(7)])
    line.silent = False
    exchanger.exchange()
    assert not exchanger.failing
