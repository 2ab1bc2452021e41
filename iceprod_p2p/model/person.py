"""People's roles, each including the ones before it."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """`viewer` reads; `production` submits and controls its own; `operator` all datasets and sites; then all."""

    VIEWER = "viewer"
    PRODUCTION = "production"
    OPERATOR = "operator"
    ADMINISTRATOR = "administrator"


ROLE_RANK = {role: rank for rank, role in enumerate(Role)}
