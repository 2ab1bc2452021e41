"""What every server does around every method: errors become statuses, and no traceback ever crosses the
wire.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
import grpc.aio

from iceprod_p2p.base.errors import IceProdError
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.wire.errors import to_status

_LOG = get_logger("wire")
_UNEXPECTED = "the node failed on this call; its log says why"


async def abort(context: Any, error: IceProdError) -> NoReturn:
    """End the present call with `error` as the caller's answer."""
    code, details, metadata = to_status(error)
    await context.abort(code, details, metadata)
    raise AssertionError("abort does not return")


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Turns an `IceProdError` from a method into its status; anything else into one fixed sentence and a
    log line.
    """

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Wrap the method's handler, whichever of gRPC's four kinds it is."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        if handler.unary_unary is not None:
            return _with(handler, unary_unary=_awaited(handler.unary_unary, method))
        if handler.stream_unary is not None:
            return _with(handler, stream_unary=_awaited(handler.stream_unary, method))
        if handler.unary_stream is not None:
            return _with(handler, unary_stream=_streamed(handler.unary_stream, method))
        return _with(handler, stream_stream=_streamed(handler.stream_stream, method))


def _with(handler: Any, **behaviour: Any) -> Any:
    return handler._replace(**behaviour)


def _awaited(behaviour: Any, method: str) -> Any:
    async def guarded(request: Any, context: Any) -> Any:
        try:
            return await behaviour(request, context)
        except Exception as failure:
            await _answer(context, failure, method)

    return guarded


def _streamed(behaviour: Any, method: str) -> Any:
    if not inspect.isasyncgenfunction(behaviour):
        return _awaited(behaviour, method)  # A coroutine that writes through the context.

    async def guarded(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for response in behaviour(request, context):
                yield response
        except Exception as failure:
            await _answer(context, failure, method)

    return guarded


async def _answer(context: Any, failure: Exception, method: str) -> None:
    if isinstance(failure, IceProdError):
        await abort(context, failure)
    if isinstance(failure, grpc.aio.AbortError):
        raise failure  # The method chose its own status.
    _LOG.error("call failed unexpectedly", method=method, exc_info=failure)
    await context.abort(grpc.StatusCode.INTERNAL, _UNEXPECTED)
