"""Numbers of a job that are derived, never drawn: its seed and its subdirectory."""

from __future__ import annotations

from typing import Final

SEED_BITS: Final = 63  # A seed is a whole number of 0 or more that every signed 64-bit field holds.
JOBS_PER_SUBDIRECTORY: Final = 1_000

_MASK: Final = (1 << SEED_BITS) - 1
# Odd factors and right shifts can be undone, so two jobs of a dataset never meet.  Source: the constants of
# splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
_STEP: Final = 0x9E3779B97F4A7C15
_FACTORS: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def job_seed(dataset_seed: int, job: int) -> int:
    """Return the seed of a job: the same wherever it is asked for, and another for every job of the dataset.

    `dataset_seed` is any whole number, `job` from 0 to 2**63 - 1.  Seeds of different datasets are unrelated but may
    meet by chance, as any two of 2**63 numbers.
    """
    mixed = (_mix(dataset_seed & _MASK) + (job + 1) * _STEP) & _MASK
    return _mix(mixed)


def _mix(number: int) -> int:
    for shift, factor in zip((30, 27), _FACTORS, strict=True):
        number = ((number ^ (number >> shift)) * factor) & _MASK
    return number ^ (number >> 31)


def subdirectory(job: int) -> str:
    """Return the directory of a job among many: bins of 1000 jobs, such as ``00000-00999``."""
    first = job - job % JOBS_PER_SUBDIRECTORY
    return f"{first:05d}-{first + JOBS_PER_SUBDIRECTORY - 1:05d}"
