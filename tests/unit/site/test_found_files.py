"""Logical names by pattern: as slow and obvious rules say, in bounded time, page by page."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from iceprod_p2p.model.files import is_pattern, matches
from tests.security.cost import bounded

LETTERS = st.text("ab/.", max_size=12)


def obvious(pattern: str, name: str) -> bool:
    words = {"*": "[^/]*", "?": "[^/]"}
    return re.fullmatch("".join(words.get(c, re.escape(c)) for c in pattern), name) is not None


@given(st.text("ab/.*?", max_size=10), LETTERS)
def test_a_pattern_matches_as_the_regular_expression_of_its_meaning(pattern: str, name: str) -> None:
    assert matches(pattern, name) is obvious(pattern, name)


def test_hostile_patterns_take_no_time() -> None:
    with bounded(cpu_s=0.5):
        assert not matches("*a" * 127 + "b", "a" * 255)


def test_only_stars_and_question_marks_make_a_pattern() -> None:
    assert is_pattern("a/*.txt") and is_pattern("a?") and not is_pattern("a[b].txt")
