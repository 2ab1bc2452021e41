"""One attempt at one task: expand its steering, stage in, run trays and modules in order, stage out, say how it went.

A payload may run twice, its effect may not: outputs are uploaded by content and become visible only when the cluster
accepts the report that lists them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import BadInput, IceProdError, IntegrityError, NotFound, Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.model.states import FailReason
from iceprod_p2p.modules.statistics import STATISTICS_MAX
from iceprod_p2p.transfers.limits import CREDENTIALS_VARIABLE
from iceprod_p2p.wire.pb import common_pb2, pilot_pb2
from iceprod_pilot.attempt import Attempt, Cancelled, Ending, Phase, TaskFailure
from iceprod_pilot.config import PilotConfig
from iceprod_pilot.environment import payload_environment
from iceprod_pilot.files import Files
from iceprod_pilot.guard import Guard
from iceprod_pilot.isolation import Isolation
from iceprod_pilot.outside import Outside
from iceprod_pilot.plan import Documents, Plan
from iceprod_pilot.runner import Limits, Meter, Runner
from iceprod_pilot.site_calls import SiteCalls, added
from iceprod_pilot.software import Software
from iceprod_pilot.source import Source
from iceprod_pilot.staging import Staging
from iceprod_pilot.starter import ModuleStarter
from iceprod_pilot.storage_credentials import STORAGE, StorageCredentials
from iceprod_pilot.surroundings import NOT_ISOLATED, Provider
from iceprod_pilot.trees import TreeCache
from iceprod_pilot.workspace import TaskDirectory, Workspace

_LOG = get_logger("pilot.task")

FILES_MAX: Final = 256  # Of one report, with its log: more the ledger would refuse.
LOG_TAIL_BYTES: Final = 1024 * 1024
MESSAGE_BYTES_MAX: Final = 4_096
MESSAGE_LINES_MAX: Final = 20
FAR_S: Final = 10 * 365 * 86_400.0  # The end of a task without a limit of time.

Say = Callable[[pilot_pb2.Report], None]


class TaskRunner:
    """Performs attempts; thread-safe, one call per running attempt."""

    def __init__(
        self,
        config: PilotConfig,
        *,
        link: Source,
        staging: Staging,
        workspace: Workspace,
        guard: Guard,
        clock: Clock,
        environ: Mapping[str, str],
        say: Say,
        isolation: Isolation = NOT_ISOLATED,
    ) -> None:
        self._config = config
        self._link = link
        self._staging = staging
        self._workspace = workspace
        self._guard = guard
        self._clock = clock
        self._environ = dict(environ)
        self._say = say
        self._isolation = isolation
        self._documents = Documents(staging)
        self._storage = StorageCredentials(
            config.transfer_credentials,
            fetch=link.credentials if config.transfer_handed else None,
            directory=config.state_path / STORAGE,
            clock=clock,
        )
        self._outside = Outside(self._storage)
        self._caches = (directory := config.cache_path / "software",)
        self._software = Software(link, staging, TreeCache(directory, size_mib=config.software_mib))

    def close(self) -> None:
        """Remove what the site handed out; no attempt may be under way."""
        self._storage.close()

    def perform(self, attempt: Attempt) -> pilot_pb2.Report | None:
        """Perform an attempt and return its report; None when it is no longer this pilot's to speak about."""
        started_s = self._clock.monotonic_s()
        run = _Run(self, attempt)
        report = attempt.report()
        try:
            try:
                run.perform(report)
            except Cancelled:
                raise
            except TaskFailure as failure:
                run.failed(report, failure)
            except (IceProdError, OSError) as failure:
                attempt.cancel.check()
                run.failed(report, _classified(failure))
        except Cancelled as cancelled:
            if cancelled.ending is Ending.STOP:
                return None
            run.failed(
                report, TaskFailure(FailReason.EVICTED, "the pilot had to end before the task was done")
            )
        finally:
            run.close()
        usage = (report.failed if report.HasField("failed") else report.finished).usage
        usage.wall_ms = int((self._clock.monotonic_s() - started_s) * 1_000)
        usage.cpu_ms, usage.memory_peak_mib = run.meter.cpu_ms, run.meter.memory_peak_mib
        usage.disk_peak_mib = run.meter.disk_peak_mib
        return report


