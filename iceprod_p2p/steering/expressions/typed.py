"""The final text of an expression to a value: JSON, booleans in any case, integers, floats, or the text itself."""

from __future__ import annotations

import math
import re
from typing import Final

from iceprod_p2p.model.steering import Value
from iceprod_p2p.steering.values import NotThatType, parse_json

_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,300}")
_DECIMAL: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,5})?")


def type_text(text: str) -> Value:
    """Return what a text means.

    A text in quotes stays that text, quotes included.  JSON is tried as it stands and then with single quotes for
    double ones, as production files write lists.  Words such as nan and inf are not numbers here.
    """
    stripped = text.strip()
    if not stripped or (len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"):
        return text
    first = stripped[0]
    if first in "[{":
        for candidate in (stripped, stripped.replace("'", '"')):
            try:
                return parse_json(candidate)
            except NotThatType:
                continue
        return text
    if stripped == "null":
        return None
    if stripped.lower() in ("true", "false"):
        return stripped.lower() == "true"
    if first in "+-.0123456789":
        return _number(stripped, text)
    return text


def _number(stripped: str, text: str) -> Value:
    if _WHOLE.fullmatch(stripped):
        return int(stripped)
    if len(stripped) <= 1_000 and _DECIMAL.fullmatch(stripped):
        number = float(stripped)
        if math.isfinite(number):
            return number
    return text
