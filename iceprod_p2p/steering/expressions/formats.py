"""Formats as of printf, for `$sprintf`, `%` in `$eval`, and templates of metadata.

Each directive is read by us and given to Python's `%` alone, so that no format can reach attributes, ask for a huge
width, or take an argument of the wrong kind.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

from iceprod_p2p.model.steering import Value
from iceprod_p2p.steering.expressions.errors import TooCostly, Unresolved
from iceprod_p2p.steering.expressions.typed import type_text
from iceprod_p2p.steering.limits import EXPANDED_CHARS_MAX, FORMAT_WIDTH_MAX
from iceprod_p2p.steering.values import to_text

_DIRECTIVE: Final = re.compile(
    r"%(?:(?P<percent>%)|(?:\((?P<name>[^()]{1,256})\))?"
    r"(?P<flags>[#0\- +]{0,5})(?P<width>[0-9]{0,9})(?P<precision>\.[0-9]{0,9})?(?P<kind>[csrdiufFeEgGxXo]))"
)
_CUT: Final = re.compile(r"%[#0\- +]{0,5}[0-9]{0,9}\.[0-9]{0,9}[csr]")


def sprintf(template: str, arguments: Sequence[str]) -> str:
    """Return the template with its directives filled in order.

    Arguments are texts: those in quotes lose them for %s and %c, numbers are read for the others.  Arguments that are
    left over are ignored, as in IceProd.  Raises Unresolved when one is missing or not of its kind.
    """
    left = iter(arguments)
    out: list[str] = []
    end = 0
    size = 0
    for match in _DIRECTIVE.finditer(template):
        out.append(template[end : match.start()])
        end = match.end()
        if match["percent"]:
            out.append("%")
            continue
        if match["name"] is not None:
            raise Unresolved(f"%({match['name'][:40]}) names an argument, and $sprintf has none with names")
        argument = next(left, None)
        if argument is None:
            raise Unresolved("has fewer arguments than its format asks for")
        out.append(_fill(match, unquoted(argument) if match["kind"] in "cs" else argument))
        size += len(out[-1])
        if size > EXPANDED_CHARS_MAX:
            raise TooCostly(f"makes a text longer than {EXPANDED_CHARS_MAX}")
    out.append(template[end:])
    return "".join(out)


def cuts(template: str) -> bool:
    """Return whether a format may shorten a text, so that half a phrase could be left of one."""
    return _CUT.search(template) is not None


def fill_template(template: str, values: Mapping[str, Value]) -> tuple[str, list[str]]:
    """Return a template with its ``%(name)s`` filled from `values`, and the names that are not there.

    A directive whose name is unknown, or whose value does not fit, stays as it stands.
    """
    missing: list[str] = []
    size = 0

    def fill(match: re.Match[str]) -> str:
        if match["percent"] or match["name"] is None:
            return match.group()
        if match["name"] not in values:
            missing.append(match["name"])
            return match.group()
        nonlocal size
        try:
            filled = _fill(match, to_text(values[match["name"]]))
        except Unresolved:
            missing.append(match["name"])
            return match.group()
        size += len(filled)
        if size > EXPANDED_CHARS_MAX:
            raise TooCostly(f"makes a text longer than {EXPANDED_CHARS_MAX}")
        return filled

    if "%(" not in template:
        return template, missing
    return _DIRECTIVE.sub(fill, template).replace("%%", "%"), missing


def unquoted(text: str) -> str:
    """Return a text without the quotes around it, if there are."""
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text


def format_values(template: str, values: Sequence[Value]) -> str:
    """Return Python's `template % values` for values of plain kinds; raises Unresolved where that has no sense."""
    return sprintf(template, [to_text(value) for value in values])


def _fill(match: re.Match[str], argument: str) -> str:
    width = int(match["width"] or 0)
    precision = match["precision"]
    if width > FORMAT_WIDTH_MAX or int((precision or ".0")[1:] or 0) > FORMAT_WIDTH_MAX:
        raise TooCostly(f"has a format wider than {FORMAT_WIDTH_MAX}")
    kind = match["kind"]
    directive = f"%{match['flags']}{match['width']}{precision or ''}{kind}"
    value: str | int | float = argument
    if kind in "xXo":
        value = _whole(argument)
    elif kind in "diu":
        value = _whole_part(argument)
    elif kind in "fFeEgG":
        value = float(_number(argument))
    try:
        return directive % value
    except (TypeError, ValueError, OverflowError) as bad:
        raise Unresolved(f'cannot write "{argument[:40]}" as {directive}') from bad


def _number(text: str) -> int | float:
    value = type_text(text)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise Unresolved(f'needs a number and was given "{text[:40]}"')
    if isinstance(value, int) and value.bit_length() > 1_023:
        raise Unresolved("was given a number that is too large")
    return value


def _whole(text: str) -> int:
    value = _number(text)
    if isinstance(value, float) and not value.is_integer():
        raise Unresolved(f'needs a whole number and was given "{text[:40]}"')
    return int(value)


def _whole_part(text: str) -> int:
    return int(_number(text))
