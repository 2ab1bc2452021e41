"""What of a cluster's certificates can be made anew."""

from __future__ import annotations

from enum import StrEnum


class Renewal(StrEnum):
    """Which certificate: a node's own, the authority of its site or of people there, or the cluster's root."""

    NODE = "node"
    SITE = "site"
    PEOPLE = "people"
    ROOT = "root"
