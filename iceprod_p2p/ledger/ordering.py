"""Which ready task comes first: a total order, the same on every replica.

Dataset priority; then fair share between groups, and between owners, by what they hold now and used lately;
then tasks that finish a started job before new jobs; then the older dataset, the lower job, the earlier task.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from iceprod_p2p.ledger.counting import current_share, share_keys
from iceprod_p2p.ledger.tables import Dataset, Tables

HELD_WEIGHT_S: Final = 3_600  # A cpu held now counts like one that was used for this long.


class Rank(NamedTuple):
    """The place of a dataset's next task in the order; the smallest comes first."""

    below_top: int  # 1000 - priority
    group_load: int
    owner_load: int
    new_job: int  # 0: finishes a started job.
    dataset: int
    requirements: int


def rank(t: Tables, ds: Dataset, requirements: int, *, new_job: bool) -> Rank:
    """Return where the next task of a dataset, of one requirement class, stands now."""
    group, owner = (current_share(t, key) for key in share_keys(ds.record))
    return Rank(
        1_000 - ds.record.priority,
        group.held_cpus * HELD_WEIGHT_S + group.used_cpu_s,
        owner.held_cpus * HELD_WEIGHT_S + owner.used_cpu_s,
        int(new_job),
        ds.number,
        requirements,
    )
