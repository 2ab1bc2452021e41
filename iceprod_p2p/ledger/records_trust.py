"""What the ledger keeps of authorities and of people who were shut out; stored as `ledger.records` says."""

from __future__ import annotations

import msgspec


class RootRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A root that came after the founding one; the founding one too, once it stands no more (`number` 0)."""

    certificate: bytes
    above: bytes  # The certificate of its key by the root before.
    number: int
    at_ms: int
    retired: bool = False


class AuthoritiesRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The authorities by which one node vouches for people."""

    certificates: tuple[bytes, ...] = ()


class NodeAuthorities(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The authorities that a node signs with, by the SHA-256 of their certificates; empty: none, or not told."""

    site: bytes = b""
    people: bytes = b""


class ShutOutRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Somebody whose access was ended: while `out` nothing of theirs counts, later nothing from before `before_ms`."""

    reason: str
    at_ms: int
    before_ms: int  # Wall time.
    out: bool
