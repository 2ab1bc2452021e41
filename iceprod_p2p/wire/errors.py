"""Errors across the wire, both ways in one place: `base.errors` classes <-> gRPC status, sentence and
remedy kept.

A server raises an `IceProdError`; `wire.interceptors.ErrorInterceptor` turns it into a status with trailing
metadata. A client wraps calls in `rpc_errors()` (or uses `wire.calls`), and gets the same class with the
same words back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol, cast

import grpc

from iceprod_p2p.base.errors import (
    BadInput,
    ConfigError,
    IceProdError,
    IntegrityError,
    NotAllowed,
    NotFound,
    Refused,
    Unavailable,
    Unreachable,
)

REMEDY_KEY: Final = "iceprod-remedy-bin"  # `-bin` values may hold any byte, hence any language's letters.
CODE_KEY: Final = "iceprod-code"
RETRY_KEY: Final = "iceprod-retry-after-ms"
_MESSAGE_LENGTH_MAX: Final = (
    4_000  # Message and remedy together must fit the metadata limit of `wire.channel`.
)
_REMEDY_LENGTH_MAX: Final = 1_000
_RETRY_AFTER_S_MAX: Final = 600.0

Status = grpc.StatusCode
Metadata = tuple[tuple[str, str | bytes], ...]

# The first class that fits an error decides; ConfigError travels as BadInput: the file lies on the server.
_STATUS: Final[tuple[tuple[type[IceProdError], grpc.StatusCode], ...]] = (
    (BadInput, Status.INVALID_ARGUMENT),
    (ConfigError, Status.FAILED_PRECONDITION),
    (NotAllowed, Status.PERMISSION_DENIED),
    (NotFound, Status.NOT_FOUND),
    (Refused, Status.ABORTED),
    (Unavailable, Status.UNAVAILABLE),
    (IntegrityError, Status.DATA_LOSS),
    (IceProdError, Status.UNKNOWN),
)


class RpcFailure(Protocol):
    """What both gRPC stacks' exceptions offer."""

    def code(self) -> grpc.StatusCode | None:
        """The status."""
        ...

    def details(self) -> str | None:
        """The sentence."""
        ...

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Keys and values sent after the response."""
        ...


def to_status(error: IceProdError) -> tuple[grpc.StatusCode, str, Metadata]:
    """Return status, details and trailing metadata that carry `error` to the caller, bounded in size."""
    code = next(status for kind, status in _STATUS if isinstance(error, kind))
    metadata: list[tuple[str, str | bytes]] = []
    if error.remedy:
        metadata.append((REMEDY_KEY, error.remedy[:_REMEDY_LENGTH_MAX].encode()))
    if isinstance(error, Refused):
        metadata.append((CODE_KEY, str(error.code)))
    if isinstance(error, Unavailable):
        metadata.append((RETRY_KEY, str(int(error.retry_after_s * 1_000))))
    return code, error.message[:_MESSAGE_LENGTH_MAX], tuple(metadata)


def from_rpc_error(failure: RpcFailure, *, peer: str = "the node") -> IceProdError:
    """Return the error that a failed call stands for; `peer` names the server in sentences made on this side.

    Text from the other side is bounded and its control characters are shown, not sent to the terminal.
    """
    code, details = failure.code(), _shown(failure.details() or "", _MESSAGE_LENGTH_MAX)
    extra = _metadata(failure)
    remedy = _shown(extra.get(REMEDY_KEY, b"").decode("utf-8", "replace"), _REMEDY_LENGTH_MAX)
    if code is Status.INVALID_ARGUMENT:
        return BadInput(details, remedy=remedy)
    if code is Status.FAILED_PRECONDITION:
        return ConfigError(details, remedy=remedy)
    if code in (Status.PERMISSION_DENIED, Status.UNAUTHENTICATED):
        return NotAllowed(details, remedy=remedy)
    if code is Status.NOT_FOUND:
        return NotFound(details, remedy=remedy)
    if code is Status.ABORTED:
        word = extra.get(CODE_KEY, b"refused").decode("ascii", "replace")
        return Refused(_shown(word, 100), details, remedy=remedy)
    if code is Status.DATA_LOSS:
        return IntegrityError(details, remedy=remedy)
    if code is Status.UNIMPLEMENTED:
        return IceProdError(
            f"{peer} does not know this call", remedy="upgrade it, or call with an older program"
        )
    if code is Status.RESOURCE_EXHAUSTED and "larger than max" in details:
        return BadInput(
            f"a message to or from {peer} is too large: {details}", remedy="ask for or send less at once"
        )
    if code in (Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.CANCELLED, Status.RESOURCE_EXHAUSTED):
        return _unavailable(code, details, remedy, extra, peer)
    return IceProdError(details or f"{peer} failed with {code}", remedy=remedy)


@contextmanager
def rpc_errors(peer: str = "the node") -> Iterator[None]:
    """Raise the project's errors in place of gRPC's inside this block (asyncio or blocking calls and
    streams).
    """
    try:
        yield
    except grpc.RpcError as failure:
        raise from_rpc_error(cast(RpcFailure, failure), peer=peer) from None


def _unavailable(
    code: grpc.StatusCode, details: str, remedy: str, extra: dict[str, bytes], peer: str
) -> IceProdError:
    if RETRY_KEY in extra:  # The server itself said so, in its own words.
        return Unavailable(details, remedy=remedy, retry_after_s=_retry_after_s(extra[RETRY_KEY]))
    if code is Status.DEADLINE_EXCEEDED:
        return Unavailable(
            f"{peer} gave no answer in time", remedy="try again; `iceprod cluster status` tells more"
        )
    if code is Status.CANCELLED:
        return Unavailable(f"the call to {peer} was cancelled")
    if code is Status.RESOURCE_EXHAUSTED:
        return Unavailable(f"{peer} is busy", remedy="try again in a moment", retry_after_s=2.0)
    fault = _handshake_fault(details)
    if fault is not None:
        return NotAllowed(f"no secure connection to {peer}: {fault[0]}", remedy=fault[1])
    if "failed to connect" in details and any(sign in details for sign in _HUNG_UP):
        # All that a refused certificate looks like from here: the server hangs up after our half of the
        # handshake, or resets the connection when more of ours has come by then.
        return Unavailable(
            f"{peer} hung up during the handshake: it does not accept this certificate, or is just stopping",
            remedy="is this certificate in date and of this cluster?",
        )
    return Unreachable(
        f"cannot reach {peer}: {_reason(details)}", remedy="check that it is running and the address is right"
    )


_HUNG_UP: Final = ("Socket closed", "Connection reset by peer", "Broken pipe")

# What BoringSSL says -> what it means here.  The first word found decides.
_HANDSHAKE_FAULTS: Final[tuple[tuple[str, str, str], ...]] = (
    ("certificate has expired", "its certificate has expired", "renew it there, or set this machine's clock"),
    ("not yet valid", "its certificate is not valid yet", "set this machine's clock or the other's"),
    (
        "Hostname Verification",
        "it is another node than the one expected",
        "check the address in the member list",
    ),
    (
        "permitted subtree",
        "its certificate speaks for a site that is not its issuer's",
        "report it: it is forged",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its certificate is not of this cluster",
        "check the address and the cluster",
    ),
    ("CERTIFICATE_REQUIRED", "it asks for a certificate", "log in or enrol to get one"),
    ("EXPIRED", "it refuses this certificate as expired", "renew it: log in again or restart the node"),
    ("UNKNOWN_CA", "it refuses this certificate as of another cluster", "use the certificate of its cluster"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS", "check the port"),
    ("handshake failed", "the TLS handshake failed", "check address, certificate and clock"),
)


def _handshake_fault(details: str) -> tuple[str, str] | None:
    lowered = details.lower()
    for word, sentence, remedy in _HANDSHAKE_FAULTS:
        if word.lower() in lowered:
            return sentence, remedy
    return None


_STATUS_WORD: Final = re.compile(r"^[A-Z_]+: ")


def _reason(details: str) -> str:
    """The last part of gRPC's chain of causes, which is the one that a person can use."""
    reason = details.rpartition("last error: ")[2]
    return _STATUS_WORD.sub("", reason)[:300] or "no reason given"


def _retry_after_s(value: bytes) -> float:
    text = value.decode("ascii", "replace")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        return 0.5
    return min(int(text) / 1_000, _RETRY_AFTER_S_MAX)


def _metadata(failure: RpcFailure) -> dict[str, bytes]:
    pairs: Any = failure.trailing_metadata() or ()
    return {key: value.encode() if isinstance(value, str) else bytes(value) for key, value in pairs}


def _shown(text: str, length_max: int) -> str:
    """Bound `text` and make its control characters visible; line breaks stay, tabs too."""
    kept = text[:length_max]
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in kept)
