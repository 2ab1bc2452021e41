from . import common_pb2 as _common_pb2
from . import control_pb2 as _control_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Frame(_message.Message):
    __slots__ = ("body",)
    BODY_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    def __init__(self, body: _Optional[bytes] = ...) -> None: ...

class HasBlobsRequest(_message.Message):
    __slots__ = ("sha256", "read_again")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    READ_AGAIN_FIELD_NUMBER: _ClassVar[int]
    sha256: _containers.RepeatedScalarFieldContainer[str]
    read_again: bool
    def __init__(self, sha256: _Optional[_Iterable[str]] = ..., read_again: _Optional[bool] = ...) -> None: ...

class HasBlobsReply(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sha256: _Optional[_Iterable[str]] = ...) -> None: ...

class GetMemberRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IssueAuthorityRequest(_message.Message):
    __slots__ = ("scope", "csr_pem")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    CSR_PEM_FIELD_NUMBER: _ClassVar[int]
    scope: str
    csr_pem: bytes
    def __init__(self, scope: _Optional[str] = ..., csr_pem: _Optional[bytes] = ...) -> None: ...

class IssueAuthorityReply(_message.Message):
    __slots__ = ("authority_pem",)
    AUTHORITY_PEM_FIELD_NUMBER: _ClassVar[int]
    authority_pem: bytes
    def __init__(self, authority_pem: _Optional[bytes] = ...) -> None: ...
