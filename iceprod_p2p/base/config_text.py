"""Writes `site.toml`: the commented file of a new node, and a checked configuration as it is understood."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from iceprod_p2p.base.config import CLASS, SECTIONS, SiteConfig
from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.base.settings import Setting
from iceprod_p2p.base.toml_lines import key_lines

_ID = re.compile(r"""^(\s*(?:node\s*\.\s*)?id\s*=\s*)("[^"]*"|'[^']*')""")
_HEAD = """\
# Configuration of one node of IceProd P2P.  Settings that stand behind a # have the value shown there.
# `iceprod-node config check` names every fault of this file with its line.
"""


def new_text(given: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a commented `site.toml` in which the settings `given` by section are set and the others
    shown.
    """
    lines = [_HEAD]
    for section, table in SECTIONS.items():
        values = given.get(section, {})
        lines.append(f"[{section}]")
        plain = [setting for setting in table if setting.kind not in ("table", "values")]
        lines += [_setting_line(setting, values) for setting in plain]
        for setting in (entry for entry in table if entry.kind in ("table", "values")):
            lines += ["", f"[{section}.{setting.name}]  # {setting.help}"]
            lines += [
                f"{json.dumps(key)} = {_value(item)}" for key, item in values.get(setting.name, {}).items()
            ]
        if section == "queue":
            for entry in values.get("class", [{"name": "cpu"}]):
                lines += ["", "[[queue.class]]", *(_setting_line(setting, entry) for setting in CLASS)]
        lines.append("")
    return "\n".join(lines)


def shown(config: SiteConfig) -> dict[str, Any]:
    """Return the whole configuration, defaults filled in, as plain values for printing as JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return {name: plain(value) for name, value in asdict(config).items()}


def with_node_id(text: str, node_id: str) -> str:
    """Return the text of a `site.toml` with another `[node] id`, and everything else as it was.

    ConfigError when the text has no such line, or when what came out would not be read as meant.
    """
    number = key_lines(text).get(("node", "id"))
    lines = text.splitlines(keepends=True)
    if number is not None:
        quoted = json.dumps(node_id)
        lines[number - 1], count = _ID.subn(lambda found: found[1] + quoted, lines[number - 1], count=1)
        changed = "".join(lines)
        if count and tomllib.loads(changed)["node"]["id"] == node_id:
            return changed
    raise ConfigError(
        "the configuration has no line `id = ...` in [node] that could be changed",
        remedy="write it on a line of its own",
    )


def _setting_line(setting: Setting, values: Mapping[str, Any]) -> str:
    chosen = setting.name in values
    value = values.get(setting.name, setting.default)
    line = f"{'' if chosen else '# '}{setting.name} = {_value(value)}"
    return f"{line}  # {setting.help}" if setting.help else line


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, Path):
        value = str(value)
    return json.dumps(value, ensure_ascii=False)
