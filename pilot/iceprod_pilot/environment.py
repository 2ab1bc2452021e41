"""The environment of a payload: made from nothing, so that nothing of the pilot leaks into it.

A few variables of the worker node are passed on by name, the site's own are added, then those that tell the payload
about its task.  Variables that a site might set by mistake and that would reach the pilot's secrets do not exist: the
pilot keeps none in its environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from iceprod_pilot.attempt import Attempt
from iceprod_pilot.guard import GUARD_VARIABLE
from iceprod_pilot.workspace import TaskDirectory

PASSED_ON: Final = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "USER",
    "LOGNAME",
    "SHELL",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
GPUS: Final = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


def payload_environment(
    attempt: Attempt, directory: TaskDirectory, *, pilot: str, guard_mark: str, own: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of the modules of `attempt`; `own` is the pilot's own environment."""
    order = attempt.order
    cpus = str(max(1, order.requirements.cpus))
    environment = {name: own[name] for name in PASSED_ON if name in own}
    environment.setdefault("PATH", _PATH)
    environment.update(dict.fromkeys(THREADS, cpus))
    environment.update(order.environment)
    environment.update(
        {
            "HOME": str(directory.work),
            "PWD": str(directory.work),
            "TMPDIR": str(directory.tmp),
            "ICEPROD_PILOT": pilot,
            GUARD_VARIABLE: guard_mark,
            "ICEPROD_DATASET": str(order.ref.dataset),
            "ICEPROD_JOB": str(order.ref.job),
            "ICEPROD_TASK": order.task_name,
            "ICEPROD_ATTEMPT": str(order.ref.attempt),
        }
    )
    environment.update({name: ",".join(attempt.gpus) for name in GPUS})
    return environment


def gpu_names(count: int, own: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of this pilot's GPUs: those the batch system gave it, else 0 and up."""
    given: Sequence[str] = [name for name in own.get(GPUS[0], "").split(",") if name]
    return tuple(given[:count]) if len(given) >= count else tuple(str(index) for index in range(count))
