"""What the log of a node shows, and what it never does."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from iceprod_p2p.base import logs

SECRET = "b7f3-never-shown"


@pytest.fixture(autouse=True)
def _configured_as_before() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize(
    "field", ["passkey", "enrolment_secret", "password", "bearer_token", "private_key_pem", "passphrase"]
)
def test_fields_that_name_a_secret_are_not_shown(style: Literal["text", "json"], field: str) -> None:
    stream = io.StringIO()
    logs.configure(style=style, level="debug", stream=stream)
    logs.get_logger("test").info("it came", **{field: SECRET}, pilot="p-1")
    assert SECRET not in stream.getvalue()
    assert "<redacted>" in stream.getvalue() and "p-1" in stream.getvalue()


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_traceback_shows_no_values_of_its_variables(style: Literal["text", "json"]) -> None:
    stream = io.StringIO()
    logs.configure(style=style, stream=stream)
    try:
        _fail_with(SECRET)
    except ValueError:
        logs.get_logger("test").exception("it failed")
    assert "ValueError" in stream.getvalue() and SECRET not in stream.getvalue()


def _fail_with(passkey: str) -> None:
    raise ValueError(f"a passkey of {len(passkey)} letters is none")


def test_json_lines_have_the_same_fields_as_text() -> None:
    stream = io.StringIO()
    logs.configure(style="json", stream=stream)
    logs.get_logger("keeper").warning("grid job lost", pilot="p-1")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["part"], line["pilot"], line["level"]) == (
        "grid job lost",
        "keeper",
        "p-1",
        "warning",
    )
