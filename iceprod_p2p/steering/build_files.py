"""Files and code that a part of the tree needs: resources, data, classes, projects."""

from __future__ import annotations

import re
from typing import Final

from iceprod_p2p.model.steering import ClassReference, Data, DataType, Movement, Project, Resource, Transfer
from iceprod_p2p.steering.fields import Fields

_CLASS: Final = ("name", "src", "resource_name", "libs", "env_vars", "revision", "sha256")
_COMPRESSIONS: Final = ("", "none", "gzip", "gz", "bzip", "bz2", "lzma", "xz", "zstd", "zst", "true")
_CHECKSUM: Final = re.compile(  # The length tells the algorithm where none is named.
    "(?:(?:sha256:)?[0-9a-fA-F]{64}|(?:sha512:)?[0-9a-fA-F]{128}|(?:sha1:)?[0-9a-fA-F]{40}"
    "|(?:md5:)?[0-9a-fA-F]{32}|(?:adler32:)?[0-9a-fA-F]{8})"
)
_TRANSFER_WORDS: Final = ("maybe", "yes", "no", "y", "n", "1", "0")  # Those of schema 3.1 and 3.2.
_YES: Final = (True, "yes", "y", "true", "t", "1")
_NO: Final = (False, "no", "not", "n", "false", "f", "0")


def read_resources(fields: Fields) -> tuple[Resource, ...]:
    """Return the resources of a task, tray, module or the steering."""
    found: list[Resource] = []
    for path, node in fields.items("resources"):
        inner = Fields(node, path, fields.reading)
        inner.unknown(("remote", "local", "compression", "transfer", "arch", "checksum"))
        found.append(
            Resource(
                remote=inner.text("remote"),
                local=inner.text("local"),
                compression=_compression(inner),
                transfer=_transfer(inner),
                arch=inner.text("arch"),
                checksum=_checksum(inner),
            )
        )
    return tuple(found)


def read_data(fields: Fields) -> tuple[Data, ...]:
    """Return the files of a task, tray, module or the steering."""
    found: list[Data] = []
    for path, node in fields.items("data"):
        inner = Fields(node, path, fields.reading)
        if not fields.reading.dialect.strict:
            inner.unknown(Data.__slots__)
        if inner.reading.dialect.schema == "3.2" and "type" not in inner.content:
            inner.reading.faults.say(node.place, path, 'no "type"', '"type": ' + ", ".join(DataType))
        item = Data(
            remote=inner.text("remote"),
            local=inner.text("local"),
            type=inner.word("type", DataType, DataType.PERMANENT),
            movement=inner.word("movement", Movement, Movement.INPUT),
            transfer=_transfer(inner),
            compression=_compression(inner),
            checksum="" if inner.reading.dialect.strict else _checksum(inner),
            shared=not inner.reading.dialect.strict and inner.boolean("shared", default=False),
        )
        if inner.reading.dialect.schema == "3.2":
            _check_data_3_2(inner, item)
        found.append(item)
    return tuple(found)


def _check_data_3_2(fields: Fields, item: Data) -> None:
    """Check what IceProd's schema 3.2 asks of names: permanent files have a remote one, the others a local one."""
    faults = fields.reading.faults
    if item.type is DataType.PERMANENT:
        if len(item.remote) < 3:
            faults.add(fields.node.place, fields.at("remote"), item.remote, "a URL for a permanent file")
        return
    if item.remote:
        faults.add(fields.node.place, fields.at("remote"), item.remote, "nothing for a temporary file")
    if len(item.local) < 3:
        faults.add(fields.node.place, fields.at("local"), item.local, "a name of at least 3 characters")


def _transfer(fields: Fields) -> Transfer:
    node = fields.take("transfer")
    if node is None or (node.content == "" and not fields.reading.dialect.strict):
        return Transfer.TRUE
    content = node.content
    word = content.lower() if isinstance(content, str) else content
    if isinstance(word, (float, list, dict)):
        word = None
    if fields.reading.dialect.strict and isinstance(word, str) and content not in _TRANSFER_WORDS:
        word = None
    if word in _YES:
        return Transfer.TRUE
    if word in _NO:
        return Transfer.FALSE
    if word in ("maybe", "exists"):
        return Transfer.MAYBE
    fields.wrong(node, fields.at("transfer"), "true, false or maybe")
    return Transfer.TRUE


def _compression(fields: Fields) -> str:
    node = fields.take("compression")
    if node is None or node.content is False:
        return ""
    word = "true" if node.content is True else node.content
    if fields.reading.dialect.texts and isinstance(word, str) and word.lower() in ("true", "false"):
        word = word.lower().replace("false", "")
    if isinstance(word, str) and word in _COMPRESSIONS:
        return word
    fields.wrong(node, fields.at("compression"), ", ".join(_COMPRESSIONS[1:]))
    return ""


def _checksum(fields: Fields) -> str:
    """Return checksums as written; what holds an expression is looked at when it is expanded."""
    text = fields.text("checksum")
    if "$" not in text and not all(_CHECKSUM.fullmatch(word) for word in text.replace(",", " ").split()):
        node = fields.take("checksum")
        if node is not None:
            fields.wrong(node, fields.at("checksum"), "sha256:HEX or md5:HEX, of the right length")
        return ""
    return text


def read_classes(fields: Fields) -> tuple[ClassReference, ...]:
    """Return the classes of a task, tray, module or the steering."""
    found: list[ClassReference] = []
    for path, node in fields.items("classes"):
        inner = Fields(node, path, fields.reading)
        inner.unknown((*_CLASS, "recursive"))
        texts = {name: inner.text(name) for name in _CLASS}
        found.append(ClassReference(**texts, recursive=inner.boolean("recursive", default=False)))
    return tuple(found)


def read_projects(fields: Fields) -> tuple[Project, ...]:
    """Return the projects of a task, tray, module or the steering."""
    found: list[Project] = []
    for path, node in fields.items("projects"):
        inner = Fields(node, path, fields.reading)
        inner.unknown(("class", "name"))
        found.append(Project(class_name=inner.text("class"), name=inner.text("name")))
    return tuple(found)
