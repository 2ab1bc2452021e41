"""Which ready task comes first: a total order, the same on every replica.

Dataset priority; then fair share between groups, and between owners, by what they hold now and used lately;
then tasks that finish a started job before new jobs; then the older dataset, the lower job, the earlier task.
"""

from __future__ import annotations

from iceprod_p2p.ledger.counting import load
from iceprod_p2p.ledger.tables import Dataset, Tables

# 1000 - priority, the group's load, the owner's, whether it begins a job (0: it finishes a started one), dataset,
# requirement class; the smallest comes first.
Rank = tuple[int, int, int, bool, int, int]


def rank(t: Tables, ds: Dataset, requirements: int, *, new_job: bool) -> Rank:
    """Return where the next task of a dataset, of one requirement class, stands now."""
    group, owner = ds.share_keys
    return 1_000 - ds.record.priority, load(t, group), load(t, owner), new_job, ds.number, requirements
