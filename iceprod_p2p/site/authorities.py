"""The authorities that the ledger lists, as administrators see them: who signs with which, and which are left over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from iceprod_p2p.base.errors import BadInput, IceProdError, NotFound
from iceprod_p2p.ledger import queries
from iceprod_p2p.ledger.keyvalue import KeyValue
from iceprod_p2p.model.identity import PEOPLE
from iceprod_p2p.security.certificates import (
    certificate_from_der,
    certificate_key,
    days_left,
    key_identifier,
)
from iceprod_p2p.wire.pb import control_pb2

ROOT: Final = "root"
PAGE: Final = 500
PREFIX_LEAST: Final = 8  # Hexadecimal digits that name an authority.


@dataclass(frozen=True, slots=True)
class Authority:
    """One listed authority, unread: `of` names the node that listed it, for people's."""

    scope: str
    certificate: bytes
    of: str = ""

    @property
    def digest(self) -> bytes:
        """The SHA-256 of its certificate."""
        return sha256(self.certificate).digest()

    @property
    def key_id(self) -> str:
        """The name by which certificates say who issued them; empty when this one cannot be read."""
        try:
            return key_identifier(certificate_key(certificate_from_der(self.certificate))).hex()
        except IceProdError:
            return ""


def list_authorities(
    kv: KeyValue, request: control_pb2.ListAuthoritiesRequest, *, now_ms: int
) -> control_pb2.ListAuthoritiesReply:
    """Return a page of the authorities, ordered by scope and digest; only certificates of the page are read."""
    told = queries.node_authorities(kv)
    users: Mapping[bytes, list[str]] = _users(told)
    unused = queries.unused_authorities(kv)
    silent = {node.member.site for node in queries.nodes(kv) if node.member.node_id not in told}
    found = sorted(_all(kv, request.scope), key=_name)
    page = [one for one in found if _name(one) > request.after][: min(request.limit or PAGE, PAGE)]
    rows = [
        control_pb2.AuthorityRow(
            scope=one.scope,
            authority=one.digest.hex(),
            node_ids=users.get(one.digest, []),
            standing=_standing(one, users, unused, silent, told),
            days=_days(one.certificate, now_ms),
            listed_by=one.of,
        )
        for one in page
    ]
    more = bool(page) and page[-1] is not found[-1]
    return control_pb2.ListAuthoritiesReply(rows=rows, next_after=_name(page[-1]) if more else "")


def find_authority(kv: KeyValue, scope: str, prefix: str) -> Authority:
    """Return the one authority of `scope` that begins so; BadInput or NotFound, in words, when there is no such one."""
    if not PREFIX_LEAST <= len(prefix) <= 64 or set(prefix) - set("0123456789abcdef"):
        raise BadInput(
            "an authority is named by the SHA-256 of its certificate, in lower-case hexadecimal digits",
            remedy=f"give at least {PREFIX_LEAST} of them: `iceprod cluster authorities`",
        )
    if scope == ROOT:
        raise BadInput("a root ends by itself, when nothing needs it", remedy="iceprod cluster rotate root")
    found = {one.digest: one for one in _all(kv, scope) if scope and one.digest.hex().startswith(prefix)}
    if len(found) != 1:
        raise NotFound(
            f"{len(found)} authorities of {scope!r} begin with {prefix}",
            remedy="see `iceprod cluster authorities`",
        )
    return next(iter(found.values()))


def _all(kv: KeyValue, scope: str) -> list[Authority]:
    every = [Authority(site, der) for site, der in queries.issuing_authorities(kv)]
    every += [Authority(PEOPLE, der, node_id) for node_id, der in queries.people_authorities(kv)]
    every += [Authority(ROOT, row.certificate) for row in queries.roots(kv)]
    return [one for one in every if scope in ("", one.scope)]


def _name(one: Authority) -> str:
    return f"{one.scope}/{one.digest.hex()}/{one.of}"


def _users(told: Mapping[str, tuple[bytes, bytes]]) -> dict[bytes, list[str]]:
    users: dict[bytes, list[str]] = defaultdict(list)
    for node_id, digests in sorted(told.items()):
        for digest in digests:
            if digest:
                users[digest].append(node_id)
    return users


def _standing(
    one: Authority,
    users: Mapping[bytes, list[str]],
    unused: frozenset[bytes],
    silent: set[str],
    told: Mapping[str, tuple[bytes, bytes]],
) -> str:
    if one.scope == ROOT:
        return "stands"
    if one.digest in users:
        return "used"
    if one.scope in silent or (one.scope == PEOPLE and one.of not in told):
        return "not told"
    return "never used" if one.digest in unused else "left"


def _days(certificate: bytes, now_ms: int) -> int:
    try:
        return days_left(certificate_from_der(certificate), now_ms)
    except IceProdError:
        return -1
