"""The only door to randomness: identifiers and secrets from the operating system's generator."""

from __future__ import annotations

import os
import secrets
from typing import Final

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.model.identity import is_site_name

_ALPHABET: Final = "abcdefghijkmnpqrstuvwxyz23456789"  # 32 signs; no l, o, 0, 1, which people misread.
_SECRET_BYTES: Final = 32
_WALL_MASK: Final = (1 << 48) - 1


def new_request_id() -> bytes:
    """Return 16 random bytes that name one request for ever."""
    return os.urandom(16)


def new_ordered_request_id(wall_ms: int) -> bytes:
    """Return 16 bytes that name one request for ever: the time in milliseconds, then 80 random bits.

    Requests made at about the same time lie side by side in the ledger's memory of requests, so that an entry
    of a hundred touches a few pages of the store instead of a hundred.  A wall clock that jumps costs only that.
    """
    return (wall_ms & _WALL_MASK).to_bytes(6, "big") + os.urandom(10)


class Jitter:
    """Chance where no secret is at stake: the random part of time-outs and pauses."""

    def random(self) -> float:
        """Return a number in [0, 1)."""
        return int.from_bytes(os.urandom(6), "big") / (1 << 48)


def new_passkey_id() -> bytes:
    """Return 16 random bytes that name one passkey."""
    return os.urandom(16)


def new_secret() -> str:
    """Return a secret of 256 bits as 43 letters, digits, `-` and `_`."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def new_salt() -> bytes:
    """Return 16 random bytes for a password's digest."""
    return os.urandom(16)


def new_seed() -> int:
    """Return a dataset's seed: 63 random bits, so that it is a positive signed integer everywhere."""
    return secrets.randbits(63)


def new_node_id(site: str) -> str:
    """Return an id such as ``madison-k3f9x2``, a new DNS label; a wiped node takes a new one."""
    if not is_site_name(site):
        raise BadInput(f"{site!r} cannot name a site", remedy="use lower-case letters, digits and '-'")
    return f"{site[:50].rstrip('-')}-{_letters(6)}"


def new_pilot_id() -> str:
    """Return an id such as ``p-7hq2m9kd4c``."""
    return f"p-{_letters(10)}"


def new_mark() -> str:
    """Return 32 hexadecimal digits that mark what belongs together on one machine."""
    return os.urandom(16).hex()


def _letters(count: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(count))
