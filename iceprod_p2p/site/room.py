"""Where content that arrives is written: on the disk that the ledger lies on too, so never until that is full."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.base.errors import Unavailable
from iceprod_p2p.store.blobs import BlobStore, BlobWriter


def require_room(directory: Path, size_bytes: int, *, least_mib: int) -> None:
    """Raise Unavailable, which senders take for a reason to wait, unless `least_mib` are left beside so many bytes."""
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes - size_bytes < least_mib << 20:
        raise Unavailable(
            f"the disk that holds {directory} has {free_bytes >> 20} MiB left: no room for {size_bytes} bytes",
            remedy="make room there, or move the data directory; what waits is then sent again",
            retry_after_s=30.0,
        )


def room_of(config: Callable[[], SiteConfig]) -> Callable[[int], None]:
    """Return what raises Unavailable when so many bytes would leave less than half of what stops new work."""

    def require(size_bytes: int) -> None:
        now = config()
        require_room(now.node.data_dir, size_bytes, least_mib=now.system.free_disk_mib_least // 2)

    return require


@asynccontextmanager
async def resumed(
    blobs: BlobStore, sha256: str, max_bytes: int, disk: Callable[..., Any]
) -> AsyncIterator[BlobWriter]:
    """Give a writer that goes on with what an earlier transfer left, which may be long and is read by `disk`."""
    made = blobs.writer(max_bytes=max_bytes, resumes=sha256)
    entering = asyncio.ensure_future(disk(made.__enter__))
    try:
        writer = await asyncio.shield(entering)
    except asyncio.CancelledError:
        entering.add_done_callback(lambda done: done.exception() or made.__exit__(None, None, None))
        raise
    try:
        yield writer
    finally:
        made.__exit__(None, None, None)
