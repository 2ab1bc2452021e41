"""Every question one may put to a ledger snapshot; all read one snapshot, write nothing, and look at a bounded page.

`kv` is a snapshot that lives only as long as the call; rows are plain and outlive it.
"""

from __future__ import annotations

from iceprod_p2p.ledger.query_blobs import blobs, lent, uses
from iceprod_p2p.ledger.query_cluster import (
    applied_index,
    asked,
    audit,
    content_digest,
    invitation,
    is_revoked,
    issuing_authorities,
    issuing_certificates,
    ledger_time_ms,
    members,
    node,
    nodes,
    passkey_keys,
    people,
    people_authorities,
    person,
    ready_counts,
    root_certificate,
    roots,
    settings,
    shut_out,
    site,
    sites,
    state_digest,
    sweeps_pending,
    version,
)
from iceprod_p2p.ledger.query_datasets import dataset, dataset_number, datasets, jobs, statistics
from iceprod_p2p.ledger.query_files import file, files, holders
from iceprod_p2p.ledger.query_software import software, software_blobs, software_builds
from iceprod_p2p.ledger.query_tasks import explain, find_task, held_by, start_record, task, tasks

__all__ = [
    "applied_index",
    "asked",
    "audit",
    "blobs",
    "content_digest",
    "dataset",
    "dataset_number",
    "datasets",
    "explain",
    "file",
    "files",
    "find_task",
    "held_by",
    "holders",
    "invitation",
    "is_revoked",
    "issuing_authorities",
    "issuing_certificates",
    "jobs",
    "ledger_time_ms",
    "lent",
    "members",
    "node",
    "nodes",
    "passkey_keys",
    "people",
    "people_authorities",
    "person",
    "ready_counts",
    "root_certificate",
    "roots",
    "settings",
    "shut_out",
    "site",
    "sites",
    "software",
    "software_blobs",
    "software_builds",
    "start_record",
    "state_digest",
    "statistics",
    "sweeps_pending",
    "task",
    "tasks",
    "uses",
    "version",
]
