"""Selectors: `12`, `12.5`, `12.1-5`, `12.1,7,9`, `12.*`, `12.5.merge`, with an alias in place of the number."""

from __future__ import annotations

import re
from dataclasses import dataclass

from iceprod_p2p.base.errors import BadInput

RANGES_MAX = 1_000
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


@dataclass(frozen=True, slots=True)
class Selector:
    """A dataset, perhaps ranges of its jobs (inclusive), perhaps one task of each by name or index.

    No ranges means every job.
    """

    dataset: str
    ranges: tuple[tuple[int, int], ...] = ()
    task: str = ""

    @property
    def one_job(self) -> int | None:
        """The job, when exactly one is selected."""
        if len(self.ranges) == 1 and self.ranges[0][0] == self.ranges[0][1]:
            return self.ranges[0][0]
        return None


def parse_selector(text: str) -> Selector:
    """Read one selector; BadInput says which part is wrong and what is allowed."""
    dataset, *rest = text.split(".", 2)
    if not _ALIAS.fullmatch(dataset):
        raise BadInput(
            f"{text!r} does not begin with a dataset's number or alias", remedy="write 12, 12.5 or 12.1-5"
        )
    if not rest:
        return Selector(dataset)
    ranges: list[tuple[int, int]] = []
    for part in rest[0].split(",") if rest[0] != "*" else []:
        found = _RANGE.fullmatch(part)
        if found is None or len(ranges) >= RANGES_MAX:
            raise BadInput(
                f"{part!r} in {text!r} is not a job or a range of jobs", remedy="write 12.5, 12.1-5 or 12.*"
            )
        first = int(found[1])
        last = int(found[2]) if found[2] else first
        if last < first:
            raise BadInput(f"the range {part!r} in {text!r} runs backwards", remedy=f"write {last}-{first}")
        ranges.append((first, last))
    task = rest[1] if len(rest) > 1 else ""
    return Selector(dataset, tuple(ranges), "" if task == "*" else task)
