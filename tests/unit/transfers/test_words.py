"""What the words of a storage's tool mean for who called it."""

from __future__ import annotations

import pytest

from iceprod_p2p.base.errors import BadInput, NotFound, Unavailable
from iceprod_p2p.transfers import gridftp, xrootd
from iceprod_p2p.transfers.url import Url, parse

CASES = [
    (gridftp.judged, parse("gsiftp://storage.example/file")),
    (xrootd.judged, parse("root://storage.example//file")),
]


@pytest.mark.parametrize(("judged", "url"), CASES, ids=["gridftp", "xrootd"])
def test_a_tool_that_fails_without_a_word_is_tried_again(judged: object, url: Url) -> None:
    assert callable(judged)
    for words in ("", "\n", "  \n"):
        failure = judged(url, words)
        assert isinstance(failure, Unavailable), "nothing says that the steering file is wrong"
        assert "without a word" in str(failure) and url.host in str(failure)


@pytest.mark.parametrize(("judged", "url"), CASES, ids=["gridftp", "xrootd"])
def test_words_are_told_and_their_kind_is_known(judged: object, url: Url) -> None:
    assert callable(judged)
    passing = "Connection refused" if url.scheme == "gsiftp" else "Operation expired"
    refused = judged(url, "some words that nobody has seen before")
    assert type(refused) is BadInput and "nobody has seen" in str(refused)
    assert isinstance(judged(url, passing), Unavailable)
    assert isinstance(judged(url, "No such file or directory"), NotFound)
