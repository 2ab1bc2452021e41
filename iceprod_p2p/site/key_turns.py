"""Files by which keys and certificates take turns, so that a crash at any point leaves a pair that fits.

STEM-next.key    a key whose certificate is asked for, or was just written
STEM-next.pem    its certificate, until the ledger lists it
STEM.pem         replaced first; then STEM-next.key becomes STEM.key (`node_keys` finishes that at load)
retiring.json    authorities that stand until nothing vouched for by them is left
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.security.certificates import (
    PrivateKey,
    certificate_key,
    chain_from_pem,
    key_from_pem,
    key_to_pem,
    new_key,
    to_pem,
)
from iceprod_p2p.security.keyfiles import (
    make_private_directory,
    read_public,
    read_secret,
    sync_directory,
    write_public,
    write_secret,
)
from iceprod_p2p.site.node_keys import next_key_path


@dataclass(frozen=True, slots=True)
class Retiring:
    """An authority of this node that another one has followed; `until_ms` is wall time."""

    scope: str
    certificate: bytes  # DER
    until_ms: int


def next_key(stem: Path, *, passphrase: bytes | None = None) -> PrivateKey:
    """Return the key that follows, made and written once; blocking."""
    path = next_key_path(stem)
    if path.exists():
        return key_from_pem(read_secret(path), name=str(path), passphrase=passphrase)
    make_private_directory(path.parent)
    key = new_key()
    write_secret(path, key_to_pem(key, passphrase=passphrase))
    return key


def next_chain(stem: Path) -> tuple[x509.Certificate, ...]:
    """Return the certificate of the key that follows, with what stands above it; empty when there is none yet."""
    path = _next_chain_path(stem)
    if not (path.exists() and next_key_path(stem).exists()):
        return ()
    return chain_from_pem(read_public(path), name=str(path))


def keep_next_chain(stem: Path, chain: Sequence[x509.Certificate]) -> None:
    """Keep the certificate of the key that follows; ConfigError when it is another key's."""
    key = next_key_path(stem)
    if not key.exists():
        raise ConfigError(f"there is no {key}", remedy="ask again")
    write_public(_next_chain_path(stem), to_pem(*chain))


def take_turn(stem: Path, chain_pem: bytes) -> None:
    """Put the key that follows, and this chain of its certificate, in the place of the present ones."""
    write_public(stem.with_suffix(".pem"), chain_pem)
    passing("node.turn.between")
    next_key_path(stem).rename(stem.with_suffix(".key"))
    _next_chain_path(stem).unlink(missing_ok=True)
    sync_directory(stem.parent)


def forget_next(stem: Path) -> None:
    """Drop what would have followed."""
    _next_chain_path(stem).unlink(missing_ok=True)
    next_key_path(stem).unlink(missing_ok=True)


def is_key_of(key: PrivateKey, certificate: x509.Certificate) -> bool:
    """Return whether a certificate is for this key."""
    return key.public_key() == certificate_key(certificate)


def load_retiring(path: Path) -> list[Retiring]:
    """Read which authorities retire; an unreadable list is an empty one, and is made anew from the ledger."""
    try:
        rows = json.loads(path.read_bytes())
        return [Retiring(str(row[0]), bytes.fromhex(row[1]), int(row[2])) for row in rows]
    except (OSError, ValueError, TypeError, IndexError):
        return []


def save_retiring(path: Path, retiring: Sequence[Retiring]) -> None:
    """Keep which authorities retire."""
    rows = [[entry.scope, entry.certificate.hex(), entry.until_ms] for entry in retiring]
    write_public(path, json.dumps(rows).encode())


def _next_chain_path(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}-next.pem")
