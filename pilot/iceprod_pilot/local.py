"""``python -m iceprod_pilot.local``: one job of a dataset in the foreground, without a cluster.

Every task goes through the very code that a pilot runs; a directory stands in for the nodes (`directory`).  Tasks run
one after the other in the order of their DAG, files between them go by content, and what is permanent lands below
`out`.  The command line and grid jobs without a node (unmonitored ones) start it with a bundle:

    BUNDLE/job.json         a LocalJob
    BUNDLE/document.json    the steering document
    BUNDLE/blobs/DIGEST     what the document names as iceprod://sha256/DIGEST
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec

from iceprod_p2p.base import logs
from iceprod_p2p.base.clock import SystemClock
from iceprod_p2p.base.errors import BadInput, IceProdError
from iceprod_p2p.model.dataset import TaskShape
from iceprod_p2p.wire.pb import common_pb2, pilot_pb2
from iceprod_pilot import guard
from iceprod_pilot.attempt import Attempt, Ending
from iceprod_pilot.config import Node, PilotConfig
from iceprod_pilot.directory import DirectorySource
from iceprod_pilot.environment import gpu_names
from iceprod_pilot.staging import Content, Staging
from iceprod_pilot.task import TaskRunner
from iceprod_pilot.workspace import Workspace, inside, remove

EXIT_OK: Final = 0
EXIT_TASK_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
CACHE_MIB: Final = 16 * 1024


class LocalJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to run: job `job` of `jobs`; `task` empty means every task, else that one and those it waits for.

    With `only` the task of that index runs alone: what the tasks before it wrote, in processes of their own, lies in
    ``out/.iceprod``.  `out` receives the permanent files, `result` a JSON answer; with `keep` everything in
    between stays in ``out/.iceprod``.
    """

    job: int
    jobs: int
    out: str
    result: str
    dataset: int = 1
    seed: int = 0
    task: str = ""
    keep: bool = False
    only: int = -1
    show_log: bool = False
    gpus: int = 0
    system: dict[str, str] = {}
    software: dict[str, str] = {}  # NAME/VERSION: SHA-256 of a tarball in the bundle.


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job; return 0 when every task ended well, 1 when one failed, 130 when it was interrupted."""
    parser = argparse.ArgumentParser(prog="iceprod_pilot.local", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--bundle", type=Path, required=True, help="directory with job.json, document and blobs"
    )
    parser.add_argument(
        "--only", metavar="INDEX", type=int, default=-1, help="one task, after those before it"
    )
    options = parser.parse_args(argv)
    os.umask(0o077)
    logs.configure(style="text", level="WARNING")
    try:
        guard.protect_this_process()
        job = msgspec.json.decode((options.bundle / "job.json").read_bytes(), type=LocalJob)
        if options.only >= 0:
            result = str(options.bundle / f"result-{options.only}.json")
            job = msgspec.structs.replace(job, task="", only=options.only, result=result)
        return LocalRun(options.bundle, job, environ=os.environ).run()
    except (IceProdError, OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as failure:
        print(f"error: {failure}", file=sys.stderr)
        return failure.exit_code if isinstance(failure, IceProdError) else 1


class LocalRun:
    """One job; `run` is its whole life, on the main thread.  Progress is told on stderr, a line for each task."""

    def __init__(self, bundle: Path, job: LocalJob, *, environ: Mapping[str, str]) -> None:
        self._job = job
        self._out = Path(job.out).absolute()
        self._private = self._out / ".iceprod"
        self._document = (bundle / "document.json").read_bytes()
        self._digest = sha256(self._document).hexdigest()
        self._clock = SystemClock()
        self._records = self._private / "records"
        if job.only < 0:
            remove(self._private)
        self._records.mkdir(parents=True, mode=0o700, exist_ok=True)
        self._source = DirectorySource(self._private)
        for path in sorted(self._records.iterdir()):
            self._source.record(pilot_pb2.Finished.FromString(path.read_bytes()).files)
        for path in (bundle / "blobs").iterdir():
            self._take(path.read_bytes())
        self._take(self._document)
        for label, digest in job.software.items():
            software, _, version = label.partition("/")
            self._source.offer(common_pb2.SoftwareBuild(name=software, version=version, sha256=digest))
        name = f"local-{os.getpid()}"
        self._gpus = gpu_names(job.gpus, environ)
        self._workspace = Workspace(self._private / "work", name)
        self._guard = guard.Guard(self._workspace.path)
        self._staging = Staging(self._source, self._private / "cache", cache_mib=CACHE_MIB)
        self._tasks = TaskRunner(
            self._config(name),
            link=self._source,
            staging=self._staging,
            workspace=self._workspace,
            guard=self._guard,
            clock=self._clock,
            environ=environ,
            say=lambda report: None,
        )
        self._running: Attempt | None = None
        self._interrupted = False
        self._of_job = 0  # Tasks after the whole dataset have indices from here on; this job is all of it.

    def run(self) -> int:
        """Run the tasks in order, up to the first that fails; write the answer; return the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        done: list[dict[str, Any]] = []
        try:
            for index, shape in self._wanted():
                done.append(self._run_task(index, shape))
                if not done[-1]["ok"]:
                    break
        finally:
            self._workspace.close()
            self._guard.close()
            if not self._job.keep and self._job.only < 0:
                remove(self._private)
        answer = {
            "job": self._job.job,
            "ok": all(task["ok"] for task in done),
            "interrupted": self._interrupted,
            "directory": str(self._out),
            "tasks": done,
        }
        Path(self._job.result).write_bytes(msgspec.json.encode(answer))
        if self._interrupted:
            return EXIT_INTERRUPTED
        return EXIT_OK if answer["ok"] else EXIT_TASK_FAILED

    def _wanted(self) -> list[tuple[int, TaskShape]]:
        """Return the tasks to run with their indices, in the order of the document, which has parents first."""
        from iceprod_p2p.steering.plan import all_shapes, task_shapes
        from iceprod_p2p.steering.read import read

        configuration = read(self._document, name="the dataset")
        shapes = all_shapes(configuration)
        self._of_job = len(task_shapes(configuration))
        if self._job.only >= 0:
            return [(self._job.only, shapes[self._job.only])] if self._job.only < len(shapes) else []
        if not self._job.task:
            return list(enumerate(shapes))
        names = {shape.name: index for index, shape in enumerate(shapes)}
        if self._job.task not in names:
            raise BadInput(
                f"there is no task {self._job.task!r}", remedy=f"there are: {', '.join(names) or 'none'}"
            )
        wanted = {names[self._job.task]}
        for index in range(len(shapes) - 1, -1, -1):
            if index in wanted:
                wanted.update(shapes[index].parents if index < self._of_job else range(index))
        return [(index, shapes[index]) for index in sorted(wanted)]

    def _run_task(self, index: int, shape: TaskShape) -> dict[str, Any]:
        attempt = self._running = Attempt(self._order(index, shape), gpus=self._gpus)
        if self._interrupted:
            attempt.cancel.throw(Ending.EVICT)
        print(f"task {shape.name} ...", file=sys.stderr, flush=True)
        report = self._tasks.perform(attempt)
        attempt.cancel.close()
        self._running = None
        assert report is not None  # Only a stopped attempt has none, and nobody stops one here.
        ok = report.HasField("finished")
        what: Any = report.finished if ok else report.failed
        if ok:
            self._source.record(entry for entry in what.files if entry.kind != "log")
            self._note(index, what.files)
        files = [self._kept(entry) for entry in what.files]
        usage = {field.name: value for field, value in what.usage.ListFields()}
        answer: dict[str, Any] = {"task": shape.name, "ok": ok, "usage": usage, "files": files}
        if ok:
            answer["statistics"] = dict(sorted(what.statistics.items()))
        else:
            answer |= {"reason": what.reason, "message": what.message, "exit_code": what.exit_code}
        took_s = what.usage.wall_ms / 1_000
        print(
            f"task {shape.name} {'done' if ok else 'failed'} in {took_s:.1f} s", file=sys.stderr, flush=True
        )
        return answer

    def _order(self, index: int, shape: TaskShape) -> pilot_pb2.Order:
        need = shape.requirements
        return pilot_pb2.Order(
            ref=common_pb2.TaskRef(dataset=self._job.dataset, job=self._job.job, task=index, attempt=0),
            steering_sha256=self._digest,
            task_name=shape.name,
            jobs=self._job.jobs,
            follows=self._job.dataset if index >= self._of_job else 0,
            seed=self._job.seed,
            requirements=common_pb2.Requirements(
                cpus=need.cpus,
                gpus=need.gpus,
                memory_mib=need.memory_mib,
                disk_mib=need.disk_mib,
                walltime_s=need.walltime_s,
            ),
            system=self._job.system,
        )

    def _note(self, index: int, files: Iterable[common_pb2.FileEntry]) -> None:
        """Let processes that run the tasks after this one know what it wrote."""
        note = pilot_pb2.Finished(files=[entry for entry in files if entry.kind != "log"])
        scratch = self._private / f"{index}.partial"
        scratch.write_bytes(note.SerializeToString())
        scratch.replace(self._records / str(index))

    def _kept(self, entry: common_pb2.FileEntry) -> dict[str, Any]:
        """Put a file where people find it, if it stays; return what is said of it."""
        told: dict[str, Any] = {
            "name": entry.name,
            "kind": entry.kind,
            "size_bytes": entry.size_bytes,
            "sha256": entry.sha256,
        }
        if entry.kind == "log" and not (self._job.keep or self._job.show_log):
            return told
        if entry.kind not in ("permanent", "log") and not self._job.keep:
            return told
        place = self._out if entry.kind == "permanent" else self._private / f"{entry.kind}"
        target = inside(place, entry.name)
        content = Content(entry.sha256, entry.size_bytes, entry.name)
        self._staging.deliver(content, target, wait=lambda seconds: False)
        if entry.kind == "log" and self._job.show_log:
            sys.stderr.write(target.read_text("utf-8", "replace"))
        return told | {"path": str(target)}

    def _take(self, content: bytes) -> None:
        self._source.put_blob(sha256(content).hexdigest(), len(content), [content])

    def _config(self, name: str) -> PilotConfig:
        return PilotConfig(
            pilot=name,
            site="local",
            cluster="local",
            secret_file="",
            root_pem="",
            nodes=(Node("local", "local", "", ""),),
            work_dir=str(self._private / "work"),
            state_dir=str(self._private),
            cache_dir=str(self._private / "cache"),
        )

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._interrupted = True
        if self._running is not None:
            self._running.cancel.throw(Ending.EVICT)


if __name__ == "__main__":
    raise SystemExit(main())
