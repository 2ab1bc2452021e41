"""Submission one by one, for systems whose command takes one grid job: when to stop, and what is then known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from iceprod_p2p.grids.base import NotSubmitted, SubmitResult, Submitted, Unclear
from iceprod_p2p.grids.errors import GridDown, GridError, GridTimeout
from iceprod_p2p.grids.files import place_files
from iceprod_p2p.grids.request import GridRequest

Item = TypeVar("Item")
ITEMS_PER_CALL: Final = 400  # Tags of 135 letters: a command line of 54 KiB.


def submit_each(
    requests: Sequence[GridRequest], submit_one: Callable[[GridRequest], SubmitResult]
) -> list[SubmitResult]:
    """Place the files of each request and submit it; one result per request, in order.

    After the first sign that the system is silent nothing more is tried, for each try would wait as long; the
    rest is Unclear, which is safe: its tags will not be found.  Raises GridDown when the system was down from
    the start.
    """
    results: list[SubmitResult] = []
    for request in requests:
        try:
            place_files(request)
            result = submit_one(request)
        except OSError as broken:
            reason = f"{broken.strerror or broken}: {broken.filename or request.work_directory}"
            result = NotSubmitted(request.tag, reason)
        except GridDown as down:
            if not any(isinstance(earlier, Submitted) for earlier in results):
                raise
            result = Unclear(request.tag, str(down))
        except (GridTimeout, GridError) as trouble:
            result = Unclear(request.tag, str(trouble))
        results.append(result)
        if isinstance(result, Unclear):
            break
    reason = "not tried: the batch system gave no clear answer to the one before"
    return results + [Unclear(request.tag, reason) for request in requests[len(results) :]]


def in_parts(items: Sequence[Item]) -> list[Sequence[Item]]:
    """Cut `items` into parts that fit on one command line."""
    return [items[start : start + ITEMS_PER_CALL] for start in range(0, len(items), ITEMS_PER_CALL)]
