"""Amounts as people read them: sizes, durations, times, counts."""

from __future__ import annotations

from datetime import datetime

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(size_bytes: float) -> str:
    """Return ``1.5 MiB`` for 1572864; whole bytes below 1 KiB."""
    amount, unit = float(size_bytes), 0
    while abs(amount) >= 1024 and unit < len(_SIZES) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.0f} B" if unit == 0 else f"{amount:.1f} {_SIZES[unit]}"


def duration(duration_ms: float) -> str:
    """Return ``850 ms``, ``12.3 s``, ``4m07s``, ``3h02m`` or ``5d04h``."""
    seconds = duration_ms / 1000
    if seconds < 1:
        return f"{duration_ms:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours < 48 else f"{hours // 24}d{hours % 24:02d}h"


def number(value: float) -> str:
    """Return a count or measured value in at most about ten characters, whole numbers exactly up to 10^15."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", " ")
    return f"{value:.6g}"


def local_time(wall_ms: int) -> str:
    """Return wall time with its zone for tables, or a dash for 0."""
    if not wall_ms:
        return "-"
    return datetime.fromtimestamp(wall_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
