"""A job as four bit masks over its tasks: which are complete, failed, suspended, aborted; the others are active.

A job has such a record from its first touched task until it is complete.  A complete job needs none: all its
tasks say so.  Bit `i` stands for task `i` of the DAG.
"""

from __future__ import annotations

from typing import Final

import msgspec

from iceprod_p2p.ledger import records as r
from iceprod_p2p.ledger.transitions import JOB_ABORTED, JOB_ACTIVE, JOB_FAILED, JOB_SUSPENDED

_NATIVE_MAX: Final = 2**63
_NATIVE_BYTES: Final = 10  # A record with a mask beyond that has more.
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(
    tuple[int, int | bytes, int | bytes, int | bytes, int | bytes]
).decode


class Job:
    """The masks of one job, changed in place; `touched` is whether anything in it ever had a record."""

    __slots__ = ("aborted", "complete", "epoch", "failed", "suspended", "touched")

    def __init__(
        self,
        epoch: int,
        complete: int = 0,
        failed: int = 0,
        suspended: int = 0,
        aborted: int = 0,
        *,
        touched: bool = True,
    ) -> None:
        self.epoch = epoch
        self.complete = complete
        self.failed = failed
        self.suspended = suspended
        self.aborted = aborted
        self.touched = touched

    def kinds(self, everything: int) -> int:
        """Return the JOB_* bits: what kinds of unfinished tasks the job has."""
        kinds = 0
        if self.aborted:
            kinds = JOB_ABORTED
        if self.failed:
            kinds |= JOB_FAILED
        if self.suspended:
            kinds |= JOB_SUSPENDED
        if everything & ~(self.complete | self.failed | self.suspended | self.aborted):
            kinds |= JOB_ACTIVE
        return kinds

    def set(self, bit: int, code: int) -> None:
        """Note that the task of `bit` is now in the state of number `code`."""
        keep = ~bit
        self.complete &= keep
        self.failed &= keep
        self.suspended &= keep
        self.aborted &= keep
        if code == r.COMPLETE:
            self.complete |= bit
        elif code == r.FAILED:
            self.failed |= bit
        elif code == r.SUSPENDED:
            self.suspended |= bit
        elif code == r.ABORTED:
            self.aborted |= bit


def group(code: int) -> int:
    """Return which mask a state belongs to: its own number for the four, WAITING for all that are active."""
    return code if code in (r.COMPLETE, r.FAILED, r.SUSPENDED, r.ABORTED) else r.WAITING


def encode_job(job: Job) -> bytes:
    """Return the stored form."""
    masks = (job.complete, job.failed, job.suspended, job.aborted)
    if max(masks) >= _NATIVE_MAX:
        return _encode((job.epoch, *map(_pack, masks)))
    return _encode((job.epoch, *masks))


def decode_job(data: bytes) -> Job:
    """Read the stored form."""
    epoch, complete, failed, suspended, aborted = _decode(data)
    if len(data) > _NATIVE_BYTES:
        complete, failed, suspended, aborted = map(_unpack, (complete, failed, suspended, aborted))
    return Job(epoch, complete, failed, suspended, aborted)  # type: ignore[arg-type]


def _unpack(mask: int | bytes) -> int:
    return mask if isinstance(mask, int) else int.from_bytes(mask, "big")


def _pack(mask: int) -> int | bytes:
    return mask if mask < _NATIVE_MAX else mask.to_bytes((mask.bit_length() + 7) // 8, "big")
