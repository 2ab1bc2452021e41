"""Passkeys: the signed word that one pilot may work on one attempt of one task.

A passkey is an Ed25519 signature (64 bytes) followed by the canonical MessagePack array of its claims, at
most 512 bytes.  It names no algorithm: there is one.  The edge checks signature, audience and time (ledger
time, so that a skewed wall clock harms nobody); attempt, holder and state are checked once more when the
ledger applies a report, so that a passkey of an earlier attempt is worthless at once, on every node.

Source: arXiv:1311.5904, 3.2 (each job is given a passkey by the queueing daemon).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from iceprod_p2p.base.errors import ConfigError, NotAllowed

PASSKEY_BYTES_MAX: Final = 512
VERSION: Final = 1
NOT_BEFORE_SLACK_MS: Final = 60_000  # Ledger time of a node that lags a little is behind that of the issuer.
_FIELD: Final = (1 << 255) - 19  # Of edwards25519.
_OCTIC_Y: Final = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_SMALL_ORDER_Y: Final = frozenset({0, 1, _FIELD - 1, _OCTIC_Y, _FIELD - _OCTIC_Y})
_SIGNATURE_BYTES: Final = 64
_CONTEXT: Final = b"iceprod passkey 1\x00"  # Keeps the signature from meaning anything elsewhere.


class Purpose(StrEnum):
    """What a passkey is for; a passkey of one purpose is worthless for another."""

    TASK = "task"


class Operation(StrEnum):
    """What the holder may do for the task; written in this order."""

    FETCH = "fetch"  # Inputs and the steering document.
    REPORT = "report"
    STORE = "store"  # Outputs and logs.


class PasskeyFault(StrEnum):
    """Why a passkey was refused: one stable word per reason."""

    TOO_LONG = "passkey_too_long"
    MALFORMED = "passkey_malformed"
    NOT_CANONICAL = "passkey_not_canonical"
    WRONG_VERSION = "passkey_version"
    UNKNOWN_KEY = "passkey_unknown_key"
    BAD_SIGNATURE = "passkey_signature"
    WRONG_CLUSTER = "passkey_cluster"
    WRONG_ISSUER = "passkey_issuer"
    WRONG_PURPOSE = "passkey_purpose"
    NOT_YET_VALID = "passkey_not_yet_valid"
    EXPIRED = "passkey_expired"
    WRONG_HOLDER = "passkey_holder"
    WRONG_TASK = "passkey_task"
    WRONG_SITE = "passkey_site"
    NOT_GRANTED = "passkey_operation"


class PasskeyRefused(NotAllowed):
    """A passkey that is not accepted; `fault` is the reason's stable word."""

    def __init__(self, fault: PasskeyFault, message: str) -> None:
        super().__init__(message, remedy="stop this attempt and ask for work again")
        self.fault = fault


Name = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]  # Every language reads it exactly.


