"""Messages of the wire to the model's records and back, with every bound checked on the way in.

BadInput names the first field that cannot be accepted.  Numbers in messages are unsigned by their types; what
is checked here is size and count, before anything is built from them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.model.files import FileEntry
from iceprod_p2p.model.resources import Requirements, Usage
from iceprod_p2p.wire.pb import common_pb2

FILES_MAX: Final = 256  # Of one report: its command must fit one log entry.
STATISTICS_MAX: Final = 256
NAME_LENGTH_MAX: Final = 255
MESSAGE_BYTES_MAX: Final = 4_096
WORD_LENGTH_MAX: Final = 128
ATTRIBUTES_MAX: Final = 64
NUMBER_MAX: Final = 2**53
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_KINDS: Final = frozenset({"permanent", "job_temp", "dataset_temp", "site_temp", "log"})


def is_sha256(text: str) -> bool:
    """Return whether `text` is a SHA-256 as everything here writes it: 64 lower-case hexadecimal digits."""
    return _SHA256.fullmatch(text) is not None


def require_sha256(text: str) -> str:
    """Return `text`; BadInput unless it is a SHA-256."""
    if not is_sha256(text):
        raise BadInput(f"{text[:80]!r} is not a SHA-256", remedy="give its 64 lower-case hexadecimal digits")
    return text


def requirements_from(message: common_pb2.Requirements) -> Requirements:
    """Read what a task needs."""
    return Requirements(
        cpus=message.cpus,
        gpus=message.gpus,
        memory_mib=_whole(message.memory_mib, "memory_mib"),
        disk_mib=_whole(message.disk_mib, "disk_mib"),
        walltime_s=_whole(message.walltime_s, "walltime_s"),
        attributes=attributes_from(message.attributes),
    )


def requirements_to(need: Requirements) -> common_pb2.Requirements:
    """Write what a task needs."""
    return common_pb2.Requirements(
        cpus=need.cpus,
        gpus=need.gpus,
        memory_mib=need.memory_mib,
        disk_mib=need.disk_mib,
        walltime_s=need.walltime_s,
        attributes=need.attributes,
    )


def attributes_from(words: Iterable[str]) -> tuple[str, ...]:
    """Read attributes: sorted, without repeats, few and short."""
    found = tuple(sorted(set(words)))
    if len(found) > ATTRIBUTES_MAX or any(len(word) > WORD_LENGTH_MAX for word in found):
        raise BadInput(f"more than {ATTRIBUTES_MAX} attributes, or one that is too long")
    return found


def usage_from(message: common_pb2.Usage) -> Usage:
    """Read what an attempt used."""
    return Usage(
        wall_ms=_whole(message.wall_ms, "wall_ms"),
        cpu_ms=_whole(message.cpu_ms, "cpu_ms"),
        memory_peak_mib=_whole(message.memory_peak_mib, "memory_peak_mib"),
        disk_peak_mib=_whole(message.disk_peak_mib, "disk_peak_mib"),
    )


def usage_to(usage: Usage) -> common_pb2.Usage:
    """Write what an attempt used."""
    return common_pb2.Usage(
        wall_ms=usage.wall_ms,
        cpu_ms=usage.cpu_ms,
        memory_peak_mib=usage.memory_peak_mib,
        disk_peak_mib=usage.disk_peak_mib,
    )


def file_from(message: common_pb2.FileEntry) -> FileEntry:
    """Read one output of a task."""
    name = text(message.name, "a file's name", NAME_LENGTH_MAX)
    if not name or name.startswith("/") or ".." in name.split("/"):
        raise BadInput(f"{name!r} cannot name a file", remedy="use a relative name without '..'")
    kind = message.kind or "job_temp"
    if kind not in _KINDS:
        raise BadInput(f"file {name!r} is of unknown kind {kind[:40]!r}")
    if len(message.checksums) > 8 or len(message.urls) > 8:
        raise BadInput(f"file {name!r} has more than 8 further checksums or copies")
    return FileEntry(
        name=name,
        size_bytes=_whole(message.size_bytes, "size_bytes"),
        sha256=require_sha256(message.sha256),
        kind=kind,
        checksums={
            text(k, "a checksum", 32): text(v, "a checksum", 256) for k, v in message.checksums.items()
        },
        urls=tuple(text(url, "a URL", 512) for url in message.urls),
    )


def files_from(messages: Iterable[common_pb2.FileEntry]) -> tuple[FileEntry, ...]:
    """Read the outputs of one report; two of one name are refused."""
    found = tuple(file_from(message) for message in messages)
    if len(found) > FILES_MAX:
        raise BadInput(f"{len(found)} files in one report; at most {FILES_MAX} are recorded")
    if len({entry.name for entry in found}) != len(found):
        raise BadInput("two files of one report have the same name")
    return found


def file_to(entry: FileEntry) -> common_pb2.FileEntry:
    """Write one output of a task."""
    return common_pb2.FileEntry(
        name=entry.name,
        size_bytes=entry.size_bytes,
        sha256=entry.sha256,
        kind=entry.kind,
        checksums=dict(entry.checksums),
        urls=entry.urls,
    )


def statistics_from(values: Mapping[str, float]) -> dict[str, float]:
    """Read a task's statistics, in the order of their names; NaN and infinities are refused."""
    if len(values) > STATISTICS_MAX:
        raise BadInput(f"{len(values)} statistics in one report; at most {STATISTICS_MAX} are kept")
    for name, value in values.items():
        text(name, "a statistic's name", WORD_LENGTH_MAX)
        if not name or not math.isfinite(value):
            raise BadInput(f"statistic {name!r} is {value}, which cannot be summed")
    return {name: values[name] for name in sorted(values)}


def text(value: str, what: str, length_max: int) -> str:
    """Return `value`; BadInput when it is longer than `length_max` or holds control characters, those that only
    change lines or the direction of writing included.
    """
    if len(value) > length_max:
        raise BadInput(f"{what} is longer than {length_max} characters")
    if _CONTROLS.search(value):
        raise BadInput(f"{what} holds control characters")
    return value


def message_tail(value: str) -> str:
    """Return the last part of a text of several lines that fits the ledger's bound of 4 KiB in UTF-8."""
    kept = value.encode("utf-8", "replace")[-MESSAGE_BYTES_MAX:]
    return kept.decode("utf-8", "ignore")


def _whole(value: int, what: str) -> int:
    if value > NUMBER_MAX:
        raise BadInput(f"{what} is {value}, which is more than anything real")
    return int(value)
