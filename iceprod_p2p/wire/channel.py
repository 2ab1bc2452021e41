"""The only door to gRPC channels, servers' ports and their TLS options.

Every connection is TLS 1.3 with P-256 certificates of the cluster.  gRPC for Python cannot be told to offer
TLS 1.3 alone, so an older version is refused at each call (`security.identity.peer_identity`).  A client
cannot see a server's URI: it dials the server by the unique DNS name in its certificate
(`model.identity.node_server_name`), whatever the address is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import grpc.aio

from iceprod_p2p.base.errors import BadInput, ConfigError
from iceprod_p2p.wire.addresses import Address, parse_address

Options = Mapping[str, int | str]

MESSAGE_BYTES_MAX: Final = (
    4 * 1024 * 1024
)  # Files and snapshots travel in pieces; one message stays a small burden.
CHUNK_BYTES: Final = 256 * 1024  # One piece of a streamed file: few calls, little memory per stream.
METADATA_BYTES_MAX: Final = 16 * 1024
CONCURRENT_STREAMS_MAX: Final = 100  # Per connection; bounds what one peer can open and reset in a burst.
READ_BYTES_MAX: Final = (
    128 * 1024
)  # At once from one connection, which gRPC otherwise lets grow to megabytes.
UNARY_TIMEOUT_S: Final = 10.0

_COMMON: Final[Options] = {
    "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
    "grpc.max_send_message_length": MESSAGE_BYTES_MAX,
    "grpc.max_metadata_size": METADATA_BYTES_MAX,
    "grpc.absolute_max_metadata_size": METADATA_BYTES_MAX,
}

_CHANNEL: Final[Options] = {
    **_COMMON,
    # A dead link under an open call is noticed in half a minute; idle channels (thousands of pilots) cost
    # nothing.
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.keepalive_permit_without_calls": 0,
    "grpc.http2.max_pings_without_data": 0,
    # A node that restarts is found again within seconds: losing a leader may stop progress for less than 5 s.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2_000,
    "grpc.min_reconnect_backoff_ms": 3_000,  # Also the time one attempt to connect may take.
    # Each channel has connections of its own, so that one that is closed and made anew really dials anew.
    "grpc.use_local_subchannel_pool": 1,
    # Site-wide http_proxy settings are for web pages; nodes are spoken to directly.
    "grpc.enable_http_proxy": 0,
    "grpc.service_config_disable_resolution": 1,
}

_SERVER: Final[Options] = {
    **_COMMON,
    "grpc.max_concurrent_streams": CONCURRENT_STREAMS_MAX,
    # Streams that have ended and are being freed do not count, or callers within the limit are refused now and then.
    "grpc.http2.max_deallocating_streams": CONCURRENT_STREAMS_MAX,
    "grpc.keepalive_time_ms": 60_000,
    "grpc.keepalive_timeout_ms": 20_000,
    "grpc.http2.min_recv_ping_interval_without_data_ms": 10_000,  # Half of what our own channels do.
    "grpc.http2.max_ping_strikes": 3,
    # gRPC (1.85) holds callers to the limit of headers only once they have acknowledged it, as every gRPC client does
    # before its first call; until then it is 16 MiB.  Who does not acknowledge is hung up on.
    "grpc.http2.settings_timeout": 20_000,
    "grpc.experimental.tcp_max_read_buffer_size": READ_BYTES_MAX,
    # Half-open TLS connections are let go; the default is two minutes.
    "grpc.server_handshake_timeout_ms": 10_000,
    # Without this two nodes could share one port silently, each getting half of the calls.
    "grpc.so_reuseport": 0,
}


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """What one party shows and trusts: its certificate first, then its issuer's; its key; the cluster's
    roots.

    All PEM.  During a rotation `root_pem` holds the old and the new root.  `anonymous` material has neither
    certificate nor key and serves clients of the enrolment port.
    """

    certificate_chain_pem: bytes
    private_key_pem: bytes = field(repr=False)
    root_pem: bytes

    @classmethod
    def anonymous(cls, root_pem: bytes) -> TlsMaterial:
        """Material of a client that has no certificate yet."""
        return cls(b"", b"", root_pem)


TlsSource = Callable[[], TlsMaterial]
"""Gives the present material; a server asks at every handshake, so certificates rotate while calls go on.
It is called on gRPC's own threads and must be quick (hand out what is in memory)."""


