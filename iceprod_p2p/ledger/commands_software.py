"""The commands about software: part of `commands`, whose rules for numbers and fields hold here too."""

from __future__ import annotations

import msgspec

from iceprod_p2p.model.bounds import Line, Name
from iceprod_p2p.model.software import Build, SoftwareName


class PublishSoftware(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=70):
    """Register the build of one platform of a named version; what a name stands for never changes.

    Repeated with the same content it is applied once; with other content it is a conflict.  A retired build that is
    published again is offered again.
    """

    name: SoftwareName
    version: SoftwareName
    build: Build
    owner: Name
    description: Line = ""


class RetireSoftware(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=71):
    """Let no new dataset use a version, or one platform of it; `forget` removes the record too (operators).

    `platform` is the text of one, empty for all.
    """

    name: SoftwareName
    version: SoftwareName
    platform: Line = ""
    forget: bool = False
