"""PSI/J in a process of its own, for one call of the plugin `psij`: its threads, its SIGCHLD handler and commands
without a time limit stay out of the node.

    python -m iceprod_p2p.grids.psij_bridge     request as JSON on standard input, answer as JSON on standard output

The request is ``{"executor", "url", "work", "do": "submit" | "status" | "cancel" | "check", ...}``.  An id is written
into the grid job's place as soon as the system has told it, so that a bridge that dies loses none that was told.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import psij
import psutil
from psij.executors.batch.batch_scheduler_executor import (
    BatchSchedulerExecutor,
    BatchSchedulerExecutorConfig,
)

NEVER_S: Final = 86_400  # PSI/J's own polling is not used: this process ends long before.
STATUS_WAIT_S: Final = 3.0
LOCAL: Final = "local"


def main() -> int:
    """Answer one request."""
    request = json.load(sys.stdin)
    try:
        answer = {"answer": _answer(request)}
    except Exception as failure:  # Whatever PSI/J stumbles over becomes an answer: asserts guard its parsers.
        answer = {"error": f"{type(failure).__name__}: {failure}"[:2_000]}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)  # PSI/J's threads, and processes that it started here, are nobody's business any more.


def _answer(request: Mapping[str, Any]) -> Any:
    executor = _executor(request)
    match request["do"]:
        case "submit":
            return [_submit(executor, job) for job in request["jobs"]]
        case "status":
            return _status(executor, request["ids"])
        case "cancel":
            return [_cancel(executor, native) for native in request["ids"]]
        case "check":
            return _check(executor)
    raise ValueError(f"{request['do']!r} cannot be done")


def _executor(request: Mapping[str, Any]) -> psij.JobExecutor:
    work = Path(request["work"])
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    if request["executor"] == LOCAL:
        return psij.JobExecutor.get_instance(LOCAL)
    config = BatchSchedulerExecutorConfig(
        work_directory=work, queue_polling_interval=NEVER_S, initial_queue_polling_delay=NEVER_S
    )
    return psij.JobExecutor.get_instance(request["executor"], url=request["url"] or None, config=config)


def _submit(executor: psij.JobExecutor, asked: Mapping[str, Any]) -> dict[str, str]:
    attributes = psij.JobAttributes(queue_name=asked["queue"] or None, account=asked["account"] or None)
    attributes.duration = timedelta(seconds=asked["walltime_s"]) if asked["walltime_s"] else None  # type: ignore[assignment]
    for name, value in asked["attributes"].items():
        attributes.set_custom_attribute(name, value)
    resources = psij.ResourceSpecV1(
        node_count=1,
        processes_per_node=1,
        cpu_cores_per_process=asked["cores"],
        gpu_cores_per_process=asked["gpus"],
        memory=asked["memory_mib"] << 20 or None,
    )
    spec = psij.JobSpec(
        executable="/bin/sh",
        arguments=[asked["script"]],
        directory=asked["directory"],
        name=asked["name"],
        stdout_path=asked["stdout"],
        stderr_path=asked["stderr"],
        resources=resources,
        attributes=attributes,
        launcher="single",
    )
    job = psij.Job(spec)
    try:
        executor.submit(job)
    except psij.InvalidJobException as wrong:
        return {"refused": str(wrong)[:1_000]}
    except psij.SubmitException as failure:
        return {"failed": str(failure)[:1_000]}
    native = str(job.native_id)
    note = Path(asked["place"], "native.new")
    note.write_text(native)
    note.rename(note.with_name("native"))
    return {"id": native}


def _status(executor: psij.JobExecutor, ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return PSI/J's state and message for each id that the system lists."""
    if isinstance(executor, BatchSchedulerExecutor):
        return _batch_status(executor, ids)
    found = {}
    for native in ids:
        job = psij.Job()
        if executor.name == LOCAL:
            if not _is_ours(native):
                continue
            found[native] = {"state": "ACTIVE", "message": ""}
            continue
        executor.attach(job, native)
        job.wait(timedelta(seconds=STATUS_WAIT_S), [psij.JobState.ACTIVE, psij.JobState.QUEUED])
        if job.status.state != psij.JobState.NEW:
            found[native] = {"state": job.status.state.name, "message": job.status.message or ""}
    return found


def _batch_status(executor: BatchSchedulerExecutor, ids: Sequence[str]) -> dict[str, dict[str, str]]:
    exit_code, output = 0, ""
    try:
        output = executor._run_command(executor.get_status_command(list(ids)))
    except Exception as failed:  # Its command ended badly: the executor knows what that means.
        exit_code, output = int(getattr(failed, "returncode", 1)), str(getattr(failed, "output", failed))
    told = executor.parse_status_output(exit_code, output)
    return {
        native: {"state": status.state.name, "message": status.message or ""}
        for native, status in told.items()
        if native in ids
    }


def _is_ours(native: str) -> bool:
    """Return whether a process of that number runs one of our scripts: numbers are given again."""
    try:
        process = psutil.Process(int(native))
        return process.status() != psutil.STATUS_ZOMBIE and "psij.sh" in " ".join(process.cmdline())
    except (psutil.Error, ValueError):
        return False


def _cancel(executor: psij.JobExecutor, native: str) -> str:
    """Return why it could not be cancelled, empty when it was."""
    if executor.name == LOCAL:
        if _is_ours(native):
            for process in psutil.Process(int(native)).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.terminate()
        return ""
    job = psij.Job()
    try:
        executor.attach(job, native)
        executor.cancel(job)
    except psij.SubmitException as failure:
        return str(failure)[:1_000]
    return ""


def _check(executor: psij.JobExecutor) -> str:
    words = f"PSI/J {psij.__version__}, executor {executor.name}"
    if executor.name == LOCAL:
        return words
    return f"{words}, {len(executor.list())} jobs listed"


if __name__ == "__main__":
    raise SystemExit(main())
