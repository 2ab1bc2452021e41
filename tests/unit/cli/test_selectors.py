"""Selectors: what people may type for datasets, jobs and tasks."""

from __future__ import annotations

import pytest
from iceprod_cli.selectors import RANGES_MAX, Selector, parse_selector

from iceprod_p2p.base.errors import BadInput


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("12", Selector("12")),
        ("demo", Selector("demo")),
        ("12.5", Selector("12", ((5, 5),))),
        ("12.1-5", Selector("12", ((1, 5),))),
        ("12.1,7,9-11", Selector("12", ((1, 1), (7, 7), (9, 11)))),
        ("12.*", Selector("12")),
        ("12.*.merge", Selector("12", (), "merge")),
        ("12.5.merge", Selector("12", ((5, 5),), "merge")),
        ("12.5.*", Selector("12", ((5, 5),))),
        ("12.5.detector.a", Selector("12", ((5, 5),), "detector.a")),
    ],
)
def test_selectors_are_read(text: str, selector: Selector) -> None:
    assert parse_selector(text) == selector


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        ".5",
        "12.",
        "12.x",
        "12.5-1",
        "12.-1",
        "12.1,,2",
        "12.1-2-3",
        "1 2",
        "-1",
        "12.9999999999",
        "x" * 64,
    ],
)
def test_what_is_no_selector_is_one_error_with_a_remedy(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_selector(text)
    assert caught.value.remedy and len(caught.value.message) < 200


def test_too_many_ranges_are_refused() -> None:
    parse_selector("12." + ",".join(map(str, range(RANGES_MAX))))
    with pytest.raises(BadInput):
        parse_selector("12." + ",".join(map(str, range(RANGES_MAX + 1))))


def test_one_job_is_known_as_one() -> None:
    assert [parse_selector(text).one_job for text in ("12.5", "12.5-5", "12.5-6", "12.5,6", "12")] == [
        *(5, 5, None, None, None)
    ]
