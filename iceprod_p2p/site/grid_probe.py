"""A site's test: one probe through its batch system to a worker node and back, each step told with its remedy.

The probe is a pilot of a resource class that looks at its worker node and ends (`iceprod_pilot.probe`): it asks the
batch system for what pilots ask, is in nobody's book, uses no secret and runs no task.  Whatever happens, its grid
job is removed and its directory with it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.config import ResourceClass, SiteConfig
from iceprod_p2p.base.errors import BadInput, IceProdError, NotFound, Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.grids.base import (
    Completed,
    Failed,
    Grid,
    GridRequest,
    GridState,
    Held,
    NotSubmitted,
    Queued,
    Removed,
    Running,
    SubmitResult,
    Submitted,
    Unclear,
    Vanished,
    is_final,
)
from iceprod_p2p.grids.polling import poll
from iceprod_p2p.security.random import new_pilot_id
from iceprod_p2p.site.credential_watch import credential_state
from iceprod_p2p.site.pilot_files import PilotKit
from iceprod_p2p.wire.pb import common_pb2, control_pb2

WAIT_S: Final = 300
WAIT_S_MAX: Final = 86_400
POLL_S: Final = 1.0
FIND_S: Final = 30.0  # A submission without an answer is looked for so long.
OUTPUT_BYTES_MAX: Final = 65_536
FINDINGS_MAX: Final = 40
SAID_MAX: Final = 400
RESULTS: Final = ("ok", "warning", "failed")
log = get_logger("probe")
Step = control_pb2.TestStep
Submission = asyncio.Future[list[SubmitResult]]
Result = TypeVar("Result")


class ProbeView(Protocol):
    """What is read of the cluster."""

    def draining(self, site: str) -> bool:
        """Whether the site takes no new work."""
        ...

    def nodes(self) -> tuple[common_pb2.NodeAddress, ...]:
        """Every node that can be called."""
        ...


class GridProbe:
    """Tests of one node, one at a time; used on the event loop only."""

    def __init__(
        self,
        *,
        config: Callable[[], SiteConfig],
        grid: Grid,
        kit: PilotKit,
        directory: Path,
        cluster: ProbeView,
        executor: Executor,
        clock: Clock,
    ) -> None:
        """`directory` holds one directory for each pilot; `executor` is the one that speaks to the batch system."""
        self._config = config
        self._grid = grid
        self._kit = kit
        self._directory = directory
        self._cluster = cluster
        self._executor = executor
        self._clock = clock
        self._busy = False

    async def run(self, request: control_pb2.TestSiteRequest) -> AsyncGenerator[Step]:
        """Yield each step when it is over; the last one may have failed or be late.

        NotFound for an unknown class, Unavailable while another test is under way here.
        """
        kind, wait_s = self._class(request.resource_class), float(request.wait_s or WAIT_S)
        if wait_s > WAIT_S_MAX:
            raise BadInput(f"a probe waits at most {WAIT_S_MAX} s")
        if self._busy:
            raise Unavailable("another test of this node is under way", remedy="wait for its end")
        self._busy = True
        try:
            began_s = self._clock.monotonic_s()
            async with aclosing(self._steps(kind, wait_s)) as steps:
                async for step in steps:
                    now_s = self._clock.monotonic_s()
                    step.took_ms, began_s = int((now_s - began_s) * 1_000), now_s
                    step.node_id = self._config().node.id
                    yield step
        finally:
            self._busy = False

    def _class(self, name: str) -> ResourceClass:
        queue = self._config().queue
        kind = queue.resource_class(name) if name else queue.classes[0]
        if kind is None:
            known = ", ".join(entry.name for entry in queue.classes)
            raise NotFound(
                f"site {self._config().node.site} has no class {name[:80]!r}", remedy=f"it has {known}"
            )
        return kind

    async def _steps(self, kind: ResourceClass, wait_s: float) -> AsyncGenerator[Step]:
        for step in self._before(kind):
            yield step
            if step.result == "failed":
                return
        try:
            yield _ok("system", await self._thread(self._grid.check))
        except IceProdError as trouble:
            yield _failed("system", trouble.message, trouble.remedy or _CHECK)
            return
        pilot = new_pilot_id()
        self._kit.probes.add(pilot)
        ids: list[str] = []
        asked: list[Submission] = []
        try:
            async for step in self._life(pilot, kind, wait_s, ids, asked):
                yield step
        finally:
            await asyncio.shield(asyncio.ensure_future(self._clean(pilot, ids, asked)))

    def _before(self, kind: ResourceClass) -> Iterator[Step]:
        """Yield what can be said without the batch system."""
        config = self._config()
        misfit = self._kit.misfit(self._grid, kind)
        words = f"{kind.name}: {kind.slots * kind.cpus} cores, {kind.slots * kind.memory_mib} MiB"
        words += (
            f", {kind.slots * kind.gpus} GPUs, {kind.walltime_s} s" if kind.gpus else f", {kind.walltime_s} s"
        )
        if misfit:
            yield _failed("class", f"no pilot of class {kind.name} will ever start: {misfit}", _CLASS)
        elif self._cluster.draining(config.node.site):
            yield _warning(
                "class",
                f"{words}; the site drains and claims nothing",
                f"iceprod site resume {config.node.site}",
            )
        else:
            yield _ok("class", words)
        if config.queue.credential:
            state = credential_state(config.queue, self._clock)
            yield (
                _failed("credential", state.trouble, _CREDENTIAL)
                if state.trouble
                else _ok("credential", state.words)
            )

    async def _life(
        self, pilot: str, kind: ResourceClass, wait_s: float, ids: list[str], asked: list[Submission]
    ) -> AsyncIterator[Step]:
        """Submit, watch and read; `ids` gets what has to be removed in the end, `asked` what may have to be."""
        try:
            request = await self._thread(lambda: self._prepared(pilot, kind))
            submission = asyncio.ensure_future(self._thread(lambda: self._grid.submit([request])))
            asked.append(submission)
            (result,) = await asyncio.shield(submission)  # Who interrupts the test does not stop the thread.
        except (IceProdError, OSError) as trouble:
            remedy = trouble.remedy if isinstance(trouble, IceProdError) else ""
            yield _failed("submit", str(getattr(trouble, "message", trouble)), remedy or _CHECK)
            return
        if isinstance(result, NotSubmitted):
            yield _failed("submit", f"the batch system refused it: {result.reason}", _REFUSED)
            return
        grid_job_id = result.grid_job_id if isinstance(result, Submitted) else await self._found(request)
        if not grid_job_id:
            yield _failed("submit", f"no clear answer: {getattr(result, 'reason', '')}", _CHECK)
            return
        ids.append(grid_job_id)
        asked.clear()
        yield _ok("submit", f"grid job {grid_job_id}, named {request.tag}")
        async for step in self._watch(request, grid_job_id, wait_s, ids):
            yield step

    def _prepared(self, pilot: str, kind: ResourceClass) -> GridRequest:
        self._kit.make_ready()
        directory = self._directory / pilot
        _, request = self._kit.prepare(
            pilot, kind, directory, self._cluster.nodes(), now_ms=self._clock.wall_ms()
        )
        return replace(request, arguments=(*request.arguments, "--probe"))

    async def _found(self, request: GridRequest) -> str:
        """Look for a submission whose answer was lost; return its id, empty when there is none."""
        end_s = self._clock.monotonic_s() + FIND_S
        while self._clock.monotonic_s() < end_s:
            try:
                found = await self._thread(lambda: self._grid.find_by_tag([request.tag]))
            except IceProdError:
                found = {}
            if request.tag in found:
                return found[request.tag].grid_job_id
            await asyncio.sleep(POLL_S)
        return ""

    async def _watch(
        self, request: GridRequest, grid_job_id: str, wait_s: float, ids: list[str]
    ) -> AsyncIterator[Step]:
        end_s = self._clock.monotonic_s() + wait_s
        missing: frozenset[str] = frozenset()
        state: GridState = Queued()
        began, trouble = False, ""
        while True:
            try:
                seen = await self._thread(partial(poll, self._grid, [grid_job_id], missing_before=missing))
                missing, trouble = seen.missing, ""
                state = seen.states.get(grid_job_id, state)
            except IceProdError as silent:
                trouble = f"; the batch system does not answer: {silent.message}"
            if isinstance(state, Running) and not began:
                began = True
                yield _ok("start", f"runs on {state.host}" if state.host else "runs")
            if isinstance(state, Held):
                yield _failed(
                    "start", f"the batch system holds it: {state.reason or 'no reason given'}", _HELD
                )
                return
            if is_final(state):
                break
            if self._clock.monotonic_s() >= end_s:
                yield _late(began, wait_s, state, trouble)
                return
            await asyncio.sleep(POLL_S)
        yield self._ended(request, state)
        for step in _read_findings(Path(request.stdout_path)):
            yield step
        await self._thread(lambda: self._grid.forget([grid_job_id]))
        ids.clear()

    def _ended(self, request: GridRequest, state: GridState) -> Step:
        match state:
            case Completed(exit_code=0):
                return _ok("end", "ended with exit code 0")
            case Completed():
                said = _tail(Path(request.stderr_path)) or "it left no word"
                return _failed(
                    "end", f"ended with exit code {state.exit_code}: {said}", _exit_remedy(state.exit_code)
                )
            case Removed():
                return _failed("end", f"somebody removed it: {state.reason or 'no reason given'}", _REMOVED)
            case Failed():
                return _failed("end", f"the batch system ended it: {state.reason}", _ENDED)
            case Vanished():
                return _failed("end", "the batch system no longer knows it, nor how it ended", _VANISHED)
        return _failed("end", f"ended as {state}", _ENDED)

    async def _clean(self, pilot: str, ids: list[str], asked: list[Submission]) -> None:
        try:
            if asked:
                ids += await self._submitted(asked)
            if ids:
                await self._thread(lambda: self._grid.remove(ids))
                await self._thread(lambda: self._grid.forget(ids))
        except IceProdError as trouble:
            log.warning("grid job of a test not removed", grid_jobs=ids, why=trouble.message)
        finally:
            self._kit.probes.discard(pilot)
            await self._thread(lambda: shutil.rmtree(self._directory / pilot, ignore_errors=True))

    async def _submitted(self, asked: list[Submission]) -> list[str]:
        """Return what came of submissions during which the test was interrupted, or whose answer was unclear."""
        answers = await asyncio.gather(*asked, return_exceptions=True)
        results = [result for answer in answers if isinstance(answer, list) for result in answer]
        unclear = [result.tag for result in results if isinstance(result, Unclear)]
        found = await self._thread(lambda: self._grid.find_by_tag(unclear)) if unclear else {}
        sure = [result.grid_job_id for result in results if isinstance(result, Submitted)]
        return sure + [status.grid_job_id for status in found.values()]

    async def _thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _read_findings(path: Path) -> Iterator[Step]:
    """Yield what the probe found on the worker node, as far as its output has come back."""
    text = _text(path)
    found = 0
    for line in text.splitlines()[:FINDINGS_MAX]:
        try:
            finding = json.loads(line)
            words = {name: str(finding[name])[:SAID_MAX] for name in ("name", "result", "text", "remedy")}
        except (ValueError, KeyError, TypeError):
            continue  # A site's own words around ours, such as a prologue's.
        if words["result"] in RESULTS:
            found += 1
            yield Step(name=words["name"], result=words["result"], text=words["text"], remedy=words["remedy"])
    if not found:
        yield Step(
            name="worker", result="skipped", text="no output came back: its exit code is all that is known"
        )


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(OUTPUT_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return ""


def _tail(path: Path) -> str:
    return " / ".join(_text(path).strip().splitlines()[-4:])[-SAID_MAX:]


def _late(began: bool, wait_s: float, state: GridState, trouble: str) -> Step:
    if began:
        text, remedy = f"it runs and has not ended after {wait_s:g} s{trouble}", _ENDED
    else:
        reason = f" ({state.reason})" if isinstance(state, Queued) and state.reason else ""
        text, remedy = f"it has not started after {wait_s:g} s{reason}{trouble}", _LATE
    return Step(name="end" if began else "start", result="late", text=text, remedy=remedy)


def _exit_remedy(exit_code: int) -> str:
    if exit_code in (126, 127):
        return "is the Python of [queue] worker_python there, and may the grid job's user run it?"
    return "see what is told of the worker node, and docs/pilot.md for exit codes"


def _ok(name: str, text: str) -> Step:
    return Step(name=name, result="ok", text=text)


def _warning(name: str, text: str, remedy: str) -> Step:
    return Step(name=name, result="warning", text=text, remedy=remedy)


def _failed(name: str, text: str, remedy: str) -> Step:
    return Step(name=name, result="failed", text=text, remedy=remedy)


_CHECK: Final = "check the batch system with its own commands, and [queue] with `iceprod-node config check`"
_CLASS: Final = "correct the class, or the options of the plugin, in site.toml"
_CREDENTIAL: Final = "renew it: [queue] credential and credential_command"
_REFUSED: Final = "correct queue_name, extra_lines or the class in site.toml"
_HELD: Final = "the reason is the batch system's: mend it there, or change the class in site.toml"
_LATE: Final = "see `iceprod site queue` and the batch system's own queue; wait longer with --wait"
_REMOVED: Final = "ask the operators of the batch system, and see its limits for this user"
_ENDED: Final = "see the batch system's log for this grid job; is its time or memory too small?"
_VANISHED: Final = "turn on the batch system's history or accounting, see docs/grids"
