"""Who may come in: every call and every message of an open stream is checked before the service sees it.

The TLS handshake has verified the certificate; here it must be TLS 1.3, of an authority that the ledger
lists, in date and not revoked, and the policy table must let this kind of caller (and role) call this method.
 Refusals are counted and logged.  Errors become statuses outside of this interceptor
 (`wire.interceptors.ErrorInterceptor`).
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, Protocol

import grpc.aio

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import NotAllowed, Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.model.identity import Identity, IdentityKind
from iceprod_p2p.model.person import Role
from iceprod_p2p.security import policy
from iceprod_p2p.security.identity import peer_identity, require_tls13
from iceprod_p2p.security.trust import Issuer, Trust
from iceprod_p2p.site.allowances import Allowances
from iceprod_p2p.wire.addresses import host_of

PEER: Final = "/iceprod.v1.Peer/"
LINK: Final = f"{PEER}Link"
UNARY_S_MAX: Final = 60.0  # No caller holds a unary call longer, whatever deadline it sends.
SILENCE_S_MAX: Final = 60.0  # Nor a call that sends messages, while none comes.
log = get_logger("access")


class Admission(Protocol):
    """What the ledger says of callers; answers come from memory."""

    def trust(self) -> Trust:
        """Whom the cluster believes now."""
        ...

    def admit_node(self, identity: Identity) -> None:
        """Raise NotAllowed for a node that was removed or whose site is banned."""
        ...

    def role_of(self, person: str) -> Role | None:
        """The role of a person, None for a stranger."""
        ...


class AccessInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Admits callers of the mutual-TLS port, or, with `anonymous`, those of the enrolment port."""

    def __init__(self, admission: Admission, clock: Clock, *, anonymous: bool = False) -> None:
        self._admission = admission
        self._clock = clock
        self._anonymous = anonymous
        self.refusals: Counter[str] = Counter()
        self.allowances = Allowances(clock)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Wrap the method's handler with the check, whichever of gRPC's four kinds it is."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        if handler.unary_unary is not None:
            return handler._replace(unary_unary=self._unary(handler.unary_unary, method))
        if handler.stream_unary is not None:
            return handler._replace(stream_unary=self._unary_of_stream(handler.stream_unary, method))
        if handler.unary_stream is not None:
            return handler._replace(unary_stream=self._stream(handler.unary_stream, method, reads=False))
        return handler._replace(stream_stream=self._stream(handler.stream_stream, method, reads=True))

    @contextmanager
    def admitted(self, context: Any, method: str) -> Iterator[None]:
        """The time of one call: NotAllowed unless the caller may make it, Unavailable when it makes too many."""
        identity = self.check(context, method)
        kind = identity.kind if identity is not None else None
        who = identity.actor if identity is not None else host_of(context.peer())
        with self.allowances.call(kind, who):
            yield

    def check(self, context: Any, method: str) -> Identity | None:
        """Return who calls, None on the enrolment port; NotAllowed unless the caller may make this call now."""
        identity: Identity | None = None
        try:
            if self._anonymous:
                require_tls13(context)
            else:
                identity = peer_identity(context)
                self._admit(identity, method)
            policy.require(method, identity, self._role(identity))
        except NotAllowed as refusal:
            self.refusals[method] += 1
            who = identity.actor if identity is not None else "unknown"
            log.warning("call refused", method=method, caller=who, peer=context.peer(), why=refusal.message)
            raise
        return identity

    def _admit(self, identity: Identity, method: str) -> None:
        trust, now_ms = self._admission.trust(), self._clock.wall_ms()
        if identity.kind is IdentityKind.NODE and method != LINK:
            self._admission.admit_node(identity)  # Links are admitted message by message, by the transport.
        if (
            method.startswith(PEER)
            and identity.kind is IdentityKind.NODE
            and identity.issuer not in trust.issuers
        ):
            # A newcomer, or a node that lags, learns of a member through the very link it would refuse.  The
            # handshake has shown that the cluster's root made the authority that vouches for this node.
            trust = replace(trust, issuers={identity.issuer: Issuer(identity.site, trust.roots[0])})
        trust.admit(identity, now_ms=now_ms)

    def _role(self, identity: Identity | None) -> Role | None:
        if identity is None or identity.kind is not IdentityKind.PERSON:
            return None
        return self._admission.role_of(identity.name)

    def _unary(self, behaviour: Any, method: str) -> Any:
        async def checked(request: Any, context: Any) -> Any:
            with self.admitted(context, method):
                try:
                    async with asyncio.timeout(UNARY_S_MAX):
                        return await behaviour(request, context)
                except TimeoutError as late:
                    raise Unavailable(
                        f"{method.rpartition('/')[2]} took longer than {UNARY_S_MAX:.0f} s"
                    ) from late

        return checked

    def _unary_of_stream(self, behaviour: Any, method: str) -> Any:
        async def checked(requests: Any, context: Any) -> Any:
            with self.admitted(context, method):
                return await behaviour(self._checked_messages(requests, context, method), context)

        return checked

    def _stream(self, behaviour: Any, method: str, *, reads: bool) -> Any:
        if not inspect.isasyncgenfunction(behaviour):
            return self._unary_of_stream(behaviour, method) if reads else self._unary(behaviour, method)

        async def checked(request: Any, context: Any) -> AsyncIterator[Any]:
            with self.admitted(context, method):
                source = self._checked_messages(request, context, method) if reads else request
                async for response in behaviour(source, context):
                    yield response

        return checked

    async def _checked_messages(self, requests: Any, context: Any, method: str) -> AsyncIterator[Any]:
        # The transport watches over its links by itself, and their messages are many.
        source = requests if method == LINK else _not_silent(requests, method)
        async for message in source:
            self.check(context, method)
            yield message


async def _not_silent(requests: Any, method: str) -> AsyncIterator[Any]:
    messages = aiter(requests)
    while True:
        try:
            async with asyncio.timeout(SILENCE_S_MAX):
                message = await anext(messages)
        except StopAsyncIteration:
            return
        except TimeoutError as silent:
            raise Unavailable(
                f"{method.rpartition('/')[2]} brought nothing for {SILENCE_S_MAX:.0f} s"
            ) from silent
        yield message
