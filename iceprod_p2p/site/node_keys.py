"""A node's keys and certificates in its data directory, and how a founder makes them all.

    DATA/keys/root.pem         whom the cluster believes (two roots during a rotation)
    DATA/keys/authority.*      this site's issuing authority
    DATA/keys/node.*           this node's own certificate (its chain) and key
    DATA/keys/passkey.key      the Ed25519 key that signs passkeys
    DATA/authority/root.*      the founder's only: the cluster's root; who can read it can make any identity
    DATA/authority/people.*    of voters: the authority by which this node vouches for people

A certificate file of an authority may hold, behind its own, that of its root's key by the root before.

Keys are 0600 and never leave; certificates travel.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from iceprod_p2p.base.errors import ConfigError
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.model.identity import PEOPLE, IdentityKind, identity_uri, node_server_name
from iceprod_p2p.security.ca import Authority, found_root
from iceprod_p2p.security.certificates import (
    PrivateKey,
    authority_claim,
    certificate_key,
    chain_from_pem,
    key_from_pem,
    key_to_pem,
    make_request,
    new_key,
    renewal_due_ms,
    to_pem,
)
from iceprod_p2p.security.identity import identity_of
from iceprod_p2p.security.keyfiles import (
    make_private_directory,
    read_public,
    read_secret,
    sync_directory,
    write_public,
    write_secret,
)
from iceprod_p2p.security.passkeys import (
    PasskeySigner,
    new_signing_key,
    signing_key_from_bytes,
    signing_key_to_bytes,
)
from iceprod_p2p.wire.channel import TlsMaterial

KEYS: Final = "keys"
AUTHORITY: Final = "authority"
BELONGS: Final = "run `iceprod-node init` or `join`; after its data were lost, `iceprod-node rejoin`"
PASSPHRASE_VARIABLE: Final = "ICEPROD_ROOT_PASSPHRASE_FILE"
PASSPHRASE_BYTES_MIN, PASSPHRASE_BYTES_MAX = 12, 1_023


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """What one running node holds; `root` and `people` are the founder's only."""

    cluster: str
    site: str
    node_id: str
    root_pem: bytes
    authority: Authority
    node_chain_pem: bytes
    node_key: PrivateKey = field(repr=False)
    signer: PasskeySigner
    root: Authority | None = None
    people: Authority | None = None
    root_is_locked: bool = False  # Its key is here, behind a passphrase that was not given.

    @property
    def server_name(self) -> str:
        """The DNS name in this node's certificate."""
        return node_server_name(self.node_id, site=self.site, cluster=self.cluster)

    @property
    def certificate(self) -> x509.Certificate:
        """This node's own certificate."""
        return chain_from_pem(self.node_chain_pem)[0]

    @property
    def tls(self) -> TlsMaterial:
        """What this node shows and trusts."""
        return TlsMaterial(self.node_chain_pem, key_to_pem(self.node_key), self.root_pem)

    def renewed(self, *, now_ms: int) -> NodeKeys:
        """Return these keys with a new certificate when the present one is past half of its life."""
        if now_ms < renewal_due_ms(self.certificate):
            return self
        return replace(
            self, node_chain_pem=issue_node(self.authority, self.node_key, self.node_id, now_ms=now_ms)
        )


def issue_node(authority: Authority, key: PrivateKey, node_id: str, *, now_ms: int) -> bytes:
    """Return the chain (node, authority) of a new certificate for a node of the authority's site."""
    uri = identity_uri(IdentityKind.NODE, node_id, site=authority.scope, cluster=authority.cluster)
    certificate = authority.issue(make_request(key, uri), kind=IdentityKind.NODE, name=node_id, now_ms=now_ms)
    return authority.chain(certificate)


def new_authority(root: Authority, scope: str, *, now_ms: int) -> Authority:
    """Make the issuing authority of a site or of people below `root`, with a key of its own."""
    key = new_key()
    request = make_request(key, authority_claim(scope, root.cluster))
    certificate = root.issue_authority(request, scope=scope, now_ms=now_ms)
    return Authority(root.cluster, scope, certificate, key, root.above)


