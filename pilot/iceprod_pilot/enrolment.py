"""The pilot's own identity: a key made here, a short certificate for it, and both kept for a restart.

The enrolment secret is used once and its file removed; a lost reply is no harm, for the same secret with the same key
gives a certificate again.  The key stays the same for the pilot's whole life: passkeys are bound to it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cryptography.x509 import Certificate

from iceprod_p2p.base.clock import Clock
from iceprod_p2p.base.errors import ConfigError, IceProdError, NotAllowed, Unavailable
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.model.identity import IdentityKind, identity_uri
from iceprod_p2p.security import certificates, keyfiles
from iceprod_p2p.security.trust import succeeding_roots
from iceprod_p2p.wire.calls import call_blocking
from iceprod_p2p.wire.channel import TlsMaterial, blocking_channel
from iceprod_p2p.wire.pb import enrol_pb2, enrol_pb2_grpc
from iceprod_pilot.config import Node, PilotConfig

_LOG = get_logger("pilot.enrolment")
ENROL_TIMEOUT_S: Final = 8.0
_MARGIN_MS: Final = 60_000  # A kept certificate that ends sooner than this is not worth a restart.


class Credentials:
    """Key, certificate and root of this pilot.  Thread-safe; `material` is what channels are opened with."""

    def __init__(self, config: PilotConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._material: TlsMaterial | None = None
        self._renew_at_s = 0.0
        self.generation = 0
        self._root_pem = _pinned_root(config)
        directory = config.state_path
        self._key_path, self._chain_path = directory / "key.pem", directory / "chain.pem"
        self._roots_path = directory / "roots.pem"
        self._key = _load_key(self._key_path)
        self._keep_roots()
        self._adopt_kept()

    @property
    def enrolled(self) -> bool:
        """Whether there is a certificate in date."""
        return self._material is not None

    @property
    def root_pem(self) -> bytes:
        """The cluster's root as the keeper wrote it: whom this pilot believes."""
        return self._root_pem

    def material(self) -> tuple[TlsMaterial, int]:
        """Return the present material and its generation, which counts up with every new certificate."""
        with self._lock:
            if self._material is None:
                raise NotAllowed("the pilot has no certificate yet")
            return self._material, self.generation

    def renewal_due(self) -> bool:
        """Return whether half of the certificate's life is over."""
        return self._clock.monotonic_s() >= self._renew_at_s

    def postpone_renewal(self, seconds: float) -> None:
        """Try again later: no node could renew it now."""
        self._renew_at_s = self._clock.monotonic_s() + seconds

    def request_pem(self, site: str) -> bytes:
        """Return a request for this pilot's certificate, as an authority of `site` may sign it."""
        name = identity_uri(IdentityKind.PILOT, self._config.pilot, site=site, cluster=self._config.cluster)
        return certificates.make_request(self._key, name)

    def adopt(self, chain_pem: bytes, lifetime_s: float, root_pem: bytes = b"") -> None:
        """Take a new certificate into use and keep it; NotAllowed when it is not for this pilot's key.

        Of the roots that came along those are believed that the present ones vouch for.
        """
        chain = certificates.chain_from_pem(chain_pem)
        if certificates.certificate_key(chain[0]) != self._key.public_key():
            raise NotAllowed("the certificate that came is for another key than this pilot's")
        keyfiles.write_public(self._chain_path, chain_pem)
        if root_pem and root_pem != self._root_pem:
            self._learn_roots(root_pem, chain[2:])
        self._use(chain_pem, lifetime_s)

    def _use(self, chain_pem: bytes, lifetime_s: float) -> None:
        material = TlsMaterial(chain_pem, certificates.key_to_pem(self._key), self._root_pem)
        with self._lock:
            self._material = material
            self.generation += 1
            # Monotonic time: a worker node's wall clock may be wrong by hours.
            self._renew_at_s = self._clock.monotonic_s() + lifetime_s / 2

    def _learn_roots(self, told_pem: bytes, above: Sequence[Certificate]) -> None:
        known = certificates.chain_from_pem(self._root_pem)
        roots = succeeding_roots(known, certificates.chain_from_pem(told_pem), above)
        if roots != known:
            self._root_pem = certificates.to_pem(*roots)
            keyfiles.write_public(self._roots_path, self._root_pem)
            _LOG.info("roots of the cluster changed", roots=len(roots))

    def _keep_roots(self) -> None:
        """Believe the roots that an earlier life of this pilot had learnt."""
        if self._roots_path.exists():
            self._root_pem = keyfiles.read_public(self._roots_path)

    def _adopt_kept(self) -> None:
        """Take up the certificate of an earlier life of this pilot, when it is still good for a while."""
        try:
            chain_pem = keyfiles.read_public(self._chain_path)
            chain = certificates.chain_from_pem(chain_pem)
            mine = certificates.certificate_key(chain[0]) == self._key.public_key()
        except IceProdError:
            return
        left_ms = certificates.first_expiry_ms(chain) - self._clock.wall_ms()
        if mine and left_ms > _MARGIN_MS:
            self._use(chain_pem, left_ms / 1_000)


