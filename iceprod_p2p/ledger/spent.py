"""When a file has served: nothing that goes on may still read it.  Used by the rules, and by queries for the janitor.

permanent       never
job_temp        when its job is complete or aborted
dataset_temp    when its dataset is complete, truncated or aborted
site_temp       likewise
All of them only when what follows the dataset has ended as well, for it reads files of every job.
"""

from __future__ import annotations

from typing import Final

from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.reading import see_job
from iceprod_p2p.ledger.rollup import dataset_state
from iceprod_p2p.ledger.tables import Dataset, Tables
from iceprod_p2p.ledger.transitions import JOB
from iceprod_p2p.ledger.versions import SPENT_FILES
from iceprod_p2p.model.states import DatasetState, JobState

ENDED: Final = (DatasetState.COMPLETE, DatasetState.TRUNCATED, DatasetState.ABORTED)
JOB_ENDED: Final = (JobState.COMPLETE, JobState.ABORTED)
TEMPORARY: Final = ("job_temp", "dataset_temp", "site_temp")


def is_spent(t: Tables, ds: Dataset, job: int, record: r.FileRecord) -> bool:
    """Return whether a recorded file (of `job`, or WHOLE_DATASET) is temporary and nobody can read it any more.

    A person who resets tasks later makes such files anew, together with what reads them.
    """
    if record.kind not in TEMPORARY or t.version < SPENT_FILES:
        return False
    if record.kind == "job_temp":
        ended = job < 0 or JOB[see_job(t, ds, job).kinds(ds.dag.everything)] in JOB_ENDED
    else:
        ended = dataset_state(ds.record, ds.counts) in ENDED
    return ended and _following_has_ended(t, ds)


def _following_has_ended(t: Tables, ds: Dataset) -> bool:
    following = t.dataset(ds.record.closing) if ds.record.closing else None
    if following is None:
        return True
    if following.record.futile:  # Failed jobs that are tried again will have it read the files of all.
        return dataset_state(ds.record, ds.counts) in ENDED
    return dataset_state(following.record, following.counts) in ENDED
