"""Bytes to text, and the checks that every text and number of a steering file passes."""

from __future__ import annotations

import codecs
import math
import re

from iceprod_p2p.steering.limits import FILE_BYTES_MAX, TEXT_CHARS_MAX
from iceprod_p2p.steering.nodes import Place, Refusal

# Characters that XML cannot carry, lone surrogates, and the private range in which expressions mark escapes.
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff\U000f0000-\U000f007f]")
DIGITS_MAX = 300  # A whole number that no float holds has no use here, and long ones cost quadratic time.

_XML_DECLARATION = re.compile(rb"^<\?xml\b[^>]{0,200}?\bencoding\s*=\s*[\"']([A-Za-z0-9._:-]{1,40})[\"']")
_ENCODINGS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
    "latin-1": "latin-1",
    "latin1": "latin-1",
    "utf-16": "utf-16",
}


def decode(data: bytes) -> str:
    """Return the text of a file.  Raises Refusal when it is too large or in an encoding we do not read.

    UTF-8 (with or without mark), UTF-16 with mark, and for XML also ASCII and ISO-8859-1 as declared.
    """
    if len(data) > FILE_BYTES_MAX:
        raise Refusal((0, 0), f"{len(data)} bytes", f"at most {FILE_BYTES_MAX} bytes")
    encoding = _encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as bad:
        line = data.count(b"\n", 0, bad.start) + 1
        column = bad.start - data.rfind(b"\n", 0, bad.start)
        raise Refusal((line, column), f"bytes that are not {encoding}", "UTF-8 text") from bad
    text = text.removeprefix("\ufeff")
    if not text or text.isspace():
        raise Refusal((1, 1), "an empty file", "a steering document")
    if bad_character := FORBIDDEN.search(text):
        at = bad_character.start()
        place = (text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))
        raise Refusal(place, f"the character U+{ord(text[at]):04X}", "printable text")
    return text


def _encoding(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise Refusal((1, 1), "UTF-32 text", "UTF-8 text")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if data.startswith(b"+/v"):
        raise Refusal((1, 1), "UTF-7 text", "UTF-8 text")
    declared = _XML_DECLARATION.match(data.removeprefix(codecs.BOM_UTF8))
    if declared is None:
        return "utf-8"
    name = declared.group(1).decode("ascii")
    known = _ENCODINGS.get(name.lower())
    if known is None or known == "utf-16":
        raise Refusal((1, 1), f'the encoding "{name}"', "UTF-8, US-ASCII or ISO-8859-1", "UTF-8")
    return known


def check_text(text: str, place: Place) -> None:
    """Raise Refusal when one text is too long or has a character that may not be in a steering file."""
    if len(text) > TEXT_CHARS_MAX:
        raise Refusal(place, f"a text of {len(text)} characters", f"at most {TEXT_CHARS_MAX}")
    if bad := FORBIDDEN.search(text):
        raise Refusal(place, f"the character U+{ord(bad.group()):04X}", "printable text")


def whole_number(digits: str, place: Place, base: int = 10) -> int:
    """Return the number; Refusal when it has more than DIGITS_MAX digits."""
    if len(digits) > DIGITS_MAX:
        raise Refusal(place, f"a number of {len(digits)} digits", f"at most {DIGITS_MAX} digits")
    return int(digits, base)


def finite_float(digits: str, place: Place) -> float:
    """Return the number; Refusal when it is too large to be one."""
    number = float(digits) if len(digits) <= 1_000 else math.inf
    if not math.isfinite(number):
        raise Refusal(place, f"the number {digits[:40]}", "a finite number")
    return number
