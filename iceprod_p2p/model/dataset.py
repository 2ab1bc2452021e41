"""A dataset as the ledger sees it: numbers and names, never the steering text (that is a blob)."""

from __future__ import annotations

import msgspec

from iceprod_p2p.model.bounds import Name, Number16
from iceprod_p2p.model.resources import Requirements


class TaskShape(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One vertex of the DAG that every job of a dataset has.

    `parents` are indices of tasks of the same job, each smaller than this task's own: the list is in topological
    order, so a cycle cannot be written down.
    """

    name: Name
    parents: tuple[Number16, ...] = ()
    requirements: Requirements = Requirements()
