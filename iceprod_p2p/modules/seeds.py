"""Random streams of a job: numbers to seed generators with, the same on every machine and in every attempt.

A job's seed is recorded; each task, and each use inside a task, takes its own stream of it by
name.  Streams come from SHA-256, so two names never share one, and neighbouring seeds are as different as
any.  No generator lives here.
"""

from __future__ import annotations

import hashlib

WORDS = 8  # 256 bits: what numpy.random.SeedSequence takes in without loss


def stream_words(seed: int, *names: str) -> list[int]:
    """Return eight 32-bit words for ``numpy.random.SeedSequence(words)``.

    `seed` is the job's seed, any whole number; `names` are the task's name and, if it needs several
    streams, the use.
    """
    hashed = hashlib.sha256(b"iceprod random stream\0" + str(int(seed)).encode())
    for name in names:
        text = name.encode()
        hashed.update(len(text).to_bytes(4, "big") + text)  # the length keeps ("ab", "c") from ("a", "bc")
    digest = hashed.digest()
    return [int.from_bytes(digest[4 * word : 4 * word + 4], "big") for word in range(WORDS)]
