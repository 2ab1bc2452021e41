"""The certificates of people that this node's authority has issued and that are still in date.

One line each, ``FINGERPRINT EXPIRES_MS NAME``, appended durably before the certificate is handed out: whoever
revokes a person finds every certificate of theirs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from iceprod_p2p.base.errors import Unavailable
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.security.keyfiles import write_secret

FILE: Final = "issued"  # Beside the people's authority.
COMPACT_BYTES: Final = 1 << 20  # Some ten thousand lines; then those out of date are dropped.


class IssuedCertificates:
    """Blocks on the disk; one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, person: str, fingerprint: str, *, expires_ms: int, now_ms: int) -> None:
        """Remember a certificate; Unavailable when the disk refuses."""
        try:
            if self._path.exists() and self._path.stat().st_size > COMPACT_BYTES:
                kept = [line for line in self._lines() if line[1] >= now_ms]
                write_secret(self._path, "".join(_line(*entry) for entry in kept).encode())
            torn = self._ends_torn()
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                passing("issued.note.before")
                file.write(b"\n" * torn + _line(fingerprint, expires_ms, person).encode())
                file.flush()
                os.fsync(file.fileno())
                passing("issued.note.after")
        except OSError as fault:
            raise Unavailable(f"cannot write {self._path}: {fault.strerror}", remedy="make room") from fault

    def of(self, person: str, *, now_ms: int) -> tuple[str, ...]:
        """Return the fingerprints of a person's certificates that are in date, the oldest first."""
        return tuple(
            mark for mark, expires_ms, name in self._lines() if name == person and expires_ms >= now_ms
        )

    def _ends_torn(self) -> bool:
        """Whether the last line was cut short, by a full disk or a power cut: the next begins on its own."""
        if not self._path.exists() or not self._path.stat().st_size:
            return False
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"

    def _lines(self) -> list[tuple[str, int, str]]:
        if not self._path.exists():
            return []
        found = []
        for line in self._path.read_text("utf-8", "replace").splitlines():
            words = line.split(" ")
            if len(words) == 3 and words[1].isdigit():  # A line that was cut short was never handed out.
                found.append((words[0], int(words[1]), words[2]))
        return found


def _line(fingerprint: str, expires_ms: int, person: str) -> str:
    return f"{fingerprint} {expires_ms} {person}\n"
