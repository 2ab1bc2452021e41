from . import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Read(_message.Message):
    __slots__ = ("stale",)
    STALE_FIELD_NUMBER: _ClassVar[int]
    stale: bool
    def __init__(self, stale: _Optional[bool] = ...) -> None: ...

class ReadInfo(_message.Message):
    __slots__ = ("applied_index", "ledger_time_ms", "node_id")
    APPLIED_INDEX_FIELD_NUMBER: _ClassVar[int]
    LEDGER_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    applied_index: int
    ledger_time_ms: int
    node_id: str
    def __init__(self, applied_index: _Optional[int] = ..., ledger_time_ms: _Optional[int] = ..., node_id: _Optional[str] = ...) -> None: ...

class WhoAmIRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WhoAmIReply(_message.Message):
    __slots__ = ("name", "kind", "role", "cluster", "node_id", "site")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    role: str
    cluster: str
    node_id: str
    site: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., role: _Optional[str] = ..., cluster: _Optional[str] = ..., node_id: _Optional[str] = ..., site: _Optional[str] = ...) -> None: ...

class SubmitRequest(_message.Message):
    __slots__ = ("document", "jobs", "alias", "description", "priority", "priority_given", "sites_allowed", "sites_excluded", "request_id", "category", "attempts_max", "dry_run", "seed", "seed_given", "group")
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_GIVEN_FIELD_NUMBER: _ClassVar[int]
    SITES_ALLOWED_FIELD_NUMBER: _ClassVar[int]
    SITES_EXCLUDED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_MAX_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SEED_GIVEN_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    jobs: int
    alias: str
    description: str
    priority: int
    priority_given: bool
    sites_allowed: _containers.RepeatedScalarFieldContainer[str]
    sites_excluded: _containers.RepeatedScalarFieldContainer[str]
    request_id: bytes
    category: str
    attempts_max: int
    dry_run: bool
    seed: int
    seed_given: bool
    group: str
    def __init__(self, document: _Optional[bytes] = ..., jobs: _Optional[int] = ..., alias: _Optional[str] = ..., description: _Optional[str] = ..., priority: _Optional[int] = ..., priority_given: _Optional[bool] = ..., sites_allowed: _Optional[_Iterable[str]] = ..., sites_excluded: _Optional[_Iterable[str]] = ..., request_id: _Optional[bytes] = ..., category: _Optional[str] = ..., attempts_max: _Optional[int] = ..., dry_run: _Optional[bool] = ..., seed: _Optional[int] = ..., seed_given: _Optional[bool] = ..., group: _Optional[str] = ...) -> None: ...

class SubmitReply(_message.Message):
    __slots__ = ("dataset", "warnings", "task_names", "jobs", "blob_copies", "pinned")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    TASK_NAMES_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    BLOB_COPIES_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    dataset: int
    warnings: _containers.RepeatedScalarFieldContainer[str]
    task_names: _containers.RepeatedScalarFieldContainer[str]
    jobs: int
    blob_copies: int
    pinned: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, dataset: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ..., task_names: _Optional[_Iterable[str]] = ..., jobs: _Optional[int] = ..., blob_copies: _Optional[int] = ..., pinned: _Optional[_Iterable[str]] = ...) -> None: ...

