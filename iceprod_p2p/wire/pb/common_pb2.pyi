from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskRef(_message.Message):
    __slots__ = ("dataset", "job", "task", "attempt")
    DATASET_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    dataset: int
    job: int
    task: int
    attempt: int
    def __init__(self, dataset: _Optional[int] = ..., job: _Optional[int] = ..., task: _Optional[int] = ..., attempt: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("body", "offset")
    BODY_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    offset: int
    def __init__(self, body: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...

class BlobRequest(_message.Message):
    __slots__ = ("sha256", "offset")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    offset: int
    def __init__(self, sha256: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class BlobReply(_message.Message):
    __slots__ = ("sha256", "size_bytes")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    size_bytes: int
    def __init__(self, sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class UploadState(_message.Message):
    __slots__ = ("kept_bytes", "kept_sha256", "whole")
    KEPT_BYTES_FIELD_NUMBER: _ClassVar[int]
    KEPT_SHA256_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    kept_bytes: int
    kept_sha256: str
    whole: bool
    def __init__(self, kept_bytes: _Optional[int] = ..., kept_sha256: _Optional[str] = ..., whole: _Optional[bool] = ...) -> None: ...

class PutBlobPart(_message.Message):
    __slots__ = ("announced", "chunk")
    ANNOUNCED_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    announced: BlobReply
    chunk: Chunk
    def __init__(self, announced: _Optional[_Union[BlobReply, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ...) -> None: ...

class FileEntry(_message.Message):
    __slots__ = ("name", "size_bytes", "sha256", "kind", "checksums", "urls")
    class ChecksumsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CHECKSUMS_FIELD_NUMBER: _ClassVar[int]
    URLS_FIELD_NUMBER: _ClassVar[int]
    name: str
    size_bytes: int
    sha256: str
    kind: str
    checksums: _containers.ScalarMap[str, str]
    urls: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., kind: _Optional[str] = ..., checksums: _Optional[_Mapping[str, str]] = ..., urls: _Optional[_Iterable[str]] = ...) -> None: ...

class Requirements(_message.Message):
    __slots__ = ("cpus", "gpus", "memory_mib", "disk_mib", "walltime_s", "attributes")
    CPUS_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MIB_FIELD_NUMBER: _ClassVar[int]
    DISK_MIB_FIELD_NUMBER: _ClassVar[int]
    WALLTIME_S_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    cpus: int
    gpus: int
    memory_mib: int
    disk_mib: int
    walltime_s: int
    attributes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, cpus: _Optional[int] = ..., gpus: _Optional[int] = ..., memory_mib: _Optional[int] = ..., disk_mib: _Optional[int] = ..., walltime_s: _Optional[int] = ..., attributes: _Optional[_Iterable[str]] = ...) -> None: ...

class SoftwareBuild(_message.Message):
    __slots__ = ("name", "version", "os", "arch", "libc", "python", "sha256", "size_bytes", "kind", "variables", "owner", "description", "published_ms", "retired", "platform")
    class VariablesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OS_FIELD_NUMBER: _ClassVar[int]
    ARCH_FIELD_NUMBER: _ClassVar[int]
    LIBC_FIELD_NUMBER: _ClassVar[int]
    PYTHON_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_MS_FIELD_NUMBER: _ClassVar[int]
    RETIRED_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    os: str
    arch: str
    libc: str
    python: str
    sha256: str
    size_bytes: int
    kind: str
    variables: _containers.ScalarMap[str, str]
    owner: str
    description: str
    published_ms: int
    retired: bool
    platform: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., os: _Optional[str] = ..., arch: _Optional[str] = ..., libc: _Optional[str] = ..., python: _Optional[str] = ..., sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ..., kind: _Optional[str] = ..., variables: _Optional[_Mapping[str, str]] = ..., owner: _Optional[str] = ..., description: _Optional[str] = ..., published_ms: _Optional[int] = ..., retired: _Optional[bool] = ..., platform: _Optional[str] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("wall_ms", "cpu_ms", "memory_peak_mib", "disk_peak_mib")
    WALL_MS_FIELD_NUMBER: _ClassVar[int]
    CPU_MS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PEAK_MIB_FIELD_NUMBER: _ClassVar[int]
    DISK_PEAK_MIB_FIELD_NUMBER: _ClassVar[int]
    wall_ms: int
    cpu_ms: int
    memory_peak_mib: int
    disk_peak_mib: int
    def __init__(self, wall_ms: _Optional[int] = ..., cpu_ms: _Optional[int] = ..., memory_peak_mib: _Optional[int] = ..., disk_peak_mib: _Optional[int] = ...) -> None: ...

class NodeAddress(_message.Message):
    __slots__ = ("node_id", "site", "address", "server_name", "role", "enrol_address")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SERVER_NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ENROL_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    site: str
    address: str
    server_name: str
    role: str
    enrol_address: str
    def __init__(self, node_id: _Optional[str] = ..., site: _Optional[str] = ..., address: _Optional[str] = ..., server_name: _Optional[str] = ..., role: _Optional[str] = ..., enrol_address: _Optional[str] = ...) -> None: ...
