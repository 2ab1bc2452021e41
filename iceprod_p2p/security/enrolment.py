"""How newcomers get in: one-time secrets, and the one line that invites a site.  Decisions only; services
act on them.

A secret is shown once and kept as a digest.  It is bound to one name and one expiry, and is good for one
public key: the same caller may repeat a call whose answer was lost, another key is refused.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from iceprod_p2p.base.errors import BadInput, NotAllowed
from iceprod_p2p.model.identity import is_host_label, is_site_name
from iceprod_p2p.security.ca import Authority
from iceprod_p2p.security.certificates import (
    PrivateKey,
    certificate_key,
    chain_from_pem,
    fingerprint,
    is_signed_by,
    key_digest,
    problem_of,
    to_der,
)
from iceprod_p2p.security.random import new_secret
from iceprod_p2p.security.trust import read_issuer

INVITE_LIFETIME_MS: Final = 900_000
_SECRET_LENGTH_MAX: Final = 200
_CONTEXT: Final = b"iceprod one-time secret\x00"
_PREFIX: Final = "iceprod-invite-1"
_LINE_LENGTH_MAX: Final = 1_000
_ADDRESS: Final = re.compile(r"[A-Za-z0-9_.\[\]:-]{3,270}")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}")


def secret_digest(secret: str) -> bytes:
    """Return the 32 bytes under which a secret is kept; secrets are random, so no slow digest is needed."""
    return sha256(_CONTEXT + secret.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class OneTimeSecret:
    """What is remembered of a secret: its digest, for whom it is, until when, and which key has used it (or
    none).
    """

    digest: bytes
    name: str
    expires_ms: int
    used_by: bytes = b""


def make_one_time_secret(name: str, *, now_ms: int, lifetime_ms: int) -> tuple[str, OneTimeSecret]:
    """Return a new secret, to be handed over once, and the record to keep of it."""
    secret = new_secret()
    return secret, OneTimeSecret(secret_digest(secret), name, now_ms + lifetime_ms)


def redeem(
    record: OneTimeSecret | None, secret: str, *, name: str, key_digest: bytes, now_ms: int
) -> OneTimeSecret:
    """Return `record` as used by the caller's key; NotAllowed when the secret does not let `name` in now.

    A record of None (no such name) answers as a wrong secret does, so that names cannot be probed.  Store
    the result before answering; redeeming again with the same key is accepted until the expiry and changes
    nothing.
    """
    expected = record.digest if record is not None else bytes(32)
    matches = hmac.compare_digest(expected, secret_digest(secret[:_SECRET_LENGTH_MAX]))
    if record is None or not matches or not hmac.compare_digest(record.name.encode(), name.encode()):
        raise NotAllowed("this secret is not valid for this name", remedy="ask for a new one")
    if now_ms >= record.expires_ms:
        raise NotAllowed(f"the secret for {name} has expired", remedy="ask for a new one")
    if record.used_by and not hmac.compare_digest(record.used_by, key_digest):
        raise NotAllowed(
            f"the secret for {name} was already used with another key", remedy="ask for a new one"
        )
    return replace(record, used_by=key_digest)


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a new site must know to join: where to call, whom to believe, and the word that lets it in."""

    cluster: str
    site: str
    enrol_address: str
    root_fingerprint: str
    token: str = field(repr=False)

    def __str__(self) -> str:
        """The one line that an administrator sends to the new site; it holds the secret."""
        parts = (self.cluster, self.site, self.enrol_address, self.root_fingerprint, self.token)
        body = "/".join((_PREFIX, *parts))
        return f"{body}/{_check_word(body)}"


def parse_invitation(line: str) -> Invitation:
    """Read an invitation as `str` wrote it, with or without ``iceprod-node join`` before it.

    BadInput says whether it is something else, was cut short or changed on its way, or is for a newer
    program.
    """
    remedy = "copy the whole line that `iceprod cluster invite` printed"
    if len(line) > _LINE_LENGTH_MAX:
        raise BadInput(f"an invitation has at most {_LINE_LENGTH_MAX} characters", remedy=remedy)
    text = (line.split() or [""])[-1]
    parts = text.split("/")
    if not parts[0].startswith("iceprod-invite-"):
        raise BadInput("this is not an invitation: it does not begin with iceprod-invite-", remedy=remedy)
    if parts[0] != _PREFIX:
        raise BadInput(
            f"this invitation is of another version: {parts[0][:40]}", remedy="upgrade iceprod first"
        )
    body, _, check = text.rpartition("/")
    if len(parts) != 7 or check != _check_word(body):
        raise BadInput("this invitation was cut short or changed on its way", remedy=remedy)
    _, cluster, site, address, root_fingerprint, token, _ = parts
    sound = (
        is_host_label(cluster)
        and is_site_name(site)
        and _ADDRESS.fullmatch(address)
        and _FINGERPRINT.fullmatch(root_fingerprint)
        and _TOKEN.fullmatch(token)
    )
    if not sound:
        raise BadInput("this invitation holds impossible names", remedy="ask for a new one")
    return Invitation(cluster, site, address, root_fingerprint, token)


def accept_authority(
    invitation: Invitation, key: PrivateKey, *, root_pem: bytes, authority_pem: bytes, now_ms: int
) -> Authority:
    """Return the new site's authority from what the cluster answered to the request for `key`.

    NotAllowed unless the root is the one of the invitation and has made, for this site and key, an issuing
    certificate that is in time; BadInput for damaged certificates.
    """
    root = chain_from_pem(root_pem, name="the root certificate")[0]
    if not hmac.compare_digest(fingerprint(root), invitation.root_fingerprint):
        raise NotAllowed(
            "the root certificate is not the one of the invitation", remedy="ask for a new invitation"
        )
    issuing = chain_from_pem(authority_pem, name="the issuing certificate")[0]
    read_issuer(to_der(issuing), scope=invitation.site, cluster=invitation.cluster)
    if not is_signed_by(issuing, root):
        raise NotAllowed("the issuing certificate was not made by this cluster's root")
    if key_digest(certificate_key(issuing)) != key_digest(key.public_key()):
        raise NotAllowed("the issuing certificate is for another key than this site's")
    problem = problem_of(issuing, now_ms) or problem_of(root, now_ms)
    if problem:
        raise NotAllowed(f"of the certificates that the cluster sent, {problem}")
    return Authority(invitation.cluster, invitation.site, issuing, key)


def sign_readmission(key: PrivateKey, *, cluster: str, words: Sequence[str | bytes]) -> bytes:
    """Return a node's signature under what it asks when it takes another's place; `words` in a fixed order."""
    return key.sign(_readmission(cluster, words), ec.ECDSA(hashes.SHA256()))


def check_readmission(
    certificate: x509.Certificate, signature: bytes, *, cluster: str, words: Sequence[str | bytes]
) -> None:
    """Raise NotAllowed unless the key of this certificate has signed these words."""
    try:
        certificate_key(certificate).verify(
            signature, _readmission(cluster, words), ec.ECDSA(hashes.SHA256())
        )
    except InvalidSignature:
        raise NotAllowed("what the node asks is not signed with the key of its certificate") from None


def _readmission(cluster: str, words: Sequence[str | bytes]) -> bytes:
    parts = [word.encode("utf-8", "surrogatepass") if isinstance(word, str) else word for word in words]
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in (cluster.encode(), *parts))
    return b"iceprod readmission\x00" + framed


def _check_word(body: str) -> str:
    """Eight digits that catch a slip of copying; they protect nothing else."""
    return sha256(body.encode("utf-8", "replace")).hexdigest()[:8]
