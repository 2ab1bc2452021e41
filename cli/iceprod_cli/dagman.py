"""One job as a directory that HTCondor's DAGMan runs: a node for each task, its edges from the job's own DAG.

    DIRECTORY/job.dag       what condor_submit_dag is given
    DIRECTORY/task.sub      the one submit description of all nodes
    DIRECTORY/bundle/       what `iceprod_pilot.local` runs: job.json, document.json, blobs
    DIRECTORY/INDEX.out     what a task's process said; .err and .log beside it

Sources: the HTCondor manual 23, "DAGMan Workflows"; every node runs by the very code that a pilot runs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from iceprod_p2p.base.errors import BadInput
from iceprod_p2p.client.submission import Packed
from iceprod_p2p.model.dataset import TaskShape

RUNNER_MEMORY_MIB: Final = 256  # Beside what the task asked for.
RETRIES: Final = 2


def write_bundle(bundle: Path, packed: Packed, wish: Mapping[str, Any]) -> None:
    """Lay down what `iceprod_pilot.local` runs, in a directory that is there."""
    (bundle / "blobs").mkdir()
    for digest, content in packed.blobs.items():
        (bundle / "blobs" / digest).write_bytes(content)
    for digest, path in packed.files.items():
        (bundle / "blobs" / digest).symlink_to(path)
    (bundle / "document.json").write_bytes(packed.document)
    (bundle / "job.json").write_text(json.dumps(wish))


def write_dag(
    directory: Path, packed: Packed, wish: Mapping[str, Any], shapes: Sequence[TaskShape], *, of_job: int
) -> Path:
    """Write the directory, which must not be there yet, and return the DAG's file; BadInput when it cannot be.

    The first `of_job` of `shapes` are the job's; the others come once, after all of it.
    """
    try:
        (directory / "bundle").mkdir(parents=True)
    except OSError as fault:
        raise BadInput(
            f"cannot make {directory}: {fault.strerror}", remedy="name a directory that is not there yet"
        ) from fault
    write_bundle(directory / "bundle", packed, {**wish, "task": ""})
    (directory / "task.sub").write_text(description(directory))
    path = directory / "job.dag"
    path.write_text(dag(shapes, of_job=of_job))
    return path


def dag(shapes: Sequence[TaskShape], *, of_job: int) -> str:
    """Return the text of the DAG: nodes, what each asks for, and its edges."""
    lines = []
    for index, shape in enumerate(shapes):
        need = shape.requirements
        amounts = {
            "index": index,
            "cpus": max(1, need.cpus),
            "gpus": need.gpus,
            "memory": need.memory_mib + RUNNER_MEMORY_MIB,
            "disk": need.disk_mib,
        }
        said = " ".join(f'{name}="{value}"' for name, value in amounts.items())
        lines += [f"JOB t{index} task.sub", f"VARS t{index} {said}", f"RETRY t{index} {RETRIES}"]
    for index, shape in enumerate(shapes):
        parents = shape.parents if index < of_job else range(index)
        if parents:
            lines.append(f"PARENT {' '.join(f't{parent}' for parent in parents)} CHILD t{index}")
    return "\n".join([*lines, ""])


def description(directory: Path) -> str:
    """Return the submit description that all nodes share."""
    passed_on = [f"{name}={os.environ[name]}" for name in ("PYTHONPATH",) if name in os.environ]
    lines = {
        "universe": "vanilla",
        "executable": sys.executable,
        "arguments": f'"-m iceprod_pilot.local --bundle {directory}/bundle --only $(index)"',
        "environment": f'"{" ".join(passed_on)}"' if passed_on else "",
        "initialdir": str(directory),
        "transfer_executable": "false",
        "should_transfer_files": "no",
        "output": "$(index).out",
        "error": "$(index).err",
        "log": f"{directory}/job.log",
        "request_cpus": "$(cpus)",
        "request_gpus": "$(gpus)",
        "request_memory": "$(memory)M",
        "request_disk": "$(disk)M",
        "notification": "never",
    }
    return "\n".join([*(f"{name} = {value}" for name, value in lines.items() if value), "queue", ""])
