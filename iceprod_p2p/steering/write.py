"""Write a tree as JSON, YAML or XML; reading the text gives the same tree again.

The JSON form is canonical: equal trees give equal bytes, and it is what travels to the pilots.
"""

from __future__ import annotations

import json

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.model.steering import Configuration
from iceprod_p2p.steering.plain import to_plain


def write(configuration: Configuration, syntax: str) -> str:
    """Return the text of a tree in one syntax: json, yaml or xml.  Raises BadInput for any other word."""
    if syntax == "json":
        return json.dumps(to_plain(configuration), ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    if syntax == "yaml":
        from iceprod_p2p.steering.yaml_writer import to_yaml

        return to_yaml(to_plain(configuration))
    if syntax == "xml":
        from iceprod_p2p.steering.xml_writer import to_xml

        return to_xml(configuration)
    raise BadInput(f"no syntax is called {syntax!r}", remedy="use xml, yaml or json")


def canonical(configuration: Configuration) -> bytes:
    """Return the compact JSON bytes that travel to the pilots and whose digest names the document."""
    text = json.dumps(to_plain(configuration), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()
