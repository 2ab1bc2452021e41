"""A person's calls: fail-over between nodes, the most telling error, and bounded patience."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iceprod_p2p.base.clock import ManualClock
from iceprod_p2p.base.errors import NotAllowed, NotFound, Unavailable, Unreachable
from iceprod_p2p.client import connection as module
from iceprod_p2p.client.connection import Connection
from iceprod_p2p.client.contexts import Context, NodeEntry
from iceprod_p2p.wire.channel import TlsMaterial

NODES = tuple(
    NodeEntry(f"{site}-1", site, f"127.0.0.1:{4410 + n}", f"{site}-1.{site}.demo")
    for n, site in enumerate(("madison", "zeuthen", "uppsala"))
)


class Scripted(Connection):
    """A connection whose nodes answer as the test says: a reply, or an error that is raised."""

    def __init__(self, answers: dict[str, Any], *, node: str = "", give_up_s: float = 0.0) -> None:
        context = Context("work", Path("/contexts/work"), "demo", "ada", NODES, TlsMaterial(b"", b"", b""))
        super().__init__(context, node=node, give_up_s=give_up_s)
        self.answers = answers
        self.asked: list[str] = []

    def _connected(self) -> Any:
        return self

    def Ask(self, request: object, *, timeout: float) -> Any:
        self.asked.append(self.node.site)
        answer = self.answers[self.node.site]
        if isinstance(answer, Exception):
            raise answer
        return answer


DEAD = Unreachable("cannot reach it")
NO_LEADER = Unavailable("no leader confirmed this read in time")


def test_the_first_node_that_answers_is_kept() -> None:
    connection = Scripted({"madison": DEAD, "zeuthen": "yes", "uppsala": "no"})
    assert [connection.call("Ask", None), connection.call("Ask", None)] == ["yes", "yes"]
    assert connection.asked == ["madison", "zeuthen", "zeuthen"]


@pytest.mark.parametrize("alive", ["madison", "zeuthen", "uppsala"])
def test_a_node_that_says_why_it_cannot_is_heard_before_dead_ones(alive: str) -> None:
    connection = Scripted(
        {site: NO_LEADER if site == alive else DEAD for site in ("madison", "zeuthen", "uppsala")}
    )
    with pytest.raises(Unavailable, match="no leader"):
        connection.call("Ask", None)
    assert len(connection.asked) == 3


def test_all_dead_is_unreachable() -> None:
    with pytest.raises(Unreachable):
        Scripted(dict.fromkeys(("madison", "zeuthen", "uppsala"), DEAD)).call("Ask", None)


@pytest.mark.parametrize("answer", [NotFound("no dataset"), NotAllowed("no role")])
def test_an_answer_that_another_node_would_repeat_is_not_asked_for_again(answer: Exception) -> None:
    connection = Scripted({"madison": answer, "zeuthen": "yes", "uppsala": "yes"})
    with pytest.raises(type(answer)):
        connection.call("Ask", None)
    assert connection.asked == ["madison"]


def test_a_chosen_node_is_the_only_one_that_is_asked() -> None:
    connection = Scripted({"madison": "yes", "zeuthen": DEAD, "uppsala": "yes"}, node="zeuthen")
    with pytest.raises(Unreachable):
        connection.call("Ask", None)
    assert connection.asked == ["zeuthen"]


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    own_time = SimpleNamespace(monotonic=clock.monotonic_s, sleep=clock.advance)
    monkeypatch.setattr(module, "time", own_time)
    connection = Scripted(dict.fromkeys(("madison", "zeuthen", "uppsala"), DEAD), give_up_s=0.5)
    with pytest.raises(Unreachable):
        connection.call("Ask", None)
    assert len(connection.asked) == 9, "a round, a pause, and so on until half a second is over"


def test_an_unknown_node_is_named_with_those_that_are_known() -> None:
    with pytest.raises(Unavailable, match="knows no node 'atlantis'") as caught:
        Scripted({}, node="atlantis")
    assert "zeuthen-1" in caught.value.remedy