class StateCount(_message.Message):
    __slots__ = ("state", "count")
    STATE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    state: str
    count: int
    def __init__(self, state: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class TaskNameCounts(_message.Message):
    __slots__ = ("name", "task", "counts")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    task: int
    counts: _containers.RepeatedCompositeFieldContainer[StateCount]
    def __init__(self, name: _Optional[str] = ..., task: _Optional[int] = ..., counts: _Optional[_Iterable[_Union[StateCount, _Mapping]]] = ...) -> None: ...

class SiteTaskCount(_message.Message):
    __slots__ = ("site", "complete", "held", "failures")
    SITE_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    site: str
    complete: int
    held: int
    failures: int
    def __init__(self, site: _Optional[str] = ..., complete: _Optional[int] = ..., held: _Optional[int] = ..., failures: _Optional[int] = ...) -> None: ...

class DatasetRow(_message.Message):
    __slots__ = ("dataset", "alias", "owner", "group", "description", "state", "priority", "jobs", "tasks", "job_states", "submitted_ms", "finished_ms", "steering_sha256", "seed", "category", "follows", "closing")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    JOB_STATES_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_MS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_MS_FIELD_NUMBER: _ClassVar[int]
    STEERING_SHA256_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    FOLLOWS_FIELD_NUMBER: _ClassVar[int]
    CLOSING_FIELD_NUMBER: _ClassVar[int]
    dataset: int
    alias: str
    owner: str
    group: str
    description: str
    state: str
    priority: int
    jobs: int
    tasks: _containers.RepeatedCompositeFieldContainer[StateCount]
    job_states: _containers.RepeatedCompositeFieldContainer[StateCount]
    submitted_ms: int
    finished_ms: int
    steering_sha256: str
    seed: int
    category: str
    follows: int
    closing: int
    def __init__(self, dataset: _Optional[int] = ..., alias: _Optional[str] = ..., owner: _Optional[str] = ..., group: _Optional[str] = ..., description: _Optional[str] = ..., state: _Optional[str] = ..., priority: _Optional[int] = ..., jobs: _Optional[int] = ..., tasks: _Optional[_Iterable[_Union[StateCount, _Mapping]]] = ..., job_states: _Optional[_Iterable[_Union[StateCount, _Mapping]]] = ..., submitted_ms: _Optional[int] = ..., finished_ms: _Optional[int] = ..., steering_sha256: _Optional[str] = ..., seed: _Optional[int] = ..., category: _Optional[str] = ..., follows: _Optional[int] = ..., closing: _Optional[int] = ...) -> None: ...

class ListDatasetsRequest(_message.Message):
    __slots__ = ("read", "after", "limit", "owner", "state")
    READ_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    read: Read
    after: int
    limit: int
    owner: str
    state: str
    def __init__(self, read: _Optional[_Union[Read, _Mapping]] = ..., after: _Optional[int] = ..., limit: _Optional[int] = ..., owner: _Optional[str] = ..., state: _Optional[str] = ...) -> None: ...

class ListDatasetsReply(_message.Message):
    __slots__ = ("datasets", "info")
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    datasets: _containers.RepeatedCompositeFieldContainer[DatasetRow]
    info: ReadInfo
    def __init__(self, datasets: _Optional[_Iterable[_Union[DatasetRow, _Mapping]]] = ..., info: _Optional[_Union[ReadInfo, _Mapping]] = ...) -> None: ...

class GetDatasetRequest(_message.Message):
    __slots__ = ("read", "dataset")
    READ_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    read: Read
    dataset: str
    def __init__(self, read: _Optional[_Union[Read, _Mapping]] = ..., dataset: _Optional[str] = ...) -> None: ...

class TaskShape(_message.Message):
    __slots__ = ("name", "parents", "requirements")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    REQUIREMENTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    parents: _containers.RepeatedScalarFieldContainer[int]
    requirements: _common_pb2.Requirements
    def __init__(self, name: _Optional[str] = ..., parents: _Optional[_Iterable[int]] = ..., requirements: _Optional[_Union[_common_pb2.Requirements, _Mapping]] = ...) -> None: ...

class Transfer(_message.Message):
    __slots__ = ("from_site", "to_site", "files", "size_bytes")
    FROM_SITE_FIELD_NUMBER: _ClassVar[int]
    TO_SITE_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    from_site: str
    to_site: str
    files: int
    size_bytes: int
    def __init__(self, from_site: _Optional[str] = ..., to_site: _Optional[str] = ..., files: _Optional[int] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class DatasetDetail(_message.Message):
    __slots__ = ("row", "task_names", "sites", "shapes", "sites_allowed", "sites_excluded", "attempts_max", "info", "transfers")
    ROW_FIELD_NUMBER: _ClassVar[int]
    TASK_NAMES_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    SHAPES_FIELD_NUMBER: _ClassVar[int]
    SITES_ALLOWED_FIELD_NUMBER: _ClassVar[int]
    SITES_EXCLUDED_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_MAX_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    row: DatasetRow
    task_names: _containers.RepeatedCompositeFieldContainer[TaskNameCounts]
    sites: _containers.RepeatedCompositeFieldContainer[SiteTaskCount]
    shapes: _containers.RepeatedCompositeFieldContainer[TaskShape]
    sites_allowed: _containers.RepeatedScalarFieldContainer[str]
    sites_excluded: _containers.RepeatedScalarFieldContainer[str]
    attempts_max: int
    info: ReadInfo
    transfers: _containers.RepeatedCompositeFieldContainer[Transfer]
    def __init__(self, row: _Optional[_Union[DatasetRow, _Mapping]] = ..., task_names: _Optional[_Iterable[_Union[TaskNameCounts, _Mapping]]] = ..., sites: _Optional[_Iterable[_Union[SiteTaskCount, _Mapping]]] = ..., shapes: _Optional[_Iterable[_Union[TaskShape, _Mapping]]] = ..., sites_allowed: _Optional[_Iterable[str]] = ..., sites_excluded: _Optional[_Iterable[str]] = ..., attempts_max: _Optional[int] = ..., info: _Optional[_Union[ReadInfo, _Mapping]] = ..., transfers: _Optional[_Iterable[_Union[Transfer, _Mapping]]] = ...) -> None: ...

class Tally(_message.Message):
    __slots__ = ("name", "count", "sum", "average", "standard_deviation", "minimum", "maximum")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    AVERAGE_FIELD_NUMBER: _ClassVar[int]
    STANDARD_DEVIATION_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    name: str
    count: int
    sum: float
    average: float
    standard_deviation: float
    minimum: float
    maximum: float
    def __init__(self, name: _Optional[str] = ..., count: _Optional[int] = ..., sum: _Optional[float] = ..., average: _Optional[float] = ..., standard_deviation: _Optional[float] = ..., minimum: _Optional[float] = ..., maximum: _Optional[float] = ...) -> None: ...

class TaskStatistics(_message.Message):
    __slots__ = ("task_name", "tallies")
    TASK_NAME_FIELD_NUMBER: _ClassVar[int]
    TALLIES_FIELD_NUMBER: _ClassVar[int]
    task_name: str
    tallies: _containers.RepeatedCompositeFieldContainer[Tally]
    def __init__(self, task_name: _Optional[str] = ..., tallies: _Optional[_Iterable[_Union[Tally, _Mapping]]] = ...) -> None: ...

class StatisticsReply(_message.Message):
    __slots__ = ("tasks", "info")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[TaskStatistics]
    info: ReadInfo
    def __init__(self, tasks: _Optional[_Iterable[_Union[TaskStatistics, _Mapping]]] = ..., info: _Optional[_Union[ReadInfo, _Mapping]] = ...) -> None: ...

class JobRow(_message.Message):
    __slots__ = ("dataset", "job", "state", "tasks")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    dataset: int
    job: int
    state: str
    tasks: _containers.RepeatedCompositeFieldContainer[StateCount]
    def __init__(self, dataset: _Optional[int] = ..., job: _Optional[int] = ..., state: _Optional[str] = ..., tasks: _Optional[_Iterable[_Union[StateCount, _Mapping]]] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("read", "dataset", "after", "limit", "state", "first_job", "last_job", "bounded")
    READ_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FIRST_JOB_FIELD_NUMBER: _ClassVar[int]
    LAST_JOB_FIELD_NUMBER: _ClassVar[int]
    BOUNDED_FIELD_NUMBER: _ClassVar[int]
    read: Read
    dataset: str
    after: int
    limit: int
    state: str
    first_job: int
    last_job: int
    bounded: bool
    def __init__(self, read: _Optional[_Union[Read, _Mapping]] = ..., dataset: _Optional[str] = ..., after: _Optional[int] = ..., limit: _Optional[int] = ..., state: _Optional[str] = ..., first_job: _Optional[int] = ..., last_job: _Optional[int] = ..., bounded: _Optional[bool] = ...) -> None: ...

class ListJobsReply(_message.Message):
    __slots__ = ("jobs", "info", "next_after")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    NEXT_AFTER_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[JobRow]
    info: ReadInfo
    next_after: int
    def __init__(self, jobs: _Optional[_Iterable[_Union[JobRow, _Mapping]]] = ..., info: _Optional[_Union[ReadInfo, _Mapping]] = ..., next_after: _Optional[int] = ...) -> None: ...

class TaskRow(_message.Message):
    __slots__ = ("dataset", "job", "task", "name", "state", "attempt", "failures", "site", "pilot", "host", "changed_ms", "reason", "message", "usage", "statistics", "requirements", "files", "explanation", "remedy", "info", "progress", "progress_note")
    class StatisticsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    DATASET_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    PILOT_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    CHANGED_MS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    REQUIREMENTS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_NOTE_FIELD_NUMBER: _ClassVar[int]
    dataset: int
    job: int
    task: int
    name: str
    state: str
    attempt: int
    failures: int
    site: str
    pilot: str
    host: str
    changed_ms: int
    reason: str
    message: str
    usage: _common_pb2.Usage
    statistics: _containers.ScalarMap[str, float]
    requirements: _common_pb2.Requirements
    files: _containers.RepeatedCompositeFieldContainer[FileRow]
    explanation: str
    remedy: str
    info: ReadInfo
    progress: float
    progress_note: str
    def __init__(self, dataset: _Optional[int] = ..., job: _Optional[int] = ..., task: _Optional[int] = ..., name: _Optional[str] = ..., state: _Optional[str] = ..., attempt: _Optional[int] = ..., failures: _Optional[int] = ..., site: _Optional[str] = ..., pilot: _Optional[str] = ..., host: _Optional[str] = ..., changed_ms: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., usage: _Optional[_Union[_common_pb2.Usage, _Mapping]] = ..., statistics: _Optional[_Mapping[str, float]] = ..., requirements: _Optional[_Union[_common_pb2.Requirements, _Mapping]] = ..., files: _Optional[_Iterable[_Union[FileRow, _Mapping]]] = ..., explanation: _Optional[str] = ..., remedy: _Optional[str] = ..., info: _Optional[_Union[ReadInfo, _Mapping]] = ..., progress: _Optional[float] = ..., progress_note: _Optional[str] = ...) -> None: ...

class ListTasksRequest(_message.Message):
    __slots__ = ("read", "dataset", "after_job", "limit", "state", "site", "name", "first_job", "last_job", "bounded", "after_task")
    READ_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    AFTER_JOB_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIRST_JOB_FIELD_NUMBER: _ClassVar[int]
    LAST_JOB_FIELD_NUMBER: _ClassVar[int]
    BOUNDED_FIELD_NUMBER: _ClassVar[int]
    AFTER_TASK_FIELD_NUMBER: _ClassVar[int]
    read: Read
    dataset: str
    after_job: int
    limit: int
    state: str
    site: str
    name: str
    first_job: int
    last_job: int
    bounded: bool
    after_task: int
    def __init__(self, read: _Optional[_Union[Read, _Mapping]] = ..., dataset: _Optional[str] = ..., after_job: _Optional[int] = ..., limit: _Optional[int] = ..., state: _Optional[str] = ..., site: _Optional[str] = ..., name: _Optional[str] = ..., first_job: _Optional[int] = ..., last_job: _Optional[int] = ..., bounded: _Optional[bool] = ..., after_task: _Optional[int] = ...) -> None: ...

class ListTasksReply(_message.Message):
    __slots__ = ("tasks", "info", "next_after_job", "next_after_task")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    NEXT_AFTER_JOB_FIELD_NUMBER: _ClassVar[int]
    NEXT_AFTER_TASK_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[TaskRow]
    info: ReadInfo
    next_after_job: int
    next_after_task: int
    def __init__(self, tasks: _Optional[_Iterable[_Union[TaskRow, _Mapping]]] = ..., info: _Optional[_Union[ReadInfo, _Mapping]] = ..., next_after_job: _Optional[int] = ..., next_after_task: _Optional[int] = ...) -> None: ...

class GetTaskRequest(_message.Message):
    __slots__ = ("read", "dataset", "job", "task")
    READ_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    read: Read
    dataset: str
    job: int
    task: str
    def __init__(self, read: _Optional[_Union[Read, _Mapping]] = ..., dataset: _Optional[str] = ..., job: _Optional[int] = ..., task: _Optional[str] = ...) -> None: ...

class FileRow(_message.Message):
    __slots__ = ("dataset", "job", "name", "size_bytes", "sha256", "kind", "task", "attempt", "sites", "checksums", "urls", "url_copies")
    class ChecksumsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DATASET_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    CHECKSUMS_FIELD_NUMBER: _ClassVar[int]
    URLS_FIELD_NUMBER: _ClassVar[int]
    URL_COPIES_FIELD_NUMBER: _ClassVar[int]
    dataset: int
    job: int
    name: str
    size_bytes: int
    sha256: str
    kind: str
    task: int
    attempt: int
    sites: _containers.RepeatedScalarFieldContainer[str]
    checksums: _containers.ScalarMap[str, str]
    urls: _containers.RepeatedScalarFieldContainer[str]
    url_copies: _containers.RepeatedCompositeFieldContainer[UrlCopy]
    def __init__(self, dataset: _Optional[int] = ..., job: _Optional[int] = ..., name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., kind: _Optional[str] = ..., task: _Optional[int] = ..., attempt: _Optional[int] = ..., sites: _Optional[_Iterable[str]] = ..., checksums: _Optional[_Mapping[str, str]] = ..., urls: _Optional[_Iterable[str]] = ..., url_copies: _Optional[_Iterable[_Union[UrlCopy, _Mapping]]] = ...) -> None: ...

class UrlCopy(_message.Message):
    __slots__ = ("url", "site", "verified_ms", "good", "found_sha256")
    URL_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_MS_FIELD_NUMBER: _ClassVar[int]
    GOOD_FIELD_NUMBER: _ClassVar[int]
    FOUND_SHA256_FIELD_NUMBER: _ClassVar[int]
    url: str
    site: str
    verified_ms: int
    good: bool
    found_sha256: str
    def __init__(self, url: _Optional[str] = ..., site: _Optional[str] = ..., verified_ms: _Optional[int] = ..., good: _Optional[bool] = ..., found_sha256: _Optional[str] = ...) -> None: ...

class ListFilesRequest(_message.Message):
    __slots__ = ("read", "dataset", "job", "after", "limit")
    READ_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    read: Read
    dataset: str
    job: int
    after: str
    limit: int
    def __init__(self, read: _Optional[_Union[Read, _Mapping]] = ..., dataset: _Optional[str] = ..., job: _Optional[int] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListFilesReply(_message.Message):
    __slots__ = ("files", "info", "next_after")
    FILES_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    NEXT_AFTER_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[FileRow]
    info: ReadInfo
    next_after: str
    def __init__(self, files: _Optional[_Iterable[_Union[FileRow, _Mapping]]] = ..., info: _Optional[_Union[ReadInfo, _Mapping]] = ..., next_after: _Optional[str] = ...) -> None: ...

class VerifyFilesRequest(_message.Message):
    __slots__ = ("dataset", "job")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    job: int
    def __init__(self, dataset: _Optional[str] = ..., job: _Optional[int] = ...) -> None: ...

class VerifyFilesReply(_message.Message):
    __slots__ = ("file", "site", "good", "found", "url", "unrecorded")
    FILE_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    GOOD_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    UNRECORDED_FIELD_NUMBER: _ClassVar[int]
    file: FileRow
    site: str
    good: bool
    found: str
    url: str
    unrecorded: str
    def __init__(self, file: _Optional[_Union[FileRow, _Mapping]] = ..., site: _Optional[str] = ..., good: _Optional[bool] = ..., found: _Optional[str] = ..., url: _Optional[str] = ..., unrecorded: _Optional[str] = ...) -> None: ...

class ControlDatasetRequest(_message.Message):
    __slots__ = ("dataset", "verb", "request_id")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    verb: str
    request_id: bytes
    def __init__(self, dataset: _Optional[str] = ..., verb: _Optional[str] = ..., request_id: _Optional[bytes] = ...) -> None: ...

class ControlTasksRequest(_message.Message):
    __slots__ = ("dataset", "verb", "first_job", "last_job", "task", "request_id")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    FIRST_JOB_FIELD_NUMBER: _ClassVar[int]
    LAST_JOB_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    verb: str
    first_job: int
    last_job: int
    task: int
    request_id: bytes
    def __init__(self, dataset: _Optional[str] = ..., verb: _Optional[str] = ..., first_job: _Optional[int] = ..., last_job: _Optional[int] = ..., task: _Optional[int] = ..., request_id: _Optional[bytes] = ...) -> None: ...

class SetDatasetRequest(_message.Message):
    __slots__ = ("dataset", "priority", "alias", "description", "attempts_max", "sites_given", "sites_allowed", "sites_excluded", "request_id", "owner", "group")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_MAX_FIELD_NUMBER: _ClassVar[int]
    SITES_GIVEN_FIELD_NUMBER: _ClassVar[int]
    SITES_ALLOWED_FIELD_NUMBER: _ClassVar[int]
    SITES_EXCLUDED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    priority: int
    alias: str
    description: str
    attempts_max: int
    sites_given: bool
    sites_allowed: _containers.RepeatedScalarFieldContainer[str]
    sites_excluded: _containers.RepeatedScalarFieldContainer[str]
    request_id: bytes
    owner: str
    group: str
    def __init__(self, dataset: _Optional[str] = ..., priority: _Optional[int] = ..., alias: _Optional[str] = ..., description: _Optional[str] = ..., attempts_max: _Optional[int] = ..., sites_given: _Optional[bool] = ..., sites_allowed: _Optional[_Iterable[str]] = ..., sites_excluded: _Optional[_Iterable[str]] = ..., request_id: _Optional[bytes] = ..., owner: _Optional[str] = ..., group: _Optional[str] = ...) -> None: ...

class ControlReply(_message.Message):
    __slots__ = ("notes",)
    NOTES_FIELD_NUMBER: _ClassVar[int]
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, notes: _Optional[_Iterable[str]] = ...) -> None: ...

class ListSitesRequest(_message.Message):
    __slots__ = ("read",)
    READ_FIELD_NUMBER: _ClassVar[int]
    read: Read
    def __init__(self, read: _Optional[_Union[Read, _Mapping]] = ...) -> None: ...

class SiteRow(_message.Message):
    __slots__ = ("site", "state", "grid", "slots", "slots_busy", "pilots_queued", "pilots_running", "attributes", "heartbeat_age_ms", "claimed", "processing", "complete", "failures", "version", "nodes")
    SITE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    GRID_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_BUSY_FIELD_NUMBER: _ClassVar[int]
    PILOTS_QUEUED_FIELD_NUMBER: _ClassVar[int]
    PILOTS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_FIELD_NUMBER: _ClassVar[int]
    PROCESSING_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    site: str
    state: str
    grid: str
    slots: int
    slots_busy: int
    pilots_queued: int
    pilots_running: int
    attributes: _containers.RepeatedScalarFieldContainer[str]
    heartbeat_age_ms: int
    claimed: int
    processing: int
    complete: int
    failures: int
    version: str
    nodes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, site: _Optional[str] = ..., state: _Optional[str] = ..., grid: _Optional[str] = ..., slots: _Optional[int] = ..., slots_busy: _Optional[int] = ..., pilots_queued: _Optional[int] = ..., pilots_running: _Optional[int] = ..., attributes: _Optional[_Iterable[str]] = ..., heartbeat_age_ms: _Optional[int] = ..., claimed: _Optional[int] = ..., processing: _Optional[int] = ..., complete: _Optional[int] = ..., failures: _Optional[int] = ..., version: _Optional[str] = ..., nodes: _Optional[_Iterable[str]] = ...) -> None: ...

class ListSitesReply(_message.Message):
    __slots__ = ("sites", "info")
    SITES_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    sites: _containers.RepeatedCompositeFieldContainer[SiteRow]
    info: ReadInfo
    def __init__(self, sites: _Optional[_Iterable[_Union[SiteRow, _Mapping]]] = ..., info: _Optional[_Union[ReadInfo, _Mapping]] = ...) -> None: ...

class ControlSiteRequest(_message.Message):
    __slots__ = ("site", "verb", "reason", "request_id")
    SITE_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    site: str
    verb: str
    reason: str
    request_id: bytes
    def __init__(self, site: _Optional[str] = ..., verb: _Optional[str] = ..., reason: _Optional[str] = ..., request_id: _Optional[bytes] = ...) -> None: ...

class ListGridJobsRequest(_message.Message):
    __slots__ = ("site", "ended", "limit")
    SITE_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    site: str
    ended: bool
    limit: int
    def __init__(self, site: _Optional[str] = ..., ended: _Optional[bool] = ..., limit: _Optional[int] = ...) -> None: ...

class GridJobRow(_message.Message):
    __slots__ = ("site", "node_id", "grid_job", "pilot", "resource_class", "state", "host", "slots", "tasks", "enrolled", "reason", "age_ms", "ended_age_ms")
    SITE_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    GRID_JOB_FIELD_NUMBER: _ClassVar[int]
    PILOT_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_CLASS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    ENROLLED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    site: str
    node_id: str
    grid_job: str
    pilot: str
    resource_class: str
    state: str
    host: str
    slots: int
    tasks: int
    enrolled: bool
    reason: str
    age_ms: int
    ended_age_ms: int
    def __init__(self, site: _Optional[str] = ..., node_id: _Optional[str] = ..., grid_job: _Optional[str] = ..., pilot: _Optional[str] = ..., resource_class: _Optional[str] = ..., state: _Optional[str] = ..., host: _Optional[str] = ..., slots: _Optional[int] = ..., tasks: _Optional[int] = ..., enrolled: _Optional[bool] = ..., reason: _Optional[str] = ..., age_ms: _Optional[int] = ..., ended_age_ms: _Optional[int] = ...) -> None: ...

class ListGridJobsReply(_message.Message):
    __slots__ = ("grid_jobs", "queues")
    GRID_JOBS_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    grid_jobs: _containers.RepeatedCompositeFieldContainer[GridJobRow]
    queues: _containers.RepeatedCompositeFieldContainer[SiteQueue]
    def __init__(self, grid_jobs: _Optional[_Iterable[_Union[GridJobRow, _Mapping]]] = ..., queues: _Optional[_Iterable[_Union[SiteQueue, _Mapping]]] = ...) -> None: ...

class SiteQueue(_message.Message):
    __slots__ = ("site", "node_id", "reachable", "grid", "counts", "grid_jobs_max", "left_out", "troubles")
    SITE_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    REACHABLE_FIELD_NUMBER: _ClassVar[int]
    GRID_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    GRID_JOBS_MAX_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    TROUBLES_FIELD_NUMBER: _ClassVar[int]
    site: str
    node_id: str
    reachable: bool
    grid: str
    counts: _containers.RepeatedCompositeFieldContainer[StateCount]
    grid_jobs_max: int
    left_out: int
    troubles: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, site: _Optional[str] = ..., node_id: _Optional[str] = ..., reachable: _Optional[bool] = ..., grid: _Optional[str] = ..., counts: _Optional[_Iterable[_Union[StateCount, _Mapping]]] = ..., grid_jobs_max: _Optional[int] = ..., left_out: _Optional[int] = ..., troubles: _Optional[_Iterable[str]] = ...) -> None: ...

class ListPilotsRequest(_message.Message):
    __slots__ = ("site", "limit")
    SITE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    site: str
    limit: int
    def __init__(self, site: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class PilotRow(_message.Message):
    __slots__ = ("site", "pilot", "host", "resource_class", "state", "node_id", "tasks", "slots_free", "heard_ms")
    SITE_FIELD_NUMBER: _ClassVar[int]
    PILOT_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_CLASS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FREE_FIELD_NUMBER: _ClassVar[int]
    HEARD_MS_FIELD_NUMBER: _ClassVar[int]
    site: str
    pilot: str
    host: str
    resource_class: str
    state: str
    node_id: str
    tasks: _containers.RepeatedScalarFieldContainer[str]
    slots_free: int
    heard_ms: int
    def __init__(self, site: _Optional[str] = ..., pilot: _Optional[str] = ..., host: _Optional[str] = ..., resource_class: _Optional[str] = ..., state: _Optional[str] = ..., node_id: _Optional[str] = ..., tasks: _Optional[_Iterable[str]] = ..., slots_free: _Optional[int] = ..., heard_ms: _Optional[int] = ...) -> None: ...

class ListPilotsReply(_message.Message):
    __slots__ = ("pilots", "silent_nodes", "left_out")
    PILOTS_FIELD_NUMBER: _ClassVar[int]
    SILENT_NODES_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    pilots: _containers.RepeatedCompositeFieldContainer[PilotRow]
    silent_nodes: _containers.RepeatedScalarFieldContainer[str]
    left_out: int
    def __init__(self, pilots: _Optional[_Iterable[_Union[PilotRow, _Mapping]]] = ..., silent_nodes: _Optional[_Iterable[str]] = ..., left_out: _Optional[int] = ...) -> None: ...

class TestSiteRequest(_message.Message):
    __slots__ = ("site", "resource_class", "wait_s", "node_id")
    SITE_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_CLASS_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    site: str
    resource_class: str
    wait_s: int
    node_id: str
    def __init__(self, site: _Optional[str] = ..., resource_class: _Optional[str] = ..., wait_s: _Optional[int] = ..., node_id: _Optional[str] = ...) -> None: ...

class TestStep(_message.Message):
    __slots__ = ("name", "result", "text", "remedy", "took_ms", "node_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    TOOK_MS_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    result: str
    text: str
    remedy: str
    took_ms: int
    node_id: str
    def __init__(self, name: _Optional[str] = ..., result: _Optional[str] = ..., text: _Optional[str] = ..., remedy: _Optional[str] = ..., took_ms: _Optional[int] = ..., node_id: _Optional[str] = ...) -> None: ...

class ClusterStatusRequest(_message.Message):
    __slots__ = ("read",)
    READ_FIELD_NUMBER: _ClassVar[int]
    read: Read
    def __init__(self, read: _Optional[_Union[Read, _Mapping]] = ...) -> None: ...

class MemberStatus(_message.Message):
    __slots__ = ("node_id", "site", "address", "role", "leader", "reachable", "version", "last_index", "applied_index", "lag", "digest", "digest_index", "round_trip_ms", "certificate_days", "disk_used_bytes", "disk_free_bytes", "failed", "server_name", "enrol_address", "wall_ms", "version_least", "version_most", "troubles", "authority_days", "root_days", "people_days", "roots")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    REACHABLE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    APPLIED_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    DIGEST_INDEX_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_MS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_DAYS_FIELD_NUMBER: _ClassVar[int]
    DISK_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    SERVER_NAME_FIELD_NUMBER: _ClassVar[int]
    ENROL_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    WALL_MS_FIELD_NUMBER: _ClassVar[int]
    VERSION_LEAST_FIELD_NUMBER: _ClassVar[int]
    VERSION_MOST_FIELD_NUMBER: _ClassVar[int]
    TROUBLES_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_DAYS_FIELD_NUMBER: _ClassVar[int]
    ROOT_DAYS_FIELD_NUMBER: _ClassVar[int]
    PEOPLE_DAYS_FIELD_NUMBER: _ClassVar[int]
    ROOTS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    site: str
    address: str
    role: str
    leader: bool
    reachable: bool
    version: str
    last_index: int
    applied_index: int
    lag: int
    digest: str
    digest_index: int
    round_trip_ms: float
    certificate_days: int
    disk_used_bytes: int
    disk_free_bytes: int
    failed: str
    server_name: str
    enrol_address: str
    wall_ms: int
    version_least: int
    version_most: int
    troubles: _containers.RepeatedScalarFieldContainer[str]
    authority_days: int
    root_days: int
    people_days: int
    roots: int
    def __init__(self, node_id: _Optional[str] = ..., site: _Optional[str] = ..., address: _Optional[str] = ..., role: _Optional[str] = ..., leader: _Optional[bool] = ..., reachable: _Optional[bool] = ..., version: _Optional[str] = ..., last_index: _Optional[int] = ..., applied_index: _Optional[int] = ..., lag: _Optional[int] = ..., digest: _Optional[str] = ..., digest_index: _Optional[int] = ..., round_trip_ms: _Optional[float] = ..., certificate_days: _Optional[int] = ..., disk_used_bytes: _Optional[int] = ..., disk_free_bytes: _Optional[int] = ..., failed: _Optional[str] = ..., server_name: _Optional[str] = ..., enrol_address: _Optional[str] = ..., wall_ms: _Optional[int] = ..., version_least: _Optional[int] = ..., version_most: _Optional[int] = ..., troubles: _Optional[_Iterable[str]] = ..., authority_days: _Optional[int] = ..., root_days: _Optional[int] = ..., people_days: _Optional[int] = ..., roots: _Optional[int] = ...) -> None: ...

class ClusterStatusReply(_message.Message):
    __slots__ = ("cluster", "term", "leader", "health", "members", "digests_equal", "sites", "problems", "info", "ledger_version", "ledger_version_possible", "epoch")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_EQUAL_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    LEDGER_VERSION_FIELD_NUMBER: _ClassVar[int]
    LEDGER_VERSION_POSSIBLE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    term: int
    leader: str
    health: str
    members: _containers.RepeatedCompositeFieldContainer[MemberStatus]
    digests_equal: bool
    sites: _containers.RepeatedCompositeFieldContainer[SiteRow]
    problems: _containers.RepeatedScalarFieldContainer[str]
    info: ReadInfo
    ledger_version: int
    ledger_version_possible: int
    epoch: int
    def __init__(self, cluster: _Optional[str] = ..., term: _Optional[int] = ..., leader: _Optional[str] = ..., health: _Optional[str] = ..., members: _Optional[_Iterable[_Union[MemberStatus, _Mapping]]] = ..., digests_equal: _Optional[bool] = ..., sites: _Optional[_Iterable[_Union[SiteRow, _Mapping]]] = ..., problems: _Optional[_Iterable[str]] = ..., info: _Optional[_Union[ReadInfo, _Mapping]] = ..., ledger_version: _Optional[int] = ..., ledger_version_possible: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class BackupRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckClusterRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckClusterReply(_message.Message):
    __slots__ = ("violations", "info")
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    violations: _containers.RepeatedScalarFieldContainer[str]
    info: ReadInfo
    def __init__(self, violations: _Optional[_Iterable[str]] = ..., info: _Optional[_Union[ReadInfo, _Mapping]] = ...) -> None: ...

class InviteRequest(_message.Message):
    __slots__ = ("site", "lifetime_s", "request_id")
    SITE_FIELD_NUMBER: _ClassVar[int]
    LIFETIME_S_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    site: str
    lifetime_s: int
    request_id: bytes
    def __init__(self, site: _Optional[str] = ..., lifetime_s: _Optional[int] = ..., request_id: _Optional[bytes] = ...) -> None: ...

class InviteReply(_message.Message):
    __slots__ = ("line", "expires_s")
    LINE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_S_FIELD_NUMBER: _ClassVar[int]
    line: str
    expires_s: int
    def __init__(self, line: _Optional[str] = ..., expires_s: _Optional[int] = ...) -> None: ...

class ControlMemberRequest(_message.Message):
    __slots__ = ("node_id", "verb", "request_id", "wait_s")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    verb: str
    request_id: bytes
    wait_s: int
    def __init__(self, node_id: _Optional[str] = ..., verb: _Optional[str] = ..., request_id: _Optional[bytes] = ..., wait_s: _Optional[int] = ...) -> None: ...

class RotateRequest(_message.Message):
    __slots__ = ("what", "name", "request_id")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    what: str
    name: str
    request_id: bytes
    def __init__(self, what: _Optional[str] = ..., name: _Optional[str] = ..., request_id: _Optional[bytes] = ...) -> None: ...

class ListAuthoritiesRequest(_message.Message):
    __slots__ = ("read", "scope", "after", "limit")
    READ_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    read: Read
    scope: str
    after: str
    limit: int
    def __init__(self, read: _Optional[_Union[Read, _Mapping]] = ..., scope: _Optional[str] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class AuthorityRow(_message.Message):
    __slots__ = ("scope", "authority", "node_ids", "standing", "days", "listed_by")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    NODE_IDS_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    DAYS_FIELD_NUMBER: _ClassVar[int]
    LISTED_BY_FIELD_NUMBER: _ClassVar[int]
    scope: str
    authority: str
    node_ids: _containers.RepeatedScalarFieldContainer[str]
    standing: str
    days: int
    listed_by: str
    def __init__(self, scope: _Optional[str] = ..., authority: _Optional[str] = ..., node_ids: _Optional[_Iterable[str]] = ..., standing: _Optional[str] = ..., days: _Optional[int] = ..., listed_by: _Optional[str] = ...) -> None: ...

class ListAuthoritiesReply(_message.Message):
    __slots__ = ("rows", "info", "next_after")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    NEXT_AFTER_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[AuthorityRow]
    info: ReadInfo
    next_after: str
    def __init__(self, rows: _Optional[_Iterable[_Union[AuthorityRow, _Mapping]]] = ..., info: _Optional[_Union[ReadInfo, _Mapping]] = ..., next_after: _Optional[str] = ...) -> None: ...

class EndAuthorityRequest(_message.Message):
    __slots__ = ("scope", "authority", "reason", "request_id")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    scope: str
    authority: str
    reason: str
    request_id: bytes
    def __init__(self, scope: _Optional[str] = ..., authority: _Optional[str] = ..., reason: _Optional[str] = ..., request_id: _Optional[bytes] = ...) -> None: ...

class RaiseVersionRequest(_message.Message):
    __slots__ = ("to", "request_id")
    TO_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    to: int
    request_id: bytes
    def __init__(self, to: _Optional[int] = ..., request_id: _Optional[bytes] = ...) -> None: ...

class AuditRow(_message.Message):
    __slots__ = ("index", "at_ms", "actor", "what", "outcome")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    index: int
    at_ms: int
    actor: str
    what: str
    outcome: str
    def __init__(self, index: _Optional[int] = ..., at_ms: _Optional[int] = ..., actor: _Optional[str] = ..., what: _Optional[str] = ..., outcome: _Optional[str] = ...) -> None: ...

class ListAuditRequest(_message.Message):
    __slots__ = ("read", "after", "limit")
    READ_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    read: Read
    after: int
    limit: int
    def __init__(self, read: _Optional[_Union[Read, _Mapping]] = ..., after: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ListAuditReply(_message.Message):
    __slots__ = ("rows", "info")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[AuditRow]
    info: ReadInfo
    def __init__(self, rows: _Optional[_Iterable[_Union[AuditRow, _Mapping]]] = ..., info: _Optional[_Union[ReadInfo, _Mapping]] = ...) -> None: ...

class PersonRow(_message.Message):
    __slots__ = ("name", "role", "groups")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    groups: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., groups: _Optional[_Iterable[str]] = ...) -> None: ...

class ListPeopleRequest(_message.Message):
    __slots__ = ("read", "after", "limit")
    READ_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    read: Read
    after: str
    limit: int
    def __init__(self, read: _Optional[_Union[Read, _Mapping]] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListPeopleReply(_message.Message):
    __slots__ = ("people", "info", "next_after")
    PEOPLE_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    NEXT_AFTER_FIELD_NUMBER: _ClassVar[int]
    people: _containers.RepeatedCompositeFieldContainer[PersonRow]
    info: ReadInfo
    next_after: str
    def __init__(self, people: _Optional[_Iterable[_Union[PersonRow, _Mapping]]] = ..., info: _Optional[_Union[ReadInfo, _Mapping]] = ..., next_after: _Optional[str] = ...) -> None: ...

class SetPersonRequest(_message.Message):
    __slots__ = ("name", "role", "groups", "groups_given", "add", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_GIVEN_FIELD_NUMBER: _ClassVar[int]
    ADD_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    groups: _containers.RepeatedScalarFieldContainer[str]
    groups_given: bool
    add: bool
    request_id: bytes
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., groups: _Optional[_Iterable[str]] = ..., groups_given: _Optional[bool] = ..., add: _Optional[bool] = ..., request_id: _Optional[bytes] = ...) -> None: ...

class RevokePersonRequest(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PublishSoftwareRequest(_message.Message):
    __slots__ = ("build", "request_id")
    BUILD_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    build: _common_pb2.SoftwareBuild
    request_id: bytes
    def __init__(self, build: _Optional[_Union[_common_pb2.SoftwareBuild, _Mapping]] = ..., request_id: _Optional[bytes] = ...) -> None: ...

class ListSoftwareRequest(_message.Message):
    __slots__ = ("read", "name", "version", "after", "limit")
    READ_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    read: Read
    name: str
    version: str
    after: str
    limit: int
    def __init__(self, read: _Optional[_Union[Read, _Mapping]] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListSoftwareReply(_message.Message):
    __slots__ = ("builds", "info", "next_after")
    BUILDS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    NEXT_AFTER_FIELD_NUMBER: _ClassVar[int]
    builds: _containers.RepeatedCompositeFieldContainer[_common_pb2.SoftwareBuild]
    info: ReadInfo
    next_after: str
    def __init__(self, builds: _Optional[_Iterable[_Union[_common_pb2.SoftwareBuild, _Mapping]]] = ..., info: _Optional[_Union[ReadInfo, _Mapping]] = ..., next_after: _Optional[str] = ...) -> None: ...

class RetireSoftwareRequest(_message.Message):
    __slots__ = ("name", "version", "platform", "forget", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    FORGET_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    platform: str
    forget: bool
    request_id: bytes
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., platform: _Optional[str] = ..., forget: _Optional[bool] = ..., request_id: _Optional[bytes] = ...) -> None: ...
