"""Publish software: look at the tarball, upload it once, register it under its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.client.connection import Connection, request_id
from iceprod_p2p.model.software import NotAPlatform, parse_platform
from iceprod_p2p.modules.archive import inspect
from iceprod_p2p.security.checksums import hash_file
from iceprod_p2p.wire.pb import common_pb2, control_pb2

PUBLISH_TIMEOUT_S = 600.0  # The node gives the tarball to others before it registers it.


def publish_file(
    connection: Connection,
    path: Path,
    *,
    name: str,
    version: str,
    platform: str,
    container: bool = False,
    variables: Mapping[str, str] | None = None,
    description: str = "",
) -> control_pb2.ControlReply:
    """Publish the tarball at `path` as the build of one platform and return the node's reply.

    BadInput when it is no archive that pilots would unpack, or names no platform; a repeat is harmless.
    """
    try:
        parts = parse_platform(platform)
    except NotAPlatform as wrong:
        raise BadInput(str(wrong), remedy="such as linux-x86_64-glibc2.28-py3.11, or any") from wrong
    inspect(path, root_filesystem=container)
    found = hash_file(path)
    connection.put_file(path, sha256=found.sha256, size_bytes=found.size_bytes)
    build = common_pb2.SoftwareBuild(
        name=name,
        version=version,
        os=parts.os,
        arch=parts.arch,
        libc=parts.libc,
        python=parts.python,
        sha256=found.sha256,
        kind="container" if container else "tree",
        variables=dict(variables or {}),
        description=description,
    )
    request = control_pb2.PublishSoftwareRequest(build=build, request_id=request_id())
    reply: control_pb2.ControlReply = connection.call("PublishSoftware", request, timeout_s=PUBLISH_TIMEOUT_S)
    return reply
