"""A tally of one statistic over many tasks: count, sum, sum of squares, minimum, maximum; exact in any order.

Every finite double is a whole number times a power of two, so sums are kept as such and never rounded: adding
and taking back (after a reset) in any order gives the same bytes.  What is shown is rounded once, at the end.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import msgspec

_encode: Final = msgspec.msgpack.Encoder().encode


class Dyadic:
    """An exact number ``mantissa * 2**exponent``, changed in place."""

    __slots__ = ("exponent", "mantissa")

    def __init__(self, mantissa: int = 0, exponent: int = 0) -> None:
        self.mantissa = mantissa
        self.exponent = exponent

    def add(self, mantissa: int, exponent: int) -> None:
        """Add ``mantissa * 2**exponent``."""
        if not self.mantissa:
            self.mantissa, self.exponent = mantissa, exponent
        elif exponent >= self.exponent:
            self.mantissa += mantissa << (exponent - self.exponent)
        else:
            self.mantissa = (self.mantissa << (self.exponent - exponent)) + mantissa
            self.exponent = exponent

    def normal(self) -> tuple[int, int]:
        """Return the one form with an odd mantissa (or 0, 0), so that equal numbers have equal bytes."""
        if not self.mantissa:
            return 0, 0
        zeros = (self.mantissa & -self.mantissa).bit_length() - 1
        return self.mantissa >> zeros, self.exponent + zeros

    def fraction(self) -> Fraction:
        """Return the number as a fraction."""
        if self.exponent >= 0:
            return Fraction(self.mantissa << self.exponent)
        return Fraction(self.mantissa, 1 << -self.exponent)


class Tally:
    """One statistic over the tasks that reported it. `minimum` and `maximum` may be stale after a reset."""

    __slots__ = ("count", "maximum", "minimum", "squares", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = Dyadic()
        self.squares = Dyadic()
        self.minimum = float("inf")
        self.maximum = float("-inf")

    def add(self, value: float) -> None:
        """Count one finite value in."""
        mantissa, denominator = value.as_integer_ratio()
        exponent = 1 - denominator.bit_length()
        self.count += 1
        total, squares = self.total, self.squares
        if total.mantissa and exponent >= total.exponent:  # The usual case, without a call.
            total.mantissa += mantissa << exponent - total.exponent
        else:
            total.add(mantissa, exponent)
        if squares.mantissa and exponent * 2 >= squares.exponent:
            squares.mantissa += mantissa * mantissa << exponent * 2 - squares.exponent
        else:
            squares.add(mantissa * mantissa, exponent * 2)
        if value < self.minimum:
            self.minimum = value
        if value > self.maximum:
            self.maximum = value

    def take_back(self, value: float) -> bool:
        """Count one value out again; return whether it was an extreme, so that these must be found anew."""
        mantissa, exponent = split(value)
        self.count -= 1
        self.total.add(-mantissa, exponent)
        self.squares.add(-mantissa * mantissa, exponent * 2)
        return self.count > 0 and (value <= self.minimum or value >= self.maximum)

    def forget_extremes(self) -> None:
        """Begin to find minimum and maximum anew."""
        self.minimum, self.maximum = float("inf"), float("-inf")

    def widen(self, value: float) -> None:
        """Let minimum and maximum include a value that is counted already."""
        self.minimum = min(self.minimum, value)
        self.maximum = max(self.maximum, value)


def split(value: float) -> tuple[int, int]:
    """Return a finite float as ``(mantissa, exponent)``, exactly."""
    numerator, denominator = value.as_integer_ratio()
    return numerator, 1 - denominator.bit_length()


def encode_tallies(tallies: dict[str, Tally]) -> bytes:
    """Return the stored form, keys in order."""
    return _encode(
        [
            (name, t.count, *_stored(t.total), *_stored(t.squares), t.minimum, t.maximum)
            for name, t in sorted(tallies.items())
        ]
    )


_Row = tuple[str, int, bytes, int, bytes, int, float, float]
_decode: Final = msgspec.msgpack.Decoder(list[_Row]).decode


def decode_tallies(data: bytes) -> dict[str, Tally]:
    """Read the stored form."""
    tallies: dict[str, Tally] = {}
    for name, count, total, total_exponent, squares, squares_exponent, minimum, maximum in _decode(data):
        tally = Tally()
        tally.count = count
        tally.total = Dyadic(int.from_bytes(total, "big", signed=True), total_exponent)
        tally.squares = Dyadic(int.from_bytes(squares, "big", signed=True), squares_exponent)
        tally.minimum, tally.maximum = minimum, maximum
        tallies[name] = tally
    return tallies


def _stored(number: Dyadic) -> tuple[bytes, int]:
    mantissa, exponent = number.normal()
    return mantissa.to_bytes(mantissa.bit_length() // 8 + 1, "big", signed=True), exponent
