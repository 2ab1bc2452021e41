"""Commands about blobs that go: part of `commands`, whose rules for numbers and fields hold here too."""

from __future__ import annotations

import msgspec

from iceprod_p2p.model.bounds import HexDigest, Name


class DropBlobs(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=63):
    """A node holds these blobs no more: it was damaged or has lost them."""

    node_id: Name
    sha256: tuple[HexDigest, ...]


class ForgetBlobs(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=64):
    """Forget blobs that nothing needs; those that something needs, or that are new, stay and are named in the notes."""

    sha256: tuple[HexDigest, ...]
