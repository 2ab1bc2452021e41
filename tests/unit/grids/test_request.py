"""A request that could break a submit file or mean nothing is refused in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.grids.request import TAG_VARIABLE, GridRequest, Tag

TAG = Tag("madison", "p1")
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", fullmatch=True)


@given(NAMES, NAMES)
def test_a_tag_is_read_back_from_its_text(site: str, grid_job: str) -> None:
    assert Tag.parse(str(Tag(site, grid_job))) == Tag(site, grid_job)


@pytest.mark.parametrize(
    "text", ["", "wrap", "iceprod.a", "iceprod.a.b.c", "iceprod..b", "iceprod.a.b\n", "../x"]
)
def test_a_strangers_name_is_no_tag(text: str) -> None:
    assert Tag.parse(text) is None


@pytest.mark.parametrize(("site", "grid_job"), [("", "a"), ("a", "b/c"), ("a.b", "c"), ("a", "x" * 64)])
def test_a_tag_that_could_not_be_a_file_name_is_refused(site: str, grid_job: str) -> None:
    with pytest.raises(BadInput, match="cannot be tagged"):
        Tag(site, grid_job)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"executable": "pilot"}, "not an absolute path"),
        ({"work_directory": "w"}, "not an absolute path"),
        ({"files_in": ("a",)}, "not absolute"),
        ({"files_in": ("/a/x", "/b/x")}, "same last name"),
        ({"queue": "long\n#SBATCH --uid=0"}, "control character"),
        ({"extra_lines": ("a\nb",)}, "control character"),
        ({"exclude_hosts": ("a\rb",)}, "no name that a host could have"),
        ({"arguments": ("a\0b",)}, "NUL"),
        ({"environment": {"A B": "1"}}, "cannot name an environment variable"),
        ({"environment": {"A": "x" * 40_000}}, "more than 32768"),
        ({"priority": 101}, "priority 101"),
        ({"cores": 0}, "cores must be"),
        ({"memory_mib": -1}, "at least 0"),
    ],
)
def test_a_request_with_a_fault_is_refused_with_the_fault(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        GridRequest(**{"tag": TAG, "executable": "/bin/true", "work_directory": "/tmp/w", **change})


def test_all_faults_of_a_request_are_named_at_once() -> None:
    with pytest.raises(BadInput, match=r"executable .*; cores must be"):
        GridRequest(TAG, "pilot", "/tmp/w", cores=0)


def test_the_tag_is_in_every_grid_jobs_environment() -> None:
    request = GridRequest(TAG, "/bin/true", "/tmp/w", environment={"A": "1"})
    assert request.full_environment() == {"A": "1", TAG_VARIABLE: "iceprod.madison.p1"}
    assert (request.stdout_path, request.stderr_path) == ("/tmp/w/grid.out", "/tmp/w/grid.err")
