from . import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetRootRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetRootReply(_message.Message):
    __slots__ = ("root_pem", "cluster", "nodes")
    ROOT_PEM_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    root_pem: bytes
    cluster: str
    nodes: _containers.RepeatedCompositeFieldContainer[_common_pb2.NodeAddress]
    def __init__(self, root_pem: _Optional[bytes] = ..., cluster: _Optional[str] = ..., nodes: _Optional[_Iterable[_Union[_common_pb2.NodeAddress, _Mapping]]] = ...) -> None: ...

class LoginRequest(_message.Message):
    __slots__ = ("name", "password", "csr_pem", "token")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    CSR_PEM_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    password: str
    csr_pem: bytes
    token: str
    def __init__(self, name: _Optional[str] = ..., password: _Optional[str] = ..., csr_pem: _Optional[bytes] = ..., token: _Optional[str] = ...) -> None: ...

class LoginReply(_message.Message):
    __slots__ = ("chain_pem", "root_pem", "cluster", "nodes", "lifetime_s", "role")
    CHAIN_PEM_FIELD_NUMBER: _ClassVar[int]
    ROOT_PEM_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    LIFETIME_S_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    chain_pem: bytes
    root_pem: bytes
    cluster: str
    nodes: _containers.RepeatedCompositeFieldContainer[_common_pb2.NodeAddress]
    lifetime_s: int
    role: str
    def __init__(self, chain_pem: _Optional[bytes] = ..., root_pem: _Optional[bytes] = ..., cluster: _Optional[str] = ..., nodes: _Optional[_Iterable[_Union[_common_pb2.NodeAddress, _Mapping]]] = ..., lifetime_s: _Optional[int] = ..., role: _Optional[str] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("token", "site", "node_id", "address", "enrol_address", "node_csr_pem", "authority_csr_pem", "passkey_key_id", "passkey_public_key", "version_least", "version_most", "replaces")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ENROL_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NODE_CSR_PEM_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_CSR_PEM_FIELD_NUMBER: _ClassVar[int]
    PASSKEY_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PASSKEY_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    VERSION_LEAST_FIELD_NUMBER: _ClassVar[int]
    VERSION_MOST_FIELD_NUMBER: _ClassVar[int]
    REPLACES_FIELD_NUMBER: _ClassVar[int]
    token: str
    site: str
    node_id: str
    address: str
    enrol_address: str
    node_csr_pem: bytes
    authority_csr_pem: bytes
    passkey_key_id: str
    passkey_public_key: bytes
    version_least: int
    version_most: int
    replaces: str
    def __init__(self, token: _Optional[str] = ..., site: _Optional[str] = ..., node_id: _Optional[str] = ..., address: _Optional[str] = ..., enrol_address: _Optional[str] = ..., node_csr_pem: _Optional[bytes] = ..., authority_csr_pem: _Optional[bytes] = ..., passkey_key_id: _Optional[str] = ..., passkey_public_key: _Optional[bytes] = ..., version_least: _Optional[int] = ..., version_most: _Optional[int] = ..., replaces: _Optional[str] = ...) -> None: ...

class ReadmitRequest(_message.Message):
    __slots__ = ("site", "node_id", "replaces", "address", "enrol_address", "node_chain_pem", "passkey_key_id", "passkey_public_key", "signature", "version_least", "version_most")
    SITE_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    REPLACES_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ENROL_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NODE_CHAIN_PEM_FIELD_NUMBER: _ClassVar[int]
    PASSKEY_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PASSKEY_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    VERSION_LEAST_FIELD_NUMBER: _ClassVar[int]
    VERSION_MOST_FIELD_NUMBER: _ClassVar[int]
    site: str
    node_id: str
    replaces: str
    address: str
    enrol_address: str
    node_chain_pem: bytes
    passkey_key_id: str
    passkey_public_key: bytes
    signature: bytes
    version_least: int
    version_most: int
    def __init__(self, site: _Optional[str] = ..., node_id: _Optional[str] = ..., replaces: _Optional[str] = ..., address: _Optional[str] = ..., enrol_address: _Optional[str] = ..., node_chain_pem: _Optional[bytes] = ..., passkey_key_id: _Optional[str] = ..., passkey_public_key: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., version_least: _Optional[int] = ..., version_most: _Optional[int] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("cluster", "root_pem", "authority_pem", "nodes")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    ROOT_PEM_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_PEM_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    root_pem: bytes
    authority_pem: bytes
    nodes: _containers.RepeatedCompositeFieldContainer[_common_pb2.NodeAddress]
    def __init__(self, cluster: _Optional[str] = ..., root_pem: _Optional[bytes] = ..., authority_pem: _Optional[bytes] = ..., nodes: _Optional[_Iterable[_Union[_common_pb2.NodeAddress, _Mapping]]] = ...) -> None: ...

class EnrolPilotRequest(_message.Message):
    __slots__ = ("pilot", "secret", "csr_pem", "host")
    PILOT_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    CSR_PEM_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    pilot: str
    secret: str
    csr_pem: bytes
    host: str
    def __init__(self, pilot: _Optional[str] = ..., secret: _Optional[str] = ..., csr_pem: _Optional[bytes] = ..., host: _Optional[str] = ...) -> None: ...

class EnrolPilotReply(_message.Message):
    __slots__ = ("chain_pem", "root_pem", "cluster", "nodes", "lifetime_s")
    CHAIN_PEM_FIELD_NUMBER: _ClassVar[int]
    ROOT_PEM_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    LIFETIME_S_FIELD_NUMBER: _ClassVar[int]
    chain_pem: bytes
    root_pem: bytes
    cluster: str
    nodes: _containers.RepeatedCompositeFieldContainer[_common_pb2.NodeAddress]
    lifetime_s: int
    def __init__(self, chain_pem: _Optional[bytes] = ..., root_pem: _Optional[bytes] = ..., cluster: _Optional[str] = ..., nodes: _Optional[_Iterable[_Union[_common_pb2.NodeAddress, _Mapping]]] = ..., lifetime_s: _Optional[int] = ...) -> None: ...
