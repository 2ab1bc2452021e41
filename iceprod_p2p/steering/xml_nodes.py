"""XML elements to the common shape of nodes: which element and attribute becomes which name.

The vocabulary is IceProd's ``iceprod.v3.dtd`` plus our own elements (description, category, requirements,
environment, config, extra, token_scope).  Everything else is a fault with its line.  What the values mean is for
`build`; here only names are settled, and texts that hold JSON are read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from iceprod_p2p.steering.faults import FaultList
from iceprod_p2p.steering.json_reader import read_json
from iceprod_p2p.steering.metadata import DIF_PLUS_ELEMENTS
from iceprod_p2p.steering.nodes import Node, NodeCount, Place, Refusal
from iceprod_p2p.steering.xml_reader import Element

# Per element: attribute -> name in the common shape.
ATTRIBUTES: Final[Mapping[str, Mapping[str, str]]] = {
    "configuration": {"version": "version", "iceprod_version": "iceprod_version", "parentid": "parent_id"},
    "task": {
        "name": "name",
        "depends": "depends",
        "after": "after",
        "container": "container",
        "task_files": "task_files",
    },
    "tray": {"name": "name", "iter": "iterations"},
    "module": {
        "name": "name",
        "class": "class",
        "src": "src",
        "args": "args",
        "args_type": "args_type",
        "env_shell": "env_shell",
        "env_clear": "env_clear",
    },
    "parameter": {"name": "name", "type": "type", "value": "value"},
    "batchsys": {"name": "name"},
    "class": {
        name: name
        for name in ("name", "src", "resource_name", "recursive", "libs", "env_vars", "revision", "sha256")
    },
    "project": {"class": "class", "name": "name"},
    "resource": {name: name for name in ("remote", "local", "compression", "transfer", "arch", "checksum")},
    "data": {
        name: name
        for name in (
            "remote",
            "local",
            "compression",
            "type",
            "movement",
            "transfer",
            "shared",
            "checksum",
        )
    },
    "environment": {
        name: name for name in ("software", "version", "platform", "sha256", "cvmfs", "container")
    },
    "metaproject": {"name": "name", "version": "version", "platform": "platform"},
    "requirements": {name: name for name in ("cpu", "gpu", "memory", "disk", "time", "arch", "site")},
    "attribute": {"name": "name"},
    "os": {"name": "name"},
    "extra": {"name": "name"},
    "config": {"name": "name"},
    "token_scope": {"prefix": "prefix", "scopes": "scopes"},
    "Project": {},
}
REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "parameter": ("name",),
    "class": ("name",),
    "project": ("class",),
    "metaproject": ("name",),
    "data": ("type", "movement"),
    "attribute": ("name",),
    "os": ("name",),
    "extra": ("name",),
    "config": ("name",),
    "token_scope": ("prefix", "scopes"),
}
# Per element: child element -> the list it joins in the common shape; those not here have their own treatment.
_LISTS: Final[Mapping[str, Mapping[str, str]]] = {
    "configuration": {"task": "tasks"},
    "steering": {"resource": "resources", "data": "data"},
    "task": {
        "tray": "trays",
        "resource": "resources",
        "data": "data",
        "class": "classes",
        "project": "projects",
    },
    "tray": {
        "module": "modules",
        "resource": "resources",
        "data": "data",
        "class": "classes",
        "project": "projects",
    },
    "module": {"resource": "resources", "data": "data", "class": "classes", "project": "projects"},
}
CHILDREN: Final[Mapping[str, tuple[str, ...]]] = {
    "configuration": ("options", "steering", "task", "description", "category", "DIF_Plus", "extra"),
    "options": ("parameter",),
    "steering": ("parameter", "system", "batchsys", "resource", "data"),
    "system": ("parameter",),
    "batchsys": ("parameter",),
    "task": (
        *("tray", "parameter", "batchsys", "resource", "data", "class", "project"),
        *("requirements", "extra", "token_scope", "environment", "metaproject"),
    ),
    "tray": (
        *("module", "parameter", "resource", "data", "class", "project"),
        *("environment", "metaproject"),
    ),
    "module": (
        *("parameter", "resource", "data", "class", "project", "config"),
        *("environment", "metaproject"),
    ),
    "requirements": ("os", "attribute", "extra"),
}
# Names of the common shape, which an <extra> may not take.
_RESERVED: Final = frozenset(
    (
        *("format", "version", "description", "parent_id", "iceprod_version", "categories", "options"),
        *("metadata", "difplus", "steering", "tasks", "types", "name", "depends", "requirements", "batchsys"),
        "after",
        *(
            "container",
            "task_files",
            "token_scopes",
            "parameters",
            "resources",
            "data",
            "classes",
            "projects",
            "environment",
            "metaproject",
            "extra",
        ),
        *("trays", "cpu", "gpu", "memory", "disk", "time", "os", "arch", "site", "attributes"),
    )
)
_IGNORED_ATTRIBUTES: Final = ("xmlns:xsi", "xsi:noNamespaceSchemaLocation")
WITH_TEXT: Final = ("parameter", "description", "category", "extra", "config")


class XmlShape:
    """Turns the elements of one file into nodes; faults of names go to `faults`."""

    def __init__(self, faults: FaultList, count: NodeCount) -> None:
        self.faults = faults
        self.count = count

    def configuration(self, root: Element) -> Node:
        """Return the whole file as nodes."""
        if root.name != "configuration":
            self.faults.say(
                root.place,
                "",
                f"the element <{root.name[:60]}>",
                "<configuration> as the root",
                "configuration",
            )
            return Node({}, root.place)
        return self.element(root, "")

    def element(self, element: Element, path: str) -> Node:
        """Return one element with everything in it."""
        node = self.attributes(element, path)
        content = _mapping(node)
        types: dict[str, Node] = {}
        lists = _LISTS.get(element.name, {})
        for child in self.known_children(element, path):
            if child.name in lists:
                items = _list(content, lists[child.name], child.place)
                items.append(self.element(child, f"{path}.{lists[child.name]}[{len(items)}]".lstrip(".")))
            else:
                self.special(element, child, content, types, path)
        if types:
            content["types"] = Node(types, element.place)
        if element.name == "task" and "depends" in content:
            content["depends"] = _split(content["depends"])
        if element.name == "module":
            self.module_args(content, path)
        return node

    def special(
        self, parent: Element, child: Element, content: dict[str, Node], types: dict[str, Node], path: str
    ) -> None:
        """Put a child that is not an item of a list where it belongs."""
        here = f"{path}.{child.name}".lstrip(".")
        match child.name:
            case "parameter":
                block = "parameters" if parent.name != "options" else "options"
                self.parameter(child, content, types, block, here)
            case "options" | "system":
                for parameter in self.known_children(child, here):
                    self.parameter(parameter, content, types, child.name, here)
            case "steering":
                self.steering(child, content, here)
            case "batchsys":
                self.batchsys(child, content, types, here)
            case "description":
                content["description"] = Node(child.text, child.place)
            case "category":
                _list(content, "categories", child.place).append(Node(child.text, child.place))
            case "DIF_Plus":
                content["metadata"] = self.metadata(child, here)
            case "extra":
                self.named_json(child, content, here, _RESERVED)
            case "config":
                configs = _mapping(content.setdefault("configs", Node({}, child.place)))
                self.named_json(child, configs, here)
            case "token_scope":
                scopes = _mapping(content.setdefault("token_scopes", Node({}, child.place)))
                scopes[child.attributes.get("prefix", "")] = Node(
                    child.attributes.get("scopes", ""), child.place
                )
            case "requirements":
                content["requirements"] = self.requirements(child, here)
            case "environment" | "metaproject":
                content[child.name] = self.attributes(child, here)

    def known_children(self, element: Element, path: str) -> Iterable[Element]:
        """Yield the children that may stand in `element`; the others, and stray text, are faults."""
        if element.text.strip() and element.name not in WITH_TEXT:
            self.faults.add(element.place, path, element.text.strip(), f"no text in <{element.name}>")
        allowed = CHILDREN.get(element.name, ())
        for child in element.children:
            if child.name in allowed:
                yield child
            else:
                what = " ".join(f"<{name}>" for name in allowed) or f"nothing inside <{element.name}>"
                self.faults.add(
                    child.place, f"{path}.{child.name}".lstrip("."), child.name, what, names=allowed
                )

    def attributes(self, element: Element, path: str) -> Node:
        """Return an element's attributes as a mapping of texts."""
        known = ATTRIBUTES.get(element.name, {})
        content: dict[str, Node] = {}
        for name, text in element.attributes.items():
            if name in known:
                content[known[name]] = Node(text, element.place)
            elif name not in _IGNORED_ATTRIBUTES:
                what = f"the attributes {', '.join(known)}" if known else f"no attributes of <{element.name}>"
                self.faults.add(element.place, path, name, what, names=known)
        for name in REQUIRED.get(element.name, ()):
            if name not in element.attributes:
                self.faults.say(
                    element.place, path, f'<{element.name}> without "{name}"', f'the attribute "{name}"', name
                )
        return Node(content, element.place, dict.fromkeys(content, element.place))

    def steering(self, element: Element, content: dict[str, Node], path: str) -> None:
        part = self.element(element, path)
        if "steering" not in content:
            content["steering"] = part
            return
        self.faults.say(element.place, path, "a second <steering>", "one <steering>")

    def batchsys(self, element: Element, content: dict[str, Node], types: dict[str, Node], path: str) -> None:
        self.attributes(element, path)
        name = element.attributes.get("name", "*") or "*"
        systems = _mapping(content.setdefault("batchsys", Node({}, element.place)))
        system_types = _mapping(types.setdefault("batchsys", Node({}, element.place)))
        systems.setdefault(name, Node({}, element.place))
        for parameter in self.known_children(element, path):
            self.parameter(parameter, systems, system_types, name, path)

    def parameter(
        self, element: Element, content: dict[str, Node], types: dict[str, Node], block: str, path: str
    ) -> None:
        """Add one parameter to `content[block]`, and its type to `types[block]`."""
        self.attributes(element, path)
        for _unknown in self.known_children(element, path):
            continue
        name = element.attributes.get("name", "")
        kind = element.attributes.get("type", "")
        parameters = _mapping(content.setdefault(block, Node({}, element.place)))
        if name in parameters:
            self.faults.say(
                element.place, path, f'the parameter "{name[:60]}" a second time', "each name once"
            )
            return
        text = element.attributes.get("value")
        if text is None:
            text = element.text if kind == "string" else element.text.strip()
        _node = content[block]
        _node.keys[name] = element.place
        parameters[name] = self.parameter_value(text, kind, element.place, f"{path}.{name}")
        _mapping(types.setdefault(block, Node({}, element.place)))[name] = Node(kind or "any", element.place)

    def parameter_value(self, text: str, kind: str, place: Place, path: str) -> Node:
        if kind == "json":
            return self.json(text, place, path)
        return Node(text, place)

    def json(self, text: str, place: Place, path: str) -> Node:
        """Return JSON text as nodes; a text with phrases that is not JSON stays a text."""
        try:
            node = read_json(text, self.count)
        except Refusal as bad:
            if "$" not in text:
                self.faults.say(place, path, bad.found, bad.allowed, bad.suggestion)
            return Node(text, place)
        return _moved(node, place)

    def named_json(
        self, element: Element, content: dict[str, Node], path: str, reserved: Collection[str] = ()
    ) -> None:
        self.attributes(element, path)
        for _unknown in self.known_children(element, path):
            continue
        name = element.attributes.get("name", "")
        if name in content or name in reserved:
            self.faults.say(element.place, path, f'the name "{name[:60]}"', "a name that is not in use")
            return
        content[name] = self.json(element.text, element.place, path)

    def module_args(self, content: dict[str, Node], path: str) -> None:
        kind = content.pop("args_type", None)
        if kind is None or "args" not in content:
            return
        if kind.content != "json":
            self.faults.add(kind.place, f"{path}.args_type", kind.content, '"json"', names=("json",))
            return
        content["args"] = self.json(str(content["args"].content), kind.place, f"{path}.args")

    def requirements(self, element: Element, path: str) -> Node:
        node = self.attributes(element, path)
        content = _mapping(node)
        for child in self.known_children(element, path):
            if child.name == "extra":
                self.named_json(child, content, path, _RESERVED)
                continue
            for _unknown in self.known_children(child, path):
                continue
            name = _mapping(self.attributes(child, path)).get("name", Node("", child.place))
            _list(content, "os" if child.name == "os" else "attributes", child.place).append(name)
        return node

    def metadata(self, element: Element, path: str) -> Node:
        """Return DIF_Plus: texts and mappings by name, lists where a name is repeated."""
        content: dict[str, Node] = {}
        allowed = DIF_PLUS_ELEMENTS.get(element.name, ())
        for child in element.children:
            here = f"{path}.{child.name}"
            if child.name not in allowed:
                what = " ".join(f"<{name}>" for name in allowed) or f"nothing inside <{element.name}>"
                self.faults.add(child.place, here, child.name, what, names=allowed)
                continue
            inner = child.name in DIF_PLUS_ELEMENTS
            value = self.metadata(child, here) if inner else Node(child.text, child.place)
            known = content.get(child.name)
            if known is None:
                content[child.name] = value
            elif isinstance(known.content, list):
                known.content.append(value)
            else:
                content[child.name] = Node([known, value], known.place)
        return Node(content, element.place)


def _mapping(node: Node) -> dict[str, Node]:
    assert isinstance(node.content, dict)
    return node.content


def _list(content: dict[str, Node], name: str, place: Place) -> list[Node]:
    node = content.setdefault(name, Node([], place))
    assert isinstance(node.content, list)
    return node.content


def _split(node: Node) -> Node:
    names = [part.strip() for part in str(node.content).split(",")]
    return Node([Node(name, node.place) for name in names if name], node.place)


def _moved(node: Node, place: Place) -> Node:
    """Give nodes of an inner text the place of the element that holds it."""
    node.place = place
    if isinstance(node.content, list):
        for item in node.content:
            _moved(item, place)
    elif isinstance(node.content, dict):
        node.keys = dict.fromkeys(node.keys, place)
        for item in node.content.values():
            _moved(item, place)
    return node
