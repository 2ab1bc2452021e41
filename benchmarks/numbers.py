"""Numbers as people read them: percentiles, medians, rates."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` % of `values` do not exceed; NaN for none."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def median(values: Sequence[float]) -> float:
    """Return the middle value, or the mean of the two in the middle; NaN for none."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def thinned(values: Sequence[int], most: int) -> list[int]:
    """Return at most `most` of `values`, evenly picked in order of size, so that percentiles stay."""
    ordered = sorted(values)
    if len(ordered) <= most:
        return ordered
    return [ordered[number * (len(ordered) - 1) // (most - 1)] for number in range(most)]


def rate(value: float) -> str:
    """Write a number of things a second: three digits that count."""
    if math.isnan(value):
        return "-"
    if value >= 1_000:
        digits = -len(str(int(value))) + 3
        return f"{round(value, digits):,.0f}"
    return f"{value:.0f}"


def milliseconds(value_us: float) -> str:
    """Write a time given in microseconds."""
    if math.isnan(value_us):
        return "-"
    value_ms = value_us / 1e3
    return f"{value_ms:.2f}" if value_ms < 10 else f"{value_ms:.1f}" if value_ms < 100 else f"{value_ms:,.0f}"


def ratio(value: float) -> str:
    """Write a quotient."""
    return "-" if math.isnan(value) else f"{value:.2f}"