def found_keys(*, cluster: str, site: str, node_id: str, now_ms: int) -> tuple[NodeKeys, bytes]:
    """Make every key and certificate of a new cluster's first node, and its signing key's secret bytes.

    Nothing is written.
    """
    signing_key = new_signing_key()
    root = found_root(cluster, new_key(), now_ms=now_ms)
    authority = new_authority(root, site, now_ms=now_ms)
    node_key = new_key()
    keys = NodeKeys(
        cluster=cluster,
        site=site,
        node_id=node_id,
        root_pem=to_pem(root.certificate),
        authority=authority,
        node_chain_pem=issue_node(authority, node_key, node_id, now_ms=now_ms),
        node_key=node_key,
        signer=PasskeySigner(signing_key, key_id=node_id, cluster=cluster, site=site),
        root=root,
        people=new_authority(root, PEOPLE, now_ms=now_ms),
    )
    return keys, signing_key_to_bytes(signing_key)


def issue_person(people: Authority, name: str, *, now_ms: int, lifetime_ms: int) -> tuple[bytes, bytes]:
    """Return chain and key, both PEM, of a person whose key is made here: for the founder's first
    administrator.
    """
    key = new_key()
    uri = identity_uri(IdentityKind.PERSON, name, site="", cluster=people.cluster)
    certificate = people.issue(
        make_request(key, uri), kind=IdentityKind.PERSON, name=name, now_ms=now_ms, lifetime_ms=lifetime_ms
    )
    return people.chain(certificate), key_to_pem(key)


@dataclass(frozen=True, slots=True)
class PendingKeys:
    """Keys of a node that asks to be admitted; no certificate is theirs yet."""

    node: PrivateKey = field(repr=False)
    authority: PrivateKey = field(repr=False)
    signing: Ed25519PrivateKey = field(repr=False)


def pending_keys(data_dir: Path) -> PendingKeys:
    """Return the keys with which this directory asks to be admitted: made and written once, so that a request
    whose answer was lost can be repeated with the same ones.
    """
    directory = data_dir / KEYS
    make_private_directory(directory)
    for name in ("node", "authority"):
        if not (directory / f"{name}.key").exists():
            write_secret(directory / f"{name}.key", key_to_pem(new_key()))
    signing = directory / "passkey.key"
    if not signing.exists():
        write_secret(signing, signing_key_to_bytes(new_signing_key()))
    return PendingKeys(
        _load_key(directory / "node.key"),
        _load_key(directory / "authority.key"),
        signing_key_from_bytes(read_secret(signing), name=str(signing)),
    )


def save_keys(
    data_dir: Path, keys: NodeKeys, signing_key: bytes, *, root_passphrase: bytes | None = None
) -> None:
    """Write everything down; the node's own certificate comes last, so that half a set is seen as none.

    With a passphrase the root's key is encrypted.
    """
    directory = data_dir / KEYS
    make_private_directory(data_dir)
    make_private_directory(directory)
    if keys.root is not None and keys.people is not None:
        make_private_directory(data_dir / AUTHORITY)
        _save_authority(data_dir / AUTHORITY / "root", keys.root, passphrase=root_passphrase)
        _save_authority(data_dir / AUTHORITY / "people", keys.people)
    write_public(directory / "root.pem", keys.root_pem)
    _save_authority(directory / "authority", keys.authority)
    write_secret(directory / "passkey.key", signing_key)
    write_secret(directory / "node.key", key_to_pem(keys.node_key))
    passing("node.keys.before")
    write_public(directory / "node.pem", keys.node_chain_pem)
    passing("node.keys.after")


def has_keys(data_dir: Path) -> bool:
    """Return whether a node was founded or has joined with this data directory."""
    return (data_dir / KEYS / "node.pem").exists()


def load_keys(
    data_dir: Path, *, cluster: str, site: str, node_id: str, environ: Mapping[str, str] = os.environ
) -> NodeKeys:
    """Read what `save_keys` wrote; ConfigError names the file that is missing, damaged or open to others.

    The passphrase of the root's key is in the file that ``$ICEPROD_ROOT_PASSPHRASE_FILE`` names; without it a
    root whose key is encrypted stays locked, and everything else works.
    """
    if not has_keys(data_dir):
        raise ConfigError(f"{data_dir} belongs to no cluster yet", remedy=BELONGS)
    directory = data_dir / KEYS
    founder = (data_dir / AUTHORITY / "root.key").exists()
    people = data_dir / AUTHORITY / "people"
    signing_key = signing_key_from_bytes(
        read_secret(directory / "passkey.key"), name=str(directory / "passkey.key")
    )
    root, locked = load_root(data_dir, cluster, environ) if founder else (None, False)
    keys = NodeKeys(
        cluster=cluster,
        site=site,
        node_id=node_id,
        root_pem=read_public(directory / "root.pem"),
        authority=load_authority(directory / "authority", cluster, site),
        node_chain_pem=read_public(directory / "node.pem"),
        node_key=_paired_key(directory / "node", chain_from_pem(read_public(directory / "node.pem"))[0]),
        signer=PasskeySigner(signing_key, key_id=node_id, cluster=cluster, site=site),
        root=root,
        root_is_locked=locked,
        people=load_authority(people, cluster, PEOPLE) if people.with_suffix(".pem").exists() else None,
    )
    _check_identity(keys, directory / "node.pem")
    return keys


