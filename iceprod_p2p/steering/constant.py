"""Which tasks are the same in every job: those in whose texts no phrase can stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass

from iceprod_p2p.model.steering import Configuration

PHRASE = "$"  # Every phrase begins with it; what makes jobs differ comes in by phrases alone.


def is_constant(configuration: Configuration, task_index: int) -> bool:
    """Return whether expanding the task gives the same in every job, on every site and in every attempt.

    That leaves out the `args` of the result, which are the job's own.  False may be said of a task that is the same
    all the same: a `$` anywhere in it, or in what all tasks share, is enough.  Time: as the size of those texts.
    """
    shared = (getattr(configuration, field.name) for field in fields(configuration) if field.name != "tasks")
    return not any(map(_has_phrase, (*shared, configuration.tasks[task_index])))


def _has_phrase(value: object) -> bool:
    if isinstance(value, str):
        return PHRASE in value
    if isinstance(value, Mapping):
        return any(map(_has_phrase, (*value.keys(), *value.values())))
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(map(_has_phrase, value))
    if is_dataclass(value):
        return any(_has_phrase(getattr(value, field.name)) for field in fields(value))
    return False
