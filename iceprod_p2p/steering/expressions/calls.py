"""What `$eval` may call: pure functions, safe methods of texts, and operators that can grow, all bounded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from iceprod_p2p.steering.expressions.errors import TooCostly, Unresolved
from iceprod_p2p.steering.expressions.formats import format_values
from iceprod_p2p.steering.expressions.sizes import check_bits, check_count, check_string, items_of
from iceprod_p2p.steering.limits import EVAL_INT_BITS_MAX

_TEXT_AS_INT_CHARS_MAX: Final = 1_300  # 4096 bits have 1234 digits; longer texts cost quadratic time.
_DIGITS_MAX: Final = 400  # For round(): beyond the exponents of a float.
_FACTORIAL_MAX: Final = 500  # Of 3768 bits.
_STRIPPED_MAX: Final = 64


def add(left: Any, right: Any) -> Any:
    """Return left + right: numbers, texts, or lists."""
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return left + right
    if isinstance(left, str) and isinstance(right, str):
        check_string(len(left) + len(right))
        return left + right
    both_lists = isinstance(left, list) and isinstance(right, list)
    if both_lists or (isinstance(left, tuple) and isinstance(right, tuple)):
        check_count(len(left) + len(right))
        return left + right
    raise Unresolved("adds what does not add up")


def multiply(left: Any, right: Any) -> Any:
    """Return left * right: numbers, or a text or list and how often."""
    if isinstance(left, int) and not isinstance(right, (int, float)):
        left, right = right, left
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        if isinstance(left, int) and isinstance(right, int):
            _check_sum_of_bits(left.bit_length() + right.bit_length())
        return left * right
    if isinstance(left, str) and isinstance(right, int):
        check_string(len(left) * max(right, 0))
        return left * right
    if isinstance(left, (list, tuple)) and isinstance(right, int):
        check_count((items_of(left) - 1) * max(right, 0))
        return left * right
    raise Unresolved("multiplies what is no number")


def power(left: Any, right: Any) -> Any:
    """Return left ** right."""
    if not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
        raise Unresolved("raises what is no number to a power")
    if isinstance(left, int) and isinstance(right, int) and right > 0 and abs(left) > 1:
        _check_sum_of_bits((abs(left).bit_length() - 1) * right)
    value = left**right
    if isinstance(value, complex):
        raise Unresolved("has the root of a negative number")
    return value


def shift_left(left: Any, right: Any) -> Any:
    """Return left << right."""
    if not (isinstance(left, int) and isinstance(right, int)):
        raise Unresolved("shifts what is no whole number")
    if right > 0:
        _check_sum_of_bits(left.bit_length() + right)
    return left << right


def modulo(left: Any, right: Any) -> Any:
    """Return left % right: a remainder, or a text with its format filled."""
    if isinstance(left, str):
        values = list(right) if isinstance(right, tuple) else [right]
        return format_values(left, values)
    if not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
        raise Unresolved("takes the remainder of what is no number")
    return left % right


def _check_sum_of_bits(bits: int) -> None:
    if bits > EVAL_INT_BITS_MAX:
        raise TooCostly(f"makes a number of more than {EVAL_INT_BITS_MAX} bits")


def _int(value: Any = 0, base: int | None = None) -> int:
    if isinstance(value, str):
        if len(value) > _TEXT_AS_INT_CHARS_MAX:
            raise TooCostly(f"reads a number of more than {_TEXT_AS_INT_CHARS_MAX} digits")
        return int(value) if base is None else int(value, base)
    if base is not None or not isinstance(value, (int, float)):
        raise Unresolved("makes a whole number of what is none")
    return int(value)


def _float(value: Any = 0.0) -> float:
    if isinstance(value, str) and len(value) > _TEXT_AS_INT_CHARS_MAX:
        raise TooCostly("reads a number of too many digits")
    if not isinstance(value, (int, float, str)):
        raise Unresolved("makes a number of what is none")
    return float(value)


def _str(value: Any = "") -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)
    check_count(items_of(value))
    text = repr(value)
    check_string(len(text))
    return text


def _round(value: Any, digits: Any = None) -> Any:
    if not isinstance(value, (int, float)) or not (digits is None or isinstance(digits, int)):
        raise Unresolved("rounds what is no number")
    if digits is not None and abs(digits) > _DIGITS_MAX:
        raise TooCostly(f"rounds to more than {_DIGITS_MAX} digits")
    return round(value, digits)


def _values(values: tuple[Any, ...]) -> list[Any]:
    found = list(values[0]) if len(values) == 1 else list(values)
    if not found:
        raise Unresolved("has an empty list")
    return found


def _sum(values: Any, start: Any = 0) -> Any:
    total = start
    for value in values:  # In order: the built-in sum compensates in some versions of Python.
        if not isinstance(value, (int, float)):
            raise Unresolved("sums what are no numbers")
        total = add(total, value)
    check_bits(total)
    return total


def _len(value: Any) -> int:
    return len(value)


def _sorted(values: Any, reverse: Any = False) -> list[Any]:
    return sorted(values, reverse=bool(reverse))


def _divmod(left: Any, right: Any) -> tuple[Any, Any]:
    if not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
        raise Unresolved("divides what is no number")
    return divmod(left, right)


def _whole(value: Any, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unresolved("needs a whole number")
    if value > most:
        raise TooCostly(f"needs a number of at most {most}")
    return value


def _comb(n: Any, k: Any) -> int:
    return math.comb(_whole(n, _FACTORIAL_MAX), _whole(k, _FACTORIAL_MAX))


def _perm(n: Any, k: Any = None) -> int:
    return math.perm(_whole(n, _FACTORIAL_MAX), None if k is None else _whole(k, _FACTORIAL_MAX))


def _prod(values: Any, start: Any = 1) -> Any:
    product = start
    for value in values:
        if not isinstance(value, (int, float)):
            raise Unresolved("multiplies what is no number")
        product = multiply(product, value)
    return product


def _math_pow(left: Any, right: Any) -> float:
    return math.pow(left, right)


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "abs": abs,
    "min": lambda *values: min(_values(values)),
    "max": lambda *values: max(_values(values)),
    "round": _round,
    "int": _int,
    "float": _float,
    "str": _str,
    "bool": bool,
    "len": _len,
    "sum": _sum,
    "sorted": _sorted,
    "any": any,
    "all": all,
    "list": lambda values=(): list(values),
    "tuple": lambda values=(): tuple(values),
    "divmod": _divmod,
    "pow": power,
    "ord": ord,
    "chr": chr,
    "hex": hex,
    "oct": oct,
    "bin": bin,
}

_MATH_PLAIN: Final = (
    *("acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "copysign", "cos", "cosh"),
    *(
        "degrees",
        "dist",
        "erf",
        "erfc",
        "exp",
        "exp2",
        "expm1",
        "fabs",
        "floor",
        "fmod",
        "frexp",
        "fsum",
        "gamma",
    ),
    *(
        "gcd",
        "hypot",
        "isclose",
        "isfinite",
        "isinf",
        "isnan",
        "isqrt",
        "lcm",
        "ldexp",
        "lgamma",
        "log",
        "log10",
        "log1p",
        "log2",
    ),
    *("modf", "nextafter", "radians", "remainder", "sin", "sinh", "sqrt", "tan", "tanh", "trunc", "ulp"),
)
MATH: Final[Mapping[str, Callable[..., Any]]] = {
    **{name: getattr(math, name) for name in _MATH_PLAIN if hasattr(math, name)},
    "comb": _comb,
    "perm": _perm,
    "factorial": lambda n: math.factorial(_whole(n, _FACTORIAL_MAX)),
    "pow": _math_pow,
    "prod": _prod,
}
MATH_CONSTANTS: Final[Mapping[str, float]] = {
    "pi": math.pi,
    "e": math.e,
    "tau": math.tau,
    "inf": math.inf,
}


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    times = text.count(old) if old else len(text) + 1
    if count >= 0:
        times = min(times, count)
    check_string(len(text) + times * max(len(new) - len(old), 0))
    return text.replace(old, new, count)


def _join(separator: str, parts: Any) -> str:
    texts = list(parts)
    check_count(len(texts))
    check_string(sum(len(part) + len(separator) for part in texts))
    return separator.join(texts)


def _split(text: str, separator: str | None = None, limit: int = -1) -> list[str]:
    check_count(len(text.split()) if separator is None else text.count(separator) + 1)
    return text.split(separator, limit)


def _rsplit(text: str, separator: str | None = None, limit: int = -1) -> list[str]:
    check_count(len(text.split()) if separator is None else text.count(separator) + 1)
    return text.rsplit(separator, limit)


def _stripped(method: Callable[..., str]) -> Callable[..., str]:
    """Bound what is taken off: it is sought for each character of the text."""

    def strip(text: str, characters: str | None = None) -> str:
        if characters is not None and len(characters) > _STRIPPED_MAX:
            raise TooCostly(f"takes off any of more than {_STRIPPED_MAX} characters")
        return method(text, characters)

    return strip


def _padded(method: Callable[..., str]) -> Callable[..., str]:
    def pad(text: str, width: int, *fill: str) -> str:
        check_string(width)
        return method(text, width, *fill)

    return pad


METHODS: Final[Mapping[str, Callable[..., Any]]] = {
    "replace": _replace,
    "join": _join,
    "split": _split,
    "rsplit": _rsplit,
    "zfill": _padded(str.zfill),
    "ljust": _padded(str.ljust),
    "rjust": _padded(str.rjust),
    "center": _padded(str.center),
    "strip": _stripped(str.strip),
    "lstrip": _stripped(str.lstrip),
    "rstrip": _stripped(str.rstrip),
    **{
        name: getattr(str, name)
        for name in (
            *("lower", "upper", "title", "capitalize", "swapcase", "casefold"),
            *(
                "startswith",
                "endswith",
                "find",
                "rfind",
                "index",
                "rindex",
                "count",
                "partition",
                "rpartition",
            ),
            *(
                "removeprefix",
                "removesuffix",
                "isdigit",
                "isalpha",
                "isalnum",
                "isupper",
                "islower",
                "isspace",
            ),
            *("isnumeric", "isdecimal"),
        )
    },
}