def enrol(config: PilotConfig, credentials: Credentials, nodes: Sequence[Node], *, host: str) -> list[Any]:
    """Exchange the secret for a certificate at the first node that gives one; return the member list it told.

    Unavailable when no node answers now (repeat); NotAllowed when a node refuses the secret; ConfigError when the
    secret cannot be read.  One round over all nodes, the order is kept.
    """
    secret = keyfiles.read_secret(Path(config.secret_file)).decode("utf-8", "replace").strip()
    refusal: NotAllowed | None = None
    silent = False
    for node in nodes:
        if not node.enrol_address:
            continue
        try:
            reply = _enrol_at(node, config, credentials, secret, host)
        except Unavailable as fault:
            _LOG.info("node did not enrol the pilot", node=node.node_id, why=fault.message)
            silent = silent or node.site == config.site
        except NotAllowed as fault:
            _LOG.warning("node refused the pilot", node=node.node_id, why=fault.message)
            refusal = refusal or fault
        else:
            credentials.adopt(reply.chain_pem, float(reply.lifetime_s), reply.root_pem)
            Path(config.secret_file).unlink(missing_ok=True)
            _LOG.info("pilot enrolled", node=node.node_id, lifetime_s=reply.lifetime_s)
            return list(reply.nodes)
    if refusal is None or silent:  # Only its own site's node may know the secret: that one's word counts.
        raise Unavailable(
            "no node enrolled the pilot", remedy="is the site's node running and reachable from here?"
        )
    raise refusal


def _enrol_at(node: Node, config: PilotConfig, credentials: Credentials, secret: str, host: str) -> Any:
    request = enrol_pb2.EnrolPilotRequest(
        pilot=config.pilot, secret=secret, csr_pem=credentials.request_pem(node.site), host=host
    )
    tls = TlsMaterial.anonymous(credentials.root_pem)
    channel = blocking_channel(node.enrol_address, tls, server_name=node.server_name)
    try:
        stub = enrol_pb2_grpc.EnrolStub(channel)
        return call_blocking(stub.EnrolPilot, request, timeout_s=ENROL_TIMEOUT_S, peer=f"node {node.node_id}")
    finally:
        channel.close()


def _pinned_root(config: PilotConfig) -> bytes:
    root_pem = config.root_pem.encode()
    roots = certificates.chain_from_pem(root_pem, name="root_pem")
    pinned = config.root_fingerprint.lower().replace(":", "")
    if pinned and all(certificates.fingerprint(root) != pinned for root in roots):
        raise ConfigError(
            "root_pem is not the certificate that root_fingerprint names",
            remedy="let the node write it again",
        )
    return root_pem


def _load_key(path: Path) -> certificates.PrivateKey:
    if path.exists():
        return certificates.key_from_pem(keyfiles.read_secret(path), name=str(path))
    key = certificates.new_key()
    keyfiles.write_secret(path, certificates.key_to_pem(key))
    return key
