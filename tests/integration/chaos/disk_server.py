"""A disk with a volatile write cache, in user space: a FUSE file system of one file, for a loop device on top.

    python -m tests.integration.chaos.disk_server IMAGE MOUNTPOINT

Speaks the kernel's FUSE protocol (linux/fuse.h, 7.31) on /dev/fuse itself.  MOUNTPOINT/disk is the image; the kernel's
loop device turns each write of the file system above into WRITE and each flush of its cache into FSYNC, so it is
known exactly which writes a disk had promised to keep.  Commands, one a line, on standard input; one line answers:

    cut SEED          the power goes: of the writes since the last flush each sector is kept or lost by chance, all
                      that comes later fails; answers with how many sectors were kept and lost
    slow SECONDS      every flush takes so long from now on
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import selectors
import struct
import sys
import time

SECTOR_BYTES = 512
WRITE_BYTES_MAX = 1 << 17
IN = struct.Struct("<IIQQIIIHH")  # length, opcode, unique, node, user, group, process, extensions, padding
OUT = struct.Struct("<IiQ")
ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE = 1, 2, 3, 4, 14, 15, 16, 17, 18
FSYNC, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET = (
    20, 25, 26, 27, 28, 29, 36, 38, 42,
)  # fmt: skip
ROOT, DISK = 1, 2


class PowerIsOff(OSError):
    """The disk answers nothing any more."""


class Cache:
    """The image, and what a power cut could still take from it."""

    def __init__(self, path: str) -> None:
        self.image = os.open(path, os.O_RDWR)
        self.size_bytes = os.fstat(self.image).st_size
        self.unsynced: list[tuple[int, bytes, bytes]] = []  # Where, what was there, what was written.
        self.off = False
        self.flush_s = 0.0

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self.image, size, offset)

    def write(self, offset: int, content: bytes) -> None:
        if self.off:
            raise PowerIsOff(errno.EIO, "the power is off")
        self.unsynced.append((offset, os.pread(self.image, len(content), offset), content))
        os.pwrite(self.image, content, offset)

    def flush(self) -> None:
        if self.off:
            raise PowerIsOff(errno.EIO, "the power is off")
        if self.flush_s:
            time.sleep(self.flush_s)
        self.unsynced.clear()

    def cut(self, seed: int) -> tuple[int, int]:
        """Take back every write since the last flush, then let chance keep some sectors of them."""
        chance = random.Random(seed)
        self.off = True
        for offset, before, _ in reversed(self.unsynced):
            os.pwrite(self.image, before, offset)
        kept = lost = 0
        for offset, _, content in self.unsynced:
            share = chance.choice((0.0, 0.5, 1.0))  # A whole write, none of it, or a torn one.
            for at in range(0, len(content), SECTOR_BYTES):
                if chance.random() < share:
                    os.pwrite(self.image, content[at : at + SECTOR_BYTES], offset + at)
                    kept += 1
                else:
                    lost += 1
        self.unsynced.clear()
        return kept, lost


class Server:
    """Answers the kernel, one request at a time and in order."""

    def __init__(self, cache: Cache, mountpoint: str) -> None:
        self.cache = cache
        self.device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self.device},rootmode=40000,user_id=0,group_id=0,allow_other"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"disk", os.fsencode(mountpoint), b"fuse", 0, options.encode()):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), mountpoint)

    def serve_one(self) -> bool:
        """Read and answer one request; False when the file system was unmounted."""
        try:
            request = os.read(self.device, WRITE_BYTES_MAX + 4_096)
        except OSError as gone:
            return gone.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT)
        _, opcode, unique, node, *_ = IN.unpack_from(request)
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            return True
        try:
            body, error = self._answer(opcode, node, memoryview(request)[IN.size :]), 0
        except OSError as refused:
            body, error = b"", -(refused.errno or errno.EIO)
        os.write(self.device, OUT.pack(OUT.size + len(body), error, unique) + body)
        return opcode != DESTROY

    def _answer(self, opcode: int, node: int, body: memoryview) -> bytes:
        match opcode:
            case 26:  # INIT
                major, _, readahead, _ = struct.unpack_from("<IIII", body)
                flags = 1 << 5  # Writes larger than a page.
                return struct.pack(
                    "<IIIIHHIIHH", major, 31, readahead, flags, 16, 12, WRITE_BYTES_MAX, 1, 0, 0
                ) + bytes(28)
            case 1:  # LOOKUP
                if bytes(body) != b"disk\0":
                    raise OSError(errno.ENOENT, "there is only the disk")
                return struct.pack("<QQQQII", DISK, 0, 3_600, 3_600, 0, 0) + self._attributes(DISK)
            case 3 | 4:  # GETATTR, SETATTR
                return struct.pack("<QII", 3_600, 0, 0) + self._attributes(node)
            case 14 | 27:  # OPEN, OPENDIR
                return struct.pack("<QII", node, 0, 0)
            case 15:  # READ
                _, offset, size = struct.unpack_from("<QQI", body)
                return self.cache.read(offset, size)
            case 16:  # WRITE
                _, offset, size = struct.unpack_from("<QQI", body)
                self.cache.write(offset, bytes(body[40 : 40 + size]))
                return struct.pack("<II", size, 0)
            case 20:  # FSYNC
                self.cache.flush()
                return b""
            case 17:  # STATFS
                return struct.pack("<QQQQQIIII", 1, 0, 0, 2, 0, 4_096, 255, 4_096, 0) + bytes(24)
            case 18 | 25 | 28 | 29 | 38:  # RELEASE, FLUSH (of a descriptor), READDIR, RELEASEDIR, DESTROY
                return b""
        raise OSError(errno.ENOSYS, "not a thing that disks do")

    def _attributes(self, node: int) -> bytes:
        mode, size = (0o40700, 0) if node == ROOT else (0o100600, self.cache.size_bytes)
        return ATTRIBUTES.pack(node, size, -(-size // 512), *[0] * 6, mode, 1, 0, 0, 0, 4_096, 0)


def main() -> None:
    """Serve until the file system is unmounted."""
    image, mountpoint = sys.argv[1:]
    cache = Cache(image)
    server = Server(cache, mountpoint)
    waiting = selectors.DefaultSelector()
    waiting.register(server.device, selectors.EVENT_READ)
    waiting.register(sys.stdin.buffer.raw, selectors.EVENT_READ)  # type: ignore[attr-defined]
    print("ready", flush=True)
    while True:
        for key, _ in waiting.select():
            if key.fd == server.device:
                if not server.serve_one():
                    return
                continue
            words = os.read(0, 1_000).decode().split()
            if not words:
                waiting.unregister(key.fileobj)
            elif words[0] == "cut":
                print(*cache.cut(int(words[1])), flush=True)
            elif words[0] == "slow":
                cache.flush_s = float(words[1])
                print("slow", flush=True)


if __name__ == "__main__":
    main()
