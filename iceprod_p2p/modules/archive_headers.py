"""Headers and links of tar archives from strangers, judged without touching the file system.

Source: the advisories on Python's tarfile (CVE-2007-4559, CVE-2024-6232, CVE-2025-4330, CVE-2025-4517, CVE-2025-8194)
and pax(1) of POSIX.1-2017.
"""

from __future__ import annotations

import tarfile
from collections import deque
from collections.abc import Mapping
from typing import Final

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.modules.statistics import clip

WORDS_MAX: Final = 64  # In one extended header; git writes one, GNU tar and Python some ten.
HOPS_MAX: Final = 40  # Links that lead to links; Linux follows no more.
STEPS_MAX: Final = 1_000_000  # Names looked at on the ways of all links together.


class Entry(tarfile.TarInfo):
    """A header as tarfile reads it, but for sparse files: their maps are as long as the archive says."""

    def _proc_sparse(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        raise self._sparse()

    def _proc_gnusparse_00(self, *arguments: object) -> None:
        raise self._sparse()

    def _proc_gnusparse_01(self, *arguments: object) -> None:
        raise self._sparse()

    def _proc_gnusparse_10(self, *arguments: object) -> None:
        raise self._sparse()

    def _sparse(self) -> BadInput:
        return BadInput(f"the archive holds {clip(self.name)} as a sparse file")


def check_header(tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """Refuse (BadInput) what would lead the reading backwards, or make each later entry cost what it likes."""
    if member.size < 0:
        raise BadInput(f"the archive gives {clip(member.name)} a size of {member.size} bytes")
    if len(tar.pax_headers) > WORDS_MAX or len(member.pax_headers) > WORDS_MAX:
        raise BadInput(f"the archive sets more than {WORDS_MAX} words in a header")


def check_links(links: Mapping[str, str]) -> None:
    """Refuse (BadInput) links, from normalised names to relative aims, that leave the archive by way of each other.

    Each of ``deep/er/up -> ../..`` and ``out -> deep/er/up/../x`` looks harmless; together they lead outside.
    """
    steps = 0
    for name in links:
        to_go, at, hops = deque(name.split("/")), list[str](), 0
        while to_go and hops <= HOPS_MAX:
            steps += 1
            if steps > STEPS_MAX:
                raise BadInput("the archive's links lead over too many other links")
            part = to_go.popleft()
            if part in ("", "."):
                continue
            if part == "..":
                if not at:
                    raise BadInput(
                        f"the archive links {clip(name)} to what lies outside it, over other links"
                    )
                at.pop()
                continue
            at.append(part)
            aim = links.get("/".join(at))
            if aim is not None:
                hops += 1
                at.pop()
                to_go.extendleft(reversed(aim.split("/")))
