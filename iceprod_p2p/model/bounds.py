"""Bounded whole numbers and words: what a decoder accepts before any rule sees it.

Each alias is the plain type for a type checker; a decoder also checks the bound, so that a number which would not fit
a key, or a text that would fill a page, never reaches the ledger's rules.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

Number32 = Annotated[
    int, Meta(ge=0, le=4_294_967_294)
]  # Datasets, jobs, attempts: four bytes of a key, one spare.
Number16 = Annotated[int, Meta(ge=0, le=65_534)]  # Task indices: two bytes of a key.
Version = Annotated[int, Meta(ge=1, le=65_534)]  # Of the ledger.
VersionOrNewest = Annotated[int, Meta(ge=0, le=65_534)]  # 0 means the newest that is possible.
TaskOrAll = Annotated[int, Meta(ge=-1, le=65_534)]  # -1 means every task of the job.
JobOrWhole = Annotated[int, Meta(ge=-1, le=4_294_967_293)]  # -1 means the dataset itself.
Amount = Annotated[int, Meta(ge=0, le=2**53)]  # Bytes, MiB, ms: exact also where a reader has only doubles.
LedgerMs = Annotated[int, Meta(ge=0, le=2**53)]  # Ledger time in milliseconds.
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
ExitCode = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]

Name = Annotated[str, Meta(max_length=63)]  # Sites, nodes, people, groups, aliases.
Actor = Annotated[str, Meta(max_length=160)]
Word = Annotated[str, Meta(max_length=128)]  # Attributes, statistics keys, categories.
Line = Annotated[str, Meta(max_length=512)]  # Descriptions, reasons, URLs, addresses.
FileName = Annotated[str, Meta(min_length=1, max_length=255)]
Message = Annotated[str, Meta(max_length=4_096)]  # The last lines of a failed attempt.
HexDigest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]

Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
Id16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
DigestOrEmpty = Annotated[bytes, Meta(max_length=32)]
Certificate = Annotated[bytes, Meta(max_length=8_192)]  # DER.
