"""Requirement classes: each different set of requirements gets a small number, once for the whole cluster.

Ready tasks are indexed by class, so that a claim looks only at tasks that fit, however many others wait.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import msgspec

from iceprod_p2p.ledger import keys
from iceprod_p2p.ledger.limits import REQUIREMENTS_MAX
from iceprod_p2p.ledger.tables import Tables
from iceprod_p2p.model.resources import Requirements

_encode: Final = msgspec.msgpack.Encoder().encode


def number_of_requirements(t: Tables, needs: Requirements) -> int | None:
    """Return the number of a class, giving it one if it is new; None when no number is left."""
    key = keys.REQUIREMENTS_NUMBER + sha256(_encode(needs)).digest()[:16]
    number = t.numbers.get(key)
    if number is not None:
        return number
    cluster = t.cluster
    assert cluster is not None
    if cluster.requirements >= REQUIREMENTS_MAX:
        return None
    cluster.requirements += 1
    t.save_cluster(cluster)
    t.numbers.put(key, cluster.requirements)
    t.requirements.put(keys.by_number(keys.REQUIREMENTS, cluster.requirements), needs)
    return cluster.requirements


def normal(needs: Requirements) -> Requirements:
    """Return requirements with their attributes sorted and without repeats."""
    return msgspec.structs.replace(needs, attributes=tuple(sorted(set(needs.attributes))))
