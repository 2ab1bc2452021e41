"""Times and sizes as batch systems print them."""

from __future__ import annotations

import re
from typing import Final

_TIME: Final = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(?:i?B)?", re.IGNORECASE)
_EXPONENT: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}


def seconds(text: str) -> float | None:
    """Read ``[days-][hours:]minutes:seconds``; None for anything else, such as INVALID."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    days, hours, minutes, rest = match.groups(default="0")
    return int(days) * 86_400 + int(hours) * 3_600 + int(minutes) * 60 + float(rest)


def mebibytes(text: str) -> int | None:
    """Read ``1234K``, ``4.602MB``, ``6980kb`` (factors of 1024, bytes without a unit), rounded up; None for
    anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    size_bytes = float(match[1]) * 1_024 ** _EXPONENT[match[2].upper()]
    return -int(-size_bytes // 1_048_576)


def whole_minutes(walltime_s: int) -> int:
    """Return `walltime_s` in minutes, rounded up."""
    return -(-walltime_s // 60)
