"""Unary calls with a deadline, answered with the project's errors: one line at each place that calls.

Streams have no deadline of their own: wrap them in `wire.errors.rpc_errors()` and bound them where they are
read.
"""

from __future__ import annotations

from typing import Any

from iceprod_p2p.wire.channel import UNARY_TIMEOUT_S
from iceprod_p2p.wire.errors import rpc_errors


async def call(
    method: Any, request: Any, *, timeout_s: float = UNARY_TIMEOUT_S, peer: str = "the node"
) -> Any:
    """Await ``stub.Method(request)`` on an asyncio channel; raises `IceProdError` classes, Unavailable when
    late.
    """
    with rpc_errors(peer):
        return await method(request, timeout=timeout_s)


def call_blocking(
    method: Any, request: Any, *, timeout_s: float = UNARY_TIMEOUT_S, peer: str = "the node"
) -> Any:
    """As `call`, on a blocking channel."""
    with rpc_errors(peer):
        return method(request, timeout=timeout_s)
