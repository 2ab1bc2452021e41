"""The cluster's roots: two at most stand, while one takes the other's turn, and one that was retired never returns."""

from __future__ import annotations

from hashlib import sha256

import msgspec

from iceprod_p2p.ledger import keys, limits
from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger import records_trust as rt
from iceprod_p2p.ledger.commands_trust import AddAuthority
from iceprod_p2p.ledger.outcome import Refusal, Refused
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.ledger.versions import AUTHORITIES_TOLD
from iceprod_p2p.model.site import MemberRole


def add_root(t: Tables, command: AddAuthority, node: r.NodeRecord) -> Refused | None:
    """List a further root; None when it stands."""
    assert t.cluster is not None
    if node.member.role is not MemberRole.VOTER:
        return Refused(Refusal.NOT_ALLOWED, f"node {command.node_id} is an observer: voters list roots")
    counts_retired = t.version < AUTHORITIES_TOLD
    if counts_retired and command.certificate == t.cluster.root_certificate:
        return None
    known = _rows(t)
    standing = _standing(t, known)
    digest = sha256(command.certificate).digest()
    key = keys.ROOT + digest
    if key in standing:
        return None
    if counts_retired and any(known_key == key for known_key, _ in known):
        return None
    if t.numbers.get(keys.RETIRED_ROOT + digest) is not None:
        return Refused(Refusal.NOT_ALLOWED, f"root {digest.hex()[:16]} was retired, and never returns")
    if len(standing) >= limits.ROOTS_STANDING_MAX or (counts_retired and len(known) >= limits.ROOTS_MAX):
        return Refused(Refusal.LIMIT, "another root takes its turn already: let that one end first")
    number = max((record.number for _, record in known), default=0) + 1
    t.roots.put(key, rt.RootRecord(command.certificate, command.above, number, t.now_ms))
    return None


def _rows(t: Tables) -> list[tuple[bytes, rt.RootRecord]]:
    return t.roots.under(keys.ROOT, limits.ROOTS_MAX + limits.ROOTS_STANDING_MAX)


def _standing(t: Tables, known: list[tuple[bytes, rt.RootRecord]]) -> set[bytes]:
    """Return the keys of the roots that stand, the founding one included until it is noted that it retired."""
    assert t.cluster is not None
    digest = sha256(t.cluster.root_certificate).digest()
    standing = {key for key, record in known if not record.retired}
    if t.numbers.get(keys.RETIRED_ROOT + digest) is not None:
        return standing
    founding = keys.ROOT + digest
    return standing if any(key == founding for key, _ in known) else standing | {founding}


def retire_root(t: Tables, certificate: bytes, node: r.NodeRecord) -> Refused | None:
    """List a root no more; None when it stands no more."""
    if node.member.role is not MemberRole.VOTER:
        return Refused(Refusal.NOT_ALLOWED, f"node {node.member.node_id} is an observer: voters retire roots")
    standing = _standing(t, _rows(t))
    key = keys.ROOT + sha256(certificate).digest()
    if key not in standing:
        return None
    if len(standing) == 1:
        return Refused(Refusal.NOT_ALLOWED, "the last root of a cluster stays")
    if t.version >= AUTHORITIES_TOLD:
        _remember_retired(t, key)
        return None
    record = t.roots.get(key) or rt.RootRecord(certificate, b"", 0, 0)
    t.roots.put(key, msgspec.structs.replace(record, retired=True))
    return None


def _remember_retired(t: Tables, key: bytes) -> None:
    """Keep of a root only that it was retired, and forget the first of those, but for the founding one, when there
    are too many.
    """
    assert t.cluster is not None
    if t.roots.get(key) is not None:
        t.roots.delete(key)
    founding = keys.RETIRED_ROOT + sha256(t.cluster.root_certificate).digest()
    retired = t.numbers.under(keys.RETIRED_ROOT, limits.ROOTS_RETIRED_MAX)
    if len(retired) >= limits.ROOTS_RETIRED_MAX:
        later = [(at_ms, known) for known, at_ms in retired if known != founding]
        t.numbers.delete(min(later)[1])
    t.numbers.put(keys.RETIRED_ROOT + key[1:], t.now_ms)


def forget_rows_of_retired(t: Tables) -> None:
    """At the upgrade: of roots that were retired before, too, only their names are kept."""
    for key, record in _rows(t):
        if record.retired:
            _remember_retired(t, key)
