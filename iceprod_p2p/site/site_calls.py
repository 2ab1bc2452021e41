"""What a running module may ask its site: a few methods of the node, and those that the site has installed.

A site's own methods come from packages by the entry-point group `iceprod_p2p.site_methods`: a name, and a function
``method(call: SiteMethodCall, argument) -> answer``.  Arguments and answers are JSON-like data of bounded size.  Each
call carries the attempt's passkey; each attempt has its own bounded rate.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final, Protocol

import msgpack  # type: ignore[import-untyped,unused-ignore]

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import BadInput, IceProdError, NotFound, Refused, Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.ledger.commands import TaskRef
from iceprod_p2p.model.identity import Identity
from iceprod_p2p.security.passkeys import PasskeyRefused
from iceprod_p2p.site.reports import Edge, ref_of
from iceprod_p2p.wire.pb import pilot_pb2

GROUP: Final = "iceprod_p2p.site_methods"
BYTES_MAX: Final = 48 * 1024  # Of an argument, and of an answer.
CALLS_PER_S: Final = (
    20.0  # Of one attempt, twice what its pilot lets through; a burst of CALLS_BURST before that.
)
CALLS_BURST: Final = 100.0
ATTEMPTS_KNOWN: Final = 20_000  # Whose rates are remembered.
METHOD_S: Final = 20.0
AT_ONCE: Final = 16  # Methods of the site that run at once.
NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}(\.[a-z][a-z0-9_]{0,62}){0,3}")
log = get_logger("calls")


@dataclass(frozen=True, slots=True)
class SiteMethodCall:
    """Who calls: one attempt of one task, at `site`."""

    site: str
    node_id: str
    dataset: int
    job: int
    task: int
    attempt: int
    pilot: str


SiteMethod = Callable[[SiteMethodCall, Any], Any]


class CallView(Protocol):
    """What is read of the ledger."""

    def edge(self) -> Edge:
        """What passkeys are checked against."""
        ...

    def find_files(self, request: pilot_pb2.FindFilesRequest) -> pilot_pb2.FindFilesReply:
        """A page of files by a pattern of their names."""
        ...

    def time_ms(self) -> int:
        """Ledger time."""
        ...


class SiteCalls:
    """Answers calls of modules; used on the event loop, with the site's methods on threads of `executor`."""

    def __init__(
        self, *, site: str, node_id: str, cluster: CallView, executor: Executor, clock: Clock
    ) -> None:
        self._site = site
        self._node_id = node_id
        self._cluster = cluster
        self._executor = executor
        self._clock = clock
        self._rooms: OrderedDict[TaskRef, tuple[float, float]] = OrderedDict()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._methods: Mapping[str, SiteMethod] = {"facts": self._facts, "find_files": self._find_files}
        self._installed = installed_methods(reserved=self._methods)

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of all methods, sorted."""
        return tuple(sorted({*self._methods, *self._installed}))

    async def answer(
        self, request: pilot_pb2.SiteCall, identity: Identity, standing: Callable[[TaskRef], bool]
    ) -> pilot_pb2.SiteAnswer:
        """Answer one call of the pilot `identity`; `standing` tells whether an attempt is its own.

        Refused for a passkey or attempt that is not, and for too many calls; NotFound for an unknown method; BadInput
        for what is too large; Unavailable when a method takes too long; a method's own errors as they are.
        """
        ref = ref_of(request.ref)
        try:
            self._cluster.edge().claims(request.passkey, ref, identity)
        except PasskeyRefused as refusal:
            raise Refused(str(refusal.fault), refusal.message) from refusal
        if not standing(ref):
            raise Refused("stale_attempt", "this attempt is no longer the pilot's")
        if not self._may(ref):
            raise Refused("too_fast", f"more than {CALLS_PER_S:.0f} calls a second", remedy="ask less often")
        argument = _unpacked(request.argument)
        call = SiteMethodCall(
            self._site, self._node_id, ref.dataset, ref.job, ref.task, ref.attempt, identity.name
        )
        own = self._methods.get(request.method)
        if own is not None:
            return pilot_pb2.SiteAnswer(value=_packed(own(call, argument)))
        method = self._installed.get(request.method)
        if method is None:
            raise NotFound(
                f"site {self._site} has no method {request.method[:80]!r}",
                remedy=f"it has: {', '.join(self.methods)}",
            )
        return pilot_pb2.SiteAnswer(value=await self._run(request.method, method, call, argument))

    async def _run(self, name: str, method: SiteMethod, call: SiteMethodCall, argument: Any) -> bytes:
        loop = asyncio.get_running_loop()
        async with self._room:
            try:
                async with asyncio.timeout(METHOD_S):
                    value = await loop.run_in_executor(self._executor, method, call, argument)
            except TimeoutError:
                raise Unavailable(f"method {name} of site {self._site} takes too long") from None
            except IceProdError:
                raise
            except Exception as fault:
                log.warning("a method of the site failed", method=name, exc_info=fault)
                raise Refused(
                    "failed", f"method {name} failed: {type(fault).__name__}: {fault}"[:500]
                ) from fault
        return _packed(value)

    def _may(self, ref: TaskRef) -> bool:
        now_s = self._clock.monotonic_s()
        room, counted_s = self._rooms.pop(ref, (CALLS_BURST, now_s))
        room = min(CALLS_BURST, room + (now_s - counted_s) * CALLS_PER_S)
        self._rooms[ref] = (max(0.0, room - 1.0), now_s)
        while len(self._rooms) > ATTEMPTS_KNOWN:
            self._rooms.popitem(last=False)
        return room >= 1.0

    def _facts(self, call: SiteMethodCall, argument: Any) -> dict[str, Any]:
        """Where the task runs, and the methods there."""
        return {
            "site": self._site,
            "node": self._node_id,
            "time_ms": self._cluster.time_ms(),
            "methods": list(self.methods),
        }

    def _find_files(self, call: SiteMethodCall, argument: Any) -> dict[str, Any]:
        """A page of recorded files whose names match ``pattern``: of the job, or of the dataset that is followed."""
        given = argument if isinstance(argument, dict) else {}
        pattern, after = given.get("pattern"), given.get("after")
        if not isinstance(pattern, str):
            raise BadInput("find_files takes a pattern of file names")
        request = pilot_pb2.FindFilesRequest(dataset=call.dataset, job=call.job, pattern=pattern)
        if after is not None:
            request.more, (request.after_job, request.after_name) = True, _mark(after)
        reply = self._cluster.find_files(request)
        files: list[dict[str, Any]] = []
        size = 0
        for found in reply.files:
            entry = found.file
            size += 200 + len(entry.name) + sum(map(len, entry.urls))
            if size > BYTES_MAX // 2 and files:  # The rest with the next page.
                last = files[-1]
                return {"files": files, "after": [last["job"], last["name"]]}
            files.append(
                {
                    "dataset": found.dataset,
                    "job": found.job,
                    "name": entry.name,
                    "size_bytes": entry.size_bytes,
                    "sha256": entry.sha256,
                    "kind": entry.kind,
                    "checksums": dict(entry.checksums),
                    "urls": list(entry.urls),
                }
            )
        return {"files": files, "after": [reply.next_job, reply.next_name] if reply.more else None}


def installed_methods(*, reserved: Mapping[str, object]) -> dict[str, SiteMethod]:
    """Return the methods that packages announce; one that cannot be loaded is left out, and said so in the log."""
    found: dict[str, SiteMethod] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        if NAME.fullmatch(entry.name) is None or entry.name in reserved or entry.name == "record_file":
            log.warning("a method of the site has a name that cannot be", method=entry.name)
            continue
        try:
            method = getattr(import_module(entry.module), entry.attr)
        except (ImportError, AttributeError) as broken:
            log.warning("a method of the site cannot be loaded", method=entry.name, why=str(broken))
            continue
        found[entry.name] = method
    return found


def _mark(after: object) -> tuple[int, str]:
    """Return where a page ended; BadInput for what no page has given."""
    match after:
        case [int(job), str(name)] if type(job) is int and -(2**31) <= job < 2**32 and len(name) < 1_000:
            return job, name
    raise BadInput("find_files goes on after what the page before gave as `after`")


def _unpacked(content: bytes) -> Any:
    if len(content) > BYTES_MAX:
        raise BadInput(f"an argument of {len(content)} bytes is more than the {BYTES_MAX} allowed")
    try:
        return msgpack.unpackb(content, raw=False, strict_map_key=True)
    except Exception as wrong:  # msgpack documents no common base class for its errors
        raise BadInput(f"an argument is no MessagePack: {type(wrong).__name__}") from wrong


def _packed(value: Any) -> bytes:
    try:
        content: bytes = msgpack.packb(value)
    except Exception as wrong:
        raise Refused("failed", f"the answer cannot be carried: {wrong}"[:300]) from wrong
    if len(content) > BYTES_MAX:
        raise Refused("too_large", f"the answer has {len(content)} bytes, more than the {BYTES_MAX} allowed")
    return content
