"""One node's end and the next one's beginning in the same data directory, in steps that can be repeated.

A data directory that was lost, copied, restored or damaged never counts again under its node's id.  What the
next node needs is made beside it, and put in its place only when the cluster has admitted the new id:

    DATA/next/succession.json   who follows whom, and whether the cluster knows
    DATA/next/keys, raft        the next node's; they become DATA/keys and DATA/raft by renames
    DATA/raft.of-OLD            what the old node had of the ledger, marked: it may be deleted

Whatever interrupts it, the same command goes on where it stopped; until it has, the node does not start.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from iceprod_p2p.base import config_text
from iceprod_p2p.base.config import SiteConfig
from iceprod_p2p.base.errors import BadInput, ConfigError, IceProdError, IntegrityError, NotAllowed, Refused
from iceprod_p2p.base.failpoints import passing
from iceprod_p2p.base.logs import get_logger
from iceprod_p2p.raft.founding import mark_retired
from iceprod_p2p.security.ca import Authority
from iceprod_p2p.security.certificates import is_in_time, new_key, to_pem
from iceprod_p2p.security.keyfiles import make_private_directory, read_public, write_secret
from iceprod_p2p.security.passkeys import PasskeySigner, new_signing_key, signing_key_to_bytes
from iceprod_p2p.security.random import new_node_id
from iceprod_p2p.site.founding import RAFT_DIRECTORY
from iceprod_p2p.site.node_keys import (
    AUTHORITY,
    KEYS,
    PASSPHRASE_VARIABLE,
    NodeKeys,
    has_keys,
    issue_node,
    load_authority,
    load_keys,
    load_root,
    new_authority,
    save_keys,
)
from iceprod_p2p.store.directory import lock_directory, sync_directory
from iceprod_p2p.store.environment import Environment
from iceprod_p2p.store.verify import verify_store

NEXT: Final = "next"
RECORD: Final = "succession.json"
log = get_logger("succession")


@dataclass(frozen=True, slots=True)
class Succession:
    """Node `new` follows node `old` by `command` (rejoin or restore); `admitted`: there is no way back."""

    command: str
    old: str
    new: str
    admitted: bool = False
    invited: bool = False  # What was made so far was made with an invitation.


def pending(data_dir: Path) -> Succession | None:
    """Return a succession that was begun and not finished; ConfigError when its record cannot be read."""
    path = data_dir / NEXT / RECORD
    try:
        return Succession(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as fault:
        raise ConfigError(
            f"{path} cannot be read: {fault}", remedy=f"delete {path.parent}, then run the command again"
        ) from fault


def require_none(data_dir: Path) -> None:
    """Raise ConfigError while a succession is unfinished: the node may not start between two ids."""
    found = pending(data_dir)
    if found is not None:
        raise ConfigError(
            f"node {found.old} is being replaced by {found.new}, and that was interrupted",
            remedy=f"go on with it: iceprod-node {found.command}",
        )


def begin(config: SiteConfig, command: str, *, old: str, new: str = "") -> Succession:
    """Return the unfinished succession of this directory, or begin one from `old` to `new` (empty: a new id)."""
    data_dir = config.node.data_dir
    make_private_directory(data_dir)
    found = pending(data_dir)
    if found is not None:
        if found.command != command or (new and new != found.new):
            raise ConfigError(
                f"an `iceprod-node {found.command}` to node {found.new} was interrupted here",
                remedy="go on with that one first",
            )
        return found
    if new == old:
        raise ConfigError(
            f"node {old} needs a new id: its own never votes again", remedy="leave out --node-id"
        )
    if not os.access(config.path, os.W_OK):
        raise ConfigError(f"{config.path} must be writable: the new node id is written there")
    succession = Succession(command, old, new or new_node_id(config.node.site))
    config_text.with_node_id(config.path.read_text("utf-8"), succession.new)  # It must be possible later.
    make_private_directory(data_dir / NEXT)
    note(data_dir, succession)
    return succession


def note(data_dir: Path, succession: Succession) -> None:
    """Write the record down, durably."""
    write_secret(data_dir / NEXT / RECORD, json.dumps(asdict(succession)).encode())


@contextlib.contextmanager
def given_up_when_refused(config: SiteConfig) -> Iterator[None]:
    """Forget what was made when it is certain that nothing came of it: the node may then start as it was."""
    try:
        yield
    except (BadInput, ConfigError, IntegrityError, NotAllowed, Refused):
        shutil.rmtree(config.node.data_dir / NEXT, ignore_errors=True)
        raise


@contextlib.contextmanager
def held(config: SiteConfig) -> Iterator[None]:
    """Hold the node's store, so that no process runs on it meanwhile; StoreLocked names the one that does."""
    path = config.node.data_dir / RAFT_DIRECTORY
    descriptor = lock_directory(path) if path.is_dir() else -1
    try:
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def next_keys(
    config: SiteConfig, succession: Succession, *, now_ms: int, environ: Mapping[str, str] = os.environ
) -> NodeKeys:
    """Return the next node's keys, made and written once: its site's authority stays where its key is, or is
    made anew where the cluster's root is.

    ConfigError when neither key is here: then only an invitation helps.
    """
    node, directory = config.node, config.node.data_dir / NEXT
    if has_keys(directory):
        return load_keys(directory, cluster=node.cluster, site=node.site, node_id=succession.new)
    authority, root_pem = _authority(config, now_ms, environ)
    node_key, signing_key = new_key(), new_signing_key()
    keys = NodeKeys(
        cluster=node.cluster,
        site=node.site,
        node_id=succession.new,
        root_pem=root_pem,
        authority=authority,
        node_chain_pem=issue_node(authority, node_key, succession.new, now_ms=now_ms),
        node_key=node_key,
        signer=PasskeySigner(signing_key, key_id=succession.new, cluster=node.cluster, site=node.site),
    )
    save_keys(directory, keys, signing_key_to_bytes(signing_key))
    return keys


