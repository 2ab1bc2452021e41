"""The smallest replicated state machine that shows lost, doubled and reordered commands: named counters.

Its entries have the ledger's outer form, so the engine sees no difference.  A command is ``["add", name, n, padding]``,
``["member", node id, role]`` (an empty role removes) or anything else, which is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from iceprod_p2p.model.site import Member, MemberRole

PROGRESS = b"\x01p"
MEMBER = b"\x02"
REQUEST = b"\x03"
COUNTER = b"\x04"
_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.decode


def proposal(request_id: bytes, command: list[Any]) -> bytes:
    """Return the encoded proposal of a command."""
    return _encode([request_id, 0, "test", command])


class CounterMachine:
    """`process.Machine` over counters."""

    def genesis(self, members: Sequence[Member]) -> bytes:
        """Return the first entry of a cluster with these members."""
        return _encode(
            [
                [bytes([number]) * 16, 0, "founder", ["member", member.node_id, str(member.role)]]
                for number, member in enumerate(members)
            ]
        )

    def apply(self, kv: Any, index: int, term: int, entry: bytes) -> list[Any]:
        applied, digest = self._progress(kv)
        assert index == applied + 1, f"entry {index} applied after {applied}"
        outcomes = []
        for request_id, _made_at_ms, _actor, command in _decode(entry):
            known = kv.get(REQUEST + request_id)
            outcome = _decode(known) if known is not None else self._command(kv, command)
            if known is None:
                kv.put(REQUEST + request_id, _encode(outcome))
            outcomes.append(outcome)
        digest = blake2b(digest + entry + _encode(outcomes), digest_size=16).digest()
        kv.put(PROGRESS, _encode([index, digest]))
        return outcomes

    def _command(self, kv: Any, command: Any) -> list[Any]:
        match command:
            case ["add", str(name), int(n), str()]:
                key = COUNTER + name.encode()
                total = int.from_bytes(kv.get(key) or b"", "big") + n
                kv.put(key, total.to_bytes(8, "big"))
                return ["applied", total]
            case ["member", str(node_id), ""]:
                kv.delete(MEMBER + node_id.encode())
                return ["applied", 0]
            case ["member", str(node_id), str(role)]:
                kv.put(MEMBER + node_id.encode(), role.encode())
                return ["applied", 0]
        return ["refused", "malformed"]

    def _progress(self, kv: Any) -> tuple[int, bytes]:
        raw = kv.get(PROGRESS)
        return (0, bytes(16)) if raw is None else tuple(_decode(raw))

    def read_members(self, kv: Any) -> list[Member]:
        return [
            Member(key[1:].decode(), key[1:].decode(), "", MemberRole(role.decode()))
            for key, role in kv.scan(MEMBER, REQUEST)
        ]

    def changes_members(self, body: bytes) -> bool:
        try:
            return bool(_decode(body)[3][0] == "member")
        except (msgspec.DecodeError, IndexError, TypeError):
            return False

    def entry_changes_members(self, entry: bytes) -> bool:
        return b"member" in entry

    def digest(self, kv: Any) -> bytes:
        return self._progress(kv)[1]

    def applied_index(self, kv: Any) -> int:
        return self._progress(kv)[0]

    def ledger_time_ms(self, kv: Any) -> int:
        return 0

    def counters(self, kv: Any) -> dict[str, int]:
        """Return every counter."""
        return {
            key[1:].decode(): int.from_bytes(value, "big")
            for key, value in kv.scan(COUNTER, bytes([COUNTER[0] + 1]))
        }
