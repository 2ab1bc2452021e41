"""The frames that nodes exchange: MessagePack arrays, each beginning with the number of its kind.

A frame never names its sender: that is who the link's certificate says.  Nothing here is trusted further than
its shape; every number is checked again where it is used.  Kind numbers are never reused.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.raft.settings import FRAME_BYTES_MAX, REQUEST_ID_BYTES

# What msgspec raises for bytes that are not what was asked for: also of texts, and of what is nested deeply.
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

Counting = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62))]
Digest = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
RequestId = Annotated[bytes, msgspec.Meta(min_length=REQUEST_ID_BYTES, max_length=REQUEST_ID_BYTES)]
SnapshotId = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class VoteRequest(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Asks for a vote in `term`; with `pre`, only whether one would be given (dissertation 9.6).

    `applied` is the candidate's applied index: an observer answers only a candidate that knows more than
    itself, which may have applied the observer's promotion.  `transfer`: the leader asked for this election.
    """

    term: Counting
    last_index: Counting
    last_term: Counting
    applied: Counting
    pre: bool
    transfer: bool
    session: Counting = 0


class VoteReply(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A vote given or not; `term` is the one asked for when granted, else the voter's own."""

    term: Counting
    pre: bool
    granted: bool
    session: Counting = 0


class Append(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Entries that follow `prev_index`; `prev_digest` is the digest of the whole log up to there."""

    term: Counting
    prev_index: Counting
    prev_term: Counting
    prev_digest: Digest
    commit: Counting
    entries: list[tuple[Counting, bytes]]


class AppendReply(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """`ok`: the log agrees up to `index`, durably.  Otherwise `index` is the refused `prev_index`, and `hint`
    where the leader should try next."""

    term: Counting
    ok: bool
    index: Counting
    hint: Counting
    session: Counting = 0


class Heartbeat(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The leader lives; `commit` never exceeds what this follower has acknowledged.  `round` is echoed."""

    term: Counting
    commit: Counting
    round: Counting
    session: Counting = 0


class HeartbeatReply(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """The follower heard heartbeat `round` of the leader of `term`."""

    term: Counting
    round: Counting


class TimeoutNow(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """The leader of `term` hands over: start an election at once (dissertation 3.10)."""

    term: Counting


class Forward(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Proposals for the leader: (request id, encoded proposal, whether it changes the members)."""

    proposals: list[tuple[RequestId, bytes, bool]]


class ForwardRefused(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """These proposals were not taken (not the leader, or busy); send them again later."""

    request_ids: list[RequestId]


class ReadQuery(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Which index must be applied for a read that begins now to be linearizable?"""

    token: Counting


class ReadAnswer(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Apply up to `index`, then read; `known` is false when the asked node does not lead."""

    token: Counting
    known: bool
    index: Counting


class SnapshotOffer(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """The leader of `term` no longer holds the entries needed, but has the tables as of `index`."""

    term: Counting
    snapshot_id: SnapshotId
    index: Counting
    index_term: Counting
    digest: Digest


class SnapshotPull(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """Send pages from number `page` on, whose keys come after `after` (resumes after any loss)."""

    snapshot_id: SnapshotId
    page: Counting
    after: bytes


class SnapshotPage(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """One page of sorted pairs; the last carries the SHA-256 of all pairs and their number."""

    snapshot_id: SnapshotId
    page: Counting
    pairs: list[tuple[bytes, bytes]]
    last: bool
    sha256: bytes
    pair_count: Counting


class SnapshotDone(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """The follower has what a snapshot at `index` gives (installed, or it was ahead already)."""

    term: Counting
    snapshot_id: SnapshotId
    index: Counting
    session: Counting = 0


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """Introduces a session: what its node has on its disk (`promises`)."""

    incarnation: Annotated[bytes, msgspec.Meta(max_length=32)]
    boot: Counting
    session: Counting
    term: Counting
    vote: Annotated[str, msgspec.Meta(max_length=255)]
    acked: Counting
    last_index: Counting


class HelloWanted(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """What you said does not count yet: introduce your session."""


class HelloRefused(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """This session's node has gone back behind what it promised: it may not take part."""

    session: Counting
    reason: Annotated[str, msgspec.Meta(max_length=512)]


class StateDigest(msgspec.Struct, frozen=True, array_like=True, tag=19):
    """The sender's state after entry `index` has this digest (`comparing`)."""

    index: Counting
    digest: Annotated[bytes, msgspec.Meta(max_length=64)]


class StateDiffers(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """A majority of the voters has this digest after entry `index`, and the receiver told another."""

    index: Counting
    digest: Annotated[bytes, msgspec.Meta(max_length=64)]


class HandOver(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """Somebody asks the leader to hand leadership to `to` (empty: the most complete voter)."""

    to: Annotated[str, msgspec.Meta(max_length=255)]


Message = (
    VoteRequest
    | VoteReply
    | Append
    | AppendReply
    | Heartbeat
    | HeartbeatReply
    | TimeoutNow
    | Forward
    | ForwardRefused
    | ReadQuery
    | ReadAnswer
    | SnapshotOffer
    | SnapshotPull
    | SnapshotPage
    | SnapshotDone
    | Hello
    | HelloWanted
    | HelloRefused
    | StateDigest
    | StateDiffers
    | HandOver
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)

encode = _encoder.encode

_DATA: Final = frozenset({3, 8})
_BULK: Final = frozenset({14})


def decode(frame: bytes) -> Message:
    """Read one frame; BadInput when it is too long or no message of ours, in time linear in its length."""
    if len(frame) > FRAME_BYTES_MAX:
        raise BadInput(f"a frame of {len(frame)} bytes is longer than {FRAME_BYTES_MAX}")
    try:
        return _decoder.decode(frame)
    except UNREADABLE as cause:
        raise BadInput(f"a frame is no message of this cluster: {cause}") from cause


def urgency(frame: bytes) -> int:
    """Return 0 for heartbeats, votes and answers, 1 for entries and proposals, 2 for pages of a snapshot.

    A link sends a lower number first, so that no heartbeat waits behind data.
    """
    kind = frame[1] if len(frame) > 1 else 0
    if kind in _DATA:
        return 1
    return 2 if kind in _BULK else 0