def _authority(config: SiteConfig, now_ms: int, environ: Mapping[str, str]) -> tuple[Authority, bytes]:
    """Return the site's authority and the root's certificate."""
    node = config.node
    present, trouble = node.data_dir / KEYS / "authority", ""
    try:
        authority = load_authority(present, node.cluster, node.site)
        if is_in_time(authority.certificate, now_ms):
            return authority, read_public(node.data_dir / KEYS / "root.pem")
        trouble = f"the certificate of the authority of {node.site} has ended"
    except ConfigError as fault:
        trouble = fault.message
    if not (node.data_dir / AUTHORITY / "root.key").exists():
        raise ConfigError(
            f"the key of the authority of {node.site} is not here: {trouble}",
            remedy=f"ask an administrator (iceprod cluster invite {node.site}), then:"
            " iceprod-node rejoin INVITATION",
        )
    root, locked = load_root(node.data_dir, node.cluster, environ)
    if root is None:
        assert locked
        raise ConfigError(
            "the key of the cluster's root is locked by its passphrase",
            remedy=f"name the file that holds it in {PASSPHRASE_VARIABLE}",
        )
    return new_authority(root, node.site, now_ms=now_ms), to_pem(root.certificate)


def at_next(config: SiteConfig, succession: Succession) -> SiteConfig:
    """Return the configuration of the next node, with the directory in which it is made."""
    node = replace(config.node, id=succession.new, data_dir=config.node.data_dir / NEXT)
    return replace(config, node=node)


def finish(config: SiteConfig, succession: Succession) -> None:
    """Put what was made in its place; may be interrupted and repeated."""
    data_dir = config.node.data_dir
    directory = data_dir / NEXT
    if (directory / RAFT_DIRECTORY).exists():
        present = data_dir / RAFT_DIRECTORY
        if present.exists():
            _mark(present, succession)
            present.rename(_free_name(data_dir / f"{RAFT_DIRECTORY}.of-{succession.old}"))
        passing("node.succession.raft")
        (directory / RAFT_DIRECTORY).rename(present)
        sync_directory(data_dir)
    if (directory / KEYS).exists():
        if (data_dir / KEYS).exists():
            shutil.rmtree(directory / "keys.old", ignore_errors=True)
            (data_dir / KEYS).rename(directory / "keys.old")
        passing("node.succession.keys")
        (directory / KEYS).rename(data_dir / KEYS)
        sync_directory(data_dir)
    passing("node.succession.config")
    text = config_text.with_node_id(config.path.read_text("utf-8"), succession.new)
    scratch = config.path.with_name(f".{config.path.name}.new")
    scratch.write_text(text, "utf-8")
    shutil.copymode(config.path, scratch)
    scratch.replace(config.path)
    shutil.rmtree(directory)
    log.info("node id changed", old=succession.old, new=succession.new, command=succession.command)


def _mark(raft: Path, succession: Succession) -> None:
    """Mark the old store, if it can still be opened, so that it says why it does not start."""
    try:
        verify_store(raft).raise_first(raft)  # LMDB may end the process that opens a damaged one.
        store = Environment(raft, may_be_copy=True)
    except IceProdError as fault:
        log.warning("old store not marked", path=str(raft), why=fault.message)
        return
    try:
        mark_retired(store, f"node {succession.new} took its place")
    except IceProdError as fault:
        log.warning("old store not marked", path=str(raft), why=fault.message)
    finally:
        store.close()


def _free_name(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