def save_certificate(data_dir: Path, keys: NodeKeys) -> None:
    """Write a renewed certificate of the node."""
    write_public(data_dir / KEYS / "node.pem", keys.node_chain_pem)


def _check_identity(keys: NodeKeys, path: Path) -> None:
    found = identity_of(keys.certificate)
    if (found.cluster, found.site, found.name) != (keys.cluster, keys.site, keys.node_id):
        raise ConfigError(
            f"{path} is the certificate of {found.uri}, but site.toml names node {keys.node_id} "
            f"of site {keys.site} in cluster {keys.cluster}",
            remedy="name the site, id and cluster of that certificate in [node]",
        )


def read_passphrase(path: Path) -> bytes:
    """Return the first line of a file that only its owner may read; ConfigError when it is too short."""
    passphrase = read_secret(path).split(b"\n", 1)[0].rstrip(b"\r")
    if not PASSPHRASE_BYTES_MIN <= len(passphrase) <= PASSPHRASE_BYTES_MAX:
        raise ConfigError(
            f"the passphrase in {path} must have {PASSPHRASE_BYTES_MIN} to {PASSPHRASE_BYTES_MAX} bytes",
            remedy="write it on the first line",
        )
    return passphrase


def load_root(data_dir: Path, cluster: str, environ: Mapping[str, str]) -> tuple[Authority | None, bool]:
    """Read the cluster's root at its founder's; (None, True) when its key is locked by a passphrase."""
    stem = data_dir / AUTHORITY / "root"
    if b"ENCRYPTED" not in read_secret(stem.with_suffix(".key")):
        return load_authority(stem, cluster, ""), False
    given = environ.get(PASSPHRASE_VARIABLE, "")
    if not given:
        return None, True
    return load_authority(stem, cluster, "", passphrase=read_passphrase(Path(given))), False


def _save_authority(stem: Path, authority: Authority, *, passphrase: bytes | None = None) -> None:
    write_secret(stem.with_suffix(".key"), key_to_pem(authority.key, passphrase=passphrase))
    write_public(stem.with_suffix(".pem"), to_pem(authority.certificate, *authority.above))


def load_authority(stem: Path, cluster: str, scope: str, *, passphrase: bytes | None = None) -> Authority:
    """Read an authority from STEM.pem and STEM.key; ConfigError names what is missing or damaged."""
    chain = chain_from_pem(read_public(stem.with_suffix(".pem")), name=str(stem.with_suffix(".pem")))
    key = _paired_key(stem, chain[0], passphrase=passphrase)
    return Authority(cluster, scope, chain[0], key, chain[1:])


def next_key_path(stem: Path) -> Path:
    """Return where the key lies that takes the place of STEM.key once its certificate is in STEM.pem."""
    return stem.with_name(f"{stem.name}-next.key")


def _paired_key(stem: Path, certificate: x509.Certificate, *, passphrase: bytes | None = None) -> PrivateKey:
    """Read the key of a certificate: STEM.key, or the next one, when a turn of both was cut short between them."""
    path, following = stem.with_suffix(".key"), next_key_path(stem)
    key = _load_key(path, passphrase=passphrase)
    if key.public_key() != certificate_key(certificate) and following.exists():
        later = _load_key(following, passphrase=passphrase)
        if later.public_key() == certificate_key(certificate):
            following.rename(path)
            sync_directory(path.parent)
            return later
    return key


def _load_key(path: Path, *, passphrase: bytes | None = None) -> PrivateKey:
    return key_from_pem(read_secret(path), name=str(path), passphrase=passphrase)