def secure_channel(
    address: str, tls: TlsMaterial, *, server_name: str, options: Options | None = None
) -> grpc.aio.Channel:
    """Open an asyncio channel to the server named `server_name` at `address` (``host:port``).

    Connects lazily; the first call tells whether it worked.  BadInput for a malformed address.  `options`
    replace single gRPC options of this module.  Close the channel with ``await channel.close()``.
    """
    target, credentials, arguments = _dial(address, tls, server_name, options)
    return grpc.aio.secure_channel(target, credentials, options=arguments)


def blocking_channel(
    address: str, tls: TlsMaterial, *, server_name: str, options: Options | None = None
) -> grpc.Channel:
    """Open a channel for synchronous code (command line, pilot); otherwise as `secure_channel`."""
    target, credentials, arguments = _dial(address, tls, server_name, options)
    return grpc.secure_channel(target, credentials, options=arguments)


def new_server(
    *,
    interceptors: Sequence[grpc.aio.ServerInterceptor[Any, Any]] = (),
    concurrent_calls_max: int | None = None,
    options: Options | None = None,
) -> grpc.aio.Server:
    """Make an asyncio server with the project's limits; calls above `concurrent_calls_max` are told to come
    back.
    """
    return grpc.aio.server(
        interceptors=list(interceptors),
        options=_as_arguments({**_SERVER, **(options or {})}),
        maximum_concurrent_rpcs=concurrent_calls_max,
    )


def add_secure_port(
    server: grpc.aio.Server, address: str, tls: TlsMaterial | TlsSource, *, require_client_certificate: bool
) -> Address:
    """Listen on `address` and return the address bound (port 0 chooses a free one).

    With `require_client_certificate` the handshake fails for callers without a certificate of the cluster;
    without it (enrolment) nobody is asked for one.  ConfigError when the port is taken or the address is
    not this machine's.
    """
    listen = parse_address(address, may_be_any_port=True)
    source = tls if callable(tls) else None
    material = source() if source is not None else tls
    assert isinstance(material, TlsMaterial)
    shows_root = not require_client_certificate  # Newcomers pin it by its fingerprint (`wire.pinned`).

    shown, one_at_a_time = material, threading.Lock()  # gRPC asks on several threads.

    def present() -> grpc.ServerCertificateConfiguration | None:
        # None: as before.  gRPC (1.85) replaces its credentials without a lock, so two handshakes at once that
        # both bring new ones can end the process: they are brought when they have changed, and not each time.
        nonlocal shown
        now = source() if source is not None else material
        with one_at_a_time:
            if now == shown:
                return None
            shown = now
        return _server_configuration(now, shows_root=shows_root)

    credentials = grpc.dynamic_ssl_server_credentials(
        _server_configuration(material, shows_root=shows_root),
        present,  # type: ignore[arg-type]  # The stubs do not know that None means "as before".
        require_client_authentication=require_client_certificate,
    )
    try:
        port = server.add_secure_port(str(listen), credentials)
    except RuntimeError as failure:
        raise _cannot_listen(listen) from failure
    if port == 0:
        raise _cannot_listen(listen)
    return Address(listen.host, port)


def _cannot_listen(listen: Address) -> ConfigError:
    return ConfigError(
        f"cannot listen on {listen}: the port is in use, not permitted, or not an address of this machine",
        remedy="stop the other program or choose another address in site.toml",
    )


def _server_configuration(material: TlsMaterial, *, shows_root: bool) -> grpc.ServerCertificateConfiguration:
    chain_pem = material.certificate_chain_pem + (material.root_pem if shows_root else b"")
    return grpc.ssl_server_certificate_configuration(
        [(material.private_key_pem, chain_pem)], material.root_pem
    )


def _dial(
    address: str, tls: TlsMaterial, server_name: str, options: Options | None
) -> tuple[str, grpc.ChannelCredentials, list[tuple[str, int | str]]]:
    if not server_name:
        raise BadInput("a channel needs the server's name in its certificate", remedy="pass server_name")
    target = str(parse_address(address))
    credentials = grpc.ssl_channel_credentials(
        tls.root_pem, tls.private_key_pem or None, tls.certificate_chain_pem or None
    )
    arguments = {**_CHANNEL, **(options or {}), "grpc.ssl_target_name_override": server_name}
    return target, credentials, _as_arguments(arguments)


def _as_arguments(options: Options) -> list[tuple[str, int | str]]:
    return list(options.items())
