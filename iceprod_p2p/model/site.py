"""Sites, their nodes, and the members of the Raft cluster."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from iceprod_p2p.model.bounds import Line, Name, Number32, Word


class MemberRole(StrEnum):
    """A `voter` elects and counts for commits; an `observer` only follows. Both claim, submit and serve pilots."""

    VOTER = "voter"
    OBSERVER = "observer"


class Member(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One node of the cluster: `address` is host:port of its mutual-TLS listener."""

    node_id: Name
    site: Name
    address: Line
    role: MemberRole


class SiteCounts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a site says of itself with each heartbeat; for display and planning, never for safety."""

    grid: Word = ""
    slots: Number32 = 0
    slots_busy: Number32 = 0
    pilots_queued: Number32 = 0
    pilots_running: Number32 = 0
    attributes: tuple[Word, ...] = ()
    version: Word = ""
