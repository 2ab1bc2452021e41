"""Amounts as people read them: sizes, durations, times, counts."""

from __future__ import annotations

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(size_bytes: float) -> str:
    """Return ``1.5 MiB`` for 1572864; whole bytes below 1 KiB."""
    amount, unit = float(size_bytes), 0
    while abs(amount) >= 1024 and unit < len(_SIZES) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.0f} B" if unit == 0 else f"{amount:.1f} {_SIZES[unit]}"


def counted(count: int, noun: str) -> str:
    """Return ``1 job``, ``2 jobs``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def share(thousandths: int) -> str:
    """Return a priority as it is typed: ``0.5`` for 500."""
    return f"{thousandths / 1000:g}"


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
