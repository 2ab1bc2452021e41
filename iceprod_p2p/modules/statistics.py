"""What a statistic may be: a short name and a finite number.

Statistics are summed over a whole dataset, so one NaN would spoil every sum after it: it is refused here,
at its origin, by name.  Anything with `__float__` (an integer, a NumPy scalar) counts as a number; text
does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from iceprod_p2p.base.errors import BadInput

STATISTICS_MAX = 256  # per task: more the ledger would refuse
STATISTIC_NAME_CHARS_MAX = 128


def check_name(name: object) -> str:
    """Return `name` if it may name a statistic.

    BadInput when it is no text, empty, too long or unprintable.
    """
    if (
        not isinstance(name, str)
        or not name
        or len(name) > STATISTIC_NAME_CHARS_MAX
        or not name.isprintable()
    ):
        raise BadInput(
            f"{clip(name)} cannot name a statistic",
            remedy=f"a name is 1 to {STATISTIC_NAME_CHARS_MAX} printable characters",
        )
    return name


def check_value(name: str, value: object) -> float:
    """Return `value` as a float; BadInput, naming the statistic, when it is no number or not finite."""
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise BadInput(f"statistic {name!r} is {clip(value)}, not a number")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as wrong:
        raise BadInput(f"statistic {name!r} is {clip(value)}, not one number: {wrong}") from wrong
    if not math.isfinite(number):
        raise BadInput(
            f"statistic {name!r} is {number}, not a finite number", remedy="leave it out when it has no value"
        )
    return number


def check_all(statistics: Mapping[Any, Any]) -> dict[str, float]:
    """Return every statistic checked, in the order given; BadInput at the first that is not one."""
    if len(statistics) > STATISTICS_MAX:
        raise BadInput(f"{len(statistics)} statistics are more than the {STATISTICS_MAX} a task may report")
    checked: dict[str, float] = {}
    for name, value in statistics.items():
        text = check_name(name)
        checked[text] = check_value(text, value)
    return checked


def clip(value: object, limit: int = 80) -> str:
    """Return `repr(value)` cut to `limit` characters, for messages."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
