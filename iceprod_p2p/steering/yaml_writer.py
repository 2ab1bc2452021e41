"""Plain data to YAML that our reader, and any YAML 1.1 or 1.2 reader, understands alike."""

from __future__ import annotations

import re
from typing import Any

import yaml

from iceprod_p2p.steering.nodes import NOWHERE, Refusal
from iceprod_p2p.steering.yaml_reader import plain_scalar

LINE_CHARS = 108
_LINE_BREAK = re.compile(
    "[\n\r\\\\\x85\u2028\u2029\ufeff]"
)  # What YAML would fold, and what would need escapes.


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Write a text in quotes where a reader could take it for a number, boolean, null or a merge."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if _needs_quotes(text) else None)


def _needs_quotes(text: str) -> bool:
    if not text or text[0] in "0123456789+-.~<=" or _LINE_BREAK.search(text):
        return True
    try:
        return plain_scalar(text, NOWHERE) != text
    except Refusal:
        return True


def _float(dumper: _Dumper, number: float) -> yaml.ScalarNode:
    text = repr(number)
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")  # YAML 1.1 knows no exponent without a point.
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(float, _float)


def to_yaml(plain: dict[str, Any]) -> str:
    """Return plain data as block-style YAML in the order of its names."""
    text: str = yaml.dump(
        plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=LINE_CHARS
    )
    return text
