"""The site's file of credentials for storages, as its pilots get it: with the files that it names, over their own line.

For worker nodes that do not see the node's files.  A reply holds secrets: it is never logged, kept or forwarded, and
goes to pilots of this site alone.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Final

from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.transfers.credentials import FILE_FIELDS, Credential, load
from iceprod_p2p.wire.pb import pilot_pb2

FILES_BYTES_MAX: Final = 1024 * 1024  # Of all files together: they travel in one message.


def handed_credentials(path: str) -> pilot_pb2.CredentialsReply:
    """Read the file and those it names; ConfigError names what is wrong, never what is in it.  Blocks on the disk.

    A directory of authorities stays a path, which worker nodes then need to have themselves.
    """
    room = FILES_BYTES_MAX
    reply = pilot_pb2.CredentialsReply()
    for entry in load(Path(path)).entries:
        message = reply.servers.add(urls=entry.urls, read_back=entry.read_back)
        for name in _texts(entry):
            value = getattr(entry, name)
            if name in FILE_FIELDS:
                content = _content(Path(value), room)
                room -= len(content)
                message.files[name] = content
            else:
                message.texts[name] = value
    return reply


def _texts(entry: Credential) -> list[str]:
    return [
        one.name
        for one in fields(entry)
        if one.name not in ("urls", "read_back") and getattr(entry, one.name)
    ]


def _content(path: Path, room: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(room + 1)
    except OSError as failure:
        raise ConfigError(f"{path} cannot be read: {failure.strerror}") from failure
    if len(content) > room:
        raise ConfigError(
            f"the files for storages have more than {FILES_BYTES_MAX} bytes with {path}",
            remedy="name smaller ones, such as one authority in place of a bundle",
        )
    return content
