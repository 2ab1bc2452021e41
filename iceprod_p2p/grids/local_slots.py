"""Which queued grid job of the local grid starts next: a pure decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from iceprod_p2p.grids.local_spool import JobFile, SpoolOptions


@dataclass(frozen=True, slots=True)
class Slots:
    """What is free now; `memory_mib` is None where memory is not counted."""

    cores: int
    memory_mib: int | None
    gpus: tuple[str, ...]

    @classmethod
    def free(cls, options: SpoolOptions, running: Iterable[tuple[JobFile, tuple[str, ...]]]) -> Slots:
        """Return what `running` grid jobs, each with the GPUs it was given, leave of `options`."""
        cores, memory_mib, taken = options.slots, options.memory_mib, set[str]()
        for job, gpus in running:
            cores -= job.cores
            memory_mib -= job.memory_mib
            taken.update(gpus)
        free = tuple(gpu for gpu in options.gpus if gpu not in taken)
        return cls(cores, memory_mib if options.memory_mib else None, free)

    def take(self, job: JobFile) -> tuple[Slots, tuple[str, ...]] | None:
        """Return what is left after `job`, and its GPUs; None when it does not fit."""
        if job.cores > self.cores or job.gpus > len(self.gpus):
            return None
        if self.memory_mib is not None and job.memory_mib > self.memory_mib:
            return None
        left_mib = None if self.memory_mib is None else self.memory_mib - job.memory_mib
        return Slots(self.cores - job.cores, left_mib, self.gpus[job.gpus :]), self.gpus[: job.gpus]


def next_to_start(slots: Slots, waiting: Mapping[str, JobFile]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the ids to start now with their GPUs: by priority, then by submission.

    The first that does not fit stops the line: a large grid job is never passed by small ones for ever.
    """
    chosen = []
    for grid_job_id, job in sorted(
        waiting.items(), key=lambda item: (-item[1].priority, item[1].sequence, item[0])
    ):
        taken = slots.take(job)
        if taken is None:
            break
        slots, gpus = taken
        chosen.append((grid_job_id, gpus))
    return chosen
