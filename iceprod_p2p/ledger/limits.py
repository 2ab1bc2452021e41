"""The ledger's bounds, each with its reason. All times are ledger time."""

from __future__ import annotations

from typing import Final

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000

# One entry, one tick.
PAGE_RECORDS: Final = (
    1_000  # No entry touches many more records, so a tick stays far below an election time-out.
)
TIMERS_PER_TICK: Final = 400  # Each moves a task: about ten keys.
SWEEPS_AT_ONCE: Final = 8  # A long sweep must not keep a lost site's tasks waiting.
GRANTS_MAX: Final = 512  # Per claim: the outcome is remembered and must stay well below an entry.
CLAIM_PAGE: Final = 64  # What a claim may read beyond what it grants, per dataset it looks at.
CLAIM_DATASETS: Final = 2_000  # Pairs of dataset and requirement class that one claim looks at.
CLAIM_CANDIDATES: Final = 256  # Those of them that it weighs against each other.
REQUIREMENTS_PAGE: Final = 2_000  # Requirement classes with ready tasks that one claim looks at.

# Request memory.
REQUEST_HORIZON_MS: Final = 10 * MINUTE_MS  # Longer than any caller goes on retrying.
REQUEST_BYTES_MAX: Final = 64 * 2**20  # Under a flood the horizon shrinks instead of the disk filling.
REQUEST_OVERHEAD_BYTES: Final = 48  # Key and tree node of one remembered outcome.

AUDIT_MAX: Final = 100_000  # The newest audit records are kept.

# Datasets.
DATASET_JOBS_MAX: Final = 1_000_000_000
DATASET_TASKS_MAX: Final = 512  # Vertices of the DAG; its description travels in one entry.
SITES_LISTED_MAX: Final = 256
PRIORITY_MAX: Final = 1_000
ATTEMPTS_MAX: Final = 100
RETRY_PAUSE_MAX_MS: Final = DAY_MS
PENDING_EVENTS_MAX: Final = 16  # Mass commands of one dataset that sweeps have not yet carried out.
CONTROL_AT_ONCE: Final = 256  # Tasks that ControlTasks changes at once; more become a sweep.

# Tasks.
NODE_FAULTS_MAX: Final = 20  # Attempts lost by sites before a person must look.
CLAIMED_LIMIT_MS: Final = 6 * HOUR_MS  # A claim that no grid job was made for.
QUEUED_LIMIT_MS: Final = 7 * DAY_MS  # Busy batch systems queue for days.
PROCESSING_SLACK_MS: Final = 2 * HOUR_MS  # Prefetch and stage-in, beside twice the wall time asked for.
COPYING_LIMIT_MS: Final = 6 * HOUR_MS
LOCALITY_MS: Final = 10_000  # How long a task whose inputs lie at a site is kept for that site.
OFFER_CLASSES_MAX: Final = 64  # Classes remembered of a site: a configuration has no more.
TAKEOVER_AGE_MS: Final = 10 * MINUTE_MS  # How old an unstarted claim must be before an idle site may take it.
TAKEOVER_PAGE: Final = 128  # Claims of other sites that one idle claim looks at.
HOST_FAULTS_MAX: Final = 10  # Faults in a row (halved hourly) after which a host gets nothing more.
HOST_PERIOD_MS: Final = HOUR_MS

# Reports.
FILES_MAX: Final = 256
STATISTICS_MAX: Final = 256  # Keys of one report, and different keys of one task name.
GROWTH_MAX: Final = 8  # A retry asks for at most this many times what the dataset asked for.

# Fair share.
SHARE_PERIOD_MS: Final = DAY_MS  # Past use counts half after each period.

# Cluster.
SITES_MAX: Final = 1_000
NODES_MAX: Final = 4_000
VOTERS_MAX: Final = 7  # More make every write wait for more disks, and survive no faults that happen.
PEOPLE_MAX: Final = 100_000
INVITATIONS_MAX: Final = 1_000
GROUPS_MAX: Final = 64
AUTHORITIES_MAX: Final = 16  # Issuing certificates of one site: rotation leaves old ones for a while.
ROOTS_STANDING_MAX: Final = 2  # One takes the other's turn.
ROOTS_MAX: Final = 64  # Rows of roots; below version 3 those that were retired count too.
ROOTS_RETIRED_MAX: Final = 1_000  # Remembered as retired; beyond that the first to have been is forgotten.
INVITATION_LIFETIME_MAX_MS: Final = 7 * DAY_MS
SITE_GRACE_MIN_MS: Final = 1_000
SITE_GRACE_MAX_MS: Final = 7 * DAY_MS
REQUIREMENTS_MAX: Final = 60_000  # Different requirement classes: two bytes of a key.
BLOB_NODES_MAX: Final = 64
SOFTWARE_MAX: Final = 20_000  # Builds of all versions: a production uses some hundred.
SOFTWARE_PLATFORMS_MAX: Final = 64  # Of one version: a pilot is told of all of them at once.
BLOB_GRACE_MS: Final = HOUR_MS  # A blob is recorded some seconds before the dataset that needs it.
DATASET_BLOBS_MAX: Final = 512
BLOBS_AT_ONCE: Final = 256  # In one command.
