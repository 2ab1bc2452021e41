"""Which node a pilot calls: its own site's, others when that one is silent, and back again."""

from __future__ import annotations

from pathlib import Path

import pytest
from iceprod_pilot.config import Node
from iceprod_pilot.nodes import NodeBook, Route

from iceprod_p2p.base.clock import ManualClock


def node(site: str, number: int = 1) -> Node:
    return Node(f"{site}-{number}", site, f"127.0.0.1:{4_000 + number}", f"{site}-{number}.{site}.grid")


HOME, SECOND, THIRD = node("home"), node("second"), node("third")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def book(tmp_path: Path) -> NodeBook:
    return NodeBook(tmp_path / "nodes.json", [SECOND, HOME, THIRD])


@pytest.fixture
def route(book: NodeBook, clock: ManualClock) -> Route:
    return Route(book, home_site="home", pilot="p-1", silence_s=4.0, clock=clock)


def test_the_own_site_comes_first(route: Route) -> None:
    assert route.choose() == HOME


def test_a_short_silence_changes_nothing(route: Route, clock: ManualClock) -> None:
    route.failed(HOME)
    clock.advance(3.9)
    assert route.choose() == HOME
    route.answered(HOME)
    clock.advance(10)
    assert route.choose() == HOME


def test_others_are_called_when_the_own_site_is_silent(route: Route, clock: ManualClock) -> None:
    route.failed(HOME)
    clock.advance(4.1)
    first = route.choose()
    assert first in (SECOND, THIRD)
    route.failed(first)
    assert route.choose() in {SECOND, THIRD} - {first}


def test_with_all_silent_each_is_tried_in_its_turn(route: Route, clock: ManualClock) -> None:
    for one in (HOME, SECOND, THIRD):
        route.failed(one)
    clock.advance(5)
    tried = []
    for _ in range(6):
        tried.append(route.choose())
        route.failed(tried[-1])
        clock.advance(0.1)
    assert set(tried[:3]) == set(tried[3:]) == {HOME, SECOND, THIRD}


def test_the_own_site_is_looked_at_with_growing_pauses_and_gets_its_place_back(
    route: Route, clock: ManualClock
) -> None:
    route.failed(HOME)
    clock.advance(4.1)
    assert route.home_to_probe() == HOME
    route.probed(HOME, ready=False)
    assert route.home_to_probe() is None
    clock.advance(4.1)
    assert route.home_to_probe() == HOME
    route.probed(HOME, ready=True)
    assert route.choose() == HOME
    route.failed(HOME)
    assert route.choose() != HOME, "on trial, one failure is enough"
    clock.advance(60)
    route.probed(HOME, ready=True)
    route.answered(HOME)
    clock.advance(3)
    assert route.choose() == HOME and route.home_to_probe() is None


def test_pilots_of_a_lost_site_spread_over_the_others(book: NodeBook, clock: ManualClock) -> None:
    chosen = set()
    for number in range(20):
        route = Route(book, home_site="home", pilot=f"p-{number}", silence_s=4.0, clock=clock)
        route.failed(HOME)
        clock.advance(5)
        chosen.add(route.choose().node_id)
    assert chosen == {"second-1", "third-1"}


def test_the_book_is_kept_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "nodes.json"
    NodeBook(path, [HOME]).learn([HOME, THIRD])
    assert NodeBook(path, [HOME, SECOND]).nodes == (HOME, THIRD, SECOND)


def test_a_damaged_or_empty_list_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "nodes.json"
    path.write_text("{not json")
    book = NodeBook(path, [HOME])
    book.learn([])
    book.learn([Node("", "x", "", "")])
    assert book.nodes == (HOME,)