class _Run:
    """The state of one attempt while it is performed."""

    def __init__(self, tools: TaskRunner, attempt: Attempt) -> None:
        self._tools = tools
        self._attempt = attempt
        self._directory: TaskDirectory | None = None
        self._files: Files | None = None
        self._leases = ExitStack()
        self._calls: SiteCalls | None = None
        self.meter = Meter()

    def perform(self, report: pilot_pb2.Report) -> None:
        """Do everything and fill in `report.finished`."""
        tools, attempt = self._tools, self._attempt
        _LOG.debug("task starts", task=str(attempt.ref), name=attempt.order.task_name)
        attempt.phase = Phase.STAGING_IN
        directory = self._directory = tools._workspace.open_task(str(attempt.ref))
        wait = attempt.cancel.wait
        files = self._files = Files(
            attempt,
            directory,
            tools._staging,
            tools._link,
            tools._clock,
            tools._say,
            outside=tools._outside,
            lend=lambda content: tools._software.shared(content, leases=self._leases, wait=wait),
        )
        self._calls = SiteCalls(tools._link, attempt, directory, tools._clock)
        environ = payload_environment(
            attempt,
            directory,
            pilot=tools._config.pilot,
            guard_mark=tools._guard.mark,
            own=tools._environ,
        )
        if tools._config.transfer_for_modules and (path := tools._outside.file()):
            environ[CREDENTIALS_VARIABLE] = path
        plan = tools._documents.plan(attempt.order, environ, wait=wait)
        files.bring(plan.inputs)
        attempt.phase = Phase.RUNNING
        statistics = self._run_modules(plan, directory, files, environ)
        attempt.phase = Phase.STAGING_OUT
        outputs = added(plan.outputs, self._calls.recorded)
        if len(outputs) >= FILES_MAX:
            raise TaskFailure(
                FailReason.PAYLOAD, f"{len(outputs)} outputs are more than a task may have: pack them"
            )
        entries = files.take_away(outputs)
        entries += self._log_entry()
        attempt.cancel.check()
        report.finished.statistics.update(statistics)
        report.finished.files.extend(entries)
        _LOG.debug("task finished", task=str(attempt.ref), name=attempt.order.task_name, files=len(entries))

    def _run_modules(
        self, plan: Plan, directory: TaskDirectory, files: Files, environ: Mapping[str, str]
    ) -> dict[str, float]:
        tools, need = self._tools, self._attempt.order.requirements
        end_s = tools._clock.monotonic_s() + (need.walltime_s or FAR_S)
        limits = Limits(end_s, need.memory_mib, need.disk_mib, need.walltime_s)
        runner = Runner(
            directory,
            limits,
            cancel=self._attempt.cancel,
            guard=tools._guard,
            clock=tools._clock,
            hears=self._calls,
        )
        self.meter = runner.meter
        starter = ModuleStarter(runner, directory, cpus=max(1, need.cpus))
        provider = Provider(
            tools._software,
            directory,
            environ,
            outside=tools._environ,
            leases=self._leases,
            wait=self._attempt.cancel.wait,
            gpus=bool(self._attempt.gpus),
            caches=tools._caches,
            isolation=tools._isolation,
        )
        statistics: dict[str, float] = {}
        for step in plan.steps:
            src = files.source(step.src, is_class=bool(step.class_name))
            # One dictionary goes through all modules, as in IceProd: a later module's value of a name stands.
            statistics.update(starter.run(files.with_blobs(step), provider.of(step), src=src))
        if len(statistics) > STATISTICS_MAX:
            raise TaskFailure(
                FailReason.PAYLOAD, f"{len(statistics)} statistics are more than the {STATISTICS_MAX} allowed"
            )
        return statistics

    def failed(self, report: pilot_pb2.Report, failure: TaskFailure) -> None:
        """Fill in `report.failed` from a failure, with the last lines that the payload printed."""
        report.ClearField("finished")
        report.failed.reason = failure.reason
        report.failed.exit_code = failure.task_exit_code
        report.failed.message = self._last_words(failure.message)
        _LOG.info(
            "task failed", task=str(self._attempt.ref), reason=str(failure.reason), why=failure.message[:300]
        )
        try:
            if self._attempt.cancel.ending is None:
                report.failed.files.extend(self._log_entry())
        except (IceProdError, OSError) as fault:  # The failure matters more than its log.
            _LOG.info("log not uploaded", task=str(self._attempt.ref), why=str(fault))

    def close(self) -> None:
        """Remove what the attempt left on disk, and let go of the software it used."""
        self._leases.close()
        if self._calls is not None:
            self._calls.close()
        if self._directory is not None:
            self._tools._workspace.close_task(self._directory)

    def _log_entry(self) -> list[common_pb2.FileEntry]:
        """Upload the task's log, when it printed anything."""
        if self._directory is None or self._files is None:
            return []
        tail = _tail(self._directory.log, LOG_TAIL_BYTES)
        if not tail:
            return []
        path = self._directory.root / "log.tail"
        path.write_bytes(tail)
        return [self._files.upload(path, f"{self._attempt.order.task_name}.log", kind="log")]

    def _last_words(self, message: str) -> str:
        lines: list[str] = []
        if self._directory is not None:
            text = _tail(self._directory.log, MESSAGE_BYTES_MAX).decode("utf-8", "replace")
            lines = [_printable(line) for line in text.splitlines()[-MESSAGE_LINES_MAX:]]
        head = _printable(message)[: MESSAGE_BYTES_MAX // 2]
        tail = "\n".join(lines)
        room = MESSAGE_BYTES_MAX - len(head.encode()) - 1
        cut = tail.encode()[-room:].decode("utf-8", "ignore")
        return f"{head}\n{cut}" if cut else head


def _classified(failure: IceProdError | OSError) -> TaskFailure:
    """Say whose fault an error was that nothing nearer to it has judged."""
    if isinstance(failure, IntegrityError):
        return TaskFailure(FailReason.INPUT_CHECKSUM, str(failure))
    if isinstance(failure, NotFound):
        return TaskFailure(FailReason.INPUT_MISSING, str(failure))
    if isinstance(failure, BadInput):
        return TaskFailure(FailReason.BAD_STEERING, str(failure))
    if isinstance(failure, Unavailable | OSError):
        return TaskFailure(FailReason.STORAGE, f"the worker node or its storage failed: {failure}")
    return TaskFailure(FailReason.STORAGE, str(failure))


def _tail(path: Path, bytes_max: int) -> bytes:
    try:
        if not os.stat(path).st_size:
            return b""
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - bytes_max))
            return file.read(bytes_max)
    except OSError:
        return b""


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
