"""How deep MessagePack bytes are nested, found without reading them as anything.

A library skips what it does not know by calling itself, and gives up where the interpreter's stack happens to end:
not at the same depth on every replica.  So the ledger sets its own bound and looks first.
"""

from __future__ import annotations

from typing import Final

NESTING_MAX: Final = 32  # A command needs six.

# First byte -> how many bytes follow it, and how many of those are the length of what comes then.
_PLAIN: Final = (
    {0xC0: 0, 0xC1: 0, 0xC2: 0, 0xC3: 0}
    | {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
    | {0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}  # Extensions of fixed length, with their type.
)
_SIZED: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXTENSION: Final = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_ARRAY: Final = {0xDC: 2, 0xDD: 4}
_MAP: Final = {0xDE: 2, 0xDF: 4}


def is_flat_enough(data: bytes) -> bool:
    """Return whether nothing in `data` is nested deeper than NESTING_MAX. Cost: one step per value; never raises.

    Bytes that end too early, or are no MessagePack, are flat enough: whoever reads them says what is wrong.
    """
    at, left = 0, [1]  # How many values are still to come at each level.
    while left:
        if not left[-1]:
            left.pop()
            continue
        if at >= len(data):
            return True
        left[-1] -= 1
        inside, at = _step(data, at)
        if inside:
            if len(left) > NESTING_MAX:
                return False
            left.append(inside)
    return True


def _step(data: bytes, at: int) -> tuple[int, int]:
    """Return how many values the one at `at` holds inside, and where the next begins."""
    first = data[at]
    at += 1
    if first < 0x80 or first >= 0xE0:
        return 0, at
    if first < 0x90:
        return 2 * (first & 15), at
    if first < 0xA0:
        return first & 15, at
    if first < 0xC0:
        return 0, at + (first & 31)
    if first in _PLAIN:
        return 0, at + _PLAIN[first]
    for kinds, values in ((_ARRAY, 1), (_MAP, 2)):
        if first in kinds:
            end = at + kinds[first]
            return values * int.from_bytes(data[at:end], "big"), end
    extra = 1 if first in _EXTENSION else 0
    end = at + (_EXTENSION[first] if extra else _SIZED[first])
    return 0, end + int.from_bytes(data[at:end], "big") + extra