class Claims(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a passkey says, in the order of its encoding; times are ledger time in milliseconds."""

    version: Count
    key_id: Name  # The node whose signing key made it.
    cluster: Name
    purpose: Name
    dataset: Count
    job: Count
    task: Count
    attempt: Count
    site: Name  # The site that holds the claim; its nodes alone may sign.
    pilot: Name
    holder: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]  # SHA-256 of the pilot's public key.
    operations: Annotated[tuple[Operation, ...], msgspec.Meta(min_length=1, max_length=8)]
    issued_ms: Count
    not_before_ms: Count
    expires_ms: Count
    id: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]

    @property
    def task_ref(self) -> tuple[int, int, int, int]:
        """Dataset, job, task and attempt."""
        return self.dataset, self.job, self.task, self.attempt


@dataclass(frozen=True, slots=True)
class PasskeyKey:
    """A node's public signing key as the ledger lists it: 32 bytes, and the site it may sign for."""

    site: str
    public_key: bytes


class SignedHere:
    """The latest passkeys that this process signed, so that it need not check its own signatures.

    A check costs three times a signature, and most passkeys come back to the node that made them.  Used on one
    thread; at most `most` are remembered, the oldest forgotten first.
    """

    def __init__(self, most: int = 16_384) -> None:
        self._most = most
        self._signed: OrderedDict[bytes, bytes] = OrderedDict()

    def add(self, passkey: bytes, public_key: bytes) -> None:
        """Remember a passkey and the public half of the key that signed it."""
        self._signed[passkey] = public_key
        while len(self._signed) > self._most:
            self._signed.popitem(last=False)

    def has(self, passkey: bytes, public_key: bytes) -> bool:
        """Whether these very bytes were signed here with this key."""
        return self._signed.get(passkey) == public_key


class PasskeySigner:
    """Signs passkeys with one node's Ed25519 key; safe from any thread."""

    def __init__(self, key: Ed25519PrivateKey, *, key_id: str, cluster: str, site: str) -> None:
        self._key = key
        self.key_id = key_id
        self._cluster = cluster
        self._site = site

    @property
    def public_key(self) -> bytes:
        """The 32 bytes that the ledger lists."""
        return self._key.public_key().public_bytes_raw()

    def sign(
        self,
        *,
        dataset: int,
        job: int,
        task: int,
        attempt: int,
        pilot: str,
        holder: bytes,
        passkey_id: bytes,
        now_ms: int,
        lifetime_ms: int,
        operations: tuple[Operation, ...] = tuple(Operation),
        purpose: Purpose = Purpose.TASK,
    ) -> bytes:
        """Return a passkey from ledger time `now_ms` for `lifetime_ms`; ValueError for claims that cannot
        stand.
        """
        claims = Claims(
            version=VERSION,
            key_id=self.key_id,
            cluster=self._cluster,
            purpose=purpose,
            dataset=dataset,
            job=job,
            task=task,
            attempt=attempt,
            site=self._site,
            pilot=pilot,
            holder=holder,
            operations=tuple(sorted(operations)),
            issued_ms=now_ms,
            not_before_ms=max(0, now_ms - NOT_BEFORE_SLACK_MS),
            expires_ms=now_ms + lifetime_ms,
            id=passkey_id,
        )
        payload = _ENCODER.encode(claims)
        fault = _fault_of(payload) or _contradiction(claims)
        if fault:
            raise ValueError(f"cannot sign this passkey: {fault}")
        passkey = self._key.sign(_CONTEXT + payload) + payload
        if len(passkey) > PASSKEY_BYTES_MAX:
            raise ValueError(f"the passkey would have {len(passkey)} bytes; use shorter names")
        return passkey


def verify(
    passkey: bytes,
    keys: Mapping[str, PasskeyKey],
    *,
    cluster: str,
    now_ms: int,
    operation: Operation,
    holder: bytes,
    task: tuple[int, int, int, int] | None = None,
    site: str | None = None,
    purpose: Purpose = Purpose.TASK,
    signed_here: SignedHere | None = None,
) -> Claims:
    """Return the claims of a passkey that holds at ledger time `now_ms`; PasskeyRefused with one reason
    otherwise.

    `keys` maps key ids to the signing keys in the ledger.  `holder` is the key digest of the caller's
    certificate; `task` (dataset, job, task, attempt) and `site` are compared where the caller names them.
    Everything is checked of every passkey, but for the signature of those in `signed_here`.
    """
    claims = _read(passkey)
    key = keys.get(claims.key_id)
    if key is None:
        raise PasskeyRefused(
            PasskeyFault.UNKNOWN_KEY, f"no node of this cluster signs with key {claims.key_id}"
        )
    if signed_here is None or not signed_here.has(passkey, key.public_key):
        _check_signature(passkey, key)
    _check_audience(claims, key, cluster=cluster, purpose=purpose, operation=operation)
    if now_ms < claims.not_before_ms:
        raise PasskeyRefused(PasskeyFault.NOT_YET_VALID, "the passkey is not valid yet in ledger time")
    if now_ms >= claims.expires_ms:
        raise PasskeyRefused(PasskeyFault.EXPIRED, "the passkey has expired in ledger time")
    if claims.holder != holder:
        raise PasskeyRefused(PasskeyFault.WRONG_HOLDER, "the passkey was given to another pilot")
    if task is not None and claims.task_ref != task:
        raise PasskeyRefused(
            PasskeyFault.WRONG_TASK, f"the passkey is for {_task_text(claims)}, not this one"
        )
    if site is not None and claims.site != site:
        raise PasskeyRefused(PasskeyFault.WRONG_SITE, f"the passkey is of site {claims.site}, not {site}")
    return claims


def signing_key_to_bytes(key: Ed25519PrivateKey) -> bytes:
    """Return the 32 secret bytes of a signing key, for a 0600 file."""
    return key.private_bytes_raw()


def signing_key_from_bytes(content: bytes, *, name: str) -> Ed25519PrivateKey:
    """Read a signing key; ConfigError when `name` (its file) holds something else."""
    if len(content) != 32:
        raise ConfigError(
            f"{name} is not a passkey signing key of 32 bytes", remedy="restore it, or join anew"
        )
    return Ed25519PrivateKey.from_private_bytes(content)


def new_signing_key() -> Ed25519PrivateKey:
    """Make a node's signing key."""
    return Ed25519PrivateKey.generate()


def _is_of_small_order(public_key: bytes) -> bool:
    """Return whether an Ed25519 key is one of the eight points whose signatures anybody can make (RFC 8032, 5.1)."""
    return (int.from_bytes(public_key, "little") & ((1 << 255) - 1)) % _FIELD in _SMALL_ORDER_Y


def _check_signature(passkey: bytes, key: PasskeyKey) -> None:
    if _is_of_small_order(key.public_key):
        raise PasskeyRefused(PasskeyFault.BAD_SIGNATURE, "the node's signing key is one that proves nothing")
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(
            passkey[:_SIGNATURE_BYTES], _CONTEXT + passkey[_SIGNATURE_BYTES:]
        )
    except InvalidSignature:
        raise PasskeyRefused(PasskeyFault.BAD_SIGNATURE, "the passkey's signature is wrong") from None


def _check_audience(
    claims: Claims, key: PasskeyKey, *, cluster: str, purpose: Purpose, operation: Operation
) -> None:
    if claims.cluster != cluster:
        raise PasskeyRefused(PasskeyFault.WRONG_CLUSTER, f"the passkey is of cluster {claims.cluster}")
    if claims.site != key.site:
        raise PasskeyRefused(
            PasskeyFault.WRONG_ISSUER, f"a node of {key.site} may not sign for {claims.site}"
        )
    if claims.purpose != purpose:
        raise PasskeyRefused(
            PasskeyFault.WRONG_PURPOSE, f"the passkey serves {claims.purpose!r}, not {purpose}"
        )
    if operation not in claims.operations:
        raise PasskeyRefused(PasskeyFault.NOT_GRANTED, f"the passkey does not grant {operation}")


def _read(passkey: bytes) -> Claims:
    if len(passkey) > PASSKEY_BYTES_MAX:
        raise PasskeyRefused(PasskeyFault.TOO_LONG, f"a passkey has at most {PASSKEY_BYTES_MAX} bytes")
    payload = passkey[_SIGNATURE_BYTES:]
    try:
        claims = _DECODER.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        raise PasskeyRefused(PasskeyFault.MALFORMED, "the passkey is damaged") from fault
    if claims.version != VERSION:
        raise PasskeyRefused(
            PasskeyFault.WRONG_VERSION, f"version {claims.version} of passkeys is not known here"
        )
    if _ENCODER.encode(claims) != payload or _contradiction(claims):
        raise PasskeyRefused(PasskeyFault.NOT_CANONICAL, "the passkey is not written as passkeys are")
    return claims


def _fault_of(payload: bytes) -> str:
    try:
        _DECODER.decode(payload)
    except msgspec.ValidationError as fault:
        return str(fault)
    return ""


def _contradiction(claims: Claims) -> str:
    """Say how the claims contradict each other; empty when they do not."""
    if list(claims.operations) != sorted(set(claims.operations)):
        return "operations are not in order"
    if not claims.not_before_ms <= claims.issued_ms < claims.expires_ms:
        return "it ends before it begins"
    return ""


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Claims)


def _task_text(claims: Claims) -> str:
    return f"task {claims.dataset}.{claims.job}.{claims.task} attempt {claims.attempt}"
