"""Amounts of requirements: from what is written to whole MiB and seconds, exactly.

A GB is 1024 MiB here, as batch systems count.  Fractions round up: a task never gets less than it asked for.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Final

from iceprod_p2p.model.steering import Value

_AMOUNT: Final = re.compile(
    r"\s*([+-]?(?:[0-9]{1,18}\.?[0-9]{0,18}|\.[0-9]{1,18})(?:[eE][+-]?[0-9]{1,2})?)\s*([A-Za-z]*)\s*"
)
_MIB: Final = {
    "": Fraction(1024),  # GB when nothing is said.
    "kib": Fraction(1, 1024),
    "kb": Fraction(1, 1024),
    "mib": Fraction(1),
    "mb": Fraction(1),
    "m": Fraction(1),
    "gib": Fraction(1024),
    "gb": Fraction(1024),
    "g": Fraction(1024),
    "tib": Fraction(1024 * 1024),
    "tb": Fraction(1024 * 1024),
    "t": Fraction(1024 * 1024),
}
_SECONDS: Final = {
    "": Fraction(3600),  # Hours when nothing is said.
    "s": Fraction(1),
    "sec": Fraction(1),
    "min": Fraction(60),
    "m": Fraction(60),
    "h": Fraction(3600),
    "hours": Fraction(3600),
    "d": Fraction(86_400),
    "days": Fraction(86_400),
}
COUNT_MAX: Final = 65_536  # CPUs or GPUs of one task.
MIB_MAX: Final = 1 << 40  # An exbibyte.
SECONDS_MAX: Final = 10 * 366 * 86_400  # Ten years.


class BadAmount(ValueError):
    """An amount is not a number, has an unknown unit, is negative, or is beyond all machines."""


def count(value: Value) -> int:
    """Return a number of CPUs or GPUs."""
    return _scaled(value, {"": Fraction(1)}, COUNT_MAX, "a whole number of 0 or more")


def mebibytes(value: Value) -> int:
    """Return an amount of memory or disk in MiB."""
    return _scaled(value, _MIB, MIB_MAX, "GB as a number of 0 or more, or with a unit: 512MB, 2.5GB, 1TB")


def seconds(value: Value) -> int:
    """Return a time in seconds."""
    return _scaled(
        value, _SECONDS, SECONDS_MAX, "hours as a number of 0 or more, or with a unit: 90min, 2h, 1d"
    )


def _scaled(value: Value, units: dict[str, Fraction], most: int, allowed: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadAmount(allowed)
    if isinstance(value, str):
        match = _AMOUNT.fullmatch(value)
        unit = units.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise BadAmount(allowed)
        number = Fraction(match[1]) * unit
    elif math.isfinite(value):
        number = Fraction(repr(value)) * units[""]  # The decimal number as written: 0.1 h are 360 s.
    else:
        raise BadAmount(allowed)
    if number < 0 or number > most:
        raise BadAmount(f"{allowed}, at most {most / units['']}")
    return math.ceil(number)
