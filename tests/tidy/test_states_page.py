"""The page of states is the one that the transition tables draw."""

from __future__ import annotations

from tests.tidy.draw_states import PAGE, draw


def test_the_page_of_states_is_drawn_from_the_tables() -> None:
    assert PAGE.read_text(encoding="utf-8") == draw(), "run: python -m tests.tidy.draw_states"
