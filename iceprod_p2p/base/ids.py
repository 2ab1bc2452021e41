"""Identifiers that people type and the ledger stores: datasets, jobs, tasks, sites, nodes.

A task is `dataset.job.task`, three counting numbers from 0 (datasets from 1), such as ``12.5.3``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")  # A DNS label: names become certificate hosts.


class JobId(NamedTuple):
    """A job: `job` counts from 0 inside its dataset."""

    dataset: int
    job: int

    def __str__(self) -> str:
        return f"{self.dataset}.{self.job}"


class TaskId(NamedTuple):
    """A vertex of a job's DAG: `task` is its index in the dataset's list of tasks."""

    dataset: int
    job: int
    task: int

    @property
    def job_id(self) -> JobId:
        """The job this task belongs to."""
        return JobId(self.dataset, self.job)

    def __str__(self) -> str:
        return f"{self.dataset}.{self.job}.{self.task}"

    @classmethod
    def parse(cls, text: str) -> TaskId:
        """Read ``12.5.3``; ValueError when it is not three small counting numbers."""
        parts = text.split(".")
        if len(parts) != 3 or not all(
            part.isascii() and part.isdigit() and len(part) <= 12 for part in parts
        ):
            raise ValueError(f"{text!r} is not a task id such as 12.5.3")
        return cls(*(int(part) for part in parts))


def is_name(text: str) -> bool:
    """Return whether `text` may name a site, node, person or alias: letters, digits, `_` and `-`, at most 63."""
    return NAME_PATTERN.fullmatch(text) is not None
