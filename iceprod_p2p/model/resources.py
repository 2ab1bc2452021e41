"""What a task needs and what a site offers, in whole numbers.

Memory and disk in MiB, wall time in seconds.  An attribute is a word such as ``gpu-emulation`` or ``arch=x86_64``
that a site declares and a task may require; a task fits an offer when every amount fits and every attribute it
requires is among the offer's.  A task may name alternatives of a value: ``os=RHEL_8_x86_64|RHEL_9_x86_64``.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from iceprod_p2p.model.bounds import Amount, Number16, Number32, Word


def has_attribute(offered: Collection[str], attribute: str) -> bool:
    """Return whether what is offered has an attribute, or any of its alternatives: ``os=RHEL_8|RHEL_9``."""
    if attribute in offered:
        return True
    name, equals, values = attribute.partition("=")
    return "|" in values and any(f"{name}{equals}{value}" in offered for value in values.split("|") if value)


class Requirements(msgspec.Struct, frozen=True, array_like=True, gc=False, order=True):
    """What one task needs while it runs."""

    cpus: Number16 = 1
    gpus: Number16 = 0
    memory_mib: Number32 = 1_024
    disk_mib: Number32 = 1_024
    walltime_s: Number32 = 3_600
    attributes: tuple[Word, ...] = ()  # Sorted, without repeats.


class Offer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One resource class of a site: how much one slot of it has, and how many slots may be filled now.

    `gpu_tasks_only` keeps slots with GPUs for tasks that need them.
    """

    resource_class: Word
    slots: Number32
    cpus: Number32 = 1
    gpus: Number32 = 0
    memory_mib: Amount = 1_024
    disk_mib: Amount = 1_024
    walltime_s: Amount = 3_600
    attributes: tuple[Word, ...] = ()
    gpu_tasks_only: bool = True

    def fits(self, need: Requirements) -> bool:
        """Return whether one slot of this class can run a task with these requirements."""
        if self.gpus > 0 and self.gpu_tasks_only and need.gpus == 0:
            return False
        return (
            need.cpus <= self.cpus
            and need.gpus <= self.gpus
            and need.memory_mib <= self.memory_mib
            and need.disk_mib <= self.disk_mib
            and need.walltime_s <= self.walltime_s
            and all(has_attribute(self.attributes, attribute) for attribute in need.attributes)
        )


class Usage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one attempt used, as measured by the pilot."""

    wall_ms: Amount = 0
    cpu_ms: Amount = 0
    memory_peak_mib: Amount = 0
    disk_peak_mib: Amount = 0
