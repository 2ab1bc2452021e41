from . import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CredentialsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StorageCredential(_message.Message):
    __slots__ = ("urls", "read_back", "texts", "files")
    class TextsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class FilesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    URLS_FIELD_NUMBER: _ClassVar[int]
    READ_BACK_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    urls: _containers.RepeatedScalarFieldContainer[str]
    read_back: bool
    texts: _containers.ScalarMap[str, str]
    files: _containers.ScalarMap[str, bytes]
    def __init__(self, urls: _Optional[_Iterable[str]] = ..., read_back: _Optional[bool] = ..., texts: _Optional[_Mapping[str, str]] = ..., files: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class CredentialsReply(_message.Message):
    __slots__ = ("servers",)
    SERVERS_FIELD_NUMBER: _ClassVar[int]
    servers: _containers.RepeatedCompositeFieldContainer[StorageCredential]
    def __init__(self, servers: _Optional[_Iterable[_Union[StorageCredential, _Mapping]]] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr_pem",)
    CSR_PEM_FIELD_NUMBER: _ClassVar[int]
    csr_pem: bytes
    def __init__(self, csr_pem: _Optional[bytes] = ...) -> None: ...

class RenewReply(_message.Message):
    __slots__ = ("chain_pem", "lifetime_s", "root_pem")
    CHAIN_PEM_FIELD_NUMBER: _ClassVar[int]
    LIFETIME_S_FIELD_NUMBER: _ClassVar[int]
    ROOT_PEM_FIELD_NUMBER: _ClassVar[int]
    chain_pem: bytes
    lifetime_s: int
    root_pem: bytes
    def __init__(self, chain_pem: _Optional[bytes] = ..., lifetime_s: _Optional[int] = ..., root_pem: _Optional[bytes] = ...) -> None: ...

class Free(_message.Message):
    __slots__ = ("slots", "cpus", "gpus", "memory_mib", "disk_mib", "walltime_s", "attributes")
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MIB_FIELD_NUMBER: _ClassVar[int]
    DISK_MIB_FIELD_NUMBER: _ClassVar[int]
    WALLTIME_S_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    slots: int
    cpus: int
    gpus: int
    memory_mib: int
    disk_mib: int
    walltime_s: int
    attributes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, slots: _Optional[int] = ..., cpus: _Optional[int] = ..., gpus: _Optional[int] = ..., memory_mib: _Optional[int] = ..., disk_mib: _Optional[int] = ..., walltime_s: _Optional[int] = ..., attributes: _Optional[_Iterable[str]] = ...) -> None: ...

class ExchangeRequest(_message.Message):
    __slots__ = ("host", "free", "reports", "running", "ending", "resource_class", "exchange_id")
    HOST_FIELD_NUMBER: _ClassVar[int]
    FREE_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    ENDING_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_CLASS_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_ID_FIELD_NUMBER: _ClassVar[int]
    host: str
    free: Free
    reports: _containers.RepeatedCompositeFieldContainer[Report]
    running: _containers.RepeatedCompositeFieldContainer[Running]
    ending: bool
    resource_class: str
    exchange_id: int
    def __init__(self, host: _Optional[str] = ..., free: _Optional[_Union[Free, _Mapping]] = ..., reports: _Optional[_Iterable[_Union[Report, _Mapping]]] = ..., running: _Optional[_Iterable[_Union[Running, _Mapping]]] = ..., ending: _Optional[bool] = ..., resource_class: _Optional[str] = ..., exchange_id: _Optional[int] = ...) -> None: ...

class Running(_message.Message):
    __slots__ = ("ref", "passkey", "phase", "progress", "note")
    REF_FIELD_NUMBER: _ClassVar[int]
    PASSKEY_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    ref: _common_pb2.TaskRef
    passkey: bytes
    phase: str
    progress: float
    note: str
    def __init__(self, ref: _Optional[_Union[_common_pb2.TaskRef, _Mapping]] = ..., passkey: _Optional[bytes] = ..., phase: _Optional[str] = ..., progress: _Optional[float] = ..., note: _Optional[str] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("report_id", "ref", "passkey", "copying", "finished", "failed", "given_back")
    REPORT_ID_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    PASSKEY_FIELD_NUMBER: _ClassVar[int]
    COPYING_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    GIVEN_BACK_FIELD_NUMBER: _ClassVar[int]
    report_id: int
    ref: _common_pb2.TaskRef
    passkey: bytes
    copying: Copying
    finished: Finished
    failed: Failed
    given_back: GivenBack
    def __init__(self, report_id: _Optional[int] = ..., ref: _Optional[_Union[_common_pb2.TaskRef, _Mapping]] = ..., passkey: _Optional[bytes] = ..., copying: _Optional[_Union[Copying, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ..., given_back: _Optional[_Union[GivenBack, _Mapping]] = ...) -> None: ...

class Copying(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Finished(_message.Message):
    __slots__ = ("statistics", "files", "usage")
    class StatisticsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    statistics: _containers.ScalarMap[str, float]
    files: _containers.RepeatedCompositeFieldContainer[_common_pb2.FileEntry]
    usage: _common_pb2.Usage
    def __init__(self, statistics: _Optional[_Mapping[str, float]] = ..., files: _Optional[_Iterable[_Union[_common_pb2.FileEntry, _Mapping]]] = ..., usage: _Optional[_Union[_common_pb2.Usage, _Mapping]] = ...) -> None: ...

class Failed(_message.Message):
    __slots__ = ("reason", "message", "exit_code", "usage", "files")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    exit_code: int
    usage: _common_pb2.Usage
    files: _containers.RepeatedCompositeFieldContainer[_common_pb2.FileEntry]
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., exit_code: _Optional[int] = ..., usage: _Optional[_Union[_common_pb2.Usage, _Mapping]] = ..., files: _Optional[_Iterable[_Union[_common_pb2.FileEntry, _Mapping]]] = ...) -> None: ...

class GivenBack(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("report_id", "accepted", "refusal", "detail")
    REPORT_ID_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    report_id: int
    accepted: bool
    refusal: str
    detail: str
    def __init__(self, report_id: _Optional[int] = ..., accepted: _Optional[bool] = ..., refusal: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class Order(_message.Message):
    __slots__ = ("ref", "passkey", "steering_sha256", "task_name", "jobs", "seed", "requirements", "system", "environment", "follows")
    class SystemEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class EnvironmentEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REF_FIELD_NUMBER: _ClassVar[int]
    PASSKEY_FIELD_NUMBER: _ClassVar[int]
    STEERING_SHA256_FIELD_NUMBER: _ClassVar[int]
    TASK_NAME_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    REQUIREMENTS_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    FOLLOWS_FIELD_NUMBER: _ClassVar[int]
    ref: _common_pb2.TaskRef
    passkey: bytes
    steering_sha256: str
    task_name: str
    jobs: int
    seed: int
    requirements: _common_pb2.Requirements
    system: _containers.ScalarMap[str, str]
    environment: _containers.ScalarMap[str, str]
    follows: int
    def __init__(self, ref: _Optional[_Union[_common_pb2.TaskRef, _Mapping]] = ..., passkey: _Optional[bytes] = ..., steering_sha256: _Optional[str] = ..., task_name: _Optional[str] = ..., jobs: _Optional[int] = ..., seed: _Optional[int] = ..., requirements: _Optional[_Union[_common_pb2.Requirements, _Mapping]] = ..., system: _Optional[_Mapping[str, str]] = ..., environment: _Optional[_Mapping[str, str]] = ..., follows: _Optional[int] = ...) -> None: ...

class ExchangeReply(_message.Message):
    __slots__ = ("acks", "orders", "stop", "nodes", "drain", "poll_ms")
    ACKS_FIELD_NUMBER: _ClassVar[int]
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    POLL_MS_FIELD_NUMBER: _ClassVar[int]
    acks: _containers.RepeatedCompositeFieldContainer[Ack]
    orders: _containers.RepeatedCompositeFieldContainer[Order]
    stop: _containers.RepeatedCompositeFieldContainer[_common_pb2.TaskRef]
    nodes: _containers.RepeatedCompositeFieldContainer[_common_pb2.NodeAddress]
    drain: bool
    poll_ms: int
    def __init__(self, acks: _Optional[_Iterable[_Union[Ack, _Mapping]]] = ..., orders: _Optional[_Iterable[_Union[Order, _Mapping]]] = ..., stop: _Optional[_Iterable[_Union[_common_pb2.TaskRef, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[_common_pb2.NodeAddress, _Mapping]]] = ..., drain: _Optional[bool] = ..., poll_ms: _Optional[int] = ...) -> None: ...

class ResolveRequest(_message.Message):
    __slots__ = ("dataset", "job", "names")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    dataset: int
    job: int
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, dataset: _Optional[int] = ..., job: _Optional[int] = ..., names: _Optional[_Iterable[str]] = ...) -> None: ...

class ResolvedFile(_message.Message):
    __slots__ = ("name", "found", "file", "sites")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    name: str
    found: bool
    file: _common_pb2.FileEntry
    sites: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., found: _Optional[bool] = ..., file: _Optional[_Union[_common_pb2.FileEntry, _Mapping]] = ..., sites: _Optional[_Iterable[str]] = ...) -> None: ...

class ResolveReply(_message.Message):
    __slots__ = ("files",)
    FILES_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[ResolvedFile]
    def __init__(self, files: _Optional[_Iterable[_Union[ResolvedFile, _Mapping]]] = ...) -> None: ...

class SoftwareRequest(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class SoftwareReply(_message.Message):
    __slots__ = ("builds",)
    BUILDS_FIELD_NUMBER: _ClassVar[int]
    builds: _containers.RepeatedCompositeFieldContainer[_common_pb2.SoftwareBuild]
    def __init__(self, builds: _Optional[_Iterable[_Union[_common_pb2.SoftwareBuild, _Mapping]]] = ...) -> None: ...

class SiteCall(_message.Message):
    __slots__ = ("ref", "passkey", "method", "argument")
    REF_FIELD_NUMBER: _ClassVar[int]
    PASSKEY_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ARGUMENT_FIELD_NUMBER: _ClassVar[int]
    ref: _common_pb2.TaskRef
    passkey: bytes
    method: str
    argument: bytes
    def __init__(self, ref: _Optional[_Union[_common_pb2.TaskRef, _Mapping]] = ..., passkey: _Optional[bytes] = ..., method: _Optional[str] = ..., argument: _Optional[bytes] = ...) -> None: ...

class SiteAnswer(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    def __init__(self, value: _Optional[bytes] = ...) -> None: ...

class FindFilesRequest(_message.Message):
    __slots__ = ("dataset", "pattern", "more", "after_job", "after_name", "job")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_JOB_FIELD_NUMBER: _ClassVar[int]
    AFTER_NAME_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    dataset: int
    pattern: str
    more: bool
    after_job: int
    after_name: str
    job: int
    def __init__(self, dataset: _Optional[int] = ..., pattern: _Optional[str] = ..., more: _Optional[bool] = ..., after_job: _Optional[int] = ..., after_name: _Optional[str] = ..., job: _Optional[int] = ...) -> None: ...

class FoundFile(_message.Message):
    __slots__ = ("dataset", "job", "file")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    dataset: int
    job: int
    file: _common_pb2.FileEntry
    def __init__(self, dataset: _Optional[int] = ..., job: _Optional[int] = ..., file: _Optional[_Union[_common_pb2.FileEntry, _Mapping]] = ...) -> None: ...

class FindFilesReply(_message.Message):
    __slots__ = ("files", "more", "next_job", "next_name")
    FILES_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    NEXT_JOB_FIELD_NUMBER: _ClassVar[int]
    NEXT_NAME_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[FoundFile]
    more: bool
    next_job: int
    next_name: str
    def __init__(self, files: _Optional[_Iterable[_Union[FoundFile, _Mapping]]] = ..., more: _Optional[bool] = ..., next_job: _Optional[int] = ..., next_name: _Optional[str] = ...) -> None: ...
